//! `clawnode shim`: the supervisor of one host process (or, see
//! [`crate::runtime::docker`], of one container), a process of its own.
//!
//! It outlives the agent: it holds the workload's pipes, writes its log, keeps
//! its lease, performs its stops and writes down how it ended. The agent starts
//! it with the locked `shim.lock` as standard input, so that the lock is held
//! from before the supervisor exists until after it is gone. If the supervisor
//! itself is killed, the kernel kills the program with it.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use claw_proto::message::{NodeWorkloadState, StatusCause};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::cgroup::{Cgroup, Limits};
use super::enforcer::{Enforcer, Order};
use super::output::Output;
use super::{proc_table, user};
use crate::clock;
use crate::files::{Durability, read_json, replace_json};
use crate::platform;
use crate::runtime::dmem;
use crate::runtime::execution_log::{self, ExecutionEntry};
use crate::runtime::folder::{
    ExitFile, Folder, LeaseFile, ProcessId, ShimFile, SpecFile, StartedFile, StopFile, exit_of,
};

/// What the supervisor writes to its standard output once the program runs.
pub(in crate::runtime) const STARTED_LINE: &str = "started";
/// Orders are looked at this often even if nobody signals.
const POLL_MS: u64 = 250;
/// After the end, output that a stray process still holds open is waited for this long.
const DRAIN_MS: u64 = 2_000;
/// How often what is left is looked for and killed.
const KILL_ROUNDS: u32 = 3;
/// How often the end is tried to be written down on a full disk.
const WRITE_RETRY_MS: u64 = 500;
/// Programs are looked for here unless the workload's environment says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a supervisor gives up before it has anything to supervise.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// A file of the attempt's folder cannot be read or written.
    #[error("attempt folder: {0}")]
    Folder(#[from] io::Error),
    /// The folder has no `spec.json`.
    #[error("attempt folder has no spec.json")]
    NoSpec,
}

/// Why a program could not be started; the text goes into its final record.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("no command is given")]
    NoCommand,
    #[error("working directory {path}: {error}")]
    WorkingDir { path: PathBuf, error: io::Error },
    #[error(transparent)]
    User(#[from] user::UserError),
    #[error("control group: {0}")]
    Cgroup(io::Error),
    #[error("memory of its GPU: {0}")]
    GpuMemory(io::Error),
    #[error("{program}: {error}")]
    Program { program: String, error: io::Error },
    #[error("log: {0}")]
    Log(io::Error),
}

/// Supervises the attempt in `folder` until it is over.
///
/// # Errors
/// Only before the program is started; afterwards every outcome is written down.
pub fn run(folder: &Path) -> Result<(), ShimError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(&Folder::at(folder)))
}

async fn supervise(folder: &Folder) -> Result<(), ShimError> {
    let spec: SpecFile = read_json(&folder.spec())?.ok_or(ShimError::NoSpec)?;
    if rustix::process::setsid().is_err() {
        tracing::debug!("already the leader of a session");
    }
    // Standard input is the lock; started by hand, it is taken here.
    if let Some(lock) = folder.try_lock()? {
        tracing::debug!("the lock was not held and is taken");
        std::mem::forget(lock);
    }
    let own = proc_table::identify(rustix::process::getpid().as_raw_nonzero().get());
    let own = own.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    if let Some(container) = &spec.container {
        return crate::runtime::docker::supervise::supervise(folder, &spec, container, own).await;
    }
    platform::adopt_orphans()?;
    let mut wake = signal(SignalKind::user_defined1())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    crate::files::replace(&folder.attempted(), b"", Durability::Synced)?;
    let shim = ShimFile { process: own, boot_id: clock::boot_id() };
    replace_json(&folder.shim(), &shim, Durability::Cached)?;
    reserve_exit(folder)?;

    let mut program = match Program::start(folder, &spec) {
        Ok(program) => program,
        Err(error) => {
            let detail = format!("could not be started: {error}");
            let exit = exit_of(NodeWorkloadState::Failed, StatusCause::StartFailed, detail, clock::wall());
            write_exit(folder, &exit).await;
            return Ok(());
        }
    };
    program.announce(folder, &spec)?;
    loop {
        let now_ms = clock::boot_ms();
        program.follow_orders(folder, now_ms);
        let until_ms =
            program.enforcer.next_ms().map_or(POLL_MS, |at_ms| at_ms.saturating_sub(now_ms).clamp(1, POLL_MS));
        tokio::select! {
            status = program.child.wait() => {
                let status = status?;
                program.finish(folder, &spec, status).await;
                return Ok(());
            }
            () = program.output.pump() => {}
            _ = wake.recv() => {}
            _ = terminate.recv() => program.asked_to_end(&spec, clock::boot_ms()),
            _ = interrupt.recv() => program.asked_to_end(&spec, clock::boot_ms()),
            _ = hangup.recv() => {}
            () = tokio::time::sleep(Duration::from_millis(until_ms)) => reap_strays(program.child_id.pid),
        }
    }
}

/// A running program and what is known about it.
struct Program {
    child: Child,
    child_id: ProcessId,
    cgroup: Option<Cgroup>,
    note: String,
    output: Output,
    enforcer: Enforcer,
}

impl Program {
    /// Starts the program.
    fn start(folder: &Folder, spec: &SpecFile) -> Result<Self, StartError> {
        let workload = &spec.workload;
        let mut command = command_of(folder, spec)?;
        let (cgroup, note) = make_cgroup(folder, spec)?;
        let doors = cgroup.as_ref().map_or(Ok(Vec::new()), Cgroup::doors);
        tie_to_supervisor(&mut command, doors.map_err(StartError::Cgroup)?);
        let mut child = command.spawn().map_err(|error| {
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
            let program = command.as_std().get_program().to_string_lossy().into_owned();
            StartError::Program { program, error }
        })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        // A program that is already over is still in the table: nobody has waited for it.
        let child_id = proc_table::identify(pid).unwrap_or(ProcessId { pid, start_ticks: 0 });
        let output = Output::of(&mut child, &folder.logs(), spec.log_bytes_max).map_err(StartError::Log)?;
        let duration_ms = workload.max_duration_s.map(|seconds| seconds.saturating_mul(1_000));
        let grace_ms = u64::from(workload.grace_s) * 1_000;
        let enforcer = Enforcer::new(clock::boot_ms(), duration_ms, grace_ms);
        Ok(Self { child, child_id, cgroup, note, output, enforcer })
    }

    /// Writes down that it runs, and tells the agent.
    fn announce(&mut self, folder: &Folder, spec: &SpecFile) -> io::Result<()> {
        let key = (spec.workload.workload_id, spec.workload.attempt);
        let mut entry = ExecutionEntry::started(&spec.node, key, clock::wall(), clock::boot_ms());
        entry.pid = Some(self.child_id.pid);
        if let Err(error) = execution_log::append(&spec.execution_log, &entry) {
            tracing::warn!(%error, "the execution log could not be written");
        }
        let started = StartedFile { child: self.child_id, note: self.note.clone(), at_ms: Some(clock::boot_ms()) };
        replace_json(&folder.started(), &started, Durability::Cached)?;
        self.output.note(&format!("started as process {}", self.child_id.pid));
        if !self.note.is_empty() {
            self.output.note(&self.note);
        }
        let mut agent = io::stdout();
        // The agent may be gone; then it reads started.json later.
        if writeln!(agent, "{STARTED_LINE}").and_then(|()| agent.flush()).is_err() {
            tracing::debug!("the agent does not listen");
        }
        Ok(())
    }

    /// Reads the orders in the folder and does what is due.
    fn follow_orders(&mut self, folder: &Folder, now_ms: u64) {
        match read_json::<Option<StopFile>>(&folder.stop()).map(Option::flatten) {
            Ok(Some(stop)) => self.enforcer.stop(now_ms, stop.kill_at_ms, stop.cause),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "stop.json could not be read"),
        }
        match read_json::<LeaseFile>(&folder.lease()) {
            Ok(lease) => self.enforcer.set_lease(lease.flatten()),
            Err(error) => tracing::warn!(%error, "lease.json could not be read"),
        }
        for order in self.enforcer.due(now_ms) {
            let (signal, word) = match order {
                Order::Terminate(_) => (Signal::TERM, "TERM"),
                Order::Kill(_) => (Signal::KILL, "KILL"),
            };
            let (Order::Terminate(cause) | Order::Kill(cause)) = order;
            self.output.note(&format!("{word} is sent: {cause}"));
            self.signal_group(signal);
            if signal == Signal::KILL {
                self.kill_rest();
            }
        }
    }

    fn asked_to_end(&mut self, spec: &SpecFile, now_ms: u64) {
        let kill_at_ms = now_ms + u64::from(spec.workload.grace_s) * 1_000;
        self.enforcer.stop(now_ms, kill_at_ms, StatusCause::StopRequested);
    }

    fn signal_group(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.child_id.pid)
            && let Err(error) = rustix::process::kill_process_group(group, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, "the process group could not be signaled");
        }
    }

    /// Kills everything that the program left behind, whatever group it hides in.
    fn kill_rest(&self) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        // Again, for what was forked meanwhile.
        for _ in 0..KILL_ROUNDS {
            let mut rest = proc_table::descendants(own);
            rest.extend(self.cgroup.iter().flat_map(Cgroup::members));
            rest.sort_unstable();
            rest.dedup();
            proc_table::kill_all(&rest);
        }
    }

    async fn finish(mut self, folder: &Folder, spec: &SpecFile, status: ExitStatus) {
        self.signal_group(Signal::KILL);
        self.kill_rest();
        if tokio::time::timeout(Duration::from_millis(DRAIN_MS), self.output.drain()).await.is_err() {
            self.output.note("output was cut: a process outside of the workload's group held it open");
        }
        let out_of_memory = self.cgroup.as_ref().is_some_and(Cgroup::was_out_of_memory);
        let exit = judge(status, self.enforcer.cause(), out_of_memory);
        self.output.note(&format!("ended: {} ({})", exit.state, exit.cause));
        self.output.finish();
        reap_strays(0);
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        write_exit(folder, &exit).await;
        let key = (spec.workload.workload_id, spec.workload.attempt);
        let mut entry = ExecutionEntry::ended(&spec.node, key, &exit, clock::boot_ms());
        entry.pid = Some(self.child_id.pid);
        if let Err(error) = execution_log::append(&spec.execution_log, &entry) {
            tracing::warn!(%error, "the execution log could not be written");
        }
    }
}

/// What is to be executed, with its folder, environment, account and pipes.
fn command_of(folder: &Folder, spec: &SpecFile) -> Result<Command, StartError> {
    let workload = &spec.workload;
    let wanted = &workload.spec;
    let mut argv = wanted.command.iter().flatten().chain(&wanted.args);
    let program = argv.next().ok_or(StartError::NoCommand)?;
    let cwd = match &wanted.working_dir {
        Some(path) => Path::new(path).to_path_buf(),
        None => folder.work(),
    };
    if let Err(error) = std::fs::read_dir(&cwd) {
        return Err(StartError::WorkingDir { path: cwd, error });
    }
    let mut command = Command::new(program);
    command.args(argv).current_dir(&cwd).env_clear();
    command.env("PATH", DEFAULT_PATH).envs(&spec.env).envs(&wanted.env);
    command.env("CLAW_WORKLOAD_ID", workload.workload_id.to_string());
    command.env("CLAW_ATTEMPT", workload.attempt.0.to_string());
    if !workload.gpus.is_empty() {
        let gpus: Vec<&str> = workload.gpus.iter().map(|gpu| gpu.0.as_str()).collect();
        command.env("CLAW_GPU_UUIDS", gpus.join(","));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    if let Some(name) = wanted.user.as_ref().or(spec.default_user.as_ref()) {
        become_user(&mut command, name, folder)?;
    }
    Ok(command)
}

/// Switches the program to another account; its own folders go along.
fn become_user(command: &mut Command, name: &str, folder: &Folder) -> Result<(), user::UserError> {
    let account = user::find(name)?;
    if rustix::process::getuid().as_raw() == account.uid {
        return Ok(());
    }
    let denied = || user::UserError::NotPermitted { user: name.to_owned() };
    if !rustix::process::getuid().is_root() {
        return Err(denied());
    }
    for own in [folder.work(), folder.checkpoint()].iter().filter(|own| own.exists()) {
        std::os::unix::fs::chown(own, Some(account.uid), Some(account.gid)).map_err(|_| denied())?;
    }
    command.uid(account.uid).gid(account.gid);
    Ok(())
}

/// The workload's control group, or why its limits are not enforced. Without the limit of a GPU's memory, which
/// others count on, nothing is started.
fn make_cgroup(folder: &Folder, spec: &SpecFile) -> Result<(Option<Cgroup>, String), StartError> {
    let limits = Limits::of(&spec.workload.spec, spec.pids_max);
    let wanted = limits.memory_bytes.is_some() || limits.cpu_quota_us.is_some();
    let not_enforced = |why: &str| {
        if wanted { format!("limits not enforced: {why}") } else { String::new() }
    };
    let gpu = spec.gpu_memory.as_ref();
    if !spec.cgroups {
        let off = "control groups are off in the node's config";
        return match gpu.filter(|gpu| gpu.must) {
            Some(_) => Err(StartError::GpuMemory(io::Error::other(off))),
            None => Ok((None, not_enforced(off))),
        };
    }
    // Two nodes on one host may have the same attempt in tests and after a restore.
    let place = crc32fast::hash(folder.root().as_os_str().as_encoded_bytes());
    let (id, attempt) = (spec.workload.workload_id, spec.workload.attempt.0);
    let (root, name) = (Path::new(dmem::CGROUP_ROOT), format!("{id}.{attempt}.{place:08x}"));
    match gpu.map(|gpu| (gpu, Cgroup::create_with_gpu(root, &name, (limits, gpu)))) {
        Some((_, Ok((cgroup, missing)))) => {
            if let Err(error) = fs::write(folder.gpu_limited(), b"") {
                cgroup.remove();
                return Err(StartError::GpuMemory(error));
            }
            return Ok((Some(cgroup), missing.map_or_else(String::new, |error| not_enforced(&error.to_string()))));
        }
        Some((gpu, Err(error))) if gpu.must => return Err(StartError::GpuMemory(error)),
        Some((_, Err(error))) => tracing::warn!(%error, "a share of a GPU is not held to its memory"),
        None => {}
    }
    match Cgroup::create(root, &name, limits) {
        Ok(cgroup) => Ok((Some(cgroup), String::new())),
        Err(error) => Ok((None, not_enforced(&error.to_string()))),
    }
}

/// The program dies with its supervisor and begins its life inside its groups.
#[expect(unsafe_code, reason = "what must happen between fork and exec has no safe interface")]
fn tie_to_supervisor(command: &mut Command, doors: Vec<OwnedFd>) {
    let supervisor = rustix::process::getpid();
    let prepare = move || {
        platform::die_with_parent()?;
        // The supervisor may have died before the line above.
        if rustix::process::getppid() != Some(supervisor) {
            return Err(io::Error::from(rustix::io::Errno::CHILD));
        }
        for door in &doors {
            rustix::io::write(door.as_fd(), b"0")?;
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls that are safe after fork: it
    // allocates nothing, takes no lock and touches only descriptors it owns.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Takes the ends of stray processes that were left to this subreaper, without
/// taking the program's own.
fn reap_strays(program: i32) {
    use rustix::process::{WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        let Ok(Some(_)) = waitid(WaitId::All, peek) else {
            return;
        };
        let strays: Vec<i32> = proc_table::zombie_children().into_iter().filter(|pid| *pid != program).collect();
        if strays.is_empty() {
            return;
        }
        for pid in strays.into_iter().filter_map(Pid::from_raw) {
            if waitpid(Some(pid), WaitOptions::NOHANG).is_err() {
                return;
            }
        }
    }
}

/// How a program ended, told apart.
fn judge(status: ExitStatus, cause: Option<StatusCause>, out_of_memory: bool) -> ExitFile {
    use std::os::unix::process::ExitStatusExt as _;
    let (exit_code, signal) = (status.code(), status.signal());
    let (state, cause) = match (cause, signal) {
        (Some(cause), _) => (NodeWorkloadState::Stopped, cause),
        (None, _) if out_of_memory && !status.success() => (NodeWorkloadState::Failed, StatusCause::OutOfMemory),
        (None, Some(_)) => (NodeWorkloadState::Failed, StatusCause::Signaled),
        (None, None) if exit_code == Some(0) => (NodeWorkloadState::Completed, StatusCause::Exited),
        (None, None) => (NodeWorkloadState::Failed, StatusCause::Exited),
    };
    ExitFile { exit_code, signal, ..exit_of(state, cause, String::new(), clock::wall()) }
}

/// Takes the room for `exit.json` while there is some.
pub(in crate::runtime) fn reserve_exit(folder: &Folder) -> io::Result<()> {
    std::fs::write(folder.exit().with_extension("reserve"), [b' '; 4096])
}

/// Writes down the end; on a full disk the reserve is given up for it, and it
/// is tried until it works: nobody else knows how the program ended.
pub(in crate::runtime) async fn write_exit(folder: &Folder, exit: &ExitFile) {
    loop {
        let reserve = folder.exit().with_extension("reserve");
        if let Err(error) = std::fs::remove_file(reserve)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the reserve could not be given up");
        }
        match replace_json(&folder.exit(), exit, Durability::Synced) {
            Ok(()) => return,
            // Somebody removed the folder: nobody will ask how it ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => tracing::warn!(%error, "exit.json could not be written; trying again"),
        }
        tokio::time::sleep(Duration::from_millis(WRITE_RETRY_MS)).await;
    }
}
