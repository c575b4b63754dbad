//! From a data folder and a configuration to a running agent.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant as Clock;

use claw_proto::ids::NodeId;
use claw_proto::limits::NICS_PER_NODE_MAX;
use claw_proto::message::NodeSettings;
use claw_proto::spec::RuntimeKind;
use claw_proto::topology::{GpuDriver, NodeCapabilities};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::certificates::Renewal;
use super::facts::{ShareCaps, add_runtimes};
use super::jobs::{Probe, PumpCommand};
use super::kernel::Kernel;
use super::{Agent, AgentEvent, RUNTIME_EVENTS_MAX};
use super::{alive, health};
use crate::clock;
use crate::config::NodeConfig;
use crate::endpoint::{Endpoint, EndpointError};
use crate::gpu::rocm::ToolOptions;
use crate::gpu::vulkan::{self, VulkanOptions};
use crate::gpu::{GpuConfigError, GpuDetector, GpuOptions, select, sim, topology};
use crate::identity::{DataDir, Identity, IdentityError};
use crate::kernel_log::{KMSG, KernelLog};
use crate::link::{Link, TlsCell};
use crate::logs::LogPump;
use crate::node::{DurableState, FoundWorkload, Input, Node, NodeIdentity, RuntimeEvent};
use crate::platform::RUNS_WORK;
use crate::runtime::Runtime;
use crate::runtime::docker::{DockerOptions, DockerRuntime};
use crate::runtime::folder::Folder;
use crate::runtime::process::{ProcessOptions, ProcessRuntime};
use crate::runtime::sim::{SimOptions, SimRuntime};
use crate::sampler::{Sampler, SamplerError};
use crate::store::{Store, StoreError};

/// Label of a node on which host processes run without isolation.
const PROCESS_LABEL: (&str, &str) = ("claw.runtime/process", "unisolated");

/// Where the kernel shows its devices.
const SYSFS_ROOT: &str = "/sys";

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It does not know who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The gateway's address is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The record store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The GPUs cannot be used.
    #[error(transparent)]
    Gpu(#[from] GpuConfigError),
    /// The host cannot be measured.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A folder or a file cannot be used, or there is no randomness.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What an agent starts from.
#[derive(Debug)]
pub struct AgentOptions {
    /// The node's data folder.
    pub data_dir: DataDir,
    /// Its configuration.
    pub config: NodeConfig,
    /// The program that understands `shim --dir …` (this binary).
    pub shim_program: PathBuf,
    /// Where the agent tells its news.
    pub news: mpsc::Sender<AgentEvent>,
}

impl AgentOptions {
    /// Opens everything, finds what runs, and makes an agent of it. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn build(self) -> Result<Agent, AgentError> {
        let Self { data_dir, config, shim_program, news } = self;
        let lock = data_dir.lock()?;
        let identity = data_dir.load()?;
        let url = config.gateway_url.as_deref().unwrap_or(&identity.node_url);
        let tls = TlsCell::new(data_dir.tls()?);
        let renewal = Renewal::new(data_dir.clone(), tls.clone())?;
        let link = Link { endpoint: Endpoint::parse(url, "wss")?, tls, config: config.link.clone() };
        let store = Store::open(data_dir.root(), new_store_id()?)?;
        let name = config.name.clone().unwrap_or_else(|| identity.name.clone());
        let settings = NodeSettings::default();
        let mut probe = Probe {
            detector: GpuDetector::new(gpu_options(&config, &name, &data_dir))?,
            sampler: Sampler::new(data_dir.root())?,
            started: Clock::now(),
        };
        let (events, runtime_events) = mpsc::channel(RUNTIME_EVENTS_MAX);
        let durable = store.state().clone();
        let origin = Origin { data_dir: &data_dir, config: &config, node: &name, node_id: identity.node_id };
        let mut runtimes = origin.runtimes(&durable, shim_program, &settings, events)?;
        let allowed = allowed(&config);
        let mut share_caps = ShareCaps::new(config.caps_shares(), data_dir.workloads());
        let mut capabilities = capabilities(&config, &mut probe, allowed.clone());
        let mut findings = health::Findings::of_gpus(std::mem::take(&mut capabilities.findings));
        findings.set(health::Finder::Runtimes, add_runtimes(&mut capabilities, &allowed, runtimes.values_mut()));
        capabilities.findings = findings.all();
        let found = recover(&mut runtimes, &durable, (&mut share_caps, &mut capabilities));
        let pump_commands = found.iter().map(|one| watch(&data_dir, one)).collect();
        let node_id = identity.node_id;
        let node = Node::new(NodeIdentity { node_id, name }, capabilities.clone(), settings.clone());
        let mut agent = Agent {
            node,
            node_id,
            runtimes,
            runtime_events,
            workloads: data_dir.workloads(),
            alive: data_dir.alive(),
            link,
            renewal,
            connection: None,
            session: 0,
            jobs: JoinSet::new(),
            store: Some(store),
            store_retry_at: None,
            unwritten: std::collections::VecDeque::new(),
            pump: Some(LogPump::new(settings.log_buffer_bytes)),
            pump_commands,
            probe: Some(probe),
            capabilities,
            findings,
            share_caps,
            allowed,
            tasks: BTreeMap::new(),
            checkpoints: super::checkpoints::Checkpoints::default(),
            held_ends: Vec::new(),
            gpu_events: health::EventQueue::default(),
            kernel: Kernel::new(kernel_log(&config)),
            metrics_at: Instant::now(),
            lock,
            news,
        };
        agent.feed(Input::Booted { now: clock::now(), durable: Box::new(durable), found });
        Ok(agent)
    }
}

/// Takes over what runs. With it is known whether shares of GPUs are held to their memory.
fn recover(
    runtimes: &mut BTreeMap<RuntimeKind, Box<dyn Runtime>>,
    durable: &DurableState,
    (share_caps, capabilities): (&mut ShareCaps, &mut NodeCapabilities),
) -> Vec<FoundWorkload> {
    let mut found = Vec::new();
    for (kind, runtime) in runtimes.iter_mut() {
        runtime.set_capabilities(capabilities);
        found.extend(runtime.recover(&Agent::known(durable, *kind)));
    }
    let known = durable.attempts.values().map(|entry| &*entry.workload);
    let held: Vec<_> = known.chain(found.iter().map(|one: &FoundWorkload| &*one.workload)).collect();
    share_caps.mark(capabilities.gpu_driver, &mut capabilities.gpus, &held);
    for runtime in runtimes.values_mut() {
        runtime.set_capabilities(capabilities);
    }
    found
}

/// The logs of what was found go on.
fn watch(data_dir: &DataDir, found: &FoundWorkload) -> PumpCommand {
    let key = (found.workload.workload_id, found.workload.attempt);
    PumpCommand::Watch { key, folder: Folder::of(&data_dir.workloads(), key).logs() }
}

fn new_store_id() -> Result<u128, AgentError> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| AgentError::Io { what: "randomness", source: error.into() })?;
    Ok(u128::from_le_bytes(bits))
}

fn gpu_options(config: &NodeConfig, name: &str, data_dir: &DataDir) -> GpuOptions {
    let nvml_library = config.gpu_nvml_library.clone();
    let sysfs_root = PathBuf::from(SYSFS_ROOT);
    let rocm_tools = ToolOptions { folder: config.gpu_rocm_tools.clone(), ..ToolOptions::default() };
    let vulkan = VulkanOptions {
        probe: config.gpu_vulkan_probe.clone(),
        software: config.gpu_vulkan_software,
        environment: VulkanOptions::environment_of(std::env::vars_os()),
        ..VulkanOptions::default()
    };
    GpuOptions {
        nvml_library,
        nvml_program: Some(select::OWN_PROGRAM.into()),
        rocm_tools,
        vulkan,
        sysfs_root,
        ..GpuOptions::new(config.gpu(), name, data_dir.faults())
    }
}

/// What runtimes are made from.
struct Origin<'a> {
    data_dir: &'a DataDir,
    config: &'a NodeConfig,
    node: &'a str,
    node_id: NodeId,
}

impl Origin<'_> {
    /// Every runtime, allowed or not: what ran before the config changed is still
    /// found, watched and stopped. What may start is told by the capabilities.
    fn runtimes(
        &self,
        durable: &DurableState,
        shim_program: PathBuf,
        settings: &NodeSettings,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Result<BTreeMap<RuntimeKind, Box<dyn Runtime>>, AgentError> {
        let failed = |source| AgentError::Io { what: "folder of the workloads", source };
        let mut runtimes: BTreeMap<RuntimeKind, Box<dyn Runtime>> = BTreeMap::new();
        let process = &self.config.runtime.process;
        let options = ProcessOptions {
            node: self.node.to_owned(),
            workloads: self.data_dir.workloads(),
            execution_log: self.data_dir.execution_log(),
            shim_program: shim_program.clone(),
            default_user: process.user.clone(),
            cgroups: process.cgroups,
            pids_max: process.pids_max,
            limits_shares: self.config.caps_shares(),
            log_bytes_max: settings.log_buffer_bytes,
            capabilities: None,
        };
        let runtime = ProcessRuntime::new(options, events.clone()).map_err(failed)?;
        runtimes.insert(RuntimeKind::Process, Box::new(runtime));
        let sim = &self.config.runtime.sim;
        let options = SimOptions {
            node: self.node.to_owned(),
            workloads: self.data_dir.workloads(),
            execution_log: self.data_dir.execution_log(),
            pull_ms: sim.pull_ms,
            start_ms: sim.start_ms,
            stop_ms: sim.stop_ms,
            log_bytes_max: settings.log_buffer_bytes,
            last_alive_ms: alive::last(&self.data_dir.alive()),
        };
        let runtime = SimRuntime::new(options, events.clone()).map_err(failed)?;
        runtimes.insert(RuntimeKind::Sim, Box::new(runtime));
        // A machine without an engine is not asked about one again and again.
        let had_containers = durable.attempts.values().any(|entry| entry.workload.runtime == RuntimeKind::Docker);
        if self.config.runs_containers() || had_containers {
            let runtime = DockerRuntime::new(self.docker(shim_program, settings), events).map_err(failed)?;
            runtimes.insert(RuntimeKind::Docker, Box::new(runtime));
        }
        Ok(runtimes)
    }

    fn docker(&self, shim_program: PathBuf, settings: &NodeSettings) -> DockerOptions {
        DockerOptions {
            node: self.node.to_owned(),
            node_id: self.node_id.to_string(),
            workloads: self.data_dir.workloads(),
            outputs: self.data_dir.root().join("outputs"),
            execution_log: self.data_dir.execution_log(),
            shim_program,
            config: self.config.runtime.docker.clone(),
            limits_shares: self.config.caps_shares(),
            log_bytes_max: settings.log_buffer_bytes,
        }
    }
}

/// The kernel's log, where the config wants it read.
fn kernel_log(config: &NodeConfig) -> Option<KernelLog> {
    let path = config.kernel_log.path.as_deref().unwrap_or(Path::new(KMSG));
    config.reads_kernel_log().then(|| KernelLog::new(path, clock::boot_id()))
}

/// Runtimes that the config allows and the system can have.
fn allowed(config: &NodeConfig) -> Vec<RuntimeKind> {
    let process = (config.runtime.process.enabled && RUNS_WORK).then_some(RuntimeKind::Process);
    let sim = config.simulates().then_some(RuntimeKind::Sim);
    let docker = (config.runs_containers() && RUNS_WORK).then_some(RuntimeKind::Docker);
    docker.into_iter().chain(process).chain(sim).collect()
}

fn capabilities(config: &NodeConfig, probe: &mut Probe, runtimes: Vec<RuntimeKind>) -> NodeCapabilities {
    let facts = probe.sampler.facts();
    let fleet = probe.detector.detect(0);
    let mut labels = config.labels.clone();
    if runtimes.contains(&RuntimeKind::Process) {
        labels.insert(PROCESS_LABEL.0.to_owned(), PROCESS_LABEL.1.to_owned());
    }
    let mut nics = topology::nics(Path::new(SYSFS_ROOT));
    if fleet.driver == GpuDriver::Sim {
        let room = NICS_PER_NODE_MAX.saturating_sub(nics.len());
        nics.extend(sim::nics(&fleet.gpus).take(room));
    }
    NodeCapabilities {
        hostname: facts.hostname,
        os: facts.os,
        arch: std::env::consts::ARCH.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        cpu_millis: facts.cpu_millis,
        memory_mib: facts.memory_mib,
        disk_mib: facts.disk_mib,
        gpu_driver: fleet.driver,
        simulated: fleet.driver == GpuDriver::Sim
            || fleet.gpus.iter().any(vulkan::is_software)
            || runtimes == [RuntimeKind::Sim],
        gpus: fleet.gpus,
        runtimes,
        labels,
        findings: fleet.findings,
        engine: None,
        nics,
        boot_id: Some(clock::boot_id()).filter(|id| !id.is_empty()),
    }
}

/// What to do about a certificate that has ended or is revoked.
pub(super) const ENROLL_AGAIN: &str = "the machine has to enroll again: node_revoke it, make a token for its name (node_token_create), and run clawnode join --again";

/// The line about the node's certificate.
fn certificate_line(data_dir: &DataDir) -> String {
    let now = clock::now().wall;
    match data_dir.validity() {
        Ok(validity) if validity.not_after <= now => {
            format!("certificate  ended at {}: {ENROLL_AGAIN}", validity.not_after)
        }
        Ok(validity) => format!("certificate  good until {}", validity.not_after),
        Err(error) => format!("certificate  unusable: {error}; {ENROLL_AGAIN}"),
    }
}

/// What `clawnode status` shows without talking to anybody.
///
/// # Errors
/// [`AgentError`].
pub fn status_text(data_dir: &DataDir) -> Result<String, AgentError> {
    let Identity { node_id, name, node_url } = data_dir.load()?;
    let running = match data_dir.lock() {
        Ok(_) => "not running",
        Err(IdentityError::Locked { .. }) => "running",
        Err(error) => return Err(error.into()),
    };
    let mut lines =
        vec![format!("node     {node_id} ({name})"), format!("gateway  {node_url}"), format!("agent    {running}")];
    lines.push(certificate_line(data_dir));
    match Store::peek(data_dir.root())? {
        None => lines.push("records  none yet".to_owned()),
        Some(state) => {
            let (made, acked, generation) = (state.last_record, state.acked, state.generation);
            lines.push(format!("records  {made} made, {acked} acknowledged; generation {generation}"));
            for (id, entry) in &state.attempts {
                let (attempt, shown) = (entry.attempt().0, entry.shown_state());
                let (runtime, n_gpus) = (entry.workload.runtime, entry.workload.gpus.len());
                lines.push(format!("workload {id} attempt {attempt} {shown} ({runtime}, {n_gpus} GPUs)"));
            }
        }
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}
