//! The GPUs of a node, behind one interface.
//!
//! A driver lists GPUs and measures them. `sim` and `none` are ordinary drivers
//! chosen by config; what a simulated driver reports says so.

pub mod none;
pub mod sim;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;

use claw_proto::ids::GpuUuid;
use claw_proto::message::GpuMetrics;
use claw_proto::topology::{GpuDriver as GpuDriverKind, GpuInfo};

use none::NoGpus;
use sim::{SimFleet, SimGpus, SimSpecError};

/// One way to see GPUs.
pub trait GpuDriver: Send {
    /// Which driver it is.
    fn kind(&self) -> GpuDriverKind;

    /// The GPUs that are there now, with their health. `uptime_ms` counts from
    /// the start of the agent.
    fn detect(&mut self, uptime_ms: u64) -> Vec<GpuInfo>;

    /// Measures every GPU that answers; `held` are those that a workload holds.
    fn measure(&mut self, uptime_ms: u64, held: &BTreeSet<GpuUuid>) -> Vec<GpuMetrics>;
}

/// Why the configured driver cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuConfigError {
    /// No driver of this name is built.
    #[error("gpu {got:?} is not a driver: use \"none\" or \"sim:<model>x<count>\", such as sim:h100x8")]
    Unknown {
        /// What was given.
        got: String,
    },
    /// The simulated GPUs cannot be made.
    #[error(transparent)]
    Sim(#[from] SimSpecError),
}

/// Picks the driver that the config names, and asks it.
pub struct GpuDetector {
    driver: Box<dyn GpuDriver>,
}

impl std::fmt::Debug for GpuDetector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuDetector").field("driver", &self.driver.kind()).finish()
    }
}

impl GpuDetector {
    /// The driver for the config value `gpu`. UUIDs of simulated GPUs come from
    /// the node's name; their faults from `faults`, if that file exists.
    ///
    /// # Errors
    /// [`GpuConfigError`].
    pub fn new(gpu: &str, node_name: &str, faults: PathBuf) -> Result<Self, GpuConfigError> {
        let driver: Box<dyn GpuDriver> = match gpu.split_once(':') {
            None if gpu == "none" => Box::new(NoGpus),
            Some(("sim", fleet)) => Box::new(SimGpus::new(fleet.parse::<SimFleet>()?, node_name, faults)),
            None | Some(_) => {
                return Err(GpuConfigError::Unknown { got: gpu.to_owned() });
            }
        };
        Ok(Self { driver })
    }

    /// Which driver was picked.
    pub fn kind(&self) -> GpuDriverKind {
        self.driver.kind()
    }

    /// The GPUs that are there now.
    pub fn detect(&mut self, uptime_ms: u64) -> Vec<GpuInfo> {
        self.driver.detect(uptime_ms)
    }

    /// Measures them.
    pub fn measure(&mut self, uptime_ms: u64, held: &BTreeSet<GpuUuid>) -> Vec<GpuMetrics> {
        self.driver.measure(uptime_ms, held)
    }
}
