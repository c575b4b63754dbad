//! What containers use, from the engine's statistics.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use claw_proto::message::WorkloadMetrics;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::plan::container_name;
use crate::runtime::Key;

/// The engine may take so long for one container, milliseconds.
const STATS_TIMEOUT_MS: u64 = 4_000;
/// Containers that are measured at once.
const AT_ONCE: usize = 8;
const MIB: u64 = 1024 * 1024;

/// CPU time that a container had used at an instant.
#[derive(Debug, Clone, Copy)]
struct CpuTime {
    used_ns: u64,
    at: Instant,
}

/// Measures containers again and again.
#[derive(Debug, Default)]
pub(super) struct Meter {
    before: BTreeMap<Key, CpuTime>,
}

impl Meter {
    /// Measures these containers; one that does not answer, or whose use of CPU time is
    /// not known before it is read a second time, is left out.
    pub(super) async fn measure(&mut self, docker: &Docker, keys: &[(Key, bool)]) -> BTreeMap<Key, WorkloadMetrics> {
        let readings = futures_util::stream::iter(keys.iter().copied())
            .map(|(key, is_limited)| async move { (key, is_limited, read(docker, key).await) })
            .buffer_unordered(AT_ONCE);
        let readings: Vec<_> = readings.collect().await;
        self.before.retain(|key, _| keys.iter().any(|(known, _)| known == key));
        let mut measured = BTreeMap::new();
        for (key, is_limited, stats) in readings {
            let Some(stats) = stats else { continue };
            let now = CpuTime { used_ns: used_ns(&stats), at: Instant::now() };
            let Some(before) = self.before.insert(key, now) else { continue };
            measured.insert(key, metrics(key, is_limited, &stats, cpu_percent(before, now)));
        }
        measured
    }
}

async fn read(docker: &Docker, key: Key) -> Option<ContainerStatsResponse> {
    let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
    let name = container_name(key);
    let mut stats = Box::pin(docker.stats(&name, Some(options)));
    match tokio::time::timeout(Duration::from_millis(STATS_TIMEOUT_MS), stats.next()).await {
        Ok(Some(Ok(stats))) => Some(stats),
        Ok(Some(Err(error))) => {
            tracing::debug!(%error, name, "a container could not be measured");
            None
        }
        Ok(None) | Err(_) => None,
    }
}

fn used_ns(stats: &ContainerStatsResponse) -> u64 {
    let usage = stats.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref());
    usage.and_then(|usage| usage.total_usage).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "a percentage needs no more digits")]
fn cpu_percent(before: CpuTime, now: CpuTime) -> f32 {
    let elapsed_ns = (now.at - before.at).as_nanos() as f64;
    if elapsed_ns <= 0.0 {
        return 0.0;
    }
    (now.used_ns.saturating_sub(before.used_ns) as f64 / elapsed_ns * 100.0) as f32
}

fn metrics(key: Key, is_limited: bool, stats: &ContainerStatsResponse, cpu_percent: f32) -> WorkloadMetrics {
    let memory = stats.memory_stats.clone().unwrap_or_default();
    let details = memory.stats.unwrap_or_default();
    // Pages of files that can be dropped at any time do not count.
    let droppable = details.get("total_inactive_file").or_else(|| details.get("inactive_file")).copied().unwrap_or(0);
    let networks = stats.networks.iter().flat_map(|networks| networks.values());
    let (rx, tx) =
        networks.fold((0, 0), |(rx, tx), one| (rx + one.rx_bytes.unwrap_or(0), tx + one.tx_bytes.unwrap_or(0)));
    let transfers = stats.blkio_stats.as_ref().and_then(|io| io.io_service_bytes_recursive.as_ref());
    let transferred = |wanted: &str| -> u64 {
        let of_kind = transfers
            .into_iter()
            .flatten()
            .filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(wanted)));
        of_kind.map(|entry| entry.value.unwrap_or(0)).sum()
    };
    let pids = stats.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or(0);
    WorkloadMetrics {
        workload_id: key.0,
        attempt: key.1,
        cpu_percent,
        memory_used_mib: memory.usage.unwrap_or(0).saturating_sub(droppable) / MIB,
        memory_limit_mib: memory.limit.filter(|_| is_limited).map(|bytes| bytes / MIB),
        n_pids: u32::try_from(pids).unwrap_or(u32::MAX),
        network_rx_bytes: rx,
        network_tx_bytes: tx,
        disk_read_bytes: transferred("read"),
        disk_write_bytes: transferred("write"),
        simulated: false,
    }
}
