//! Containers on real engines: Docker and Podman, each test on both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::Docker;
use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::message::{
    DesiredWorkload, LogStream, NodeWorkloadState, OutputContent, SecretBytes, SecretFile, StatusCause, TaskErrorCode,
    TaskId,
};
use claw_proto::spec::{RuntimeKind, SecretRef};
use clawnode::clock;
use clawnode::node::{ExecOrder, Found, Lease, ReadOrder, RuntimeEvent, TaskFault, TaskResult, WorkloadEnd};
use clawnode::runtime::docker::config::DockerConfig;
use clawnode::runtime::docker::{DockerOptions, DockerRuntime};
use clawnode::runtime::{Key, Runtime as _};
use tokio::sync::mpsc;

use crate::support::{DEADLINE, executions, kill_9, lines, poll_until};

/// The engine of one test.
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    pub(crate) socket: PathBuf,
    /// Name of the busybox image there.
    pub(crate) image: String,
}

/// The engines that this run has; without any a loud skip, in CI a failure.
pub(crate) fn engines() -> Vec<Engine> {
    let names = [("docker", "CLAW_DOCKER_SOCKET"), ("podman", "CLAW_PODMAN_SOCKET")];
    let found: Vec<Engine> = names
        .into_iter()
        .filter_map(|(name, variable)| {
            let socket = PathBuf::from(std::env::var_os(variable)?);
            let image = std::env::var("CLAW_TEST_IMAGE").expect("CLAW_TEST_IMAGE");
            Some(Engine { name, socket, image })
        })
        .collect();
    let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!in_ci || found.len() == 2, "CI needs CLAW_DOCKER_SOCKET and CLAW_PODMAN_SOCKET");
    if found.is_empty() {
        crate::support::say("SKIP: no container engine; containers are NOT tested (evals/scripts/engines up)");
    }
    found
}

/// A runtime on a folder of its own.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    secrets: PathBuf,
    node_id: String,
    engine: Engine,
    config: DockerConfig,
    pub(crate) runtime: DockerRuntime,
    events: mpsc::Receiver<RuntimeEvent>,
    n_workloads: u128,
}

impl Bench {
    pub(crate) fn new(engine: Engine, change: impl FnOnce(&mut DockerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Nodes of different tests share the engines.
        let tag = u128::from(crc(folder.path()));
        let secrets = PathBuf::from(format!("/dev/shm/claw-test-{tag:x}"));
        let mut config = DockerConfig { socket: Some(engine.socket.clone()), ..DockerConfig::default() };
        config.secrets_dir.clone_from(&secrets);
        change(&mut config);
        let node_id = format!("node_{tag:x}");
        let (runtime, events) = open(folder.path(), &node_id, &config);
        Self { folder, secrets, node_id, engine, config, runtime, events, n_workloads: tag << 64 }
    }

    /// The agent dies and another one starts on the same folder.
    fn restart_agent(&mut self, known: &[&DesiredWorkload]) -> Vec<Found> {
        let (runtime, events) = open(self.folder.path(), &self.node_id, &self.config);
        (self.runtime, self.events) = (runtime, events);
        let known: Vec<Arc<DesiredWorkload>> = known.iter().map(|one| Arc::new((*one).clone())).collect();
        self.runtime.recover(&known).into_iter().map(|found| found.found).collect()
    }

    /// A shell script as a container.
    pub(crate) fn script(&mut self, text: &str) -> DesiredWorkload {
        self.n_workloads += 1;
        let mut workload = crate::support::script(0, text);
        workload.workload_id = WorkloadId::from_bits(self.n_workloads);
        workload.spec.image = Some(self.engine.image.clone());
        workload.runtime = RuntimeKind::Docker;
        workload
    }

    fn start(&mut self, workload: &DesiredWorkload) {
        self.runtime.start(Arc::new(workload.clone()), None);
    }

    async fn next(&mut self) -> RuntimeEvent {
        tokio::time::timeout(DEADLINE, self.events.recv()).await.expect("no news").expect("the runtime is gone")
    }

    /// Until it runs; what it said about that.
    async fn running(&mut self) -> String {
        loop {
            match self.next().await {
                RuntimeEvent::Progress { state: NodeWorkloadState::Running, detail, .. } => return detail,
                RuntimeEvent::Ended { end, .. } => panic!("{}: ended instead: {end:?}", self.engine.name),
                _ => {}
            }
        }
    }

    pub(crate) async fn ended(&mut self) -> WorkloadEnd {
        loop {
            if let RuntimeEvent::Ended { end, .. } = self.next().await {
                return end;
            }
        }
    }

    pub(crate) async fn run(&mut self, workload: &DesiredWorkload) -> WorkloadEnd {
        self.start(workload);
        self.ended().await
    }

    async fn done(&mut self, wanted: u64) -> Result<TaskResult, TaskFault> {
        loop {
            if let RuntimeEvent::TaskDone { task: TaskId(task), result } = self.next().await {
                assert_eq!(task, wanted);
                return result;
            }
        }
    }

    async fn exec(&mut self, workload: &DesiredWorkload, text: &str, timeout_ms: u64) -> clawnode::node::ExecResult {
        let command = vec!["/bin/sh".into(), "-c".into(), text.into()];
        let order = ExecOrder { command, timeout_ms, output_bytes_max: 16 };
        self.runtime.exec(key(workload), TaskId(7), order).unwrap();
        match self.done(7).await {
            Ok(TaskResult::Exec(result)) => result,
            other => panic!("{}: {other:?}", self.engine.name),
        }
    }

    async fn read(&mut self, workload: &DesiredWorkload, path: &str) -> Result<OutputContent, TaskErrorCode> {
        let order = ReadOrder { path: path.into(), offset: 0, bytes_max: 1_000 };
        self.runtime.read_output(key(workload), TaskId(8), order).unwrap();
        match self.done(8).await {
            Ok(TaskResult::Output(content)) => Ok(content),
            Err(fault) => Err(fault.code),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn log(&self, workload: &DesiredWorkload, stream: LogStream) -> Vec<String> {
        lines(&self.runtime.folder(key(workload)).logs(), stream)
    }

    async fn wait_for_line(&self, workload: &DesiredWorkload, text: &str) {
        let what = format!("{}: line {text}", self.engine.name);
        poll_until(&what, || self.log(workload, LogStream::Stdout).iter().any(|line| line == text).then_some(())).await;
    }

    fn shim_pid(&self, workload: &DesiredWorkload) -> i32 {
        let path = self.runtime.folder(key(workload)).root().join("shim.json");
        let shim: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        i32::try_from(shim["process"]["pid"].as_i64().unwrap()).unwrap()
    }

    fn client(&self) -> Docker {
        Docker::connect_with_unix(
            &self.engine.socket.to_string_lossy(),
            30,
            &bollard::ClientVersion { major_version: 1, minor_version: 41 },
        )
        .unwrap()
    }

    /// What the engine tells about a container.
    async fn inspect(&self, workload: &DesiredWorkload) -> String {
        let name = format!("claw-{}-{}", workload.workload_id, workload.attempt.0);
        let found = self.client().inspect_container(&name, None).await;
        found.map(|found| serde_json::to_string(&found).unwrap()).unwrap_or_default()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.secrets);
    }
}

fn crc(path: &Path) -> u32 {
    let mut sum = 0xcbf2_9ce4_u32;
    for byte in path.as_os_str().as_encoded_bytes() {
        sum = (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    sum
}

fn open(folder: &Path, node_id: &str, config: &DockerConfig) -> (DockerRuntime, mpsc::Receiver<RuntimeEvent>) {
    let (sender, events) = mpsc::channel(64);
    let options = DockerOptions {
        node: "n1".into(),
        node_id: node_id.to_owned(),
        workloads: folder.join("workloads"),
        outputs: folder.join("outputs"),
        execution_log: folder.join("execution.log"),
        shim_program: PathBuf::from(env!("CARGO_BIN_EXE_clawnode")),
        config: config.clone(),
        limits_shares: false,
        log_bytes_max: 4 << 20,
    };
    (DockerRuntime::new(options, sender).unwrap(), events)
}

fn key(workload: &DesiredWorkload) -> Key {
    (workload.workload_id, workload.attempt)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_and_ends_are_told_as_they_were() {
    for engine in engines() {
        let mut bench = Bench::new(engine, |_| {});
        let text = "echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf 'no end'";
        let workload = bench.script(text);
        let end = bench.run(&workload).await;
        assert_eq!((end.state, end.cause, end.exit_code), (NodeWorkloadState::Completed, StatusCause::Exited, Some(0)));
        // The end comes behind the last line.
        let stdout = bench.log(&workload, LogStream::Stdout);
        // A line over the limit comes in marked pieces.
        assert_eq!(stdout.concat().replace('…', ""), format!("out{}no end", "x".repeat(20_000)));
        assert_eq!((stdout.len(), stdout.last().unwrap().as_str()), (4, "no end"));
        assert_eq!(bench.log(&workload, LogStream::Stderr), ["err"]);
        assert_eq!(bench.inspect(&workload).await, "", "the container was left behind");

        let workload = bench.script("exit 3");
        let end = bench.run(&workload).await;
        assert_eq!((end.state, end.cause, end.exit_code), (NodeWorkloadState::Failed, StatusCause::Exited, Some(3)));
        // PID 1 of a container cannot be killed from inside, so a child is, and its shell says so.
        let by_signal = bench.script("sh -c 'kill -SEGV $$'; exit $?");
        let end = bench.run(&by_signal).await;
        assert_eq!((end.cause, end.exit_code, end.signal), (StatusCause::Signaled, None, Some(11)));
        // Killed from outside by somebody who is not us: neither its own exit nor a lack of memory.
        let killed = bench.script("sleep 300");
        bench.start(&killed);
        bench.running().await;
        let inspected: serde_json::Value = serde_json::from_str(&bench.inspect(&killed).await).unwrap();
        kill_9(i32::try_from(inspected["State"]["Pid"].as_i64().unwrap()).unwrap());
        let end = bench.ended().await;
        assert_eq!((end.state, end.cause), (NodeWorkloadState::Failed, StatusCause::Signaled), "{end:?}");
        assert_eq!((end.exit_code, end.signal), (None, Some(9)));
        let mut no_program = bench.script("");
        no_program.spec.command = Some(vec!["/no/such/program".into()]);
        let end = bench.run(&no_program).await;
        assert_eq!((end.state, end.cause), (NodeWorkloadState::Failed, StatusCause::StartFailed), "{end:?}");
        assert!(end.detail.contains("/no/such/program"), "{end:?}");
        assert_eq!(bench.inspect(&no_program).await, "");
        let n_ended = executions(&bench.folder.path().join("execution.log")).len();
        assert_eq!(n_ended, 8, "four started and ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_runs_out_is_told_as_that_and_limits_hold() {
    for engine in engines() {
        let name = engine.name;
        let mut bench = Bench::new(engine, |config| config.pids_max = 77);
        let mut hungry = bench.script("echo begins; tail /dev/zero");
        hungry.spec.memory_gib = Some(0.03125);
        let end = bench.run(&hungry).await;
        assert_eq!((end.state, end.cause), (NodeWorkloadState::Failed, StatusCause::OutOfMemory), "{name}: {end:?}");

        let mut limited = bench.script("for i in 1 2 3; do cat /proc/1/cgroup > /dev/null; done; echo up; sleep 60");
        limited.spec.memory_gib = Some(0.0625);
        limited.spec.cpu_cores = Some(0.25);
        limited.spec.shm_gib = Some(0.03125);
        bench.start(&limited);
        bench.running().await;
        bench.wait_for_line(&limited, "up").await;
        let path = bench.runtime.folder(key(&limited)).root().join("started.json");
        let started: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", started["child"]["pid"])).unwrap();
        let group = |controller: &str, file: &str| {
            let line =
                groups.lines().find(|line| line.split(':').nth(1).unwrap().split(',').any(|one| one == controller));
            let path = line.unwrap().splitn(3, ':').nth(2).unwrap().to_owned();
            let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}{path}/{file}")).unwrap();
            text.trim().parse::<i64>().unwrap()
        };
        if Path::new("/sys/fs/cgroup/memory").exists() {
            assert_eq!(group("memory", "memory.limit_in_bytes"), 64 << 20);
            assert_eq!((group("cpu", "cpu.cfs_quota_us"), group("cpu", "cpu.cfs_period_us")), (25_000, 100_000));
            assert_eq!(group("pids", "pids.max"), 77);
        } else {
            crate::support::say("SKIP: control groups version 2; what the kernel holds of the limits is NOT read back");
        }
        let shm = bench.exec(&limited, "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2", 5_000).await;
        assert_eq!(String::from_utf8_lossy(&shm.stdout), "32768\n");
        let metrics = poll_until("metrics", || bench.runtime.measure().into_iter().next()).await;
        assert_eq!((metrics.workload_id, metrics.memory_limit_mib), (limited.workload_id, Some(64)), "{name}");
        assert!(metrics.n_pids >= 1, "{name}: {metrics:?}");
        bench.runtime.stop(key(&limited), 0, StatusCause::StopRequested);
        let end = bench.ended().await;
        assert_eq!((end.state, end.cause), (NodeWorkloadState::Stopped, StatusCause::StopRequested), "{name}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_a_wish_first_and_leases_and_durations_end_it_too() {
    for engine in engines() {
        let name = engine.name;
        let mut bench = Bench::new(engine, |_| {});
        let trap = "trap 'echo asked; exit 7' TERM; echo up; while :; do sleep 0.05; done";
        let workload = bench.script(trap);
        bench.start(&workload);
        bench.running().await;
        bench.wait_for_line(&workload, "up").await;
        bench.runtime.stop(key(&workload), 10_000, StatusCause::StopRequested);
        let end = bench.ended().await;
        let expected = (NodeWorkloadState::Stopped, StatusCause::StopRequested, Some(7));
        assert_eq!((end.state, end.cause, end.exit_code), expected, "{name}");
        assert_eq!(bench.log(&workload, LogStream::Stdout), ["up", "asked"]);

        let deaf = bench.script("trap '' TERM; echo up; while :; do sleep 0.05; done");
        let now_ms = clock::boot_ms();
        let lease = Lease { term_at_ms: now_ms + 4_000, kill_at_ms: now_ms + 5_000 };
        bench.runtime.start(Arc::new(deaf.clone()), Some(lease));
        bench.running().await;
        let end = bench.ended().await;
        let expected = (NodeWorkloadState::Stopped, StatusCause::PartitionLease, Some(9));
        assert_eq!((end.state, end.cause, end.signal), expected, "{name}");
        assert!(clock::boot_ms() >= now_ms + 5_000);

        let mut long = bench.script(trap);
        // Time enough for a slow machine to come to the trap: before it, nobody hears the wish.
        long.max_duration_s = Some(5);
        let end = bench.run(&long).await;
        assert_eq!((end.cause, end.exit_code), (StatusCause::MaxDuration, Some(7)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_survives_its_agent_and_its_supervisor() {
    for engine in engines() {
        let name = engine.name;
        let mut bench = Bench::new(engine, |_| {});
        let text = "i=0; while [ $i -lt 12 ]; do echo line $i; i=$((i+1)); sleep 0.25; done; exit 4";
        let workload = bench.script(text);
        bench.start(&workload);
        bench.running().await;
        bench.wait_for_line(&workload, "line 1").await;
        let found = bench.restart_agent(&[&workload]);
        assert_eq!(found, [Found::Live { state: NodeWorkloadState::Running, lease: None }], "{name}");
        bench.running().await;
        kill_9(bench.shim_pid(&workload));
        let end = bench.ended().await;
        assert_eq!((end.state, end.exit_code), (NodeWorkloadState::Failed, Some(4)), "{name}: {end:?}");
        let expected: Vec<String> = (0..12).map(|n| format!("line {n}")).collect();
        assert_eq!(bench.log(&workload, LogStream::Stdout), expected, "{name}: each line once");

        // It ends while no agent is there.
        let workload = bench.script("sleep 1; echo done; exit 5");
        bench.start(&workload);
        bench.running().await;
        let (idle, events) = open(&bench.folder.path().join("other"), "node_other", &bench.config);
        (bench.runtime, bench.events) = (idle, events);
        let exit = bench.folder.path().join(format!("workloads/{}.1/exit.json", workload.workload_id));
        poll_until("the end", || exit.exists().then_some(())).await;
        let found = bench.restart_agent(&[&workload]);
        assert_eq!(found.len(), 2, "{found:?}");
        let mut ends: Vec<_> = found
            .iter()
            .map(|found| match found {
                Found::Ended(end) => end.exit_code,
                Found::Live { .. } | Found::NeverStarted => None,
            })
            .collect();
        ends.sort_unstable();
        assert_eq!(ends, [Some(4), Some(5)], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_without_a_folder_is_found_and_reported() {
    for engine in engines() {
        let name = engine.name;
        let mut bench = Bench::new(engine, |_| {});
        let workload = bench.script("echo up; sleep 4; exit 6");
        bench.start(&workload);
        bench.running().await;
        let shim = bench.shim_pid(&workload);
        let (idle, events) = open(&bench.folder.path().join("other"), "node_other", &bench.config);
        (bench.runtime, bench.events) = (idle, events);
        kill_9(shim);
        std::fs::remove_dir_all(bench.folder.path().join("workloads")).unwrap();
        assert_eq!(bench.restart_agent(&[]), []);
        let found = loop {
            if let RuntimeEvent::Found(found) = bench.next().await {
                break found;
            }
        };
        assert_eq!((found.workload.workload_id, found.workload.attempt), key(&workload), "{name}");
        bench.runtime.adopted(&found.workload);
        let end = bench.ended().await;
        assert_eq!(end.exit_code, Some(6), "{name}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_shut_in_and_secrets_stay_secret() {
    for engine in engines() {
        let name = engine.name;
        let mut bench = Bench::new(engine, |_| {});
        let mut workload = bench.script(
            "id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'; \
             touch /etc/x 2>/dev/null && echo written; touch /tmp/x && echo tmp; \
             cat /run/secrets/token; echo; (echo no > /run/secrets/token) 2>/dev/null || echo read-only; \
             ls -ln /run/secrets/token | cut -c1-10; echo rank $RANK; echo $CLAW_ATTEMPT; sleep 60",
        );
        workload.spec.user = Some("1000:1000".into());
        workload.spec.read_only_root = Some(true);
        workload.spec.ports = vec![8080];
        workload.spec.secrets = vec![SecretRef { handle: "token".into(), target: "token".into() }];
        workload.spec.env = BTreeMap::from([("RANK".into(), "mine".into())]);
        workload.secrets =
            vec![SecretFile { target: "token".into(), value: SecretBytes::new(b"hunter2-value".to_vec()) }];
        bench.start(&workload);
        let detail = bench.running().await;
        assert!(detail.starts_with("ports 8080=127.0.0.1:"), "{name}: {detail}");
        bench.wait_for_line(&workload, "1").await;
        let stdout = bench.log(&workload, LogStream::Stdout);
        let expected = [
            "1000",
            "CapEff:0000000000000000",
            "NoNewPrivs:1",
            "Seccomp:2",
            "tmp",
            "hunter2-value",
            "read-only",
            "-r--------",
            "rank mine",
            "1",
        ];
        assert_eq!(stdout, expected, "{name}");
        let inspected = bench.inspect(&workload).await;
        assert!(inspected.contains("/run/secrets") && !inspected.contains("hunter2"), "{name}: {inspected}");
        let holds_secret = |path: &Path| {
            let text = std::fs::read(path).unwrap_or_default();
            text.windows(7).any(|window| window == b"hunter2")
        };
        let folder = bench.runtime.folder(key(&workload));
        for file in ["spec.json", "started.json", "shim.json", "shim.log"] {
            assert!(!holds_secret(&folder.root().join(file)), "{file}");
        }
        bench.runtime.stop(key(&workload), 0, StatusCause::StopRequested);
        bench.ended().await;
        let left = std::fs::read_dir(bench.secrets.join(&bench.node_id)).unwrap().count();
        assert_eq!(left, 0, "{name}: secrets were left behind");

        // Without their values nothing starts; on a disk they are not written.
        let mut bare = workload.clone();
        (bare.attempt, bare.secrets) = (Attempt(2), Vec::new());
        let end = bench.run(&bare).await;
        assert_eq!(end.cause, StatusCause::StartFailed, "{name}: {end:?}");
        let disk = bench.folder.path().join("secrets");
        let engine = Engine { name, socket: bench.engine.socket.clone(), image: bench.engine.image.clone() };
        let mut bench = Bench::new(engine, |config| config.secrets_dir = disk);
        workload.attempt = Attempt(3);
        let end = bench.run(&workload).await;
        assert_eq!(end.cause, StatusCause::Unsupported, "{name}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_inside_and_outputs_come_out() {
    for engine in engines() {
        let name = engine.name;
        let mut bench = Bench::new(engine, |_| {});
        let mut workload = bench.script(
            "mkdir -p /tmp/out/sub; echo result > /tmp/out/result.txt; echo deep > /tmp/out/sub/deep.txt; \
             ln -s /etc/passwd /tmp/out/link; echo up; trap 'exit 0' TERM; while :; do sleep 0.05; done",
        );
        workload.spec.outputs = vec!["/tmp/out".into()];
        bench.start(&workload);
        bench.running().await;
        bench.wait_for_line(&workload, "up").await;

        let result = bench.exec(&workload, "echo to out; echo to err >&2; exit 9", 5_000).await;
        assert_eq!((result.exit_code, result.timed_out, result.truncated), (Some(9), false, false), "{name}");
        assert_eq!((result.stdout, result.stderr), (b"to out\n".to_vec(), b"to err\n".to_vec()), "{name}");
        let result = bench.exec(&workload, "echo 0123456789abcdefghij", 5_000).await;
        assert_eq!((result.stdout.len(), result.truncated), (16, true), "{name}");
        let result = bench.exec(&workload, "echo begins; sleep 4321", 700).await;
        assert_eq!((result.exit_code, result.timed_out), (None, true), "{name}");
        let result = bench.exec(&workload, "ps | grep -c '[s]leep 4321'", 5_000).await;
        assert_eq!(String::from_utf8_lossy(&result.stdout), "0\n", "{name}: the command runs on");

        let listing = bench.read(&workload, "/tmp/out").await.expect(name);
        let OutputContent::Folder { entries, truncated: false } = &listing else { panic!("{name}: {listing:?}") };
        let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.bytes, entry.is_folder)).collect();
        assert_eq!(names, [("result.txt", 7, false), ("sub", 0, true)], "{name}");
        let file = bench.read(&workload, "/tmp/out/result.txt").await.unwrap();
        assert!(matches!(&file, OutputContent::File { bytes, total_bytes: 7, .. } if bytes == b"result\n"), "{name}");
        assert_eq!(bench.read(&workload, "/etc/passwd").await, Err(TaskErrorCode::Refused), "{name}");
        assert_eq!(bench.read(&workload, "/tmp/out/link").await, Err(TaskErrorCode::Refused), "{name}");
        assert_eq!(bench.read(&workload, "/tmp/out/none").await, Err(TaskErrorCode::NotFound), "{name}");

        bench.runtime.stop(key(&workload), 5_000, StatusCause::StopRequested);
        bench.ended().await;
        let order = ExecOrder { command: vec!["true".into()], timeout_ms: 1_000, output_bytes_max: 10 };
        bench.runtime.exec(key(&workload), TaskId(7), order).unwrap();
        assert_eq!(bench.done(7).await.unwrap_err().code, TaskErrorCode::NotRunning, "{name}");
        let after = bench.read(&workload, "/tmp/out/sub/deep.txt").await.unwrap();
        assert!(matches!(&after, OutputContent::File { bytes, .. } if bytes == b"deep\n"), "{name}");
        assert_eq!(bench.read(&workload, "/tmp/out/link").await, Err(TaskErrorCode::NotFound), "{name}");
        let notes = bench.log(&workload, LogStream::System);
        assert!(notes.iter().any(|note| note.contains("2 files, 12 bytes, 1 links")), "{name}: {notes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_away_is_a_finding_and_no_end() {
    let mut bench = Bench::new(
        Engine { name: "none", socket: PathBuf::from("/nonexistent/engine.sock"), image: "local/busybox:1".into() },
        |_| {},
    );
    let availability = bench.runtime.availability();
    assert!(!availability.works && availability.engine.is_none());
    assert_eq!(availability.findings[0].code, claw_proto::topology::FindingCode::EngineUnavailable);
    let workload = bench.script("true");
    let end = bench.run(&workload).await;
    assert_eq!(end.cause, StatusCause::EngineFailed);
    for engine in engines() {
        let mut bench = Bench::new(engine, |_| {});
        let availability = bench.runtime.availability();
        assert!(availability.works);
        assert_eq!(availability.engine.unwrap().name, bench.engine.name);
    }
}
