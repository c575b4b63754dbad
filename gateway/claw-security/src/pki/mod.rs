//! # claw-pki: the cluster's own certificate authority
//!
//! ```text
//!   first start           join                          every connection
//!   CertificateAuthority ─ fingerprint ─► JoinToken ─►  node
//!         │ sign_node(CSR, node id)  ◄──  CertRequest ─┘
//!         ▼
//!   Certificate{CN=node id, URI=claw://node/<id>} ─► TLS 1.3 ─► peer_node_id
//! ```
//!
//! Invariants:
//! - A certificate says what the *gateway* decided: of a request only the public
//!   key is taken, and only after its holder proved to have the private one.
//! - Node certificates are for clients only, server certificates for servers only;
//!   neither can sign, and no certificate outlives the authority.
//! - A connection is a node's only if [`peer_node_id`] says so; TLS alone lets
//!   clients without a certificate in, for the sake of `/enroll`.

mod authorities;
mod authority;
mod certificate;
mod join_token;
mod request;
mod revocation;
mod tls;

use std::path::PathBuf;

use claw_proto::time::Timestamp;

use crate::secret::RandomnessError;
use crate::secret_file::SecretFileError;

pub use authorities::{Authorities, RolloverPhase};
pub use authority::{CertificateAuthority, GATEWAY_SERVER_NAME, IssuedServer};
pub use certificate::{Certificate, NodeIdentity, peer_node_id};
pub use join_token::{JoinToken, JoinTokenError};
pub use request::{CSR_BYTES_MAX, CertRequest, PrivateKey};
pub use revocation::RevocationList;
pub use tls::server_tls_config;

/// Why a certificate was not made, not accepted or not found.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The request is longer than [`CSR_BYTES_MAX`].
    #[error("the certificate request has {bytes} bytes, more than {max_bytes}")]
    RequestTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The request is not one PEM-encoded PKCS #10 structure.
    #[error("the certificate request is malformed: {problem}")]
    RequestMalformed {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The request is not signed by the key it is about.
    #[error("the certificate request is not signed by the key it is about")]
    RequestSignature,
    /// The request asks for a certificate that can sign others.
    #[error("the certificate request asks for a certificate authority")]
    RequestWantsAuthority,
    /// The request's key is of a kind we do not certify.
    #[error(
        "the key of the certificate request is not ECDSA P-256, ECDSA P-384 or Ed25519 (its algorithm is {algorithm_oid})"
    )]
    KeyNotAccepted {
        /// Object identifier of the key's algorithm.
        algorithm_oid: String,
    },
    /// Not a node id: `node_` and lower-case letters, digits, underscores.
    #[error("{got:?} is not a node id (node_ and lower-case letters or digits, at most 64 characters)")]
    NodeId {
        /// What was given, cut to 64 characters.
        got: String,
    },
    /// The cluster's name cannot stand in a certificate.
    #[error("{got:?} is not a cluster name (1 to 64 characters, none of them control characters)")]
    ClusterName {
        /// What was given, cut to 64 characters.
        got: String,
    },
    /// A name for the server certificate is not a DNS name.
    #[error("{got:?} is not a DNS name")]
    DnsName {
        /// What was given, cut to 64 characters.
        got: String,
    },
    /// A time that a certificate cannot state, or an empty span.
    #[error("a certificate cannot be valid for {validity_ms} ms from {now}")]
    Validity {
        /// The start.
        now: Timestamp,
        /// The span asked for.
        validity_ms: u128,
    },
    /// The authority itself is not valid at this time, so nothing it signs would be.
    #[error("the certificate authority is valid from {not_before} to {not_after}, and it is {now} now")]
    AuthorityNotValid {
        /// When the authority becomes valid.
        not_before: Timestamp,
        /// When it stops being valid.
        not_after: Timestamp,
        /// The time of the attempt.
        now: Timestamp,
    },
    /// The authority's file does not hold a usable authority.
    #[error("{} does not hold the certificate authority: {problem}", path.display())]
    AuthorityFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A step of replacing the authority could not be made durable.
    #[error("{}: {source}", path.display())]
    AuthorityStep {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The peer showed no certificate: it may enroll and nothing else.
    #[error("the connection has no client certificate")]
    NoPeerCertificate,
    /// The peer's certificate is not one that [`CertificateAuthority::sign_node`] makes.
    #[error("the certificate is not a node's: {problem}")]
    NotNodeCertificate {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The certificate, or every certificate of the node, was revoked.
    #[error("certificate {serial_hex} of {node_id} is revoked")]
    Revoked {
        /// The node.
        node_id: String,
        /// The certificate's serial number.
        serial_hex: String,
    },
    /// Encoding or signing failed.
    #[error("cannot make a certificate")]
    Generate(#[from] rcgen::Error),
    /// rustls refused the configuration.
    #[error("cannot configure TLS")]
    Tls(#[from] rustls::Error),
    /// rustls refused the authority as a root of client certificates.
    #[error("cannot verify client certificates")]
    ClientVerifier(#[from] rustls::server::VerifierBuilderError),
    /// The authority's file could not be read or written.
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    /// No randomness for a serial number or a key.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect-test writes raw strings with hashes")]
mod tests;
