//! Documents: links lead somewhere, paths in the text exist, and every promise of the
//! README has a test.

use std::collections::BTreeSet;

use crate::Finding;
use crate::metadata::Workspace;
use crate::repo::Repo;
use crate::scan::{Source, identifier, skip_blanks};

/// The document with the promises.
pub const README: &str = "README.md";
/// The document with the code map.
pub const MAP: &str = "ARCHITECTURE.md";

/// The top-level folders: a path in a document that begins with one must exist.
const FOLDERS: [&str; 7] = ["proto/", "tools/", "prompts/", "intents/", "gateway/", "node/", "evals/"];

/// The documents every folder of the map has, and those at the root.
const REQUIRED: [&str; 16] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "gateway/docs/gaps.md",
    "gateway/docs/guide/user.md",
    "gateway/docs/adr/README.md",
    "proto/README.md",
    "tools/README.md",
    "prompts/README.md",
    "intents/README.md",
    "gateway/README.md",
    "node/README.md",
    "evals/README.md",
    "dev",
];

/// A folder's README is one screen.
const SCREEN_LINES: usize = 60;

/// The documents are there, and those of the folders fit one screen.
pub fn check_required(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in REQUIRED {
        let Some(text) = repo.text(path) else {
            findings.push(Finding::new(path, 0, "the file is missing", "write it"));
            continue;
        };
        let of_folder = path.ends_with("/README.md") && path.matches('/').count() == 1;
        let lines = text.lines().count();
        if of_folder && lines > SCREEN_LINES {
            let problem = format!("{lines} lines, more than one screen ({SCREEN_LINES})");
            let fix = "keep what the folder owns, what it must never know, how to add one";
            findings.push(Finding::new(path, SCREEN_LINES + 1, problem, fix));
        }
    }
    findings
}

/// Links between documents lead to files and headings that exist.
pub fn check_links(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in repo.with_extension(&[".md"]) {
        for (line, target) in links(text) {
            let is_remote = target.contains("://") || target.starts_with("mailto:");
            if !is_remote && !leads_somewhere(repo, path, &target) {
                let problem = format!("the link `{target}` leads nowhere");
                let fix = "correct the path or the heading, counted from this file's folder";
                findings.push(Finding::new(path, line, problem, fix));
            }
        }
    }
    findings
}

/// The targets of `[text](target)` outside code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, prose) in prose_lines(text) {
        let prose = without_code_spans(prose);
        for (at, _) in prose.match_indices("](") {
            let rest = &prose[at + 2..];
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            found.push((line, target.to_owned()));
        }
    }
    found
}

/// Lines outside fenced code blocks, numbered from 1.
fn prose_lines(text: &str) -> Vec<(usize, &str)> {
    let mut in_fence = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        } else if !in_fence {
            lines.push((index + 1, line));
        }
    }
    lines
}

fn without_code_spans(line: &str) -> String {
    let outside = line.split('`').step_by(2);
    outside.collect::<Vec<_>>().join(" ")
}

fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

fn leads_somewhere(repo: &Repo, from: &str, target: &str) -> bool {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => from.to_owned(),
        _ => join(from, file),
    };
    if !repo.exists(&path) {
        return false;
    }
    anchor.is_empty() || repo.text(&path).is_some_and(|text| anchors(text).contains(anchor))
}

/// `target` seen from the folder of `from`.
fn join(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a document's headings, as code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose_lines(text).into_iter();
    let headings = headings.filter(|(_, line)| line.starts_with('#'));
    headings
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
            title.chars().filter(kept).collect::<String>().replace(' ', "-")
        })
        .collect()
}

/// Paths in code spans of the documents exist. Rows of the component table that say
/// `not yet` are left out: there the absence is the statement. So are patterns.
pub fn check_paths(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in repo.with_extension(&[".md"]) {
        for (line, prose) in prose_lines(text) {
            if prose.trim_end().ends_with("| not yet |") {
                continue;
            }
            for span in code_spans(prose) {
                let is_pattern = span.contains(['*', '<', '{', ' ', '…', '$']);
                let is_ours = FOLDERS.iter().any(|folder| span.starts_with(folder));
                if is_ours && !is_pattern && !repo.exists(span) {
                    let problem = format!("`{span}` does not exist");
                    findings.push(Finding::new(path, line, problem, "correct the path"));
                }
            }
        }
    }
    findings
}

/// Every crate has a row in the code map and a place in the drawing of the layers.
pub fn check_map(repo: &Repo, workspace: &Workspace) -> Vec<Finding> {
    let text = repo.text(MAP).unwrap_or_default();
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        let row = format!("| `{}` |", krate.folder);
        if !text.lines().any(|line| line.starts_with(&row)) {
            let problem = format!("{} has no row in the code map", krate.folder);
            findings.push(Finding::new(MAP, 0, problem, format!("add `{row} what it owns |`")));
        }
        let drawn = |line: &str| line.split_whitespace().any(|word| word == krate.name);
        if !text.lines().any(|line| line.starts_with('L') && drawn(line)) {
            let problem = format!("{} is not in the drawing of the layers", krate.name);
            findings.push(Finding::new(MAP, 0, problem, "add it to its line `L<n> ...`"));
        }
    }
    findings
}

/// Where the operations are listed.
pub const REGISTRY: &str = "tools/claw-tools/src/registry.rs";

/// Commands of `claw` that are no operations.
const LOCAL_COMMANDS: [&str; 10] =
    ["bench", "eval", "model", "call", "tools", "up", "doctor", "mcp", "completion", "help"];

/// Every `claw <noun> <verb>` that a document or a comment shows is an operation of the registry.
pub fn check_commands(repo: &Repo) -> Vec<Finding> {
    let registry = repo.text(REGISTRY).unwrap_or_default();
    let names: BTreeSet<&str> =
        registry.lines().filter_map(|line| line.split_once(" = \"")?.1.split('"').next()).collect();
    let documents = repo.with_extension(&[".md"]).into_iter().map(|(path, text)| (path, shown_commands(text)));
    let comments = repo.with_extension(&[".rs"]).into_iter().map(|(path, text)| (path, commented_commands(text)));
    let mut findings = Vec::new();
    for (path, shown) in documents.chain(comments) {
        for (line, command) in shown.iter().filter(|(_, command)| !is_command(&names, command)) {
            let problem = format!("`claw {command}` is no command");
            findings.push(Finding::new(path, *line, problem, "`claw tools` lists the operations"));
        }
    }
    findings
}

/// What stands behind `claw ` in code spans of a Rust file's comments.
fn commented_commands(text: &str) -> Vec<(usize, String)> {
    let comments = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
    let spans = comments.flat_map(|(index, line)| code_spans(line).into_iter().map(move |span| (index + 1, span)));
    spans.filter_map(|(line, span)| Some((line, span.strip_prefix("claw ")?.to_owned()))).collect()
}

/// What stands behind `claw ` at the start of a line of a code block or of a code span.
fn shown_commands(text: &str) -> Vec<(usize, String)> {
    let mut in_fence = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            continue;
        }
        let codes = if in_fence { vec![line.trim()] } else { code_spans(line) };
        for code in codes {
            let code = code.strip_prefix("./dev ").unwrap_or(code);
            if let Some(rest) = code.strip_prefix("claw ") {
                found.push((index + 1, rest.to_owned()));
            }
        }
    }
    found
}

fn is_command(names: &BTreeSet<&str>, command: &str) -> bool {
    let mut words = command.split_whitespace();
    let noun = words.next().unwrap_or_default();
    let is_open = !noun.starts_with(|c: char| c.is_ascii_lowercase());
    if is_open || LOCAL_COMMANDS.contains(&noun) || names.contains(noun) {
        return true;
    }
    let verb = words.next().unwrap_or_default().replace('-', "_");
    names.contains(format!("{noun}_{verb}").as_str())
}

/// Every row of the README's promises names tests that exist.
pub fn check_promises(repo: &Repo, sources: &[Source]) -> Vec<Finding> {
    let tests: BTreeSet<String> = sources.iter().flat_map(test_names).collect();
    let text = repo.text(README).unwrap_or_default();
    let rows = promise_rows(text);
    let mut findings = Vec::new();
    if rows.is_empty() {
        let problem = "there is no table whose head begins with `promise`";
        findings.push(Finding::new(README, 0, problem, "add it, with the columns promise | test"));
    }
    for (line, row) in rows {
        let cells: Vec<&str> = row.trim().trim_matches('|').split('|').collect();
        let named = code_spans(cells.last().copied().unwrap_or_default());
        if named.is_empty() {
            let fix = "name the test's function in backticks in the last column, or take the row out";
            findings.push(Finding::new(README, line, "the promise names no test", fix));
        }
        for name in named.iter().filter(|name| !tests.contains(**name)) {
            let problem = format!("the promise names the test `{name}`, which does not exist");
            findings.push(Finding::new(README, line, problem, "name the right one, or take the row out"));
        }
    }
    findings
}

fn promise_rows(text: &str) -> Vec<(usize, &str)> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (line, prose) in prose_lines(text) {
        if !prose.starts_with('|') {
            inside = false;
        } else if prose.starts_with("| promise") {
            inside = true;
        } else if inside && !prose.contains("---") {
            rows.push((line, prose));
        }
    }
    rows
}

/// Names of test functions: those whose attribute ends in `test` or `test(..)`.
fn test_names(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut names = Vec::new();
    for at in source.code_words("test") {
        let after = &code[at + "test".len()..];
        let in_attribute = code[..at].trim_end_matches(is_path_char).ends_with("#[");
        let closes = after.starts_with(']') || after.starts_with('(');
        let Some(head) = after.find("fn ").filter(|_| in_attribute && closes) else {
            continue;
        };
        let name_at = at + "test".len() + head + "fn ".len();
        names.push(identifier(code, skip_blanks(code.as_bytes(), name_at)).to_owned());
    }
    names
}

fn is_path_char(c: char) -> bool {
    c == ':' || c == '_' || c.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests;
