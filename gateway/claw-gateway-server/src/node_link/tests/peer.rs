//! A gateway in this process, and a node made by hand: TLS, HTTP, WebSocket and
//! the codec, without the agent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claw_gateway::{Caller, Cluster, Command, Operation, Report};
use claw_proto::codec::{decode_gateway, encode_node};
use claw_proto::ids::{Generation, NodeId, TokenId, WorkloadId};
use claw_proto::message::{Envelope, GatewayMessage, NodeMessage, RunningReport};
use claw_proto::spec::{RuntimeKind, WorkloadSpec};
use claw_proto::topology::{GpuDriver, NodeCapabilities};
use claw_security::pki::{CertRequest, CertificateAuthority, GATEWAY_SERVER_NAME, JoinToken, PrivateKey};
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::approvals::ApprovalDecision;
use claw_tools::outcome::{Mode, Mutation, Outcome};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::app::{GatewayServer, Running};
use crate::config::{GatewayConfig, Sources};
use crate::control::ControlPlane;

/// Nothing in these tests takes longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A gateway on free ports that notices silence after a second.
pub(super) async fn start(folder: &Path, set: &[&str]) -> Running {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fast = ["http.listen=127.0.0.1:0", "node.listen=127.0.0.1:0", "node.heartbeat_interval_ms=100"];
    let config: GatewayConfig =
        Sources { set: fast.iter().chain(set).map(|text| (*text).to_owned()).collect(), ..Sources::default() }
            .load()
            .unwrap();
    GatewayServer::new(config, &folder.join("data")).start().await.unwrap()
}

/// The gateway's own authority, as a node gets to know it.
pub(super) fn authority(folder: &Path) -> CertificateAuthority {
    CertificateAuthority::load(&folder.join("data").join("pki")).unwrap()
}

/// Waits until the durable state is so.
pub(super) async fn until(
    control: &ControlPlane,
    what: &str,
    holds: impl FnMut(&Arc<Cluster>) -> bool,
) -> Arc<Cluster> {
    let mut states = control.watch();
    let reached = tokio::time::timeout(DEADLINE, states.wait_for(holds)).await;
    Arc::clone(&*reached.unwrap_or_else(|_| panic!("{what}: did not come about")).unwrap())
}

fn person(control: &ControlPlane) -> Caller {
    Caller {
        principal: "ada".into(),
        kind: PrincipalKind::Person,
        role: Role::Admin,
        key_id: None,
        now: control.now(),
        reason: "test".into(),
    }
}

/// Applies an operation.
pub(super) async fn operate(control: &ControlPlane, operation: Operation, secret_hash: Option<String>) -> Outcome {
    let command = Command::Operate {
        args_hash: format!("{operation:?}"),
        operation,
        mutation: Mutation { mode: Mode::Apply, request_id: None, reason: None, wait_s: 0 },
        secret_hash,
    };
    match control.submit(command, person(control)).await.unwrap() {
        Report::Outcome { outcome, .. } => *outcome,
        other => panic!("not an outcome: {other:?}"),
    }
}

/// Plans, has somebody else approve, and applies.
pub(super) async fn plan_and_apply(control: &ControlPlane, plan: Command) {
    let mutation = |mode| Mutation { mode, request_id: None, reason: None, wait_s: 0 };
    let Report::Outcome { outcome, .. } = control.submit(plan, person(control)).await.unwrap() else { panic!() };
    let plan = outcome.plan.unwrap();
    if let Some(approval_id) = plan.approval_id {
        let approve = Command::ApprovalDecide {
            approval_id,
            decision: ApprovalDecision::Approve,
            diff_hash: plan.diff_hash.clone(),
            mutation: mutation(Mode::Apply),
            args_hash: "approve".into(),
        };
        let other = Caller { principal: "grace".into(), ..person(control) };
        control.submit(approve, other).await.unwrap();
    }
    let apply = Command::PlanApply {
        plan_id: plan.plan_id,
        mutation: mutation(Mode::Apply),
        args_hash: "apply".into(),
        secret_hash: None,
    };
    control.submit(apply, person(control)).await.unwrap();
}

/// What a machine needs to enroll: id and secret of a fresh token.
pub(super) async fn token(control: &ControlPlane, authority: &CertificateAuthority) -> (TokenId, JoinToken) {
    token_for(control, authority, None).await
}

/// The same, of a token that is for one name.
pub(super) async fn token_for(
    control: &ControlPlane,
    authority: &CertificateAuthority,
    name: Option<&str>,
) -> (TokenId, JoinToken) {
    let made = JoinToken::generate("tok_any", authority.ca_fingerprint()).unwrap();
    let labels = BTreeMap::from([("pool".to_owned(), "a".to_owned())]);
    let create = Operation::NodeTokenCreate { name: name.map(str::to_owned), labels, ttl_s: 600 };
    let outcome = operate(control, create, Some(made.hash_secret().to_string())).await;
    (outcome.credential.unwrap().id.parse().unwrap(), made)
}

/// The secret of a token as a machine sends it: 32 bytes behind the id in the token's text.
pub(super) fn secret_text(token: &JoinToken) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let text = token.to_text();
    let payload = URL_SAFE_NO_PAD.decode(text.strip_prefix("clawjoin.v1.").unwrap()).unwrap();
    let from = 1 + usize::from(payload[0]);
    URL_SAFE_NO_PAD.encode(&payload[from..from + 32])
}

/// A workload that runs on any node of these tests.
pub(super) fn run_of(name: &str, env: &[(&str, &str)]) -> Operation {
    Operation::WorkloadRun {
        spec: Box::new(WorkloadSpec {
            name: Some(name.into()),
            runtime: Some(RuntimeKind::Process),
            command: Some(vec!["sleep".into(), "60".into()]),
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..WorkloadSpec::default()
        }),
        env_handle: None,
        assumptions: Vec::new(),
    }
}

/// Opens a TLS connection, with or without a certificate.
pub(super) async fn tls(
    addr: SocketAddr,
    authority: &CertificateAuthority,
    identity: Option<(CertificateDer<'static>, &PrivateKey)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.cert_der().clone()).unwrap();
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key.to_der()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(GATEWAY_SERVER_NAME).unwrap();
    let stream = TcpStream::connect(addr).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Status and body of one request.
pub(super) async fn http(mut stream: TlsStream<TcpStream>, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: gw.test:7701\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Some servers end TLS without a closing alert; the answer is whole all the same.
    if let Err(error) = stream.read_to_end(&mut answer).await {
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// A machine that has a place in the fleet.
pub(super) struct Machine {
    pub(super) node_id: NodeId,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKey,
    pub(super) node_url: String,
}

/// Enrolls over the wire.
pub(super) async fn enroll(running: &Running, authority: &CertificateAuthority, name: &str) -> Machine {
    let (token_id, token) = token(running.control(), authority).await;
    let request = CertRequest::generate().unwrap();
    let body = enroll_body(token_id, &token, &request, name);
    let stream = tls(running.node_addr, authority, None).await.unwrap();
    let (status, answer) = http(stream, "POST", "/enroll", &body).await;
    assert_eq!(status, 200, "{answer}");
    let answer: Json = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["ca_pem"], authority.cert_pem());
    Machine {
        node_id: answer["node_id"].as_str().unwrap().parse().unwrap(),
        certificate: CertificateDer::from_pem_slice(answer["certificate_pem"].as_str().unwrap().as_bytes()).unwrap(),
        key: request.key,
        node_url: answer["node_url"].as_str().unwrap().to_owned(),
    }
}

pub(super) fn enroll_body(token_id: TokenId, token: &JoinToken, request: &CertRequest, name: &str) -> String {
    serde_json::json!({
        "token_id": token_id, "secret": secret_text(token), "csr_pem": request.csr_pem, "name": name
    })
    .to_string()
}

/// What every node of these tests has.
pub(super) fn capabilities() -> NodeCapabilities {
    NodeCapabilities {
        hostname: "test".into(),
        os: "test".into(),
        arch: "x86_64".into(),
        agent_version: "0".into(),
        cpu_millis: 8_000,
        memory_mib: 16_384,
        disk_mib: 100_000,
        gpu_driver: GpuDriver::None,
        gpus: Vec::new(),
        runtimes: vec![RuntimeKind::Process],
        simulated: false,
        labels: BTreeMap::default(),
        findings: Vec::new(),
        engine: None,
        nics: Vec::new(),
        boot_id: None,
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By a close frame with this code.
    Close(u16),
    /// Otherwise.
    Cut,
}

/// A node's connection.
pub(super) struct Connection {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    sequence: u64,
    /// Highest acknowledged record.
    pub(super) acked: u64,
    /// Heartbeats are answered as they come.
    pub(super) answers: bool,
    pub(super) highest_confirmed: u64,
    pub(super) highest_nonce: u64,
    pub(super) epoch_seen: u64,
    /// Protocol version of what is sent.
    pub(super) version: u32,
}

impl Connection {
    /// Opens a WebSocket; the error is the HTTP status, or 0 when TLS already failed.
    pub(super) async fn open(
        addr: SocketAddr,
        authority: &CertificateAuthority,
        identity: Option<(CertificateDer<'static>, &PrivateKey)>,
    ) -> Result<Self, u16> {
        let stream = tls(addr, authority, identity).await.map_err(|_| 0_u16)?;
        match tokio_tungstenite::client_async("ws://gw.test/node", stream).await {
            Ok((socket, _)) => Ok(Self {
                socket,
                sequence: 0,
                acked: 0,
                answers: true,
                highest_confirmed: 0,
                highest_nonce: 0,
                epoch_seen: 0,
                version: 1,
            }),
            Err(WsError::Http(response)) => Err(response.status().as_u16()),
            Err(_) => Err(0),
        }
    }

    pub(super) async fn of(running: &Running, authority: &CertificateAuthority, node: &Machine) -> Self {
        let identity = Some((node.certificate.clone(), &node.key));
        Self::open(running.node_addr, authority, identity).await.unwrap()
    }

    pub(super) async fn send(&mut self, body: NodeMessage) {
        self.sequence += 1;
        let envelope = Envelope {
            version: self.version,
            epoch: self.epoch_seen,
            sequence: self.sequence,
            ack: 0,
            generation: Generation::default(),
            body,
        };
        let frame = Message::Binary(encode_node(&envelope).into());
        self.socket.send(frame).await.unwrap();
    }

    pub(super) async fn register(&mut self, versions: (u32, u32), running: Vec<RunningReport>) {
        self.register_as(versions, capabilities(), running).await;
    }

    /// With other capabilities than all nodes of these tests.
    pub(super) async fn register_with(&mut self, versions: (u32, u32), capabilities: NodeCapabilities) {
        self.register_as(versions, capabilities, Vec::new()).await;
    }

    async fn register_as(&mut self, versions: (u32, u32), capabilities: NodeCapabilities, running: Vec<RunningReport>) {
        self.send(NodeMessage::Register {
            name: "test".into(),
            capabilities,
            running,
            store_id: 7,
            versions,
            clock: claw_proto::time::Timestamp::from_unix_ms(0),
        })
        .await;
    }

    /// The next message that is no heartbeat and no bare acknowledgment, or the end.
    pub(super) async fn next(&mut self) -> Result<GatewayMessage, Ended> {
        loop {
            match self.any().await? {
                GatewayMessage::Heartbeat { .. } | GatewayMessage::Ack => {}
                other => return Ok(other),
            }
        }
    }

    /// The next message of any kind.
    pub(super) async fn any(&mut self) -> Result<GatewayMessage, Ended> {
        let frame = tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("nothing came in time");
        let bytes = match frame {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(CloseCode::Status, |frame| frame.code);
                return Err(Ended::Close(code.into()));
            }
            Some(Ok(other)) => panic!("not of the protocol: {other:?}"),
            Some(Err(_)) | None => return Err(Ended::Cut),
        };
        let envelope = decode_gateway(&bytes).unwrap();
        self.acked = self.acked.max(envelope.ack);
        if let GatewayMessage::Heartbeat { nonce, confirmed } = envelope.body {
            self.highest_confirmed = confirmed;
            self.highest_nonce = nonce;
            if self.answers {
                self.send(NodeMessage::HeartbeatAck { nonce }).await;
            }
        }
        Ok(envelope.body)
    }

    /// Reads until such a message comes; what comes before it is passed over.
    pub(super) async fn until_message(
        &mut self,
        what: &str,
        is_it: impl Fn(&GatewayMessage) -> bool,
    ) -> GatewayMessage {
        let reading = async {
            loop {
                match self.any().await {
                    Ok(message) if is_it(&message) => return message,
                    Ok(_) => {}
                    Err(ended) => panic!("{what}: the connection ended with {ended:?}"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("{what}: did not come"))
    }

    /// Reads until the condition holds.
    pub(super) async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let reading = async {
            while !holds(self) {
                if let Err(ended) = self.any().await {
                    panic!("{what}: the connection ended with {ended:?}");
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("{what}: did not come about"));
    }

    /// Registers and takes the answer and the first desired set.
    pub(super) async fn registered(
        running: &Running,
        authority: &CertificateAuthority,
        node: &Machine,
    ) -> (Self, GatewayMessage, GatewayMessage) {
        let mut connection = Self::of(running, authority, node).await;
        connection.register((1, 1), Vec::new()).await;
        let answer = connection.next().await.unwrap();
        let set = connection.next().await.unwrap();
        (connection, answer, set)
    }
}

/// The id of the only workload.
pub(super) fn only_workload(cluster: &Cluster) -> WorkloadId {
    cluster.workloads.iter().next().unwrap().workload_id
}
