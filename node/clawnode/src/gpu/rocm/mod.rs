//! AMD's GPUs, through what the kernel's amdgpu driver shows in sysfs, and the
//! JSON of `amd-smi` or `rocm-smi` for what it does not show.
//!
//! sysfs is the base: a host without ROCm has it. The tools give marketing names
//! of GPUs that [`models`](super::models) does not know, the version of ROCm and why clocks
//! are low; one that hangs, is missing or prints something else is a finding or
//! nothing, and changes no GPU. Tested with recorded forms, a sysfs tree and
//! fake tools only: untested on hardware.

mod amd_smi;
mod identity;
mod kfd;
mod measure;
mod rocm_smi;
mod serial;
mod sysfs;
#[cfg(test)]
mod tests;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use claw_proto::ids::GpuUuid;
use claw_proto::message::{GpuEvent, GpuEventKind, GpuMetrics};
use claw_proto::topology::{FindingCode, GpuDriver as GpuDriverKind, GpuHealth, NodeFinding};
use rustix::io::Errno;
use tracing::info;

use super::{GpuDriver, Sampling, Seen, merge};
use crate::clock;
use identity::Known;
use sysfs::{Card, Errors};
use tools::Tools;

pub use tools::ToolOptions;

/// Name of this driver in findings.
const SUBJECT: &str = "rocm";

/// How the driver works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocmOptions {
    /// Where sysfs is mounted.
    pub sysfs_root: PathBuf,
    /// How amd-smi and rocm-smi are used.
    pub tools: ToolOptions,
    /// Whether it is worth a finding that the host has no AMD GPU.
    pub wanted: bool,
    /// What the GPUs are is read again after, milliseconds.
    pub rescan_ms: u64,
    /// Counts of errors are read again after, milliseconds: that asks every block of the GPU.
    pub errors_ms: u64,
}

impl RocmOptions {
    /// The options for a normal host.
    pub fn new(sysfs_root: PathBuf, tools: ToolOptions, wanted: bool) -> Self {
        Self { sysfs_root, tools, wanted, rescan_ms: 15_000, errors_ms: 30_000 }
    }
}

/// Something that is wrong with a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    code: FindingCode,
    health: GpuHealth,
    reason: String,
}

/// The driver.
#[derive(Debug)]
pub struct RocmGpus {
    options: RocmOptions,
    tools: Tools,
    known: BTreeMap<String, Known>,
    /// Addresses at the last scan, those that were left out included.
    addresses: BTreeSet<String>,
    scanned_at_ms: Option<u64>,
    errors: BTreeMap<GpuUuid, Errors>,
    errors_at_ms: Option<u64>,
    lost: BTreeSet<GpuUuid>,
    events: Vec<GpuEvent>,
}

impl RocmGpus {
    /// A driver that has not looked yet.
    pub fn new(options: RocmOptions) -> Self {
        let tools = Tools::new(options.tools.clone());
        Self {
            options,
            tools,
            known: BTreeMap::new(),
            addresses: BTreeSet::new(),
            scanned_at_ms: None,
            errors: BTreeMap::new(),
            errors_at_ms: None,
            lost: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    /// Reads what the GPUs are, if that is due or others are there than before.
    fn rescan(&mut self, now_ms: u64) {
        let cards = sysfs::cards(&self.options.sysfs_root);
        let same = cards.keys().eq(&self.addresses);
        let due = self.scanned_at_ms.is_none_or(|at_ms| now_ms >= at_ms.saturating_add(self.options.rescan_ms));
        if same && !due {
            return;
        }
        self.scanned_at_ms = Some(now_ms);
        if !same && !cards.is_empty() {
            info!(n_gpus = cards.len(), "AMD GPUs are there");
            self.tools.start();
        }
        self.addresses = cards.keys().cloned().collect();
        self.known = identity::identify(&self.options.sysfs_root, cards, &self.known, &self.tools.told());
    }

    /// What is wrong with one GPU, the gravest first.
    fn faults_of(&mut self, card: &Card, uuid: &GpuUuid) -> Vec<Fault> {
        let fault = |code, health, reason: String| Fault { code, health, reason };
        let mut faults = Vec::new();
        match alive(card) {
            Alive::Lost(error) => {
                let reason = format!("it does not answer ({error}); it hangs or has fallen off the bus: look at dmesg");
                faults.push(fault(FindingCode::GpuLost, GpuHealth::Failed, reason));
            }
            Alive::Refused(error) => {
                let reason = format!("the driver refuses to ask it ({error}): it is being reset, or the agent may not");
                faults.push(fault(FindingCode::DriverFailed, GpuHealth::Degraded, reason));
            }
            Alive::Yes => {}
        }
        let lost = faults.iter().any(|fault| fault.code == FindingCode::GpuLost);
        if lost && self.lost.insert(uuid.clone()) {
            self.tell(uuid, GpuEventKind::Lost, "it does not answer any more".to_owned());
        } else if !lost {
            self.lost.remove(uuid);
        }
        if let Some(Errors { uncorrected, .. }) = self.errors.get(uuid).filter(|errors| errors.uncorrected > 0) {
            let reason = format!(
                "{uncorrected} errors were not corrected since the driver was loaded (RAS): drain it, then reset it or reboot"
            );
            faults.push(fault(FindingCode::GpuErrorEvent, GpuHealth::Degraded, reason));
        }
        faults
    }

    /// Counts errors, and tells of those that came since the last count.
    fn count_errors(&mut self, now_ms: u64) {
        let due = self.errors_at_ms.is_none_or(|at_ms| now_ms >= at_ms.saturating_add(self.options.errors_ms));
        if !due {
            return;
        }
        self.errors_at_ms = Some(now_ms);
        let readings = self.tools.told().readings;
        let awake = self.known.iter().filter(|(_, known)| !is_asleep(&known.card));
        let counted: Vec<(GpuUuid, Errors)> = awake
            .filter_map(|(address, known)| {
                let of_tool = || {
                    let reading = readings.get(address)?;
                    Some(Errors { corrected: reading.ecc_corrected?, uncorrected: reading.ecc_uncorrected? })
                };
                Some((known.gpu.uuid.clone(), sysfs::errors(&known.card.device).or_else(of_tool)?))
            })
            .collect();
        for (uuid, errors) in counted {
            if let Some(before) = self.errors.insert(uuid.clone(), errors) {
                let new = |now: u64, before: u64| now.checked_sub(before).filter(|n| *n > 0);
                if let Some(n) = new(errors.uncorrected, before.uncorrected) {
                    self.tell(&uuid, GpuEventKind::EccDoubleBit, format!("{n} errors that were not corrected"));
                }
                if let Some(n) = new(errors.corrected, before.corrected) {
                    self.tell(&uuid, GpuEventKind::EccSingleBit, format!("{n} errors that were corrected"));
                }
            }
        }
    }

    fn tell(&mut self, uuid: &GpuUuid, kind: GpuEventKind, detail: String) {
        let at = clock::wall();
        self.events.push(GpuEvent { uuid: uuid.clone(), kind, code: None, detail, at, simulated: false });
    }

    /// What is wrong with the driver as a whole.
    fn findings(&self) -> Vec<NodeFinding> {
        let root = &self.options.sysfs_root;
        let finding = |code, detail| NodeFinding { code, subject: SUBJECT.to_owned(), detail };
        let idle = sysfs::without_driver(root);
        let mut findings = Vec::new();
        if !idle.is_empty() {
            let addresses = idle.join(", ");
            let (code, detail) = if sysfs::is_loaded(root) {
                (FindingCode::DriverFailed, format!("the amdgpu driver did not take {addresses}: look at dmesg"))
            } else {
                let todo = "load it (modprobe amdgpu) or look at dmesg";
                (FindingCode::DriverNotLoaded, format!("the amdgpu driver is not loaded for {addresses}; {todo}"))
            };
            findings.push(finding(code, detail));
        } else if self.known.is_empty() && self.options.wanted {
            let detail = "there is no AMD GPU that the amdgpu driver has".to_owned();
            findings.push(finding(FindingCode::DriverNotLoaded, detail));
        }
        if !self.known.is_empty() {
            findings.extend(self.tools.told().findings);
        }
        findings
    }
}

/// Whether a GPU answers a question that reaches the hardware.
enum Alive {
    Yes,
    Refused(io::Error),
    Lost(io::Error),
}

fn alive(card: &Card) -> Alive {
    // Asking would wake it up.
    if is_asleep(card) {
        return Alive::Yes;
    }
    let hwmon = sysfs::hwmon(&card.device).map(|folder| folder.join("temp1_input"));
    let files = [Some(card.device.join("gpu_busy_percent")), hwmon, Some(card.device.join("mem_info_vram_used"))];
    for file in files.into_iter().flatten() {
        match sysfs::read(&file) {
            Ok(None) => {}
            Ok(Some(_)) => return Alive::Yes,
            Err(error) => {
                let is =
                    |errnos: &[Errno]| errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
                if is(&[Errno::BUSY, Errno::AGAIN, Errno::INTR]) {
                    return Alive::Yes;
                }
                return if is(&[Errno::PERM, Errno::ACCESS]) { Alive::Refused(error) } else { Alive::Lost(error) };
            }
        }
    }
    Alive::Yes
}

/// Whether the kernel has suspended it, since nobody uses it.
fn is_asleep(card: &Card) -> bool {
    sysfs::text(&card.device.join("power/runtime_status")).as_deref() == Some("suspended")
}

impl GpuDriver for RocmGpus {
    fn kind(&self) -> GpuDriverKind {
        GpuDriverKind::Rocm
    }

    fn detect(&mut self, uptime_ms: u64) -> Seen {
        self.rescan(uptime_ms);
        self.count_errors(uptime_ms);
        let mut seen = Seen { gpus: Vec::new(), findings: self.findings() };
        for known in self.known.clone().into_values() {
            let faults = self.faults_of(&known.card, &known.gpu.uuid);
            let uuid = known.gpu.uuid.0.clone();
            let told =
                |fault: &Fault| NodeFinding { code: fault.code, subject: uuid.clone(), detail: fault.reason.clone() };
            seen.findings.extend(faults.iter().map(told));
            for mut one in std::iter::once(known.gpu).chain(known.slices) {
                for fault in &faults {
                    merge::at_least(&mut one, fault.health, &fault.reason);
                }
                seen.gpus.push(one);
            }
        }
        seen
    }

    fn measure(&mut self, sampling: &Sampling) -> Vec<GpuMetrics> {
        let readings = self.tools.told().readings;
        let awake = self.known.iter().filter(|(_, known)| !is_asleep(&known.card));
        let one = |(address, known): (&String, &Known)| {
            let errors = self.errors.get(&known.gpu.uuid).copied();
            measure::measure(&self.options.sysfs_root, known, readings.get(address), errors, &sampling.owner_of)
        };
        awake.filter_map(one).collect()
    }

    fn events(&mut self) -> Vec<GpuEvent> {
        std::mem::take(&mut self.events)
    }
}
