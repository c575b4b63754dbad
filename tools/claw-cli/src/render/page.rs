//! A text that grows line by line.

use super::style::Style;

/// The text so far.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    style: Style,
}

impl Page {
    /// Nothing yet.
    pub(super) fn new(style: Style) -> Self {
        Self { text: String::new(), style }
    }

    /// Adds one line.
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Adds lines, each moved to the right by `depth` steps.
    pub(super) fn block(&mut self, lines: &str, depth: usize) {
        let indent = "  ".repeat(depth);
        for line in lines.lines() {
            if !line.is_empty() {
                self.text.push_str(&indent);
            }
            self.line(line);
        }
    }

    /// Begins a section, apart from what stands before.
    pub(super) fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(&self.style.heading(title));
    }

    /// Adds a name and a value that is not empty, the values under each other.
    pub(super) fn pair(&mut self, name: &str, width: usize, value: &str) {
        if !value.is_empty() {
            self.line(&format!("  {name:<width$}  {value}"));
        }
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}
