//! The engine behind a socket: Docker or Podman, which version, what it can do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{SystemVersion, SystemVersionComponents};
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use tokio::sync::Notify;
use tracing::{info, warn};

/// Longest that a request without a stream may take, seconds.
const REQUEST_TIMEOUT_S: u64 = 120;
/// Longest that an engine may take to say who it is, milliseconds.
const HELLO_TIMEOUT_MS: u64 = 5_000;
/// How often an engine is asked whether it is still there, milliseconds.
const PING_INTERVAL_MS: u64 = 2_000;

/// Which engine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker.
    Docker,
    /// Podman, by its Docker-compatible interface.
    Podman,
}

/// An engine that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Which one.
    pub kind: EngineKind,
    /// Its version, as it says it.
    pub version: String,
    /// Version of the interface that was agreed on: major, minor.
    pub api: (usize, usize),
    /// Whether it attaches devices by CDI through its interface.
    pub cdi: bool,
    /// Folders in which it looks for CDI specifications, where it tells them.
    pub cdi_folders: Vec<PathBuf>,
}

impl Engine {
    /// Name for people.
    pub fn name(&self) -> &'static str {
        match self.kind {
            EngineKind::Docker => "docker",
            EngineKind::Podman => "podman",
        }
    }

    /// Version of the interface, as engines write it.
    pub fn api_version(&self) -> String {
        format!("{}.{}", self.api.0, self.api.1)
    }

    /// Reads what an engine says about itself.
    fn of(version: &SystemVersion, api: (usize, usize), cdi_folders: &[String]) -> Self {
        let components = version.components.as_deref().unwrap_or_default();
        let is_podman = |one: &SystemVersionComponents| one.name.to_ascii_lowercase().contains("podman");
        let kind = if components.iter().any(is_podman) { EngineKind::Podman } else { EngineKind::Docker };
        let version = version.version.clone().unwrap_or_default();
        let cdi = cdi_by_version(kind, &version, cdi_folders);
        Self { kind, version, api, cdi, cdi_folders: cdi_folders.iter().map(PathBuf::from).collect() }
    }
}

/// Docker attaches CDI devices from 25 on if the feature is on (from 28.3 on it
/// is by default); Podman's compatible interface from 5 on, 4 ignores the
/// request in silence.
fn cdi_by_version(kind: EngineKind, version: &str, cdi_folders: &[String]) -> bool {
    let mut numbers = version.split(['.', '~', '+', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let major = numbers.next().unwrap_or(0);
    match kind {
        EngineKind::Docker => major >= 25 && !cdi_folders.is_empty(),
        EngineKind::Podman => major >= 5,
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It does not answer, or not as it should.
    #[error("engine at {socket}: {source}")]
    Failed {
        /// Its socket.
        socket: PathBuf,
        /// What the client says.
        source: bollard::errors::Error,
    },
    /// It takes too long.
    #[error("engine at {socket}: no answer within {HELLO_TIMEOUT_MS} ms")]
    Timeout {
        /// Its socket.
        socket: PathBuf,
    },
}

/// A client that speaks a version already agreed on.
///
/// # Errors
/// If the socket's path is none.
pub fn client(socket: &Path, api: &(usize, usize)) -> Result<Docker, bollard::errors::Error> {
    let version = ClientVersion { major_version: api.0, minor_version: api.1 };
    Docker::connect_with_unix(&socket.to_string_lossy(), REQUEST_TIMEOUT_S, &version)
}

/// Connects, agrees on a version and asks who it is.
///
/// # Errors
/// [`EngineError`].
pub async fn connect(socket: &Path) -> Result<(Docker, Engine), EngineError> {
    let failed = |source| EngineError::Failed { socket: socket.to_path_buf(), source };
    let hello = async {
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), REQUEST_TIMEOUT_S, API_DEFAULT_VERSION)?;
        let docker = docker.negotiate_version().await?;
        let version = docker.version().await?;
        // Only an engine that knows CDI lists the folders that it looks into.
        let folders = match docker.info().await {
            Ok(info) => info.cdi_spec_dirs.unwrap_or_default(),
            // Podman's answer is not always what the interface says.
            Err(error) => {
                tracing::debug!(%error, "the engine does not say what it supports");
                Vec::new()
            }
        };
        let agreed = docker.client_version();
        let engine = Engine::of(&version, (agreed.major_version, agreed.minor_version), &folders);
        Ok((docker, engine))
    };
    match tokio::time::timeout(Duration::from_millis(HELLO_TIMEOUT_MS), hello).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(EngineError::Timeout { socket: socket.to_path_buf() }),
    }
}

/// What is known about the engine now.
#[derive(Debug, Clone, Default)]
struct State {
    /// The engine, while it answers.
    up: Option<(Docker, Engine)>,
    /// Why it does not.
    why: String,
}

/// The engine as it comes and goes; everybody who needs it holds a copy.
#[derive(Debug, Clone)]
pub struct EngineWatch {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    back: Arc<Notify>,
}

impl EngineWatch {
    /// An engine of which nothing is known yet.
    pub fn new(socket: PathBuf) -> Self {
        let state = State { up: None, why: "it was not asked yet".to_owned() };
        Self { socket, state: Arc::new(Mutex::new(state)), back: Arc::new(Notify::new()) }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The engine, or why it is not there.
    ///
    /// # Errors
    /// What it said last.
    pub fn get(&self) -> Result<(Docker, Engine), String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.up.clone().ok_or_else(|| state.why.clone())
    }

    fn set(&self, up: Result<(Docker, Engine), String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (up, state.up.is_some()) {
            (Ok(up), was_up) => {
                if !was_up || state.up.as_ref().is_some_and(|(_, known)| *known != up.1) {
                    info!(engine = up.1.name(), version = up.1.version, api = up.1.api_version(), "the engine answers");
                }
                *state = State { up: Some(up), why: String::new() };
                if !was_up {
                    self.back.notify_waiters();
                }
            }
            (Err(why), was_up) => {
                if was_up || state.why != why {
                    warn!(why, "the container engine is not available; what runs is not touched");
                }
                *state = State { up: None, why };
            }
        }
    }

    /// Asks once.
    pub async fn look(&self) {
        let known = self.get().ok();
        if let Some((docker, _)) = known {
            match tokio::time::timeout(Duration::from_millis(HELLO_TIMEOUT_MS), docker.ping()).await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => self.set(Err(error.to_string())),
                Err(_) => self.set(Err("it does not answer".to_owned())),
            }
        }
        self.set(connect(&self.socket).await.map_err(|error| error.to_string()));
    }

    /// Asks once, from outside of any asynchronous task, and waits for the answer.
    pub fn look_now(&self) {
        let watch = self.clone();
        let asked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(async { connect(&watch.socket).await.map(|(_, engine)| engine) }),
                Err(source) => {
                    Err(EngineError::Failed { socket: watch.socket, source: bollard::errors::Error::from(source) })
                }
            }
        });
        let answer = match asked.join() {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("asking it failed".to_owned()),
        };
        // A client of its own for the tasks: one lives as long as the runtime that made its connections.
        self.set(answer.and_then(|engine| {
            let docker = client(&self.socket, &engine.api);
            docker.map(|docker| (docker, engine)).map_err(|error| error.to_string())
        }));
    }

    /// Asks again and again.
    pub async fn run(self) {
        loop {
            self.look().await;
            tokio::time::sleep(Duration::from_millis(PING_INTERVAL_MS)).await;
        }
    }

    /// Waits until it is there.
    pub async fn available(&self) -> (Docker, Engine) {
        loop {
            let back = self.back.notified();
            if let Ok(up) = self.get() {
                return up;
            }
            back.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_told_apart_and_cdi_goes_by_version() {
        let folders = vec!["/etc/cdi".to_owned()];
        let cdi = |kind, version, folders: &[String]| cdi_by_version(kind, version, folders);
        assert!(!cdi(EngineKind::Docker, "20.10.24+dfsg1", &folders));
        assert!(cdi(EngineKind::Docker, "26.1.5+dfsg1", &folders));
        assert!(!cdi(EngineKind::Docker, "26.1.5", &[]), "the feature is off");
        assert!(!cdi(EngineKind::Podman, "4.3.1", &folders));
        assert!(cdi(EngineKind::Podman, "5.4.2", &[]));

        let component = SystemVersionComponents { name: "Podman Engine".into(), ..Default::default() };
        let version =
            SystemVersion { version: Some("4.3.1".into()), components: Some(vec![component]), ..Default::default() };
        let engine = Engine::of(&version, (1, 41), &[]);
        assert_eq!((engine.name(), engine.version.as_str(), engine.cdi), ("podman", "4.3.1", false));
    }
}
