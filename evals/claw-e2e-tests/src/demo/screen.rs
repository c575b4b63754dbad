//! What the demo prints.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::Value;

/// The terminal, with colors where they are wanted.
#[derive(Debug, Clone)]
pub(super) struct Screen {
    color: bool,
    steps: u32,
    checks: u32,
}

impl Screen {
    pub(super) fn new() -> Self {
        let color = std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal();
        Self { color, steps: 0, checks: 0 }
    }

    fn line(&self, code: &str, text: &str) {
        let mut out = std::io::stdout().lock();
        let written = if self.color { writeln!(out, "\x1b[{code}m{text}\x1b[0m") } else { writeln!(out, "{text}") };
        // A reader that went away is no failure of the demo.
        drop(written.and_then(|()| out.flush()));
    }

    pub(super) fn title(&self, text: &str) {
        self.line("1", text);
    }

    pub(super) fn step(&mut self, text: &str) {
        self.steps += 1;
        self.line("1;36", &format!("\n── {text}"));
    }

    pub(super) fn say(&self, text: &str) {
        self.line("0", &format!("   {text}"));
    }

    pub(super) fn call(&self, tool: &str, args: &Value) {
        self.line("33", &format!("   → {tool} {args}"));
    }

    pub(super) fn field(&self, name: &str, value: &Value) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.line("0", &format!("   {name}: {text}"));
    }

    pub(super) fn ok(&mut self, text: &str) {
        self.checks += 1;
        self.line("32", &format!("   ✓ {text}"));
    }

    pub(super) fn failed(&self, error: &anyhow::Error) {
        self.line("1;31", &format!("\ndemo FAILED: {error:#}"));
    }

    pub(super) fn summary(&self, took: Duration) {
        let text = format!(
            "\ndemo passed: {} checks in {:.1} s; GPUs and the model were simulated, the command was real",
            self.checks,
            took.as_secs_f32()
        );
        self.line("1;32", &text);
    }
}
