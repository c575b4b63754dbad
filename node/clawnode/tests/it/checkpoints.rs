//! What programs say of their checkpoints, over the wire.

use std::collections::BTreeMap;

use claw_proto::ids::Generation;
use claw_proto::message::{DesiredWorkload, GatewayMessage, NodeWorkloadState, StatusCause, StatusRecord, StopOrder};
use claw_proto::spec::RuntimeKind;

use crate::agent::{Agent, enrolled};
use crate::peer::{Peer, Session};
use crate::support::{kill_9, script};

/// Says that a checkpoint is written, in one step.
const SAY: &str =
    r#"say() { echo "$1" > "$CLAW_CHECKPOINT_FILE.new"; mv "$CLAW_CHECKPOINT_FILE.new" "$CLAW_CHECKPOINT_FILE"; }"#;

fn trainer(n: u8, text: &str) -> DesiredWorkload {
    let mut workload = script(n, &format!("{SAY}; {text}"));
    workload.spec.preemptible = Some(true);
    workload
}

async fn start(session: &mut Session, n: u64, workload: &DesiredWorkload) {
    let generation = Generation { epoch: 1, n };
    session.send(GatewayMessage::StartWorkload { generation, workload: workload.clone() }).await;
}

async fn notice(session: &mut Session, workload: &DesiredWorkload) {
    let (workload_id, attempt) = (workload.workload_id, workload.attempt);
    session.send(GatewayMessage::CheckpointNotice { workload_id, attempt, grace_s: 30 }).await;
}

/// Waits until this is said, and whether it answers a notice.
async fn said(session: &mut Session, label: &str) -> bool {
    let is_it = |record: &StatusRecord| record.checkpoint.as_ref().is_some_and(|written| written.label == label);
    let records = session.records_until(is_it).await;
    let record = records.iter().find(|record| is_it(record)).unwrap();
    assert_eq!(record.cause, StatusCause::Progress);
    record.checkpoint.as_ref().unwrap().answers_notice
}

#[tokio::test]
async fn a_program_says_what_it_wrote_and_answers_a_notice() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let mut agent = Agent::start(folder.path());
    let (mut session, _) = peer.register_as(3, 0, BTreeMap::new()).await;
    let wait = r#"while [ ! -e "$CLAW_CHECKPOINT_NOTICE" ]; do sleep 0.05; done"#;
    let mut workload = trainer(1, &format!(r#"say "after $CLAW_CHECKPOINT_LAST"; {wait}; say "step 2"; sleep 60"#));
    workload.checkpoint_last = Some("step 1".into());
    start(&mut session, 1, &workload).await;
    assert!(!said(&mut session, "after step 1").await, "nobody asked");
    // An agent that comes back still knows whom it told.
    kill_9(agent.pid());
    agent.child.wait().await.unwrap();
    let _again = Agent::start(folder.path());
    let (mut session, _) = peer.register_as(3, 0, BTreeMap::new()).await;
    notice(&mut session, &workload).await;
    notice(&mut session, &workload).await;
    assert!(said(&mut session, "step 2").await, "the answer");
    let order = StopOrder {
        workload_id: workload.workload_id,
        attempt: workload.attempt,
        grace_s: 1,
        cause: StatusCause::StopRequested,
    };
    session.send(GatewayMessage::StopWorkload { generation: Generation { epoch: 1, n: 2 }, order }).await;
    let records = session.records_until(|record| record.state.is_final()).await;
    assert_eq!(records.last().unwrap().state, NodeWorkloadState::Stopped);
    assert!(records.iter().all(|record| record.checkpoint.is_none()), "each is told once");
}

#[tokio::test]
async fn a_last_word_is_heard_before_the_end() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let _agent = Agent::start(folder.path());
    let (mut session, _) = peer.register_as(3, 0, BTreeMap::new()).await;
    let workload = trainer(2, r#"sleep 0.3; say "the end"; exit 3"#);
    start(&mut session, 1, &workload).await;
    let records = session.records_until(|record| record.state.is_final()).await;
    let labels: Vec<_> = records.iter().map(|record| record.checkpoint.as_ref().map(|w| w.label.as_str())).collect();
    let (last, before) = labels.split_last().unwrap();
    assert_eq!((*last, *before.last().unwrap()), (None, Some("the end")), "{records:?}");
    // Work that is not to be stopped and says nothing of checkpoints has no such files.
    let mut silent = trainer(3, "[ -z \"$CLAW_CHECKPOINT_FILE$CLAW_CHECKPOINT_NOTICE\" ]");
    silent.spec.preemptible = None;
    start(&mut session, 2, &silent).await;
    let records = session.records_until(|record| record.state.is_final()).await;
    assert_eq!(records.last().unwrap().state, NodeWorkloadState::Completed);
}

#[tokio::test]
async fn simulated_trainers_write_answer_and_go_on_from_there() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let _agent = Agent::start(folder.path());
    let (mut session, _) = peer.register_as(3, 0, BTreeMap::new()).await;
    let sim = |n, labels: &[(&str, &str)]| {
        let mut workload = trainer(n, "");
        workload.runtime = RuntimeKind::Sim;
        workload.spec.labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        workload
    };
    let first = sim(4, &[("claw.sim/checkpoint-every-ms", "100"), ("claw.sim/run-for-ms", "600000")]);
    start(&mut session, 1, &first).await;
    assert!(!said(&mut session, "100 ms done").await);
    notice(&mut session, &first).await;
    let of_it = |record: &StatusRecord| record.checkpoint.as_ref().is_some_and(|written| written.answers_notice);
    let records = session.records_until(of_it).await;
    assert!(records.iter().all(|record| record.simulated));
    // Almost all of it was done before: little is left.
    let mut rest = sim(5, &[("claw.sim/checkpoint-every-ms", "100"), ("claw.sim/run-for-ms", "600000")]);
    rest.checkpoint_last = Some("599900 ms done".into());
    start(&mut session, 2, &rest).await;
    let records = session.records_until(|record| record.state.is_final()).await;
    assert_eq!(records.last().unwrap().state, NodeWorkloadState::Completed);
}

/// A checkpoint that takes longer to write than from one to the next holds what was done when its writing began.
#[tokio::test]
async fn a_trainer_that_writes_slowly_does_not_fall_behind() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let _agent = Agent::start(folder.path());
    let (mut session, _) = peer.register_as(3, 0, BTreeMap::new()).await;
    let mut slow = trainer(6, "");
    slow.runtime = RuntimeKind::Sim;
    let labels = [("claw.sim/checkpoint-every-ms", "1000"), ("claw.sim/checkpoint-ms", "2500")];
    slow.spec.labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    start(&mut session, 1, &slow).await;
    let done = |record: &StatusRecord| -> Option<u64> {
        record.checkpoint.as_ref()?.label.strip_suffix(" ms done")?.parse().ok()
    };
    // Begun after one second, and again when that was written.
    let records = session.records_until(|record| done(record).is_some_and(|done| done > 1_000)).await;
    let told: Vec<u64> = records.iter().filter_map(done).collect();
    assert!(told.last().is_some_and(|last| *last >= 3_000), "{told:?}");
}
