//! What the host itself is doing.

use std::path::{Path, PathBuf};

use claw_proto::message::SystemMetrics;
use sysinfo::{CpuRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

const MIB: u64 = 1024 * 1024;

/// The host cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// The library does not know this system.
    #[error("host metrics are not available: {0}")]
    Unsupported(sysinfo::Error),
}

/// Measures the host.
#[derive(Debug)]
pub struct Sampler {
    system: System,
    disks: Disks,
    folder: PathBuf,
}

/// What the host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Host name.
    pub hostname: String,
    /// Operating system and version.
    pub os: String,
    /// CPU, thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// The disk that holds the data folder, MiB.
    pub disk_mib: u64,
}

impl Sampler {
    /// A sampler; the disk that it measures is the one that holds `folder`.
    ///
    /// # Errors
    /// [`SamplerError`] on a system that cannot be measured.
    pub fn new(folder: &Path) -> Result<Self, SamplerError> {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let system = System::new_with_specifics(what).map_err(SamplerError::Unsupported)?;
        let disks = Disks::new_with_refreshed_list().map_err(SamplerError::Unsupported)?;
        Ok(Self { system, disks, folder })
    }

    /// What does not change.
    pub fn facts(&self) -> HostFacts {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        HostFacts {
            hostname: System::host_name().unwrap_or_default(),
            os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            cpu_millis: cpus * 1_000,
            memory_mib: self.system.total_memory() / MIB,
            disk_mib: self.disk_mib().1,
        }
    }

    /// Measures now. CPU load is that since the previous measurement.
    pub fn measure(&mut self) -> SystemMetrics {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.disks.refresh(false);
        let (disk_used_mib, disk_total_mib) = self.disk_mib();
        #[expect(clippy::cast_possible_truncation, reason = "a load average needs no more digits")]
        let load_average_1m = System::load_average().map_or(0.0, |load| load.one as f32);
        SystemMetrics {
            cpu_percent: self.system.global_cpu_usage(),
            memory_used_mib: self.system.used_memory() / MIB,
            memory_total_mib: self.system.total_memory() / MIB,
            disk_used_mib,
            disk_total_mib,
            load_average_1m,
        }
    }

    /// Used and total space of the disk with the longest mount point above the folder.
    fn disk_mib(&self) -> (u64, u64) {
        let above = self.disks.iter().filter(|disk| self.folder.starts_with(disk.mount_point()));
        above.max_by_key(|disk| disk.mount_point().as_os_str().len()).map_or((0, 0), |disk| {
            (disk.total_space().saturating_sub(disk.available_space()) / MIB, disk.total_space() / MIB)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_something_and_uses_some_of_it() {
        let mut sampler = Sampler::new(&std::env::temp_dir()).unwrap();
        let facts = sampler.facts();
        assert!(facts.cpu_millis >= 1_000 && facts.memory_mib > 100 && !facts.hostname.is_empty());
        let metrics = sampler.measure();
        assert_eq!(metrics.memory_total_mib, facts.memory_mib);
        assert!((1..metrics.memory_total_mib).contains(&metrics.memory_used_mib));
        assert_eq!(metrics.disk_total_mib, facts.disk_mib);
    }
}
