//! How a text may look: colors and width of the place that it goes to.

/// Colors or none, and how wide a table may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Escape sequences are understood and wanted.
    pub(crate) color: bool,
    /// Columns of the terminal; as wide as it takes if absent.
    pub(crate) width: Option<u16>,
}

/// What a word means, which decides its color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As wished.
    Good,
    /// On the way, or to be looked at.
    Warn,
    /// Wrong.
    Bad,
    /// Neither.
    Plain,
}

impl Style {
    /// Neither colors nor a width.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { color: false, width: None };

    fn wrap(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// The title of a section.
    pub(crate) fn heading(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Less important.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// In the color of its meaning.
    pub(crate) fn toned(self, tone: Tone, text: &str) -> String {
        match tone {
            Tone::Good => self.wrap("32", text),
            Tone::Warn => self.wrap("33", text),
            Tone::Bad => self.wrap("31", text),
            Tone::Plain => text.to_owned(),
        }
    }
}

/// What the words of states, effects and health mean.
pub(crate) fn tone_of(word: &str) -> Tone {
    match word {
        "running" | "completed" | "online" | "active" | "accepted" | "healthy" | "succeeded" | "approved" | "ok" => {
            Tone::Good
        }
        "pending" | "placed" | "pulling" | "starting" | "stopping" | "queued" | "planned" | "cordoned" | "draining"
        | "drained" | "enrolled" | "degraded" | "waiting" | "open" | "expired" | "warn" => Tone::Warn,
        "failed" | "lost" | "unreachable" | "refused" | "rejected" | "fail" => Tone::Bad,
        _ => Tone::Plain,
    }
}
