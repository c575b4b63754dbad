//! What GPUs did over time, as far as the gateway keeps it, and what that shows.

use std::collections::BTreeMap;

use claw_gateway::registry::NodeEntry;
use claw_gateway::workload::AttemptEntry;
use claw_gateway::workload::Holders;
use claw_observe::Observer;
use claw_observe::diagnose::code::Code;
use claw_observe::diagnose::observe::Reported;
use claw_observe::diagnose::series::told::Steps;
use claw_observe::diagnose::series::window::Window;
use claw_observe::diagnose::series::{Series, Sign, analyze, thresholds};
use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::time::Timestamp;
use claw_proto::topology::GpuInfo;
use claw_tools::diagnosis::SeriesRead;

use super::{Desk, GPUS_NAMED};

/// A silence longer than this breaks a series, milliseconds; in sampling intervals, if that is more.
const GAP_MS: i64 = 600_000;
const GAP_INTERVALS: u64 = 5;

/// GPUs that are compared with each other: of one model, under one workload or none.
type Peers = (String, Option<WorkloadId>);

/// Series of a target, by who is compared with whom.
#[derive(Debug, Default)]
pub(super) struct OverTime {
    groups: BTreeMap<Peers, Vec<Series>>,
    pub(super) read: SeriesRead,
    /// Samples come from simulated drivers.
    pub(super) simulated: bool,
}

impl OverTime {
    /// Takes in the GPUs of one part of a workload, since it has them.
    pub(super) fn part(&mut self, desk: &Desk, part: &AttemptEntry) {
        let Some(node) = desk.cluster.nodes.get(part.node_id) else { return };
        let its = |gpu: &&GpuInfo| part.gpus.contains(&gpu.uuid);
        self.gpus(desk, node, node.gpus().iter().filter(its));
    }

    /// What the job that has all these GPUs tells of its steps. Its ranks are counted in the order of its parts.
    ///
    /// What a rank spends on a step by itself nobody tells: a slow rank is not looked for.
    pub(super) fn steps(&mut self, steps: &Steps) {
        for (rank, series) in (0..).zip(self.groups.values_mut().flatten()) {
            series.rank = Some(rank);
            steps.count(&mut series.samples);
            if rank == 0 {
                steps.times(&mut series.samples);
            }
        }
    }

    /// Takes in all GPUs of a node.
    pub(super) fn node(&mut self, desk: &Desk, node: &NodeEntry) {
        self.gpus(desk, node, node.gpus().iter());
    }

    fn gpus<'a>(&mut self, desk: &Desk, node: &NodeEntry, gpus: impl Iterator<Item = &'a GpuInfo>) {
        let windows: BTreeMap<GpuUuid, Window> = desk.ops.control.metrics().windows(node.node_id).into_iter().collect();
        let intervals = node.settings.metrics_interval_ms.saturating_mul(GAP_INTERVALS);
        let gap_ms = i64::try_from(intervals).unwrap_or(i64::MAX).max(GAP_MS);
        for gpu in gpus {
            // What was measured under other work, or before it runs, speaks of that. Of several
            // who share it the one that came last.
            let started = |id| {
                let entry = desk.cluster.workloads.get(id);
                let part = entry.and_then(|entry| entry.live_on(node.node_id));
                part.and_then(|part| part.started_at).map_or(i64::MAX, Timestamp::unix_ms)
            };
            let holders = || desk.cluster.workloads.holders(&gpu.uuid).into_iter().flat_map(Holders::each);
            let since = holders().map(|(id, _)| started(id)).max().unwrap_or(i64::MIN);
            let since = Timestamp::from_unix_ms(since);
            let window = windows.get(&gpu.uuid);
            let samples = window.map(|window| window.samples(since, gap_ms)).unwrap_or_default();
            let (Some(window), Some(first), Some(last)) = (window, samples.first(), samples.last()) else {
                if self.read.unread.len() < GPUS_NAMED {
                    self.read.unread.push(gpu.uuid.to_string());
                }
                continue;
            };
            let read = &mut self.read;
            read.gpus += 1;
            read.samples += samples.len() as u64;
            let (from, to) = (instant(first.at_s), instant(last.at_s));
            read.from = Some(read.from.map_or(from, |known| known.min(from)));
            read.to = Some(read.to.map_or(to, |known| known.max(to)));
            self.simulated |= window.simulated();
            let series = Series {
                gpu: gpu.uuid.to_string(),
                node: node.name.clone(),
                rank: None,
                memory_total_mib: window.memory_total_mib() as f64,
                samples,
            };
            let holder = holders().next().map(|(id, _)| id);
            self.groups.entry((gpu.model.clone(), holder)).or_default().push(series);
        }
    }

    /// Feeds what the series show; returns it as faults: which GPU, what, and from when.
    pub(super) fn tell(&mut self, observer: &mut Observer) -> Vec<(GpuUuid, Code, f64)> {
        let mut faults = Vec::new();
        if self.read.gpus == 0 {
            return faults;
        }
        observer.next_source("series");
        for group in self.groups.values() {
            for found in analyze(group, thresholds()) {
                let Some(code) = found.sign.code() else {
                    self.read.at_power_limit += u64::from(found.sign == Sign::PowerCap);
                    continue;
                };
                let rule = format!("series.{code}");
                let words = format!("{} ({:.0} min)", found.excerpt, (found.to_s - found.from_s) / 60.0);
                observer.event(&Reported {
                    code: code.clone(),
                    uuid: &found.gpu,
                    at_s: found.from_s,
                    rule: &rule,
                    words: &words,
                    asks: Some(found.sign.asks()),
                });
                faults.push((GpuUuid(found.gpu), code, found.from_s));
            }
        }
        faults
    }
}

fn instant(at_s: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds that were a Timestamp's")]
    let ms = (at_s * 1e3).round() as i64;
    Timestamp::from_unix_ms(ms)
}
