//! What of a source can be read: lines that hold text, lines that are cut, and what is no text at all.

use super::observe::LINE_BYTES;

/// Of so many characters of a line one may be none, such as a NUL or what stood for bytes that are no text.
const STRANGE: usize = 8;
/// Of so many lines of a source one may be no text; of more, what looks like text does so by chance.
const NOT_TEXT: u64 = 4;

/// What was seen of one source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Legible {
    /// Lines of text that are not blank.
    text: u64,
    /// Lines that are no text.
    strange: u64,
    /// Lines that are longer than what is looked at.
    cut: u64,
}

impl Legible {
    /// Counts a line, given whole or at least beyond [`LINE_BYTES`].
    pub(super) fn line(&mut self, line: &str) {
        self.cut += u64::from(line.len() > LINE_BYTES);
        if !is_text(line) {
            self.strange += 1;
        } else if !line.trim().is_empty() {
            self.text += 1;
        }
    }

    /// Lines that could be read; none of what is not text.
    pub(super) fn lines(&self) -> u64 {
        if self.is_strange() { 0 } else { self.text }
    }

    fn is_strange(&self) -> bool {
        self.strange * NOT_TEXT > self.text + self.strange
    }

    /// What could not be read, in words; nothing if all could.
    pub(super) fn notes(&self, source: &str) -> Vec<String> {
        let mut notes = Vec::new();
        if self.is_strange() {
            notes.push(format!("{source} is not text: unpack it, or convert it to UTF-8"));
        } else if self.strange > 0 {
            notes.push(format!("{} of {source}: not text", lines(self.strange)));
        }
        if self.cut > 0 && !self.is_strange() {
            notes
                .push(format!("{} of {source}: cut, only the first {LINE_BYTES} bytes are looked at", lines(self.cut)));
        }
        notes
    }
}

fn lines(n: u64) -> String {
    if n == 1 { "1 line".to_owned() } else { format!("{n} lines") }
}

/// Is it text, and not bytes of something else that were taken for it?
fn is_text(line: &str) -> bool {
    if !line.contains('\0') && !line.contains(char::REPLACEMENT_CHARACTER) {
        return true;
    }
    let strange = line.chars().filter(|c| matches!(*c, '\0' | char::REPLACEMENT_CHARACTER)).count();
    strange * STRANGE < line.chars().count()
}
