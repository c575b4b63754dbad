//! etcd's `Put` over gRPC: one unary call at a time on a connection of its own.

use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::HeaderMap;
use hyper::{Method, Request, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpStream;

use crate::load::Client;

/// Bytes of a value, as in etcd's own benchmark.
const VALUE_BYTES: usize = 256;

/// The two fields of `etcdserverpb.PutRequest` that are used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Puts a key of its own with each call.
#[derive(Debug)]
pub struct EtcdClient {
    send: SendRequest<Full<Bytes>>,
    authority: String,
    number: usize,
}

impl EtcdClient {
    /// `n` clients of the etcd at `host:port`.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn clients(n: usize, authority: &str) -> Result<Vec<Self>> {
        let mut clients = Vec::with_capacity(n);
        for number in 0..n {
            let tcp = TcpStream::connect(authority).await.context("etcd")?;
            tcp.set_nodelay(true)?;
            let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(tcp)).await?;
            tokio::spawn(connection);
            clients.push(Self { send, authority: authority.to_owned(), number });
        }
        Ok(clients)
    }

    async fn put(&mut self, key: String) -> Result<()> {
        let message = PutRequest { key: key.into_bytes(), value: vec![b'v'; VALUE_BYTES] };
        let length = message.encoded_len();
        // A gRPC message: not compressed, its length, itself.
        let mut frame = BytesMut::with_capacity(5 + length);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(length)?);
        message.encode(&mut frame)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/etcdserverpb.KV/Put", self.authority))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::new(frame.freeze()))?;
        self.send.ready().await?;
        let answer = self.send.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?;
        let status = |headers: &HeaderMap| headers.get("grpc-status").map(|value| value.as_bytes().to_vec());
        let status = body.trailers().and_then(status).or_else(|| status(&head.headers));
        ensure!(status.as_deref() == Some(b"0"), "etcd answers {status:?} {head:?}");
        Ok(())
    }
}

impl Client for EtcdClient {
    async fn ask(&mut self, n: u64) -> Result<()> {
        self.put(format!("client/{:04}/{n:012}", self.number)).await
    }
}
