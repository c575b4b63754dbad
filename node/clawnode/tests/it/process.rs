//! Host processes under `clawnode shim`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claw_proto::ids::{Attempt, GpuUuid};
use claw_proto::message::{DesiredWorkload, LogStream, NodeWorkloadState, StatusCause};
use clawnode::clock;
use clawnode::identity::DataDir;
use clawnode::node::{Found, Lease, RuntimeEvent, WorkloadEnd};
use clawnode::runtime::execution_log::ExecutionEvent;
use clawnode::runtime::process::{ProcessOptions, ProcessRuntime};
use clawnode::runtime::{Key, Runtime as _};
use tokio::sync::mpsc;

use crate::support::{DEADLINE, executions, kill_9, lines, number_in, poll_until, runs, script};

/// A runtime on a folder of its own.
struct Bench {
    folder: tempfile::TempDir,
    runtime: ProcessRuntime,
    events: mpsc::Receiver<RuntimeEvent>,
}

fn options(folder: &Path) -> ProcessOptions {
    ProcessOptions {
        node: "n1".into(),
        workloads: folder.join("workloads"),
        execution_log: folder.join("execution.log"),
        shim_program: PathBuf::from(env!("CARGO_BIN_EXE_clawnode")),
        default_user: None,
        cgroups: true,
        limits_shares: false,
        pids_max: 1_000,
        log_bytes_max: 4 << 20,
        capabilities: None,
    }
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sender, events) = mpsc::channel(64);
        let runtime = ProcessRuntime::new(options(folder.path()), sender).unwrap();
        Self { folder, runtime, events }
    }

    /// The agent dies and another one starts on the same folder.
    fn restart_agent(&mut self, known: &DesiredWorkload) -> Found {
        let (sender, events) = mpsc::channel(64);
        self.runtime = ProcessRuntime::new(options(self.folder.path()), sender).unwrap();
        self.events = events;
        let mut found = self.runtime.recover(&[Arc::new(known.clone())]);
        assert_eq!(found.len(), 1, "{found:?}");
        let found = found.remove(0);
        assert_eq!(*found.workload, *known);
        found.found
    }

    fn start(&mut self, workload: &DesiredWorkload, lease: Option<Lease>) {
        self.runtime.start(Arc::new(workload.clone()), lease);
    }

    async fn next(&mut self) -> RuntimeEvent {
        tokio::time::timeout(DEADLINE, self.events.recv())
            .await
            .expect("no news from the runtime")
            .expect("the runtime is gone")
    }

    async fn running(&mut self) -> String {
        loop {
            match self.next().await {
                RuntimeEvent::Progress { state: NodeWorkloadState::Running, detail, .. } => return detail,
                RuntimeEvent::Progress { .. }
                | RuntimeEvent::Checkpoint { .. }
                | RuntimeEvent::Found(_)
                | RuntimeEvent::TaskDone { .. } => {}
                RuntimeEvent::Ended { end, .. } => panic!("ended instead: {end:?}"),
            }
        }
    }

    async fn ended(&mut self) -> WorkloadEnd {
        loop {
            if let RuntimeEvent::Ended { end, .. } = self.next().await {
                return end;
            }
        }
    }

    async fn run(&mut self, workload: &DesiredWorkload) -> WorkloadEnd {
        self.start(workload, None);
        self.ended().await
    }

    fn log(&self, workload: &DesiredWorkload, stream: LogStream) -> Vec<String> {
        lines(&self.runtime.folder(key(workload)).logs(), stream)
    }

    /// A path below the folder that scripts write to.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shim_pid(&self, workload: &DesiredWorkload) -> i32 {
        let path = self.runtime.folder(key(workload)).root().join("shim.json");
        let shim: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        i32::try_from(shim["process"]["pid"].as_i64().unwrap()).unwrap()
    }

    /// Starts and ends as the execution log tells them.
    fn executed(&self) -> Vec<(ExecutionEvent, Option<NodeWorkloadState>)> {
        executions(&self.path("execution.log")).into_iter().map(|entry| (entry.event, entry.state)).collect()
    }
}

fn key(workload: &DesiredWorkload) -> Key {
    (workload.workload_id, workload.attempt)
}

fn lease(term_in_ms: u64, kill_in_ms: u64) -> Lease {
    let now_ms = clock::boot_ms();
    Lease { term_at_ms: now_ms + term_in_ms, kill_at_ms: now_ms + kill_in_ms }
}

#[tokio::test]
async fn exit_codes_signals_and_both_streams_are_told_apart() {
    let mut bench = Bench::new();
    let mut fine = script(
        1,
        "echo out; echo err >&2; printf 'no end'; echo $CLAW_WORKLOAD_ID $CLAW_ATTEMPT $CLAW_GPU_UUIDS $SECRET >&2; env | grep -c HOME; exit 0",
    );
    fine.gpus = vec![GpuUuid("GPU-a".into()), GpuUuid("GPU-b".into())];
    fine.spec.env.insert("SECRET".into(), "value".into());
    let end = bench.run(&fine).await;
    assert_eq!((end.state, end.cause, end.exit_code), (NodeWorkloadState::Completed, StatusCause::Exited, Some(0)));
    assert_eq!(bench.log(&fine, LogStream::Stdout), ["out", "no end0"]);
    let id = fine.workload_id;
    assert_eq!(bench.log(&fine, LogStream::Stderr), ["err".to_owned(), format!("{id} 1 GPU-a,GPU-b value")]);

    let end = bench.run(&script(2, "exit 3")).await;
    assert_eq!(
        (end.state, end.cause, end.exit_code, end.signal),
        (NodeWorkloadState::Failed, StatusCause::Exited, Some(3), None)
    );
    let end = bench.run(&script(3, "kill -SEGV $$")).await;
    assert_eq!(
        (end.state, end.cause, end.exit_code, end.signal),
        (NodeWorkloadState::Failed, StatusCause::Signaled, None, Some(11))
    );
    let (started, ended) = (ExecutionEvent::Started, ExecutionEvent::Ended);
    let failed = (ended, Some(NodeWorkloadState::Failed));
    assert_eq!(
        bench.executed(),
        [
            (started, None),
            (ended, Some(NodeWorkloadState::Completed)),
            (started, None),
            failed,
            (started, None),
            failed
        ]
    );
}

#[tokio::test]
async fn jobs_of_one_node_meet_at_ports_of_their_own() {
    let mut bench = Bench::new();
    let mut told = Vec::new();
    for n in [1, 2] {
        let mut job = script(n, "echo $MASTER_PORT $PET_RDZV_ENDPOINT");
        job.gpus = vec![GpuUuid("GPU-a".into()), GpuUuid("GPU-b".into())];
        assert_eq!(bench.run(&job).await.state, NodeWorkloadState::Completed);
        told.extend(bench.log(&job, LogStream::Stdout));
    }
    let ports: Vec<&str> = told.iter().filter_map(|line| Some(line.split_once(' ')?.0)).collect();
    assert_eq!(told, [0, 1].map(|n| format!("{0} 127.0.0.1:{0}", ports[n])));
    assert_ne!(ports[0], ports[1]);
}

#[tokio::test]
async fn a_flood_of_lines_arrives_whole() {
    let mut bench = Bench::new();
    let flood = script(1, "seq 1 30000; head -c 40000 /dev/zero | tr '\\0' x; echo; seq 1 3 >&2");
    assert_eq!(bench.run(&flood).await.state, NodeWorkloadState::Completed);
    let out = bench.log(&flood, LogStream::Stdout);
    let numbers: Vec<String> = (1..=30_000).map(|n: u32| n.to_string()).collect();
    assert_eq!(out[..30_000], numbers);
    let long: String = out[30_000..].iter().map(|piece| piece.trim_end_matches('…')).collect();
    assert_eq!((out.len(), long.len()), (30_003, 40_000));
    assert_eq!(bench.log(&flood, LogStream::Stderr), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_stop_gives_grace_and_then_kills_the_whole_group() {
    let mut bench = Bench::new();
    let polite = script(1, "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    bench.start(&polite, None);
    bench.running().await;
    poll_until("ready", || bench.log(&polite, LogStream::Stdout).first().cloned()).await;
    bench.runtime.stop(key(&polite), 10_000, StatusCause::StopRequested);
    let end = bench.ended().await;
    assert_eq!(
        (end.state, end.cause, end.exit_code),
        (NodeWorkloadState::Stopped, StatusCause::StopRequested, Some(7))
    );
    assert_eq!(bench.log(&polite, LogStream::Stdout), ["ready", "bye"]);

    let (child, hidden) = (bench.path("child"), bench.path("hidden"));
    let text = format!(
        "trap '' TERM; sleep 1000 & echo $! > {}; setsid sh -c 'echo $$ > {}; exec sleep 1000' & wait",
        child.display(),
        hidden.display()
    );
    let stubborn = script(2, &text);
    bench.start(&stubborn, None);
    bench.running().await;
    let child = poll_until("child", || number_in(&child)).await;
    let hidden = poll_until("hidden", || number_in(&hidden)).await;
    let began = std::time::Instant::now();
    bench.runtime.stop(key(&stubborn), 60_000, StatusCause::StopRequested);
    bench.runtime.stop(key(&stubborn), 300, StatusCause::MaxDuration);
    let end = bench.ended().await;
    assert_eq!((end.state, end.cause, end.signal), (NodeWorkloadState::Stopped, StatusCause::StopRequested, Some(9)));
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(10));
    assert!(!runs(child) && !runs(hidden), "something of the workload still runs");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mut bench = Bench::new();
    let detail = async |bench: &mut Bench, workload: &DesiredWorkload, cause| {
        let end = bench.run(workload).await;
        assert_eq!((end.state, end.cause), (NodeWorkloadState::Failed, cause), "{}", end.detail);
        end.detail
    };
    let failed = StatusCause::StartFailed;
    let mut absent = script(1, "");
    absent.spec.command = Some(vec!["/no/such/program".into()]);
    assert!(detail(&mut bench, &absent, failed).await.contains("/no/such/program: No such file or directory"));
    let mut closed = script(2, "");
    closed.spec.command = Some(vec!["/etc/passwd".into()]);
    assert!(detail(&mut bench, &closed, failed).await.contains("Permission denied"));
    let mut lost = script(3, "true");
    lost.spec.working_dir = Some("/no/such/folder".into());
    assert!(detail(&mut bench, &lost, failed).await.contains("working directory /no/such/folder: No such file"));
    let mut nobody = script(4, "true");
    nobody.spec.user = Some("no-such-user".into());
    assert!(detail(&mut bench, &nobody, failed).await.contains("no-such-user"));
    let mut image = script(5, "true");
    image.spec.image = Some("busybox:1".into());
    assert!(detail(&mut bench, &image, StatusCause::Unsupported).await.contains("container runtime"));
    assert_eq!(bench.executed(), [], "nothing ran");
}

#[tokio::test]
async fn another_user_runs_in_a_folder_of_its_own() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: switching the user needs root");
        return;
    }
    let mut bench = Bench::new();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(bench.folder.path(), open).unwrap();
    let mut other = script(1, "id -u; id -g; id -G; touch here && echo can write");
    other.spec.user = Some("12345:23456".into());
    assert_eq!(bench.run(&other).await.state, NodeWorkloadState::Completed);
    assert_eq!(bench.log(&other, LogStream::Stdout), ["12345", "23456", "23456", "can write"]);
}

/// As the packaged unit starts the agent (`UMask=0077`). In a process of its own, for a umask belongs to all threads.
#[tokio::test]
async fn a_tight_umask_shuts_no_user_out_of_its_folder() {
    const INSIDE: &str = "CLAW_TEST_TIGHT_UMASK";
    if std::env::var_os(INSIDE).is_none() {
        let mut own = tokio::process::Command::new("/bin/sh");
        own.args(["-c", "umask 077 && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        own.args(["--exact", "process::a_tight_umask_shuts_no_user_out_of_its_folder"]).env(INSIDE, "1");
        let output = own.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let mut bench = Bench::new();
    let data = DataDir::at(bench.path("data"));
    data.create().unwrap();
    let mut quick = script(1, "umask; touch here && echo can write");
    if rustix::process::getuid().is_root() {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(bench.folder.path(), open).unwrap();
        quick.spec.user = Some("12345:23456".into());
    }
    let end = bench.run(&quick).await;
    assert_eq!(end.state, NodeWorkloadState::Completed, "{}", end.detail);
    assert_eq!(bench.log(&quick, LogStream::Stdout), ["0077", "can write"]);
    let mode = |path: PathBuf| std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o777;
    let folder = bench.runtime.folder(key(&quick)).root().to_path_buf();
    assert_eq!([data.root().to_path_buf(), bench.path("workloads"), folder.clone()].map(mode), [0o711; 3]);
    assert_eq!(["logs", "work"].map(|name| mode(folder.join(name))), [0o700; 2]);
    assert_eq!(["spec.json", "shim.log", "exit.json"].map(|name| mode(folder.join(name))), [0o600; 3]);
    let unit = include_str!("../../packaging/clawnode.service");
    assert!(unit.contains("StateDirectoryMode=0711\n"), "systemd sets it at every start");
}

#[tokio::test]
async fn a_workload_outlives_its_agent_and_its_end_is_not_lost() {
    let mut bench = Bench::new();
    let gate = bench.path("gate");
    let waiting =
        script(1, &format!("echo one; while [ ! -e {} ]; do sleep 0.05; done; echo two; exit 5", gate.display()));
    bench.start(&waiting, None);
    bench.running().await;
    let found = bench.restart_agent(&waiting);
    assert_eq!(found, Found::Live { state: NodeWorkloadState::Running, lease: None });
    std::fs::write(&gate, "").unwrap();
    let end = bench.ended().await;
    assert_eq!((end.state, end.exit_code), (NodeWorkloadState::Failed, Some(5)));
    assert_eq!(bench.log(&waiting, LogStream::Stdout), ["one", "two"]);

    let Found::Ended(again) = bench.restart_agent(&waiting) else { panic!("it is over") };
    assert_eq!((again.state, again.exit_code, again.at), (end.state, end.exit_code, end.at));

    let mut second = waiting.clone();
    second.attempt = Attempt(2);
    second.spec.command = Some(vec!["/bin/sh".into(), "-c".into(), "sleep 1000".into()]);
    bench.runtime.remove(key(&waiting));
    bench.start(&second, None);
    bench.running().await;
    bench.restart_agent(&second);
    bench.runtime.stop(key(&second), 5_000, StatusCause::StopRequested);
    assert_eq!(bench.ended().await.state, NodeWorkloadState::Stopped);
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_workload_with_it() {
    let mut bench = Bench::new();
    let (main, child) = (bench.path("main"), bench.path("child"));
    let text = format!("echo $$ > {}; sleep 1000 & echo $! > {}; wait", main.display(), child.display());
    for with_agent in [true, false] {
        let mut victim = script(1, &text);
        victim.attempt = Attempt(if with_agent { 1 } else { 2 });
        bench.start(&victim, None);
        bench.running().await;
        let main_pid = poll_until("main", || number_in(&main)).await;
        let child_pid = poll_until("child", || number_in(&child)).await;
        let end = if with_agent {
            kill_9(bench.shim_pid(&victim));
            bench.ended().await
        } else {
            let shim_pid = bench.shim_pid(&victim);
            // Nobody watches: a stop of the runtime's tasks is the death of the agent.
            let (sender, _) = mpsc::channel(1);
            bench.runtime = ProcessRuntime::new(options(&bench.path("elsewhere")), sender).unwrap();
            kill_9(shim_pid);
            poll_until("end of the supervisor", || (!runs(shim_pid)).then_some(())).await;
            let Found::Ended(end) = bench.restart_agent(&victim) else { panic!("it lives") };
            end
        };
        assert_eq!((end.state, end.cause), (NodeWorkloadState::Lost, StatusCause::SupervisorGone));
        poll_until("end of the processes", || (!runs(main_pid) && !runs(child_pid)).then_some(())).await;
        bench.runtime.remove(key(&victim));
        std::fs::remove_file(&main).unwrap();
        std::fs::remove_file(&child).unwrap();
    }
    let lost = bench.executed().into_iter().filter(|(_, state)| *state == Some(NodeWorkloadState::Lost)).count();
    assert_eq!(lost, 2);
}

#[tokio::test]
async fn the_lease_is_kept_without_an_agent() {
    let mut bench = Bench::new();
    let pid_file = bench.path("pid");
    let stubborn = script(1, &format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.05; done", pid_file.display()));
    let short = lease(700, 1_200);
    bench.start(&stubborn, Some(short));
    bench.running().await;
    let pid = poll_until("pid", || number_in(&pid_file)).await;
    let found = bench.restart_agent(&stubborn);
    assert_eq!(found, Found::Live { state: NodeWorkloadState::Running, lease: Some(short) });
    let longer = lease(1_500, 2_000);
    bench.runtime.renew_lease(key(&stubborn), longer);
    let renewed = bench.runtime.folder(key(&stubborn)).root().join("lease.json");
    let read = || serde_json::from_slice::<Option<Lease>>(&std::fs::read(&renewed).unwrap()).unwrap();
    poll_until("renewal", || (read() == Some(longer)).then_some(())).await;
    let (sender, _) = mpsc::channel(1);
    let elsewhere = bench.path("elsewhere");
    bench.runtime = ProcessRuntime::new(options(&elsewhere), sender).unwrap();
    poll_until("past the first lease", || (clock::boot_ms() > short.kill_at_ms + 50).then_some(())).await;
    assert!(runs(pid), "the renewal was not heard");
    poll_until("the end", || (!runs(pid)).then_some(())).await;
    let late_ms = clock::boot_ms().saturating_sub(longer.kill_at_ms);
    assert!(clock::boot_ms() >= longer.kill_at_ms && late_ms < 1_000, "killed {late_ms} ms after the lease");
    let end = poll_until("exit.json", || match bench.restart_agent(&stubborn) {
        Found::Ended(end) => Some(end),
        Found::Live { .. } | Found::NeverStarted => None,
    })
    .await;
    assert_eq!((end.state, end.cause), (NodeWorkloadState::Stopped, StatusCause::PartitionLease));
}

#[tokio::test]
async fn limits_are_enforced_or_said_not_to_be() {
    let mut bench = Bench::new();
    let mut greedy = script(1, "head -c 400M /dev/zero | tail -c 300M; exit $?");
    greedy.spec.memory_gib = Some(0.0625);
    bench.start(&greedy, None);
    let note = bench.running().await;
    if !note.is_empty() {
        assert!(note.starts_with("limits not enforced: "), "{note}");
        bench.runtime.stop(key(&greedy), 0, StatusCause::StopRequested);
        bench.ended().await;
        eprintln!("skipped the rest: {note}");
        return;
    }
    let end = bench.ended().await;
    let expected = (NodeWorkloadState::Failed, StatusCause::OutOfMemory, Some(137));
    assert_eq!((end.state, end.cause, end.exit_code), expected);
}
