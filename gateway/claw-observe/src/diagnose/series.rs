//! Faults that show in series, not in lines: slowdowns, links, memory, ranks.
//!
//! A GPU is compared with its own past and with its peers, by robust
//! statistics; thresholds are data with sources (`rules/series.toml`). A power
//! cap is normal and never asks for anything.

use std::sync::LazyLock;

use serde::Deserialize;

use super::code::{Action, Code};
use super::reported::Asks;

mod gpu;
mod job;
mod memory;
mod robust;
mod thresholds;
pub mod told;
pub mod window;

pub use robust::median;
pub use thresholds::Thresholds;

/// Bits of NVML's reasons for low clocks.
pub mod bits {
    /// Software power cap: normal.
    pub const POWER_CAP: u64 = 0x04;
    /// Hardware slowdown; says why in the other bits.
    pub const SLOWDOWN: u64 = 0x08;
    /// Software thermal slowdown.
    pub const SW_THERMAL: u64 = 0x20;
    /// Hardware thermal slowdown.
    pub const HW_THERMAL: u64 = 0x40;
    /// The external power path asks for less.
    pub const BRAKE: u64 = 0x80;
}

/// What was measured of one GPU at one time; what is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Seconds, on one clock for all series.
    pub at_s: f64,
    /// Busy, percent.
    pub utilization_percent: f64,
    /// Memory in use by all, MiB.
    pub memory_used_mib: f64,
    /// Memory in use by the job's own process, MiB.
    pub own_memory_mib: Option<f64>,
    /// Power, watts.
    pub power_watts: Option<f64>,
    /// Temperature, degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// Clock of the multiprocessors, MHz.
    pub clock_mhz: Option<f64>,
    /// NVML's reasons for low clocks.
    pub reasons: u64,
    /// PCIe generation of the link.
    pub pcie_generation: Option<u32>,
    /// PCIe lanes of the link.
    pub pcie_width: Option<u32>,
    /// Errors of all `NVLink`s so far.
    pub nvlink_errors: Option<u64>,
    /// How often the node's network port went down so far.
    pub port_downs: Option<u64>,
    /// Corrected memory errors so far.
    pub ecc_corrected: Option<u64>,
    /// A remapping of rows waits for a reset.
    pub remap_pending: bool,
    /// Steps that the job has done so far.
    pub steps: Option<u64>,
    /// The rank's own time in its last step, without waiting for others, seconds.
    pub step_own_s: Option<f64>,
    /// Time in its last step spent waiting for data, seconds.
    pub step_data_s: Option<f64>,
}

/// One GPU over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Which GPU.
    pub gpu: String,
    /// Its node.
    pub node: String,
    /// Its rank in the job, if it has one.
    pub rank: Option<u32>,
    /// Its memory, MiB.
    pub memory_total_mib: f64,
    /// Oldest first.
    pub samples: Vec<Sample>,
}

/// What a series shows, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// The external power path brakes.
    PowerBrake,
    /// Too hot.
    Thermal,
    /// All ranks wait for each other.
    CollectiveHang,
    /// One rank is slower than the others.
    Straggler,
    /// Another process took the memory, and the job died.
    NeighborOutOfMemory,
    /// The PCIe link trained down.
    PcieDowntrained,
    /// `NVLink` errors come again and again.
    NvlinkFlap,
    /// The network port goes down again and again.
    PortFlap,
    /// Memory errors grow, or rows wait for their replacement.
    EccSlope,
    /// Clocks are locked below the peers'.
    ClockLock,
    /// The job waits for its data.
    DataStarvation,
    /// Memory grows until it is used up.
    MemoryLeak,
    /// Memory is held and nothing runs.
    IdleGpu,
    /// The power limit is reached: normal.
    PowerCap,
}

impl Sign {
    /// What to do first.
    pub fn action(self) -> Action {
        match self {
            Self::PowerBrake | Self::Thermal | Self::PcieDowntrained => Action::Service,
            Self::CollectiveHang => Action::RestartApp,
            Self::Straggler => Action::ContactSupport,
            Self::NeighborOutOfMemory | Self::ClockLock | Self::IdleGpu => Action::FixConfig,
            Self::NvlinkFlap | Self::PortFlap => Action::CheckLink,
            Self::EccSlope | Self::PowerCap => Action::Ignore,
            Self::DataStarvation | Self::MemoryLeak => Action::FixApp,
        }
    }
}

/// How sure a sign of a series is: it was seen over a window, and the thresholds are debounced.
const SURE: f64 = 0.8;

impl Sign {
    /// All signs, the gravest first.
    pub const ALL: [Self; 14] = [
        Self::PowerBrake,
        Self::Thermal,
        Self::CollectiveHang,
        Self::Straggler,
        Self::NeighborOutOfMemory,
        Self::PcieDowntrained,
        Self::NvlinkFlap,
        Self::PortFlap,
        Self::EccSlope,
        Self::ClockLock,
        Self::DataStarvation,
        Self::MemoryLeak,
        Self::IdleGpu,
        Self::PowerCap,
    ];

    /// What it is among the codes; none of what is normal.
    pub fn code(self) -> Option<Code> {
        let name = match self {
            Self::PowerBrake => "power_brake",
            Self::Thermal => "thermal_violation",
            Self::CollectiveHang => "collective_hang",
            Self::Straggler => "straggler_rank",
            Self::NeighborOutOfMemory => "gpu_memory_neighbor",
            Self::PcieDowntrained => "pcie_downtrained",
            Self::NvlinkFlap => "nvlink_flap",
            Self::PortFlap => "port_flap",
            Self::EccSlope => "gpu_memory_corrected",
            Self::ClockLock => "clock_locked",
            Self::DataStarvation => "data_starved",
            Self::MemoryLeak => "gpu_memory_leak",
            Self::IdleGpu => "gpu_idle",
            Self::PowerCap => return None,
        };
        Some(Code::Named(name.into()))
    }

    /// What a sighting of it asks for.
    pub fn asks(self) -> Asks {
        Asks { action: self.action(), confidence: SURE, why: "seen over a window of samples, not in one" }
    }
}

/// One sign on one GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub sign: Sign,
    /// On which GPU.
    pub gpu: String,
    /// On which node.
    pub node: String,
    /// Its rank.
    pub rank: Option<u32>,
    /// From when, seconds.
    pub from_s: f64,
    /// Until when, seconds.
    pub to_s: f64,
    /// The numbers it rests on, in words.
    pub excerpt: String,
}

impl Finding {
    fn of(series: &Series, sign: Sign, span: (f64, f64), excerpt: String) -> Self {
        Self {
            sign,
            gpu: series.gpu.clone(),
            node: series.node.clone(),
            rank: series.rank,
            from_s: span.0,
            to_s: span.1,
            excerpt,
        }
    }
}

/// What the series of one job or one node group show, the gravest sign first.
///
/// The series are each other's peers: give those of one kind of GPU under one kind of work.
pub fn analyze(series: &[Series], thresholds: &Thresholds) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, one) in series.iter().enumerate() {
        let peers: Vec<&Series> =
            series.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, peer)| peer).collect();
        found.extend(gpu::brake(one, thresholds));
        found.extend(gpu::thermal(one, thresholds));
        found.extend(gpu::downtrained(one, thresholds));
        found.extend(gpu::flaps(one, &peers, thresholds));
        found.extend(memory::ecc(one, &peers, thresholds));
        found.extend(gpu::clock_lock(one, &peers, thresholds));
        found.extend(memory::neighbor(one, thresholds));
        found.extend(memory::leak(one, thresholds));
        found.extend(gpu::idle(one, thresholds));
        found.extend(gpu::power_cap(one, thresholds));
        found.extend(job::starvation(one, thresholds));
    }
    found.extend(job::hang(series, thresholds));
    found.extend(job::straggler(series, thresholds));
    found.sort_by(|a, b| (a.sign, &a.gpu).cmp(&(b.sign, &b.gpu)));
    found
}

/// The thresholds of this build.
pub fn thresholds() -> &'static Thresholds {
    static BUILT_IN: LazyLock<Thresholds> = LazyLock::new(|| {
        toml::from_str(include_str!("../../rules/series.toml")).expect("the built-in thresholds parse")
    });
    &BUILT_IN
}
