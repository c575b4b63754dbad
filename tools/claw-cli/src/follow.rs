//! `claw workload logs --follow`: every line once, in the order in which it comes.
//!
//! One call waits for something newer than what was seen; the next reads from the last seen
//! millisecond on, because two lines of one millisecond can come in two answers. What was seen
//! is told by its number in its stream.

use std::collections::BTreeMap;
use std::time::Duration;

use claw_proto::message::LogStream;
use claw_proto::time::Timestamp;
use claw_tools::workloads::{LogGapView, LogLineView, WorkloadLogs};
use serde_json::{Map, Value, json};

use crate::error::CliError;
use crate::exit::Exit;
use crate::run::Session;
use crate::{approve, render};

/// The shortest time from one look to the next: what comes in between comes together.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one call waits for a line, seconds; after that the state is looked at again.
const WAIT_S: u32 = 5;
/// How long the last lines of an ended workload are waited for, seconds.
const LAST_WAIT_S: u32 = 1;
/// Most lines of one answer.
const TAIL: u32 = 1_000;

/// What was shown so far, of one attempt.
#[derive(Debug, Default)]
struct Seen {
    attempt: u32,
    last: BTreeMap<LogStream, u64>,
    until: Option<Timestamp>,
}

/// What is new in an answer.
#[derive(Debug, Default, PartialEq)]
struct News {
    lines: Vec<LogLineView>,
    gaps: Vec<LogGapView>,
}

/// Shows lines until the workload has ended and all of them are here.
pub(crate) async fn lines(session: &Session<'_>, args: &Map<String, Value>) -> Result<Exit, CliError> {
    let mut seen = Seen::default();
    let mut last_look = false;
    loop {
        let first = seen.until.is_none();
        let logs: WorkloadLogs = approve::ask(session, "workload_logs", seen.read_call(args)).await?;
        let news = seen.take(&logs);
        show(session, &news, logs.truncated && !first)?;
        if !logs.state.is_final() {
            // Its content is read by the next call, together with what it overlaps.
            let waited: Result<WorkloadLogs, _> =
                approve::ask(session, "workload_logs", seen.wait_call(args, WAIT_S)).await;
            waited?;
            tokio::time::sleep(PAUSE).await;
        } else if !news.lines.is_empty() {
            last_look = false;
        } else if !std::mem::replace(&mut last_look, true) {
            // The last lines may arrive a moment after the end that they belong to.
            let waited: Result<WorkloadLogs, _> =
                approve::ask(session, "workload_logs", seen.wait_call(args, LAST_WAIT_S)).await;
            waited?;
        } else {
            if !session.screen.is_json() {
                let end = render::log_end(&logs, session.screen.note_style());
                session.screen.note(&format!("{end}\n"))?;
            }
            return Ok(Exit::Ok);
        }
    }
}

impl Seen {
    /// The call that reads what came, from the last seen millisecond on.
    fn read_call(&self, args: &Map<String, Value>) -> Value {
        let mut call = args.clone();
        if let Some(until) = self.until {
            call.insert("since".into(), json!(until.plus_ms(-1)));
            call.insert("tail".into(), json!(TAIL));
        }
        Value::Object(call)
    }

    /// The call that waits until something newer is there.
    fn wait_call(&self, args: &Map<String, Value>, wait_s: u32) -> Value {
        let mut call = args.clone();
        // The next millisecond: what was seen must not end the wait.
        let until = self.until.map_or(Timestamp::default(), |until| until.plus_ms(1));
        if self.until.is_some() || !args.contains_key("since") {
            call.insert("since".into(), json!(until));
        }
        call.insert("tail".into(), json!(1));
        call.insert("wait_s".into(), json!(wait_s));
        Value::Object(call)
    }

    /// What is new in an answer; it counts as seen from now on.
    fn take(&mut self, logs: &WorkloadLogs) -> News {
        if logs.attempt.0 != self.attempt {
            // Another attempt counts its lines from the beginning.
            self.attempt = logs.attempt.0;
            self.last.clear();
        }
        let mut news = News::default();
        let last = |last: &BTreeMap<LogStream, u64>, stream| last.get(&stream).copied().unwrap_or_default();
        for gap in &logs.gaps {
            if gap.first_sequence > last(&self.last, gap.stream) {
                self.last.insert(gap.stream, gap.first_sequence + gap.n_lost - 1);
                news.gaps.push(gap.clone());
            }
        }
        for line in &logs.lines {
            let before_gap =
                news.gaps.iter().any(|gap| gap.stream == line.stream && line.sequence < gap.first_sequence);
            if line.sequence > last(&self.last, line.stream) || before_gap {
                let number = last(&self.last, line.stream).max(line.sequence);
                self.last.insert(line.stream, number);
                self.until = Some(self.until.map_or(line.at, |until| until.max(line.at)));
                news.lines.push(line.clone());
            }
        }
        news
    }
}

fn show(session: &Session<'_>, news: &News, skipped: bool) -> Result<(), CliError> {
    let screen = session.screen;
    if skipped {
        screen.note(&format!("(more than {TAIL} lines came at once: some are not shown)\n"))?;
    }
    for gap in &news.gaps {
        screen.note(&format!("{}\n", render::log_gap(gap, screen.note_style())))?;
    }
    for line in &news.lines {
        let text = if screen.is_json() { json!(line).to_string() } else { render::log_line(line, screen.style()) };
        screen.print(&format!("{text}\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use claw_proto::ids::{Attempt, WorkloadId};
    use claw_tools::workloads::WorkloadState;

    use super::*;

    fn logs(attempt: u32, lines: &[(LogStream, u64, i64)], gaps: &[(u64, u64)]) -> WorkloadLogs {
        let line = |(stream, sequence, at): &(LogStream, u64, i64)| LogLineView {
            stream: *stream,
            sequence: *sequence,
            at: Timestamp::from_unix_ms(*at),
            text: String::new(),
        };
        let gap = |(first_sequence, n_lost): &(u64, u64)| LogGapView {
            stream: LogStream::Stdout,
            first_sequence: *first_sequence,
            n_lost: *n_lost,
            why: String::new(),
        };
        WorkloadLogs {
            workload_id: WorkloadId::from_bits(1),
            attempt: Attempt(attempt),
            untrusted: true,
            lines: lines.iter().map(line).collect(),
            truncated: false,
            gaps: gaps.iter().map(gap).collect(),
            simulated: false,
            state: WorkloadState::Running,
        }
    }

    #[test]
    fn every_line_comes_once_though_answers_overlap() {
        use LogStream::{Stderr, Stdout};
        let mut seen = Seen::default();
        let mut take = |answer: &WorkloadLogs| {
            let news = seen.take(answer);
            let lines: Vec<_> = news.lines.iter().map(|line| (line.stream, line.sequence)).collect();
            (lines, news.gaps.len(), seen.until.map(Timestamp::unix_ms))
        };
        let first = logs(1, &[(Stdout, 1, 5), (Stderr, 1, 5), (Stdout, 2, 7)], &[]);
        let all = vec![(Stdout, 1), (Stderr, 1), (Stdout, 2)];
        assert_eq!(take(&first), (all, 0, Some(7)));
        assert_eq!(take(&first), (vec![], 0, Some(7)), "the same again is nothing new");
        // A second line of the same millisecond, after the answer that ended with the first.
        let overlap = logs(1, &[(Stdout, 2, 7), (Stdout, 3, 7)], &[]);
        assert_eq!(take(&overlap), (vec![(Stdout, 3)], 0, Some(7)));
        let lost = logs(1, &[(Stdout, 4, 8), (Stdout, 9, 9)], &[(5, 4)]);
        assert_eq!(take(&lost), (vec![(Stdout, 4), (Stdout, 9)], 1, Some(9)));
        assert_eq!(take(&lost), (vec![], 0, Some(9)), "a gap is told once");
        let again = logs(2, &[(Stdout, 1, 12)], &[]);
        assert_eq!(take(&again), (vec![(Stdout, 1)], 0, Some(12)), "another attempt");
    }
}
