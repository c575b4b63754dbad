//! A node of the version before: what it sent when it was recorded is taken, and
//! it is told nothing that it does not know.

use claw_gateway::Operation;
use claw_proto::codec::decode_node;
use claw_proto::message::{GatewayMessage, NodeMessage};
use claw_proto::spec::{RuntimeKind, WorkloadSpec};
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use super::peer::{Connection, authority, enroll, operate, start, until};

/// Frames of version 1, as recorded for the codec.
const FRAMES_V1: &str = include_str!("../../../../../proto/claw-proto/fixtures/frames_v1.txt");

/// What a node of version 1 said, by the name of the message.
fn recorded(name: &str) -> NodeMessage {
    let line = FRAMES_V1.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    let frame: Vec<u8> = (0..line.len()).step_by(2).map(byte).collect();
    decode_node(&frame).unwrap().body
}

fn run_image(name: &str, read_only_root: Option<bool>) -> Operation {
    let spec = WorkloadSpec {
        name: Some(name.into()),
        runtime: Some(RuntimeKind::Docker),
        image: Some("registry.example/app:1".into()),
        read_only_root,
        ..WorkloadSpec::default()
    };
    Operation::WorkloadRun { spec: Box::new(spec), env_handle: None, assumptions: Vec::new() }
}

#[tokio::test]
async fn an_old_node_goes_on_with_this_gateway_and_gets_no_order_that_it_would_half_follow() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let authority = authority(folder.path());
    let control = running.control().clone();
    let node = enroll(&running, &authority, "old-1").await;

    let mut link = Connection::of(&running, &authority, &node).await;
    let NodeMessage::Register { name, capabilities, store_id, clock, .. } = recorded("register") else { panic!() };
    let register = NodeMessage::Register { name, capabilities, running: vec![], store_id, versions: (1, 1), clock };
    link.send(register).await;
    let GatewayMessage::Registered { version, .. } = link.next().await.unwrap() else { panic!() };
    assert_eq!(version, 1, "the newest version that both speak");
    let GatewayMessage::DesiredSet { workloads, .. } = link.next().await.unwrap() else { panic!() };
    assert!(workloads.is_empty());
    for name in ["workload_status", "metrics", "logs", "capabilities_changed"] {
        link.send(recorded(name)).await;
    }
    // Lines of nobody's workload are taken away.
    let GatewayMessage::LogsAck { .. } = link.next().await.unwrap() else { panic!() };
    link.until("heartbeats go on", |l| l.highest_confirmed > 1).await;

    operate(&control, run_image("known", None), None).await;
    let GatewayMessage::StartWorkload { workload, .. } = link.next().await.unwrap() else { panic!() };
    assert_eq!(workload.spec.name.as_deref(), Some("known"));

    operate(&control, run_image("newer", Some(true)), None).await;
    let state = until(&control, "the newer one is refused", |state| {
        state.workloads.iter().any(|w| w.name == "newer" && w.state == WorkloadState::Failed)
    })
    .await;
    let refused = state.workloads.iter().find(|w| w.name == "newer").unwrap();
    assert_eq!(refused.reason, WorkloadReason::NodeUnsupported);
    let detail = &refused.attempts.last().unwrap().detail;
    assert_eq!(detail, "spec.read_only_root needs protocol version 2; upgrade the node's agent");
    running.shutdown().await;
}
