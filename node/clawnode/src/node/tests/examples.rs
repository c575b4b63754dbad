//! Short histories that tell what the machine does, one by one.
#![expect(clippy::needless_raw_string_hashes, reason = "the golden texts are rewritten by a tool")]

use std::fmt::Write as _;

use claw_proto::ids::{Attempt, Generation, NodeId};
use claw_proto::message::{
    CheckpointWritten, Envelope, GatewayMessage, MeshPeer, NodeMessage, NodeSettings, NodeWorkloadState, StatusCause,
    StopOrder,
};
use claw_proto::spec::OnPartition;
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use expect_test::{Expect, expect};

use super::world::{capabilities, desired, new_node, workload_id};
use crate::node::{Action, DurableState, Input, Node, Now, RuntimeEvent, WorkloadEnd};

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, wall: Timestamp::from_unix_ms(i64::try_from(mono_ms).unwrap()) }
}

fn registered() -> GatewayMessage {
    GatewayMessage::Registered {
        node_id: NodeId::from_bits(1),
        settings: NodeSettings::default(),
        version: 1,
        log_acks: std::collections::BTreeMap::new(),
    }
}

/// Drives one node and writes down what it does.
struct Story {
    node: Node,
    epoch: u64,
    text: String,
}

impl Story {
    fn begin() -> Self {
        let mut story = Self { node: new_node(), epoch: 3, text: String::new() };
        story.step(Input::Booted { now: at(0), durable: Box::new(DurableState::new(1)), found: Vec::new() });
        story.step(Input::Connected { now: at(1_000) });
        story.gateway(1_000, registered());
        story
    }

    fn step(&mut self, input: Input) {
        let now = input.now();
        let mut through = 0;
        for action in self.node.step(input) {
            let line = match action {
                Action::Persist { write, .. } => {
                    through = write;
                    continue;
                }
                Action::Send(envelope) => format!("send {}", message(&envelope.body)),
                Action::Start { workload, lease } => {
                    format!(
                        "start attempt {} lease {:?}",
                        workload.attempt.0,
                        lease.map(|l| (l.term_at_ms, l.kill_at_ms))
                    )
                }
                Action::Stop { attempt, grace_ms, cause, .. } => {
                    format!("stop attempt {} grace {grace_ms} ms, {cause}", attempt.0)
                }
                Action::NoticeCheckpoint { attempt, grace_s, .. } => {
                    format!("ask attempt {} for a checkpoint within {grace_s} s", attempt.0)
                }
                Action::RenewLease { attempt, lease, .. } => {
                    format!("renew attempt {} to {:?}", attempt.0, (lease.term_at_ms, lease.kill_at_ms))
                }
                Action::Forget { attempt, .. } => format!("forget attempt {}", attempt.0),
                Action::LogsAcked { .. } | Action::ApplySettings(_) | Action::Shell(_) => continue,
                Action::CloseConnection { why, detail } => format!("close {why:?}: {detail}"),
            };
            writeln!(self.text, "@{} {line}", now.mono_ms).unwrap();
        }
        if through > 0 {
            self.step(Input::Persisted { now, through });
        }
    }

    fn gateway_ack(&mut self, now_ms: u64, ack: u64, body: GatewayMessage) {
        let generation = Generation { epoch: self.epoch, n: 0 };
        let envelope = Envelope { version: 1, epoch: self.epoch, sequence: 0, ack, generation, body };
        self.step(Input::Gateway { now: at(now_ms), envelope: Box::new(envelope) });
    }

    fn gateway(&mut self, now_ms: u64, body: GatewayMessage) {
        self.gateway_ack(now_ms, 0, body);
    }

    fn start(&mut self, now_ms: u64, n: u64, attempt: u32, on_partition: OnPartition) {
        let workload = desired(0, attempt, on_partition);
        let generation = Generation { epoch: self.epoch, n };
        self.gateway(now_ms, GatewayMessage::StartWorkload { generation, workload });
    }

    fn running(&mut self, now_ms: u64, attempt: u32) {
        let event = RuntimeEvent::Progress {
            workload_id: workload_id(0),
            attempt: Attempt(attempt),
            state: NodeWorkloadState::Running,
            detail: String::new(),
        };
        self.step(Input::Runtime { now: at(now_ms), event });
    }

    fn ended(&mut self, now_ms: u64, attempt: u32, end: WorkloadEnd) {
        let event = RuntimeEvent::Ended { workload_id: workload_id(0), attempt: Attempt(attempt), end };
        self.step(Input::Runtime { now: at(now_ms), event });
    }

    fn reads(&self, expected: Expect) {
        expected.assert_eq(&self.text);
    }
}

fn message(body: &NodeMessage) -> String {
    match body {
        NodeMessage::Register { running, .. } => format!("register, {} running", running.len()),
        NodeMessage::WorkloadStatus { records } => {
            let list: Vec<String> = records
                .iter()
                .map(|r| format!("#{} attempt {} {} ({})", r.record, r.attempt.0, r.state, r.cause))
                .collect();
            list.join(", ")
        }
        NodeMessage::Metrics { .. } => "metrics".into(),
        NodeMessage::Logs { .. } => "logs".into(),
        NodeMessage::HeartbeatAck { nonce } => format!("answer {nonce}"),
        NodeMessage::CapabilitiesChanged { .. } => "capabilities".into(),
        NodeMessage::Error { code, message } => format!("error {code}: {message}"),
        NodeMessage::GpuEvents { events } => format!("{} GPU events", events.len()),
        NodeMessage::KernelLog(log) => format!("{} kernel lines", log.lines.len()),
        NodeMessage::RenewCertificate { .. } => "certificate request".into(),
        NodeMessage::ExecDone { task, .. }
        | NodeMessage::OutputRead { task, .. }
        | NodeMessage::TaskFailed { task, .. } => format!("answer to task {}", task.0),
    }
}

#[test]
fn a_newer_attempt_waits_for_the_older_one_to_be_gone() {
    let mut story = Story::begin();
    story.start(2_000, 1, 1, OnPartition::Keep);
    story.running(2_100, 1);
    story.start(3_000, 2, 2, OnPartition::Keep);
    story.start(3_100, 2, 2, OnPartition::Keep);
    story.ended(4_000, 1, WorkloadEnd::of(NodeWorkloadState::Stopped, StatusCause::Superseded, ""));
    story.gateway_ack(5_000, 3, GatewayMessage::Ack);
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @2000 start attempt 1 lease None
        @2100 send #1 attempt 1 running (progress)
        @3000 stop attempt 1 grace 2000 ms, superseded
        @3000 send #2 attempt 1 stopping (superseded)
        @4000 start attempt 2 lease None
        @4000 send #3 attempt 1 stopped (superseded)
        @5000 forget attempt 1
    "#]]);
}

#[test]
fn of_checkpoints_written_while_the_gateway_is_away_the_newest_is_told() {
    let mut story = Story::begin();
    story.start(2_000, 1, 1, OnPartition::Keep);
    story.running(2_100, 1);
    let written = |story: &mut Story, now_ms: u64, attempt: u32, answers_notice: bool| {
        let written = CheckpointWritten { label: now_ms.to_string(), answers_notice, took_ms: Some(7) };
        let at_then = at(now_ms).wall;
        let event =
            RuntimeEvent::Checkpoint { workload_id: workload_id(0), attempt: Attempt(attempt), written, at: at_then };
        story.step(Input::Runtime { now: at(now_ms), event });
    };
    written(&mut story, 2_200, 1, false);
    story.step(Input::Disconnected { now: at(3_000) });
    written(&mut story, 4_000, 1, true);
    written(&mut story, 5_000, 1, false);
    written(&mut story, 6_000, 9, false);
    story.ended(7_000, 1, WorkloadEnd::exited(1));
    let told: Vec<_> = story.node.durable().outbox.iter().map(|r| (r.state, r.checkpoint.clone())).collect();
    let checkpoint =
        |label: &str, answers_notice| Some(CheckpointWritten { label: label.into(), answers_notice, took_ms: Some(7) });
    assert_eq!(
        told,
        [
            (NodeWorkloadState::Running, None),
            (NodeWorkloadState::Running, checkpoint("2200", false)),
            (NodeWorkloadState::Running, checkpoint("5000", true)),
            (NodeWorkloadState::Failed, None),
        ]
    );
}

#[test]
fn a_start_that_a_full_disk_refuses_is_made_up_for() {
    let mut story = Story::begin();
    story.step(Input::StorageFailed { now: at(1_500), detail: "no space left".into() });
    story.start(2_000, 1, 1, OnPartition::Keep);
    story.running(2_100, 1);
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @1500 send error storage_unavailable: no new workload is accepted until the record store can be written: no space left
        @2000 send error storage_unavailable: no new workload is accepted until the record store can be written: the status records of this workload could not be kept
        @2000 start attempt 1 lease None
        @2100 send #1 attempt 1 running (progress)
    "#]]);
}

#[test]
fn a_cut_off_node_stops_the_workload_before_its_lease_is_over() {
    let mut story = Story::begin();
    story.start(2_000, 1, 1, OnPartition::StopAfter(6));
    story.running(2_100, 1);
    story.gateway(3_000, GatewayMessage::Heartbeat { nonce: 1, confirmed: 0 });
    story.gateway(5_000, GatewayMessage::Heartbeat { nonce: 2, confirmed: 1 });
    story.gateway(6_000, GatewayMessage::Heartbeat { nonce: 2, confirmed: 1 });
    story.step(Input::Disconnected { now: at(6_500) });
    assert_eq!(story.node.next_wake_ms(), Some(7_000));
    story.step(Input::Tick { now: at(6_999) });
    story.step(Input::Tick { now: at(7_500) });
    story.step(Input::Tick { now: at(7_600) });
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @2000 start attempt 1 lease Some((5000, 7000))
        @2100 send #1 attempt 1 running (progress)
        @3000 send answer 1
        @5000 renew attempt 1 to (7000, 9000)
        @5000 send answer 2
        @6000 send answer 2
        @7500 stop attempt 1 grace 1500 ms, partition_lease
    "#]]);
}

#[test]
fn nothing_old_and_nothing_unbuilt_is_taken_in_silence() {
    let mut story = Story::begin();
    story.start(2_000, 5, 1, OnPartition::Keep);
    story.start(2_100, 4, 2, OnPartition::Keep);
    let order =
        StopOrder { workload_id: workload_id(9), attempt: Attempt(4), grace_s: 1, cause: StatusCause::StopRequested };
    let generation = Generation { epoch: 3, n: 6 };
    story.gateway(2_200, GatewayMessage::StopWorkload { generation, order });
    let peers = Vec::<MeshPeer>::new();
    story.gateway(2_300, GatewayMessage::MeshPeers { peers });
    story.epoch = 2;
    story.start(2_400, 9, 3, OnPartition::Keep);
    story.start(2_500, 9, 3, OnPartition::Keep);
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @2000 start attempt 1 lease None
        @2100 send error stale_generation: generation 3.4 is older than 3.5, which this node saw
        @2200 send #1 attempt 4 stopped (stop_requested)
        @2300 send error unsupported: mesh networks are not built on this node; 0 peers were not applied
        @2400 send error stale_generation: epoch 2 is older than 3, which this node saw
        @2400 close StaleEpoch: epoch 2 is older than 3, which this node saw
    "#]]);
}

#[test]
fn silence_ends_the_connection_and_unacked_records_go_out_again() {
    let mut story = Story::begin();
    story.start(2_000, 1, 1, OnPartition::Keep);
    story.running(2_100, 1);
    story.gateway(9_000, GatewayMessage::Ack);
    story.step(Input::Tick { now: at(12_050) });
    story.step(Input::Tick { now: at(12_100) });
    story.step(Input::Tick { now: at(19_000) });
    story.step(Input::Disconnected { now: at(19_200) });
    story.ended(19_300, 1, WorkloadEnd::exited(3));
    story.step(Input::Connected { now: at(20_000) });
    story.gateway(20_100, registered());
    story.gateway_ack(20_200, 2, GatewayMessage::Ack);
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @2000 start attempt 1 lease None
        @2100 send #1 attempt 1 running (progress)
        @12100 send #1 attempt 1 running (progress)
        @19000 close Silent: nothing was heard from the gateway for 10000 ms
        @20000 send register, 1 running
        @20100 send #1 attempt 1 running (progress), #2 attempt 1 failed (exited)
        @20200 forget attempt 1
    "#]]);
}

#[test]
fn a_repeated_frame_is_dropped_and_a_missing_one_ends_the_connection() {
    let mut story = Story::begin();
    for (now_ms, sequence, nonce) in [(1_100, 1, 1), (1_200, 1, 2), (1_300, 2, 3), (1_400, 4, 4), (1_500, 5, 5)] {
        let body = GatewayMessage::Heartbeat { nonce, confirmed: 0 };
        let generation = Generation { epoch: 3, n: 0 };
        let envelope = Envelope { version: 1, epoch: 3, sequence, ack: 0, generation, body };
        story.step(Input::Gateway { now: at(now_ms), envelope: Box::new(envelope) });
    }
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @1100 send answer 1
        @1300 send answer 3
        @1400 close Protocol: frame 4 came after frame 2
    "#]]);
}

#[test]
fn max_duration_ends_a_workload_and_a_shorter_stop_ends_it_earlier() {
    let mut story = Story::begin();
    story.start(2_000, 1, 1, OnPartition::Keep);
    story.running(3_000, 1);
    story.step(Input::Disconnected { now: at(4_000) });
    story.step(Input::Tick { now: at(62_999) });
    story.step(Input::Tick { now: at(63_000) });
    story.step(Input::Tick { now: at(63_100) });
    story.step(Input::Connected { now: at(63_200) });
    story.gateway(63_300, registered());
    let order =
        StopOrder { workload_id: workload_id(0), attempt: Attempt(1), grace_s: 0, cause: StatusCause::StopRequested };
    let generation = Generation { epoch: 3, n: 2 };
    story.gateway(63_400, GatewayMessage::StopWorkload { generation, order: order.clone() });
    story.gateway(63_500, GatewayMessage::StopWorkload { generation, order });
    story.ended(63_600, 1, WorkloadEnd::of(NodeWorkloadState::Stopped, StatusCause::MaxDuration, ""));
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @2000 start attempt 1 lease None
        @3000 send #1 attempt 1 running (progress)
        @63000 stop attempt 1 grace 2000 ms, max_duration
        @63200 send register, 1 running
        @63300 send #1 attempt 1 running (progress), #2 attempt 1 stopping (max_duration)
        @63400 stop attempt 1 grace 0 ms, max_duration
        @63600 send #3 attempt 1 stopped (max_duration)
    "#]]);
}

#[test]
fn an_old_gateway_is_told_in_its_words_or_not_at_all() {
    let mut story = Story::begin();
    story.start(2_000, 1, 1, OnPartition::Keep);
    story.step(Input::Say { now: at(2_500), message: Box::new(NodeMessage::GpuEvents { events: Vec::new() }) });
    story.ended(3_000, 1, WorkloadEnd::of(NodeWorkloadState::Failed, StatusCause::PullFailed, "no such image"));
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @2000 start attempt 1 lease None
        @3000 send #1 attempt 1 failed (start_failed)
    "#]]);
}

#[test]
fn what_changes_while_a_registration_is_on_its_way_is_told_after_it() {
    let mut story = Story { node: new_node(), epoch: 3, text: String::new() };
    story.step(Input::Booted { now: at(0), durable: Box::new(DurableState::new(1)), found: Vec::new() });
    let change = |version: &str| Box::new(NodeCapabilities { agent_version: version.into(), ..capabilities() });
    // Before there is a connection: the registration tells it.
    story.step(Input::Capabilities { now: at(500), capabilities: change("8") });
    story.step(Input::Connected { now: at(1_000) });
    story.gateway(1_100, registered());
    story.step(Input::Disconnected { now: at(1_200) });
    story.step(Input::Connected { now: at(1_300) });
    story.step(Input::Capabilities { now: at(1_400), capabilities: change("9") });
    story.gateway(1_500, registered());
    story.reads(expect![[r#"
        @1000 send register, 0 running
        @1300 send register, 0 running
        @1500 send capabilities
    "#]]);
}
