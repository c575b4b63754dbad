//! What an agent finds: folders of attempts, and containers at the engine that
//! have none.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::ListContainersOptionsBuilder;
use claw_proto::ids::GpuUuid;
use claw_proto::message::DesiredWorkload;
use claw_proto::spec::RuntimeKind;
use tracing::warn;

use super::plan::{LABEL_GPUS, LABEL_NODE};
use super::{Shared, attempt, container, live_state, look, outputs, secrets};
use crate::files::read_json;
use crate::node::{Found, FoundWorkload, RuntimeEvent};
use crate::runtime::Key;
use crate::runtime::folder::{ExitFile, Folder, LeaseFile, SpecFile};

/// How often the engine's containers are compared with the folders, milliseconds.
const SWEEP_INTERVAL_MS: u64 = 30_000;

/// Looks through all folders and at what is known.
pub(super) fn recover(shared: &Shared, known: &[Arc<DesiredWorkload>]) -> Vec<FoundWorkload> {
    let mut found = Vec::new();
    let entries = fs::read_dir(&shared.options.workloads).into_iter().flatten();
    for folder in entries.filter_map(|entry| Some(Folder::at(entry.ok()?.path()))) {
        match read_json::<SpecFile>(&folder.spec()) {
            Ok(Some(spec)) if spec.workload.runtime == RuntimeKind::Docker => {
                found.push(judge(&folder, Arc::new(spec.workload)));
            }
            Ok(_) => {}
            Err(error) => warn!(%error, folder = %folder.root().display(), "an attempt's folder could not be read"),
        }
    }
    let seen: BTreeSet<Key> = found.iter().map(|one| (one.workload.workload_id, one.workload.attempt)).collect();
    for workload in known {
        let key = (workload.workload_id, workload.attempt);
        if !seen.contains(&key) {
            found.push(judge(&Folder::of(&shared.options.workloads, key), Arc::clone(workload)));
        }
    }
    // Secrets of what never began have no supervisor that removes them.
    for one in found.iter().filter(|one| one.found == Found::NeverStarted) {
        secrets::remove(&shared.secrets((one.workload.workload_id, one.workload.attempt)));
    }
    found
}

/// What became of an attempt. A container may run without its supervisor, so
/// what was handed over and has no end lives until a supervisor says otherwise.
fn judge(folder: &Folder, workload: Arc<DesiredWorkload>) -> FoundWorkload {
    let found = look_at(folder).unwrap_or_else(|error| {
        warn!(%error, folder = %folder.root().display(), "whether an attempt lives is not known yet");
        Found::Live { state: live_state(folder), lease: None }
    });
    FoundWorkload { workload, found }
}

fn look_at(folder: &Folder) -> io::Result<Found> {
    if !folder.root().try_exists()? {
        return Ok(Found::NeverStarted);
    }
    if let Some(exit) = read_json::<ExitFile>(&folder.exit())? {
        return Ok(Found::Ended(exit.into()));
    }
    if folder.try_lock()?.is_some() && !folder.attempted().try_exists()? {
        return Ok(Found::NeverStarted);
    }
    let lease = read_json::<LeaseFile>(&folder.lease())?.flatten();
    Ok(Found::Live { state: live_state(folder), lease })
}

/// Compares again and again.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let (docker, _) = shared.engine.available().await;
        if let Err(error) = sweep(&shared, &docker).await {
            tracing::debug!(%error, "the engine's containers could not be listed");
        }
        let keep = Duration::from_secs(shared.options.config.outputs_keep_s);
        let outputs = shared.options.outputs.clone();
        if tokio::task::spawn_blocking(move || outputs::sweep(&outputs, keep)).await.is_err() {
            warn!("old outputs could not be looked through");
        }
        tokio::time::sleep(Duration::from_millis(SWEEP_INTERVAL_MS)).await;
    }
}

async fn sweep(shared: &Arc<Shared>, docker: &Docker) -> Result<(), bollard::errors::Error> {
    let label = format!("{LABEL_NODE}={}", shared.options.node_id);
    let filters = std::collections::HashMap::from([("label", vec![label.as_str()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    for one in look::list(docker, options).await? {
        let labels = one.labels.unwrap_or_default();
        let Some(key) = container::key_of(&labels) else { continue };
        let folder = Folder::of(&shared.options.workloads, key);
        if folder.exit().exists() {
            // Its supervisor could not remove it: the engine was away.
            let ours = container::named(shared.engine.socket(), &shared.options.node_id, key);
            if let Err(error) = container::remove(docker, &ours).await {
                warn!(%error, name = ours.name, "the container of an ended attempt could not be removed");
            }
        } else if !folder.root().exists() {
            let gpus = labels.get(LABEL_GPUS).map(String::as_str).unwrap_or_default();
            let gpus = gpus.split(',').filter(|gpu| !gpu.is_empty()).map(|gpu| GpuUuid(gpu.to_owned())).collect();
            take_over(shared, attempt::orphan(key, one.image, gpus)).await;
        }
    }
    Ok(())
}

/// A container of ours of which the node has nothing: reported, watched, not touched.
async fn take_over(shared: &Arc<Shared>, workload: DesiredWorkload) {
    if let Err(error) = attempt::adopt(shared, &workload) {
        warn!(%error, workload_id = %workload.workload_id, "a container without a folder could not be taken over");
        return;
    }
    let folder = Folder::of(&shared.options.workloads, (workload.workload_id, workload.attempt));
    let found = Found::Live { state: live_state(&folder), lease: None };
    let event = RuntimeEvent::Found(FoundWorkload { workload: Arc::new(workload), found });
    if shared.events.send(event).await.is_err() {
        tracing::debug!("the agent is shutting down");
    }
}
