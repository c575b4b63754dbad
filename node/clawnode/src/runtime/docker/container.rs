//! One container at the engine: found, made, signaled, waited for, removed.

use std::fs;
use std::io;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineFault;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptionsBuilder,
};
use claw_proto::message::{NodeWorkloadState, StatusCause};
use claw_proto::time::Timestamp;
use futures_util::StreamExt as _;

use super::gpu::{ExpectedDevices, is_about_gpus};
use super::plan::{LABEL_ATTEMPT, LABEL_NODE, LABEL_WORKLOAD, container_name};
use super::{engine, look};
use crate::clock;
use crate::runtime::Key;
use crate::runtime::folder::{ContainerFile, ExitFile, exit_of};

/// Between two looks at a container, milliseconds.
const LOOK_MS: u64 = 200;
/// Exit codes above this one say which signal ended the program.
const SIGNAL_BASE: i64 = 128;
/// Highest signal that ends a program by default.
const SIGNAL_MAX: i64 = 31;

/// What the engine knows of a container.
#[derive(Debug)]
pub(super) enum Seen {
    /// Nothing.
    Absent,
    /// Made and never started.
    Created,
    /// It runs.
    Running {
        /// Its first process, in the engine's eyes.
        pid: i32,
        /// Its id.
        id: String,
        /// Where its ports are published, for people.
        ports: String,
    },
    /// It is over.
    Ended(Exited),
    /// One of this name belongs to somebody else.
    Foreign,
}

/// How a container ended, in the engine's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exited {
    pub(super) id: String,
    /// None if the engine does not say.
    pub(super) code: Option<i64>,
    pub(super) out_of_memory: bool,
    pub(super) error: String,
    pub(super) at: Option<Timestamp>,
}

/// The end of a container.
#[derive(Debug)]
pub(super) enum Ended {
    /// It ended.
    Exited(Exited),
    /// Somebody removed it.
    Absent,
}

/// Why a container did not start.
#[derive(Debug)]
pub(super) enum StartFault {
    /// The engine failed; what it did is not known.
    Engine(EngineFault),
    /// It said no.
    Refused { cause: StatusCause, detail: String },
}

impl Exited {
    /// As a final record. The engine tells a program that a signal ended and
    /// one that returned 128 + n by the same number.
    pub(super) fn judge(self, by_us: Option<StatusCause>, killed_for_memory: bool) -> ExitFile {
        let signal = self.code.map(|code| code - SIGNAL_BASE).filter(|signal| (1..=SIGNAL_MAX).contains(signal));
        let signal = signal.and_then(|signal| i32::try_from(signal).ok());
        let exit_code = self.code.filter(|_| signal.is_none()).and_then(|code| i32::try_from(code).ok());
        let out_of_memory = (self.out_of_memory || killed_for_memory) && self.code != Some(0);
        let (state, cause) = match (by_us, self.code) {
            (Some(cause), _) => (NodeWorkloadState::Stopped, cause),
            (None, _) if out_of_memory => (NodeWorkloadState::Failed, StatusCause::OutOfMemory),
            (None, _) if signal.is_some() => (NodeWorkloadState::Failed, StatusCause::Signaled),
            (None, Some(0)) => (NodeWorkloadState::Completed, StatusCause::Exited),
            (None, Some(_)) => (NodeWorkloadState::Failed, StatusCause::Exited),
            // Nothing is known of how it went, so it did not go well.
            (None, None) => (NodeWorkloadState::Lost, StatusCause::EngineFailed),
        };
        let at = self.at.unwrap_or_else(clock::wall);
        let mut exit = ExitFile { exit_code, signal, ..exit_of(state, cause, self.error, at) };
        if self.code.is_none() {
            exit.add_detail("the engine does not tell its exit code");
        }
        exit
    }
}

/// Whether an error is the engine's considered answer, and which.
pub(super) fn status_of(error: &EngineFault) -> Option<(u16, &str)> {
    match error {
        EngineFault::DockerResponseServerError { status_code, message } => Some((*status_code, message)),
        _ => None,
    }
}

/// Looks at a container.
pub(super) async fn see(docker: &Docker, container: &ContainerFile) -> Result<Seen, EngineFault> {
    let found = match look::inspect(docker, &container.name).await {
        Ok(found) => found,
        Err(error) if status_of(&error).is_some_and(|(code, _)| code == 404) => return Ok(Seen::Absent),
        Err(error) => return Err(error),
    };
    seen(found, &container.node_id)
}

/// Whether an engine's time has been: the zero time stands for what has not.
fn has_been(at: Option<&str>) -> bool {
    at.is_some_and(|at| !at.starts_with("0001"))
}

fn seen(found: ContainerInspectResponse, node_id: &str) -> Result<Seen, EngineFault> {
    let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
    if labels.and_then(|labels| labels.get(LABEL_NODE)).is_none_or(|owner| owner != node_id) {
        return Ok(Seen::Foreign);
    }
    let ports = published(&found);
    let state = found.state.unwrap_or_default();
    // What is stopping still runs.
    let runs = matches!(
        state.status,
        Some(
            ContainerStateStatusEnum::RUNNING
                | ContainerStateStatusEnum::PAUSED
                | ContainerStateStatusEnum::RESTARTING
                | ContainerStateStatusEnum::STOPPING
        )
    );
    Ok(match state.status {
        _ if runs || state.running == Some(true) => Seen::Running {
            pid: state.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0),
            id: found.id.unwrap_or_default(),
            ports,
        },
        // Podman calls one that was never started "configured" or "initialized".
        Some(ContainerStateStatusEnum::CREATED) => Seen::Created,
        _ if !has_been(state.started_at.as_deref()) => Seen::Created,
        // Between the end and its note the code reads as nought, and to start it again would run it twice.
        _ if !has_been(state.finished_at.as_deref()) => {
            return Err(io::Error::other("the engine has not noted yet how it ended").into());
        }
        _ => Seen::Ended(Exited {
            id: found.id.unwrap_or_default(),
            code: state.exit_code,
            out_of_memory: state.oom_killed.unwrap_or(false),
            error: state.error.unwrap_or_default(),
            at: state.finished_at.and_then(|at| at.parse().ok()),
        }),
    })
}

/// `ports 8080=127.0.0.1:32768`, in order of the port; nothing if none is published.
fn published(found: &ContainerInspectResponse) -> String {
    let ports = found.network_settings.as_ref().and_then(|settings| settings.ports.as_ref());
    let mut list: Vec<(u16, String)> = Vec::new();
    for (port, bindings) in ports.into_iter().flatten() {
        let number = port.split('/').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        for binding in bindings.iter().flatten() {
            let host = binding.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            let host_port = binding.host_port.as_deref().unwrap_or("?");
            list.push((number, format!("{number}={host}:{host_port}")));
        }
    }
    if list.is_empty() {
        return String::new();
    }
    list.sort();
    let list: Vec<String> = list.into_iter().map(|(_, text)| text).collect();
    format!("ports {}", list.join(" "))
}

/// Creates (unless that is done) and starts a container; one that cannot be
/// started is removed.
pub(super) async fn create_and_start(
    docker: &Docker,
    container: &ContainerFile,
    is_created: bool,
) -> Result<(), StartFault> {
    let Some(body) = container.create.clone() else {
        let detail = "what to create is not known".to_owned();
        return Err(StartFault::Refused { cause: StatusCause::StartFailed, detail });
    };
    if !is_created {
        let options = CreateContainerOptionsBuilder::default().name(&container.name).build();
        docker.create_container(Some(options), body).await.map_err(refused)?;
    }
    if let Err(error) = docker.start_container(&container.name, None::<StartContainerOptions>).await {
        let fault = refused(error);
        if matches!(fault, StartFault::Refused { .. })
            && let Err(error) = remove(docker, container).await
        {
            tracing::warn!(%error, "a container that did not start could not be removed");
        }
        return Err(fault);
    }
    Ok(())
}

fn refused(error: EngineFault) -> StartFault {
    let Some((code, message)) = status_of(&error) else {
        return StartFault::Engine(error);
    };
    let cause = match code {
        _ if is_about_gpus(message) => StatusCause::GpuNotAttached,
        _ => StatusCause::StartFailed,
    };
    StartFault::Refused { cause, detail: format!("the engine says: {}", message.trim()) }
}

/// Waits until a container is over, through every absence of its engine.
pub(super) async fn until_over(container: ContainerFile) -> Ended {
    loop {
        if let Ok((docker, _)) = engine::connect(&container.socket).await {
            match see(&docker, &container).await {
                Ok(Seen::Ended(exited)) => return Ended::Exited(exited),
                Ok(Seen::Absent | Seen::Foreign) => return Ended::Absent,
                Ok(Seen::Created | Seen::Running { .. }) => {
                    let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
                    let mut over = std::pin::pin!(docker.wait_container(&container.name, Some(options)));
                    // Whatever it says, a look at the container tells more.
                    if let Some(Err(error)) = over.next().await {
                        tracing::debug!(%error, "the wait for a container ended");
                    }
                    if let Ok(Seen::Ended(exited)) = see(&docker, &container).await {
                        return Ended::Exited(exited);
                    }
                }
                Err(error) => tracing::debug!(%error, "a container could not be looked at"),
            }
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// Sends a signal by its name; one that is over needs none.
pub(super) async fn signal(container: &ContainerFile, word: &str) -> Result<(), engine::EngineError> {
    let (docker, _) = engine::connect(&container.socket).await?;
    let options = KillContainerOptionsBuilder::default().signal(word).build();
    match docker.kill_container(&container.name, Some(options)).await {
        Ok(()) => Ok(()),
        // Not there, or not running.
        Err(error) if status_of(&error).is_some_and(|(code, _)| matches!(code, 404 | 409)) => Ok(()),
        Err(source) => Err(engine::EngineError::Failed { socket: container.socket.clone(), source }),
    }
}

/// Removes a container and its anonymous volumes; one that is gone is fine.
pub(super) async fn remove(docker: &Docker, container: &ContainerFile) -> Result<(), EngineFault> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match docker.remove_container(&container.name, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if status_of(&error).is_some_and(|(code, _)| code == 404) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether process `pid` of this host is inside container `id`.
pub(super) fn holds(pid: i32, id: &str) -> bool {
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    !id.is_empty() && membership.contains(id)
}

/// Which attempt a container of ours is, by its labels.
pub(super) fn key_of(labels: &std::collections::HashMap<String, String>) -> Option<Key> {
    let workload_id = labels.get(LABEL_WORKLOAD)?.parse().ok()?;
    let attempt = labels.get(LABEL_ATTEMPT)?.parse().ok().map(claw_proto::ids::Attempt)?;
    Some((workload_id, attempt))
}

/// Names a container as ours for [`see`], [`signal`] and [`remove`].
pub(super) fn named(socket: &std::path::Path, node_id: &str, key: Key) -> ContainerFile {
    ContainerFile {
        socket: socket.to_path_buf(),
        name: container_name(key),
        node_id: node_id.to_owned(),
        create: None,
        secrets: None,
        outputs: std::path::PathBuf::new(),
        outputs_bytes_max: 0,
        devices: ExpectedDevices::default(),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerConfig, ContainerState};

    use super::*;

    /// What an engine tells of a container of ours, as [`look::inspect`] leaves it.
    fn told(
        status: Option<ContainerStateStatusEnum>,
        started_at: &str,
        finished_at: &str,
        running: bool,
    ) -> Result<Seen, EngineFault> {
        let labels = std::collections::HashMap::from([(LABEL_NODE.to_owned(), "node-1".to_owned())]);
        let state = ContainerState {
            status,
            running: Some(running),
            exit_code: Some(3),
            started_at: Some(started_at.to_owned()),
            finished_at: Some(finished_at.to_owned()),
            ..ContainerState::default()
        };
        let found = ContainerInspectResponse {
            config: Some(ContainerConfig { labels: Some(labels), ..ContainerConfig::default() }),
            state: Some(state),
            ..ContainerInspectResponse::default()
        };
        seen(found, "node-1")
    }

    #[test]
    fn a_state_without_a_word_is_told_by_its_times() {
        let (never, then) = ("0001-01-01T00:00:00Z", "2026-12-01T10:00:00Z");
        assert!(matches!(told(None, never, never, false), Ok(Seen::Created)), "initialized");
        assert!(matches!(told(None, then, then, false), Ok(Seen::Ended(Exited { code: Some(3), .. }))), "stopped");
        assert!(matches!(told(None, then, never, true), Ok(Seen::Running { .. })), "running under any word");
        let stopping = Some(ContainerStateStatusEnum::STOPPING);
        assert!(matches!(told(stopping, then, never, false), Ok(Seen::Running { .. })), "it is not over");
    }

    /// It is neither over, for its code is not known, nor to be started a second time.
    #[test]
    fn an_end_that_is_not_noted_is_looked_at_again() {
        for status in [None, Some(ContainerStateStatusEnum::EXITED), Some(ContainerStateStatusEnum::REMOVING)] {
            let seen = told(status, "2026-12-01T10:00:00Z", "0001-01-01T00:00:00Z", false);
            assert!(matches!(seen, Err(EngineFault::IOError { .. })), "{status:?}: {seen:?}");
        }
    }

    #[test]
    fn ends_are_told_apart() {
        use NodeWorkloadState::{Completed, Failed, Lost, Stopped};
        let exited =
            |code, out_of_memory| Exited { id: String::new(), code, out_of_memory, error: String::new(), at: None };
        let unknown = exited(None, false);
        let exited = |code, out_of_memory| exited(Some(code), out_of_memory);
        let check = |exited: Exited, by_us, oom| {
            let ExitFile { state, cause, exit_code, signal, .. } = exited.judge(by_us, oom);
            (state, cause, exit_code, signal)
        };
        assert_eq!(check(exited(0, false), None, false), (Completed, StatusCause::Exited, Some(0), None));
        assert_eq!(check(exited(3, false), None, false), (Failed, StatusCause::Exited, Some(3), None));
        assert_eq!(check(exited(137, false), None, false), (Failed, StatusCause::Signaled, None, Some(9)));
        assert_eq!(check(exited(137, true), None, false), (Failed, StatusCause::OutOfMemory, None, Some(9)));
        assert_eq!(check(exited(137, false), None, true), (Failed, StatusCause::OutOfMemory, None, Some(9)));
        assert_eq!(check(exited(0, true), None, true), (Completed, StatusCause::Exited, Some(0), None));
        let stop = Some(StatusCause::StopRequested);
        assert_eq!(check(exited(7, false), stop, false), (Stopped, StatusCause::StopRequested, Some(7), None));
        assert_eq!(check(exited(255, false), None, false), (Failed, StatusCause::Exited, Some(255), None));
        assert_eq!(check(unknown, None, false), (Lost, StatusCause::EngineFailed, None, None), "no code is no success");
    }
}
