//! A node without GPUs.

use std::collections::BTreeSet;

use claw_proto::ids::GpuUuid;
use claw_proto::message::GpuMetrics;
use claw_proto::topology::{GpuDriver as GpuDriverKind, GpuInfo};

use super::GpuDriver;

/// Sees none.
#[derive(Debug, Clone, Copy)]
pub struct NoGpus;

impl GpuDriver for NoGpus {
    fn kind(&self) -> GpuDriverKind {
        GpuDriverKind::None
    }

    fn detect(&mut self, _uptime_ms: u64) -> Vec<GpuInfo> {
        Vec::new()
    }

    fn measure(&mut self, _uptime_ms: u64, _held: &BTreeSet<GpuUuid>) -> Vec<GpuMetrics> {
        Vec::new()
    }
}
