//! Simulated GPUs: a fleet such as `h100x8`, with scripted faults.
//!
//! The faults file is read again whenever it changes, so a script or a test
//! makes a GPU fail while the node runs:
//!
//! ```toml
//! [[fault]]
//! at_s = 10            # seconds after the agent started
//! gpu = 3              # index
//! kind = "lost"        # "lost", "degraded", "xid", "hot" or "power_brake"
//! xid = 79             # for "xid"
//! until_s = 60         # healthy again after; without it the fault stays
//! ```
//!
//! A lost GPU and an Xid are also told as events when they begin. How an Xid
//! counts is told by [`super::xid`], as for real ones; `hot` and `power_brake`
//! only slow a GPU down.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use claw_proto::ids::GpuUuid;
use claw_proto::limits::GPUS_PER_NODE_MAX;
use claw_proto::message::{GpuDetails, GpuEvent, GpuEventKind, GpuMetrics, RemappedRows, ThrottleReason};
use claw_proto::spec::GpuVendor;
use claw_proto::topology::{GpuDriver as GpuDriverKind, GpuHealth, GpuInfo, NicInfo};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::xid::{self, Severity};
use super::{GpuDriver, Sampling, Seen};
use crate::clock;

/// Clocks of a simulated GPU, MHz: at work, idle, and of its memory.
const SM_CLOCK_BUSY_MHZ: u32 = 1_980;
const SM_CLOCK_IDLE_MHZ: u32 = 345;
const MEMORY_CLOCK_MHZ: u32 = 2_619;
/// Models that draw so much when idle have PCIe 5.
const PCIE_5_IDLE_WATTS: f32 = 70.0;
/// Corrected memory errors that an Xid 92 stands for.
const ECC_CORRECTED_OF_XID_92: u64 = 1_000;

/// How the GPUs of a model are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// A full mesh of so many GPUs.
    Island(u32),
    /// Nothing but PCIe.
    None,
}

/// What is simulated of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Model {
    /// As in the config, lower case.
    key: &'static str,
    name: &'static str,
    vendor: GpuVendor,
    memory_mib: u64,
    links: Links,
    idle_watts: f32,
    busy_watts: f32,
}

const fn nvidia(key: &'static str, name: &'static str, memory_mib: u64, links: Links, watts: (f32, f32)) -> Model {
    Model { key, name, vendor: GpuVendor::Nvidia, memory_mib, links, idle_watts: watts.0, busy_watts: watts.1 }
}

const MODELS: &[Model] = &[
    nvidia("h100", "H100", 81_559, Links::Island(8), (70.0, 640.0)),
    nvidia("h200", "H200", 143_771, Links::Island(8), (75.0, 650.0)),
    nvidia("b200", "B200", 183_359, Links::Island(8), (140.0, 930.0)),
    nvidia("gb200", "GB200", 189_471, Links::Island(4), (150.0, 1_100.0)),
    nvidia("a100", "A100", 40_960, Links::Island(8), (55.0, 370.0)),
    nvidia("a100-80g", "A100", 81_920, Links::Island(8), (60.0, 380.0)),
    nvidia("v100", "V100", 32_768, Links::Island(8), (40.0, 270.0)),
    nvidia("l40s", "L40S", 46_068, Links::None, (35.0, 320.0)),
    nvidia("l4", "L4", 23_034, Links::None, (16.0, 70.0)),
    nvidia("a10g", "A10G", 23_028, Links::None, (20.0, 140.0)),
    nvidia("t4", "T4", 15_360, Links::None, (10.0, 68.0)),
    nvidia("rtx4090", "RTX4090", 24_564, Links::None, (22.0, 420.0)),
    nvidia("rtx3090", "RTX3090", 24_576, Links::Island(2), (25.0, 340.0)),
    Model {
        key: "mi300x",
        name: "MI300X",
        vendor: GpuVendor::Amd,
        memory_mib: 196_592,
        links: Links::Island(8),
        idle_watts: 140.0,
        busy_watts: 720.0,
    },
    Model {
        key: "mi250",
        name: "MI250",
        vendor: GpuVendor::Amd,
        memory_mib: 131_072,
        links: Links::Island(4),
        idle_watts: 90.0,
        busy_watts: 500.0,
    },
];

/// Why a text does not name simulated GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimSpecError {
    /// The model is not simulated.
    #[error("no simulated model {got:?}; there are {known}")]
    Model {
        /// What was given.
        got: String,
        /// What there is.
        known: String,
    },
    /// The count is no number from 1 to the most that a node may have.
    #[error("{got:?} is no <model>x<count> with a count from 1 to {GPUS_PER_NODE_MAX}")]
    Count {
        /// What was given.
        got: String,
    },
}

/// Simulated GPUs of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimFleet {
    model: Model,
    count: u32,
}

impl FromStr for SimFleet {
    type Err = SimSpecError;

    /// Reads `<model>x<count>`.
    fn from_str(text: &str) -> Result<Self, SimSpecError> {
        let wrong = || SimSpecError::Count { got: text.to_owned() };
        let (key, count) = text.rsplit_once('x').ok_or_else(wrong)?;
        let count: u32 = count.parse().map_err(|_| wrong())?;
        if count == 0 || count as usize > GPUS_PER_NODE_MAX {
            return Err(wrong());
        }
        let known = || MODELS.iter().map(|model| model.key).collect::<Vec<_>>().join(", ");
        let model = MODELS.iter().find(|model| model.key == key.to_lowercase());
        let model = *model.ok_or_else(|| SimSpecError::Model { got: key.to_owned(), known: known() })?;
        Ok(Self { model, count })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FaultKind {
    Lost,
    Degraded,
    Xid,
    Hot,
    PowerBrake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    at_s: u64,
    gpu: u32,
    kind: FaultKind,
    xid: Option<u32>,
    until_s: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsFile {
    #[serde(default)]
    fault: Vec<Fault>,
}

/// The driver.
#[derive(Debug)]
pub struct SimGpus {
    gpus: Vec<GpuInfo>,
    model: Model,
    faults_path: PathBuf,
    faults_read_at: Option<SystemTime>,
    faults: Vec<Fault>,
    /// Faults that were told as events.
    told: BTreeSet<Fault>,
    events: Vec<GpuEvent>,
}

impl SimGpus {
    /// A fleet whose UUIDs follow from the node's name and the index.
    pub fn new(fleet: SimFleet, node_name: &str, faults_path: PathBuf) -> Self {
        let gpus = (0..fleet.count).map(|index| info(&fleet, node_name, index)).collect();
        Self {
            gpus,
            model: fleet.model,
            faults_path,
            faults_read_at: None,
            faults: Vec::new(),
            told: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    /// Reads the faults again if the file changed; a broken one changes nothing.
    fn refresh_faults(&mut self) {
        let changed_at = std::fs::metadata(&self.faults_path).and_then(|metadata| metadata.modified()).ok();
        if changed_at == self.faults_read_at {
            return;
        }
        self.faults_read_at = changed_at;
        if changed_at.is_none() {
            self.faults.clear();
            return;
        }
        let read = std::fs::read_to_string(&self.faults_path).map_err(|error| error.to_string());
        match read.and_then(|text| toml::from_str::<FaultsFile>(&text).map_err(|error| error.to_string())) {
            Ok(file) => {
                self.faults = file.fault;
                self.told.retain(|told| self.faults.contains(told));
            }
            Err(error) => {
                warn!(%error, path = %self.faults_path.display(), "the faults file could not be read");
            }
        }
    }

    /// The worst fault of a GPU that is in force.
    fn health(&self, index: u32, uptime_ms: u64) -> (GpuHealth, Option<String>) {
        let judged = self.in_force(index, uptime_ms).filter_map(judge);
        judged.max_by_key(|(health, _)| *health).map_or((GpuHealth::Healthy, None), |(health, why)| (health, Some(why)))
    }

    fn in_force(&self, index: u32, uptime_ms: u64) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(move |fault| fault.gpu == index && fault.is_in_force(uptime_ms))
    }

    /// Tells what begins now.
    fn tell(&mut self, uptime_ms: u64) {
        for fault in self.faults.iter().filter(|fault| fault.is_in_force(uptime_ms)) {
            let (kind, code, detail) = match (fault.kind, fault.xid) {
                (FaultKind::Lost, _) => (GpuEventKind::Lost, None, "simulated: gpu is lost".to_owned()),
                (FaultKind::Xid, Some(code)) => {
                    (GpuEventKind::Xid, Some(code), format!("simulated: {}", xid::judge(code).meaning))
                }
                (FaultKind::Xid, None) | (FaultKind::Degraded | FaultKind::Hot | FaultKind::PowerBrake, _) => continue,
            };
            let Some(gpu) = self.gpus.iter().find(|gpu| gpu.index == fault.gpu) else { continue };
            if self.told.insert(*fault) {
                let (uuid, at) = (gpu.uuid.clone(), clock::wall());
                self.events.push(GpuEvent { uuid, kind, code, detail, at, simulated: true });
            }
        }
    }

    /// Why it is slower than it could be.
    fn slowed(&self, index: u32, uptime_ms: u64) -> Vec<ThrottleReason> {
        let mut reasons = BTreeSet::new();
        for fault in self.in_force(index, uptime_ms) {
            match fault.kind {
                FaultKind::Hot => reasons.extend([ThrottleReason::HwSlowdown, ThrottleReason::HwThermal]),
                FaultKind::PowerBrake => reasons.extend([ThrottleReason::HwSlowdown, ThrottleReason::HwPowerBrake]),
                FaultKind::Lost | FaultKind::Degraded | FaultKind::Xid => {}
            }
        }
        reasons.into_iter().collect()
    }

    /// What a driver would tell beyond load, memory, temperature and power.
    fn details(&self, gpu: &GpuInfo, uptime_ms: u64, busy: bool, slowed: &[ThrottleReason]) -> GpuDetails {
        let xids: Vec<u32> = self.in_force(gpu.index, uptime_ms).filter_map(|fault| fault.xid).collect();
        let count = |codes: &[u32]| xids.iter().filter(|code| codes.contains(code)).count() as u64;
        let mut throttle_reasons = slowed.to_vec();
        if !busy {
            throttle_reasons.push(ThrottleReason::GpuIdle);
        }
        let sm_clock_mhz = match (busy, slowed.is_empty()) {
            (false, _) => SM_CLOCK_IDLE_MHZ,
            (true, true) => SM_CLOCK_BUSY_MHZ,
            (true, false) => SM_CLOCK_BUSY_MHZ / 2,
        };
        let uncorrected = count(&[48, 94, 95, 140]);
        GpuDetails {
            memory_utilization_percent: Some(if busy { 40.0 } else { 0.0 }),
            sm_clock_mhz: Some(sm_clock_mhz),
            memory_clock_mhz: Some(MEMORY_CLOCK_MHZ),
            power_limit_watts: Some(self.model.busy_watts * 1.1),
            fan_percent: None,
            throttle_reasons,
            ecc_corrected_total: Some(count(&[92]) * ECC_CORRECTED_OF_XID_92),
            ecc_uncorrected_total: Some(uncorrected),
            remapped_rows: (gpu.vendor == GpuVendor::Nvidia).then(|| RemappedRows {
                correctable: 0,
                uncorrectable: u32::try_from(count(&[63])).unwrap_or(u32::MAX),
                pending: count(&[63]) > 0,
                failed: count(&[64]) > 0,
            }),
            pcie_generation: Some(if self.model.idle_watts >= PCIE_5_IDLE_WATTS { 5 } else { 4 }),
            pcie_width: Some(16),
            pcie_replays: Some(0),
            nvlink_errors_total: gpu.nvlink_island.map(|_| count(&[74])),
            processes: Vec::new(),
        }
    }
}

impl Fault {
    fn is_in_force(&self, uptime_ms: u64) -> bool {
        let began = self.at_s.saturating_mul(1_000) <= uptime_ms;
        let over = self.until_s.is_some_and(|until_s| until_s.saturating_mul(1_000) <= uptime_ms);
        began && !over
    }
}

fn judge(fault: &Fault) -> Option<(GpuHealth, String)> {
    match (fault.kind, fault.xid) {
        (FaultKind::Lost, _) => Some((GpuHealth::Failed, "simulated: gpu is lost".to_owned())),
        (FaultKind::Degraded, _) => Some((GpuHealth::Degraded, "simulated: degraded".to_owned())),
        (FaultKind::Xid, None) => Some((GpuHealth::Degraded, "simulated: xid without a number".to_owned())),
        (FaultKind::Xid, Some(code)) => match xid::judge(code).severity {
            Severity::Noted => None,
            severity @ (Severity::Degraded | Severity::Failed) => {
                Some((severity.health(), format!("simulated: xid {code}")))
            }
        },
        (FaultKind::Hot | FaultKind::PowerBrake, _) => None,
    }
}

fn info(fleet: &SimFleet, node_name: &str, index: u32) -> GpuInfo {
    let per_socket = fleet.count.div_ceil(2).max(1);
    let island = match fleet.model.links {
        // A GPU alone in its island is connected to nobody.
        Links::Island(size) if (fleet.count - index / size * size).min(size) > 1 => Some(index / size),
        Links::Island(_) | Links::None => None,
    };
    GpuInfo {
        pci_address: Some(format!("0000:{:02x}:00.0", 0x10 + index % 0xe0)),
        nvlink_island: island,
        numa_node: Some(if fleet.count > 1 { index / per_socket } else { 0 }),
        nics: island.iter().map(|_| nic_name(index)).collect(),
        ..GpuInfo::new(uuid(node_name, index), index, fleet.model.vendor, fleet.model.name, fleet.model.memory_mib)
    }
}

fn nic_name(index: u32) -> String {
    format!("sim-rdma{index}")
}

/// The network interfaces that simulated GPUs say are near them: one for each GPU with NVLink, as in the machines
/// that such GPUs are sold in.
pub fn nics(gpus: &[GpuInfo]) -> impl Iterator<Item = NicInfo> {
    let of_gpu = |gpu: &GpuInfo| {
        gpu.nics.iter().any(|nic| *nic == nic_name(gpu.index)).then(|| NicInfo {
            name: nic_name(gpu.index),
            numa_node: gpu.numa_node,
            pci_address: Some(format!("0000:{:02x}:00.1", 0x10 + gpu.index % 0xe0)),
            speed_mbps: Some(400_000),
            rdma: true,
        })
    };
    gpus.iter().filter_map(of_gpu)
}

/// `GPU-51d…` with the shape of a real one, from the node's name and the index.
fn uuid(node_name: &str, index: u32) -> GpuUuid {
    let digest = Sha256::digest(format!("clawnode sim gpu {node_name} {index}"));
    let mut text = String::from("GPU-");
    for (n, byte) in digest.iter().take(16).enumerate() {
        if [4, 6, 8, 10].contains(&n) {
            text.push('-');
        }
        if write!(text, "{byte:02x}").is_err() {
            break;
        }
    }
    GpuUuid(text)
}

/// A wave between 0 and 1 that differs per GPU, so that charts look alive and
/// the same instant gives the same number.
fn wave(uptime_ms: u64, index: u32) -> f32 {
    let phase = (uptime_ms / 1_000 + u64::from(index) * 7) % 60;
    let up = if phase < 30 { phase } else { 60 - phase };
    up as f32 / 30.0
}

impl GpuDriver for SimGpus {
    fn kind(&self) -> GpuDriverKind {
        GpuDriverKind::Sim
    }

    fn detect(&mut self, uptime_ms: u64) -> Seen {
        self.refresh_faults();
        self.tell(uptime_ms);
        let state = |gpu: &GpuInfo| {
            let (health, health_reason) = self.health(gpu.index, uptime_ms);
            GpuInfo { health, health_reason, ..gpu.clone() }
        };
        Seen { gpus: self.gpus.iter().map(state).collect(), findings: Vec::new() }
    }

    fn measure(&mut self, sampling: &Sampling) -> Vec<GpuMetrics> {
        let Sampling { uptime_ms, held, .. } = sampling;
        let uptime_ms = *uptime_ms;
        self.refresh_faults();
        let answers = self.gpus.iter().filter(|gpu| self.health(gpu.index, uptime_ms).0 != GpuHealth::Failed);
        let measure = |gpu: &GpuInfo| {
            let busy = held.contains(&gpu.uuid);
            let slowed = self.slowed(gpu.index, uptime_ms);
            let load = if busy { 0.8 + 0.2 * wave(uptime_ms, gpu.index) } else { 0.0 };
            let Model { idle_watts, busy_watts, .. } = self.model;
            GpuMetrics {
                uuid: gpu.uuid.clone(),
                utilization_percent: load * 100.0,
                memory_used_mib: if busy { gpu.memory_mib * 85 / 100 } else { gpu.memory_mib / 128 },
                memory_total_mib: gpu.memory_mib,
                temperature_celsius: if slowed.contains(&ThrottleReason::HwThermal) {
                    93.0
                } else {
                    32.0 + 40.0 * load
                },
                power_watts: idle_watts + (busy_watts - idle_watts) * load * if slowed.is_empty() { 1.0 } else { 0.5 },
                simulated: true,
                details: Some(Box::new(self.details(gpu, uptime_ms, busy, &slowed))),
            }
        };
        answers.map(measure).collect()
    }

    fn events(&mut self) -> Vec<GpuEvent> {
        std::mem::take(&mut self.events)
    }
}
