//! The gateway's side of the node link, as far as the protocol goes: an
//! authority, `/enroll`, and one WebSocket at a time that a test drives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claw_proto::codec::{decode_node, encode_gateway};
use claw_proto::ids::{Generation, NodeId};
use claw_proto::message::{Envelope, GatewayMessage, LogKey, NodeMessage, NodeSettings, StatusRecord};
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::support::DEADLINE;

pub(crate) const NODE_ID: NodeId = NodeId::from_bits(77);
const SECRET: [u8; 32] = [7; 32];

pub(crate) struct Peer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
    authority_pem: String,
}

impl Peer {
    pub(crate) async fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().unwrap();
        let chain = vec![server.der().clone(), authority.der().clone()];
        let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, PrivateKeyDer::try_from(server_key.serialize_der()).unwrap())
            .unwrap();
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            issuer,
            authority: authority.der().clone(),
            authority_pem: authority.pem(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// A join token for this authority.
    pub(crate) fn token(&self) -> String {
        let id = b"tok_0000000000000000000000000a";
        let mut body = vec![u8::try_from(id.len()).unwrap()];
        body.extend_from_slice(id);
        body.extend_from_slice(&SECRET);
        body.extend_from_slice(&Sha256::digest(&self.authority));
        let sum = Sha256::new().chain_update("clawjoin.v1.").chain_update(&body).finalize();
        body.extend_from_slice(&sum[..4]);
        format!("clawjoin.v1.{}", URL_SAFE_NO_PAD.encode(body))
    }

    async fn accept_tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let accepted = tokio::time::timeout(DEADLINE, self.listener.accept()).await.expect("nobody connected");
        self.acceptor.accept(accepted?.0).await
    }

    /// Serves one `/enroll`; `Err` if the client did not trust this server.
    pub(crate) async fn enroll_one(&self, status: &str) -> std::io::Result<serde_json::Value> {
        let mut stream = self.accept_tls().await?;
        let mut text = Vec::new();
        let (head_end, length) = loop {
            let mut buffer = [0; 4096];
            let n_read = stream.read(&mut buffer).await?;
            if n_read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            text.extend_from_slice(&buffer[..n_read]);
            let head = String::from_utf8_lossy(&text).into_owned();
            if let Some(end) = head.find("\r\n\r\n") {
                assert!(head.starts_with("POST /enroll HTTP/1.1\r\n"), "{head}");
                let length = head.split("Content-Length: ").nth(1).unwrap();
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                if text.len() >= end + 4 + length {
                    break (end + 4, length);
                }
            }
        };
        let request: serde_json::Value = serde_json::from_slice(&text[head_end..head_end + length]).unwrap();
        assert_eq!(request["secret"], URL_SAFE_NO_PAD.encode(SECRET));
        let csr = CertificateSigningRequestParams::from_pem(request["csr_pem"].as_str().unwrap()).unwrap();
        let reply = serde_json::json!({
            "node_id": NODE_ID.to_string(),
            "certificate_pem": csr.signed_by(&self.issuer).unwrap().pem(),
            "ca_pem": self.authority_pem,
            "node_url": format!("wss://{}/node", self.address()),
            "message": "the token is used up",
        });
        let reply = reply.to_string();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", reply.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await?;
        Ok(request)
    }

    /// The next connection of the node.
    pub(crate) async fn accept(&self) -> Session {
        let stream = self.accept_tls().await.unwrap();
        assert!(stream.get_ref().1.peer_certificates().is_some(), "the node showed no certificate");
        let protocol = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri().path(), "/node");
            let wanted = request.headers()["sec-websocket-protocol"].clone();
            assert_eq!(wanted, "claw.node.v1");
            response.headers_mut().insert("sec-websocket-protocol", wanted);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, protocol).await.unwrap();
        Session { socket, version: 1, sent: 0, epoch: 1, ack: 0, seen: Vec::new() }
    }

    /// The next connection, registered.
    pub(crate) async fn register(&self, ack: u64, log_acks: BTreeMap<LogKey, u64>) -> (Session, NodeMessage) {
        self.register_as(1, ack, log_acks).await
    }

    /// The next connection, registered at this protocol version.
    pub(crate) async fn register_as(
        &self,
        version: u32,
        ack: u64,
        log_acks: BTreeMap<LogKey, u64>,
    ) -> (Session, NodeMessage) {
        let mut session = self.accept().await;
        session.version = version;
        let register = session.receive().await;
        session.ack = ack;
        let settings = NodeSettings { metrics_interval_ms: 200, ..NodeSettings::default() };
        session.send(GatewayMessage::Registered { node_id: NODE_ID, settings, version, log_acks }).await;
        (session, register)
    }
}

pub(crate) struct Session {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    version: u32,
    sent: u64,
    pub(crate) epoch: u64,
    /// What goes out as acknowledged.
    pub(crate) ack: u64,
    /// Messages that were passed over while waiting for another.
    pub(crate) seen: Vec<NodeMessage>,
}

impl Session {
    pub(crate) async fn send(&mut self, body: GatewayMessage) {
        self.sent += 1;
        let generation = Generation { epoch: self.epoch, n: 0 };
        let Self { version, epoch, sent: sequence, ack, .. } = *self;
        let envelope = Envelope { version, epoch, sequence, ack, generation, body };
        self.socket.send(Message::Binary(encode_gateway(&envelope).into())).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> NodeMessage {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("the node is silent");
            if let Message::Binary(frame) = message.expect("the node is gone").unwrap() {
                return decode_node(&frame).unwrap().body;
            }
        }
    }

    /// Waits for a message of a certain kind; others are kept in `seen`.
    pub(crate) async fn wait_for<T>(&mut self, mut look: impl FnMut(&NodeMessage) -> Option<T>) -> T {
        loop {
            let message = self.receive().await;
            let found = look(&message);
            self.seen.push(message);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Waits for the record that `look` wants; returns all records up to it.
    pub(crate) async fn records_until(&mut self, look: impl Fn(&StatusRecord) -> bool) -> Vec<StatusRecord> {
        let mut all = Vec::new();
        loop {
            let records = self.wait_for(|message| match message {
                NodeMessage::WorkloadStatus { records } => Some(records.clone()),
                _ => None,
            });
            all.extend(records.await);
            if all.iter().any(&look) {
                return all;
            }
        }
    }
}
