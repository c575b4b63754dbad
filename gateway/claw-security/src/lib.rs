//! # claw-security: who may talk to the gateway, and how it is known
//!
//! - [`auth`] (claw-auth): API keys, the caller behind a request, roles.
//! - [`pki`] (claw-pki): the cluster's own certificate authority, node
//!   certificates, join tokens and the TLS side of the node port.
//! - [`secrets`] (claw-secrets): values at rest, sealed with the cluster's key.
//! - [`secret_file`]: private files on disk, written whole and read only if
//!   nobody else can read them.
//!
//! Time comes in as an argument; randomness is the operating system's. Nothing
//! secret has a `Display`, and every `Debug` of a secret is redacted.

pub mod auth;
pub mod pki;
pub mod secret_file;
pub mod secrets;

mod digest;
mod secret;
mod text;

pub use digest::{DigestParseError, Fingerprint, SecretHash};
pub use secret::RandomnessError;
pub use text::to_hex;
