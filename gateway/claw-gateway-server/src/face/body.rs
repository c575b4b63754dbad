//! The body of a request: whole, within its limit, and nothing hidden in it.
//!
//! `serde_json` with the feature `raw_value`, which axum asks for, takes an object with one
//! certain key for JSON within a text and parses that anew, with a new limit of its depth.
//! Texts within texts so nest without an end, and a stack that overflows ends the process.
//! No field of ours has such a name: a body that uses it is refused before it is read.

use std::borrow::Cow;
use std::fmt;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use claw_tools::refusal::{ErrorCode, Refusal};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::rest::{error_response, refusal_response};

/// What the names begin with by which `serde_json` tells its own from the caller's.
const HIDDEN: &str = "$serde_json::private::";

/// Reads the body of a request that has one, for whoever answers it.
pub(super) async fn read_whole(State(bytes_max): State<usize>, request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let body = match to_bytes(body, bytes_max).await {
        Ok(body) => body,
        Err(error) if is_too_large(&error) => {
            return error_response(Refusal::new(ErrorCode::TooLarge, "the body is over limits.body_bytes").into());
        }
        Err(error) => {
            let refusal = Refusal::new(ErrorCode::InvalidArgument, format!("the body cannot be read: {error}"));
            return refusal_response(StatusCode::BAD_REQUEST, &refusal.with_field("body", ""));
        }
    };
    if hides_text(&body) {
        let text = format!("no field has a name that begins with {HIDDEN}");
        let refusal = Refusal::new(ErrorCode::InvalidArgument, text).with_field("body", HIDDEN);
        return refusal_response(StatusCode::BAD_REQUEST, &refusal);
    }
    next.run(Request::from_parts(head, Body::from(body))).await
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// There is a name in it that is not for callers. What is no JSON hides nothing: whoever
/// reads it comes no further than this.
pub(super) fn hides_text(body: &Bytes) -> bool {
    // Most bodies have no `$`, and no character that is spelled as a number.
    let may = body.contains(&b'$') || body.windows(2).any(|pair| pair == b"\\u");
    may && serde_json::from_slice::<Names>(body).is_err_and(|error| error.is_data())
}

/// Any JSON, of which only the names are looked at.
struct Names;

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Names, E> {
        Ok(Names)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Names, E> {
        Ok(Names)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Names, E> {
        Ok(Names)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Names, E> {
        Ok(Names)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Names, E> {
        Ok(Names)
    }
    fn visit_str<E>(self, _: &str) -> Result<Names, E> {
        Ok(Names)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Names, A::Error> {
        while items.next_element::<Names>()?.is_some() {}
        Ok(Names)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Names, A::Error> {
        while let Some(Name(name)) = fields.next_key()? {
            if name.starts_with(HIDDEN) {
                return Err(A::Error::custom("a hidden text"));
            }
            fields.next_value::<Names>()?;
        }
        Ok(Names)
    }
}

/// A name; without a copy where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_text_is_found_however_it_is_spelled_and_nothing_else_is_one() {
        let hides = |body: &str| hides_text(&Bytes::from(body.to_owned()));
        for body in [
            r#"{"$serde_json::private::RawValue":"1"}"#,
            r#"{"a":[1,{"b":{"\u0024serde_json::private::RawValue":"[]"}}]}"#,
            r#"[{"$serde_json::priv\u0061te::Number":"1"},"#,
        ] {
            assert!(hides(body), "{body}");
        }
        for body in [
            "",
            "{",
            r#"{"a":"$serde_json::private::RawValue"}"#,
            r#"{"$HOME":"\u0024","b":[null,true,1.5,-1,{}]}"#,
            r#"{"a":}{"$serde_json::private::RawValue":"1"}"#,
        ] {
            assert!(!hides(body), "{body}");
        }
    }
}
