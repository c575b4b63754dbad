//! The whole chain with the real rustls on both sides: authority, join token,
//! request, certificate, handshake, identity. The two sides are connected in
//! memory and share a clock that stands still, so nothing here waits or races.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::time::Duration;

use claw_proto::time::Timestamp;
use claw_security::Fingerprint;
use claw_security::pki::{
    CertRequest, Certificate, CertificateAuthority, GATEWAY_SERVER_NAME, JoinToken, NodeIdentity, PkiError, PrivateKey,
    peer_node_id, server_tls_config,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ProtocolVersion,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};

const NOW: Timestamp = Timestamp::from_unix_ms(1_772_366_400_000);
const HOUR: Duration = Duration::from_hours(1);
const YEAR: Duration = Duration::from_hours(24 * 365);
const NODE: &str = "node_0000000000000000000000000a";

fn provider() -> Arc<CryptoProvider> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A clock that stands still.
#[derive(Debug, Clone, Copy)]
struct At(Timestamp);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.unix_ms().unsigned_abs())))
    }
}

/// What a joining node does: it knows nothing but the fingerprint of the authority.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = chain
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.fingerprint)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|_| CertificateError::UnknownIssuer)?
            .verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A gateway's port with its authority.
struct Gateway {
    authority: CertificateAuthority,
    config: Arc<ServerConfig>,
}

impl Gateway {
    fn new() -> Self {
        Self::at(NOW)
    }

    fn at(now: Timestamp) -> Self {
        let authority = CertificateAuthority::create("lab", NOW, YEAR).unwrap();
        let names = ["gw.example".to_owned()];
        let server = authority.issue_server(&names, &["192.0.2.7".parse().unwrap()], NOW, HOUR * 24).unwrap();
        let mut config =
            server_tls_config(&authority, &[authority.cert_der().clone()], &server.certificate, &server.key).unwrap();
        config.time_provider = Arc::new(At(now));
        Self { authority, config: Arc::new(config) }
    }

    fn node(&self, node_id: &str, now: Timestamp, validity: Duration) -> (Certificate, PrivateKey) {
        let request = CertRequest::generate().unwrap();
        (self.authority.sign_node(&request.csr_pem, node_id, now, validity).unwrap(), request.key)
    }
}

/// A client that pins an authority, with or without a certificate.
fn client(fingerprint: Fingerprint, identity: Option<(&Certificate, &PrivateKey)>, now: Timestamp) -> ClientConfig {
    let verifier = Pinned { fingerprint, provider: provider() };
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(At(now)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate.der.clone()], key.to_der()).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// Both ends after a handshake.
#[derive(Debug)]
struct Connected {
    client: ClientConnection,
    server: ServerConnection,
}

impl Connected {
    fn identity(&self) -> Result<NodeIdentity, PkiError> {
        peer_node_id(self.server.peer_certificates().unwrap_or_default())
    }
}

/// Shakes hands in memory; the error is that of the side which refused first.
fn connect(gateway: &Gateway, client: &Arc<ClientConfig>, name: &str) -> Result<Connected, rustls::Error> {
    let name = ServerName::try_from(name).unwrap().to_owned();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&gateway.config)).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(Connected { client, server })
}

fn refusal(gateway: &Gateway, client: ClientConfig) -> rustls::Error {
    connect(gateway, &Arc::new(client), GATEWAY_SERVER_NAME).expect_err("the handshake must be refused")
}

#[test]
fn a_node_joins_by_token_and_returns_by_certificate() {
    let gateway = Gateway::new();
    let made = JoinToken::generate("tok_a", gateway.authority.ca_fingerprint()).unwrap();
    let stored = made.hash_secret();

    // The node has the token's text and nothing else: no certificate, no root.
    let token = JoinToken::parse(&made.to_text()).unwrap();
    let anonymous = Arc::new(client(token.ca_fingerprint(), None, NOW));
    let joining = connect(&gateway, &anonymous, "gw.example").unwrap();
    assert!(matches!(joining.identity(), Err(PkiError::NoPeerCertificate)));
    assert!(token.verify(Some(&stored)));

    let (certificate, key) = gateway.node(NODE, NOW, HOUR);
    let config = Arc::new(client(token.ca_fingerprint(), Some((&certificate, &key)), NOW));
    for name in ["gw.example", "192.0.2.7", GATEWAY_SERVER_NAME] {
        let connected = connect(&gateway, &config, name).unwrap();
        assert_eq!(connected.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let identity = connected.identity().unwrap();
        assert_eq!((identity.node_id.as_str(), identity.serial_hex), (NODE, certificate.serial_hex.clone()));
    }
}

#[test]
fn a_gateway_of_another_authority_is_refused_by_the_node() {
    let (gateway, impostor) = (Gateway::new(), Gateway::new());
    let pinned = gateway.authority.ca_fingerprint();
    let error = refusal(&impostor, client(pinned, None, NOW));
    assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));

    // Nor does it help to show the pinned certificate beside a leaf of one's own.
    let own = impostor.authority.issue_server(&[], &[], NOW, HOUR).unwrap();
    let chain = vec![own.certificate.der.clone(), gateway.authority.cert_der().clone()];
    let config = ServerConfig::builder_with_details(provider(), Arc::new(At(NOW)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, own.key.to_der())
        .unwrap();
    let impostor = Gateway { authority: impostor.authority, config: Arc::new(config) };
    let error = refusal(&impostor, client(pinned, None, NOW));
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn a_wrong_name_or_an_expired_gateway_is_refused_by_the_node() {
    let gateway = Gateway::new();
    let pinned = gateway.authority.ca_fingerprint();
    let error = connect(&gateway, &Arc::new(client(pinned, None, NOW)), "other.example").unwrap_err();
    assert!(
        matches!(error, rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })),
        "{error}"
    );

    let later = NOW.plus_ms(25 * 3_600_000);
    let error = refusal(&gateway, client(pinned, None, later));
    assert!(matches!(error, rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })), "{error}");
}

#[test]
fn certificates_that_are_not_this_authoritys_are_refused_by_the_gateway() {
    let (gateway, other) = (Gateway::new(), Gateway::new());
    let pinned = gateway.authority.ca_fingerprint();

    // Same cluster name, same node id, another authority.
    let (certificate, key) = other.node(NODE, NOW, HOUR);
    let error = refusal(&gateway, client(pinned, Some((&certificate, &key)), NOW));
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");

    // The gateway's own certificate is for servers only.
    let server = gateway.authority.issue_server(&[], &[], NOW, HOUR).unwrap();
    let error = refusal(&gateway, client(pinned, Some((&server.certificate, &server.key)), NOW));
    assert!(
        matches!(error, rustls::Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. })),
        "{error}"
    );
}

#[test]
fn a_stolen_certificate_without_its_key_is_refused_by_the_gateway() {
    let gateway = Gateway::new();
    let (certificate, _) = gateway.node(NODE, NOW, HOUR);
    let (_, thiefs_key) = gateway.node("node_thief", NOW, HOUR);
    let provider = provider();
    let signing = provider.key_provider.load_private_key(thiefs_key.to_der()).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![certificate.der], signing);
    let mut config = client(gateway.authority.ca_fingerprint(), None, NOW);
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let error = refusal(&gateway, config);
    assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::BadSignature));
}

#[test]
fn a_certificate_counts_from_its_beginning_to_its_end() {
    let expired = |error: &rustls::Error| {
        matches!(error, rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))
    };
    let gateway = Gateway::new();
    let pinned = gateway.authority.ca_fingerprint();

    let (past, key) = gateway.node(NODE, NOW.plus_ms(-60_000), Duration::from_secs(30));
    let error = refusal(&gateway, client(pinned, Some((&past, &key)), NOW));
    assert!(expired(&error), "{error}");

    let (future, key) = gateway.node(NODE, NOW.plus_ms(3_600_000), HOUR);
    let error = refusal(&gateway, client(pinned, Some((&future, &key)), NOW));
    assert!(matches!(error, rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })), "{error}");

    // A clock that is four minutes behind ours does not lock a node out.
    let (ahead, key) = gateway.node(NODE, NOW.plus_ms(240_000), HOUR);
    connect(&gateway, &Arc::new(client(pinned, Some((&ahead, &key)), NOW)), GATEWAY_SERVER_NAME).unwrap();
}

/// A resumed session would take the certificate of the first handshake without
/// looking at it again: an expired node would stay in.
#[test]
fn no_session_is_resumed() {
    let gateway = Gateway::new();
    let (certificate, key) = gateway.node(NODE, NOW, HOUR);
    let config = Arc::new(client(gateway.authority.ca_fingerprint(), Some((&certificate, &key)), NOW));
    for _ in 0..3 {
        let connected = connect(&gateway, &config, GATEWAY_SERVER_NAME).unwrap();
        assert_eq!(connected.server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn older_tls_is_refused() {
    let gateway = Gateway::new();
    let mut roots = RootCertStore::empty();
    roots.add(gateway.authority.cert_der().clone()).unwrap();
    let config = ClientConfig::builder_with_details(provider(), Arc::new(At(NOW)))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let error = refusal(&gateway, config);
    assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error}");
}

#[test]
fn a_server_key_that_is_not_the_certificates_is_a_configuration_error() {
    let gateway = Gateway::new();
    let one = gateway.authority.issue_server(&[], &[], NOW, HOUR).unwrap();
    let other = gateway.authority.issue_server(&[], &[], NOW, HOUR).unwrap();
    let error =
        server_tls_config(&gateway.authority, &[gateway.authority.cert_der().clone()], &one.certificate, &other.key)
            .unwrap_err();
    assert!(matches!(error, PkiError::Tls(rustls::Error::InconsistentKeys(_))), "{error}");
}
