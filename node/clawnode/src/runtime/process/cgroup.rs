//! Resource limits by control groups, version 2 or 1, where permitted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claw_proto::spec::WorkloadSpec;

use crate::runtime::dmem::{self, MemoryCap, PARENT};

/// CPU accounting period, microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// An emptied group may stay busy for a moment.
const REMOVE_TRIES: u32 = 40;

/// What a workload may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) memory_bytes: Option<u64>,
    pub(super) cpu_quota_us: Option<u64>,
    pub(super) pids_max: u32,
}

impl Limits {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and within range: the specification was validated; a cast saturates"
    )]
    pub(super) fn of(spec: &WorkloadSpec, pids_max: u32) -> Self {
        let scaled = |value: f64, unit: f64| (value * unit).ceil().max(1.0) as u64;
        Self {
            memory_bytes: spec.memory_gib.map(|gib| scaled(gib, 1024.0 * 1024.0 * 1024.0)),
            cpu_quota_us: spec.cpu_cores.map(|cores| scaled(cores, CPU_PERIOD_US as f64)),
            pids_max,
        }
    }

    fn v2(self) -> Vec<(&'static str, String)> {
        let mut files = vec![("pids.max", self.pids_max.to_string())];
        files.extend(self.memory_bytes.map(|bytes| ("memory.max", bytes.to_string())));
        // Without swap the limit is what the caller asked for; the file may be absent.
        files.extend(self.cpu_quota_us.map(|quota| ("cpu.max", format!("{quota} {CPU_PERIOD_US}"))));
        files
    }

    fn v1(self) -> Vec<(&'static str, &'static str, String)> {
        let mut files = vec![("pids", "pids.max", self.pids_max.to_string())];
        files.extend(self.memory_bytes.map(|bytes| ("memory", "memory.limit_in_bytes", bytes.to_string())));
        if let Some(quota) = self.cpu_quota_us {
            files.push(("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string()));
            files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
        }
        files
    }
}

/// The groups of one workload.
#[derive(Debug)]
pub(super) struct Cgroup {
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// Creates the groups of `name` with their limits below the hierarchy at
    /// `root` (normally `/sys/fs/cgroup`).
    pub(super) fn create(root: &Path, name: &str, limits: Limits) -> io::Result<Self> {
        if root.join("cgroup.controllers").exists() {
            let group = Self::new_v2(root, name)?;
            if let Err(error) = group.limit_v2(root, limits) {
                group.remove();
                return Err(error);
            }
            Ok(group)
        } else {
            Self::create_v1(root, name, limits)
        }
    }

    /// The same, with a limit of a GPU's memory, which is known to version 2 alone and has to be there; what is
    /// missing of the others is told.
    pub(super) fn create_with_gpu(
        root: &Path,
        name: &str,
        (limits, gpu): (Limits, &MemoryCap),
    ) -> io::Result<(Self, Option<io::Error>)> {
        if !root.join("cgroup.controllers").exists() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "memory of GPUs is limited by version 2 alone"));
        }
        let group = Self::new_v2(root, name)?;
        for folder in &group.folders {
            if let Err(error) = dmem::apply(root, folder, gpu) {
                group.remove();
                return Err(error);
            }
        }
        let missing = group.limit_v2(root, limits).err();
        Ok((group, missing))
    }

    fn new_v2(root: &Path, name: &str) -> io::Result<Self> {
        let folder = root.join(PARENT).join(name);
        fs::create_dir_all(&folder)?;
        Ok(Self { folders: vec![folder] })
    }

    fn limit_v2(&self, root: &Path, limits: Limits) -> io::Result<()> {
        for folder in [root, &root.join(PARENT)] {
            fs::write(folder.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
        }
        for folder in &self.folders {
            for (file, value) in limits.v2() {
                fs::write(folder.join(file), value).map_err(|error| named(error, file))?;
            }
        }
        Ok(())
    }

    fn create_v1(root: &Path, name: &str, limits: Limits) -> io::Result<Self> {
        let mut group = Self { folders: Vec::new() };
        for (controller, file, value) in limits.v1() {
            let folder = root.join(controller).join(PARENT).join(name);
            let made = if root.join(controller).join("cgroup.procs").exists() {
                fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(file), value))
            } else {
                Err(io::Error::from(io::ErrorKind::NotFound))
            };
            if !group.folders.contains(&folder) {
                group.folders.push(folder);
            }
            if let Err(error) = made {
                group.remove();
                return Err(named(error, file));
            }
        }
        Ok(group)
    }

    /// Open files through which a new process puts itself into the groups.
    pub(super) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |folder: &PathBuf| {
            let file: File = OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
            Ok(OwnedFd::from(file))
        };
        self.folders.iter().map(open).collect()
    }

    /// Whether the kernel killed a member for want of memory.
    pub(super) fn was_out_of_memory(&self) -> bool {
        let count = |file: &str| {
            let texts = self.folders.iter().filter_map(|folder| fs::read_to_string(folder.join(file)).ok());
            let lines: Vec<u64> = texts
                .flat_map(|text| {
                    text.lines()
                        .filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
                        .collect::<Vec<_>>()
                })
                .collect();
            lines.iter().sum::<u64>()
        };
        count("memory.events") + count("memory.oom_control") > 0
    }

    /// Processes in the groups.
    pub(super) fn members(&self) -> Vec<i32> {
        let texts = self.folders.iter().filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
        let mut pids: Vec<i32> =
            texts.flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Removes the groups once they are empty.
    pub(super) fn remove(&self) {
        for folder in &self.folders {
            for _ in 0..REMOVE_TRIES {
                match fs::remove_dir(folder) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(_) => pause(Duration::from_millis(5)),
                }
            }
        }
    }
}

fn named(error: io::Error, file: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{file}: {error}"))
}

/// Removing a group is retried within a fifth of a second, by a supervisor that has nothing else to do.
fn pause(duration: Duration) {
    std::thread::park_timeout(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_written_as_the_kernel_reads_them() {
        let spec = WorkloadSpec { memory_gib: Some(0.5), cpu_cores: Some(1.5), ..WorkloadSpec::default() };
        let limits = Limits::of(&spec, 100);
        let v2: Vec<String> = limits.v2().iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(v2.join(" "), "pids.max=100 memory.max=536870912 cpu.max=150000 100000");
        let v1: Vec<String> = limits.v1().iter().map(|(_, file, value)| format!("{file}={value}")).collect();
        assert_eq!(
            v1.join(" "),
            "pids.max=100 memory.limit_in_bytes=536870912 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000"
        );
    }

    #[test]
    fn a_version_2_tree_gets_its_limits() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        let limits = Limits { memory_bytes: Some(4096), cpu_quota_us: None, pids_max: 7 };
        let group = Cgroup::create(root.path(), "wl.1", limits).unwrap();
        let folder = root.path().join("clawnode/wl.1");
        assert_eq!(fs::read_to_string(folder.join("memory.max")).unwrap(), "4096");
        assert!(!group.was_out_of_memory());
        fs::write(folder.join("memory.events"), "oom 1\noom_kill 2\n").unwrap();
        assert!(group.was_out_of_memory());
    }

    #[test]
    fn a_limit_of_a_gpu_has_to_be_there_and_the_others_are_told() {
        let root = tempfile::tempdir().unwrap();
        let limits = Limits { memory_bytes: Some(4096), cpu_quota_us: None, pids_max: 7 };
        let cap = MemoryCap { region: "drm/0000:08:00.0/vram".into(), bytes: 8192, must: true };
        let of_v1 = Cgroup::create_with_gpu(root.path(), "wl.1", (limits, &cap)).unwrap_err();
        assert_eq!(of_v1.kind(), io::ErrorKind::Unsupported);
        fs::write(root.path().join("cgroup.controllers"), "cpu memory pids dmem").unwrap();
        let (_, missing) = Cgroup::create_with_gpu(root.path(), "wl.1", (limits, &cap)).unwrap();
        assert!(missing.is_none());
        let wrote = |path: &str| fs::read_to_string(root.path().join("clawnode").join(path)).unwrap();
        assert_eq!(
            (wrote("wl.1/dmem.max").as_str(), wrote("wl.1/pids.max").as_str()),
            ("drm/0000:08:00.0/vram 8192", "7")
        );
        // The file of another limit cannot be written, and that of the GPU's memory can.
        fs::create_dir_all(root.path().join("clawnode/wl.2/pids.max")).unwrap();
        let (_, missing) = Cgroup::create_with_gpu(root.path(), "wl.2", (limits, &cap)).unwrap();
        assert!(missing.unwrap().to_string().starts_with("pids.max"));
        fs::create_dir_all(root.path().join("clawnode/wl.3/dmem.max")).unwrap();
        let untaken = Cgroup::create_with_gpu(root.path(), "wl.3", (limits, &cap)).unwrap_err();
        assert!(untaken.to_string().starts_with("dmem.max"), "{untaken}");
    }
}
