//! The rules as data: what `rules/*.toml` say, read once and compiled.
//!
//! Numbered codes stand in tables (`xid.toml`, `sxid.toml`, `nvlink5.toml`),
//! named codes in `codes.toml`, and text rules, each with its examples, in the
//! files by vendor. [`lint`] finds what is dead, double or without a source.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use serde::Deserialize;

use super::architecture::{self, Architecture, Architectures};
use super::code::{Action, Class, Code};
use super::pattern::{Pattern, regex};

pub mod lint;

/// Where a message comes from, which decides how strict its surroundings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Kernel and driver: nothing but an envelope may stand before it.
    Kernel,
    /// A program.
    Workload,
    /// Either, and tools.
    Any,
}

/// What a rule's match is to a diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It may be the cause.
    #[default]
    Root,
    /// It follows from something else, and leads only alone.
    Sympathetic,
    /// It says that something is over.
    Cancel,
}

/// The rule counts only after one of these texts, within some lines.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// Any of them opens the window.
    pub literals: Vec<String>,
    /// How many lines the window is long.
    pub lines: u64,
}

/// A rule over the text of one message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRule {
    /// Its name, unique.
    pub id: String,
    /// The code it finds.
    pub code: String,
    /// Where the message must come from.
    pub input: Input,
    /// Texts of which one must be in the line, in any case of letters; makes the one pass cheap.
    pub literals: Vec<String>,
    /// The expression that decides.
    pub pattern: String,
    /// An expression that takes the match back.
    #[serde(default)]
    pub except: Option<String>,
    /// Another rule that must have matched the same line.
    #[serde(default)]
    pub requires: Option<String>,
    /// A heading it must follow.
    #[serde(default)]
    pub after: Option<After>,
    /// A word that `when.toml` asks for.
    #[serde(default)]
    pub mark: Option<String>,
    /// Why the rule alone is not sure, and what would make it.
    #[serde(default)]
    pub unsure: Option<String>,
    /// What the match is.
    #[serde(default)]
    pub role: Role,
    /// The class, where it differs from the code's.
    #[serde(default)]
    pub class: Option<Class>,
    /// The first action, where it differs from the code's.
    #[serde(default)]
    pub action: Option<Action>,
    /// All actions, the mildest useful first.
    #[serde(default)]
    pub ladder: Vec<Action>,
    /// How sure the rule is, 0 to 1.
    #[serde(default = "sure")]
    pub confidence: f64,
    /// Other codes that its examples hold, too.
    #[serde(default)]
    pub beside: Vec<String>,
    /// Architectures of which it speaks; of all if none is named.
    #[serde(default)]
    pub architectures: Vec<Architecture>,
    /// Lines (or several, with line breaks) that it must find.
    pub examples: Vec<String>,
    /// Lines in which it must find nothing.
    #[serde(default)]
    pub counter: Vec<String>,
}

fn sure() -> f64 {
    0.9
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextFile {
    source: String,
    date: String,
    vendor: String,
    rule: Vec<TextRule>,
}

/// A named code.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedCode {
    /// Its name.
    pub name: String,
    /// Where the fault lies.
    pub class: Class,
    /// What to do first.
    pub action: Action,
    /// All actions, the mildest useful first.
    pub ladder: Vec<Action>,
    /// Its place among causes; the lower leads.
    pub rank: u8,
    /// What it is, in words.
    pub cause: String,
    /// What would confirm it.
    pub confirm: String,
}

/// A row of the table of Xids.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XidRow {
    /// The number.
    pub code: u32,
    /// NVIDIA's mnemonic.
    pub name: String,
    /// Where the fault lies.
    pub class: Class,
    /// Words of the catalog: info, warning, fatal, unused, `by_value`.
    pub severity: String,
    /// What to do first.
    pub action: Action,
    /// The catalog's two buckets: at once, and on investigation.
    pub catalog: [String; 2],
    /// Its place among causes; the lower leads.
    pub rank: u8,
    /// When it only follows something else, in the table's words.
    pub after: String,
    /// Xids that are over with it.
    pub cancels: Vec<u32>,
    /// What to know.
    pub note: String,
    /// Where it is written, with date.
    pub source: String,
}

/// A row of the table of `SXids`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SxidRow {
    /// The number.
    pub code: u32,
    /// Its name.
    pub name: String,
    /// Where the fault lies.
    pub class: Class,
    /// The table's group: `always_fatal`, fatal, `non_fatal`, notable.
    pub group: String,
    /// Words of the table: info, warning, fatal.
    pub severity: String,
    /// What to do first.
    pub action: Action,
    /// What to do if it stays.
    pub then: String,
    /// Its place among causes; the lower leads.
    pub rank: u8,
    /// `SXids` that are over with it.
    pub cancels: Vec<u32>,
    /// What to know.
    pub note: String,
    /// Where it is written, with date.
    pub source: String,
}

/// A row of the table of `NVLink5` errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nvlink5Row {
    /// The Xid, 144 to 150.
    pub xid: u32,
    /// The sub-unit; `A/B` is either.
    pub unit: String,
    /// The link event, bits 25 to 20 of the first word.
    pub event: u8,
    /// The error status, second word.
    pub status: u32,
    /// The table's severity.
    pub severity: String,
    /// The table's resolution.
    pub resolution: String,
    /// What to do if the line says that it is fatal.
    pub if_fatal: String,
    /// What to look at.
    pub investigate: String,
    /// Hardware or software.
    pub origin: String,
    /// Where it is written, with date.
    pub source: String,
}

#[derive(Deserialize)]
struct Table<T> {
    row: Vec<T>,
}

#[derive(Deserialize)]
struct Codes {
    code: Vec<NamedCode>,
}

/// What other findings change about a root's verdict.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Its name.
    pub id: String,
    /// Codes of the root it is for; a `*` at the end stands for any rest.
    pub root: Vec<String>,
    /// One of these codes must have been found.
    #[serde(default)]
    pub with: Vec<String>,
    /// None of these codes may have been found.
    #[serde(default)]
    pub without: Vec<String>,
    /// One of these marks must have been found.
    #[serde(default)]
    pub marks: Vec<String>,
    /// The action it gives.
    #[serde(default)]
    pub action: Option<Action>,
    /// The class it gives.
    #[serde(default)]
    pub class: Option<Class>,
    /// Why.
    pub why: String,
    /// Where it is written, with date.
    pub source: String,
}

#[derive(Deserialize)]
struct Whens {
    when: Vec<When>,
}

/// A text rule with its file's heading and its compiled expressions.
#[derive(Debug)]
pub struct Compiled {
    /// What the file says.
    pub rule: TextRule,
    /// The name of the rule, cheap to copy.
    pub id: Arc<str>,
    /// The parsed code.
    pub code: Code,
    /// Where the rule is written, with date.
    pub source: String,
    /// nvidia, amd or any.
    pub vendor: String,
    pattern: OnceLock<Pattern>,
    except: OnceLock<Option<Pattern>>,
}

impl Compiled {
    /// The expression that decides.
    pub(super) fn pattern(&self) -> &Pattern {
        self.pattern.get_or_init(|| regex(&self.rule.pattern))
    }

    /// The server that the match names, where the expression has a group for it.
    pub(super) fn server<'a>(&self, message: &'a str) -> Option<&'a str> {
        let named = self.pattern().has_group("server");
        named.then(|| self.pattern().captures(message)?.name("server").map(|name| name.as_str()))?
    }

    /// The expression that takes a match back.
    pub(super) fn except(&self) -> Option<&Pattern> {
        let compile = |text: &String| regex(text);
        self.except.get_or_init(|| self.rule.except.as_ref().map(compile)).as_ref()
    }
}

/// What the literals of the one pass stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    /// A candidate for a text rule.
    Rule(usize),
    /// A heading that opens a window.
    Heading(usize),
    /// A numbered code, or an exporter's number.
    Numbered,
    /// A Python traceback begins, or an exception is named.
    Exception,
    /// The model of a GPU may be told.
    Model,
}

/// All rules, ready.
#[derive(Debug)]
pub struct Rules {
    /// Text rules, in file order.
    pub text: Vec<Compiled>,
    /// Named codes.
    pub named: BTreeMap<String, NamedCode>,
    /// Xids by number.
    pub xids: BTreeMap<u32, XidRow>,
    /// `SXids` by number.
    pub sxids: BTreeMap<u32, SxidRow>,
    /// `NVLink5` errors.
    pub nvlink5: Vec<Nvlink5Row>,
    /// What findings change about each other.
    pub whens: Vec<When>,
    /// Models of GPUs, and what codes are bound to.
    pub architectures: Architectures,
    /// Headings, in the order of [`Hit::Heading`].
    pub(super) headings: Vec<String>,
    pub(super) literals: AhoCorasick,
    pub(super) hits: Vec<Vec<Hit>>,
}

const TEXT_FILES: [(&str, &str); 4] = [
    ("nvidia.toml", include_str!("../../rules/nvidia.toml")),
    ("amd.toml", include_str!("../../rules/amd.toml")),
    ("host.toml", include_str!("../../rules/host.toml")),
    ("workload.toml", include_str!("../../rules/workload.toml")),
];

/// Literals of numbered codes and of the parsers.
const PARSERS: [(&str, Hit); 9] = [
    ("xid", Hit::Numbered),
    ("(PCI:", Hit::Numbered),
    ("NVSwitch", Hit::Numbered),
    ("event reasons", Hit::Numbered),
    ("event_reasons", Hit::Numbered),
    ("throttle", Hit::Numbered),
    ("Traceback (most recent call last)", Hit::Exception),
    ("Error", Hit::Exception),
    ("Exception", Hit::Exception),
];

impl Rules {
    /// The rules of this build.
    pub fn built_in() -> &'static Self {
        static RULES: LazyLock<Rules> = LazyLock::new(Rules::load);
        &RULES
    }

    fn load() -> Self {
        let mut text = Vec::new();
        for (name, content) in TEXT_FILES {
            let file: TextFile = read(name, content);
            let source = format!("{}, {}", file.source, file.date);
            for rule in file.rule {
                let code = rule.code.parse().unwrap_or_else(|error| panic!("{name}: {}: {error}", rule.id));
                text.push(Compiled {
                    id: rule.id.as_str().into(),
                    rule,
                    code,
                    source: source.clone(),
                    vendor: file.vendor.clone(),
                    pattern: OnceLock::new(),
                    except: OnceLock::new(),
                });
            }
        }
        let codes: Codes = read("codes.toml", include_str!("../../rules/codes.toml"));
        let xids: Table<XidRow> = read("xid.toml", include_str!("../../rules/xid.toml"));
        let sxids: Table<SxidRow> = read("sxid.toml", include_str!("../../rules/sxid.toml"));
        let nvlink5: Table<Nvlink5Row> = read("nvlink5.toml", include_str!("../../rules/nvlink5.toml"));
        let whens: Whens = read("when.toml", include_str!("../../rules/when.toml"));
        let (literals, hits, headings) = one_pass(&text);
        Self {
            text,
            named: codes.code.into_iter().map(|code| (code.name.clone(), code)).collect(),
            xids: xids.row.into_iter().map(|row| (row.code, row)).collect(),
            sxids: sxids.row.into_iter().map(|row| (row.code, row)).collect(),
            nvlink5: nvlink5.row,
            whens: whens.when,
            architectures: read("architecture.toml", include_str!("../../rules/architecture.toml")),
            headings,
            literals,
            hits,
        }
    }

    /// The texts that the one pass looks for, in lower case.
    pub fn literals(&self) -> Vec<String> {
        let rules = self.text.iter().flat_map(|compiled| &compiled.rule.literals);
        let parsers = PARSERS.iter().map(|(literal, _)| *literal).chain(architecture::LITERALS);
        let all = rules.chain(&self.headings).map(String::as_str).chain(parsers);
        all.map(str::to_ascii_lowercase).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// The expressions of all text rules, and of numbered codes, without names of groups; for tools that compare.
    pub fn expressions(&self) -> Vec<String> {
        let rules = self.text.iter().map(|compiled| compiled.rule.pattern.as_str());
        let bare = |text: &str| {
            let mut parts = text.split("(?P<");
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |all, part| all + "(" + part.split_once('>').map_or(part, |(_, rest)| rest))
        };
        rules.chain([r"(?i)\bS?Xid \("]).map(bare).collect()
    }

    /// The text rule of that name.
    pub fn text_rule(&self, id: &str) -> Option<&Compiled> {
        self.text.iter().find(|rule| &*rule.id == id)
    }
}

/// Parses one file of the rules, which are part of the program.
fn read<T: serde::de::DeserializeOwned>(name: &str, content: &str) -> T {
    toml::from_str(content).unwrap_or_else(|error| panic!("the built-in rules {name} do not parse: {error}"))
}

/// One automaton over all literals, and what each of them stands for.
fn one_pass(text: &[Compiled]) -> (AhoCorasick, Vec<Vec<Hit>>, Vec<String>) {
    let mut by_literal: BTreeMap<String, Vec<Hit>> = BTreeMap::new();
    let mut headings: Vec<String> = Vec::new();
    let mut add = |literal: &str, hit: Hit| {
        let hits = by_literal.entry(literal.to_ascii_lowercase()).or_default();
        if !hits.contains(&hit) {
            hits.push(hit);
        }
    };
    for (index, compiled) in text.iter().enumerate() {
        for literal in &compiled.rule.literals {
            add(literal, Hit::Rule(index));
        }
        for heading in compiled.rule.after.iter().flat_map(|after| &after.literals) {
            let known = headings.iter().position(|other| other == heading);
            let place = known.unwrap_or(headings.len());
            if known.is_none() {
                headings.push(heading.clone());
            }
            add(heading, Hit::Heading(place));
        }
    }
    for (literal, hit) in PARSERS {
        add(literal, hit);
    }
    for literal in architecture::LITERALS {
        add(literal, Hit::Model);
    }
    let (patterns, hits): (Vec<_>, Vec<_>) = by_literal.into_iter().unzip();
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(aho_corasick::AhoCorasickKind::DFA))
        .build(&patterns)
        .expect("a few hundred short literals fit an automaton");
    (automaton, hits, headings)
}
