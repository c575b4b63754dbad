//! Looks at what programs say of their checkpoints, and passes on what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claw_proto::limits::CHECKPOINT_INTERVAL_MS_MIN;
use claw_proto::spec::RuntimeKind;
use claw_proto::time::Timestamp;
use tokio::time::Instant;
use tracing::warn;

use super::Agent;
use super::jobs::Job;
use crate::clock;
use crate::node::{Input, RuntimeEvent};
use crate::runtime::Key;
use crate::runtime::checkpoints::{Found, notice, read, speaks};
use crate::runtime::folder::Folder;

/// What is known of programs and their checkpoints. Files tell the rest: nothing of it has to
/// survive the agent.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// What was told of each attempt: the time of its file.
    told: BTreeMap<Key, SystemTime>,
    /// Those that were told to write one: looked at more often.
    noticed: BTreeSet<Key>,
    /// A look is under way.
    is_looking: bool,
    /// When all are looked at again.
    all_at: Option<Instant>,
}

impl Agent {
    /// Looks at the files of all that may have something to say, or of those that were told to.
    pub(super) fn look_for_checkpoints(&mut self) {
        let now = Instant::now();
        let all = self.checkpoints.all_at.is_none_or(|at| at <= now);
        if self.checkpoints.is_looking || (!all && self.checkpoints.noticed.is_empty()) {
            return;
        }
        let entries = self.node.durable().attempts.values().map(|entry| &entry.workload);
        let speaking = entries.filter(|workload| workload.runtime != RuntimeKind::Sim && speaks(workload));
        let live: BTreeSet<Key> = speaking.map(|workload| (workload.workload_id, workload.attempt)).collect();
        self.checkpoints.told.retain(|key, _| live.contains(key));
        self.checkpoints.noticed.retain(|key| live.contains(key));
        if all {
            self.checkpoints.all_at = Some(now + Duration::from_millis(CHECKPOINT_INTERVAL_MS_MIN));
        }
        let due = live.into_iter().filter(|key| all || self.checkpoints.noticed.contains(key));
        let due: Vec<(Key, PathBuf)> = due.map(|key| (key, Folder::of(&self.workloads, key).checkpoint())).collect();
        if due.is_empty() {
            return;
        }
        self.checkpoints.is_looking = true;
        self.jobs.spawn_blocking(move || {
            let look = |(key, folder): (Key, PathBuf)| match read(&folder) {
                Ok(found) => Some((key, found?)),
                Err(error) => {
                    warn!(%error, folder = %folder.display(), "what a program says of its checkpoint could not be read");
                    None
                }
            };
            Job::Looked { found: due.into_iter().filter_map(look).collect() }
        });
    }

    pub(super) fn looked(&mut self, found: Vec<(Key, Found)>) {
        self.checkpoints.is_looking = false;
        for (key, found) in found {
            self.tell_checkpoint(key, found);
        }
    }

    /// An attempt is over: its last word is heard before its end.
    pub(super) fn last_checkpoint(&mut self, key: Key) {
        let is_speaking =
            |entry: &crate::node::AttemptEntry| entry.workload.runtime != RuntimeKind::Sim && speaks(&entry.workload);
        if !self.node.durable().entry(key.0, key.1).is_some_and(is_speaking) {
            return;
        }
        match read(&Folder::of(&self.workloads, key).checkpoint()) {
            Ok(Some(found)) => self.tell_checkpoint(key, found),
            Ok(None) => {}
            Err(error) => warn!(%error, workload_id = %key.0, "what a program said last could not be read"),
        }
    }

    fn tell_checkpoint(&mut self, key: Key, found: Found) {
        if self.checkpoints.told.insert(key, found.at) == Some(found.at) {
            return;
        }
        if found.written.answers_notice {
            self.checkpoints.noticed.remove(&key);
        }
        let since = found.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let event = RuntimeEvent::Checkpoint { workload_id: key.0, attempt: key.1, written: found.written, at };
        self.feed(Input::Runtime { now: clock::now(), event });
    }

    /// The gateway wants a checkpoint now.
    pub(super) fn notice_checkpoint(&mut self, key: Key, grace_s: u32) {
        tracing::info!(workload_id = %key.0, attempt = key.1.0, grace_s, "a checkpoint is asked for");
        self.each_runtime(|runtime| runtime.notice_checkpoint(key));
        let folder = Folder::of(&self.workloads, key).checkpoint();
        if !folder.exists() {
            return;
        }
        if let Err(error) = notice(&folder, grace_s) {
            warn!(%error, folder = %folder.display(), "a program could not be asked for a checkpoint");
        }
        self.checkpoints.noticed.insert(key);
    }
}
