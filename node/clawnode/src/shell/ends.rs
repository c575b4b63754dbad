//! Ends wait for last lines: whoever sees that an attempt is over has seen
//! everything that it wrote.
//!
//! A runtime tells an end when the last lines are in the node's log. The shell
//! holds that news back until the pump has read the log to its end and sent it,
//! or for a short time at most: a gateway that takes no lines must still learn
//! that the attempt is over.

use std::time::Duration;

use tokio::time::Instant;

use super::Agent;
use super::jobs::PumpCommand;
use crate::clock;
use crate::node::{FoundWorkload, Input, RuntimeEvent};
use crate::runtime::Key;
use crate::runtime::folder::Folder;

/// An end waits for its last lines no longer than this, milliseconds.
const HELD_MS_MAX: u64 = 3_000;

/// An end that waits.
#[derive(Debug)]
pub(super) struct HeldEnd {
    key: Key,
    event: RuntimeEvent,
    until: Instant,
}

impl Agent {
    /// News from a runtime.
    pub(super) fn runtime_event(&mut self, event: RuntimeEvent) {
        if let RuntimeEvent::Ended { workload_id, attempt, .. } = event {
            self.last_checkpoint((workload_id, attempt));
        }
        match event {
            RuntimeEvent::Ended { workload_id, attempt, .. } if self.node.is_registered() => {
                let until = Instant::now() + Duration::from_millis(HELD_MS_MAX);
                let key = (workload_id, attempt);
                self.held_ends.push(HeldEnd { key, event, until });
                self.pump_commands.push(PumpCommand::Drain { key });
                self.start_pump();
            }
            RuntimeEvent::TaskDone { task, .. } => self.task_done(task, event),
            RuntimeEvent::Found(FoundWorkload { ref workload, .. }) => {
                let key = (workload.workload_id, workload.attempt);
                let folder = Folder::of(&self.workloads, key).logs();
                self.pump_commands.push(PumpCommand::Watch { key, folder });
                if let Some(runtime) = self.runtimes.get_mut(&workload.runtime) {
                    runtime.adopted(workload);
                }
                self.feed(Input::Runtime { now: clock::now(), event });
            }
            RuntimeEvent::Ended { .. } | RuntimeEvent::Progress { .. } | RuntimeEvent::Checkpoint { .. } => {
                self.feed(Input::Runtime { now: clock::now(), event });
            }
        }
    }

    /// The log of an attempt was read to its end.
    pub(super) fn drained(&mut self, key: Key) {
        self.release_ends(|end| end.key == key);
    }

    /// Nobody reads lines any more, or not in time.
    pub(super) fn release_late_ends(&mut self) {
        let now = Instant::now();
        self.release_ends(|end| end.until <= now);
    }

    /// Every end that waits.
    pub(super) fn release_all_ends(&mut self) {
        self.release_ends(|_| true);
    }

    /// When the first end has waited long enough.
    pub(super) fn ends_due_at(&self) -> Option<Instant> {
        self.held_ends.iter().map(|end| end.until).min()
    }

    fn release_ends(&mut self, is_due: impl Fn(&HeldEnd) -> bool) {
        let (due, held) = std::mem::take(&mut self.held_ends).into_iter().partition(is_due);
        self.held_ends = held;
        for HeldEnd { event, .. } in due {
            self.feed(Input::Runtime { now: clock::now(), event });
        }
    }
}
