//! Which workload a process belongs to.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use claw_proto::ids::WorkloadId;

use super::OwnerOf;

/// What every runtime sets in the environment of what it starts.
const WORKLOAD_VARIABLE: &[u8] = b"CLAW_WORKLOAD_ID=";
/// Longest environment that is looked through, bytes.
const ENVIRON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Looks a process up by the environment that it was started with, as the
/// kernel shows it below `proc_root`. Only workloads of `known` are believed: a
/// process may have changed its own environment.
pub fn by_environment(proc_root: &Path, known: BTreeSet<WorkloadId>) -> OwnerOf {
    let proc_root = proc_root.to_path_buf();
    Arc::new(move |pid| {
        if known.is_empty() {
            return None;
        }
        let environ = std::fs::read(proc_root.join(pid.to_string()).join("environ")).ok()?;
        let environ = environ.get(..environ.len().min(ENVIRON_BYTES_MAX))?;
        let value = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(WORKLOAD_VARIABLE))?;
        let id: WorkloadId = std::str::from_utf8(value).ok()?.parse().ok()?;
        known.contains(&id).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_workloads_are_believed() {
        let folder = tempfile::tempdir().unwrap();
        let (known, unknown) = (WorkloadId::from_bits(7), WorkloadId::from_bits(8));
        for (pid, workload) in [(10, known.to_string()), (11, unknown.to_string()), (12, "wl_nonsense".to_owned())] {
            let path = folder.path().join(pid.to_string());
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("environ"), format!("A=1\0CLAW_WORKLOAD_ID={workload}\0B=2\0")).unwrap();
        }
        let owner_of = by_environment(folder.path(), BTreeSet::from([known]));
        assert_eq!([10, 11, 12, 13].map(|pid| owner_of(pid)), [Some(known), None, None, None]);
    }
}
