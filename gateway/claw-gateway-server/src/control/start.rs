//! Opening the stores, folding the journal, starting the threads.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use claw_gateway::cluster::SnapshotError;
use claw_gateway::event::EventError;
use claw_gateway::policy::Policy;
use claw_gateway::{Caller, Cluster, Command, EventRecord};
use claw_storage::{Journal, JournalError, JournalOptions, LogError, LogLimits, OpenError, SqliteJournal};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, RandomIds};
use super::core_thread::Core;
use super::crash::CrashPlan;
use super::seal::Seal;
use super::writer::{SharedJournal, Writer};
use super::{
    COMMANDS_WAITING_MAX, ChangeDesk, ControlPlane, CoreMessage, EFFECTS_WAITING_MAX, EffectQueue, KernelDesk, LogDesk,
    MESSAGES_BEHIND_MAX, MetricsDesk, SubmitError,
};

/// Events that are folded in one go.
const FOLD_CHUNK: usize = 2_000;

/// What the control plane needs to start.
#[derive(Clone)]
pub struct ControlOptions {
    /// Folder of journal and logs.
    pub data_dir: PathBuf,
    /// Settings that decisions depend on.
    pub policy: Policy,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// Log retention.
    pub log_limits: LogLimits,
    /// Disk that the journal keeps for itself, bytes.
    pub reserve_bytes: u64,
    /// Events between snapshots, at least.
    pub snapshot_every: u64,
    /// Events that stay in the database when older ones are archived.
    pub keep_events: u64,
    /// Raise the epoch above this (a restored copy).
    pub epoch_above: u64,
    /// Where to die, for tests.
    pub crash: Arc<CrashPlan>,
}

impl std::fmt::Debug for ControlOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlOptions")
            .field("data_dir", &self.data_dir)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal did not open.
    #[error("journal: {0}")]
    Journal(#[from] OpenError),
    /// The journal opened and then failed.
    #[error("journal: {0}")]
    JournalUse(#[from] JournalError),
    /// An event of the journal cannot be read.
    #[error("event {seq} of the journal cannot be read: {source}")]
    Event {
        /// Its number.
        seq: u64,
        /// Why.
        #[source]
        source: EventError,
    },
    /// The snapshot cannot be read.
    #[error("snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    /// The key of argument hashes cannot be used.
    #[error("argument key: {0}")]
    Seal(#[from] claw_security::secret_file::SecretFileError),
    /// The logs did not open.
    #[error("logs: {0}")]
    Logs(#[from] LogError),
    /// A thread did not start.
    #[error("could not start the core thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The first command failed.
    #[error("first command: {0}")]
    First(#[from] SubmitError),
}

/// The threads; ends them in order.
#[derive(Debug)]
pub struct ControlTask {
    commands: mpsc::Sender<CoreMessage>,
    core: std::thread::JoinHandle<()>,
}

impl ControlTask {
    /// Lets what is queued be decided and written, writes a snapshot, ends the core.
    pub async fn stop(self) {
        if self.commands.send(CoreMessage::Stop).await.is_err() {
            tracing::debug!("the core has ended already");
        }
        let joined = tokio::task::spawn_blocking(move || self.core.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the core thread ended with a panic");
        }
    }
    /// The core has ended by itself: the journal was lost to this process.
    pub fn is_over(&self) -> bool {
        self.core.is_finished()
    }
}

/// Opens, folds, raises the epoch and starts. The effect queue has one reader.
pub async fn start(options: ControlOptions) -> Result<(ControlPlane, EffectQueue, ControlTask), StartError> {
    let for_thread = options.clone();
    #[cfg_attr(not(debug_assertions), expect(unused_mut, reason = "read again where decisions are checked"))]
    let (mut journal, mut live, snapshot_seq) = tokio::task::spawn_blocking(move || open(&for_thread))
        .await
        .map_err(|error| StartError::Thread(std::io::Error::other(error)))??;
    let (logs, report, _log_thread) = LogDesk::open(&options.data_dir.join("logs"), options.log_limits.clone())?;
    if !report.torn.is_empty() || report.n_bad_stretches > 0 {
        tracing::warn!(
            torn = report.torn.len(),
            bad = report.n_bad_stretches,
            "log segments were cut or damaged; nodes send again what was not acknowledged"
        );
    }
    live.policy = Arc::new(options.policy);
    let (commands, queue) = mpsc::channel(COMMANDS_WAITING_MAX);
    let (durable_tx, durable) = watch::channel(Arc::new(live.clone()));
    let (bus, _) = broadcast::channel(MESSAGES_BEHIND_MAX);
    let (effects_tx, effects) = mpsc::channel(EFFECTS_WAITING_MAX);
    let writable = Arc::new(AtomicBool::new(true));
    let epoch = journal.head().epoch;
    let space = journal.space();
    #[cfg(debug_assertions)]
    let audit = super::audited::Watch::over(&mut journal, live.policy.preemption.per_day_max);
    let journal: SharedJournal = Arc::new(Mutex::new(Box::new(journal)));
    let core = Core {
        writer: Writer::start(Arc::clone(&journal)).map_err(StartError::Thread)?,
        journal,
        space,
        live,
        clock: Arc::clone(&options.clock),
        ids: RandomIds::new(Arc::clone(&options.clock)),
        writable: Arc::clone(&writable),
        durable: durable_tx,
        bus: bus.clone(),
        effects: effects_tx,
        crash: options.crash,
        seal: Seal::load_or_create(&options.data_dir)?,
        probes_waited: 0,
        commands_since_tick: 0,
        snapshot_every: options.snapshot_every.max(1),
        keep_events: options.keep_events,
        snapshot_seq,
        snapshot_bytes: 0,
        bytes_since_snapshot: 0,
        underway: None,
        archived_seq: 0,
        #[cfg(debug_assertions)]
        audit,
    };
    let core =
        std::thread::Builder::new().name("core".into()).spawn(move || core.run(queue)).map_err(StartError::Thread)?;
    let control = ControlPlane {
        commands: commands.clone(),
        durable,
        bus,
        writable,
        clock: options.clock,
        logs,
        metrics: MetricsDesk::default(),
        kernels: KernelDesk::default(),
        changes: ChangeDesk::default(),
        stopping: CancellationToken::new(),
    };
    control.submit(Command::GatewayStarted { epoch }, Caller::system(control.now())).await?;
    Ok((control, effects, ControlTask { commands, core }))
}

fn open(options: &ControlOptions) -> Result<(SqliteJournal, Cluster, u64), StartError> {
    let journal_options = JournalOptions {
        reserve_bytes: options.reserve_bytes,
        faults: Arc::clone(&options.crash) as Arc<dyn claw_storage::FaultHook>,
        ..JournalOptions::default()
    };
    let (mut journal, report) = SqliteJournal::open_with(&options.data_dir.join("journal"), journal_options)?;
    tracing::info!(
        created = report.created,
        seq = report.head.seq,
        unacknowledged = report.n_unacknowledged,
        "journal opened"
    );
    let (live, snapshot_seq) = fold(&mut journal, &options.policy)?;
    let epoch = journal.raise_epoch_above(options.epoch_above)?;
    tracing::info!(epoch, seq = live.seq, nodes = live.nodes.len(), workloads = live.workloads.len(), "state folded");
    Ok((journal, live, snapshot_seq))
}

/// The state: the latest snapshot and all events after it.
pub(super) fn fold(journal: &mut dyn Journal, policy: &Policy) -> Result<(Cluster, u64), StartError> {
    let policy = Arc::new(policy.clone());
    let mut live = match journal.latest_snapshot()? {
        None => Cluster::new(Arc::clone(&policy)),
        Some(snapshot) => match Cluster::from_snapshot(snapshot.format, &snapshot.state, Arc::clone(&policy)) {
            Ok(cluster) => cluster,
            Err(SnapshotError::Format { got }) => {
                tracing::warn!(got, "the snapshot has another format; all events are folded");
                Cluster::new(Arc::clone(&policy))
            }
            Err(error) => return Err(error.into()),
        },
    };
    let snapshot_seq = live.seq;
    loop {
        let chunk = journal.read(live.seq, FOLD_CHUNK)?;
        if chunk.is_empty() {
            return Ok((live, snapshot_seq));
        }
        for stored in chunk {
            let record = EventRecord::from_json(stored.version, &stored.payload)
                .map_err(|source| StartError::Event { seq: stored.seq, source })?;
            live.apply(&record);
        }
    }
}
