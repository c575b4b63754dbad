//! Any GPU that Vulkan sees, through `claw-gpu-probe` as a child process.
//!
//! A Vulkan driver that crashes takes its process along, so none is loaded here: the
//! probe is asked for a list. Detection comes each second and a list costs a process
//! and an instance of every driver (40 ms of lavapipe; a driver of a real GPU may wake
//! it), so what was listed is kept for [`VulkanOptions::rescan_ms`]. A probe that takes
//! long is asked again by the next detection, one that takes too long is killed.
//!
//! Vulkan knows no utilization, temperature or power, and of the memory only an
//! estimate of what is left; so nothing is measured here, rather than zeros told.
//! Tested on lavapipe (the host's processors, left out unless wanted) and with
//! programs that misbehave: untested on hardware.

mod identity;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use claw_compute::report::{self, Document, ErrorCode, ListReport, Outcome};
use claw_proto::message::GpuMetrics;
use claw_proto::topology::{FindingCode, GpuDriver as GpuDriverKind, GpuHealth, GpuInfo, NodeFinding};
use tracing::debug;

use super::child::{self, Ended, RunError, Running};
use super::{GpuDriver, Sampling, Seen, merge, topology};

pub use identity::is_software;

/// Name of this driver in findings.
const SUBJECT: &str = "vulkan";
/// Longest that a finding cites of what the probe said, characters.
const CITED_CHARS_MAX: usize = 300;

/// Variables of the agent's environment that the probe may see: where the loader is, and
/// which drivers its administrator wants. Layers are no part of it.
pub const ENVIRONMENT: [&str; 5] =
    ["LD_LIBRARY_PATH", "VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_LOADER_DRIVERS_SELECT", "VK_LOADER_DRIVERS_DISABLE"];

/// How the driver works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VulkanOptions {
    /// The probe; beside the agent's own program if absent.
    pub probe: Option<PathBuf>,
    /// The probe's whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether devices that the host's processors work for count as GPUs, for tests.
    pub software: bool,
    /// Whether an absent probe or loader is worth a finding.
    pub wanted: bool,
    /// Where sysfs is mounted.
    pub sysfs_root: PathBuf,
    /// How long the first detection waits for the probe, milliseconds.
    pub first_wait_ms: u64,
    /// How long a later one waits, milliseconds: the other drivers wait with it.
    pub wait_ms: u64,
    /// A probe is killed after, milliseconds.
    pub timeout_ms: u64,
    /// What was listed is kept for, milliseconds.
    pub rescan_ms: u64,
    /// A probe that failed is tried again after, milliseconds.
    pub retry_ms: u64,
}

impl Default for VulkanOptions {
    fn default() -> Self {
        Self {
            probe: None,
            environment: Vec::new(),
            software: false,
            wanted: true,
            sysfs_root: PathBuf::from("/sys"),
            first_wait_ms: 8_000,
            wait_ms: 500,
            timeout_ms: 30_000,
            rescan_ms: 300_000,
            retry_ms: 60_000,
        }
    }
}

impl VulkanOptions {
    /// Takes what the probe may see out of an environment.
    pub fn environment_of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
        // Overlays and selectors of the desktop have no business in a list of devices.
        let fixed = [("VK_LOADER_LAYERS_DISABLE", "~all~"), ("NODEVICE_SELECT", "1")];
        let fixed = fixed.map(|(name, value)| (name.into(), value.into()));
        let seen = variables.into_iter().filter(|(name, _)| ENVIRONMENT.iter().any(|known| name == known));
        seen.chain(fixed).collect()
    }

    fn program(&self) -> io::Result<PathBuf> {
        match &self.probe {
            Some(path) => Ok(path.clone()),
            None => std::env::current_exe().map(|own| own.with_file_name(report::PROGRAM)),
        }
    }
}

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outage {
    code: FindingCode,
    reason: String,
}

/// The driver.
#[derive(Debug)]
pub struct VulkanGpus {
    options: VulkanOptions,
    running: Option<Running>,
    /// A probe that was killed and has not gone.
    stuck: Option<Running>,
    /// Whether a probe has been waited for at length: those who wait along do so once.
    waited: bool,
    due_at_ms: u64,
    known: Vec<GpuInfo>,
    outage: Option<Outage>,
}

impl VulkanGpus {
    /// A driver that starts the probe when it is first asked.
    pub fn new(options: VulkanOptions) -> Self {
        Self { options, running: None, stuck: None, waited: false, due_at_ms: 0, known: Vec::new(), outage: None }
    }

    /// Starts a probe if one is due, and takes its answer if it is there.
    fn ask(&mut self, now_ms: u64) {
        if self.running.is_none() && now_ms >= self.due_at_ms {
            if self.stuck.as_mut().is_some_and(|stuck| !stuck.reap()) {
                return;
            }
            self.stuck = None;
            match self.start() {
                Ok(running) => self.running = Some(running),
                Err(outage) => return self.failed(outage, now_ms),
            }
        }
        let Some(mut running) = self.running.take() else { return };
        let wait_ms = if self.waited { self.options.wait_ms } else { self.options.first_wait_ms };
        self.waited = true;
        match running.answer(Duration::from_millis(wait_ms)) {
            Ok(None) => self.running = Some(running),
            Ok(Some(ended)) => match read(&ended) {
                Ok(list) => self.listed(&list, now_ms),
                Err(outage) => self.failed(outage, now_ms),
            },
            Err(error) => {
                let code = match error {
                    RunError::Late { .. } => FindingCode::DriverHung,
                    RunError::Loud { .. } | RunError::Io(_) => FindingCode::DriverFailed,
                };
                let reason = format!("{}: {error}", report::PROGRAM);
                if !running.reap() {
                    self.stuck = Some(running);
                }
                self.failed(Outage { code, reason }, now_ms);
            }
        }
    }

    fn start(&self) -> Result<Running, Outage> {
        let timeout_ms = self.options.timeout_ms.to_string();
        // The probe has the same deadline: it ends even if the agent is gone by then.
        let arguments = ["list", "--timeout-ms", timeout_ms.as_str()];
        let environment = &self.options.environment;
        let max = report::DOCUMENT_BYTES_MAX;
        let program = self.options.program();
        let started = program.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()));
        let started =
            started.and_then(|path| Running::start(path, &arguments, environment, self.options.timeout_ms, max));
        started.map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::NotFound => FindingCode::DriverAbsentLibrary,
                _ => FindingCode::DriverFailed,
            };
            let path = program.map_or_else(|_| report::PROGRAM.into(), |path| path.display().to_string());
            Outage { code, reason: format!("{path} cannot be started: {error}") }
        })
    }

    fn listed(&mut self, list: &ListReport, now_ms: u64) {
        let nics = topology::nic_places(&self.options.sysfs_root);
        self.known = identity::gpus(&list.devices, self.options.software);
        for gpu in &mut self.known {
            let Some(address) = &gpu.pci_address else { continue };
            let place = topology::place(&self.options.sysfs_root, address);
            (gpu.numa_node, gpu.nics) = (place.numa_node, topology::nearest(&place, &nics));
        }
        self.outage = None;
        self.due_at_ms = now_ms.saturating_add(self.options.rescan_ms);
    }

    fn failed(&mut self, outage: Outage, now_ms: u64) {
        debug!(reason = outage.reason, "no list of Vulkan devices");
        self.outage = Some(outage);
        self.due_at_ms = now_ms.saturating_add(self.options.retry_ms);
    }

    /// What is known, as bad as the outage makes it.
    fn seen(&self) -> Seen {
        let mut gpus = self.known.clone();
        let Some(Outage { code, reason }) = &self.outage else { return Seen { gpus, findings: Vec::new() } };
        for gpu in &mut gpus {
            merge::at_least(gpu, GpuHealth::Degraded, reason);
        }
        let absent = *code == FindingCode::DriverAbsentLibrary && gpus.is_empty();
        let finding = NodeFinding { code: *code, subject: SUBJECT.to_owned(), detail: reason.clone() };
        let findings = if absent && !self.options.wanted { Vec::new() } else { vec![finding] };
        Seen { gpus, findings }
    }
}

/// The list of a probe that ended.
fn read(ended: &Ended) -> Result<ListReport, Outage> {
    let failed = |reason: String| {
        let words = cited(&ended.words);
        let words = if words.is_empty() { words } else { format!("; it said: {words}") };
        Outage { code: FindingCode::DriverFailed, reason: format!("{} {reason}{words}", report::PROGRAM) }
    };
    if let Some(signal) = child::signal_of(ended.status) {
        return Err(failed(format!("was ended by {signal}: a Vulkan driver crashed")));
    }
    let document = match Document::parse(&ended.output) {
        Ok(document) => document,
        Err(error) => {
            let (status, begin) = (ended.status, cited(&String::from_utf8_lossy(&ended.output)));
            return Err(failed(format!("gave no list ({status}, {error}): {begin:?}")));
        }
    };
    match document.outcome {
        Outcome::List(list) => Ok(list),
        Outcome::Check(_) => Err(failed("gave no list but a check".to_owned())),
        Outcome::Error(error) => {
            let code = match error.code {
                ErrorCode::NoLoader => FindingCode::DriverAbsentLibrary,
                ErrorCode::Timeout => FindingCode::DriverHung,
                ErrorCode::NoRuntime
                | ErrorCode::NotBuilt
                | ErrorCode::NoDevice
                | ErrorCode::WrongDevice
                | ErrorCode::DeviceLost
                | ErrorCode::DriverFailed
                | ErrorCode::RuntimeFailed
                | ErrorCode::Unknown => FindingCode::DriverFailed,
            };
            Err(Outage { code, reason: format!("{}: {error}", report::PROGRAM) })
        }
    }
}

/// One line of it, without control characters.
fn cited(text: &str) -> String {
    let words = text.split(|c: char| c.is_control()).map(str::trim).filter(|line| !line.is_empty());
    words.collect::<Vec<_>>().join("; ").chars().take(CITED_CHARS_MAX).collect()
}

impl GpuDriver for VulkanGpus {
    fn kind(&self) -> GpuDriverKind {
        GpuDriverKind::Vulkan
    }

    fn detect(&mut self, uptime_ms: u64) -> Seen {
        self.ask(uptime_ms);
        self.seen()
    }

    fn measure(&mut self, _sampling: &Sampling) -> Vec<GpuMetrics> {
        Vec::new()
    }
}
