//! The pure layers read no clock, draw no random number and touch nothing outside.

use crate::Finding;
use crate::repo::test_only_files;
use crate::scan::{Source, identifier, skip_blanks};

/// The folders of the pure crates (layers 0 to 2), those to come included.
pub const PURE_FOLDERS: [&str; 8] = [
    "proto/claw-proto/src/",
    "node/molt-core/src/",
    "tools/claw-tools/src/",
    "prompts/claw-prompts/src/",
    "gateway/claw-gateway/src/",
    "gateway/claw-observe/src/",
    "node/molt-market/src/",
    "intents/claw-intents/src/",
];

/// Calls and crates that bring the world in.
const BANNED: [(&str, &str); 8] = [
    ("SystemTime::now", "take the time as an argument"),
    ("Instant::now", "take the time as an argument"),
    ("Timestamp::now", "take the time as an argument"),
    ("Zoned::now", "take the time as an argument"),
    ("rand", "take ids and seeds as arguments"),
    ("getrandom", "take ids and seeds as arguments"),
    ("RandomState", "use an ordered map"),
    ("tokio", "return an effect and let the shell perform it"),
];

/// Modules of `std` that do the same.
const BANNED_STD: [(&str, &str); 5] = [
    ("fs", "let the shell read the file and pass its content"),
    ("net", "addresses are in `core::net`; sockets belong to the shell"),
    ("thread", "return an effect and let the shell perform it"),
    ("process", "return an effect and let the shell perform it"),
    ("env", "take the value as an argument"),
];

/// Finds the world inside the pure crates, outside their tests.
pub fn check_purity(sources: &[Source]) -> Vec<Finding> {
    let test_files = test_only_files(sources);
    let is_pure = |s: &&Source| PURE_FOLDERS.iter().any(|dir| s.path.starts_with(dir));
    let mut findings = Vec::new();
    for source in sources.iter().filter(is_pure) {
        if test_files.contains(&source.path) {
            continue;
        }
        let tests = source.test_spans();
        let mut hits = Vec::new();
        for (word, fix) in BANNED {
            let places = source.code_words(word).into_iter();
            hits.extend(places.map(|at| (at, word.to_owned(), fix)));
        }
        hits.extend(std_modules(source));
        hits.retain(|(at, _, _)| !tests.iter().any(|span| span.contains(at)));
        hits.sort();
        for (at, word, fix) in hits {
            let problem = format!("`{word}` in a pure crate");
            findings.push(Finding::new(&source.path, source.line_of(at), problem, fix));
        }
    }
    findings
}

/// Uses of the banned modules of `std`, as `std::fs` or inside `std::{fs, ..}`.
fn std_modules(source: &Source) -> Vec<(usize, String, &'static str)> {
    let code = &source.code;
    let mut hits = Vec::new();
    for at in source.code_words("std") {
        let head = at + "std::".len();
        if code.get(at..head) != Some("std::") {
            continue;
        }
        for name_at in names_after(code, head) {
            let name = identifier(code, name_at);
            let banned = BANNED_STD.iter().find(|(module, _)| *module == name);
            if let Some((module, fix)) = banned {
                hits.push((name_at, format!("std::{module}"), *fix));
            }
        }
    }
    hits
}

/// Where the first names of a path stand: one, or those of a `{..}` group.
fn names_after(code: &str, head: usize) -> Vec<usize> {
    let bytes = code.as_bytes();
    if bytes.get(head) != Some(&b'{') {
        return vec![head];
    }
    let mut starts = vec![skip_blanks(bytes, head + 1)];
    let mut depth = 0_usize;
    for (index, byte) in bytes.iter().enumerate().skip(head) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => break,
            b'}' => depth -= 1,
            b',' if depth == 1 => starts.push(skip_blanks(bytes, index + 1)),
            _ => {}
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_found_in_code_and_not_in_tests_or_comments() {
        let text = "// SystemTime::now\nuse std::{fmt, net::IpAddr};\nuse std::fs;\nfn f() {\n let t = Instant::now();\n rand::random();\n}\nlet s = \"std::thread\";\n#[cfg(test)]\nmod tests {\n use std::fs;\n fn g() { SystemTime::now(); }\n}\n#[cfg(test)]\nmod props;\n";
        let sources = [
            Source::new("gateway/claw-gateway/src/lib.rs", text),
            Source::new("gateway/claw-gateway/src/props.rs", "use std::fs;"),
            Source::new("gateway/claw-storage/src/lib.rs", "use std::fs;"),
        ];
        let findings = check_purity(&sources);
        let found: Vec<_> = findings.iter().map(|f| (f.line, &*f.problem)).collect();
        let expected = [
            (2, "`std::net` in a pure crate"),
            (3, "`std::fs` in a pure crate"),
            (5, "`Instant::now` in a pure crate"),
            (6, "`rand` in a pure crate"),
        ];
        assert_eq!(found, expected);
    }
}
