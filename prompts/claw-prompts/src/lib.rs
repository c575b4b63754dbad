//! # claw-prompts: every long text that a language model sees
//!
//! The texts stand in `prompts/`, one file each, and are part of the build. A
//! prompt has a name, a version (the file's first line) and a hash, so that a
//! transcript tells exactly what a model was told. What goes into a text is typed:
//! a slot without a value, or a value without a slot, fails the tests.

use sha2::{Digest, Sha256};

/// One text, as it stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// Its file without the ending, such as `intent/propose`.
    pub name: &'static str,
    /// The file.
    file: &'static str,
}

impl Prompt {
    /// Its version, from 1; it rises with every change of the text.
    pub fn version(&self) -> u32 {
        let head = self.file.lines().next().unwrap_or_default();
        head.strip_prefix("version: ").and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// SHA-256 of the file, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
        Sha256::digest(self.file.as_bytes()).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// The text without its head.
    fn text(&self) -> &'static str {
        self.file.split_once("\n\n").map_or("", |(_, text)| text)
    }

    /// The text with its slots filled. A value is not looked into for further slots.
    fn render(&self, values: &[(&str, &str)]) -> String {
        let mut parts = self.text().split("{{");
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (slot, rest) = part.split_once("}}").unwrap_or(("", part));
            let value = values.iter().find(|(name, _)| *name == slot);
            out.push_str(value.map_or("", |(_, value)| value));
            out.push_str(rest);
        }
        out
    }
}

macro_rules! prompt {
    ($name:literal) => {
        Prompt { name: $name, file: include_str!(concat!("../../", $name, ".md")) }
    };
}

/// Asks what a request means.
pub const INTENT_PROPOSE: Prompt = prompt!("intent/propose");
/// Tells why an answer does not pass.
pub const INTENT_REPAIR: Prompt = prompt!("intent/repair");
/// Every prompt.
pub const ALL: [Prompt; 2] = [INTENT_PROPOSE, INTENT_REPAIR];

/// What [`INTENT_PROPOSE`] needs.
#[derive(Debug, Clone, Copy)]
pub struct IntentPropose<'a> {
    /// Ids of the catalogue's models.
    pub models: &'a [&'a str],
}

impl IntentPropose<'_> {
    /// The text.
    pub fn render(&self) -> String {
        INTENT_PROPOSE.render(&[("models", &self.models.join(" "))])
    }
}

/// What [`INTENT_REPAIR`] needs.
#[derive(Debug, Clone, Copy)]
pub struct IntentRepair<'a> {
    /// Why the answer does not pass, one line each.
    pub faults: &'a [String],
}

impl IntentRepair<'_> {
    /// The text.
    pub fn render(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(|fault| format!("- {fault}")).collect();
        INTENT_REPAIR.render(&[("faults", &faults.join("\n"))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every version that there was, with its hash; a line is never changed.
    const VERSIONS: &str = include_str!("../../versions.tsv");

    #[test]
    fn a_changed_text_has_a_new_version() {
        for prompt in ALL {
            let own = format!("{}\t{}\t{}", prompt.name, prompt.version(), prompt.sha256());
            assert!(VERSIONS.lines().any(|line| line == own), "raise the version and add to versions.tsv:\n{own}");
            let of = |line: &&str| line.split('\t').next() == Some(prompt.name);
            let versions = VERSIONS.lines().filter(of).map(|line| line.split('\t').nth(1).and_then(|n| n.parse().ok()));
            let all: Option<Vec<u32>> = versions.collect();
            let expected: Vec<u32> = (1..=prompt.version()).collect();
            assert_eq!(all, Some(expected), "{}: versions rise by one", prompt.name);
        }
    }

    #[test]
    fn every_slot_is_filled_and_nothing_else_changes() {
        let models = ["a-1b", "{{b}}"];
        let text = IntentPropose { models: &models }.render();
        assert!(text.ends_with("Models: a-1b {{b}}\n") && text.matches("{{").count() == 1, "{text}");
        let faults = ["workload.gpu.count: got 8".to_owned()];
        let text = IntentRepair { faults: &faults }.render();
        assert!(text.contains("\n- workload.gpu.count: got 8\n") && !text.contains("{{"), "{text}");
        assert!(!text.contains("version"), "the head is not for the model");
    }
}
