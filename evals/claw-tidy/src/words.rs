//! Words that confess unfinished work, sleeps in tests, and paths of one machine.
//!
//! The patterns are put together from pieces so that this file does not hold them.

use std::path::Path;

use crate::Finding;
use crate::repo::test_only_files;
use crate::scan::{Source, line_of, skip_blanks};

/// Words that stand in no Rust file and no document; letter case does not matter.
const CONFESSIONS: [&str; 9] = [
    concat!("to", "do!"),
    concat!("un", "implemented!"),
    concat!("not yet ", "implemented"),
    concat!("not ", "implemented"),
    concat!("in production ", "this would"),
    concat!("in production, ", "this would"),
    concat!("place", "holder"),
    concat!("for now, ", "just"),
    concat!("for now ", "just"),
];

/// Words that stand in no Rust file.
const RUST_WORDS: [(&str, &str); 2] = [
    (concat!("db", "g!"), "use `tracing`, or take it out"),
    (concat!("#[", "ignore"), "a test that needs a tool skips loudly, and CI has the tool"),
];

/// Calls that stand in no Rust file: (name, way out).
const CALLS: [(&str, &str); 3] = [
    ("unbounded_channel", "give the queue a bound, and say what happens when it is full"),
    ("set_var", "pass the value; the environment belongs to all threads"),
    ("remove_var", "pass the value; the environment belongs to all threads"),
];

/// Folders that exist on one machine only.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "farm/"), concat!("/tmp/", "bash_jobs")];

/// Finds words of the unfinished, in one file.
pub fn check_words(path: &str, text: &str) -> Vec<Finding> {
    let lower = text.to_ascii_lowercase();
    let mut findings = Vec::new();
    for word in CONFESSIONS {
        for (at, _) in lower.match_indices(word) {
            findings.push(Finding::new(
                path,
                line_of(text, at),
                format!("the words `{word}`"),
                "finish it; what is really left out refuses with a code and stands in gateway/docs/gaps.md",
            ));
        }
    }
    if Path::new(path).extension().is_some_and(|end| end == "rs") {
        for (word, fix) in RUST_WORDS {
            for (at, _) in text.match_indices(word) {
                let problem = format!("`{word}`");
                findings.push(Finding::new(path, line_of(text, at), problem, fix));
            }
        }
    }
    findings
}

/// Finds paths of one machine, in one file of any kind.
pub fn check_machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in MACHINE_PATHS {
        for (at, _) in text.match_indices(word) {
            findings.push(Finding::new(
                path,
                line_of(text, at),
                format!("`{word}` is a path of one machine"),
                "use a path from the configuration, a temporary folder, or `/srv/...` in an example",
            ));
        }
    }
    findings
}

/// Finds queues without a bound and changes of the environment.
pub fn check_calls(source: &Source) -> Vec<Finding> {
    let mut hits = Vec::new();
    for (call, fix) in CALLS {
        let places = source.code_words(call).into_iter();
        hits.extend(places.map(|at| (at, call, fix)));
    }
    let queue = "mpsc::channel";
    for at in source.code_words(queue) {
        let rest = &source.code[at + queue.len()..];
        let rest = match rest.strip_prefix("::<") {
            Some(turbofish) => turbofish.split_once(">(").map_or("", |(_, rest)| rest),
            None => rest.strip_prefix('(').unwrap_or_default(),
        };
        if rest.starts_with(')') {
            hits.push((at, "std::sync::mpsc::channel", "use `sync_channel` with a bound"));
        }
    }
    let finding = |(at, call, fix): (usize, &str, &str)| {
        let problem = format!("`{call}`");
        Finding::new(&source.path, source.line_of(at), problem, fix)
    };
    hits.into_iter().map(finding).collect()
}

/// Functions in which a test may sleep: the one loop that polls, with a deadline.
fn may_sleep(function: &str) -> bool {
    ["poll", "deadline"].iter().any(|word| function.contains(word))
}

/// Finds sleeps in test code: tests wait for a condition, not for time to pass.
pub fn check_sleeps(sources: &[Source]) -> Vec<Finding> {
    let test_files = test_only_files(sources);
    let is_judge = |path: &str| path.starts_with("evals/claw-e2e-tests/");
    let mut findings = Vec::new();
    for source in sources {
        let whole = is_judge(&source.path) || test_files.contains(&source.path);
        let spans = source.test_spans();
        for at in sleep_calls(source) {
            let in_test = whole || spans.iter().any(|span| span.contains(&at));
            let function = source.enclosing_function(at).map(|f| f.name);
            if in_test && !function.as_deref().is_some_and(may_sleep) {
                findings.push(Finding::new(
                    &source.path,
                    source.line_of(at),
                    "a test sleeps",
                    "wait for the condition in a helper with a deadline (its name says `poll` or `deadline`)",
                ));
            }
        }
    }
    findings
}

/// Calls of any `sleep(..)`, whatever path leads to it.
fn sleep_calls(source: &Source) -> Vec<usize> {
    let bytes = source.code.as_bytes();
    let called = |at: &usize| bytes.get(skip_blanks(bytes, at + "sleep".len())) == Some(&b'(');
    let declared = |at: &usize| source.code[..*at].trim_end().ends_with("fn");
    let places = source.code_words("sleep").into_iter();
    places.filter(|at| called(at) && !declared(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_confession_is_found_in_any_case() {
        for word in CONFESSIONS {
            let text = format!("fine\n// {}\n", word.to_uppercase());
            let findings = check_words("a.md", &text);
            assert!(findings.iter().any(|f| f.line == 2), "{word}");
        }
        for (word, _) in RUST_WORDS {
            assert_eq!(check_words("a.rs", word).len(), 1, "{word}");
            assert_eq!(check_words("a.md", word).len(), 0, "{word}");
        }
    }

    #[test]
    fn unbounded_queues_and_changes_of_the_environment_are_found() {
        let text = "fn f() {\n unbounded_channel::<u8>();\n unsafe { env::set_var(a, b) };\n mpsc::channel::<Vec<u8>>();\n mpsc::channel();\n mpsc::channel(8); mpsc::channel::<u8>(8);\n oneshot::channel();\n}\n";
        let findings = check_calls(&Source::new("a.rs", text));
        let mut lines: Vec<_> = findings.iter().map(|f| f.line).collect();
        lines.sort_unstable();
        assert_eq!(lines, [2, 3, 4, 5]);
    }

    #[test]
    fn machine_paths_are_found() {
        for word in MACHINE_PATHS {
            let text = format!("a\nb {word}x\n");
            assert_eq!(check_machine_paths("x.toml", &text)[0].line, 2, "{word}");
        }
    }

    #[test]
    fn sleeps_are_found_in_tests_only_and_not_in_the_polling_helper() {
        let lib = "fn f() { thread::sleep(d); }\n#[cfg(test)]\nmod tests {\n fn t() { std::thread::sleep(d); }\n fn poll_until() { sleep(d); }\n fn sleep() {}\n}\n";
        let sources = [
            Source::new("node/clawnode/src/lib.rs", lib),
            Source::new("node/clawnode/tests/all.rs", "fn t() {\n tokio::time::sleep (d).await; }"),
            Source::new("evals/claw-e2e-tests/src/lib.rs", "fn t() { sleep(d) }"),
        ];
        let findings = check_sleeps(&sources);
        let found: Vec<_> = findings.iter().map(|f| (&*f.path, f.line)).collect();
        let expected = [
            ("node/clawnode/src/lib.rs", 4),
            ("node/clawnode/tests/all.rs", 2),
            ("evals/claw-e2e-tests/src/lib.rs", 1),
        ];
        assert_eq!(found, expected);
    }
}
