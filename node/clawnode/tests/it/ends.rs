//! An end comes behind the last line, over the whole way to the gateway.

use std::collections::BTreeMap;

use claw_proto::ids::Generation;
use claw_proto::message::{GatewayMessage, LogStream, NodeMessage, NodeWorkloadState};

use crate::agent::{Agent, enrolled};
use crate::peer::Peer;
use crate::support::script;

#[tokio::test]
async fn every_line_arrives_before_the_end() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let _agent = Agent::start(folder.path());
    let (mut session, _) = peer.register(0, BTreeMap::new()).await;
    for n in 1..=10_u8 {
        let workload = script(n, "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; echo last");
        let generation = Generation { epoch: 1, n: u64::from(n) };
        session.send(GatewayMessage::StartWorkload { generation, workload: workload.clone() }).await;
        let mut n_lines = 0;
        loop {
            match session.receive().await {
                NodeMessage::Logs { chunks } => {
                    let of_stdout = chunks.iter().filter(|chunk| {
                        chunk.key.stream == LogStream::Stdout && chunk.key.workload_id == workload.workload_id
                    });
                    n_lines += of_stdout.map(|chunk| chunk.lines.len()).sum::<usize>();
                }
                NodeMessage::WorkloadStatus { records }
                    if records.iter().any(|record| record.state == NodeWorkloadState::Completed) =>
                {
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(n_lines, 301, "workload {n} was told to be over before its last line came");
    }
}
