//! A client that calls one MCP tool over a connection of its own, kept open.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::load::Client;

/// The revision that all servers here speak.
const REVISION: &str = "2025-06-18";

/// An open connection to an MCP endpoint.
#[derive(Debug)]
pub struct McpClient {
    send: SendRequest<Full<Bytes>>,
    authority: String,
    path: String,
    key: Option<String>,
}

impl McpClient {
    /// Connects to `http://host:port/path`, with a key if the server wants one.
    ///
    /// # Errors
    /// If the address is none or nobody answers there.
    pub async fn connect(url: &str, key: Option<&str>) -> Result<Self> {
        let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not http://host:port/path"))?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let tcp = TcpStream::connect(authority).await.with_context(|| url.to_owned())?;
        tcp.set_nodelay(true)?;
        let (send, connection) = handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        Ok(Self { send, authority: authority.to_owned(), path: path.to_owned(), key: key.map(str::to_owned) })
    }

    /// Calls a tool and returns its result.
    ///
    /// # Errors
    /// If there is no answer, or it is an error or a refusal.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value> {
        let params = json!({ "name": tool, "arguments": arguments });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let answer = self.post(body.to_string().into()).await?;
        let answer: Value = serde_json::from_slice(&answer).context("the answer is not JSON")?;
        let result = answer.get("result").with_context(|| format!("{tool}: {answer}"))?;
        ensure!(result["isError"] != true, "{tool}: {result}");
        Ok(result["structuredContent"].clone())
    }

    /// Sends one message and returns the answer's bytes.
    ///
    /// # Errors
    /// If there is no answer, or one of another status than 200.
    pub async fn post(&mut self, body: Bytes) -> Result<Bytes> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(header::CONTENT_TYPE, "application/json")
            .header("mcp-protocol-version", REVISION);
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        self.send.ready().await?;
        let answer = self.send.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let answer = answer.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            bail!("{status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }
}

/// Parsing all of an answer would measure this program; two words tell a result from an error.
///
/// # Errors
/// If it is none, or that of a tool that failed.
pub fn ensure_result(answer: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(answer).context("the answer is no text")?;
    ensure!(text.contains("\"result\"") && !text.contains("\"isError\":true"), "{text}");
    Ok(())
}

/// Asks the same again and again.
#[derive(Debug)]
pub struct SameCall {
    client: McpClient,
    body: Bytes,
}

impl SameCall {
    /// `n` clients that call `tool` without arguments, or with `arguments`.
    ///
    /// # Errors
    /// If the server cannot be reached, or does not answer as it should.
    pub async fn clients(n: usize, url: &str, key: Option<&str>, tool: &str, arguments: Value) -> Result<Vec<Self>> {
        let params = json!({ "name": tool, "arguments": arguments });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let mut clients = Vec::with_capacity(n);
        for _ in 0..n {
            let mut client = McpClient::connect(url, key).await?;
            if clients.is_empty() {
                client.call(tool, arguments.clone()).await?;
            }
            clients.push(Self { client, body: body.clone().into() });
        }
        Ok(clients)
    }
}

impl Client for SameCall {
    async fn ask(&mut self, _: u64) -> Result<()> {
        let answer = self.client.post(self.body.clone()).await?;
        ensure_result(&answer)
    }
}
