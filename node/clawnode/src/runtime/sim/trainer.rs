//! A simulated program that writes checkpoints: its progress is the time that it has run, and a
//! checkpoint is called by it, so that the next attempt goes on from there.

use std::time::Duration;

use claw_proto::message::CheckpointWritten;
use tokio::time::Instant;

use super::Run;
use crate::clock;
use crate::node::RuntimeEvent;
use crate::runtime::folder::ExitFile;

/// What a checkpoint is called after its progress.
const LABEL_END: &str = " ms done";

fn done_before(label: Option<&str>) -> u64 {
    label.and_then(|label| label.strip_suffix(LABEL_END)?.parse().ok()).unwrap_or(0)
}

/// A checkpoint that is being written: progress that it holds, when it is there, whether it was asked for.
#[derive(Debug, Clone, Copy)]
struct Writing {
    done_ms: u64,
    began_ms: u64,
    until_ms: u64,
    answers_notice: bool,
}

impl Run {
    /// Runs to its end, or until it is stopped (then how it ended). Times are milliseconds of this attempt.
    pub(super) async fn train(&mut self) -> Option<ExitFile> {
        let run_for_ms: Option<u64> = self.label("claw.sim/run-for-ms");
        let Some(every_ms) = self.label("claw.sim/checkpoint-every-ms").filter(|every_ms: &u64| *every_ms > 0) else {
            return self.wait(run_for_ms).await;
        };
        let takes_ms: u64 = self.label("claw.sim/checkpoint-ms").unwrap_or(0);
        let before_ms = done_before(self.workload.checkpoint_last.as_deref());
        let end_ms = run_for_ms.map_or(u64::MAX, |ms| ms.saturating_sub(before_ms));
        let began = Instant::now();
        let passed = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut notice = self.notice.clone();
        let (mut next_ms, mut noticed, mut writing) = (every_ms, false, None::<Writing>);
        loop {
            let due_ms = writing.map_or(next_ms, |writing| writing.until_ms).min(end_ms);
            let left_ms = due_ms.saturating_sub(passed());
            let may_notice = !noticed && self.stop.borrow().is_none();
            let is_noticed = async {
                if notice.wait_for(|noticed| *noticed).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                exit = self.wait(Some(left_ms)) => if exit.is_some() { return exit },
                () = is_noticed, if may_notice => {
                    noticed = true;
                    let now_ms = passed();
                    writing = Some(Writing {
                        done_ms: before_ms + now_ms,
                        began_ms: now_ms,
                        until_ms: now_ms + takes_ms,
                        answers_notice: true,
                    });
                    continue;
                }
            }
            let now_ms = passed();
            if now_ms >= end_ms {
                return None;
            }
            match writing {
                Some(done) if now_ms >= done.until_ms => {
                    writing = None;
                    self.say_written(done, now_ms).await;
                    // What fell due meanwhile is one: it holds what is done by now.
                    next_ms += now_ms.saturating_sub(next_ms) / every_ms * every_ms;
                }
                None if now_ms >= next_ms => {
                    writing = Some(Writing {
                        done_ms: before_ms + next_ms,
                        began_ms: next_ms,
                        until_ms: now_ms + takes_ms,
                        answers_notice: false,
                    });
                    next_ms += every_ms;
                }
                Some(_) | None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn say_written(&self, writing: Writing, now_ms: u64) {
        let (workload_id, attempt) = self.key;
        let label = format!("{}{LABEL_END}", writing.done_ms);
        let says_took = self.label("claw.sim/checkpoint-says-took").unwrap_or(true);
        let took_ms = says_took.then(|| u32::try_from(now_ms.saturating_sub(writing.began_ms)).unwrap_or(u32::MAX));
        let written = CheckpointWritten { label, answers_notice: writing.answers_notice, took_ms };
        self.send(RuntimeEvent::Checkpoint { workload_id, attempt, written, at: clock::wall() }).await;
    }
}
