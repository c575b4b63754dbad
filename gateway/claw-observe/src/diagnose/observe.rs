//! Lines in, findings out: one pass, in bounded memory.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::architecture::{Architecture, Known};
use super::code::Code;
use super::device::{self, Names, Unit};
use super::envelope::{self, Envelope};
use super::guard;
use super::legible::Legible;
use super::memory::{self, OutOfMemory};
use super::nvidia::{self, Detail};
use super::nvlink5;
use super::pattern::work;
use super::reported::Asks;
use super::rules::{Compiled, Hit, Input, Role, Rules};
use super::traceback::{Raised, Tracebacks, Unfinished};

#[cfg(test)]
mod held;
mod machines;
mod over;

use machines::Machines;
pub use machines::{Home, writer};

/// Bytes of a line that are looked at; the rest is ignored.
pub const LINE_BYTES: usize = 16 * 1024;
/// Findings (code and device) that one observer keeps; more are only counted.
pub const FINDINGS: usize = 1024;
/// Bytes of a line that a finding keeps as evidence.
pub const EXCERPT_BYTES: usize = 240;
/// Notes that an observer keeps of what it could not read.
pub const NOTES: usize = 16;
/// Bytes of a note.
const NOTE_BYTES: usize = 512;
/// Bytes of a table's cell that are put together.
const CELL_BYTES: usize = 2 * 1024;
/// The mark of what was found before its machine was started anew.
pub(super) const RESTARTED: &str = "restarted";
/// The mark of what was found of a GPU that did not come back with its machine.
pub(super) const GONE: &str = "gone";
/// What an observer holds at most, in bytes, whatever it is fed: findings with their
/// excerpts and names, open tracebacks, one line in work with all its numbered codes, and names of GPUs.
pub const MEMORY_BYTES: usize =
    FINDINGS * 2_048 + 64 * 1024 + 48 * LINE_BYTES + machines::NAMES_OF_HOSTS * 8 * size_of::<Unit>();

/// One match in one line.
#[derive(Clone, Debug)]
pub(super) struct Match {
    pub(super) code: Code,
    pub(super) unit: Option<Unit>,
    /// Its line, if that is not the present one.
    pub(super) line: Option<u64>,
    pub(super) at: usize,
    pub(super) rule: Arc<str>,
    pub(super) detail: Detail,
    pub(super) mark: Option<String>,
    pub(super) frame: Option<String>,
    pub(super) weak: bool,
    pub(super) asks: Option<Asks>,
}

impl Default for Match {
    fn default() -> Self {
        Self {
            code: Code::Named("none".into()),
            unit: None,
            line: None,
            at: 0,
            rule: "".into(),
            detail: Detail::default(),
            mark: None,
            frame: None,
            weak: false,
            asks: None,
        }
    }
}

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file or stream.
    pub source: Arc<str>,
    /// Its line, from 1.
    pub line: u64,
}

/// One code on one unit, however often it was seen.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The code.
    pub code: Code,
    /// The unit, if a line names one.
    pub unit: Option<Unit>,
    /// The rules that found it.
    pub rules: Vec<Arc<str>>,
    /// What `when.toml` may ask for, and how many lines and records had been given when it was seen last.
    pub marks: BTreeMap<String, u64>,
    /// The first place.
    pub first: Place,
    /// How many lines and records all sources had given when it was seen last.
    pub(super) last_order: u64,
    /// The same for the last verdict of the driver in `detail`.
    pub(super) recovery_order: u64,
    /// Its time, in seconds on the line's own clock.
    pub first_s: Option<f64>,
    /// The time of the last.
    pub last_s: Option<f64>,
    /// How often.
    pub count: u64,
    /// The first line, cut.
    pub excerpt: String,
    /// What a numbered line says; of several verdicts the last.
    pub(super) detail: Detail,
    /// The first frame of a program that is the user's.
    pub frame: Option<String>,
    /// The numbers of an out-of-memory message.
    pub memory: Option<OutOfMemory>,
    /// Counts only if nothing else was found.
    pub weak: bool,
    /// All matches say that something is over.
    pub over: bool,
    /// What the sightings ask for, instead of their code.
    pub asks: Option<Asks>,
    /// Whose it is, of the machines that the observer was told of.
    pub home: Home,
}

/// What a driver reported of one GPU.
#[derive(Clone, Debug)]
pub struct Reported<'a> {
    /// The code.
    pub code: Code,
    /// Which GPU.
    pub uuid: &'a str,
    /// When, in seconds since 1970.
    pub at_s: f64,
    /// How it is known, such as `event.xid`.
    pub rule: &'a str,
    /// Detail for people.
    pub words: &'a str,
    /// What it asks for by itself, instead of its code.
    pub asks: Option<Asks>,
}

/// What an observer saw.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Findings, in the order of their first line.
    pub findings: Vec<Finding>,
    /// Lines of text read, of all sources; blank ones and what is no text are not.
    pub lines: u64,
    /// Events and samples read, whether they told of a fault or not.
    pub records: u64,
    /// Matches that found no room among [`FINDINGS`].
    pub dropped: u64,
    /// What should have been read and could not be, in words; at most [`NOTES`].
    pub unread: Vec<String>,
    /// What was told of GPUs' architectures.
    pub known: Known,
}

/// Reads log lines of one source and keeps what the rules find.
///
/// Memory is bounded by [`MEMORY_BYTES`]; time is linear in the input.
#[derive(Debug)]
pub struct Observer {
    rules: &'static Rules,
    source: Arc<str>,
    /// Lines of this source.
    line: u64,
    /// What could be read of this source.
    legible: Legible,
    /// Lines of text of the sources before.
    lines: u64,
    /// Lines and records given, of all sources, whatever they hold.
    given: u64,
    records: u64,
    unread: Vec<String>,
    known: Known,
    machines: Machines,
    dropped: u64,
    findings: Vec<Finding>,
    places: BTreeMap<(Code, Option<Unit>), usize>,
    headings: Vec<Option<u64>>,
    tracebacks: Tracebacks,
    table: Table,
    candidates: Vec<usize>,
}

impl Observer {
    /// An observer of one file or stream; `source` is named in the evidence.
    pub fn new(rules: &'static Rules, source: &str) -> Self {
        Self {
            rules,
            source: source.into(),
            line: 0,
            legible: Legible::default(),
            lines: 0,
            given: 0,
            records: 0,
            unread: Vec::new(),
            known: Known::default(),
            machines: Machines::default(),
            dropped: 0,
            findings: Vec::new(),
            places: BTreeMap::new(),
            headings: vec![None; rules.headings.len()],
            tracebacks: Tracebacks::default(),
            table: Table::default(),
            candidates: Vec::new(),
        }
    }

    /// Goes on with another file or stream; lines are numbered anew.
    ///
    /// What the source before left open, such as a traceback without its exception, is closed and kept.
    pub fn next_source(&mut self, source: &str) {
        self.close();
        self.source = source.into();
        self.line = 0;
        self.headings.fill(None);
        self.table = Table::default();
    }

    /// Notes what should have been read and could not be, in words; a verdict tells it, and is less sure that all is well.
    pub fn unread(&mut self, note: String) {
        let note = cut(&note, NOTE_BYTES).to_owned();
        if self.unread.len() < NOTES && !self.unread.contains(&note) {
            self.unread.push(note);
        }
    }

    /// Lines of text of this source so far.
    pub fn source_lines(&self) -> u64 {
        self.legible.lines()
    }

    /// Events and samples read so far, of all sources.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Counts samples that were looked at and told of nothing.
    pub fn healthy(&mut self, samples: usize) {
        self.records += samples as u64;
        self.given += samples as u64;
    }

    /// Reads a text line by line.
    pub fn text(&mut self, text: &str) {
        for line in text.lines() {
            self.line(line);
        }
    }

    /// Reads one line, without its line break.
    pub fn line(&mut self, line: &str) {
        self.given += 1;
        self.line += 1;
        self.legible.line(line);
        let plain = envelope::plain(cut(line, LINE_BYTES));
        let line = &*plain;
        if line.trim_start().starts_with('|') {
            // Tools break long words over the cells of a table: read the cell as one.
            if self.table.join(line) {
                let cell = std::mem::take(&mut self.table.cell);
                self.model(line);
                self.scan(&cell);
                self.table.cell = cell;
                return;
            }
        } else {
            self.table.cell.clear();
            self.table.boxed = line.starts_with("+-") || line.starts_with("+=");
        }
        self.scan(line);
    }

    fn scan(&mut self, line: &str) {
        let mut seen = Seen::default();
        self.candidates.clear();
        let rules = self.rules;
        work::add(line.len());
        for found in rules.literals.find_overlapping_iter(line) {
            work::add(1);
            for hit in rules.hits.get(found.pattern().as_usize()).into_iter().flatten() {
                match *hit {
                    Hit::Rule(index) => {
                        if !self.candidates.contains(&index) {
                            self.candidates.push(index);
                        }
                    }
                    Hit::Heading(index) => {
                        if let Some(place) = self.headings.get_mut(index) {
                            *place = Some(self.line);
                        }
                    }
                    Hit::Numbered => seen.numbered = true,
                    Hit::Exception => seen.exception = true,
                    Hit::Model => seen.model = true,
                }
            }
        }
        if seen.model {
            self.model(line);
        }
        let idle = self.candidates.is_empty() && !seen.numbered && !seen.exception && !self.tracebacks.is_open();
        if idle {
            return;
        }
        self.candidates.sort_unstable();
        self.examine(line, &seen);
    }

    /// Keeps which architecture a line tells.
    fn model(&mut self, line: &str) {
        if let Some((architecture, units)) = self.rules.architectures.of_line(line) {
            self.known.tell(architecture, units);
        }
    }

    /// Takes in what an inventory says of a GPU: of which architecture it is, by all its names.
    pub fn gpu(&mut self, architecture: Architecture, units: impl IntoIterator<Item = Unit>) {
        self.known.tell(architecture, units);
    }

    /// Whose the next lines are, and what GPUs are called there: a fault told by one name and an excuse told by
    /// another meet.
    pub fn machine(&mut self, node: &str, names: Names) {
        self.machines.present(node, names);
    }

    /// Lines that name this host, whoever's log they stand in, speak of that node and of its GPUs.
    pub fn host(&mut self, host: &str, node: &str, names: Names) {
        self.machines.host(host, node, names);
    }

    fn examine(&mut self, line: &str, seen: &Seen) {
        let envelope = envelope::open(line);
        let message = Cow::clone(&envelope.message);
        let mut matches = Vec::new();
        for part in message.lines() {
            if seen.numbered {
                matches.extend(nvidia::find(&envelope, part));
            }
            if matches.is_empty() {
                self.text_rules(&envelope, part, &mut matches);
            }
            let known = !matches.is_empty();
            if let Some(raised) = self.tracebacks.line(&envelope.writer, part, self.line)
                && !known
            {
                matches.extend(self.user_code(&envelope, part, raised));
            }
        }
        matches.sort_by_key(|found| found.at);
        if !matches.is_empty() {
            self.machines.line(&envelope);
        }
        for found in matches {
            self.keep(&envelope, line, found);
        }
        let pushed_out = self.tracebacks.pushed_out();
        self.keep_unfinished(pushed_out);
    }

    /// Ends what is open at the end of a source.
    fn close(&mut self) {
        let open = self.tracebacks.close();
        self.keep_unfinished(open);
        let legible = std::mem::take(&mut self.legible);
        self.lines += legible.lines();
        for note in legible.notes(&self.source) {
            self.unread(note);
        }
    }

    /// Keeps tracebacks without an exception as what they are: a program that ended, cause unknown.
    fn keep_unfinished(&mut self, tracebacks: Vec<Unfinished>) {
        for Unfinished { writer, at, frame } in tracebacks {
            let envelope = Envelope::default();
            self.machines.line(&envelope);
            let found = Match {
                code: Code::Named("user_code".into()),
                unit: device::find(&writer),
                line: Some(at),
                rule: "user.cut-traceback".into(),
                frame: frame.clone(),
                weak: true,
                ..Match::default()
            };
            self.keep(&envelope, frame.as_deref().unwrap_or_default(), found);
        }
    }

    fn text_rules(&self, envelope: &Envelope<'_>, message: &str, matches: &mut Vec<Match>) {
        let named = LazyCell::new(|| device::find(message).or_else(|| device::find(&envelope.writer)));
        for compiled in self.candidates.iter().filter_map(|index| self.rules.text.get(*index)) {
            let Some(found) = compiled.pattern().find(message) else { continue };
            if compiled.except().is_some_and(|except| except.is_match(message)) || !self.is_after(compiled) {
                continue;
            }
            let missing = |id: &String| !matches.iter().any(|other| &*other.rule == id.as_str());
            if compiled.rule.requires.as_ref().is_some_and(missing) {
                continue;
            }
            if !guard::accepts(compiled.rule.input, envelope, message, found.start(), found.end()) {
                continue;
            }
            let server = compiled.server(message).map(|name| Unit::Server(name.to_owned()));
            let unit = server.or_else(|| named.clone());
            matches.push(Match {
                code: compiled.code.clone(),
                unit,
                at: found.start(),
                rule: Arc::clone(&compiled.id),
                mark: compiled.rule.mark.clone(),
                weak: compiled.rule.role == Role::Sympathetic,
                ..Match::default()
            });
        }
    }

    /// Is the line within the window that one of the rule's headings opened?
    fn is_after(&self, compiled: &Compiled) -> bool {
        let Some(after) = &compiled.rule.after else { return true };
        let open = |(heading, place): (&String, &Option<u64>)| {
            after.literals.contains(heading) && place.is_some_and(|line| self.line - line <= after.lines)
        };
        self.rules.headings.iter().zip(&self.headings).any(open)
    }

    fn user_code(&self, envelope: &Envelope<'_>, message: &str, raised: Raised) -> Option<Match> {
        let explained = self.findings.iter().any(|finding| !finding.weak && finding.code.name() != Some("user_code"));
        if raised.chained && explained {
            return None;
        }
        if !guard::accepts(Input::Workload, envelope, message, 0, 0) {
            return None;
        }
        Some(Match {
            code: Code::Named("user_code".into()),
            unit: device::find(&envelope.writer),
            at: 0,
            rule: if raised.missing { "user.missing-module".into() } else { "user.exception".into() },
            mark: raised.missing.then(|| "missing".to_owned()),
            frame: raised.frame,
            weak: raised.wrapper || !raised.traced,
            ..Match::default()
        })
    }

    fn keep(&mut self, envelope: &Envelope<'_>, line: &str, found: Match) {
        let over = self.rules.text_rule(&found.rule).is_some_and(|compiled| compiled.rule.role == Role::Cancel);
        let out_of_memory = matches!(found.code.name(), Some("cuda_oom" | "hip_oom"));
        let memory = if out_of_memory { memory::read(line) } else { None };
        let (unit, home) = self.machines.place(found.unit);
        let key = (found.code.clone(), unit.clone());
        let order = self.given;
        if let Some(finding) = self.places.get(&key).and_then(|place| self.findings.get_mut(*place)) {
            finding.count += 1;
            finding.last_order = order;
            finding.last_s = envelope.time_s.or(finding.last_s);
            finding.weak &= found.weak;
            finding.over = over;
            if !finding.rules.contains(&found.rule) {
                finding.rules.push(found.rule);
            }
            finding.marks.extend(found.mark.map(|mark| (mark, order)));
            if found.detail.recovery.is_some() {
                finding.recovery_order = order;
            }
            finding.asks = both(finding.asks, found.asks);
            finding.memory = finding.memory.or(memory);
            finding.frame = finding.frame.take().or(found.frame);
            finding.home = std::mem::take(&mut finding.home).and(home);
            merge(self.rules, &found.code, &mut finding.detail, found.detail);
            return;
        }
        if over || self.findings.len() >= FINDINGS {
            self.dropped += u64::from(!over);
            return;
        }
        let at = found.line.unwrap_or(self.line);
        self.places.insert(key, self.findings.len());
        self.findings.push(Finding {
            code: found.code,
            unit,
            rules: vec![found.rule],
            marks: found.mark.into_iter().map(|mark| (mark, order)).collect(),
            first: Place { source: Arc::clone(&self.source), line: at },
            last_order: order,
            recovery_order: order,
            first_s: envelope.time_s,
            last_s: envelope.time_s,
            count: 1,
            excerpt: cut(line, EXCERPT_BYTES).to_owned(),
            detail: found.detail,
            frame: found.frame.map(|frame| cut(&frame, EXCERPT_BYTES).to_owned()),
            memory,
            weak: found.weak,
            over,
            asks: found.asks,
            home,
        });
    }

    /// Takes in what a driver reported by other ways than a log line.
    pub fn event(&mut self, event: &Reported<'_>) {
        self.records += 1;
        self.given += 1;
        self.line += 1;
        let envelope = Envelope { time_s: Some(event.at_s), ..Envelope::default() };
        self.machines.line(&envelope);
        let found = Match {
            code: event.code.clone(),
            unit: Some(Unit::Uuid(event.uuid.to_owned())),
            rule: event.rule.into(),
            asks: event.asks,
            ..Match::default()
        };
        self.keep(&envelope, event.words, found);
    }

    /// What was seen so far.
    pub fn finish(mut self) -> Observation {
        self.close();
        let Self { findings, lines, records, dropped, unread, known, .. } = self;
        Observation { findings, lines, records, dropped, unread, known }
    }
}

/// The cell of a table that goes on over several lines.
#[derive(Debug, Default)]
struct Table {
    cell: String,
    /// Its frame is drawn, as tools do and documents do not.
    boxed: bool,
}

impl Table {
    /// Takes a line of a table in; true if its last cell goes on from the line before.
    fn join(&mut self, line: &str) -> bool {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let [first, .., last] = cells.as_slice() else {
            self.cell.clear();
            return false;
        };
        let goes_on = first.trim().is_empty() && !self.cell.is_empty() && self.cell.len() < CELL_BYTES;
        if !goes_on {
            self.cell.clear();
        }
        let text = last.strip_prefix(' ').unwrap_or(last);
        self.cell.push_str(cut(text.trim_end(), CELL_BYTES));
        goes_on || self.boxed
    }
}

#[derive(Debug, Default)]
struct Seen {
    numbered: bool,
    exception: bool,
    model: bool,
}

/// Of two sightings the more harmful speaks; the code itself speaks before a milder one.
fn both(one: Option<Asks>, other: Option<Asks>) -> Option<Asks> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.action > one.action { other } else { one }),
        (one, other) => one.or(other).filter(|asks| asks.action.is_hardware()),
    }
}

/// Of several verdicts the last counts, of several link errors the gravest.
fn merge(rules: &Rules, code: &Code, old: &mut Detail, new: Detail) {
    old.recovery = new.recovery.or(old.recovery);
    old.fatal = old.fatal.max(new.fatal);
    let (Code::Xid(number), Some(error)) = (code, new.link_error) else { return };
    let rank = |error| nvlink5::resolve(rules, *number, error).rank;
    if old.link_error.as_ref().is_none_or(|known| rank(&error) < rank(known)) {
        old.link_error = Some(error);
    }
}

/// The beginning of a text, at most so many bytes, whole characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
