//! Findings in, one verdict out: root against sympathetic, cancellation, the driver's own
//! verdict, and what findings change about each other.

use std::collections::BTreeSet;

use super::code::{Action, Class, Code};
use super::device::Unit;
use super::nvlink5;
use super::observe::{Finding, Observation};
use super::policy::Policy;
use super::rules::{Rules, When};

pub mod fleet;

/// Xids of a program; beside them alone the driver's verdict leads.
const PROGRAM: [u32; 4] = [13, 31, 43, 45];
/// Xids that alone never justify a reset, a reboot or a fence.
const NEVER_HARDWARE: [u32; 7] = [13, 31, 43, 45, 63, 92, 94];
/// The rank of a number that no table has.
const UNKNOWN_RANK: u8 = 70;
/// The rank of an exception that only passes on what happened elsewhere.
const WEAK_RANK: u8 = 99;

/// What was known before about the same unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Resets and reboots for the same code on the same unit, over the policy's days.
    pub remediations: u32,
}

/// The judgement over one observation.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The cause; none if nothing needs a diagnosis.
    pub root: Option<Code>,
    /// Where the fault lies.
    pub class: Class,
    /// What to do first, under the chosen policy.
    pub action: Action,
    /// How sure, 0 to 1.
    pub confidence: f64,
    /// All findings that count, in the order of their first line.
    pub findings: Vec<Finding>,
    /// Which of them is the root.
    pub root_index: Option<usize>,
    /// Why this root and this action, in words.
    pub why: Vec<String>,
    /// The policy's name.
    pub policy: String,
    /// What the other policies would do, where it differs.
    pub others: Vec<(String, Action)>,
    /// Is more than one unit hit by the root's code?
    pub units: Vec<Unit>,
}

/// What one finding means by itself.
#[derive(Clone, Debug)]
struct Meaning {
    class: Class,
    action: Action,
    rank: u8,
    confidence: f64,
    severe: bool,
    why: Option<String>,
}

/// Judges observations under a policy.
#[derive(Clone, Copy, Debug)]
pub struct Analyzer {
    rules: &'static Rules,
    policy: &'static Policy,
    history: History,
}

impl Analyzer {
    /// An analyzer with these rules, under this policy.
    pub fn new(rules: &'static Rules, policy: &'static Policy) -> Self {
        Self { rules, policy, history: History::default() }
    }

    /// The same, with what was known before.
    #[must_use]
    pub fn with_history(self, history: History) -> Self {
        Self { history, ..self }
    }

    /// The verdict over one observation.
    pub fn judge(&self, observation: &Observation) -> Verdict {
        let findings = counted(&observation.findings);
        let meanings: Vec<Meaning> = findings.iter().map(|finding| self.meaning(finding)).collect();
        let canceled = self.canceled(&findings);
        let root_index = root(&findings, &meanings, &canceled);
        let Some((root, meaning)) = root_index.and_then(|index| findings.get(index).zip(meanings.get(index))) else {
            return self.nothing(findings);
        };
        let mut why: Vec<String> = meaning.why.iter().cloned().collect();
        let (mut class, mut action) = (meaning.class, meaning.action);
        // The most harmful rule of the same code decides: a corrected error and a fatal one.
        for (other, also) in findings.iter().zip(&meanings) {
            if other.code == root.code && !other.over && also.action > action && root.code.name().is_some() {
                (class, action) = (also.class, also.action);
            }
        }
        let marks: BTreeSet<&str> = findings.iter().flat_map(|f| f.marks.iter().map(String::as_str)).collect();
        let units = units_of(&findings, &root.code);
        let fits = |when: &&When| fits(when, root, &findings, &marks, units.len());
        if let Some(when) = self.rules.whens.iter().find(fits) {
            class = when.class.unwrap_or(class);
            action = when.action.unwrap_or(action);
            why.push(format!("{} ({})", when.why, when.id));
        }
        if root.code.is_xid(&NEVER_HARDWARE) && action.is_hardware() {
            action = Action::RestartApp;
        }
        if root.over || self.is_over(root, &findings) {
            action = Action::Ignore;
            why.push("a later line says that it is over".to_owned());
        }
        if let Some((said, words)) = driver_verdict(root, &findings) {
            action = said;
            why.push(words);
        }
        let ours = action;
        let of = |policy: &Policy| policy.action(&root.code, ours, meaning.severe, self.history.remediations);
        let action = of(self.policy);
        let differs = |policy: &&Policy| policy.name != self.policy.name && of(policy) != action;
        let others =
            super::policy::all().iter().filter(differs).map(|policy| (policy.name.clone(), of(policy))).collect();
        Verdict {
            root: Some(root.code.clone()),
            class,
            action,
            confidence: meaning.confidence,
            root_index,
            why,
            policy: self.policy.name.clone(),
            others,
            units,
            findings,
        }
    }

    fn nothing(&self, findings: Vec<Finding>) -> Verdict {
        let action = if findings.is_empty() { Action::None } else { Action::Ignore };
        Verdict {
            root: None,
            class: Class::None,
            action,
            confidence: 0.9,
            findings,
            root_index: None,
            why: Vec::new(),
            policy: self.policy.name.clone(),
            others: Vec::new(),
            units: Vec::new(),
        }
    }

    /// What a finding means by itself, before the others are looked at.
    fn meaning(&self, finding: &Finding) -> Meaning {
        match &finding.code {
            Code::Xid(number) => self.xid(*number, finding),
            Code::Sxid(number) => self.sxid(*number, finding),
            Code::Named(name) => self.named(name, finding),
        }
    }

    fn xid(&self, number: u32, finding: &Finding) -> Meaning {
        let unknown = Meaning {
            class: Class::None,
            action: Action::ContactSupport,
            rank: UNKNOWN_RANK,
            confidence: 0.3,
            severe: true,
            why: Some(format!("Xid {number} is in no table: collect a report, do not guess")),
        };
        let Some(row) = self.rules.xids.get(&number) else { return unknown };
        let mut meaning = Meaning {
            class: row.class,
            action: row.action,
            rank: row.rank,
            confidence: if row.severity == "unused" { 0.3 } else { 0.9 },
            severe: !matches!(row.severity.as_str(), "info" | "unused"),
            why: (row.note != "-").then(|| row.note.clone()),
        };
        if (144..=150).contains(&number) {
            let resolved = finding.detail.link_error.as_ref().map(|error| nvlink5::resolve(self.rules, number, error));
            if let Some(resolved) = resolved {
                meaning.action = resolved.action;
                meaning.rank = resolved.rank;
                meaning.why = Some(resolved.why);
            }
        }
        if number == 154 {
            meaning.action = finding.detail.recovery.map_or(Action::ContactSupport, recovery_action);
        }
        meaning
    }

    fn sxid(&self, number: u32, finding: &Finding) -> Meaning {
        let fatal = finding.detail.fatal == Some(true);
        let Some(row) = self.rules.sxids.get(&number) else {
            return Meaning {
                class: Class::Fabric,
                action: Action::ContactSupport,
                rank: if fatal { 38 } else { 46 },
                confidence: 0.3,
                severe: fatal,
                why: Some(format!("SXid {number} is in no table: collect a report, do not guess")),
            };
        };
        Meaning {
            class: row.class,
            action: row.action,
            rank: row.rank,
            confidence: 0.9,
            severe: row.severity == "fatal",
            why: Some(row.note.clone()),
        }
    }

    fn named(&self, name: &str, finding: &Finding) -> Meaning {
        let code = self.rules.named.get(name);
        let mut meaning = Meaning {
            class: code.map_or(Class::None, |code| code.class),
            action: code.map_or(Action::ContactSupport, |code| code.action),
            rank: code.map_or(UNKNOWN_RANK, |code| code.rank),
            confidence: 0.9,
            severe: false,
            why: None,
        };
        // Of several rules of one code, the one with the most harmful action speaks.
        let own = finding.rules.iter().filter_map(|id| self.rules.text_rule(id));
        for (index, compiled) in own.enumerate() {
            let rule = &compiled.rule;
            let action = rule.action.or(code.map(|code| code.action)).unwrap_or(meaning.action);
            let decided = rule.requires.is_some() || index == 0 || action > meaning.action;
            if decided {
                meaning.action = action;
                meaning.class = rule.class.or(code.map(|code| code.class)).unwrap_or(meaning.class);
                meaning.confidence = rule.confidence;
            }
        }
        if let Some(asks) = finding.asks {
            (meaning.action, meaning.confidence) = (asks.action, asks.confidence);
            meaning.why = Some(asks.why.to_owned());
        }
        if finding.marks.iter().any(|mark| mark == "missing") {
            (meaning.class, meaning.action) = (Class::Image, Action::FixConfig);
        }
        if finding.weak {
            (meaning.rank, meaning.confidence) = (WEAK_RANK, 0.4);
        }
        meaning
    }

    /// Xids that another Xid cancels: no cause remains.
    fn canceled(&self, findings: &[Finding]) -> BTreeSet<Code> {
        let mut gone = BTreeSet::new();
        for finding in findings {
            let Code::Xid(number) = &finding.code else { continue };
            let Some(row) = self.rules.xids.get(number) else { continue };
            for other in &row.cancels {
                let before = |f: &Finding| f.code == Code::Xid(*other) && f.last_line <= finding.last_line;
                if findings.iter().any(before) {
                    gone.insert(Code::Xid(*other));
                    gone.insert(finding.code.clone());
                }
            }
        }
        gone
    }

    /// Did a later `SXid` say that this one is over?
    fn is_over(&self, root: &Finding, findings: &[Finding]) -> bool {
        let Code::Sxid(number) = &root.code else { return false };
        let ends = |finding: &Finding| match &finding.code {
            Code::Sxid(other) => self.rules.sxids.get(other).is_some_and(|row| row.cancels.contains(number)),
            Code::Xid(_) | Code::Named(_) => false,
        };
        findings.iter().any(|finding| ends(finding) && finding.last_line >= root.last_line)
    }
}

/// The earliest cause that explains the rest.
fn root(findings: &[Finding], meanings: &[Meaning], canceled: &BTreeSet<Code>) -> Option<usize> {
    let beside =
        |finding: &Finding| matches!(finding.code, Code::Xid(_) | Code::Sxid(_)) && !finding.code.is_xid(&[154]);
    let verdict_leads = !findings.iter().any(|finding| beside(finding) && !finding.code.is_xid(&PROGRAM));
    let mut best: Option<(u8, usize)> = None;
    for (index, (finding, meaning)) in findings.iter().zip(meanings).enumerate() {
        if canceled.contains(&finding.code) {
            continue;
        }
        let mut rank = meaning.rank;
        if finding.code.is_xid(&[154]) {
            let harmless = finding.detail.recovery == Some(0);
            rank = if verdict_leads && !harmless { 25 } else { meaning.rank };
            if harmless && findings.iter().all(|other| other.code.is_xid(&[154])) {
                continue;
            }
        }
        if best.is_none_or(|(lowest, _)| rank < lowest) {
            best = Some((rank, index));
        }
    }
    best.map(|(_, index)| index)
}

/// The findings that count: weak ones only where nothing else is.
fn counted(findings: &[Finding]) -> Vec<Finding> {
    let strong: Vec<Finding> = findings.iter().filter(|finding| !finding.weak).cloned().collect();
    if !strong.is_empty() {
        return strong;
    }
    findings.iter().take(1).cloned().collect()
}

fn units_of(findings: &[Finding], code: &Code) -> Vec<Unit> {
    let units: BTreeSet<Unit> = findings.iter().filter(|f| f.code == *code).filter_map(|f| f.unit.clone()).collect();
    units.into_iter().collect()
}

fn fits(when: &When, root: &Finding, findings: &[Finding], marks: &BTreeSet<&str>, units: usize) -> bool {
    let named = |pattern: &String, code: &Code| {
        let name = code.to_string();
        pattern.strip_suffix('*').map_or(name == *pattern, |start| name.starts_with(start))
    };
    let present = |pattern: &String| findings.iter().any(|finding| named(pattern, &finding.code));
    when.root.iter().any(|pattern| named(pattern, &root.code))
        && (when.with.is_empty() || when.with.iter().any(present))
        && !when.without.iter().any(present)
        && (when.marks.is_empty() || when.marks.iter().any(|mark| marks.contains(mark.as_str())))
        && !when.without_marks.iter().any(|mark| marks.contains(mark.as_str()))
        && units >= when.devices
}

/// The driver's own verdict on the root's GPU, of which the last counts.
fn driver_verdict(root: &Finding, findings: &[Finding]) -> Option<(Action, String)> {
    if !matches!(root.code, Code::Xid(_)) {
        return None;
    }
    let same = |finding: &&Finding| {
        finding.code.is_xid(&[154]) && (finding.unit == root.unit || finding.unit.is_none() || root.unit.is_none())
    };
    let value = findings.iter().filter(same).filter_map(|finding| finding.detail.recovery).next_back()?;
    let action = recovery_action(value);
    Some((action, format!("the driver's own verdict (Xid 154) on this GPU is {value}: {}", action.as_str())))
}

/// What NVML's recovery actions ask for.
fn recovery_action(value: u8) -> Action {
    match value {
        0 => Action::Ignore,
        1 | 6 => Action::ResetGpu,
        2 | 7 => Action::RebootNode,
        3 | 4 => Action::DrainAndReset,
        _ => Action::ContactSupport,
    }
}
