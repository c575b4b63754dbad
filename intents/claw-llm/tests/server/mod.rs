//! A scripted OpenAI-compatible server: real HTTP on loopback, one answer for each call.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How one call is answered.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A message of the model with this text.
    Says(String),
    /// This JSON, whatever it is.
    Json(Value),
    /// This status, with headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// These bytes, and then the connection breaks.
    Cut(&'static str),
    /// So many bytes without a length before them.
    Stream(usize),
    /// Never.
    Silence,
}

impl Reply {
    pub(crate) fn intent(intent: Value) -> Self {
        Self::Says(json!({ "outcome": "intent", "intent": intent, "questions": null }).to_string())
    }
}

/// A call as it came.
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) key: Option<String>,
    pub(crate) body: Value,
}

#[derive(Clone, Default)]
pub(crate) struct Server {
    pub(crate) url: String,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Server {
    /// Starts it; it ends with the test's runtime.
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("its address"));
        let replies = Arc::new(Mutex::new(replies.into_iter().collect()));
        let server = Self { url, replies, calls: Arc::default() };
        let app = axum::Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        server
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().expect("no panic"))
    }
}

async fn answer(State(server): State<Server>, uri: axum::http::Uri, headers: HeaderMap, body: Bytes) -> Response {
    let key = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = serde_json::from_slice(&body).unwrap_or_default();
    server.calls.lock().expect("no panic").push(Call { at: Instant::now(), path: uri.path().to_owned(), key, body });
    let reply = server.replies.lock().expect("no panic").pop_front();
    match reply {
        Some(Reply::Says(text)) => axum::Json(completion(&text)).into_response(),
        Some(Reply::Json(value)) => axum::Json(value).into_response(),
        Some(Reply::Status(status, headers, body)) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).expect("a response")
        }
        Some(Reply::Cut(head)) => {
            // The head and the first bytes are out before it breaks.
            let parts = stream::unfold(0_u32, move |n| async move {
                tokio::task::yield_now().await;
                match n {
                    0 => Some((Ok(Bytes::from_static(head.as_bytes())), 1)),
                    1..50 => Some((Ok(Bytes::from_static(b" ")), n + 1)),
                    _ => Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), n)),
                }
            });
            Body::from_stream(parts).into_response()
        }
        Some(Reply::Stream(bytes)) => {
            let chunk = Bytes::from(vec![b' '; 1_024]);
            let parts = (0..bytes / 1_024).map(move |_| Ok::<_, io::Error>(chunk.clone()));
            Body::from_stream(stream::iter(parts)).into_response()
        }
        Some(Reply::Silence) => {
            std::future::pending::<()>().await;
            StatusCode::OK.into_response()
        }
        None => (StatusCode::IM_A_TEAPOT, "no further answer is in the script").into_response(),
    }
}

/// As providers send it, with values that a strict client would not know.
fn completion(text: &str) -> Value {
    json!({
        "object": "chat.completion", "service_tier": "on_demand", "x_vendor": { "queue_time": 0.1 },
        "choices": [{ "index": 0, "finish_reason": "vendor_stop", "message": { "role": "assistant", "content": text } }],
        "usage": { "prompt_tokens": 900, "completion_tokens": 100, "total_tokens": 1000 },
    })
}

/// Short bounds, so that nothing is waited for long.
pub(crate) const SOON: Duration = Duration::from_millis(300);
