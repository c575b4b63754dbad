//! Nodes that are only a link: enrolled as any machine, connected over mTLS, they answer
//! heartbeats and do nothing else. A thousand of them fit in one process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use claw_proto::codec::encode_node;
use claw_proto::ids::{Generation, GpuUuid};
use claw_proto::limits::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use claw_proto::message::{Envelope, GatewayMessage, GpuDetails, GpuMetrics, NodeMessage, SystemMetrics};
use claw_proto::spec::{GpuVendor, RuntimeKind};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuDriver, GpuInfo, NodeCapabilities};
use clawnode::config::LinkConfig;
use clawnode::endpoint::Endpoint;
use clawnode::enroll::{JoinToken, enroll};
use clawnode::link::{Connection, Link, LinkEvent, TlsCell};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::mcp::McpClient;

/// Nodes that enroll or connect at the same time.
const AT_ONCE: usize = 16;
/// Orders that may wait for a node.
const ORDERS_MAX: usize = 64;
/// Longest time for a node to be taken in.
const PATIENCE: Duration = Duration::from_mins(1);

/// Eight simulated GPUs.
pub fn capabilities(name: &str) -> NodeCapabilities {
    let gpu = |index: u32| GpuInfo {
        nvlink_island: Some(0),
        numa_node: Some(index / 4),
        ..GpuInfo::new(gpu_uuid(name, index), index, GpuVendor::Nvidia, "H100", 81_559)
    };
    NodeCapabilities {
        hostname: name.into(),
        os: "bench".into(),
        arch: "x86_64".into(),
        agent_version: "0".into(),
        cpu_millis: 128_000,
        memory_mib: 1 << 20,
        disk_mib: 1 << 22,
        gpu_driver: GpuDriver::Sim,
        gpus: (0..8).map(gpu).collect(),
        runtimes: vec![RuntimeKind::Sim],
        simulated: true,
        labels: BTreeMap::new(),
        findings: Vec::new(),
        engine: None,
        nics: Vec::new(),
        boot_id: None,
    }
}

fn gpu_uuid(name: &str, index: u32) -> GpuUuid {
    GpuUuid(format!("GPU-{name}-{index}"))
}

/// The metrics of such a node at a time, as NVML tells them.
fn metrics(name: &str, at_ms: i64) -> NodeMessage {
    let details = GpuDetails {
        sm_clock_mhz: Some(1_980),
        ecc_corrected_total: Some(0),
        ecc_uncorrected_total: Some(0),
        pcie_generation: Some(5),
        pcie_width: Some(16),
        nvlink_errors_total: Some(0),
        ..GpuDetails::default()
    };
    let gpu = |index| GpuMetrics {
        uuid: gpu_uuid(name, index),
        utilization_percent: 50.0,
        memory_used_mib: 40_000,
        memory_total_mib: 81_559,
        temperature_celsius: 60.0,
        power_watts: 500.0,
        simulated: true,
        details: Some(Box::new(details.clone())),
    };
    let at = Timestamp::from_unix_ms(at_ms);
    NodeMessage::Metrics {
        at,
        gpus: (0..8).map(gpu).collect(),
        system: SystemMetrics::default(),
        workloads: Vec::new(),
    }
}

/// An enrolled node that is not connected yet.
#[derive(Debug, Clone)]
pub struct Enrolled {
    name: String,
    tls: Arc<ClientConfig>,
}

/// Enrolls `n` nodes: a token over MCP and `/enroll` for each.
///
/// # Errors
/// If the gateway refuses one.
pub async fn enroll_all(mcp_url: &str, key: &str, node_url: &str, n: usize) -> Result<Vec<Enrolled>> {
    let mut tasks = JoinSet::new();
    for lane in 0..AT_ONCE.min(n) {
        let (mcp_url, key, node_url) = (mcp_url.to_owned(), key.to_owned(), node_url.to_owned());
        tasks.spawn(async move {
            let mut mcp = McpClient::connect(&mcp_url, Some(&key)).await?;
            let mut enrolled = Vec::new();
            for number in (lane..n).step_by(AT_ONCE) {
                enrolled.push(enroll_one(&mut mcp, &node_url, format!("node-{number:05}")).await?);
            }
            Ok::<_, anyhow::Error>(enrolled)
        });
    }
    let mut all = Vec::with_capacity(n);
    while let Some(enrolled) = tasks.join_next().await {
        all.extend(enrolled??);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

async fn enroll_one(mcp: &mut McpClient, node_url: &str, name: String) -> Result<Enrolled> {
    let token = mcp.call("node_token_create", json!({ "name": name })).await?;
    let secret = token["credential"]["secret"].as_str().context("no token in the answer")?;
    let (enrolled, key_pem) = enroll(node_url, &JoinToken::parse(secret)?, &name).await?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(enrolled.ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_slice_iter(enrolled.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    // Each connection is a full handshake, as after a restart of the node.
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(Enrolled { name, tls: Arc::new(tls) })
}

/// Nodes that are connected; they go with this value.
#[derive(Debug)]
pub struct Connected {
    orders: Vec<mpsc::Sender<Frames>>,
    sent: watch::Receiver<u64>,
    stop: CancellationToken,
    tasks: JoinSet<Result<()>>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Connected {
    /// Connects all, and waits until the gateway has taken each of them in.
    ///
    /// # Errors
    /// If one is not taken in within a minute.
    pub async fn all(nodes: &[Enrolled], node_url: &str) -> Result<Self> {
        let endpoint = Endpoint { path: "/node".to_owned(), ..Endpoint::parse(node_url, "https")? };
        let stop = CancellationToken::new();
        let (done, sent) = watch::channel(0);
        let mut connected = Self { orders: Vec::new(), sent, stop, tasks: JoinSet::new() };
        for some in nodes.chunks(AT_ONCE) {
            let mut waiting = Vec::new();
            for node in some {
                let (ready, is_ready) = tokio::sync::oneshot::channel();
                let (orders, queue) = mpsc::channel(ORDERS_MAX);
                connected.orders.push(orders);
                let live = LiveNode::new(node.clone(), done.clone());
                let stop = connected.stop.clone();
                connected.tasks.spawn(live.run(endpoint.clone(), queue, ready, stop));
                waiting.push(is_ready);
            }
            for is_ready in waiting {
                let taken = tokio::time::timeout(PATIENCE, is_ready).await.context("a node was not taken in")?;
                taken.context("a node's connection ended")?;
            }
        }
        Ok(connected)
    }

    /// Lets every node send so many metrics frames, and waits until they have: each newer than the one before, so
    /// that the windows of its GPUs grow, or all of one time, which adds nothing to them.
    ///
    /// # Errors
    /// If a connection is gone.
    pub async fn send_metrics(&mut self, each: u32, is_newer: bool) -> Result<u64> {
        let total = u64::from(each) * self.orders.len() as u64;
        let before = *self.sent.borrow();
        for node in &self.orders {
            node.send(Frames { n: each, is_newer }).await.context("a connection is gone")?;
        }
        let all_sent = self.sent.wait_for(|now| now - before >= total);
        tokio::time::timeout(PATIENCE, all_sent).await.context("frames are stuck")?.context("no node is left")?;
        Ok(total)
    }

    /// Fails if a node's connection has ended.
    ///
    /// # Errors
    /// The first end.
    pub fn still_up(&mut self) -> Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => {
                ended??;
                bail!("a node ended")
            }
        }
    }
}

/// Metrics frames that a node is to send.
struct Frames {
    n: u32,
    is_newer: bool,
}

/// One node with its numbers.
struct LiveNode {
    node: Enrolled,
    sequence: u64,
    ack: u64,
    epoch: u64,
    generation: Generation,
    sent: watch::Sender<u64>,
    /// Time of its last metrics.
    at_ms: i64,
}

impl LiveNode {
    fn new(node: Enrolled, sent: watch::Sender<u64>) -> Self {
        Self { node, sequence: 0, ack: 0, epoch: 0, generation: Generation::default(), sent, at_ms: 1 }
    }

    fn send(&mut self, connection: &Connection, body: NodeMessage) -> Result<()> {
        self.sequence += 1;
        let envelope = Envelope {
            version: PROTOCOL_VERSION,
            epoch: self.epoch,
            sequence: self.sequence,
            ack: self.ack,
            generation: self.generation,
            body,
        };
        ensure!(connection.send(encode_node(&envelope)), "the gateway reads too slowly");
        Ok(())
    }

    fn register(&mut self, connection: &Connection) -> Result<()> {
        let name = self.node.name.clone();
        let register = NodeMessage::Register {
            capabilities: capabilities(&name),
            name,
            running: Vec::new(),
            store_id: 1,
            versions: (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION),
            clock: now(),
        };
        self.send(connection, register)
    }

    async fn run(
        mut self,
        endpoint: Endpoint,
        mut orders: mpsc::Receiver<Frames>,
        ready: tokio::sync::oneshot::Sender<()>,
        stop: CancellationToken,
    ) -> Result<()> {
        let tls = TlsCell::new(Arc::clone(&self.node.tls));
        let link = Link { endpoint, tls, config: LinkConfig::default() };
        let (events, mut news) = Link::channel();
        let running = tokio::spawn(link.run(events, stop.clone()));
        let mut connection = None;
        let mut ready = Some(ready);
        loop {
            let event = tokio::select! {
                event = news.recv() => event,
                Some(Frames { n, is_newer }) = orders.recv() => {
                    let up = connection.as_ref().context("not connected")?;
                    for _ in 0..n {
                        self.at_ms += if is_newer { 10_000 } else { 0 };
                        let frame = metrics(&self.node.name, self.at_ms);
                        self.send(up, frame)?;
                        tokio::task::yield_now().await;
                    }
                    self.sent.send_modify(|sent| *sent += u64::from(n));
                    continue;
                }
            };
            match event {
                None => break,
                Some(LinkEvent::Up(up)) => {
                    self.register(&up)?;
                    connection = Some(up);
                }
                Some(LinkEvent::Down(error)) if stop.is_cancelled() => {
                    drop(error);
                    break;
                }
                Some(LinkEvent::Down(error)) => bail!("{}: {error}", self.node.name),
                Some(LinkEvent::Frame(frame)) => {
                    let envelope = (*frame)?;
                    let up = connection.as_ref().context("not connected")?;
                    if self.receive(up, envelope)? {
                        ready.take().map(|ready| ready.send(()));
                    }
                }
            }
        }
        running.abort();
        Ok(())
    }

    /// Whether this frame takes the node in.
    fn receive(&mut self, connection: &Connection, envelope: Envelope<GatewayMessage>) -> Result<bool> {
        self.ack = envelope.sequence;
        self.epoch = self.epoch.max(envelope.epoch);
        self.generation = self.generation.max(envelope.generation);
        match envelope.body {
            GatewayMessage::Registered { .. } => return Ok(true),
            GatewayMessage::Heartbeat { nonce, .. } => self.send(connection, NodeMessage::HeartbeatAck { nonce })?,
            GatewayMessage::Refused { code, message, .. } => bail!("{}: {code}: {message}", self.node.name),
            _ => {}
        }
        Ok(false)
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
