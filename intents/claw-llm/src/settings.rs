//! Which endpoint, which model, which key, and how much of each.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret as _, SecretString};

/// Most bytes of a key.
pub const KEY_BYTES_MAX: usize = 4_096;

/// How much a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For one call.
    pub call: Duration,
    /// For a request in all, repairs and waiting included.
    pub all: Duration,
    /// Most calls, repairs included.
    pub calls: u32,
    /// Most bytes that are sent at once.
    pub request_bytes: usize,
    /// Most bytes of an answer.
    pub answer_bytes: usize,
    /// Most tokens of one answer.
    pub answer_tokens: u32,
    /// Most tokens of a request in all, as the endpoint counts them.
    pub tokens: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(30),
            all: Duration::from_mins(1),
            calls: 5,
            request_bytes: 256 << 10,
            answer_bytes: 64 << 10,
            answer_tokens: 2_000,
            tokens: 60_000,
        }
    }
}

/// How to reach a model.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base URL of an OpenAI-compatible API, such as `https://llm.example/v1`.
    pub url: String,
    /// Name of the model there.
    pub model: String,
    /// Key, if the endpoint wants one. Its debug form hides it.
    pub key: Option<SecretString>,
    /// Whether plain HTTP to another machine is allowed.
    pub plain_http: bool,
    /// Bounds.
    pub limits: Limits,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The URL is none, or has parts that it must not have.
    #[error("the URL of the model's endpoint {why}")]
    Url {
        /// What is wrong.
        why: String,
    },
    /// The model has no name.
    #[error("the model has no name")]
    Model,
    /// The key cannot be sent in a header.
    #[error("the key has characters that a key cannot have, or more than {KEY_BYTES_MAX} bytes")]
    Key,
    /// The file of the key cannot be read.
    #[error("the key file {}: {source}", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No HTTP client can be made.
    #[error("the HTTP client: {0}")]
    Client(String),
}

impl Settings {
    /// Settings with the default bounds and without a key.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self { url: url.into(), model: model.into(), key: None, plain_http: false, limits: Limits::default() }
    }

    /// The base URL, once it and the rest are fit for use.
    pub(crate) fn checked(&self) -> Result<Url, SettingsError> {
        let bad = |why: &str| SettingsError::Url { why: why.to_owned() };
        let url: Url = self.url.trim_end_matches('/').parse().map_err(|error| bad(&format!("is none: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("holds a name or a password; give the key by a file"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("has a query or a fragment"));
        }
        match url.scheme() {
            "https" => {}
            "http" if self.plain_http || is_loopback(&url) => {}
            "http" => return Err(bad("is plain HTTP to another machine, which is refused unless it is allowed")),
            _ => return Err(bad("is neither https nor http")),
        }
        if self.model.trim().is_empty() {
            return Err(SettingsError::Model);
        }
        let fits = |key: &SecretString| {
            let key = key.expose_secret();
            key.len() <= KEY_BYTES_MAX && key.bytes().all(|b| b.is_ascii_graphic())
        };
        if self.key.as_ref().is_some_and(|key| !fits(key)) {
            return Err(SettingsError::Key);
        }
        Ok(url)
    }
}

/// Whether a URL leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads a key from a file; white space around it is no part of it. The bytes that were read are
/// overwritten.
///
/// # Errors
/// A file that cannot be read, or that holds no key.
pub fn key_from(path: &Path) -> Result<SecretString, SettingsError> {
    let failed = |source| SettingsError::KeyFile { path: path.to_owned(), source };
    let mut text = String::with_capacity(KEY_BYTES_MAX + 2);
    let file = File::open(path).map_err(failed)?;
    let read = file.take(KEY_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    let key = key_of(text);
    read.map_err(failed)?;
    key
}

/// A key from a text, which is overwritten; white space around it is no part of it.
///
/// # Errors
/// A text that holds no key.
pub fn key_of(mut text: String) -> Result<SecretString, SettingsError> {
    let key = SecretString::from(text.trim());
    text.zeroize();
    let fits = (1..=KEY_BYTES_MAX).contains(&key.expose_secret().len());
    if fits { Ok(key) } else { Err(SettingsError::Key) }
}
