//! The driver itself: macOS only.

use std::path::Path;

use claw_proto::ids::GpuUuid;
use claw_proto::message::{GpuDetails, GpuMetrics};
use claw_proto::spec::GpuVendor;
use claw_proto::topology::{FindingCode, GpuDriver as GpuDriverKind, GpuInfo, NodeFinding};
use tracing::{debug, info};

use super::super::program::{Limits, ProgramError, Runner};
use super::super::{GpuDriver, Sampling, Seen};
use super::profile::{self, MacGpu};

const SYSTEM_PROFILER: &str = "/usr/sbin/system_profiler";
const SYSCTL: &str = "/usr/sbin/sysctl";
const IOREG: &str = "/usr/sbin/ioreg";
/// Below what the detector waits for an answer.
const LIMITS: Limits = Limits { deadline_ms: 4_000, bytes_max: 4 * 1024 * 1024 };
/// What the GPUs are is read again after, milliseconds: they do not change while the machine runs.
const RESCAN_MS: u64 = 600_000;

/// The driver.
#[derive(Debug, Default)]
pub struct MetalGpus {
    runner: Runner,
    seen: Seen,
    scan_due_ms: u64,
}

impl MetalGpus {
    /// A driver that has not looked yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn say(&mut self, program: &'static str, arguments: &[&str]) -> Result<String, NodeFinding> {
        self.runner.run(Path::new(program), arguments, LIMITS).map(|said| said.output).map_err(|error| {
            let code = match error {
                ProgramError::Hung { .. } | ProgramError::Undead => FindingCode::DriverHung,
                ProgramError::Start(_) | ProgramError::TooMuch { .. } | ProgramError::Read(_) => {
                    FindingCode::DriverFailed
                }
            };
            NodeFinding { code, subject: format!("metal {program}"), detail: error.to_string() }
        })
    }

    fn scan(&mut self) -> Result<Vec<GpuInfo>, NodeFinding> {
        let output = self.say(SYSTEM_PROFILER, &["SPDisplaysDataType", "-json"])?;
        let unknown = |what: &str| NodeFinding {
            code: FindingCode::DriverFailed,
            subject: "metal".to_owned(),
            detail: format!("the output of {what} has an unknown form"),
        };
        let gpus = profile::gpus(&output).ok_or_else(|| unknown("system_profiler"))?;
        let memory = self.say(SYSCTL, &["-n", "hw.memsize"])?;
        let host_mib = profile::host_memory_mib(&memory).ok_or_else(|| unknown("sysctl"))?;
        let platform = self.say(IOREG, &["-rd1", "-c", "IOPlatformExpertDevice"])?;
        let platform = profile::platform_uuid(&platform).ok_or_else(|| unknown("ioreg"))?;
        for gpu in &gpus {
            info!(?gpu, host_mib, "a GPU; memory that is not its own is shared with the host");
        }
        Ok((0..).zip(gpus).map(|(n, gpu)| info_of(n, gpu, host_mib, &platform)).collect())
    }
}

fn info_of(n: u32, gpu: MacGpu, host_mib: u64, platform: &str) -> GpuInfo {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    GpuInfo {
        compute_capability: gpu.family,
        driver_version: Some(format!("Darwin {release}")),
        ..GpuInfo::new(
            GpuUuid(format!("METAL-{platform}-{n}")),
            n,
            gpu.vendor,
            gpu.model,
            gpu.memory_mib.unwrap_or(host_mib),
        )
    }
}

impl GpuDriver for MetalGpus {
    fn kind(&self) -> GpuDriverKind {
        GpuDriverKind::Metal
    }

    fn detect(&mut self, uptime_ms: u64) -> Seen {
        if uptime_ms >= self.scan_due_ms {
            match self.scan() {
                Ok(gpus) => self.seen = Seen { gpus, findings: Vec::new() },
                Err(finding) => self.seen.findings = vec![finding],
            }
            // What failed is tried again sooner, but not at every look.
            let failed = !self.seen.findings.is_empty();
            self.scan_due_ms = uptime_ms.saturating_add(if failed { RESCAN_MS / 10 } else { RESCAN_MS });
        }
        self.seen.clone()
    }

    fn measure(&mut self, _sampling: &Sampling) -> Vec<GpuMetrics> {
        // Which entry of several belongs to which GPU is not told.
        let [gpu] = self.seen.gpus.as_slice() else { return Vec::new() };
        if gpu.vendor != GpuVendor::Apple {
            return Vec::new();
        }
        let (uuid, memory_total_mib) = (gpu.uuid.clone(), gpu.memory_mib);
        let output = match self.say(IOREG, &["-r", "-d", "1", "-w", "0", "-c", "IOAccelerator"]) {
            Ok(output) => output,
            Err(finding) => {
                debug!(?finding, "the GPU cannot be measured");
                return Vec::new();
            }
        };
        let usages = profile::usages(&output);
        let [usage] = usages.as_slice() else { return Vec::new() };
        vec![GpuMetrics {
            uuid,
            utilization_percent: f32::from(usage.utilization_percent),
            memory_used_mib: usage.memory_used_mib,
            memory_total_mib,
            // Not told without root.
            temperature_celsius: 0.0,
            power_watts: 0.0,
            simulated: false,
            details: Some(Box::new(GpuDetails::default())),
        }]
    }
}
