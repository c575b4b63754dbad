//! Cuts a byte stream into lines.

use claw_proto::limits::LOG_LINE_BYTES_MAX;

/// Ends a piece of a line that was too long; the next line goes on with it.
pub const CUT_MARK: &[u8] = "…".as_bytes();

/// Collects bytes until a line is complete.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Takes bytes and hands every complete line, without its end, to `line`.
    /// A line over the limit is cut into marked pieces; no byte is lost.
    pub fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.take(&bytes[..end], &mut line);
            line(&self.partial);
            self.partial.clear();
            bytes = &bytes[end + 1..];
        }
        self.take(bytes, &mut line);
    }

    /// Hands out a last line that has no end.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            line(&self.partial);
            self.partial.clear();
        }
    }

    fn take(&mut self, mut bytes: &[u8], line: &mut impl FnMut(&[u8])) {
        // A piece and its mark fit into one line.
        let room = LOG_LINE_BYTES_MAX - CUT_MARK.len();
        while self.partial.len() + bytes.len() > LOG_LINE_BYTES_MAX {
            let n_taken = room.saturating_sub(self.partial.len());
            let (head, rest) = bytes.split_at(n_taken);
            self.partial.extend_from_slice(head);
            let kept = self.partial.split_off(room.min(self.partial.len()));
            self.partial.extend_from_slice(CUT_MARK);
            line(&self.partial);
            self.partial = kept;
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
    }
}
