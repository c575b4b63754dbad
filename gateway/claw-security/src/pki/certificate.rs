//! Certificates: what we issued, and who a peer is by its certificate.

use claw_proto::limits::CERTIFICATE_BACKDATED_S;
use claw_proto::time::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

use super::PkiError;
use crate::digest::Fingerprint;
use crate::text::{ID_CHARS_MAX, is_identifier, to_hex};

/// What every node id begins with.
const NODE_ID_PREFIX: &str = "node_";
/// What the URI in a node's certificate begins with; the node id follows.
const NODE_URI_PREFIX: &str = "claw://node/";

/// A certificate that the authority issued. Public, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM text.
    pub pem: String,
    /// DER bytes.
    pub der: CertificateDer<'static>,
    /// Serial number, lower-case hex without leading zeros.
    pub serial_hex: String,
    /// End of validity.
    pub not_after: Timestamp,
    /// SHA-256 of the DER.
    pub fingerprint: Fingerprint,
}

impl Certificate {
    /// The facts of a certificate just made.
    pub(super) fn from_issued(issued: rcgen::Certificate, serial_hex: String, not_after: Timestamp) -> Self {
        let pem = issued.pem();
        let der = CertificateDer::from(issued);
        let fingerprint = Fingerprint::of(&der);
        Self { pem, der, serial_hex, not_after, fingerprint }
    }
}

/// Who is at the other end of a connection, by its verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node's id, `node_…`.
    pub node_id: String,
    /// The certificate's serial number, lower-case hex without leading zeros.
    pub serial_hex: String,
    /// When it was issued, in whole seconds.
    pub issued_at: Timestamp,
    /// When the certificate ends. TLS checks it at the handshake only; a
    /// connection that lives longer than this is the caller's to end.
    pub not_after: Timestamp,
    /// SHA-256 of the certificate's DER.
    pub fingerprint: Fingerprint,
}

/// The node behind a connection: `certs` are the peer's certificates as rustls
/// gives them after it verified the chain under [`super::server_tls_config`].
///
/// # Errors
/// [`PkiError::NoPeerCertificate`] if the peer showed none (it may enroll);
/// [`PkiError::NotNodeCertificate`] if the certificate is not exactly of the form
/// that [`super::CertificateAuthority::sign_node`] gives.
pub fn peer_node_id(certs: &[CertificateDer<'_>]) -> Result<NodeIdentity, PkiError> {
    let leaf = certs.first().ok_or(PkiError::NoPeerCertificate)?;
    let refuse = |problem| PkiError::NotNodeCertificate { problem };
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| refuse("it is not an X.509 certificate"))?;
    if !rest.is_empty() {
        return Err(refuse("bytes follow the certificate"));
    }
    if certificate.is_ca() {
        return Err(refuse("it is a certificate authority"));
    }
    check_client_usage(&certificate).map_err(refuse)?;
    let node_id = node_id_in_uri(&certificate).map_err(refuse)?;
    if common_name(&certificate) != Some(node_id) {
        return Err(refuse("its common name and its URI name different nodes"));
    }
    Ok(NodeIdentity {
        node_id: node_id.to_owned(),
        serial_hex: serial_hex(certificate.raw_serial()),
        issued_at: timestamp(certificate.validity().not_before).plus_ms(CERTIFICATE_BACKDATED_S * 1_000),
        not_after: timestamp(certificate.validity().not_after),
        fingerprint: Fingerprint::of(leaf),
    })
}

fn check_client_usage(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    let usage = certificate.extended_key_usage().map_err(|_| "its extended key usage is malformed")?;
    match usage {
        Some(usage) if usage.value.client_auth && !usage.value.server_auth && !usage.value.any => Ok(()),
        Some(_) | None => Err("it is not for clients only"),
    }
}

fn node_id_in_uri<'a>(certificate: &X509Certificate<'a>) -> Result<&'a str, &'static str> {
    let names = certificate.subject_alternative_name().map_err(|_| "its alternative names are malformed")?;
    let names = names.map_or(&[] as &[GeneralName<'_>], |extension| &extension.value.general_names);
    let [GeneralName::URI(uri)] = names else {
        return Err("it does not have exactly one alternative name, a URI");
    };
    match uri.strip_prefix(NODE_URI_PREFIX) {
        Some(node_id) if is_node_id(node_id) => Ok(node_id),
        Some(_) | None => Err("its URI is not that of a node"),
    }
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    names.next().is_none().then_some(name)
}

/// Whether `text` has the shape of a node id. The full check (26 base32
/// characters) is `claw_proto::ids::NodeId`'s; this one makes sure that the id
/// can stand in a certificate and mean nothing else there.
pub(super) fn is_node_id(text: &str) -> bool {
    text.strip_prefix(NODE_ID_PREFIX).is_some_and(is_identifier) && text.len() <= ID_CHARS_MAX
}

/// The URI that names a node in its certificate.
pub(super) fn node_uri(node_id: &str) -> String {
    format!("{NODE_URI_PREFIX}{node_id}")
}

/// A serial number's canonical text: lower-case hex without leading zero bytes.
pub(super) fn serial_hex(bytes: &[u8]) -> String {
    let significant = bytes.iter().position(|byte| *byte != 0).map_or(&[] as &[u8], |start| &bytes[start..]);
    to_hex(significant)
}

/// A certificate's time as ours.
pub(super) fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_unix_ms(time.timestamp().saturating_mul(1_000))
}
