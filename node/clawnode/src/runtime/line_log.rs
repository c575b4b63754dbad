//! One stream of a workload's output on its way into segment files.

use std::io;
use std::path::Path;

use claw_proto::message::LogStream;
use claw_proto::time::Timestamp;

use crate::clock;
use crate::logs::SegmentWriter;
use crate::logs::lines::LineSplitter;

/// Cuts bytes into lines and writes them.
#[derive(Debug)]
pub(super) struct LineLog {
    splitter: LineSplitter,
    writer: SegmentWriter,
    failing: bool,
    cursor: Cursor,
}

impl LineLog {
    /// Goes on with the log of `stream` in `folder`, bounded by `bytes_max`.
    pub(super) fn open(folder: &Path, stream: LogStream, bytes_max: u64) -> io::Result<Self> {
        let writer = SegmentWriter::open(folder, stream, bytes_max)?;
        let cursor = Cursor { written: writer.tail(), ..Cursor::default() };
        Ok(Self { splitter: LineSplitter::default(), writer, failing: false, cursor })
    }

    /// Takes bytes that arrived now; they are on their way to disk afterwards.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let at = clock::wall();
        self.splitter.feed(bytes, |line| self.writer.push(at, line));
        self.flush();
    }

    /// Takes bytes of a source that stamps them and may say again, after
    /// [`Self::reread`], what the log already has. Flush afterwards.
    pub(super) fn take_stamped(&mut self, at: Timestamp, bytes: &[u8]) {
        let at = self.cursor.stamp(at);
        let Self { splitter, writer, cursor, .. } = self;
        splitter.feed(bytes, |line| cursor.write(writer, at, line));
    }

    /// The source had thrown lines away before they were read, as far as can be told: the time of the first line
    /// that it has after them, told once.
    pub(super) fn take_lost(&mut self) -> Option<Timestamp> {
        self.cursor.lost.take()
    }

    /// The source begins again, at or before the last line that the log has.
    pub(super) fn reread(&mut self) {
        self.splitter = LineSplitter::default();
        self.cursor.reread();
    }

    /// Time of the last line, if there is one.
    pub(super) fn last_at(&self) -> Option<Timestamp> {
        self.cursor.written.map(|(at, _)| at)
    }

    /// Adds a line of our own.
    pub(super) fn note(&mut self, text: &str) {
        self.writer.push(clock::wall(), text.as_bytes());
        self.flush();
    }

    /// A full disk costs lines, never the program.
    pub(super) fn flush(&mut self) {
        match self.writer.flush() {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    tracing::warn!(%error, "log lines are lost");
                }
                self.failing = true;
            }
        }
    }

    /// Writes a line that has no end.
    pub(super) fn finish(&mut self) {
        let at = clock::wall();
        self.splitter.finish(|line| self.writer.push(at, line));
        self.flush();
    }

    /// Writes a line that has no end, of a source that stamps.
    pub(super) fn finish_stamped(&mut self) {
        let at = self.cursor.stamp(Timestamp::from_unix_ms(i64::MIN));
        let Self { splitter, writer, cursor, .. } = self;
        splitter.finish(|line| cursor.write(writer, at, line));
        self.flush();
    }
}

/// Tells lines that a log has from those that it has not, by their time and
/// how many there are of the same time.
#[derive(Debug, Default)]
struct Cursor {
    /// Time of the last line written, and how many lines have that very time.
    written: Option<(Timestamp, u64)>,
    /// While a source is read again: time and number of lines still to be passed over.
    replay: Option<(Timestamp, u64)>,
    /// Latest time seen in this reading: a clock that was set back does not
    /// make a line older than the one before it.
    latest: Option<Timestamp>,
    /// Time of the first line after some that the source had no more when it was read again.
    lost: Option<Timestamp>,
}

impl Cursor {
    fn stamp(&mut self, at: Timestamp) -> Timestamp {
        let at = self.latest.map_or(at, |latest| latest.max(at));
        self.latest = Some(at);
        at
    }

    fn reread(&mut self) {
        self.replay = self.written;
        self.latest = None;
    }

    /// Writes the next line if the log lacks it. Where the source does not repeat the last line that the log has,
    /// nobody knows how many are missing: the number of one is left out.
    fn write(&mut self, writer: &mut SegmentWriter, at: Timestamp, line: &[u8]) {
        let is_missed = self.replay.is_some_and(|(known, left)| at > known && left > 0);
        if !self.is_new(at) {
            return;
        }
        if is_missed {
            writer.skip();
            self.lost = Some(at);
        }
        writer.push(at, line);
    }

    /// Whether the log lacks the next line.
    fn is_new(&mut self, at: Timestamp) -> bool {
        if let Some((known, left)) = self.replay {
            if at < known {
                return false;
            }
            if at == known && left > 0 {
                self.replay = Some((known, left - 1));
                return false;
            }
            self.replay = None;
        }
        self.written = match self.written {
            Some((known, n)) if known == at => Some((at, n + 1)),
            Some(_) | None => Some((at, 1)),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(folder: &Path) -> Vec<String> {
        let mut reader = crate::logs::SegmentReader::new(folder, LogStream::Stdout);
        let batch = reader.read(10_000, 1 << 20).unwrap();
        batch.lines.into_iter().map(|line| String::from_utf8(line.bytes).unwrap()).collect()
    }

    proptest! {
        /// ONCE: however often the source breaks off and is read again from some
        /// seconds before, by this writer or by a new one, every line is there once.
        #[test]
        fn a_source_that_is_read_again_gives_each_line_once(
            steps in proptest::collection::vec(0_i64..1_500, 1..40),
            cuts in proptest::collection::vec((0_usize..60, any::<bool>()), 0..6),
            coarse in any::<bool>(),
        ) {
            let unit_ms = if coarse { 1_000 } else { 1 };
            let mut at = 1_700_000_000_000_i64;
            let source: Vec<(i64, String)> = steps.iter().enumerate().map(|(n, step)| {
                at += step / 7 * 7 % 900;
                (at / unit_ms * unit_ms, format!("line {n}\n"))
            }).collect();
            let folder = tempfile::tempdir().unwrap();
            let open = || LineLog::open(folder.path(), LogStream::Stdout, 1 << 20).unwrap();
            let mut log = open();
            let whole = (usize::MAX, false);
            for (n_taken, is_new_writer) in cuts.into_iter().chain([whole]) {
                let since = log.last_at().map_or(0, |at| at.unix_ms() / 1_000 * 1_000 - 2_000);
                log.reread();
                for (at, line) in source.iter().filter(|(at, _)| *at >= since).take(n_taken) {
                    log.take_stamped(Timestamp::from_unix_ms(*at), line.as_bytes());
                    log.flush();
                }
                if is_new_writer {
                    log = open();
                }
            }
            prop_assert_eq!(log.take_lost(), None);
            log.finish_stamped();
            let expected: Vec<String> = source.iter().map(|(_, line)| line.trim_end().to_owned()).collect();
            prop_assert_eq!(read(folder.path()), expected);
        }

        /// What the source threw away before it was read is a gap, and nothing else is one.
        #[test]
        fn what_a_source_forgot_unread_is_a_gap(
            steps in proptest::collection::vec(0_i64..4, 2..40),
            n_read in 1_usize..39,
            n_forgotten in 0_usize..40,
            is_new_writer in any::<bool>(),
        ) {
            let mut at = 1_700_000_000_000_i64;
            let source: Vec<(i64, String)> = steps.iter().enumerate().map(|(n, step)| {
                at += step;
                (at, format!("line {n}\n"))
            }).collect();
            let n_read = n_read.min(source.len() - 1);
            // Something is left to be read.
            let n_forgotten = n_forgotten.min(source.len() - 1);
            let folder = tempfile::tempdir().unwrap();
            let open = || LineLog::open(folder.path(), LogStream::Stdout, 1 << 20).unwrap();
            let mut log = open();
            let take = |log: &mut LineLog, lines: &[(i64, String)]| {
                for (at, line) in lines {
                    log.take_stamped(Timestamp::from_unix_ms(*at), line.as_bytes());
                }
                log.flush();
            };
            take(&mut log, &source[..n_read]);
            if is_new_writer {
                log = open();
            }
            log.reread();
            take(&mut log, &source[n_forgotten..]);
            let lost = log.take_lost();
            let mut reader = crate::logs::SegmentReader::new(folder.path(), LogStream::Stdout);
            let read = || Some(reader.read(10_000, 1 << 20).unwrap()).filter(|batch| !batch.lines.is_empty());
            let batches: Vec<_> = std::iter::from_fn(read).collect();
            let n_lines = batches.iter().map(|batch| batch.lines.len()).sum::<usize>();
            let gaps: Vec<u64> = batches.iter().filter_map(|batch| Some(batch.gap?.n_lost)).collect();
            prop_assert_eq!(gaps, if lost.is_some() { vec![1] } else { Vec::new() });
            let last_at = source[n_read - 1].0;
            let first_of_its_time = source.iter().position(|(at, _)| *at == last_at).unwrap();
            if n_forgotten > n_read && source[n_forgotten].0 > last_at {
                prop_assert_eq!(lost, Some(Timestamp::from_unix_ms(source[n_forgotten].0)));
            }
            if n_forgotten <= first_of_its_time {
                prop_assert_eq!(lost, None);
                prop_assert_eq!(n_lines, source.len());
            }
        }
    }
}
