//! Containers on a Docker or Podman engine of this machine.
//!
//! The agent fetches the image, plans the container ([`plan`]) and starts
//! `clawnode shim` on the attempt's folder; that supervisor ([`supervise`])
//! does the rest and outlives the agent, as for host processes. The agent
//! watches it ([`attempt`]), runs commands, reads outputs and measures.
//! Containers are found again by their labels; one without a folder is
//! taken over and reported, the gateway decides about it.

mod attach;
mod attempt;
pub mod cache;
pub mod cdi;
pub mod config;
mod container;
pub mod engine;
mod exec;
mod follow;
pub mod gc;
pub mod gpu;
pub mod image_ref;
pub mod images;
mod look;
mod measure;
mod oom;
mod outputs;
pub mod plan;
pub mod policy;
pub mod pull;
mod secrets;
pub(super) mod supervise;
mod sweep;
pub mod volumes;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claw_proto::ids::GpuUuid;
use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause, TaskId, WorkloadMetrics};
use claw_proto::spec::RuntimeKind;
use claw_proto::topology::{EngineInfo, FindingCode, NodeCapabilities, NodeFinding};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use self::cache::Cache;
use self::config::DockerConfig;
use self::engine::EngineWatch;
use self::images::Images;
use self::measure::Meter;
use super::folder::{ContainerFile, Folder, SpecFile};
use super::ports::MeetingPorts;
use super::process::Orders;
use super::{Availability, ExecOrder, Key, ReadOrder, Runtime, TaskFault};
use crate::clock;
use crate::node::{FoundWorkload, Lease, RuntimeEvent, TaskResult};

/// How often containers are measured, milliseconds.
const MEASURE_INTERVAL_MS: u64 = 5_000;
/// How often it is looked how far caches are that containers fill, milliseconds. Where
/// that takes long it is done less often.
const FILLING_INTERVAL_MS: u64 = 5_000;
/// A container whose cache has outgrown its room may take so long to end, milliseconds: it may fill on meanwhile.
const OUTGROWN_GRACE_MS: u64 = 5_000;

/// What the container runtime needs to know.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// Node's name, for the execution log.
    pub node: String,
    /// Node's id, for the labels of its containers.
    pub node_id: String,
    /// Folder with one folder per attempt.
    pub workloads: PathBuf,
    /// Folder for collected outputs.
    pub outputs: PathBuf,
    /// The execution log.
    pub execution_log: PathBuf,
    /// The program that understands `shim --dir …` (this binary).
    pub shim_program: PathBuf,
    /// The node's rules.
    pub config: DockerConfig,
    /// Whether who has a share of a GPU is held to its memory where it can be.
    pub limits_shares: bool,
    /// Log bytes that one stream of a new attempt may hold.
    pub log_bytes_max: u64,
}

/// What every task of the runtime shares.
#[derive(Debug)]
struct Shared {
    options: DockerOptions,
    engine: EngineWatch,
    images: Images,
    /// None if its folder cannot be used.
    cache: Option<Cache>,
    ports: MeetingPorts,
    events: mpsc::Sender<RuntimeEvent>,
    /// Where attempts get their orders, by the name that the cache knows them under.
    orders: Mutex<BTreeMap<String, watch::Sender<Orders>>>,
    /// Why attempts were stopped that filled a cache, by the same name.
    outgrown: Mutex<BTreeMap<String, String>>,
    capabilities: Mutex<Option<Arc<NodeCapabilities>>>,
    log_bytes_max: Mutex<u64>,
    /// Attempts to measure: whether their memory is limited.
    measured: Mutex<BTreeMap<Key, bool>>,
    metrics: Mutex<BTreeMap<Key, WorkloadMetrics>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn secrets(&self, key: Key) -> PathBuf {
        secrets::folder(&self.options.config.secrets_dir, &self.options.node_id, key)
    }

    fn outputs(&self, key: Key) -> PathBuf {
        self.options.outputs.join(format!("{}.{}", key.0, key.1.0))
    }

    fn capabilities(&self) -> Option<Arc<NodeCapabilities>> {
        locked(&self.capabilities).clone()
    }

    /// Ports of the host, if containers have its network; else each has all ports of its own.
    fn shared_ports(&self) -> Option<&MeetingPorts> {
        (self.options.config.network == "host").then_some(&self.ports)
    }

    /// Stops who fills a cache, unless it is being stopped already.
    fn stop_filling(&self, writer: String, why: &cache::CacheError) {
        let orders = locked(&self.orders).get(&writer).cloned();
        let kill_at_ms = clock::boot_ms().saturating_add(OUTGROWN_GRACE_MS);
        let stop_once = |orders: &mut Orders| {
            let is_new = orders.stop.is_none();
            if is_new {
                orders.stop(kill_at_ms, StatusCause::VolumeRefused);
            }
            is_new
        };
        // Before the order: its end may be there at once.
        locked(&self.outgrown).insert(writer.clone(), why.to_string());
        if orders.is_some_and(|orders| orders.send_if_modified(stop_once)) {
            tracing::warn!(writer, %why, "who fills a cache is stopped");
        }
    }

    fn log_bytes_max(&self) -> u64 {
        *locked(&self.log_bytes_max)
    }

    fn spec_file(&self, workload: DesiredWorkload, container: ContainerFile) -> SpecFile {
        SpecFile {
            node: self.options.node.clone(),
            workload,
            execution_log: self.options.execution_log.clone(),
            log_bytes_max: self.log_bytes_max(),
            default_user: None,
            cgroups: false,
            pids_max: self.options.config.pids_max,
            env: BTreeMap::new(),
            gpu_memory: None,
            container: Some(Box::new(container)),
        }
    }
}

/// Runs containers.
#[derive(Debug)]
pub struct DockerRuntime {
    shared: Arc<Shared>,
    /// The outputs that each attempt declares.
    attempts: BTreeMap<Key, Vec<String>>,
    tasks: JoinSet<()>,
    requests: BTreeMap<TaskId, AbortHandle>,
}

impl DockerRuntime {
    /// A runtime that tells what happens through `events`; asks the engine once
    /// before it returns. Must live inside a tokio runtime. Dropping it leaves
    /// the containers running.
    ///
    /// # Errors
    /// If the folder for the attempts cannot be created.
    pub fn new(options: DockerOptions, events: mpsc::Sender<RuntimeEvent>) -> io::Result<Self> {
        crate::files::create_folder(&options.workloads, 0o711)?;
        let engine = EngineWatch::new(options.config.socket());
        engine.look_now();
        let images = Images::open(options.workloads.with_file_name("images.json"), options.config.images.clone());
        let cache = Cache::open(options.workloads.with_file_name("cache"), options.config.cache.clone());
        let cache = cache.inspect_err(|error| tracing::warn!(%error, "no weights cache")).ok();
        let log_bytes_max = Mutex::new(options.log_bytes_max);
        let shared = Arc::new(Shared {
            options,
            engine,
            images,
            cache,
            ports: MeetingPorts::of_containers(),
            events,
            orders: Mutex::default(),
            outgrown: Mutex::default(),
            capabilities: Mutex::new(None),
            log_bytes_max,
            measured: Mutex::default(),
            metrics: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.engine.clone().run());
        tasks.spawn(sweep::run(Arc::clone(&shared)));
        tasks.spawn(measure_all(Arc::clone(&shared)));
        tasks.spawn(watch_filling(Arc::clone(&shared)));
        Ok(Self { shared, attempts: BTreeMap::new(), tasks, requests: BTreeMap::new() })
    }

    /// The folder of an attempt.
    pub fn folder(&self, key: Key) -> Folder {
        Folder::of(&self.shared.options.workloads, key)
    }

    /// Where an attempt's outputs are collected.
    pub fn outputs(&self, key: Key) -> PathBuf {
        self.shared.outputs(key)
    }

    fn enroll(&mut self, workload: &DesiredWorkload, orders: Orders) -> watch::Receiver<Orders> {
        while self.tasks.try_join_next().is_some() {}
        let key = (workload.workload_id, workload.attempt);
        let (sender, receiver) = watch::channel(orders);
        locked(&self.shared.orders).insert(attach::holder(key), sender);
        self.attempts.insert(key, workload.spec.outputs.clone());
        locked(&self.shared.measured).insert(key, workload.spec.memory_gib.is_some());
        receiver
    }

    fn order(&mut self, key: Key, change: impl FnOnce(&mut Orders)) {
        if let Some(orders) = locked(&self.shared.orders).get(&attach::holder(key)) {
            orders.send_modify(change);
        }
    }

    /// Runs a request; its answer goes through the channel.
    fn request(&mut self, task: TaskId, work: impl Future<Output = Result<TaskResult, TaskFault>> + Send + 'static) {
        let events = self.shared.events.clone();
        self.requests.retain(|_, request| !request.is_finished());
        let request = self.tasks.spawn(async move {
            let result = work.await;
            if events.send(RuntimeEvent::TaskDone { task, result }).await.is_err() {
                tracing::debug!("nobody waits for the answer any more");
            }
        });
        self.requests.insert(task, request);
    }
}

/// Measures everything that runs, again and again.
async fn measure_all(shared: Arc<Shared>) {
    let mut meter = Meter::default();
    loop {
        let keys: Vec<(Key, bool)> = locked(&shared.measured).iter().map(|(key, limited)| (*key, *limited)).collect();
        if !keys.is_empty()
            && let Ok((docker, _)) = shared.engine.get()
        {
            let measured = meter.measure(&docker, &keys).await;
            *locked(&shared.metrics) = measured;
        }
        tokio::time::sleep(Duration::from_millis(MEASURE_INTERVAL_MS)).await;
    }
}

/// Stops who fills a cache beyond what the node has for caches, again and again.
async fn watch_filling(shared: Arc<Shared>) {
    let Some(cache) = shared.cache.clone() else { return };
    loop {
        let (began, cache) = (Instant::now(), cache.clone());
        match tokio::task::spawn_blocking(move || cache.outgrown()).await {
            Ok(Ok(outgrown)) => {
                for (writer, why) in outgrown {
                    shared.stop_filling(writer, &why);
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "how far caches are filled is not known"),
            Err(error) => tracing::warn!(%error, "how far caches are filled is not known"),
        }
        let pause = (10 * began.elapsed()).max(Duration::from_millis(FILLING_INTERVAL_MS));
        tokio::time::sleep(pause).await;
    }
}

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn recover(&mut self, known: &[Arc<DesiredWorkload>]) -> Vec<FoundWorkload> {
        let mut found = sweep::recover(&self.shared, known);
        attach::recover(self.shared.cache.as_ref(), &mut found);
        for one in &found {
            if matches!(one.found, crate::node::Found::Live { .. }) {
                let key = (one.workload.workload_id, one.workload.attempt);
                if let Some(ports) = self.shared.shared_ports() {
                    ports.recover(key, &self.folder(key));
                }
                self.adopted(&one.workload);
            }
        }
        found
    }

    fn start(&mut self, workload: Arc<DesiredWorkload>, lease: Option<Lease>) {
        let orders = self.enroll(&workload, Orders { stop: None, lease });
        self.tasks.spawn(attempt::start(Arc::clone(&self.shared), workload, orders));
    }

    fn adopted(&mut self, workload: &Arc<DesiredWorkload>) {
        let key = (workload.workload_id, workload.attempt);
        if !self.attempts.contains_key(&key) {
            let orders = self.enroll(workload, Orders::default());
            self.tasks.spawn(attempt::resume(Arc::clone(&self.shared), key, orders));
        }
    }

    fn stop(&mut self, key: Key, grace_ms: u64, cause: StatusCause) {
        let kill_at_ms = clock::boot_ms().saturating_add(grace_ms);
        self.order(key, |orders| orders.stop(kill_at_ms, cause));
    }

    fn renew_lease(&mut self, key: Key, lease: Lease) {
        self.order(key, |orders| orders.lease = Some(lease));
    }

    fn gpu_failed(&mut self, _gpu: &GpuUuid) {}

    fn remove(&mut self, key: Key) {
        let known = self.attempts.remove(&key).is_some();
        locked(&self.shared.orders).remove(&attach::holder(key));
        locked(&self.shared.outgrown).remove(&attach::holder(key));
        locked(&self.shared.measured).remove(&key);
        locked(&self.shared.metrics).remove(&key);
        self.shared.ports.take_back(key);
        let folder = self.folder(key);
        if !known && !folder.is_container() {
            return;
        }
        secrets::remove(&self.shared.secrets(key));
        folder.remove_or_warn();
    }

    fn set_log_bytes_max(&mut self, bytes_max: u64) {
        *locked(&self.shared.log_bytes_max) = bytes_max;
    }

    fn set_capabilities(&mut self, capabilities: &NodeCapabilities) {
        *locked(&self.shared.capabilities) = Some(Arc::new(capabilities.clone()));
    }

    fn availability(&mut self) -> Availability {
        let finding = |code, subject: &str, detail: String| NodeFinding { code, subject: subject.to_owned(), detail };
        match self.shared.engine.get() {
            Ok((_, engine)) => {
                let limited = (!engine.cdi).then(|| {
                    let detail =
                        format!("{} {} attaches no GPUs by CDI through its interface", engine.name(), engine.version);
                    finding(FindingCode::EngineLimited, engine.name(), detail)
                });
                let info = EngineInfo {
                    name: engine.name().to_owned(),
                    version: engine.version.clone(),
                    api_version: engine.api_version(),
                    cdi: engine.cdi,
                };
                Availability { works: true, engine: Some(info), findings: limited.into_iter().collect() }
            }
            Err(why) => {
                let subject = self.shared.engine.socket().display().to_string();
                let finding = finding(FindingCode::EngineUnavailable, &subject, why);
                Availability { works: false, engine: None, findings: vec![finding] }
            }
        }
    }

    fn measure(&mut self) -> Vec<WorkloadMetrics> {
        locked(&self.shared.metrics).values().cloned().collect()
    }

    fn exec(&mut self, key: Key, task: TaskId, order: ExecOrder) -> Result<(), TaskFault> {
        let (docker, _) = self.shared.engine.get().map_err(|why| {
            TaskFault::new(claw_proto::message::TaskErrorCode::Internal, format!("the container engine is away: {why}"))
        })?;
        let wanted = container::named(self.shared.engine.socket(), &self.shared.options.node_id, key);
        self.request(task, async move { exec::exec(&docker, &wanted, order).await.map(TaskResult::Exec) });
        Ok(())
    }

    fn read_output(&mut self, key: Key, task: TaskId, order: ReadOrder) -> Result<(), TaskFault> {
        let declared = self.attempts.get(&key).cloned();
        let shared = Arc::clone(&self.shared);
        self.request(
            task,
            async move { attempt::read_output(&shared, key, declared, order).await.map(TaskResult::Output) },
        );
        Ok(())
    }

    fn cancel_task(&mut self, task: TaskId) {
        if let Some(request) = self.requests.remove(&task) {
            request.abort();
        }
    }
}

/// The state that a container which was found is reported in.
fn live_state(folder: &Folder) -> NodeWorkloadState {
    if folder.started().exists() { NodeWorkloadState::Running } else { NodeWorkloadState::Starting }
}
