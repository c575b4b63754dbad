//! What comes into a container beside its image: volumes, caches and GPUs, taken
//! before it is made and given back when its attempt is over.

use std::collections::BTreeSet;

use bollard::Docker;
use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause};
use claw_proto::topology::GpuInfo;
use tracing::warn;

use super::attempt::Refusal;
use super::cache::{Cache, CacheError};
use super::engine::Engine;
use super::gpu::{self, ExpectedDevices, GpuError, HostFolders};
use super::plan::Attachments;
use super::volumes::{self, VolumeError, VolumesConfig};
use crate::node::{Found, FoundWorkload};
use crate::runtime::Key;

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
        let planned = tokio::task::spawn_blocking(move || volumes::plan(&asked, &config, &cache, &user)).await;
        let planned = planned.map_err(|error| Refusal::new(StatusCause::VolumeRefused, error.to_string()))?;
        let plan = planned.map_err(refused)?;
        volumes::ensure(docker, &plan.named).await.map_err(refused)?;
        attachments.mounts = plan.mounts;
    }
    let not_attached = |error: GpuError| Refusal::new(StatusCause::GpuNotAttached, error.to_string());
    let mut given = Vec::new();
    for uuid in &workload.gpus {
        let found = gpus.iter().find(|gpu| gpu.uuid == *uuid);
        given.push(found.cloned().ok_or_else(|| not_attached(GpuError::Gone { uuid: uuid.0.clone() }))?);
    }
    let plan = gpu::plan(&given, engine, &HostFolders::default()).map_err(not_attached)?;
    attachments.devices = plan.devices;
    attachments.device_requests = plan.requests;
    attachments.groups = plan.groups;
    Ok((attachments, plan.expected))
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

/// Gives back what an attempt that is over held: a cache that it filled is sealed
/// if it ended well. What to tell about that, if anything.
pub(super) async fn give_back(cache: Option<Cache>, key: Key, ended_well: bool) -> Option<Result<String, String>> {
    let cache = cache?;
    let give = move || -> Result<Option<String>, CacheError> {
        let user = holder(key);
        let sealed = cache.filled(&user, ended_well);
        cache.release(&user)?;
        let told = |n_files, mib| format!("the cache is filled: {n_files} files, {mib} MiB");
        Ok(sealed?.map(|manifest| told(manifest.n_files, manifest.bytes / (1024 * 1024))))
    };
    match tokio::task::spawn_blocking(give).await {
        Ok(Ok(told)) => told.map(Ok),
        Ok(Err(error)) => Some(Err(format!("the cache was not filled: {error}"))),
        Err(error) => Some(Err(format!("the cache was not filled: {error}"))),
    }
}

/// Gives back what ended while the agent was away, and forgets holders that the node
/// does not know any more.
pub(super) fn recover(cache: Option<&Cache>, found: &[FoundWorkload]) {
    let Some(cache) = cache else { return };
    let mut alive = BTreeSet::new();
    for one in found {
        let user = holder((one.workload.workload_id, one.workload.attempt));
        let ended_well = match &one.found {
            Found::Live { .. } => {
                alive.insert(user);
                continue;
            }
            Found::Ended(end) => end.state == NodeWorkloadState::Completed,
            Found::NeverStarted => false,
        };
        if let Err(error) = cache.filled(&user, ended_well) {
            warn!(%error, user, "the cache was not filled");
        }
    }
    if let Err(error) = cache.recover(&alive) {
        warn!(%error, "the cache could not be tidied up");
    }
}
