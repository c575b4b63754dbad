//! `POST /enroll`: a one-time token against a certificate.
//!
//! The only thing that the node port does for a peer without a certificate. The
//! token pins the authority, so the machine knows whom it talks to before it
//! sends the secret; the core takes the token back in the same event that makes
//! the node. What can fail for another reason is tried before the token is used.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claw_gateway::{Caller, Cluster, Command, Report};
use claw_proto::ids::{NodeId, TokenId};
use claw_proto::time::Timestamp;
use claw_security::SecretHash;
use claw_security::pki::{Authorities, PkiError};
use claw_tools::refusal::{ErrorCode, Refusal};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};

use crate::control::SubmitError;
use crate::node_link::SharedPort;
use crate::serve::Peer;

/// Largest body; a certificate request is a few hundred bytes.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Addresses that are remembered before those without recent attempts are forgotten.
const ADDRESSES_MAX: usize = 10_000;
/// A machine whose answer was lost may ask the same again for so long, milliseconds.
const AGAIN_MS: i64 = 10 * 60 * 1_000;
/// Subject of the trial that is made before the token is used up.
const TRIAL_NODE_ID: &str = "node_00000000000000000000000000";

/// What enrolling needs.
pub(crate) struct Enrollment {
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) certificate_ttl: Duration,
    /// Where nodes reach this port: as configured, else as the machine did.
    advertised: Option<String>,
    listening: SocketAddr,
    /// What was enrolled lately: whoever lost the answer asks the same again.
    answered: Mutex<BTreeMap<TokenId, Answered>>,
    attempts: DefaultKeyedRateLimiter<IpAddr>,
}

/// An enrollment whose answer may have been lost.
#[derive(Debug, Clone, Copy)]
struct Answered {
    /// Digest of name and certificate request: the same machine asks again.
    request: SecretHash,
    node_id: NodeId,
    at: Timestamp,
}

impl std::fmt::Debug for Enrollment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrollment")
            .field("authorities", &self.authorities)
            .field("advertised", &self.advertised)
            .finish_non_exhaustive()
    }
}

impl Enrollment {
    pub(crate) fn new(
        authorities: Arc<Authorities>,
        certificate_ttl: Duration,
        advertised: Option<String>,
        listening: SocketAddr,
        attempts_per_minute: NonZeroU32,
    ) -> Self {
        Self {
            authorities,
            certificate_ttl,
            advertised,
            listening,
            answered: Mutex::default(),
            attempts: RateLimiter::keyed(Quota::per_minute(attempts_per_minute)),
        }
    }

    /// One attempt of this address.
    fn may_try(&self, addr: IpAddr) -> bool {
        if self.attempts.len() > ADDRESSES_MAX {
            self.attempts.retain_recent();
        }
        self.attempts.check_key(&network(addr)).is_ok()
    }

    /// The node that this very request has made, if that was a moment ago and nothing was taken back since: who
    /// holds a token and a request of a machine that was revoked gets no new certificate by them.
    fn answered(&self, fleet: &Cluster, token_id: TokenId, request: SecretHash, now: Timestamp) -> Option<NodeId> {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.retain(|_, known| now.ms_since(known.at) < AGAIN_MS);
        let known = answered.get(&token_id).filter(|known| known.request.constant_time_eq(&request))?;
        let node = fleet.nodes.get(known.node_id)?;
        node.revoked_at.is_none_or(|revoked_at| revoked_at < known.at).then_some(known.node_id)
    }

    fn note(&self, token_id: TokenId, answered: Answered) {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(token_id, answered);
    }

    /// Where the node shall connect. The machine has just reached us under the
    /// name that it used, so without a configured one that name is as good.
    fn node_url(&self, headers: &HeaderMap) -> String {
        let used = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .filter(|host| host.parse::<axum::http::uri::Authority>().is_ok());
        let authority = match (&self.advertised, used) {
            (Some(advertised), _) => advertised.clone(),
            (None, Some(used)) => used.to_owned(),
            (None, None) => self.listening.to_string(),
        };
        format!("wss://{authority}/node")
    }
}

/// Whoever has one address of an IPv6 network has 2⁶⁴ of them.
fn network(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => addr,
        IpAddr::V6(v6) => {
            let bits = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
    }
}

/// What a machine sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrollRequest {
    /// Public half of the token.
    token_id: String,
    /// Its secret, base64url without padding.
    secret: String,
    /// Certificate request, PEM.
    csr_pem: String,
    /// Wished name.
    name: String,
}

/// What it gets.
#[derive(Debug, Serialize)]
struct EnrollReply {
    node_id: String,
    certificate_pem: String,
    ca_pem: String,
    node_url: String,
}

/// The handler.
pub(crate) async fn enroll(
    State(port): State<SharedPort>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Result<Json<EnrollRequest>, JsonRejection>,
) -> Response {
    let enrolled = match (port.enrollment.may_try(peer.addr.ip()), body) {
        (false, _) => Err(Refusal::new(
            ErrorCode::RateLimited,
            "too many enrollment attempts from this address; try again in a minute",
        )),
        (true, Err(rejection)) => Err(Refusal::new(ErrorCode::InvalidArgument, rejection.body_text())),
        (true, Ok(Json(request))) => admit(&port, &headers, request).await,
    };
    match enrolled {
        Ok(reply) => {
            tracing::info!(addr = %peer.addr, node_id = reply.node_id, "node enrolled");
            Json(reply).into_response()
        }
        Err(refusal) => {
            tracing::warn!(addr = %peer.addr, %refusal, "enrollment refused");
            (status(refusal.code), Json(refusal)).into_response()
        }
    }
}

fn status(code: ErrorCode) -> StatusCode {
    let statuses = [
        (ErrorCode::TokenInvalid, StatusCode::FORBIDDEN),
        (ErrorCode::InvalidState, StatusCode::CONFLICT),
        (ErrorCode::RateLimited, StatusCode::TOO_MANY_REQUESTS),
        (ErrorCode::JournalUnavailable, StatusCode::SERVICE_UNAVAILABLE),
        (ErrorCode::ShuttingDown, StatusCode::SERVICE_UNAVAILABLE),
    ];
    let status = statuses.iter().find(|(refused, _)| *refused == code);
    status.map_or(StatusCode::BAD_REQUEST, |(_, status)| *status)
}

async fn admit(port: &SharedPort, headers: &HeaderMap, request: EnrollRequest) -> Result<EnrollReply, Refusal> {
    let invalid = || {
        Refusal::new(
            ErrorCode::TokenInvalid,
            "the enrollment token is not valid; make a new one with node_token_create",
        )
    };
    let EnrollRequest { token_id, secret, csr_pem, name } = request;
    let token_id: TokenId = token_id.parse().map_err(|_| invalid())?;
    let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| invalid())?;
    let hash = SecretHash::of(&secret);
    if !holds(&port.control.snapshot(), token_id, hash) {
        return Err(invalid());
    }
    // A request that cannot be certified must not cost the token.
    let sign = |node_id: &str, now: Timestamp| {
        let enrollment = &port.enrollment;
        enrollment.authorities.issuer().sign_node(&csr_pem, node_id, now, enrollment.certificate_ttl)
    };
    sign(TRIAL_NODE_ID, port.control.now()).map_err(|error| not_certified(port, &error))?;
    let request = SecretHash::of(format!("{name}\n{csr_pem}").as_bytes());
    let known = port.enrollment.answered(&port.control.snapshot(), token_id, request, port.control.now());
    let node_id = if let Some(node_id) = known {
        node_id
    } else {
        let node_id = enter(port, token_id, hash, name).await?;
        port.enrollment.note(token_id, Answered { request, node_id, at: port.control.now() });
        node_id
    };
    let certificate =
        sign(&node_id.to_string(), signing_time(port, node_id)).map_err(|error| not_certified(port, &error))?;
    Ok(EnrollReply {
        node_id: node_id.to_string(),
        certificate_pem: certificate.pem,
        ca_pem: port.enrollment.authorities.trusted_pem(),
        node_url: port.enrollment.node_url(headers),
    })
}

/// The core takes the token back and makes the node.
async fn enter(port: &SharedPort, token_id: TokenId, hash: SecretHash, name: String) -> Result<NodeId, Refusal> {
    let command = Command::NodeEnroll { token_id, secret_hash: hash.to_string(), name };
    match port.control.submit(command, Caller::system(port.control.now())).await {
        Ok(Report::Enrolled { node_id }) => Ok(node_id),
        Ok(Report::Registered { .. } | Report::Outcome { .. } | Report::Done) => {
            Err(unavailable("the core gave another report".into()))
        }
        Err(SubmitError::Refused(refusal)) => Err(*refusal),
        Err(SubmitError::Fault(fault)) => Err(unavailable(format!("{} ({})", fault.message, fault.fault_id))),
    }
}

/// Certificates tell whole seconds: one that was made in the second of a
/// revocation must not look older than it.
fn signing_time(port: &SharedPort, node_id: NodeId) -> Timestamp {
    let now = port.control.now();
    let revoked_at = port.control.snapshot().nodes.get(node_id).and_then(|node| node.revoked_at);
    let next_second = revoked_at.map(|at| Timestamp::from_unix_ms((at.unix_ms().div_euclid(1_000) + 1) * 1_000));
    next_second.map_or(now, |second| second.max(now))
}

/// Whether the secret is that of the token, in constant time; only who holds it
/// makes us sign anything. Whether the token still counts is the core's to say.
fn holds(cluster: &Cluster, token_id: TokenId, hash: SecretHash) -> bool {
    let stored = cluster.tokens.get(&token_id).and_then(|token| token.secret_hash.parse::<SecretHash>().ok());
    let decoy = SecretHash::from_bytes([0; 32]);
    hash.constant_time_eq(&stored.unwrap_or(decoy)) && stored.is_some()
}

fn not_certified(port: &SharedPort, error: &PkiError) -> Refusal {
    let is_callers = matches!(
        error,
        PkiError::RequestTooLarge { .. }
            | PkiError::RequestMalformed { .. }
            | PkiError::RequestSignature
            | PkiError::RequestWantsAuthority
            | PkiError::KeyNotAccepted { .. }
    );
    if is_callers {
        return Refusal::new(ErrorCode::InvalidArgument, error.to_string()).with_field("csr_pem", "");
    }
    let fault = port.control.fault("the certificate could not be made", error);
    unavailable(format!("{} ({})", fault.message, fault.fault_id))
}

fn unavailable(message: String) -> Refusal {
    Refusal::new(ErrorCode::JournalUnavailable, message)
}
