//! The whole agent, as a process, against a peer of the protocol.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};

use claw_proto::ids::{Attempt, Generation};
use claw_proto::message::{
    DesiredWorkload, GatewayMessage, LogKey, LogStream, NodeErrorCode, NodeMessage, NodeWorkloadState, StatusCause,
    StatusRecord, StopOrder,
};
use claw_proto::spec::RuntimeKind;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::peer::{NODE_ID, Peer, Session};
use crate::support::{DEADLINE, executions, kill_9, number_in, poll_until, runs, script};

fn clawnode(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawnode"));
    command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn finish(mut command: Command) -> Output {
    tokio::time::timeout(DEADLINE, command.output()).await.expect("it does not end").unwrap()
}

async fn join(peer: &Peer, data_dir: &Path, token: &str, status: &str) -> (Output, std::io::Result<serde_json::Value>) {
    let url = format!("https://{}", peer.address());
    let folder = data_dir.to_str().unwrap();
    let settings =
        ["--set", "runtime.process.enabled=true", "--set", "gpu=sim:h100x8", "--set", "runtime.sim.pull_ms=20"];
    let mut arguments = vec!["join", &url, "--token", token, "--name", "n1", "--data-dir", folder];
    arguments.extend(settings);
    arguments.extend(["--set", "link.reconnect_max_ms=400"]);
    tokio::join!(finish(clawnode(&arguments)), peer.enroll_one(status))
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Agent {
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// With variables that override its configuration.
    pub(crate) fn start_with(data_dir: &Path, environment: &[(&str, &std::ffi::OsStr)]) -> Self {
        let mut command = clawnode(&["run", "--data-dir", data_dir.to_str().unwrap()]);
        command.envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn ready(&mut self) -> String {
        tokio::time::timeout(DEADLINE, self.lines.next_line()).await.expect("not ready").unwrap().expect("it ended")
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id().unwrap()).unwrap()
    }
}

pub(crate) async fn enrolled(peer: &Peer) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (output, request) = join(peer, folder.path(), &peer.token(), "200 OK").await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(request.unwrap()["name"], "n1");
    folder
}

fn start_order(n: u64, workload: DesiredWorkload) -> GatewayMessage {
    GatewayMessage::StartWorkload { generation: Generation { epoch: 1, n }, workload }
}

fn stop_order(n: u64, workload: &DesiredWorkload) -> GatewayMessage {
    let order = StopOrder {
        workload_id: workload.workload_id,
        attempt: workload.attempt,
        grace_s: 5,
        cause: StatusCause::StopRequested,
    };
    GatewayMessage::StopWorkload { generation: Generation { epoch: 1, n }, order }
}

/// Lines of a workload's standard output, taken from what arrived.
fn stdout_of(session: &Session, workload: &DesiredWorkload) -> Vec<(u64, String)> {
    let chunks = session.seen.iter().filter_map(|message| match message {
        NodeMessage::Logs { chunks } => Some(chunks),
        _ => None,
    });
    let ours = chunks.flatten().filter(|chunk| chunk.key == stdout_key(workload));
    ours.flat_map(|chunk| &chunk.lines)
        .map(|line| (line.sequence, String::from_utf8_lossy(&line.bytes).into_owned()))
        .collect()
}

fn stdout_key(workload: &DesiredWorkload) -> LogKey {
    LogKey { workload_id: workload.workload_id, attempt: workload.attempt, stream: LogStream::Stdout }
}

async fn wait_for_line(session: &mut Session, workload: &DesiredWorkload, text: &str) {
    while !stdout_of(session, workload).iter().any(|(_, line)| line == text) {
        session.wait_for(|message| matches!(message, NodeMessage::Logs { .. }).then_some(())).await;
    }
}

#[tokio::test]
async fn joining_trusts_the_pinned_authority_and_nobody_else() {
    let (peer, stranger) = (Peer::new().await, Peer::new().await);
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let (output, seen) = join(&peer, &data_dir, &stranger.token(), "200 OK").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(seen.is_err(), "the secret went to a server that the token does not name");
    let (output, _) = join(&peer, &data_dir, &peer.token(), "403 Forbidden").await;
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the token is used up"));
    let run = clawnode(&["run", "--data-dir", data_dir.to_str().unwrap()]);
    assert_eq!(finish(run).await.status.code(), Some(3), "a half-joined folder is no node");

    let (output, _) = join(&peer, &data_dir, &peer.token(), "200 OK").await;
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&format!("joined as {NODE_ID} (n1)")));
    let mode =
        |name: &str| std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(data_dir.join(name)).unwrap()) & 0o777;
    assert_eq!(["node.key", "node.pem", "ca.pem", "config.toml", "identity.json"].map(mode), [0o600; 5]);
    let again =
        clawnode(&["join", "https://127.0.0.1:1", "--token", &peer.token(), "--data-dir", data_dir.to_str().unwrap()]);
    let again = finish(again).await;
    assert!(String::from_utf8_lossy(&again.stderr).contains("already belongs to"), "{again:?}");
}

#[tokio::test]
async fn a_process_survives_its_agent_and_everything_about_it_arrives() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let mut agent = Agent::start(folder.path());
    let (mut session, register) = peer.register(0, BTreeMap::new()).await;
    assert_eq!(agent.ready().await, format!("clawnode ready node_id={NODE_ID}"));
    let NodeMessage::Register { name, capabilities, running, store_id, .. } = register else { panic!("{register:?}") };
    assert_eq!((name.as_str(), running.len(), capabilities.gpus.len()), ("n1", 0, 8));
    assert_eq!(capabilities.labels["claw.runtime/process"], "unisolated");
    assert_eq!(capabilities.runtimes, [RuntimeKind::Process, RuntimeKind::Sim]);
    let second = clawnode(&["run", "--data-dir", folder.path().to_str().unwrap()]);
    assert_eq!(finish(second).await.status.code(), Some(4), "two agents on one folder");

    let gate = folder.path().join("gate");
    let pid_file = folder.path().join("pid");
    let text = format!(
        "echo $$ > {}; echo one; while [ ! -e {} ]; do sleep 0.05; done; echo two; exit 3",
        pid_file.display(),
        gate.display()
    );
    let workload = script(1, &text);
    session.send(start_order(1, workload.clone())).await;
    let records = session.records_until(|record| record.state == NodeWorkloadState::Running).await;
    let states: Vec<_> = records.iter().map(|record| (record.record, record.state)).collect();
    assert_eq!(states, [(1, NodeWorkloadState::Starting), (2, NodeWorkloadState::Running)]);
    wait_for_line(&mut session, &workload, "one").await;
    session.wait_for(|message| matches!(message, NodeMessage::Metrics { .. }).then_some(())).await;

    let pid = number_in(&pid_file).unwrap();
    kill_9(agent.pid());
    agent.child.wait().await.unwrap();
    drop(session);
    assert!(runs(pid), "the workload died with the agent");
    std::fs::write(&gate, "").unwrap();
    let log = folder.path().join("execution.log");
    poll_until("the end", || (executions(&log).len() == 2).then_some(())).await;

    let mut agent = Agent::start(folder.path());
    let acks = BTreeMap::from([(stdout_key(&workload), 1)]);
    let (mut session, register) = peer.register(1, acks).await;
    let NodeMessage::Register { running, store_id: same, .. } = register else { panic!("{register:?}") };
    assert_eq!((running.len(), running[0].state, same), (1, NodeWorkloadState::Failed, store_id));
    let records = session.records_until(|record| record.state.is_final()).await;
    let states: Vec<_> = records.iter().map(|record| (record.record, record.state, record.exit_code)).collect();
    assert_eq!(states, [(2, NodeWorkloadState::Running, None), (3, NodeWorkloadState::Failed, Some(3))]);
    wait_for_line(&mut session, &workload, "two").await;
    assert_eq!(stdout_of(&session, &workload), [(2, "two".to_owned())], "only what was not acknowledged");

    session.ack = 3;
    session.send(GatewayMessage::Ack).await;
    let all = LogStream::ALL.iter().map(|stream| (LogKey { stream: *stream, ..stdout_key(&workload) }, 1_000));
    let acks =
        all.map(|(key, _)| (key, if key.stream == LogStream::Stdout { 2 } else { 0 })).collect::<BTreeMap<_, _>>();
    let mut acks = acks;
    let system = session.seen.iter().filter_map(|message| match message {
        NodeMessage::Logs { chunks } => {
            chunks.iter().filter(|c| c.key.stream == LogStream::System).flat_map(|c| &c.lines).map(|l| l.sequence).max()
        }
        _ => None,
    });
    acks.insert(LogKey { stream: LogStream::System, ..stdout_key(&workload) }, system.max().unwrap_or(0));
    session.send(GatewayMessage::LogsAck { acks }).await;
    let workloads = folder.path().join("workloads");
    poll_until("removal of the folder", || std::fs::read_dir(&workloads).unwrap().next().is_none().then_some(())).await;

    let pid = rustix::process::Pid::from_raw(agent.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(tokio::time::timeout(DEADLINE, agent.child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn simulated_work_says_so_and_ends_with_its_agent() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let mut agent = Agent::start(folder.path());
    let (mut session, register) = peer.register(0, BTreeMap::new()).await;
    let NodeMessage::Register { capabilities, .. } = register else { panic!("{register:?}") };
    let gpus: Vec<_> = capabilities.gpus.iter().take(2).map(|gpu| gpu.uuid.clone()).collect();
    let sim = |attempt| {
        let mut workload = script(2, "");
        workload.attempt = Attempt(attempt);
        workload.runtime = RuntimeKind::Sim;
        workload.spec.model = Some("llama-3-70b".into());
        workload.gpus.clone_from(&gpus);
        workload
    };
    session.send(start_order(1, sim(1))).await;
    let records = session.records_until(|record| record.state == NodeWorkloadState::Running).await;
    assert!(records.iter().all(|record| record.simulated));
    wait_for_line(&mut session, &sim(1), "[simulated] llama-3-70b on 2 GPUs, line 3 of 3").await;
    let busy = session.wait_for(|message| match message {
        NodeMessage::Metrics { gpus, .. } => Some(gpus.iter().filter(|gpu| gpu.utilization_percent > 50.0).count()),
        _ => None,
    });
    assert_eq!(busy.await, 2);
    session.send(start_order(2, sim(2))).await;
    let records = session
        .records_until(|record| record.attempt == Attempt(2) && record.state == NodeWorkloadState::Running)
        .await;
    let first = records.iter().find(|record| record.attempt == Attempt(1) && record.state.is_final()).unwrap();
    assert_eq!((first.state, first.cause), (NodeWorkloadState::Stopped, StatusCause::Superseded));

    std::fs::write(folder.path().join("faults.toml"), "[[fault]]\nat_s = 0\ngpu = 7\nkind = \"lost\"\n").unwrap();
    session.wait_for(|message| matches!(message, NodeMessage::CapabilitiesChanged { .. }).then_some(())).await;

    std::fs::write(folder.path().join("faults.toml"), "[[fault]]\nat_s = 0\ngpu = 0\nkind = \"lost\"\n").unwrap();
    let records = session.records_until(|record| record.state.is_final()).await;
    let failed = records.last().unwrap();
    assert_eq!(
        (failed.attempt, failed.state, failed.cause),
        (Attempt(2), NodeWorkloadState::Failed, StatusCause::GpuMissing)
    );
    session.send(start_order(3, sim(3))).await;
    let records = session.records_until(|record| record.state.is_final()).await;
    assert_eq!(records.last().unwrap().cause, StatusCause::GpuMissing, "a failed GPU takes no new work");
    std::fs::remove_file(folder.path().join("faults.toml")).unwrap();
    session.wait_for(|message| matches!(message, NodeMessage::CapabilitiesChanged { .. }).then_some(())).await;
    session.send(start_order(4, sim(4))).await;
    session.records_until(|record| record.attempt == Attempt(4) && record.state == NodeWorkloadState::Running).await;

    kill_9(agent.pid());
    agent.child.wait().await.unwrap();
    let _again = Agent::start(folder.path());
    let (mut session, _) = peer.register(0, BTreeMap::new()).await;
    let records = session.records_until(|record| record.state == NodeWorkloadState::Lost).await;
    let lost = records.last().unwrap();
    assert_eq!((lost.attempt, lost.cause, lost.simulated), (Attempt(4), StatusCause::AgentRestarted, true));
    let ends: Vec<_> =
        executions(&folder.path().join("execution.log")).into_iter().filter_map(|entry| entry.state).collect();
    assert_eq!(ends, [NodeWorkloadState::Stopped, NodeWorkloadState::Failed, NodeWorkloadState::Lost]);
}

#[tokio::test]
async fn a_full_disk_refuses_new_work_and_nothing_else() {
    let peer = Peer::new().await;
    let mount = tempfile::tempdir().unwrap();
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", "size=2m,mode=711", "none"]).arg(mount.path());
    if !command.status().await.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a small disk cannot be mounted here");
        return;
    }
    let data_dir = mount.path().join("node");
    let (output, _) = join(&peer, &data_dir, &peer.token(), "200 OK").await;
    assert!(output.status.success(), "{output:?}");
    let mut agent = Agent::start(&data_dir);
    let (mut session, _) = peer.register(0, BTreeMap::new()).await;
    let running = script(1, "sleep 1000");
    session.send(start_order(1, running.clone())).await;
    session.records_until(|record| record.state == NodeWorkloadState::Running).await;

    let filler = mount.path().join("filler");
    let full = std::fs::write(&filler, vec![0; 4 << 20]);
    assert!(full.is_err(), "the disk is not full");
    // The last block of the record store may still take one or two.
    for n in 2..20 {
        let order = start_order(u64::from(n), script(n, "echo hello"));
        session.send(order).await;
    }
    let code = session.wait_for(|message| match message {
        NodeMessage::Error { code, .. } => Some(*code),
        _ => None,
    });
    assert_eq!(code.await, NodeErrorCode::StorageUnavailable);
    session.send(GatewayMessage::Heartbeat { nonce: 1, confirmed: 0 }).await;
    session.wait_for(|message| matches!(message, NodeMessage::HeartbeatAck { nonce: 1 }).then_some(())).await;

    std::fs::remove_file(&filler).unwrap();
    // It tries again by itself; until then it says no.
    let mut n = 30;
    loop {
        let order = script(n, "echo hello");
        session.send(start_order(u64::from(n), order.clone())).await;
        let accepted = session.wait_for(|message| match message {
            NodeMessage::Error { code, .. } => {
                assert_eq!(*code, NodeErrorCode::StorageUnavailable);
                Some(false)
            }
            NodeMessage::WorkloadStatus { records } => {
                let is_done = |record: &StatusRecord| {
                    record.workload_id == order.workload_id && record.state == NodeWorkloadState::Completed
                };
                records.iter().any(is_done).then_some(true)
            }
            _ => None,
        });
        if accepted.await {
            break;
        }
        session.wait_for(|message| matches!(message, NodeMessage::Metrics { .. }).then_some(())).await;
        n += 1;
    }
    session.send(stop_order(200, &running)).await;
    session
        .records_until(|record| record.workload_id == running.workload_id && record.state == NodeWorkloadState::Stopped)
        .await;
    kill_9(agent.pid());
    agent.child.wait().await.unwrap();
    let status = Command::new("umount").arg("-l").arg(mount.path()).status().await.unwrap();
    assert!(status.success());
}
