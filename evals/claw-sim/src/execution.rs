//! What really ran: a log outside the protocol, which judges the protocol.

use std::collections::BTreeMap;

use claw_proto::ids::{Attempt, GpuUuid, WorkloadId};
use claw_proto::message::{DesiredWorkload, StatusCause};

use crate::agenda::Ctx;

/// Which attempt.
pub(crate) type Key = (WorkloadId, Attempt);

/// How a virtual process really ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    /// By itself, with this exit code.
    Exited(i32),
    /// By itself, of this signal.
    Signaled(i32),
    /// Its supervisor or agent ended it.
    Stopped(StatusCause),
    /// Its machine died.
    MachineDied,
    /// It was simulated and its agent died.
    AgentDied,
    /// Its supervisor was killed from outside.
    SupervisorDied,
}

/// One virtual process.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) machine: usize,
    pub(crate) gpus: Vec<GpuUuid>,
    pub(crate) started_ms: u64,
    pub(crate) ended: Option<(u64, Truth)>,
    /// The machine lost everything that it knew of it.
    pub(crate) forgotten: bool,
}

/// Every virtual process of a round, with true times.
#[derive(Debug, Default)]
pub(crate) struct ExecutionLog {
    spans: BTreeMap<Key, Span>,
    live: BTreeMap<(WorkloadId, u32), Attempt>,
    gpus: BTreeMap<GpuUuid, Key>,
}

impl ExecutionLog {
    pub(crate) fn span(&self, key: Key) -> Option<&Span> {
        self.spans.get(&key)
    }

    /// A machine lost its disk.
    pub(crate) fn forget(&mut self, machine: usize) {
        for span in self.spans.values_mut().filter(|span| span.machine == machine) {
            span.forgotten = true;
        }
    }

    /// Attempts that run at this instant, with their machine.
    pub(crate) fn live(&self) -> impl Iterator<Item = (Key, usize)> + '_ {
        self.live.iter().filter_map(|((id, _), attempt)| {
            let key = (*id, *attempt);
            self.spans.get(&key).map(|span| (key, span.machine))
        })
    }

    /// A program begins: nobody else may run that workload, or use those GPUs,
    /// anywhere, at this very instant.
    pub(crate) fn started(&mut self, ctx: &mut Ctx, machine: usize, workload: &DesiredWorkload) {
        let key = (workload.workload_id, workload.attempt);
        ctx.counts.started += 1;
        ctx.note(|| format!("m{machine} RUNS {} attempt {}", short(key.0), key.1.0));
        // Parts that were placed together may run side by side, one of each rank.
        let rank = workload.ranks.as_ref().map_or(0, |ranks| ranks.node_rank);
        let mut of_it = self.live.range((key.0, 0)..=(key.0, u32::MAX));
        let other = of_it.find(|((_, r), a)| *r == rank || a.0.checked_sub(*r) != key.1.0.checked_sub(rank));
        let other = other.map(|(_, attempt)| *attempt);
        self.live.insert((key.0, rank), key.1);
        if let Some(attempt) = other {
            let other = &self.spans[&(key.0, attempt)];
            let detail = format!(
                "{} attempt {} starts on m{machine} while attempt {} runs on m{} since {} ms",
                key.0, key.1.0, attempt.0, other.machine, other.started_ms
            );
            ctx.fail("E1_one_live_process_per_workload", detail);
        }
        for gpu in &workload.gpus {
            if let Some(other) = self.gpus.insert(gpu.clone(), key) {
                let detail = format!("{gpu} is given to {key:?} while {other:?} uses it");
                ctx.fail("E2_no_gpu_used_twice", detail);
            }
        }
        let span = Span { machine, gpus: workload.gpus.clone(), started_ms: ctx.now_ms, ended: None, forgotten: false };
        if let Some(before) = self.spans.insert(key, span) {
            let detail = format!("{key:?} began at {} ms already, on m{}", before.started_ms, before.machine);
            ctx.fail("E3_an_attempt_starts_once", detail);
        }
    }

    /// A program is gone.
    pub(crate) fn ended(&mut self, ctx: &mut Ctx, key: Key, truth: Truth) {
        ctx.note(|| format!("   GONE {} attempt {}: {truth:?}", short(key.0), key.1.0));
        let Some(span) = self.spans.get_mut(&key) else {
            return;
        };
        span.ended = Some((ctx.now_ms, truth));
        self.live.retain(|(id, _), attempt| (*id, *attempt) != key);
        for gpu in &span.gpus {
            if self.gpus.get(gpu) == Some(&key) {
                self.gpus.remove(gpu);
            }
        }
    }
}

/// The end of an id: enough to tell things of one round apart.
pub(crate) fn short(id: impl ToString) -> String {
    let text = id.to_string();
    let prefix = text.find('_').map_or("", |at| &text[..=at]);
    format!("{prefix}{}", &text[text.len().saturating_sub(4)..])
}
