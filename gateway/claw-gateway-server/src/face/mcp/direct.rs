//! The short way of the calls that agents make most: `tools/call` in its plain form.
//!
//! rmcp serves every request of all revisions: it takes a message for one of some twenty
//! kinds, makes a service, a transport and tasks for it, and gets the answer back through
//! a channel. A plain call needs none of that. What has exactly the form below is answered
//! here, in the task of its connection, by the same endpoint behind the same guard.
//! Everything else, all that is faulty included, is the router's and so rmcp's, whose
//! answers the tests compare with these (ADR 0021).

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{self, HeaderName};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use rmcp::model::{JsonObject, ProtocolVersion, RequestId, RequestMetaObject};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Endpoints;
use super::result::result_json;
use crate::face::auth::{self, Admitted, Guard};
use crate::face::body::hides_text;

/// Says which revision a call follows, in a call of the stateless one.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const REVISION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The endpoints, without a router before them.
pub(crate) struct Direct {
    guard: Guard,
    endpoints: Endpoints,
    body_bytes_max: u64,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").field("endpoints", &self.endpoints.keys()).finish_non_exhaustive()
    }
}

/// What became of a request.
pub(crate) enum Answered {
    /// It was a plain call.
    Here(Response),
    /// It is another's, as it came.
    Elsewhere(Request<Body>),
}

impl Direct {
    pub(in crate::face) fn new(guard: Guard, endpoints: Endpoints, body_bytes_max: usize) -> Self {
        Self { guard, endpoints, body_bytes_max: body_bytes_max as u64 }
    }

    /// Answers a plain call; gives any other request back.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Answered
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        let endpoint = self.endpoints.get(head.uri.path()).filter(|_| self.is_plain(&head));
        let known = endpoint.and_then(|endpoint| Some((endpoint, self.guard.caller(&head.headers).ok()?)));
        let Some((endpoint, caller)) = known else {
            return Answered::Elsewhere(Request::from_parts(head, Body::new(body)));
        };
        if !self.guard.within_rate(&caller.principal) {
            return Answered::Here(auth::too_often(&caller));
        }
        // Its length was said, is not too large, and the connection gives no more than that.
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let error: BoxError = error.into();
                tracing::debug!(error, "the body of a call ended early");
                return Answered::Here((StatusCode::BAD_REQUEST, "the body ended early").into_response());
            }
        };
        let call = Some(&body).filter(|body| !hides_text(body)).and_then(|body| Call::read(&head.headers, body));
        let Some(call) = call else {
            head.extensions.insert(Admitted(caller));
            return Answered::Elsewhere(Request::from_parts(head, Body::from(body)));
        };
        let Call { id, is_stateless, name, arguments } = call;
        let answer = endpoint.answer(caller, name, arguments).await;
        let mut response = Response::new(Body::from(result_json(&id, is_stateless, answer)));
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        Answered::Here(response)
    }

    /// There is nothing in the head that anybody would have to look at twice.
    fn is_plain(&self, head: &Parts) -> bool {
        let text = |name| one(&head.headers, name).ok().flatten();
        let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let odd = [header::ORIGIN, header::EXPECT, header::CONTENT_ENCODING, header::TRANSFER_ENCODING];
        // A request of HTTP/2 has its host elsewhere.
        let host = one(&head.headers, header::HOST).map(|host| host.or(head.uri.authority().map(Authority::as_str)));
        head.method == Method::POST
            && head.uri.query().is_none()
            && length.is_some_and(|length| length <= self.body_bytes_max)
            && text(header::CONTENT_TYPE) == Some("application/json")
            && text(header::ACCEPT).is_some_and(takes_both)
            && odd.iter().all(|name| !head.headers.contains_key(name))
            && host.is_ok_and(|host| host.is_some_and(|host| self.guard.knows_host(host)))
    }
}

/// A header stands there more than once, or is no text.
struct Odd;

/// The value of a header, if there is one.
fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Odd> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str().map_err(|_| Odd)).transpose()?;
    if values.next().is_some() { Err(Odd) } else { Ok(first) }
}

/// A client of Streamable HTTP takes both forms of an answer, and says so; plainly, without weights.
fn takes_both(accept: &str) -> bool {
    let has = |wanted: &str| accept.split(',').any(|kind| kind.trim() == wanted);
    !accept.contains('"') && has("application/json") && has("text/event-stream")
}

/// A plain call.
struct Call<'a> {
    id: RequestId,
    /// It follows the revision without sessions.
    is_stateless: bool,
    name: &'a str,
    arguments: JsonObject,
}

/// Its message. A field that is not here is not plain.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    jsonrpc: &'a str,
    id: RequestId,
    method: &'a str,
    #[serde(borrow)]
    params: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params<'a> {
    #[serde(rename = "_meta")]
    meta: Option<RequestMetaObject>,
    name: &'a str,
    arguments: Option<JsonObject>,
}

impl<'a> Call<'a> {
    fn read(headers: &HeaderMap, body: &'a [u8]) -> Option<Self> {
        // A list of what a message has would be read as one, too.
        let is_object = |json: &[u8]| json.trim_ascii_start().first() == Some(&b'{');
        let Message { jsonrpc, id, method, params } = serde_json::from_slice(body).ok().filter(|_| is_object(body))?;
        if jsonrpc != "2.0" || method != "tools/call" || !is_object(params.get().as_bytes()) {
            return None;
        }
        let params: Params<'a> = serde_json::from_str(params.get()).ok()?;
        // In a head such a name is another's, written in base64.
        if params.name.starts_with("=?") {
            return None;
        }
        let revision = one(headers, REVISION).ok()?;
        let meta = params.meta.unwrap_or_default();
        let is_stateless = if meta.contains_key(META_VERSION) {
            let newest = ProtocolVersion::V_2026_07_28;
            let is_so = revision == Some(newest.as_str())
                && meta.protocol_version().as_ref() == Some(&newest)
                && meta.missing_required_keys(&newest).is_empty()
                && one(headers, METHOD).ok()? == Some(method)
                && one(headers, NAME).ok()? == Some(params.name);
            is_so.then_some(true)?
        } else {
            let is_older = |revision| revision < ProtocolVersion::V_2026_07_28.as_str();
            let is_known = |revision| ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == revision);
            let is_so = revision.is_none_or(|revision| is_known(revision) && is_older(revision));
            is_so.then_some(false)?
        };
        Some(Self { id, is_stateless, name: params.name, arguments: params.arguments.unwrap_or_default() })
    }
}
