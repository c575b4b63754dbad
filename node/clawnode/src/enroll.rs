//! `clawnode join`: a one-time token becomes a certificate.
//!
//! The token carries the fingerprint of the cluster's authority. The server is
//! trusted only if that very certificate is in the chain it shows and its own
//! certificate verifies against it; there is no trust on first use, and the
//! system's certificate authorities mean nothing here. The private key is made
//! here and never leaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claw_proto::ids::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::endpoint::{Endpoint, EndpointError};

const PREFIX: &str = "clawjoin.v1.";
const SECRET_BYTES: usize = 32;
const FINGERPRINT_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// Longest time for the whole exchange.
const TIMEOUT_MS: u64 = 20_000;

/// How often a request is sent whose answer is lost.
const TRIES_MAX: u32 = 3;

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The address is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The token is not one.
    #[error("not a join token, or a damaged one; copy it again, whole")]
    Token,
    /// No key could be made.
    #[error("a key could not be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The gateway cannot be reached, or is not the one of the token.
    #[error("gateway {endpoint}: {source}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// What went wrong.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// No answer in time.
    #[error("gateway {endpoint} did not answer within {TIMEOUT_MS} ms")]
    Timeout {
        /// Where.
        endpoint: Endpoint,
    },
    /// The answer is not HTTP, or not what was asked for.
    #[error("gateway {endpoint} gave an answer that cannot be read: {problem}")]
    Answer {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong.
        problem: &'static str,
    },
    /// The gateway says no.
    #[error("gateway refused ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it says.
        message: String,
    },
}

/// A join token. Holds a secret: never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    text: String,
    token_id: String,
    secret: [u8; SECRET_BYTES],
    fingerprint: [u8; FINGERPRINT_BYTES],
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("token_id", &self.token_id).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// Reads a token: base64url of `n | id | secret | fingerprint | checksum`.
    ///
    /// # Errors
    /// [`EnrollError::Token`].
    pub fn parse(text: &str) -> Result<Self, EnrollError> {
        Self::read(text.trim()).ok_or(EnrollError::Token)
    }

    fn read(text: &str) -> Option<Self> {
        let payload = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (body, sum) = payload.split_at_checked(payload.len().checked_sub(CHECKSUM_BYTES)?)?;
        let digest = Sha256::new().chain_update(PREFIX).chain_update(body).finalize();
        if digest.get(..CHECKSUM_BYTES)? != sum {
            return None;
        }
        let (n, rest) = body.split_first()?;
        let (token_id, rest) = rest.split_at_checked(usize::from(*n))?;
        let (secret, fingerprint) = rest.split_at_checked(SECRET_BYTES)?;
        Some(Self {
            text: text.to_owned(),
            token_id: std::str::from_utf8(token_id).ok()?.to_owned(),
            secret: secret.try_into().ok()?,
            fingerprint: fingerprint.try_into().ok()?,
        })
    }
}

/// Trusts a server whose chain holds the pinned authority and leads to it.
#[derive(Debug)]
struct PinnedAuthority {
    fingerprint: [u8; FINGERPRINT_BYTES],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = |certificate: &&CertificateDer<'_>| Sha256::digest(certificate).as_slice() == self.fingerprint;
        let Some(authority) = intermediates.iter().find(pinned) else {
            return Err(rustls::CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Serialize)]
struct Request<'a> {
    token_id: &'a str,
    secret: String,
    csr_pem: &'a str,
    name: &'a str,
}

/// What the gateway answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Enrolled {
    /// The node's id.
    pub node_id: NodeId,
    /// Its certificate.
    pub certificate_pem: String,
    /// The cluster's authority.
    pub ca_pem: String,
    /// Where the gateway takes nodes.
    pub node_url: String,
}

/// Joins; returns the answer and the private key (PEM).
///
/// # Errors
/// [`EnrollError`].
pub async fn enroll(gateway_url: &str, token: &JoinToken, name: &str) -> Result<(Enrolled, String), EnrollError> {
    let endpoint = Endpoint::parse(gateway_url.trim_end_matches('/'), "https")?;
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let csr_pem = rcgen::CertificateParams::default().serialize_request(&pair)?.pem()?;
    let secret = URL_SAFE_NO_PAD.encode(token.secret);
    let request = Request { token_id: &token.token_id, secret, csr_pem: &csr_pem, name };
    let body = serde_json::to_vec(&request)
        .map_err(|_| EnrollError::Answer { endpoint: endpoint.clone(), problem: "request" })?;
    let answer = ask(&endpoint, token, &body).await?;
    let (status, body) = read_answer(&endpoint, &answer)?;
    if status != 200 {
        return Err(EnrollError::Refused { status, message: refusal_text(body) });
    }
    let problem = "it is not what enrollment yields";
    let enrolled = serde_json::from_slice(body).map_err(|_| EnrollError::Answer { endpoint, problem })?;
    Ok((enrolled, pair.serialize_pem()))
}

/// Sends the request; the very same again if the answer is lost, which the
/// gateway then gives once more although the token is used up.
async fn ask(endpoint: &Endpoint, token: &JoinToken, body: &[u8]) -> Result<Vec<u8>, EnrollError> {
    let mut tries = 1;
    loop {
        let exchange = post(endpoint, token, body);
        let answer = tokio::time::timeout(Duration::from_millis(TIMEOUT_MS), exchange).await;
        let answer = answer.map_err(|_| EnrollError::Timeout { endpoint: endpoint.clone() }).flatten();
        let answer = answer.and_then(|answer| read_answer(endpoint, &answer).map(drop).map(|()| answer));
        match answer {
            Err(error) if tries < TRIES_MAX && is_lost_answer(&error) => {
                tries += 1;
                tracing::warn!(%error, "the answer was lost; asking again");
            }
            answer => return answer,
        }
    }
}

/// The request may have arrived, and its answer did not.
fn is_lost_answer(error: &EnrollError) -> bool {
    use std::io::ErrorKind;

    match error {
        EnrollError::Connect { source, .. } => {
            matches!(source.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        }
        EnrollError::Timeout { .. } | EnrollError::Answer { .. } => true,
        EnrollError::Endpoint(_)
        | EnrollError::Token
        | EnrollError::Key(_)
        | EnrollError::Tls(_)
        | EnrollError::Refused { .. } => false,
    }
}

async fn post(endpoint: &Endpoint, token: &JoinToken, body: &[u8]) -> Result<Vec<u8>, EnrollError> {
    let connect_error = |source| EnrollError::Connect { endpoint: endpoint.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = PinnedAuthority { fingerprint: token.fingerprint, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let server_name = ServerName::try_from(endpoint.host.clone());
    let server_name = server_name.map_err(|_| connect_error(std::io::ErrorKind::InvalidInput.into()))?;
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(connect_error)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(server_name, tcp).await.map_err(connect_error)?;
    let head = format!(
        "POST /enroll HTTP/1.1\r\nHost: {endpoint}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.map_err(connect_error)?;
    stream.write_all(body).await.map_err(connect_error)?;
    stream.flush().await.map_err(connect_error)?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await {
        // A server may close without a farewell; the length tells if all came.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(connect_error(error)),
        Ok(_) | Err(_) => Ok(answer),
    }
}

/// Status and body of an HTTP answer.
fn read_answer<'a>(endpoint: &Endpoint, answer: &'a [u8]) -> Result<(u16, &'a [u8]), EnrollError> {
    let wrong = |problem| EnrollError::Answer { endpoint: endpoint.clone(), problem };
    let end =
        answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(|| wrong("it has no end of its head"))?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let head = std::str::from_utf8(head).map_err(|_| wrong("its head is not text"))?;
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(|| wrong("it has no status"))?;
    let header = |name: &str| {
        let mut pairs = head.split("\r\n").filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    if header("transfer-encoding").is_some() {
        return Err(wrong("it comes in chunks"));
    }
    match header("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if body.len() >= length => Ok((status, &body[..length])),
        Some(_) => Err(wrong("it was cut")),
        None => Ok((status, body)),
    }
}

/// The message of a refusal: its `message` if it is JSON, else its text, cut.
fn refusal_text(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests;
