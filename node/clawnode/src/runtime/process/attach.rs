//! What an agent finds when it starts: living supervisors, written ends, and
//! the remains of what was killed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause};
use claw_proto::spec::RuntimeKind;
use tracing::warn;

use super::ProcessOptions;
use super::proc_table;
use crate::clock;
use crate::files::{Durability, read_json, replace_json};
use crate::node::{Found, FoundWorkload};
use crate::runtime::Key;
use crate::runtime::execution_log::{self, ExecutionEntry};
use crate::runtime::folder::{ExitFile, Folder, LeaseFile, ShimFile, SpecFile, exit_of};

/// A living supervisor that an earlier agent started.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) options: ProcessOptions,
    pub(super) folder: Folder,
    pub(super) workload: Arc<DesiredWorkload>,
}

impl Attached {
    pub(super) fn key(&self) -> Key {
        (self.workload.workload_id, self.workload.attempt)
    }
}

/// Looks through all folders; returns what was found and which of it lives.
pub(super) fn recover(options: &ProcessOptions, known: &[Arc<DesiredWorkload>]) -> (Vec<FoundWorkload>, Vec<Attached>) {
    let mut found = Vec::new();
    for folder in folders(&options.workloads) {
        match read_json::<SpecFile>(&folder.spec()) {
            Ok(Some(spec)) if spec.workload.runtime == RuntimeKind::Process => {
                found.push(judge(options, &folder, Arc::new(spec.workload)));
            }
            Ok(_) => {}
            Err(error) => warn!(%error, folder = %folder.root().display(), "an attempt's folder could not be read"),
        }
    }
    let seen: BTreeSet<Key> = found.iter().map(|one| (one.workload.workload_id, one.workload.attempt)).collect();
    for workload in known {
        let key = (workload.workload_id, workload.attempt);
        if !seen.contains(&key) {
            // The specification may be unreadable; lock and exit status still tell.
            found.push(judge(options, &Folder::of(&options.workloads, key), Arc::clone(workload)));
        }
    }
    let is_live = |one: &&FoundWorkload| matches!(one.found, Found::Live { .. });
    let attach = |one: &FoundWorkload| Attached {
        options: options.clone(),
        folder: Folder::of(&options.workloads, (one.workload.workload_id, one.workload.attempt)),
        workload: Arc::clone(&one.workload),
    };
    let live = found.iter().filter(is_live).map(attach).collect();
    (found, live)
}

fn folders(workloads: &Path) -> Vec<Folder> {
    match fs::read_dir(workloads) {
        Ok(entries) => entries.filter_map(|entry| Some(Folder::at(entry.ok()?.path()))).collect(),
        Err(error) => {
            warn!(%error, "the folder of the attempts could not be read");
            Vec::new()
        }
    }
}

/// What became of an attempt. If that cannot be found out it counts as living:
/// a wrong "over" could start a second copy, a wrong "lives" only waits.
fn judge(options: &ProcessOptions, folder: &Folder, workload: Arc<DesiredWorkload>) -> FoundWorkload {
    let key = (workload.workload_id, workload.attempt);
    let found = look_at(options, folder, key).unwrap_or_else(|error| {
        warn!(%error, folder = %folder.root().display(), "whether an attempt lives is not known yet");
        Found::Live { state: NodeWorkloadState::Starting, lease: None }
    });
    FoundWorkload { workload, found }
}

fn look_at(options: &ProcessOptions, folder: &Folder, key: Key) -> io::Result<Found> {
    if !folder.root().try_exists()? {
        return Ok(Found::NeverStarted);
    }
    let Some(_lock) = folder.try_lock()? else {
        let is_running = folder.started().try_exists()?;
        let state = if is_running { NodeWorkloadState::Running } else { NodeWorkloadState::Starting };
        let lease = read_json::<LeaseFile>(&folder.lease())?.flatten();
        return Ok(Found::Live { state, lease });
    };
    if let Some(exit) = read_json::<ExitFile>(&folder.exit())? {
        return Ok(Found::Ended(exit.into()));
    }
    if !folder.attempted().try_exists()? {
        return Ok(Found::NeverStarted);
    }
    Ok(Found::Ended(bury(options, folder, key)?.into()))
}

/// The supervisor is gone without a word: whatever it left is killed, and the
/// end is written down as lost.
pub(super) fn bury(options: &ProcessOptions, folder: &Folder, key: Key) -> io::Result<ExitFile> {
    if let Some(dead) = read_json::<ShimFile>(&folder.shim())?
        && dead.boot_id == clock::boot_id()
    {
        let rest = proc_table::session_members(dead.process);
        if !rest.is_empty() {
            warn!(workload_id = %key.0, attempt = key.1.0, n = rest.len(), "killing what a dead supervisor left behind");
            proc_table::kill_all(&rest);
        }
    }
    let detail = "its supervisor is gone and left no exit status".to_owned();
    let exit = exit_of(NodeWorkloadState::Lost, StatusCause::SupervisorGone, detail, clock::wall());
    replace_json(&folder.exit(), &exit, Durability::Synced)?;
    let entry = ExecutionEntry::ended(&options.node, key, &exit, clock::boot_ms());
    execution_log::append(&options.execution_log, &entry)?;
    Ok(exit)
}

/// Whether the supervisor of this folder still lives.
pub(super) fn supervisor(folder: &Folder) -> io::Result<Option<ShimFile>> {
    let shim = read_json::<ShimFile>(&folder.shim())?;
    Ok(shim.filter(|shim| shim.boot_id == clock::boot_id() && proc_table::is_alive(shim.process)))
}
