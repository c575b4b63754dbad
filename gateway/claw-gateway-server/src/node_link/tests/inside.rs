//! Questions to a node about what runs there, and what it is told of secrets.

use std::collections::BTreeSet;

use claw_gateway::{Command, Operation};
use claw_proto::ids::{Attempt, GpuUuid, NodeId, WorkloadId};
use claw_proto::message::{
    GatewayMessage, GpuEvent, GpuEventKind, NodeMessage, NodeWorkloadState, OutputContent, OutputEntry, StatusCause,
    StatusRecord, SystemMetrics, TaskErrorCode, TaskId, WorkloadMetrics,
};
use claw_proto::spec::{RuntimeKind, SecretRef, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_security::secrets::{SecretKey, SecretStore};
use claw_tools::operations::OperationState;
use claw_tools::outcome::{Mode, Mutation};

use super::peer::{Connection, Machine, authority, capabilities, enroll, operate, plan_and_apply, start, until};
use crate::app::Running;
use crate::node_link::TaskFailure;

/// A connected node with containers.
async fn with_containers(running: &Running, folder: &std::path::Path) -> (Machine, Connection) {
    let authority = authority(folder);
    let node = enroll(running, &authority, "gpu-1").await;
    let mut link = Connection::of(running, &authority, &node).await;
    link.version = 2;
    let mut has = capabilities();
    has.runtimes = vec![RuntimeKind::Docker];
    link.register_with((1, 2), has).await;
    let registered = link.next().await.unwrap();
    assert!(matches!(registered, GatewayMessage::Registered { version: 2, .. }), "{registered:?}");
    let set = link.until_message("the first set", |m| matches!(m, GatewayMessage::DesiredSet { .. })).await;
    drop(set);
    (node, link)
}

fn contained(secrets: &[(&str, &str)], pull_secret: Option<&str>) -> Operation {
    let file = |(handle, target): &(&str, &str)| SecretRef { handle: (*handle).into(), target: (*target).into() };
    let spec = WorkloadSpec {
        name: Some("job".into()),
        image: Some("registry.example/app:1".into()),
        secrets: secrets.iter().map(file).collect(),
        pull_secret: pull_secret.map(str::to_owned),
        outputs: vec!["/out".into()],
        ..WorkloadSpec::default()
    };
    Operation::WorkloadRun { spec: Box::new(spec), env_handle: None, assumptions: Vec::new() }
}

/// Starts it and has the node say that it runs.
async fn running_job(running: &Running, link: &mut Connection, operation: Operation) -> (WorkloadId, GatewayMessage) {
    operate(running.control(), operation, None).await;
    let started = link.until_message("the start", |m| matches!(m, GatewayMessage::StartWorkload { .. })).await;
    let GatewayMessage::StartWorkload { workload, .. } = &started else { panic!() };
    let record = StatusRecord {
        record: 1,
        workload_id: workload.workload_id,
        attempt: workload.attempt,
        state: NodeWorkloadState::Running,
        cause: StatusCause::Progress,
        detail: String::new(),
        exit_code: None,
        signal: None,
        at: Timestamp::from_unix_ms(1_772_366_400_000),
        simulated: false,
        checkpoint: None,
    };
    link.send(NodeMessage::WorkloadStatus { records: vec![record] }).await;
    link.until("it runs", |l| l.acked == 1).await;
    (workload.workload_id, started)
}

fn planned(operation: Operation) -> Command {
    let mutation = Mutation { mode: Mode::Plan, request_id: None, reason: None, wait_s: 0 };
    Command::Operate { args_hash: format!("{operation:?}"), operation, mutation, secret_hash: None }
}

fn exec_of(command: &str) -> Command {
    let command = vec![command.to_owned()];
    planned(Operation::WorkloadExec { workload: "job".into(), command, timeout_s: 5 })
}

async fn asked(link: &mut Connection) -> (TaskId, Vec<String>) {
    let message = link.until_message("the command", |m| matches!(m, GatewayMessage::Exec { .. })).await;
    let GatewayMessage::Exec { task, command, timeout_ms, .. } = message else { panic!() };
    assert_eq!(timeout_ms, 5_000);
    (task, command)
}

#[tokio::test]
async fn a_command_is_asked_once_and_its_end_is_what_the_node_said() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let control = running.control().clone();
    let (_node, mut link) = with_containers(&running, folder.path()).await;
    running_job(&running, &mut link, contained(&[], None)).await;

    plan_and_apply(&control, exec_of("first")).await;
    let (first, command) = asked(&mut link).await;
    assert_eq!(command, ["first"]);
    // An answer to something that was not asked is nobody's.
    let nobody = NodeMessage::TaskFailed { task: TaskId(99), code: TaskErrorCode::Internal, message: "?".into() };
    link.send(nobody).await;
    let done = NodeMessage::ExecDone {
        task: first,
        exit_code: Some(0),
        timed_out: false,
        stdout: b"hello\n".to_vec(),
        stderr: Vec::new(),
        truncated: false,
    };
    link.send(done.clone()).await;
    link.send(done).await;
    let over =
        |cluster: &claw_gateway::Cluster, n: usize| cluster.execs.values().filter(|e| e.end.is_some()).count() == n;
    let state = until(&control, "the command ends", |c| over(c, 1)).await;
    let exec = state.execs.values().next().unwrap();
    assert_eq!(state.operations[&exec.operation_id].state, OperationState::Succeeded);
    let written = control.blob(exec.output.as_ref().unwrap()).await.unwrap().unwrap();
    assert!(String::from_utf8(written).unwrap().contains("aGVsbG8K"), "what it wrote is kept beside the journal");

    // The connection goes before the answer: it may have run, and is not asked again.
    plan_and_apply(&control, exec_of("second")).await;
    asked(&mut link).await;
    drop(link);
    let state = until(&control, "the loss is told", |c| over(c, 2)).await;
    let lost = state.execs.values().find(|e| e.command == ["second"]).unwrap();
    let operation = &state.operations[&lost.operation_id];
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.observed.contains("may have run"), "{}", operation.observed);
    running.shutdown().await;
}

#[tokio::test]
async fn outputs_are_read_from_the_node_that_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let (node, mut link) = with_containers(&running, folder.path()).await;
    let (id, _) = running_job(&running, &mut link, contained(&[], None)).await;
    let links = running.links();
    let key = (id, Attempt(1));
    let read = tokio::spawn({
        let (links, node_id) = (links.clone(), node.node_id);
        async move { links.read_output(node_id, key, "/out".into(), 0, 100).await }
    });
    let message = link.until_message("the question", |m| matches!(m, GatewayMessage::ReadOutput { .. })).await;
    let GatewayMessage::ReadOutput { task, path, bytes_max, .. } = message else { panic!() };
    assert_eq!((path.as_str(), bytes_max), ("/out", 100));
    let entries = vec![OutputEntry { name: "a".into(), bytes: 3, is_folder: false }];
    let content = OutputContent::Folder { entries, truncated: false };
    link.send(NodeMessage::OutputRead { task, content: content.clone() }).await;
    let answered = tokio::spawn(async move {
        // Heartbeats go on.
        while link.any().await.is_ok() {}
    });
    assert_eq!(read.await.unwrap().unwrap(), content);
    let unknown = NodeId::from_bits(1);
    let failure = links.read_output(unknown, key, "/out".into(), 0, 100).await.unwrap_err();
    assert_eq!(failure, TaskFailure::NotConnected);
    running.shutdown().await;
    answered.await.unwrap();
}

#[tokio::test]
async fn what_a_node_measures_and_what_happens_to_its_gpus_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let control = running.control().clone();
    let (node, mut link) = with_containers(&running, folder.path()).await;
    let (id, _) = running_job(&running, &mut link, contained(&[], None)).await;
    let at = Timestamp::from_unix_ms(1_772_366_400_000);
    let used = WorkloadMetrics {
        workload_id: id,
        attempt: Attempt(1),
        cpu_percent: 50.0,
        memory_used_mib: 7,
        memory_limit_mib: None,
        n_pids: 3,
        network_rx_bytes: 0,
        network_tx_bytes: 0,
        disk_read_bytes: 0,
        disk_write_bytes: 0,
        simulated: false,
    };
    let event = |code| GpuEvent {
        uuid: GpuUuid("GPU-0".into()),
        kind: GpuEventKind::Xid,
        code: Some(code),
        detail: "fell off the bus".into(),
        at,
        simulated: false,
    };
    let workloads = vec![used];
    link.send(NodeMessage::GpuEvents { events: (0..30).map(event).collect() }).await;
    link.send(NodeMessage::Metrics { at, gpus: Vec::new(), system: SystemMetrics::default(), workloads }).await;
    // Read in order: an answer to a heartbeat that comes after is confirmed after.
    let nonce = link.highest_nonce;
    link.until("a later heartbeat is confirmed", |l| l.highest_confirmed > nonce).await;
    let usage = control.metrics().usage(node.node_id, id, Attempt(1)).unwrap();
    assert_eq!((usage.numbers.memory_used_mib, usage.numbers.n_pids), (7, 3));
    assert!(control.metrics().usage(node.node_id, id, Attempt(2)).is_none());
    let codes: Vec<_> = control.metrics().gpu_events(node.node_id).iter().map(|(e, _)| e.code).collect();
    assert_eq!((codes.len(), codes[0], codes[15]), (16, Some(29), Some(14)), "the newest first, so many of one GPU");
    running.shutdown().await;
}

#[tokio::test]
async fn secrets_reach_the_node_in_the_clear_and_the_disk_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let control = running.control().clone();
    let key = SecretKey::load_or_create(&folder.path().join("data").join("secrets.key")).unwrap();
    let store = SecretStore::new(&key);
    for (handle, value) in [("token", "hunter2-value"), ("registry", "robot:hunter2-password\n")] {
        let sealed = Some(store.seal(handle, value.as_bytes()).unwrap());
        let set = Operation::SecretSet { handle: handle.into(), used_by: BTreeSet::new(), sealed, blob: None };
        plan_and_apply(&control, planned(set)).await;
    }
    let (_node, mut link) = with_containers(&running, folder.path()).await;
    let (id, started) = running_job(&running, &mut link, contained(&[("token", "hf")], Some("registry"))).await;
    let GatewayMessage::StartWorkload { workload, .. } = started else { panic!() };
    assert_eq!(
        (workload.secrets[0].target.as_str(), workload.secrets[0].value.expose()),
        ("hf", &b"hunter2-value"[..])
    );
    let auth = workload.registry_auth.unwrap();
    assert_eq!((auth.username.as_str(), auth.password.expose()), ("robot", &b"hunter2-password"[..]));

    // A value that does not open: the attempt fails and says why.
    let stop = Operation::WorkloadStop { workload: id.to_string(), grace_s: Some(0) };
    operate(&control, stop, None).await;
    let other = SecretStore::new(&SecretKey::load_or_create(&folder.path().join("other.key")).unwrap());
    let sealed = Some(other.seal("token", b"x").unwrap());
    let set = Operation::SecretSet { handle: "token".into(), used_by: BTreeSet::new(), sealed, blob: None };
    plan_and_apply(&control, planned(set)).await;
    let Operation::WorkloadRun { mut spec, .. } = contained(&[("token", "hf")], None) else { panic!() };
    spec.name = Some("second".into());
    let outcome =
        operate(&control, Operation::WorkloadRun { spec, env_handle: None, assumptions: Vec::new() }, None).await;
    let second = outcome.workload_id.unwrap();
    let state = until(&control, "it fails", |c| c.workloads.get(second).is_some_and(|w| w.state.is_final())).await;
    let detail = &state.workloads.get(second).unwrap().attempts.last().unwrap().detail;
    assert!(detail.contains("the secret token") && detail.contains("does not open"), "{detail}");
    drop(link);
    running.shutdown().await;
    let mut files = vec![folder.path().join("data")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{} holds a value", path.display());
        }
    }
}
