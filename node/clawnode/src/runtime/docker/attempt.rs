//! The agent's side of one container: fetch, plan, hand over to a supervisor,
//! and watch that, as long as there is something to watch.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claw_proto::message::{DesiredWorkload, LogStream, NodeWorkloadState, OutputContent, StatusCause, TaskErrorCode};
use tokio::sync::watch;
use tracing::warn;

use super::images::ImageRequest;
use super::plan::{self, Plan, container_name};
use super::{Shared, attach, container, outputs, secrets};
use crate::clock;
use crate::files::read_json;
use crate::node::WorkloadEnd;
use crate::runtime::folder::{ContainerFile, ExitFile, Folder, SpecFile};
use crate::runtime::line_log::LineLog;
use crate::runtime::process::Orders;
use crate::runtime::process::supervision::{Reporter, Watch, hand_over, make_folder, spawn_shim};
use crate::runtime::{Key, ReadOrder, TaskFault, checkpoints, dmem, network};

/// A supervisor that died is replaced after, milliseconds; longer each time.
const REPLACE_MS: u64 = 200;
const REPLACE_MS_MAX: u64 = 30_000;

/// Why an attempt does not become a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) cause: StatusCause,
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn new(cause: StatusCause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }
}

/// Runs one attempt from nothing to its end.
pub(super) async fn start(shared: Arc<Shared>, workload: Arc<DesiredWorkload>, orders: watch::Receiver<Orders>) {
    let key = (workload.workload_id, workload.attempt);
    let reporter = Reporter { key, events: shared.events.clone() };
    let folder = Folder::of(&shared.options.workloads, key);
    reporter.progress(NodeWorkloadState::Pulling, String::new()).await;
    let prepared = tokio::select! {
        biased;
        cause = asked_to_stop(orders.clone()) => Err(WorkloadEnd::of(NodeWorkloadState::Stopped, cause, "stopped before it was started")),
        prepared = prepare(&shared, &workload, &folder) => {
            prepared.map_err(|refusal| WorkloadEnd::of(NodeWorkloadState::Failed, refusal.cause, refusal.detail))
        }
    };
    let Prepared { spec, image } = match prepared {
        Ok(prepared) => prepared,
        Err(end) => {
            secrets::remove(&shared.secrets(key));
            reporter.ended(attach::give_back(&shared, key, end).await).await;
            return;
        }
    };
    reporter.progress(NodeWorkloadState::Starting, image).await;
    let first = *orders.borrow();
    let lock = hand_over(&shared.options.workloads, &folder, &spec, first);
    let mut watch = Watch { folder: folder.clone(), orders, reporter, written: first, running: false };
    match lock.and_then(|lock| spawn_shim(&shared.options.shim_program, &folder, lock)) {
        Ok(child) => {
            watch.child(child).await;
            until_over(&shared, watch).await;
        }
        Err(error) => {
            warn!(%error, workload_id = %key.0, "a supervisor could not be started");
            secrets::remove(&shared.secrets(key));
            let detail = format!("the supervisor could not be started: {error}");
            let end = WorkloadEnd::of(NodeWorkloadState::Failed, StatusCause::StartFailed, detail);
            watch.reporter.ended(attach::give_back(&shared, key, end).await).await;
        }
    }
}

/// Watches an attempt that was handed over by an earlier agent.
pub(super) async fn resume(shared: Arc<Shared>, key: Key, orders: watch::Receiver<Orders>) {
    let folder = Folder::of(&shared.options.workloads, key);
    let reporter = Reporter { key, events: shared.events.clone() };
    let watch = Watch { folder, orders, reporter, written: Orders::default(), running: false };
    until_over(&shared, watch).await;
}

/// Until an end is written down. A supervisor that died is replaced: unlike a
/// host process, its container runs on without it.
async fn until_over(shared: &Shared, mut watch: Watch) {
    let mut pause_ms = REPLACE_MS;
    loop {
        match read_json::<ExitFile>(&watch.folder.exit()) {
            Ok(Some(exit)) => {
                watch.report_short_run().await;
                secrets::remove(&shared.secrets(watch.reporter.key));
                let end = attach::give_back(shared, watch.reporter.key, exit.into()).await;
                watch.reporter.ended(end).await;
                return;
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "how a container ended could not be read yet"),
        }
        match watch.folder.try_lock() {
            Ok(Some(lock)) => match spawn_shim(&shared.options.shim_program, &watch.folder, lock) {
                Ok(child) => watch.child(child).await,
                Err(error) => warn!(%error, "a supervisor could not be started again"),
            },
            Ok(None) => watch.stranger().await,
            Err(error) => warn!(%error, "a supervisor's lock could not be looked at"),
        }
        if !watch.folder.exit().exists() {
            warn!(workload_id = %watch.reporter.key.0, pause_ms, "a container's supervisor is gone; another one takes over");
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(REPLACE_MS_MAX);
        }
    }
}

async fn asked_to_stop(mut orders: watch::Receiver<Orders>) -> StatusCause {
    let stop = orders.wait_for(|orders| orders.stop.is_some()).await.map(|orders| orders.stop);
    match stop {
        Ok(stop) => stop.map_or(StatusCause::StopRequested, |stop| stop.cause),
        // The agent is going; nobody is left to ask.
        Err(_) => std::future::pending().await,
    }
}

struct Prepared {
    spec: SpecFile,
    /// The image, for people.
    image: String,
}

/// Everything that comes before the supervisor.
async fn prepare(shared: &Shared, workload: &DesiredWorkload, folder: &Folder) -> Result<Prepared, Refusal> {
    let key = (workload.workload_id, workload.attempt);
    let Some(image) = workload.spec.image.as_deref() else {
        return Err(Refusal::new(StatusCause::Unsupported, "a container needs an image"));
    };
    let io = |error: std::io::Error| Refusal::new(StatusCause::StartFailed, format!("attempt folder: {error}"));
    let uncapped =
        |error: std::io::Error| Refusal::new(StatusCause::StartFailed, format!("memory of its GPU: {error}"));
    make_folder(folder).map_err(io)?;
    let (docker, engine) = shared.engine.get().map_err(|why| {
        Refusal::new(StatusCause::EngineFailed, format!("the container engine is not available: {why}"))
    })?;
    let request = ImageRequest { image, pull: workload.spec.pull, auth: workload.registry_auth.as_ref() };
    let mut notes = LineLog::open(&folder.logs(), LogStream::System, shared.log_bytes_max()).map_err(io)?;
    let fetched = shared.images.fetch(&docker, &request, |progress| notes.note(&format!("pull: {progress}"))).await;
    let fetched = fetched.map_err(|error| Refusal::new(error.cause(), error.to_string()))?;
    notes.note(&fetched.detail());
    if let Some(note) = plan::cut_off(workload, &shared.options.config.network) {
        notes.note(&note);
    }
    drop(notes);
    let capabilities = shared.capabilities();
    let gpus = capabilities.as_ref().map_or(&[][..], |capabilities| &capabilities.gpus);
    let gpu_memory =
        dmem::cap_of(Path::new(dmem::CGROUP_ROOT), workload, (gpus, shared.options.limits_shares)).map_err(uncapped)?;
    let volumes = shared.options.config.volumes.clone();
    let (attachments, devices) = attach::take(&docker, &engine, shared.cache.clone(), volumes, workload, gpus).await?;
    let user = workload.spec.user.clone().unwrap_or_else(|| fetched.user.clone());
    let secrets_folder = secrets::write(&shared.options.config.secrets_dir, &shared.options.node_id, workload, &user)
        .map_err(|error| {
        let cause = match error {
            secrets::SecretsError::NotInMemory { .. } => StatusCause::Unsupported,
            secrets::SecretsError::Missing { .. }
            | secrets::SecretsError::Target { .. }
            | secrets::SecretsError::Io { .. } => StatusCause::StartFailed,
        };
        Refusal::new(cause, error.to_string())
    })?;
    let mut env = network::placed_environment(workload, capabilities, shared.shared_ports()).await;
    let mut attachments = attachments;
    if checkpoints::speaks(workload) {
        checkpoints::make(&folder.checkpoint(), true).map_err(io)?;
        let (told, mount) = checkpoints::for_container(workload, &folder.checkpoint());
        env.extend(told);
        attachments.mounts.push(mount);
    }
    let secrets_text = secrets_folder.as_ref().map(|folder| folder.to_string_lossy().into_owned());
    let plan = Plan {
        node_id: &shared.options.node_id,
        workload,
        image: &fetched.id,
        engine: engine.kind,
        config: &shared.options.config,
        secrets: secrets_text.as_deref(),
        env: &env,
        attachments,
    };
    let container = ContainerFile {
        socket: shared.engine.socket().to_path_buf(),
        name: container_name(key),
        node_id: shared.options.node_id.clone(),
        create: Some(plan.create_body()),
        secrets: secrets_folder,
        outputs: shared.outputs(key),
        outputs_bytes_max: shared.options.config.outputs_mib_max.saturating_mul(1024 * 1024),
        devices,
    };
    let spec = SpecFile { gpu_memory, ..shared.spec_file(workload.clone(), container) };
    Ok(Prepared { spec, image: fetched.detail() })
}

/// Reads an attempt's outputs: from the container while it is there, else from
/// what was collected.
pub(super) async fn read_output(
    shared: &Shared,
    key: Key,
    declared: Option<Vec<String>>,
    order: ReadOrder,
) -> Result<OutputContent, TaskFault> {
    let path: PathBuf = match &declared {
        Some(declared) => outputs::declared(declared, &order.path)?,
        None => outputs::clean(&order.path)
            .ok_or_else(|| TaskFault::new(TaskErrorCode::Refused, "the path leads upward"))?,
    };
    if declared.is_some()
        && let Ok((docker, _)) = shared.engine.get()
    {
        let wanted = container::named(shared.engine.socket(), &shared.options.node_id, key);
        if let Ok(container::Seen::Running { .. }) = container::see(&docker, &wanted).await {
            return outputs::read_live(&docker, &wanted.name, &path, order.offset, order.bytes_max).await;
        }
    }
    let folder = shared.outputs(key);
    let read = move || outputs::read_collected(&folder, &path, order.offset, order.bytes_max);
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(TaskFault::new(TaskErrorCode::Internal, error.to_string())),
    }
}

/// What is known of a container whose folder is gone.
pub(super) fn orphan(key: Key, image: Option<String>, gpus: Vec<claw_proto::ids::GpuUuid>) -> DesiredWorkload {
    DesiredWorkload {
        workload_id: key.0,
        attempt: key.1,
        spec: claw_proto::spec::WorkloadSpec { image, ..Default::default() },
        gpus,
        runtime: claw_proto::spec::RuntimeKind::Docker,
        // Nothing is known about its lease: the gateway decides.
        on_partition: claw_proto::spec::OnPartition::Keep,
        grace_s: 10,
        max_duration_s: None,
        secrets: Vec::new(),
        registry_auth: None,
        ranks: None,
        checkpoint_last: None,
    }
}

/// Makes the folder of an orphan, so that a supervisor can take it over.
pub(super) fn adopt(shared: &Shared, workload: &DesiredWorkload) -> std::io::Result<()> {
    let key = (workload.workload_id, workload.attempt);
    let folder = Folder::of(&shared.options.workloads, key);
    make_folder(&folder)?;
    let mut container = container::named(shared.engine.socket(), &shared.options.node_id, key);
    container.outputs = shared.outputs(key);
    container.outputs_bytes_max = shared.options.config.outputs_mib_max.saturating_mul(1024 * 1024);
    crate::files::replace(&folder.attempted(), b"", crate::files::Durability::Synced)?;
    let spec = shared.spec_file(workload.clone(), container);
    let lock = hand_over(&shared.options.workloads, &folder, &spec, Orders::default())?;
    drop(lock);
    tracing::info!(workload_id = %key.0, attempt = key.1.0, at_ms = clock::boot_ms(), "a container without a folder is taken over");
    Ok(())
}
