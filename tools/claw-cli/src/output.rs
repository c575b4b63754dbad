//! The one place that writes to the terminal.
//!
//! Answers go to standard output, everything else (errors, plans to be confirmed, progress) to
//! standard error. A reader that went away (`claw … | head`) is no error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::error::CliError;
use crate::render::{self, Style};

/// Clears the screen and goes to its upper left corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[3J\u{1b}[H";

/// Standard output and standard error, and what they understand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    json: bool,
    out: Style,
    err: Style,
    out_is_terminal: bool,
    err_is_terminal: bool,
    in_is_terminal: bool,
}

impl Screen {
    /// Looks at where the output goes. Colors only on a terminal, and not if `NO_COLOR` is set.
    pub(crate) fn detect(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty());
        let out_is_terminal = io::stdout().is_terminal();
        let err_is_terminal = io::stderr().is_terminal();
        let style = |terminal: bool| Style { color: terminal && wanted, width: None };
        let width = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col);
        Self {
            json,
            out: Style {
                width: out_is_terminal.then(width).flatten().filter(|columns| *columns > 0),
                ..style(out_is_terminal)
            },
            err: style(err_is_terminal),
            out_is_terminal,
            err_is_terminal,
            in_is_terminal: io::stdin().is_terminal(),
        }
    }

    /// A person can be asked.
    pub(crate) fn is_interactive(&self) -> bool {
        self.in_is_terminal && self.err_is_terminal && !self.json
    }

    /// Answers are printed as they came.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// How standard output may look.
    pub(crate) fn style(&self) -> Style {
        self.out
    }

    /// How standard error may look.
    pub(crate) fn note_style(&self) -> Style {
        self.err
    }

    /// Prints JSON: in lines for people, in one line for programs.
    pub(crate) fn json(&self, content: &Value) -> io::Result<()> {
        let text = if self.out_is_terminal { format!("{content:#}\n") } else { format!("{content}\n") };
        self.print(&text)
    }

    /// Prints an answer's text.
    #[expect(clippy::unused_self, reason = "only who holds the screen may write to it")]
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        still_read(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }

    /// Prints an answer in the place of the one before.
    pub(crate) fn redraw(&self, text: &str) -> io::Result<()> {
        if self.out_is_terminal && !self.json { self.print(&format!("{CLEAR}{text}")) } else { self.print(text) }
    }

    /// Says something that is not the answer.
    #[expect(clippy::unused_self, reason = "only who holds the screen may write to it")]
    pub(crate) fn note(&self, text: &str) -> io::Result<()> {
        still_read(io::stderr().lock().write_all(text.as_bytes()))
    }

    /// Says what went wrong. What the gateway said itself is the answer, if JSON is wanted.
    pub(crate) fn error(&self, error: &CliError) -> io::Result<()> {
        match error {
            CliError::Refused { content, .. } | CliError::Fault { content, .. } if self.json => self.json(content),
            _ => self.note(&render::error(error, self.err)),
        }
    }

    /// Asks for a line.
    pub(crate) fn ask(&self, question: &str) -> io::Result<String> {
        self.note(question)?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Shows on a terminal that something is waited for, until it is dropped.
    pub(crate) fn wait(&self, what: &str) -> Waiting {
        if !self.err_is_terminal || self.json {
            return Waiting(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Waiting(Some(bar))
    }
}

/// A sign of waiting; gone when dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Option<ProgressBar>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn still_read(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
