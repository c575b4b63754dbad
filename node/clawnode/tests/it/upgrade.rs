//! A gateway of the version before: what it sent when it was recorded is taken,
//! and it is told nothing that it does not know.

use std::collections::BTreeMap;

use claw_proto::codec::decode_gateway;
use claw_proto::ids::Generation;
use claw_proto::message::{GatewayMessage, NodeErrorCode, NodeMessage, NodeWorkloadState, StatusCause};

use crate::agent::{Agent, enrolled};
use crate::peer::{NODE_ID, Peer, Session};
use crate::support::script;

/// Frames of version 1, as recorded for the codec.
const FRAMES_V1: &str = include_str!("../../../../proto/claw-proto/fixtures/frames_v1.txt");

/// What a gateway of version 1 said, by the name of the message.
fn recorded(name: &str) -> GatewayMessage {
    let line = FRAMES_V1.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    let frame: Vec<u8> = (0..line.len()).step_by(2).map(byte).collect();
    decode_gateway(&frame).unwrap().body
}

async fn final_cause(session: &mut Session) -> StatusCause {
    let records = session.records_until(|record| record.state.is_final()).await;
    records.iter().find(|record| record.state.is_final()).unwrap().cause
}

#[tokio::test]
async fn an_old_gateway_goes_on_with_this_node_and_hears_only_what_it_knows() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let _agent = Agent::start(folder.path());
    let mut session = peer.accept().await;
    let NodeMessage::Register { versions, .. } = session.receive().await else { panic!() };
    assert_eq!(versions.0, 1, "it still speaks the first version");
    session.epoch = 3;
    let GatewayMessage::Registered { settings, version, .. } = recorded("registered") else { panic!() };
    assert_eq!(version, 1);
    session.send(GatewayMessage::Registered { node_id: NODE_ID, settings, version, log_acks: BTreeMap::new() }).await;

    // GPUs of another node: the order is understood and answered in words of version 1.
    session.send(recorded("start_workload")).await;
    assert_eq!(final_cause(&mut session).await, StatusCause::GpuMissing);
    for name in ["desired_set", "stop_workload", "update_config", "logs_ack", "acknowledged", "heartbeat"] {
        session.send(recorded(name)).await;
    }
    let nonce = session.wait_for(|message| match message {
        NodeMessage::HeartbeatAck { nonce } => Some(*nonce),
        _ => None,
    });
    assert_eq!(nonce.await, 5, "the connection goes on");
    // There is no mesh in this build: the old gateway is told so and the connection goes on.
    session.send(recorded("mesh_peers")).await;

    let workload = script(2, "echo done");
    let generation = Generation { epoch: 3, n: 43 };
    session.send(GatewayMessage::StartWorkload { generation, workload: workload.clone() }).await;
    let records =
        session.records_until(|record| record.workload_id == workload.workload_id && record.state.is_final()).await;
    let end = records.iter().find(|r| r.workload_id == workload.workload_id && r.state.is_final()).unwrap();
    assert_eq!((end.state, end.cause), (NodeWorkloadState::Completed, StatusCause::Exited));

    for message in &session.seen {
        match message {
            NodeMessage::Metrics { gpus, workloads, .. } => {
                assert!(workloads.is_empty() && gpus.iter().all(|gpu| gpu.details.is_none()));
            }
            NodeMessage::WorkloadStatus { .. } | NodeMessage::Logs { .. } | NodeMessage::HeartbeatAck { .. } => {}
            NodeMessage::CapabilitiesChanged { capabilities } => assert!(capabilities.findings.is_empty()),
            NodeMessage::Error { code, .. } => assert_eq!(*code, NodeErrorCode::Unsupported),
            newer => panic!("{newer:?}"),
        }
    }
    session.send(recorded("refused")).await;
    // It tries again, for the gateway may have been upgraded by then.
    let NodeMessage::Register { .. } = peer.accept().await.receive().await else { panic!() };
}
