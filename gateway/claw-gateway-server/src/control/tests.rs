//! The control plane on real files: what is answered is durable, and a restart knows it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;

use claw_gateway::policy::Policy;
use claw_gateway::{Caller, Command, Operation, Report};
use claw_proto::spec::WorkloadSpec;
use claw_storage::LogLimits;
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::outcome::{Mode, Mutation, Outcome};

use super::{ControlOptions, ControlPlane, ControlTask, CrashPlan, SubmitError, SystemClock, start};

fn options(dir: &std::path::Path) -> ControlOptions {
    options_with(dir, 1_000)
}

fn options_with(dir: &std::path::Path, snapshot_every: u64) -> ControlOptions {
    ControlOptions {
        data_dir: dir.to_path_buf(),
        policy: Policy::default(),
        clock: Arc::new(SystemClock::default()),
        log_limits: LogLimits::default(),
        reserve_bytes: 0,
        snapshot_every,
        keep_events: 1_000,
        epoch_above: 0,
        crash: Arc::new(CrashPlan::none()),
    }
}

async fn open(dir: &std::path::Path) -> (ControlPlane, ControlTask) {
    let (control, mut effects, task) = start(options(dir)).await.unwrap();
    tokio::spawn(async move { while effects.recv().await.is_some() {} });
    (control, task)
}

async fn run(control: &ControlPlane, name: &str, request_id: &str) -> Result<(Outcome, bool), SubmitError> {
    let spec = WorkloadSpec { name: Some(name.into()), command: Some(vec!["true".into()]), ..WorkloadSpec::default() };
    let operation = Operation::WorkloadRun { spec: Box::new(spec), env_handle: None, assumptions: Vec::new() };
    let mutation = Mutation { mode: Mode::Apply, request_id: Some(request_id.into()), reason: None, wait_s: 0 };
    let caller = Caller {
        principal: "alice".into(),
        kind: PrincipalKind::Agent,
        role: Role::Operator,
        key_id: None,
        now: control.now(),
        reason: String::new(),
    };
    let command = Command::Operate { operation, mutation, args_hash: name.into(), secret_hash: None };
    match control.submit(command, caller).await? {
        Report::Outcome { outcome, replayed } => Ok((*outcome, replayed)),
        other => panic!("not an outcome: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (control, task) = open(dir.path()).await;
    let epoch = control.snapshot().epoch;
    let (first, replayed) = run(&control, "one", "r1").await.unwrap();
    assert!(!replayed);
    let state = control.snapshot().to_snapshot();
    let seq = control.snapshot().seq;
    drop(task); // no orderly stop: nothing but the journal is left
    drop(control);
    let (control, task) = poll_open(dir.path()).await;
    let again = control.snapshot();
    assert!(again.epoch > epoch, "the epoch rises at each start");
    assert_eq!(again.seq, seq + 1, "one more event: the start itself");
    let events = control.events(0, 100).await.unwrap();
    assert_eq!(events.len() as u64, again.seq);
    let (second, replayed) = run(&control, "one", "r1").await.unwrap();
    assert!(replayed);
    assert_eq!(first, second, "identical receipt");
    task.stop().await;
    assert!(!state.is_empty());
}

/// The journal's lock goes with the thread that holds it, shortly after the handles.
async fn poll_open(dir: &std::path::Path) -> (ControlPlane, ControlTask) {
    for _ in 0..400 {
        if let Ok((control, mut effects, task)) = start(options(dir)).await {
            tokio::spawn(async move { while effects.recv().await.is_some() {} });
            return (control, task);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the journal stays locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_cannot_be_read_are_not_passed_over_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let (control, task) = open(dir.path()).await;
    task.stop().await;
    assert!(!control.changes().is_behind());
    let following = tokio::spawn(super::keep_changes(control.clone()));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !control.changes().is_behind() {
        assert!(std::time::Instant::now() < until, "nobody says that the journal cannot be read");
        tokio::task::yield_now().await;
    }
    assert!(!following.is_finished(), "it is tried again");
    control.stopping().cancel();
    tokio::time::timeout(std::time::Duration::from_secs(30), following).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_in_flight_join() {
    let dir = tempfile::tempdir().unwrap();
    let (control, task) = open(dir.path()).await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let control = control.clone();
            tokio::spawn(async move { run(&control, "same", "k").await.unwrap() })
        })
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    assert_eq!(outcomes.iter().filter(|(_, replayed)| !replayed).count(), 1);
    assert!(outcomes.windows(2).all(|pair| pair[0].0 == pair[1].0));
    assert_eq!(control.snapshot().workloads.len(), 1);
    task.stop().await;
    assert!(matches!(run(&control, "late", "z").await, Err(SubmitError::Refused(_))), "after the stop it refuses");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_at_stop_and_a_fold_give_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let (control, task) = open(dir.path()).await;
    for i in 0..50 {
        run(&control, &format!("w{i}"), &format!("r{i}")).await.unwrap();
    }
    let before = control.snapshot();
    drop(control);
    task.stop().await;
    let (control, task) = poll_open(dir.path()).await;
    let after = control.snapshot();
    assert_eq!(after.workloads, before.workloads);
    assert_eq!(after.operations.len(), before.operations.len());
    task.stop().await;
}

/// Snapshots are due at ten events, and come at a hundred while commands never pause. One counts
/// once it is named, and then the one before it goes. What lies on the disk is a gateway that
/// was killed: the snapshot and what was decided while it was written give the same state.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_written_while_commands_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (control, mut effects, task) = start(options_with(dir.path(), 10)).await.unwrap();
    tokio::spawn(async move { while effects.recv().await.is_some() {} });
    let saved = || -> BTreeSet<OsString> {
        let entries = std::fs::read_dir(dir.path().join("journal/snapshot")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".snap")).collect()
    };
    let (mut n, mut first) = (0, None);
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while first.as_ref().is_none_or(|first| saved().contains(first) || saved().is_empty()) {
        assert!(std::time::Instant::now() < until, "no snapshot took the place of {first:?} after {n} commands");
        run(&control, &format!("w{n}"), &format!("r{n}")).await.unwrap();
        n += 1;
        if n % 40 == 0 {
            // A second has passed, in which there were commands.
            control.submit(Command::Tick, Caller::system(control.now())).await.unwrap();
        }
        first = first.or_else(|| saved().pop_first());
    }
    let (before, killed) = (control.snapshot(), tempfile::tempdir().unwrap());
    let copied = std::process::Command::new("cp").arg("-r").arg(dir.path().join(".")).arg(killed.path()).status();
    assert!(copied.unwrap().success());
    task.stop().await;
    let (control, task) = poll_open(killed.path()).await;
    assert_eq!(control.snapshot().seq, before.seq + 1, "one more event: the start itself");
    assert_eq!(control.snapshot().workloads, before.workloads);
    task.stop().await;
}
