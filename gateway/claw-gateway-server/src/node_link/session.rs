//! One connection of a node, from its first frame to the last word.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::extract::ws::WebSocket;
use claw_gateway::{Caller, Cluster, Command, Report};
use claw_proto::codec::negotiate;
use claw_proto::ids::{NodeId, WorkloadId};
use claw_proto::message::{Envelope, GatewayMessage, NodeMessage, RefusalCode, RunningReport};
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use claw_security::Fingerprint;
use claw_tools::refusal::ErrorCode;
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::frames::{self, Incoming, Outgoing, Sink, Stream, VERSIONS};
use super::lanes::{Lanes, LogLane, LogWorker, StatusLane, StatusWorker};
use super::links::{CloseCode, Ending, Link, Order};
use super::orders::Orders;
use super::reader::{Reader, protocol};
use super::writer::Writer;
use super::{
    CLOCK_SKEW_MS, CLOSE_DEADLINE_MS, FRAMES_WAITING_MAX, LANE_FRAMES_MAX, ORDERS_WAITING_MAX, REGISTER_DEADLINE_MS,
    SharedPort,
};
use crate::control::SubmitError;

/// Who is at the other end, by its certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodePeer {
    pub(super) node_id: NodeId,
    /// When it got its certificate.
    pub(super) issued_at: Timestamp,
    /// End of its certificate, and of the connection.
    pub(super) not_after: Timestamp,
    /// The authority that signed it, if that is the one that signs now.
    pub(super) signed_by: Option<Fingerprint>,
}

/// What a node says of itself first.
struct Registration {
    capabilities: Box<NodeCapabilities>,
    running: Vec<RunningReport>,
    store_id: u128,
    epoch_seen: u64,
    version: u32,
    received_at: Timestamp,
}

/// Serves a connection until it ends.
pub(super) async fn run(socket: WebSocket, port: SharedPort, peer: NodePeer) {
    let (mut sink, mut stream) = socket.split();
    let deadline = Duration::from_millis(REGISTER_DEADLINE_MS);
    let first = tokio::select! {
        first = tokio::time::timeout(deadline, frames::next(&mut stream)) => first.ok(),
        () = port.stop.cancelled() => None,
    };
    let known = match first {
        Some(incoming) => registration(&port, peer, incoming),
        None if port.stop.is_cancelled() => Err(going_away()),
        None => Err(protocol("no registration came in time".into())),
    };
    match known {
        Ok(registration) => Box::pin(serve(sink, stream, port, peer, registration)).await,
        Err(ending) => {
            tracing::info!(node_id = %peer.node_id, ?ending, "connection refused");
            let mut out = Outgoing::new(port.control.snapshot().epoch);
            Box::pin(frames::close(&mut sink, &mut out, 0, ending)).await;
            let rest = frames::drain(&mut stream);
            drop(tokio::time::timeout(Duration::from_millis(CLOSE_DEADLINE_MS), rest).await);
        }
    }
}

fn going_away() -> Ending {
    Ending::Closed(CloseCode::Away, "the gateway is stopping".into())
}

/// The first frame, if it is a registration that this gateway can serve.
fn registration(port: &SharedPort, peer: NodePeer, incoming: Incoming) -> Result<Registration, Ending> {
    let envelope = match incoming {
        Incoming::Message(envelope) => *envelope,
        Incoming::Bad(why) => return Err(protocol(why.to_string())),
        Incoming::End => return Err(Ending::Closed(CloseCode::Normal, String::new())),
    };
    let Envelope { epoch, sequence, generation, body, .. } = envelope;
    let NodeMessage::Register { name, capabilities, running, store_id, versions, clock } = body else {
        return Err(protocol("the first message is not a registration".into()));
    };
    if sequence != 1 {
        return Err(protocol(format!("the first frame has the number {sequence}")));
    }
    let version = negotiate(VERSIONS, versions)
        .map_err(|error| Ending::Refused(RefusalCode::VersionMismatch, error.to_string()))?;
    let cluster = port.control.snapshot();
    let Some(node) = cluster.nodes.get(peer.node_id) else {
        return Err(Ending::Refused(RefusalCode::UnknownNode, format!("node {} is not in the fleet", peer.node_id)));
    };
    if let Some(ending) = revoked(&cluster, peer) {
        return Err(ending);
    }
    if node.name != name {
        tracing::info!(node_id = %peer.node_id, name = node.name, wished = name, "the node is listed under the name it enrolled with");
    }
    let received_at = port.control.now();
    let skew_ms = clock.ms_since(received_at).unsigned_abs();
    if skew_ms > CLOCK_SKEW_MS {
        tracing::warn!(node_id = %peer.node_id, name = node.name, skew_ms, "the node's clock is off");
    }
    Ok(Registration {
        capabilities: Box::new(capabilities),
        running,
        store_id,
        epoch_seen: epoch.max(generation.epoch),
        version,
        received_at,
    })
}

/// The certificate of this connection does not count any more.
fn revoked(cluster: &Cluster, peer: NodePeer) -> Option<Ending> {
    let node = cluster.nodes.get(peer.node_id).filter(|node| node.refuses_certificate_of(peer.issued_at))?;
    let message = format!("the certificates of {} are revoked; enroll the machine again", node.name);
    Some(Ending::Refused(RefusalCode::UnknownNode, message))
}

async fn serve(sink: Sink, mut stream: Stream, port: SharedPort, peer: NodePeer, registration: Registration) {
    let (orders_in, orders) = mpsc::channel(ORDERS_WAITING_MAX);
    let (frames_in, frames) = mpsc::channel(FRAMES_WAITING_MAX);
    let link = port.links.connect(peer.node_id, registration.version, orders_in, CancellationToken::new());
    let writer = Writer {
        sink,
        out: Outgoing::new(port.control.snapshot().epoch),
        link: Arc::clone(&link),
        frames,
        heartbeat_interval: port.settings.heartbeat_interval,
    };
    let version = registration.version;
    let mut tasks = JoinSet::new();
    tasks.spawn(Orders::new(Arc::clone(&port), Arc::clone(&link), version, frames_in.clone()).run(orders));
    let lanes = lanes(&mut tasks, &port, &link, frames_in);
    let boot = registration.capabilities.boot_id.as_deref().map(Arc::from);
    let reader = Reader { port: Arc::clone(&port), link: Arc::clone(&link), lanes, version, sequence: 1, boot };
    let reading = async {
        tokio::select! {
            () = register_and_read(&port, &link, registration, peer, reader, &mut stream) => {}
            () = port.stop.cancelled() => link.end(going_away()),
            () = certificate_ends(&port, peer) => link.end(Ending::Refused(
                RefusalCode::UnknownNode,
                "the node's certificate has ended".into(),
            )),
            () = link.closing.cancelled() => {}
        }
        let rest = frames::drain(&mut stream);
        drop(tokio::time::timeout(Duration::from_millis(CLOSE_DEADLINE_MS), rest).await);
    };
    tokio::join!(writer.run(), reading);
    port.links.disconnect(&link);
    tasks.shutdown().await;
    tracing::info!(node_id = %peer.node_id, ending = ?link.ending(), connected = port.links.connected(), "node disconnected");
}

/// Starts the workers of the two lanes.
fn lanes(
    tasks: &mut JoinSet<()>,
    port: &SharedPort,
    link: &Arc<Link>,
    frames: mpsc::Sender<Box<GatewayMessage>>,
) -> Lanes {
    let (status, items) = mpsc::channel(LANE_FRAMES_MAX);
    let (chunks, queue) = mpsc::channel(LANE_FRAMES_MAX);
    let (stalled_in, stalled) = watch::channel(false);
    let passed_over = Arc::new(AtomicBool::new(false));
    let status_worker = StatusWorker { port: Arc::clone(port), link: Arc::clone(link), due: None };
    let log_worker = LogWorker {
        port: Arc::clone(port),
        link: Arc::clone(link),
        frames,
        stalled: stalled_in,
        passed_over: Arc::clone(&passed_over),
    };
    tasks.spawn(status_worker.run(items));
    tasks.spawn(log_worker.run(queue));
    Lanes { status: StatusLane(status), logs: LogLane { chunks, stalled, passed_over } }
}

async fn register_and_read(
    port: &SharedPort,
    link: &Arc<Link>,
    registration: Registration,
    peer: NodePeer,
    reader: Reader,
    stream: &mut Stream,
) {
    // A revocation from here on finds the link; one before it is seen now.
    let known = match revoked(&port.control.snapshot(), peer) {
        Some(ending) => Err(ending),
        None => Box::pin(register(port, link, registration)).await,
    };
    match known {
        Ok(()) => {
            port.certificates.connected(link, peer.signed_by);
            reader.run(stream).await;
        }
        Err(ending) => link.end(ending),
    }
}

async fn register(port: &SharedPort, link: &Arc<Link>, registration: Registration) -> Result<(), Ending> {
    let node_id = link.node_id;
    let Registration { capabilities, running, store_id, epoch_seen, version: _, received_at } = registration;
    let not_judged = port.links.judging.read().await;
    // Before the node is online in the state: else it could be found silent at once.
    port.links.heard(node_id, received_at);
    let mut workloads: BTreeSet<WorkloadId> = running.iter().map(|r| r.workload_id).collect();
    let command = Command::NodeRegister { node_id, capabilities, running, store_id, epoch_seen };
    let caller = Caller::node(node_id, port.control.now());
    let told = port.control.submit(command, caller).await;
    drop(not_judged);
    let settings = match told {
        Ok(Report::Registered { settings }) => settings,
        Ok(Report::Outcome { .. } | Report::Enrolled { .. } | Report::Done) => {
            return Err(unavailable("the core gave another report".into()));
        }
        Err(SubmitError::Refused(refusal)) => {
            return Err(Ending::Refused(refusal_code(refusal.code), refusal.message));
        }
        Err(SubmitError::Fault(fault)) => {
            return Err(unavailable(format!("{} ({})", fault.message, fault.fault_id)));
        }
    };
    let cluster = port.control.snapshot();
    if let Some(node) = cluster.nodes.get(node_id) {
        workloads.extend(node.usage.workloads.iter().copied());
    }
    let log_acks = port
        .control
        .logs()
        .acks(workloads.into_iter().collect())
        .await
        .map_err(|error| unavailable(error.to_string()))?;
    tracing::info!(%node_id, connected = port.links.connected(), "node connected");
    link.order(Order::Registered { settings, log_acks });
    Ok(())
}

fn unavailable(message: String) -> Ending {
    Ending::Refused(RefusalCode::Unavailable, message)
}

/// What the core's refusal of a registration means to a node.
fn refusal_code(code: ErrorCode) -> RefusalCode {
    let meanings = [
        (ErrorCode::NotFound, RefusalCode::UnknownNode),
        (ErrorCode::InvalidState, RefusalCode::StaleGateway),
        (ErrorCode::JournalUnavailable, RefusalCode::Unavailable),
        (ErrorCode::ShuttingDown, RefusalCode::Unavailable),
    ];
    let meaning = meanings.iter().find(|(refused, _)| *refused == code);
    meaning.map_or(RefusalCode::Protocol, |(_, meaning)| *meaning)
}

/// TLS looks at the certificate at the handshake only; the connection must not outlive it.
async fn certificate_ends(port: &SharedPort, peer: NodePeer) {
    let left_ms = peer.not_after.ms_since(port.control.now());
    tokio::time::sleep(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))).await;
}
