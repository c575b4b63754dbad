//! Who calls: host and origin checks, the API key, the rate.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use claw_gateway::Caller;
use claw_gateway::cluster::KeyEntry;
use claw_proto::ids::KeyId;
use claw_security::auth::{AuthError, Authenticator, StoredKey};
use claw_tools::refusal::{ErrorCode, Refusal};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::FaceConfig;
use super::rest::refusal_response;
use crate::control::ControlPlane;

/// Principals whose rate is remembered before idle ones are forgotten.
const PRINCIPALS_REMEMBERED_MAX: usize = 10_000;

type Keys = imbl::OrdMap<KeyId, Arc<KeyEntry>>;

/// What stands before every face.
#[derive(Clone)]
pub struct Guard {
    control: ControlPlane,
    hosts: Arc<Vec<String>>,
    origins: Arc<Vec<String>>,
    rates: Arc<DefaultKeyedRateLimiter<String>>,
    known: Arc<Mutex<(Keys, Authenticator)>>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

impl Guard {
    pub(super) fn new(control: ControlPlane, config: &FaceConfig) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota =
            Quota::per_second(at_least_one(config.requests_per_s)).allow_burst(at_least_one(config.requests_burst));
        Self {
            control,
            hosts: Arc::new(config.allowed_hosts.clone()),
            origins: Arc::new(config.allowed_origins.clone()),
            rates: Arc::new(RateLimiter::keyed(quota)),
            known: Arc::new(Mutex::new((Keys::new(), Authenticator::default()))),
        }
    }

    /// The authenticator over the durable keys, made anew when they changed.
    fn authenticator(&self) -> Authenticator {
        let keys = self.control.snapshot().keys.clone();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.0.ptr_eq(&keys) {
            let stored: BTreeMap<String, StoredKey> = keys.values().filter_map(|k| stored(k)).collect();
            *known = (keys, Authenticator::new(stored));
        }
        known.1.clone()
    }

    /// Who sends a request with these headers.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let value = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let now = self.control.now();
        let context = self.authenticator().authenticate(value, now)?;
        Ok(Caller {
            principal: context.principal,
            kind: context.kind,
            role: context.role,
            key_id: context.key_id.parse().ok(),
            now,
            reason: String::new(),
        })
    }

    /// One more call of a principal is within its rate; counts it.
    pub(super) fn within_rate(&self, principal: &str) -> bool {
        if self.rates.len() > PRINCIPALS_REMEMBERED_MAX {
            self.rates.retain_recent();
        }
        self.rates.check_key(&principal.to_owned()).is_ok()
    }

    /// A host that every check of hosts lets pass: rmcp wants the form of one as well.
    pub(super) fn knows_host(&self, host: &str) -> bool {
        host.parse::<Authority>().is_ok() && is_allowed_host(host, &self.hosts)
    }
}

fn stored(key: &KeyEntry) -> Option<(String, StoredKey)> {
    let stored = StoredKey {
        hash: key.secret_hash.parse().ok()?,
        role: key.role,
        kind: key.kind,
        principal: key.principal.clone(),
        revoked: key.revoked,
        expires_at: key.expires_at,
    };
    Some((key.key_id.to_string(), stored))
}

/// Refuses pages of other sites (Origin) and names that are not ours (Host): a
/// browser on this machine must not be made to call the gateway.
pub(super) async fn check_host_and_origin(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let host = host.or_else(|| request.uri().authority().map(ToString::to_string)).unwrap_or_default();
    if !is_allowed_host(&host, &guard.hosts) {
        let refusal =
            Refusal::new(ErrorCode::Forbidden, "this Host header is not allowed; list it in http.allowed_hosts")
                .with_field("Host", host);
        return refusal_response(StatusCode::FORBIDDEN, &refusal);
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        if !guard.origins.iter().any(|o| o == origin) {
            let refusal =
                Refusal::new(ErrorCode::Forbidden, "this Origin is not allowed; list it in http.allowed_origins")
                    .with_field("Origin", origin);
            return refusal_response(StatusCode::FORBIDDEN, &refusal);
        }
    }
    next.run(request).await
}

fn is_allowed_host(host: &str, allowed: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is = |other: &str| other.eq_ignore_ascii_case(name) || other.eq_ignore_ascii_case(host);
    ["localhost", "127.0.0.1", "::1"].into_iter().any(|loopback| loopback.eq_ignore_ascii_case(name))
        || allowed.iter().any(|a| is(a))
}

/// Who sends this request is known, and it is counted: it was given back by the short way.
#[derive(Clone)]
pub(super) struct Admitted(pub(super) Caller);

/// Puts the caller into the request, or answers 401 or 429.
pub(super) async fn authenticate(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    if let Some(Admitted(caller)) = request.extensions_mut().remove() {
        request.extensions_mut().insert::<Caller>(caller);
        return next.run(request).await;
    }
    match guard.caller(request.headers()) {
        Ok(caller) if guard.within_rate(&caller.principal) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Ok(caller) => too_often(&caller),
        Err(error) => {
            tracing::debug!(%error, "unauthenticated");
            let refusal = Refusal::new(ErrorCode::Unauthenticated, error.to_string());
            let mut response = refusal_response(StatusCode::UNAUTHORIZED, &refusal).into_response();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"clawbernetes\""));
            response
        }
    }
}

/// The answer to a call over the rate.
pub(super) fn too_often(caller: &Caller) -> Response {
    let refusal = Refusal::new(ErrorCode::RateLimited, format!("{} calls too often; wait a second", caller.principal));
    let mut response = refusal_response(StatusCode::TOO_MANY_REQUESTS, &refusal);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::is_allowed_host;

    #[test]
    fn loopback_names_and_listed_hosts_pass_and_nothing_else() {
        let allowed = vec!["fleet.example.com".to_owned()];
        for host in ["localhost", "127.0.0.1:7700", "[::1]:7700", "fleet.example.com", "fleet.example.com:443"] {
            assert!(is_allowed_host(host, &allowed), "{host}");
        }
        for host in ["", "evil.example.com", "127.0.0.1.evil.com", "localhost.evil.com:80", "[::2]"] {
            assert!(!is_allowed_host(host, &allowed), "{host}");
        }
    }
}
