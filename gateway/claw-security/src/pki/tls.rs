//! The TLS side of the node port.

use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;

use super::{Certificate, CertificateAuthority, PkiError, PrivateKey};

/// The node port's TLS: version 1.3 only, the chain with the authority in it (so
/// that a joining node can pin it), and client certificates optional here, but
/// verified against the `trusted` authorities, and nothing else, when shown. Who may do what
/// is decided above TLS, by [`super::peer_node_id`].
///
/// Sessions are never resumed. A resumed session takes the client's certificate
/// from the first handshake without looking at it again, so an expired one would
/// live on; and nodes hold one long connection, which gains nothing from it.
///
/// # Errors
/// [`PkiError::Tls`] if key and certificate do not belong together.
pub fn server_tls_config(
    authority: &CertificateAuthority,
    trusted: &[CertificateDer<'static>],
    server_cert: &Certificate,
    server_key: &PrivateKey,
) -> Result<ServerConfig, PkiError> {
    // Named rather than taken from the process, so that no other crate's choice
    // of provider changes what this port speaks.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone())?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let chain = vec![server_cert.der.clone(), authority.cert_der().clone()];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, server_key.to_der())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
