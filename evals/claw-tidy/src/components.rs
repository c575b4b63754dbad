//! The component table of ARCHITECTURE.md against the tree and the list of 35 components.
//!
//! A table that nobody checks tells lies within a month. This one names, for each
//! component, its place, its key types and how far it is; each of the three is looked up.

use std::collections::BTreeSet;

use crate::Finding;
use crate::repo::{Repo, test_only_files};
use crate::scan::{Source, identifier, skip_blanks, words};

/// The document with the table.
pub const DOCUMENT: &str = "ARCHITECTURE.md";
/// The list of components that the project was founded on.
pub const LIST: &str = "evals/claw-tidy/components.tsv";

/// One line of the founding list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// The names of its key types (entries of the list that are words, not type names, are
    /// left out).
    pub types: Vec<String>,
    /// Where it stands.
    pub home: String,
}

/// How far a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// All of its key types are there.
    Built,
    /// Some are; the text says which are not, and why.
    Partly(String),
    /// None is.
    NotYet,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Line in the document.
    pub line: usize,
    /// Component name.
    pub name: String,
    /// `crate` or `module`.
    pub kind: String,
    /// Path from the root.
    pub place: String,
    /// Names of types.
    pub types: Vec<String>,
    /// How far it is; none if the cell is in no known form.
    pub state: Option<State>,
}

/// Reads the founding list.
pub fn read_list(tsv: &str) -> Vec<Component> {
    let mut components = Vec::new();
    for line in tsv.lines().skip(1).filter(|line| !line.is_empty()) {
        let mut cells = line.split('\t');
        let mut next = || cells.next().unwrap_or_default().trim().to_owned();
        let (name, types, home) = (next(), next(), next());
        let types = types.split(',').map(str::trim).filter(|t| is_type_name(t));
        components.push(Component { name, types: types.map(str::to_owned).collect(), home });
    }
    components
}

fn is_type_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Reads the table: the one whose head begins with `component`.
pub fn read_table(document: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (index, line) in document.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let cells: Vec<&str> = cells.into_iter().map(str::trim).collect();
        if !line.trim_start().starts_with('|') {
            inside = false;
        } else if cells.first() == Some(&"component") {
            inside = true;
        } else if inside && !line.contains("---") {
            rows.push(read_row(index + 1, &cells));
        }
    }
    rows
}

fn read_row(line: usize, cells: &[&str]) -> Row {
    let cell = |index: usize| cells.get(index).copied().unwrap_or_default();
    let plain = |index: usize| cell(index).replace('`', "");
    let types = plain(3);
    let types = types.split(',').map(str::trim).filter(|t| is_type_name(t));
    Row {
        line,
        name: plain(0),
        kind: plain(1),
        place: plain(2),
        types: types.map(str::to_owned).collect(),
        state: read_state(&plain(4)),
    }
}

fn read_state(text: &str) -> Option<State> {
    match text.split_once(": ") {
        None if text == "built" => Some(State::Built),
        None if text == "not yet" => Some(State::NotYet),
        Some(("partly", rest)) if !rest.is_empty() => Some(State::Partly(rest.to_owned())),
        _ => None,
    }
}

/// Joins table, list and tree.
pub fn check_components(repo: &Repo, sources: &[Source]) -> Vec<Finding> {
    let list = read_list(repo.text(LIST).unwrap_or_default());
    let rows = read_table(repo.text(DOCUMENT).unwrap_or_default());
    let mut findings = Vec::new();
    for component in &list {
        let own: Vec<&Row> = rows.iter().filter(|r| r.name == component.name).collect();
        match own.as_slice() {
            [row] => findings.extend(check_row(repo, sources, component, row)),
            others => findings.push(Finding::new(
                DOCUMENT,
                others.last().map_or(0, |row| row.line),
                format!("{} has {} rows in the table", component.name, others.len()),
                "each component of the founding list has exactly one",
            )),
        }
    }
    let known: BTreeSet<&str> = list.iter().map(|c| c.name.as_str()).collect();
    for row in rows.iter().filter(|row| !known.contains(row.name.as_str())) {
        findings.push(row.finding(
            format!("{} is not in {LIST}", row.name),
            "the table has the components of the founding list only; other crates stand in the code map",
        ));
    }
    findings
}

impl Row {
    fn finding(&self, problem: String, fix: &str) -> Finding {
        Finding::new(DOCUMENT, self.line, problem, fix)
    }
}

fn check_row(repo: &Repo, sources: &[Source], component: &Component, row: &Row) -> Vec<Finding> {
    let name = &row.name;
    let mut findings = Vec::new();
    if stem(&row.place) != stem(&component.home) {
        let problem = format!("{name} stands at {} by the founding list", component.home);
        findings.push(row.finding(problem, "move the code, or write an ADR and change both"));
    }
    let kind = match row.place.matches('/').count() {
        1 => "crate",
        _ => "module",
    };
    if row.kind != kind {
        let problem = format!("{name} is a {kind}, by its place");
        findings.push(row.finding(problem, "correct the kind"));
    }
    let Some(state) = &row.state else {
        let problem = format!("the state of {name} is in no known form");
        let fix = "write `built`, `partly: <what is missing>` or `not yet`";
        findings.push(row.finding(problem, fix));
        return findings;
    };
    let place = Place::read(repo, sources, &row.place, name);
    findings.extend(match state {
        State::NotYet => check_absent(component, row, &place),
        State::Built => check_present(component, row, &place, ""),
        State::Partly(missing) => check_present(component, row, &place, missing),
    });
    findings
}

/// A path without `.rs`, so that a module may be a file or a folder.
fn stem(path: &str) -> &str {
    path.trim_end_matches('/').trim_end_matches(".rs")
}

/// What stands at a component's place.
struct Place {
    exists: bool,
    types: BTreeSet<String>,
    titled: bool,
}

impl Place {
    fn read(repo: &Repo, sources: &[Source], place: &str, name: &str) -> Self {
        let file = format!("{}.rs", stem(place));
        let folder = format!("{}/", stem(place));
        let tests = test_only_files(sources);
        let here = |s: &&Source| s.path == file || s.path.starts_with(&folder);
        let own: Vec<&Source> = sources.iter().filter(here).filter(|s| !tests.contains(&s.path)).collect();
        let titles: Vec<&str> = own.iter().filter_map(|s| title(&s.text)).collect();
        Self {
            exists: repo.exists(&file) || repo.exists(&folder),
            types: own.iter().flat_map(|s| declared_types(s)).collect(),
            titled: titles.contains(&name),
        }
    }
}

/// The component that a file's module doc begins with: `//! # claw-pki: ...`.
fn title(text: &str) -> Option<&str> {
    let first = text.lines().next()?.strip_prefix("//! # ")?;
    first.split(':').next().map(str::trim)
}

/// Types that a file declares.
fn declared_types(source: &Source) -> Vec<String> {
    let tests = source.test_spans();
    let mut types = Vec::new();
    for keyword in ["struct", "enum", "trait", "type", "union"] {
        for at in source.code_words(keyword) {
            let name_at = skip_blanks(source.code.as_bytes(), at + keyword.len());
            let name = identifier(&source.code, name_at);
            if !name.is_empty() && !tests.iter().any(|span| span.contains(&at)) {
                types.push(name.to_owned());
            }
        }
    }
    types.extend(macro_types(source));
    types
}

/// Types declared through a macro of the form `name! { Type { .. } }`.
fn macro_types(source: &Source) -> Vec<String> {
    let bytes = source.code.as_bytes();
    let mut types = Vec::new();
    for (at, _) in source.code.match_indices("! {") {
        let name_at = skip_blanks(bytes, at + "! {".len());
        let name = identifier(&source.code, name_at);
        let after = skip_blanks(bytes, name_at + name.len());
        if is_type_name(name) && bytes.get(after) == Some(&b'{') {
            types.push(name.to_owned());
        }
    }
    types
}

fn check_absent(component: &Component, row: &Row, place: &Place) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in component.types.iter().filter(|t| place.types.contains(*t)) {
        findings.push(row.finding(
            format!("{} is `not yet`, but {name} is declared there", row.name),
            "say `built` or `partly: ...`",
        ));
    }
    findings
}

/// `missing` is the text behind `partly:`; a key type may be absent only if it says so.
fn check_present(component: &Component, row: &Row, place: &Place, missing: &str) -> Vec<Finding> {
    let name = &row.name;
    if !place.exists {
        let problem = format!("{name}: nothing stands at {}", row.place);
        return vec![row.finding(problem, "correct the place, or say `not yet`")];
    }
    let mut findings = Vec::new();
    if !place.titled {
        let problem = format!("no module doc at {} begins with the component's name", row.place);
        findings.push(row.finding(problem, &format!("begin one with `//! # {name}: ...`")));
    }
    for wanted in &row.types {
        if !place.types.contains(wanted) {
            let problem = format!("{name}: no type {wanted} is declared at {}", row.place);
            findings.push(row.finding(problem, "correct the table, or declare it"));
        }
    }
    for wanted in &component.types {
        let says_missing = !words(missing, wanted).is_empty();
        if says_missing && place.types.contains(wanted) {
            let problem = format!("{name}: {wanted} is called missing, but is there");
            findings.push(row.finding(problem, "put it into the column of key types"));
        } else if !says_missing && !row.types.contains(wanted) {
            let problem = format!("{name}: the row does not speak of {wanted}");
            let fix = "put it into the key types, or name it behind `partly:` as missing";
            findings.push(row.finding(problem, fix));
        }
    }
    findings
}

#[cfg(test)]
mod tests;
