//! One HTTP call: bounded in bytes, redirects not followed, the key taken out of
//! what comes back. async-openai's own executor retries by itself and reads a
//! body whatever its size; this one takes its place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_openai::config::Config;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use futures_util::StreamExt as _;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::settings::{Settings, SettingsError, is_loopback};

/// Most characters of an endpoint's own words in a message.
const WORDS_CHARS_MAX: usize = 200;
/// Most bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 4_096;

/// A client for one endpoint.
pub(crate) type Client = async_openai::Client<Endpoint>;

/// Why a call gave nothing. No text in it holds the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0}")]
    Unreachable(String),
    #[error("no answer in time")]
    TimedOut,
    #[error("it takes no more requests for the moment")]
    Busy { retry_after_s: Option<u64> },
    #[error("it answers {0}")]
    Denied(StatusCode),
    #[error("it points to {0:?}, which is not followed")]
    Redirected(String),
    #[error("it answers {status}: {words}")]
    Status { status: StatusCode, words: String },
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("the answer broke off")]
    Cut,
    #[error("the answer is no JSON")]
    NotJson,
}

/// Where calls go, and with what.
#[derive(Clone)]
pub(crate) struct Endpoint {
    base: String,
    key: SecretString,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Config for Endpoint {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let key = self.key.expose_secret();
        if key.is_empty() {
            return headers;
        }
        let mut text = format!("Bearer {key}");
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        text.zeroize();
        headers
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.base
    }

    fn api_key(&self) -> &SecretString {
        &self.key
    }
}

/// Makes the client.
pub(crate) fn client(settings: &Settings) -> Result<Client, SettingsError> {
    let url = settings.checked()?;
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("claw-llm/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false);
    if is_loopback(&url) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // Nobody's certificate is asked for, so a machine without authorities will do.
        builder = builder.tls_certs_only([]);
    }
    let http = builder.build().map_err(|error| SettingsError::Client(root(&error)))?;
    let key = settings.key.clone().unwrap_or_else(|| SecretString::from(""));
    let endpoint = Endpoint { base: url.as_str().trim_end_matches('/').to_owned(), key: key.clone() };
    let wire = Wire { http: http.clone(), key: Arc::new(key), bytes_max: settings.limits.answer_bytes };
    Ok(async_openai::Client::build(http, endpoint).with_http_service(wire))
}

/// The executor of calls.
#[derive(Clone)]
struct Wire {
    http: reqwest::Client,
    key: Arc<SecretString>,
    bytes_max: usize,
}

impl tower::Service<HttpRequestFactory> for Wire {
    type Response = Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let wire = self.clone();
        Box::pin(async move {
            let request = request.build().await?;
            wire.exchange(request).await.map_err(|error| OpenAIError::Boxed(Box::new(error)))
        })
    }
}

impl Wire {
    async fn exchange(&self, request: reqwest::Request) -> Result<Response, WireError> {
        let sent = self.http.execute(request).await;
        let response = sent.map_err(|error| match (error.is_timeout(), error.is_connect()) {
            (true, _) => WireError::TimedOut,
            (_, true) => WireError::Unreachable(self.words(&root(&error.without_url()))),
            _ => WireError::Cut,
        })?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(status, response).await);
        }
        let body = read(response, self.bytes_max).await?;
        Ok(http::Response::new(reqwest::Body::from(readable(&body, &self.key)?)).into())
    }

    async fn refused(&self, status: StatusCode, response: Response) -> WireError {
        let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                WireError::Busy { retry_after_s: header(RETRY_AFTER).and_then(|text| text.trim().parse().ok()) }
            }
            // What it says of the key may hold a part of it.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => WireError::Denied(status),
            _ if status.is_redirection() => WireError::Redirected(self.words(header(LOCATION).unwrap_or_default())),
            _ => {
                let body = read(response, ERROR_BYTES_MAX).await.unwrap_or_default();
                WireError::Status { status, words: self.words(&said(&body, &self.key)) }
            }
        }
    }

    /// What an endpoint says, without the key, without control characters, and not too much of it.
    fn words(&self, text: &str) -> String {
        let plain: String = redact(text, &self.key).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        plain.chars().take(WORDS_CHARS_MAX).collect()
    }
}

/// A body that is JSON, without the key. Looked at here, since async-openai writes what it cannot
/// read to the log.
fn readable(body: &[u8], key: &SecretString) -> Result<Vec<u8>, WireError> {
    let mut value = serde_json::from_slice(body).map_err(|_| WireError::NotJson)?;
    redact_all(&mut value, key);
    serde_json::to_vec(&value).map_err(|_| WireError::NotJson)
}

/// A body, if it has at most so many bytes.
async fn read(response: Response, bytes_max: usize) -> Result<Vec<u8>, WireError> {
    let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > bytes_max) {
        return Err(WireError::TooLarge(bytes_max));
    }
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| WireError::Cut)?;
        if body.len() + chunk.len() > bytes_max {
            return Err(WireError::TooLarge(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The message of an error in the usual form, else the text as it is.
fn said(body: &[u8], key: &SecretString) -> String {
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::from_utf8_lossy(body).into_owned();
    };
    redact_all(&mut value, key);
    let message = value.pointer("/error/message").or_else(|| value.get("message")).and_then(|m| m.as_str());
    message.map_or_else(|| value.to_string(), str::to_owned)
}

/// A JSON value without the key in any of its texts and names: an escape may hide it in its written form.
pub(crate) fn redact_all(value: &mut serde_json::Value, key: &SecretString) {
    use serde_json::Value;
    match value {
        Value::String(text) => *text = redact(text, key),
        Value::Array(values) => values.iter_mut().for_each(|value| redact_all(value, key)),
        Value::Object(fields) => {
            let all = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                redact_all(&mut value, key);
                (redact(&name, key), value)
            });
            *fields = all.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text without the key.
pub(crate) fn redact(text: &str, key: &SecretString) -> String {
    let key = key.expose_secret();
    if key.is_empty() { text.to_owned() } else { text.replace(key, "[key]") }
}

/// The first cause of an error.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut current = error;
    while let Some(cause) = current.source() {
        current = cause;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_readable_body_has_the_key() {
        let key = SecretString::from("sk-77-only-here");
        let body = r#"{"id":"sk-77-only-here","sk-77-only-here":[{"content":"a s\u006b-77-only-here b"}]}"#;
        let plain = String::from_utf8(readable(body.as_bytes(), &key).unwrap()).unwrap();
        assert_eq!(plain, r#"{"[key]":[{"content":"a [key] b"}],"id":"[key]"}"#);
        assert_eq!(readable(b"sk-77-only-here", &key), Err(WireError::NotJson));
    }
}
