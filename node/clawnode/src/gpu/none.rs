//! A node without GPUs.

use claw_proto::message::GpuMetrics;
use claw_proto::topology::GpuDriver as GpuDriverKind;

use super::{GpuDriver, Sampling, Seen};

/// Sees none.
#[derive(Debug, Clone, Copy)]
pub struct NoGpus;

impl GpuDriver for NoGpus {
    fn kind(&self) -> GpuDriverKind {
        GpuDriverKind::None
    }

    fn detect(&mut self, _uptime_ms: u64) -> Seen {
        Seen::default()
    }

    fn measure(&mut self, _sampling: &Sampling) -> Vec<GpuMetrics> {
        Vec::new()
    }
}
