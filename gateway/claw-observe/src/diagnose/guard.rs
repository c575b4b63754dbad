//! Tells a fault from text about a fault: quoted, typed, documented or searched for.

use std::sync::LazyLock;

use super::envelope::Envelope;
use super::observe::cut;
use super::pattern::{Pattern, regex};
use super::rules::Input;

/// Words before a match that make it prose, a command or a rule about the message.
static PROSE: LazyLock<Pattern> = LazyLock::new(|| {
    regex(concat!(
        r"(?i)(?:\b(?:if|whenever|e\.g\.|for example|such as|grep|egrep|zgrep|ripgrep|awk|sed|echo|printf|logger",
        r"|(?-i:COMMAND)|documentation|docs|faq|explain|explains|explained|prompt|question|answer|asked|said|says|wrote|quoted?|quotes",
        r"|searching|pattern|patterns|regex|regexp|handler|todo|hint|tip|troubleshoot\w*|simulat\w+|inject\w*|fake|mock|sample|common (?:errors|issues|problems)|label(?: text)?",
        r"|comment|runbook|wiki|ticket|postmortem|tutorial|readme|journalctl|describe|describes|means|mean|describing|indicates?|indicating|denotes?|forum|subject|title|commit|fixed|fixes|changelog|release note\w*|matching",
        r"|(?:we|i) (?:have|had|are|am|were|was|see|saw|get|got|hit|replaced|noticed|observed)|you (?:will|can|may|might|get|see)|to (?:avoid|fix|prevent)|how to \w+)\b",
        r"|^\W*(?:for|in case of|regarding|about)\b|\bexamples?(?:[\s:,]|$)|https?://|^\W*[\w./\-]+\.py::\w|=== RUN|--- (?:PASS|FAIL)|\b(?:no|without|zero) $|\busage:|--help\b|\bdmesg\b[^:]*\||\bcat \S|user(?: prompt)?:|assistant:|<\|)",
    ))
});

/// A line that is a comment, a quotation, a shell prompt or source code.
static QUOTED_LINE: LazyLock<Pattern> = LazyLock::new(|| {
    regex(concat!(
        r"^\s*(?:#(?:[^\d]|$)|//|</?[a-z]+[ >]|> |\$ |\+ \w|\| |/?\*\s|\w+@[\w.\-]+[:~ ][^ ]*[$#] |[\w.\-]+:~?[/\w]*[$#] ",
        r"|(?:raise|return|if|elif|print|assert|warnings\.warn|log(?:ger|ging)?\.\w+|throw|except|def|const|let|var|parser|expect)\b[ (].*[(\x22'`])",
    ))
});

/// Bytes after a match in which such words stand.
const EXPLAINED_BYTES: usize = 80;

/// Words after a match that turn it into an explanation.
static EXPLAINED: LazyLock<Pattern> = LazyLock::new(|| {
    regex(
        r"(?i)^\W{0,6}(?:means|indicates|is documented|stands for|errors? (?:are|can|may)|(?:check|reduce|clean|increase|see)\b|(?:is|are) (?:raised|thrown|printed|logged|reported|returned) (?:when|if|by)\b|then |in (?:the )?(?:docs|log\b)|\?)",
    )
});

/// Programs that write what the kernel or the driver told them.
static SYSTEM_TAG: LazyLock<Pattern> = LazyLock::new(|| {
    regex(
        r"(?i)^(?:kernel|kern|nvidia|nv[-_]|nvml|dcgm|gpud|node-problem|npd|vgpu|fabric|dmesg|kmsg|kubelet|containerd|dockerd|systemd|rsyslog|slurmd|mlx|openibd|unknown$)",
    )
});

/// May a match at `start` to `end` of `message` count?
pub(super) fn accepts(input: Input, envelope: &Envelope<'_>, message: &str, start: usize, end: usize) -> bool {
    let before = message.get(..start).unwrap_or_default();
    let after = message.get(end..).unwrap_or_default();
    if QUOTED_LINE.is_match(message)
        || before.contains('`')
        || PROSE.is_match(before)
        || EXPLAINED.is_match(cut(after, EXPLAINED_BYTES))
    {
        return false;
    }
    match input {
        Input::Kernel => {
            let foreign = envelope.tag.as_deref().is_some_and(|tag| !SYSTEM_TAG.is_match(tag));
            let field = ["=\"", ":\"", ": \"", "='"].iter().any(|end| before.trim_end().ends_with(end));
            let quote = !field && (before.trim_end().ends_with(['"', '\'']) || before.contains("\" "));
            !foreign && !quote && !before.trim_start().starts_with(['-', '>', '#'])
        }
        Input::Any | Input::Workload => !typed(envelope.tag.as_deref()),
    }
}

/// Was it typed by a person, as the tag of the line tells?
fn typed(tag: Option<&str>) -> bool {
    matches!(tag, Some("sudo" | "su" | "bash" | "sh" | "zsh" | "logger"))
}

/// How many words stand before a match; a kernel message has few.
pub(super) fn words(before: &str) -> usize {
    before
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() > 2 && word.chars().all(|c| c.is_ascii_alphabetic()))
        .count()
}
