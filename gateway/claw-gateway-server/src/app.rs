//! # claw-gateway-server: a gateway, put together
//!
//! [`GatewayServer`] opens what is on disk, starts the core, serves the two ports
//! and stops without losing anything.

mod ports;
mod running;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claw_security::pki::{Authorities, PkiError};
use claw_security::secret_file::{SecretFileError, ensure_private_folder};
use claw_security::secrets::{SecretKey, SecretKeyError, SecretStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ConfigError, GatewayConfig};
use crate::control::{self, Clock, ControlOptions, ControlPlane, ControlTask, CrashPlan, EffectQueue, SystemClock};
use crate::enroll::Enrollment;
use crate::face::{self, FaceConfig};
use crate::node_link::{CertificateKeeper, LinkSettings, NodeLinks, NodePort};
use crate::ops::OpsContext;
use crate::secrets::{self, AdminKeyError};
use crate::serve::{self, Serves};

pub use running::Running;

/// Validity of the cluster's certificate authority: ten years.
const AUTHORITY_TTL: Duration = Duration::from_hours(10 * 365 * 24);

/// File in the data folder that holds the key of sealed secrets.
const SECRETS_KEY_FILE: &str = "secrets.key";

/// A gateway that is about to start.
pub struct GatewayServer {
    config: GatewayConfig,
    data_dir: PathBuf,
    epoch_above: u64,
    clock: Arc<dyn Clock>,
    crash: Arc<CrashPlan>,
}

impl std::fmt::Debug for GatewayServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayServer")
            .field("config", &self.config)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder is not usable.
    #[error(transparent)]
    Folder(#[from] SecretFileError),
    /// Journal, state or logs did not open.
    #[error(transparent)]
    Control(#[from] control::StartError),
    /// No certificate authority, or no certificate.
    #[error("certificates: {0}")]
    Pki(#[from] PkiError),
    /// The HTTP port's own certificate and key cannot be used.
    #[error("http.tls: {problem}")]
    HttpTls {
        /// Which file, and why.
        problem: String,
    },
    /// No key to seal secrets with.
    #[error("secrets: {0}")]
    Secrets(#[from] SecretKeyError),
    /// No admin key.
    #[error(transparent)]
    AdminKey(#[from] AdminKeyError),
    /// A port is taken, or not allowed.
    #[error("cannot listen on {0}")]
    Listen(#[source] io::Error),
}

impl GatewayServer {
    /// A gateway with these settings, which keeps everything in `data_dir`.
    pub fn new(config: GatewayConfig, data_dir: &Path) -> Self {
        Self {
            config,
            data_dir: data_dir.to_owned(),
            epoch_above: 0,
            clock: Arc::new(SystemClock::default()),
            crash: Arc::new(CrashPlan::none()),
        }
    }

    /// Raises the epoch above this one: for a gateway restored from an old copy,
    /// whose nodes have seen a later one.
    #[must_use]
    pub fn with_epoch_above(mut self, epoch: u64) -> Self {
        self.epoch_above = epoch;
        self
    }

    /// Where the process ends itself, for tests.
    #[must_use]
    pub fn with_crash_plan(mut self, crash: CrashPlan) -> Self {
        self.crash = Arc::new(crash);
        self
    }

    /// Starts it: when this returns, both ports answer.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(self) -> Result<Running, StartError> {
        self.config.check()?;
        ensure_private_folder(&self.data_dir)?;
        let authorities = self.authorities()?;
        let key = SecretKey::load_or_create(&self.data_dir.join(SECRETS_KEY_FILE))?;
        let store = Arc::new(SecretStore::new(&key));
        let http_tls = ports::http_tls(&self.config.http)?;
        let options = ControlOptions {
            data_dir: self.data_dir.clone(),
            policy: self.config.policy(),
            clock: Arc::clone(&self.clock),
            log_limits: self.config.log_limits(),
            reserve_bytes: self.config.journal.reserve_bytes,
            snapshot_every: self.config.journal.snapshot_every,
            keep_events: self.config.journal.keep_events,
            epoch_above: self.epoch_above,
            crash: Arc::clone(&self.crash),
        };
        let (control, effects, task) = control::start(options).await?;
        match self.open(&control, &authorities).await {
            Ok(opened) => Ok(self.run(control, effects, task, Keys { authorities, store }, http_tls, opened)),
            Err(error) => {
                task.stop().await;
                Err(error)
            }
        }
    }

    fn authorities(&self) -> Result<Arc<Authorities>, StartError> {
        let authorities = Authorities::load_or_create(
            &self.data_dir.join("pki"),
            &self.config.cluster_name,
            self.clock.now(),
            AUTHORITY_TTL,
        )?;
        let authority = authorities.server();
        tracing::info!(
            cluster = authority.cluster_name(),
            fingerprint = %authority.ca_fingerprint(),
            not_after = %authority.not_after(),
            phase = ?authorities.phase(),
            "certificate authority"
        );
        if authority.cluster_name() != self.config.cluster_name {
            tracing::warn!(
                configured = self.config.cluster_name,
                "the cluster keeps the name in its authority, which was given at the first start"
            );
        }
        Ok(Arc::new(authorities))
    }

    /// What can still fail once the core runs.
    async fn open(&self, control: &ControlPlane, authorities: &Arc<Authorities>) -> Result<Opened, StartError> {
        let http = serve::bind(self.config.http.listen).await.map_err(StartError::Listen)?;
        let node = serve::bind(self.config.node.listen).await.map_err(StartError::Listen)?;
        let node_addr = node.local_addr().map_err(StartError::Listen)?;
        let names = ports::names(&self.config.node, node_addr);
        if node_addr.ip().is_unspecified() && names.advertised.is_none() {
            tracing::warn!(
                "the node port listens on all addresses, and its certificate names none of them: \
                 set node.advertise to the name by which nodes reach it"
            );
        }
        let node_tls =
            serve::OwnCertificate::new(Arc::clone(authorities), Arc::clone(&self.clock), names.dns, names.ips)?;
        let http_addr = http.local_addr().map_err(StartError::Listen)?;
        secrets::ensure_admin_key(control, &self.data_dir).await?;
        Ok(Opened { http, http_addr, node, node_addr, node_tls, advertised: names.advertised })
    }

    fn run(
        self,
        control: ControlPlane,
        effects: EffectQueue,
        task: ControlTask,
        keys: Keys,
        http_tls: serve::Tls,
        opened: Opened,
    ) -> Running {
        let Keys { authorities, store } = keys;
        let node = &self.config.node;
        let certificates = CertificateKeeper::new(Arc::clone(&authorities), AUTHORITY_TTL, node);
        let enrollment = Enrollment::new(
            Arc::clone(&authorities),
            Duration::from_secs(node.certificate_ttl_s),
            opened.advertised.clone(),
            opened.node_addr,
            NonZeroU32::new(node.enrollments_per_minute).unwrap_or(NonZeroU32::MIN),
        );
        let links = Arc::new(NodeLinks::new(control.now()));
        let port = Arc::new(NodePort {
            links: Arc::clone(&links),
            secrets: Arc::clone(&store),
            control: control.clone(),
            enrollment,
            certificates,
            settings: LinkSettings {
                heartbeat_interval: Duration::from_millis(node.heartbeat_interval_ms),
                heartbeat_timeout_ms: i64::try_from(node.heartbeat_timeout_ms).unwrap_or(i64::MAX),
            },
            stop: CancellationToken::new(),
            sessions: TaskTracker::new(),
        });
        let ops = OpsContext::new(control.clone(), authorities, links, store);
        let (direct, router) = face::faces(ops, &self.face_config());
        let faces = Serves { direct: Some(Arc::new(direct)), router };
        running::begin(running::Parts { control, effects, task, port, faces, http_tls, opened })
    }
}

impl GatewayServer {
    fn face_config(&self) -> FaceConfig {
        FaceConfig {
            allowed_hosts: self.config.http.allowed_hosts.clone(),
            allowed_origins: self.config.http.allowed_origins.clone(),
            requests_per_s: self.config.limits.requests_per_s,
            requests_burst: self.config.limits.requests_burst,
            body_bytes_max: self.config.limits.body_bytes,
        }
    }
}

/// What signs and what seals.
struct Keys {
    authorities: Arc<Authorities>,
    store: Arc<SecretStore>,
}

/// Sockets and names, before anything is served on them.
struct Opened {
    http: TcpListener,
    http_addr: SocketAddr,
    node: TcpListener,
    node_addr: SocketAddr,
    node_tls: serve::OwnCertificate,
    /// Where nodes are told to connect, if that is configured.
    advertised: Option<String>,
}
