//! A verdict for people and agents: cause, evidence, reach, and what to do, mildest first.

use claw_proto::time::Timestamp;
use claw_tools::diagnosis::{Diagnosis, FaultChange, FaultEvidence, FaultOtherPolicy, FaultRemedy};
use claw_tools::refusal::SuggestedCall;
use serde_json::{Value, json};

use super::analyze::Verdict;
use super::code::{Action, Class, Code};
use super::memory;
use super::observe::Finding;
use super::rules::Rules;

/// Characters of [`Insight::text`] at most; 400 tokens of the usual tokenizers.
pub const TEXT_CHARS: usize = 1_100;
/// Units that its text names; a UUID takes some twenty tokens.
const UNITS_NAMED: usize = 3;
/// Pieces of evidence that an insight shows.
const EVIDENCE: usize = 4;

/// What a verdict is about, where the caller knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The node's id or name.
    pub node: Option<String>,
    /// The workload's id.
    pub workload: Option<String>,
}

/// A verdict with its reasons, and its words.
#[derive(Clone, Debug, PartialEq)]
pub struct Insight {
    /// What the operation `diagnose` answers.
    pub diagnosis: Diagnosis,
}

impl Insight {
    /// Words for a verdict.
    pub fn new(rules: &Rules, verdict: &Verdict, target: &Target) -> Self {
        let root = verdict.root_index.and_then(|index| verdict.findings.get(index));
        let named = verdict.root.as_ref().and_then(Code::name).and_then(|name| rules.named.get(name));
        let confirm = named.map_or_else(|| confirm(verdict.class).to_owned(), |code| code.confirm.clone());
        let mut follows: Vec<String> = Vec::new();
        for finding in &verdict.findings {
            let code = finding.code.to_string();
            if Some(&finding.code) != verdict.root.as_ref() && !follows.contains(&code) {
                follows.push(code);
            }
        }
        let diagnosis = Diagnosis {
            root: verdict.root.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
            class: verdict.class,
            action: verdict.action,
            confidence: verdict.confidence,
            cause: verdict.root.as_ref().map_or_else(|| nothing(verdict).to_owned(), |c| cause(rules, c)),
            details: root.map(details).unwrap_or_default(),
            why: verdict.why.clone(),
            evidence: evidence(verdict),
            changed: Vec::new(),
            units: verdict.units.iter().map(ToString::to_string).collect(),
            blast_radius: if verdict.is_read && (verdict.root.is_some() || verdict.is_whole) {
                blast_radius(verdict.class, verdict.action)
            } else {
                "unknown"
            }
            .to_owned(),
            follows,
            remedies: remedies(verdict, target),
            confirm: if root.is_some() { confirm } else { String::new() },
            policy: verdict.policy.clone(),
            chosen_by: verdict.chosen_by.clone(),
            others: verdict
                .others
                .iter()
                .map(|(policy, action)| FaultOtherPolicy { policy: policy.clone(), action: *action })
                .collect(),
        };
        Self { diagnosis }
    }

    /// The same, with what was changed before the fault, the newest first.
    #[must_use]
    pub fn with_changes(mut self, changed: Vec<FaultChange>) -> Self {
        self.diagnosis.changed = changed;
        self
    }

    /// The insight in words, at most [`TEXT_CHARS`] characters.
    pub fn text(&self) -> String {
        let told = &self.diagnosis;
        let mut text = format!(
            "{}: {}\nclass {} · do first: {} · confidence {:.2} · policy {}{}\n",
            told.root,
            told.cause,
            told.class.as_str(),
            told.action.as_str(),
            told.confidence,
            told.policy,
            if told.chosen_by == told.policy { String::new() } else { format!(" (chosen by {})", told.chosen_by) },
        );
        let mut add = |head: &str, body: &str| {
            let room = TEXT_CHARS.saturating_sub(text.chars().count() + head.len() + 3);
            if !body.is_empty() && room > 20 {
                let body: String = body.chars().filter(|c| !c.is_control()).take(room).collect();
                for part in [head, ": ", &body, "\n"] {
                    text.push_str(part);
                }
            }
        };
        for detail in &told.details {
            add("detail", detail);
        }
        let named = told.units.iter().take(UNITS_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = told.units.len().saturating_sub(UNITS_NAMED);
        add("units", &if more > 0 { format!("{named} and {more} more") } else { named });
        for piece in told.evidence.iter().take(3) {
            // One token at most for each character of what comes from outside.
            let ascii = |c: char| if c.is_ascii() { c } else { '?' };
            let excerpt: String = piece.excerpt.chars().map(ascii).take(90).collect();
            let times = if piece.count > 1 { format!(", {} times", piece.count) } else { String::new() };
            add("evidence", &format!("{}:{} [{}{times}] {excerpt}", piece.source, piece.line, piece.rule));
        }
        // Of a time, what stands after the day.
        let hour = |at: Timestamp| at.to_string().chars().skip(11).take(8).collect::<String>();
        let short = |what: &str| what.chars().take(80).collect::<String>();
        let changed = told.changed.iter().take(2).map(|change| format!("{} {}", hour(change.at), short(&change.what)));
        add("changed before", &changed.collect::<Vec<_>>().join("; "));
        add("reach", &told.blast_radius);
        add("follows from it", &told.follows.join(", "));
        let why: Vec<&str> = told.why.iter().map(String::as_str).filter(|why| !told.cause.contains(why)).collect();
        add("why", &why.join("; "));
        for remedy in &told.remedies {
            let call = remedy.call.as_ref().map(|call| format!("{} {} ", call.tool, call.args)).unwrap_or_default();
            add("remedy", &format!("{call}({})", remedy.why));
        }
        add("would confirm", &told.confirm);
        let others: Vec<String> =
            told.others.iter().map(|other| format!("{}: {}", other.policy, other.action)).collect();
        add("other policies", &others.join(", "));
        text
    }
}

/// What a code is, in words.
pub fn cause(rules: &Rules, code: &Code) -> String {
    match code {
        Code::Xid(number) => rules.xids.get(number).map_or_else(
            || format!("Xid {number}, which no table knows"),
            |row| {
                format!(
                    "Xid {number} {}: {}",
                    row.name,
                    if row.note == "-" { "no note in the catalog" } else { &row.note }
                )
            },
        ),
        Code::Sxid(number) => rules.sxids.get(number).map_or_else(
            || format!("SXid {number} of a switch, which no table knows"),
            |row| format!("SXid {number} {}: {}", row.name, row.note),
        ),
        Code::Named(name) => rules.named.get(&**name).map_or_else(|| name.to_string(), |code| code.cause.clone()),
    }
}

/// No cause: because there is none, or because there was nothing to look at?
fn nothing(verdict: &Verdict) -> &'static str {
    match (verdict.is_read, verdict.is_whole) {
        (false, _) => "unknown: nothing was read",
        (true, false) => "nothing that needs a diagnosis in what could be read; not all could",
        (true, true) => "nothing that needs a diagnosis",
    }
}

fn details(root: &Finding) -> Vec<String> {
    let mut details = Vec::new();
    if let Some(numbers) = &root.memory {
        details.push(numbers.words());
        details.push(numbers.fix().to_owned());
    } else if matches!(root.code.name(), Some("cuda_oom" | "hip_oom")) {
        details.push(memory::OutOfMemory::default().fix().to_owned());
    }
    if let (Some(first), Some(last)) = (root.first_s, root.last_s)
        && last > first
    {
        details.push(format!("seen {} times over {:.0} s", root.count, last - first));
    }
    details.extend(root.frame.as_ref().map(|frame| format!("first frame of the user's code: {frame}")));
    details
}

/// The root's lines first, then one of each other code.
fn evidence(verdict: &Verdict) -> Vec<FaultEvidence> {
    let is_root = |finding: &&Finding| Some(&finding.code) == verdict.root.as_ref();
    let first = verdict.findings.iter().filter(is_root);
    let rest = verdict.findings.iter().filter(|finding| !is_root(finding));
    let shown = |finding: &Finding| FaultEvidence {
        code: finding.code.to_string(),
        rule: finding.rules.first().map(ToString::to_string).unwrap_or_default(),
        source: finding.first.source.to_string(),
        line: finding.first.line,
        count: finding.count,
        excerpt: finding.excerpt.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
    };
    first.take(EVIDENCE - 1).chain(rest).take(EVIDENCE).map(shown).collect()
}

fn blast_radius(class: Class, action: Action) -> &'static str {
    match (class, action) {
        (_, Action::None | Action::Ignore) => "none now",
        (_, Action::RebootNode) => "every workload of the node",
        (Class::Fabric | Class::Link, _) => "every workload whose GPUs talk over this link or switch",
        (Class::Memory | Class::Driver | Class::Bus, _) => "every workload on this GPU; with MIG, all its slices",
        (Class::Power | Class::Thermal, _) => "every workload on this GPU runs slower; perhaps the whole rack",
        (Class::Host, _) => "every workload of the node",
        (Class::App | Class::Image | Class::Config | Class::None, _) => "this workload",
    }
}

fn confirm(class: Class) -> &'static str {
    match class {
        Class::App => "the same program faults on another GPU",
        Class::Memory => "ECC counters and remapped rows of the GPU",
        Class::Driver => "the same code on other nodes with this driver version",
        Class::Link | Class::Fabric => "error counters of both ends of the link",
        Class::Bus => "the GPU is missing in lspci, or trains at a lower width",
        Class::Thermal => "temperatures against the neighbors'",
        Class::Power => "power readings of the rack",
        Class::Host | Class::Image | Class::Config | Class::None => "a second occurrence",
    }
}

fn call(harm: u8, tool: &str, args: Value, why: &str) -> FaultRemedy {
    FaultRemedy { harm, why: why.to_owned(), call: Some(SuggestedCall::new(tool, args)) }
}

fn hands(harm: u8, why: &str) -> FaultRemedy {
    FaultRemedy { harm, why: why.to_owned(), call: None }
}

/// Where to look when nothing was read.
fn looks(target: &Target) -> Vec<FaultRemedy> {
    let mut looks = Vec::new();
    if let Some(workload) = &target.workload {
        let why = "why it has written nothing: its state, attempts and last words";
        looks.push(call(0, "workload_get", json!({ "workload": workload }), why));
        looks.push(call(0, "workload_explain", json!({ "workload": workload }), "why it waits, if it waits"));
    }
    if let Some(node) = &target.node {
        let why = "is it connected, and when did it last send numbers?";
        looks.push(call(0, "node_get", json!({ "node": node }), why));
    }
    looks.push(hands(0, "give the log lines themselves: the kernel log of the node and what the program wrote"));
    looks
}

/// What can be done, the mildest first; operations only where all arguments are known.
fn remedies(verdict: &Verdict, target: &Target) -> Vec<FaultRemedy> {
    if !verdict.is_read {
        return looks(target);
    }
    if verdict.root.is_none() {
        return Vec::new();
    }
    let mut remedies = Vec::new();
    let reason = verdict.root.as_ref().map(ToString::to_string).unwrap_or_default();
    if let Some(workload) = &target.workload {
        remedies.push(call(0, "workload_get", json!({ "workload": workload }), "its state, attempts and last words"));
        if matches!(verdict.action, Action::RestartApp | Action::FixApp | Action::FixConfig) {
            let args = json!({ "workload": workload, "reason": reason });
            remedies.push(call(1, "workload_stop", args, "stop it; then workload_run starts it anew"));
        }
    }
    if let Some(node) = &target.node {
        remedies.push(call(0, "node_get", json!({ "node": node }), "health, GPUs and events of the node"));
        if verdict.action.is_hardware() {
            remedies.push(call(2, "node_cordon", json!({ "node": node, "reason": reason }), "place nothing new there"));
        }
        if matches!(verdict.action, Action::DrainAndReset | Action::RebootNode | Action::Service) {
            remedies.push(call(
                2,
                "node_drain",
                json!({ "node": node, "reason": reason }),
                "take the work off it first",
            ));
        }
    }
    remedies.extend(match verdict.action {
        Action::CheckLink => Some(hands(1, "look at cables, modules and seating of the named link")),
        Action::FixApp => Some(hands(1, "change the program; see the details")),
        Action::FixConfig => Some(hands(1, "change the setting, image or version; see the cause")),
        Action::ContactSupport => {
            Some(hands(0, "collect a report (nvidia-bug-report.sh, or amd-smi and dmesg) for the vendor"))
        }
        Action::ResetGpu | Action::DrainAndReset => Some(hands(3, "reset the GPU once nothing runs on it")),
        Action::RebootNode => Some(hands(3, "restart the node once it is drained")),
        Action::Service => Some(hands(3, "let hands look at the hardware")),
        Action::None | Action::Ignore | Action::RestartApp => None,
    });
    remedies.sort_by_key(|remedy| remedy.harm);
    remedies
}
