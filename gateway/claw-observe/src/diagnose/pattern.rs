//! Regular expressions whose work can be counted: tests bound the bytes that are searched.

use std::borrow::Cow;

use regex::{CaptureMatches, Captures, Match, Matches, Regex};

/// A compiled expression.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

/// Compiles a constant expression.
pub(super) fn regex(pattern: &str) -> Pattern {
    Pattern(Regex::new(pattern).expect("a constant pattern; compiled by the tests"))
}

impl Pattern {
    /// The expression, about to search a text: that is counted.
    fn search(&self, text: &str) -> &Regex {
        work::add(text.len());
        &self.0
    }

    /// Is it anywhere in the text?
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.search(text).is_match(text)
    }

    /// The first match.
    pub(super) fn find<'t>(&self, text: &'t str) -> Option<Match<'t>> {
        self.search(text).find(text)
    }

    /// All matches.
    pub(super) fn find_iter<'r, 't>(&'r self, text: &'t str) -> Matches<'r, 't> {
        self.search(text).find_iter(text)
    }

    /// The first match with its groups.
    pub(super) fn captures<'t>(&self, text: &'t str) -> Option<Captures<'t>> {
        self.search(text).captures(text)
    }

    /// All matches with their groups.
    pub(super) fn captures_iter<'r, 't>(&'r self, text: &'t str) -> CaptureMatches<'r, 't> {
        self.search(text).captures_iter(text)
    }

    /// The text with all matches replaced.
    pub(super) fn replace_all<'t>(&self, text: &'t str, by: &str) -> Cow<'t, str> {
        self.search(text).replace_all(text, by)
    }

    /// Has it a group of that name?
    pub(super) fn has_group(&self, name: &str) -> bool {
        self.0.capture_names().any(|group| group == Some(name))
    }
}

/// Bytes searched and literals hit by this thread; counted in tests only.
pub(super) mod work {
    #[cfg(test)]
    thread_local! {
        static DONE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    /// Adds to what was done.
    #[cfg_attr(not(test), expect(clippy::missing_const_for_fn, reason = "counts in tests"))]
    pub(in crate::diagnose) fn add(n: usize) {
        #[cfg(test)]
        DONE.with(|done| done.set(done.get() + n as u64));
        let _ = n;
    }

    /// What was done since the last time.
    #[cfg(test)]
    pub(in crate::diagnose) fn take() -> u64 {
        DONE.with(std::cell::Cell::take)
    }
}
