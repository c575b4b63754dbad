//! What comes into a container beside its image: volumes, caches and GPUs, taken
//! before it is made and given back when its attempt is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bollard::Docker;
use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause};
use claw_proto::spec::Volume;
use claw_proto::topology::GpuInfo;
use tracing::warn;

use super::attempt::Refusal;
use super::cache::{Cache, Manifest};
use super::engine::Engine;
use super::gpu::{self, ExpectedDevices, GpuError, HostFolders};
use super::plan::Attachments;
use super::volumes::{self, VolumeError, VolumePlan, VolumesConfig};
use super::{Shared, locked};
use crate::node::{Found, FoundWorkload, WorkloadEnd};
use crate::runtime::Key;
use crate::runtime::folder::add_detail;

/// Takes everything that a workload asks for.
///
/// # Errors
/// What is refused, with what would be allowed.
pub(super) async fn take(
    docker: &Docker,
    engine: &Engine,
    cache: Option<Cache>,
    config: VolumesConfig,
    workload: &DesiredWorkload,
    gpus: &[GpuInfo],
) -> Result<(Attachments, ExpectedDevices), Refusal> {
    let asked = workload.spec.volumes.clone();
    let user = holder((workload.workload_id, workload.attempt));
    let refused = |error: VolumeError| Refusal::new(cause_of(&error), error.to_string());
    let mut attachments = Attachments::default();
    if !asked.is_empty() {
        let no_cache = || Refusal::new(StatusCause::VolumeRefused, "this node's cache folder cannot be used");
        let cache = cache.ok_or_else(no_cache)?;
        let plan = plan_volumes(asked, config, cache, user).await?;
        volumes::ensure(docker, &plan.named).await.map_err(refused)?;
        attachments.mounts = plan.mounts;
    }
    let not_attached = |error: GpuError| Refusal::new(StatusCause::GpuNotAttached, error.to_string());
    let mut given = Vec::new();
    for uuid in &workload.gpus {
        let found = gpus.iter().find(|gpu| gpu.uuid == *uuid);
        given.push(found.cloned().ok_or_else(|| not_attached(GpuError::Gone { uuid: uuid.0.clone() }))?);
    }
    let plan = gpu::plan(&given, engine, &HostFolders::of(engine)).map_err(not_attached)?;
    attachments.devices = plan.devices;
    attachments.device_requests = plan.requests;
    attachments.groups = plan.groups;
    Ok((attachments, plan.expected))
}

/// Says that nobody waits for a thread any more: a stop drops who waits, and the thread goes on.
#[derive(Default)]
struct Waiting {
    is_over: Arc<AtomicBool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// Plans volumes on a thread, for it may wait long for the cache. What it got when the attempt has
/// been stopped meanwhile, and has given everything back already, it gives back itself: it looks
/// after it took, and [`give_back`] comes after the wait is over, so one of the two sees it.
async fn plan_volumes(
    asked: Vec<Volume>,
    config: VolumesConfig,
    cache: Cache,
    user: String,
) -> Result<VolumePlan, Refusal> {
    let waiting = Waiting::default();
    let is_over = Arc::clone(&waiting.is_over);
    let work = move || {
        let planned = volumes::plan(&asked, &config, &cache, &user);
        if is_over.load(Ordering::SeqCst)
            && let Err(error) = cache.filled(&user, false).map(drop).and(cache.release(&user))
        {
            warn!(%error, user, "what a stopped attempt took of the cache could not be given back");
        }
        planned
    };
    let planned = tokio::task::spawn_blocking(work).await;
    let planned = planned.map_err(|error| Refusal::new(StatusCause::VolumeRefused, error.to_string()))?;
    planned.map_err(|error| Refusal::new(cause_of(&error), error.to_string()))
}

fn cause_of(error: &VolumeError) -> StatusCause {
    match error {
        VolumeError::Engine { .. } => StatusCause::EngineFailed,
        VolumeError::NotAllowed { .. }
        | VolumeError::ReadOnly { .. }
        | VolumeError::Host { .. }
        | VolumeError::Target { .. }
        | VolumeError::Foreign { .. }
        | VolumeError::Cache(_) => StatusCause::VolumeRefused,
    }
}

/// How the cache knows an attempt.
pub(super) fn holder(key: Key) -> String {
    format!("{}.{}", key.0, key.1.0)
}

/// Gives back what an attempt that is over held. Caches that it filled are sealed if
/// it ended well; one that was to be filled and was not is its failure.
pub(super) async fn give_back(shared: &Shared, key: Key, end: WorkloadEnd) -> WorkloadEnd {
    let Some(cache) = shared.cache.clone() else { return end };
    let (before, outgrown) = (end.clone(), locked(&shared.outgrown).get(&holder(key)).cloned());
    match tokio::task::spawn_blocking(move || given_back(&cache, key, end, outgrown.as_ref())).await {
        Ok(end) => end,
        Err(error) => not_filled(before, key, &error),
    }
}

fn given_back(cache: &Cache, key: Key, mut end: WorkloadEnd, outgrown: Option<&String>) -> WorkloadEnd {
    let user = holder(key);
    // Nobody else stops a container for that.
    if (end.state, end.cause) == (NodeWorkloadState::Stopped, StatusCause::VolumeRefused) {
        end.state = NodeWorkloadState::Failed;
        let why = outgrown.map_or("it had outgrown the room for caches", String::as_str);
        add_detail(&mut end.detail, &format!("stopped for the cache that it fills: {why}"));
    }
    match cache.filled(&user, end.state == NodeWorkloadState::Completed) {
        Ok(sealed) => {
            for (name, Manifest { n_files, bytes, .. }) in sealed {
                let mib = bytes / (1024 * 1024);
                add_detail(&mut end.detail, &format!("cache {name} is filled: {n_files} files, {mib} MiB"));
            }
        }
        Err(error) => end = not_filled(end, key, &error),
    }
    if let Err(error) = cache.release(&user) {
        warn!(%error, user, "a cache could not be given back");
    }
    end
}

fn not_filled(mut end: WorkloadEnd, key: Key, why: &dyn std::fmt::Display) -> WorkloadEnd {
    warn!(workload_id = %key.0, %why, "the cache was not filled");
    if end.state == NodeWorkloadState::Completed {
        (end.state, end.cause) = (NodeWorkloadState::Failed, StatusCause::VolumeRefused);
        end.detail = format!("the cache was not filled: {why}");
    }
    end
}

/// Gives back what ended while the agent was away, and forgets holders that the node
/// does not know any more.
pub(super) fn recover(cache: Option<&Cache>, found: &mut [FoundWorkload]) {
    let Some(cache) = cache else { return };
    let mut alive = BTreeSet::new();
    for one in found {
        let key = (one.workload.workload_id, one.workload.attempt);
        match &mut one.found {
            Found::Live { .. } => {
                alive.insert(holder(key));
            }
            Found::Ended(end) => *end = given_back(cache, key, end.clone(), None),
            Found::NeverStarted => {}
        }
    }
    if let Err(error) = cache.recover(&alive) {
        warn!(%error, "the cache could not be tidied up");
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::super::cache::CacheConfig;
    use super::*;

    #[test]
    fn what_a_thread_takes_after_the_stop_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), CacheConfig::default()).unwrap();
        // One thread only: what it is given next is done after it.
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let lock = std::fs::File::create(folder.path().join("cache/lock")).unwrap();
            flock(&lock, FlockOperation::LockExclusive).unwrap();
            let asked = vec![Volume { source: "cache:llama".into(), target: "/m".into(), read_only: false }];
            tokio::select! {
                biased;
                planned = plan_volumes(asked, VolumesConfig::default(), cache.clone(), "wl-1".into()) => {
                    panic!("it was to wait for the lock: {planned:?}")
                }
                () = std::future::ready(()) => {}
            }
            drop(lock);
            let filled = tokio::task::spawn_blocking(move || cache.fill("llama", "wl-2"));
            let data = filled.await.unwrap().unwrap();
            assert!(data.is_dir());
        });
    }
}
