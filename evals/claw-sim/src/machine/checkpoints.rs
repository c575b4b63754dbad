//! Virtual programs that write checkpoints: those that may be stopped, or say how often they do.
//! Some answer a notice soon, some late, some never.

use claw_proto::message::CheckpointWritten;
use clawnode::node::RuntimeEvent;

use super::Machine;
use super::supervisor::Phase;
use crate::agenda::{Ctx, Happening};
use crate::execution::Key;

/// Between two checkpoints, milliseconds.
const EVERY_MS: (u64, u64) = (300, 5_000);

impl Machine {
    pub(super) fn begin_checkpoints(&mut self, ctx: &mut Ctx, key: Key) {
        let spec = self.folders.get(&key).map(|folder| &folder.workload.spec);
        if spec.is_some_and(|spec| spec.preemptible == Some(true) || spec.checkpoint_interval_s.is_some()) {
            self.checkpoint_after(ctx, key, false, EVERY_MS);
        }
    }

    fn checkpoint_after(&mut self, ctx: &mut Ctx, key: Key, answers_notice: bool, (from_ms, to_ms): (u64, u64)) {
        let delay_ms = ctx.rng.between(from_ms, to_ms);
        ctx.after(delay_ms, Happening::Checkpoint { machine: self.ix, boot: self.boot, key, answers_notice });
    }

    /// The program has written one, if it still runs. An agent that is away finds the file later.
    pub(crate) fn checkpoint(&mut self, ctx: &mut Ctx, boot: u32, key: Key, answers_notice: bool) {
        let runs = self.folders.get(&key).is_some_and(|folder| folder.phase == Phase::Running);
        if boot != self.boot || !self.is_up || !runs {
            return;
        }
        let written = CheckpointWritten { label: format!("at {}", ctx.now_ms), answers_notice, took_ms: None };
        let at = self.clock.now(ctx.now_ms).wall;
        self.tell(ctx, RuntimeEvent::Checkpoint { workload_id: key.0, attempt: key.1, written, at });
        if !answers_notice {
            self.checkpoint_after(ctx, key, false, EVERY_MS);
        }
    }

    /// The agent passes a notice on.
    pub(super) fn runtime_notice(&mut self, ctx: &mut Ctx, key: Key, grace_s: u32) {
        if self.folders.contains_key(&key) && ctx.rng.chance(800) {
            self.checkpoint_after(ctx, key, true, (1, u64::from(grace_s) * 1_000 + 2_000));
        }
    }
}
