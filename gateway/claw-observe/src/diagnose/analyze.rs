//! Findings in, one verdict out: root against sympathetic, cancellation, the driver's own
//! verdict, and what findings change about each other.

use std::collections::BTreeSet;

use super::architecture::Architecture;
use super::code::{Action, Class, Code};
use super::device::Unit;
use super::nvlink5;
use super::observe::{Finding, GONE, Observation};
use super::policy::Policy;
use super::rules::{Rules, TextRule, When};
use excuse::{belongs, driver_verdict, may_belong, recovery_action};

mod excuse;
pub mod fleet;

/// Xids of a program; beside them alone the driver's verdict leads.
const PROGRAM: [u32; 4] = [13, 31, 43, 45];
/// Xids that alone never justify a reset, a reboot or a fence.
const NEVER_HARDWARE: [u32; 7] = [13, 31, 43, 45, 63, 92, 94];
/// The rank of a number that no table has.
const UNKNOWN_RANK: u8 = 70;
/// How sure a verdict is that read nothing.
const UNREAD: f64 = 0.1;
/// How sure it is at most that nothing is wrong, if it could not read all.
const PARTLY: f64 = 0.5;
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
    /// The name of the policy that was asked.
    pub policy: String,
    /// The name of the one that chose: ours, where the asked one has no opinion.
    pub chosen_by: String,
    /// What the other policies with an opinion would do, where it differs.
    pub others: Vec<(String, Action)>,
    /// All units hit by the root's code.
    pub units: Vec<Unit>,
    /// Was there anything to judge?
    pub is_read: bool,
    /// Could all of it be read that should have been?
    pub is_whole: bool,
}

/// What the root's code asks for on one device.
struct Ruling {
    index: usize,
    class: Class,
    action: Action,
    confidence: f64,
    /// From when on later evidence of the same device says that it is over.
    over_at: Option<u64>,
    why: Vec<String>,
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
        let meanings: Vec<Meaning> = findings.iter().map(|finding| self.meaning(finding, observation)).collect();
        let canceled = excuse::canceled(self.rules, &findings);
        let Some(ruling) = self.lead(&findings, &meanings, canceled) else {
            return self.nothing(observation, findings);
        };
        let Some(code) = findings.get(ruling.index).map(|finding| finding.code.clone()) else {
            return self.nothing(observation, findings);
        };
        let of_code = findings.iter().zip(&meanings).filter(|(finding, _)| finding.code == code);
        let severe = of_code.into_iter().any(|(_, meaning)| meaning.severe);
        let mut why = ruling.why;
        if observation.dropped > 0 {
            why.push(format!("{} more matches found no room and were only counted", observation.dropped));
        }
        why.extend(observation.unread.iter().cloned());
        let asked = super::policy::Asked {
            root: &code,
            ours: ruling.action,
            severe,
            known: self.is_known(&code),
            remediations: self.history.remediations,
        };
        let choice = self.policy.choose(&asked);
        why.extend(choice.why.clone());
        if self.history.remediations > 0 {
            let n = self.history.remediations;
            why.push(format!("it came again on this unit after {n} reset(s) or restart(s) that followed it"));
        }
        let others = super::policy::all().iter().filter(|policy| policy.name != self.policy.name);
        let others = others.map(|policy| (policy, policy.choose(&asked)));
        let differs = others.filter(|(_, other)| other.is_own && other.action != choice.action);
        Verdict {
            class: ruling.class,
            action: choice.action,
            confidence: ruling.confidence,
            root_index: Some(ruling.index),
            why,
            policy: self.policy.name.clone(),
            chosen_by: if choice.is_own { self.policy.name.clone() } else { Policy::ours().name.clone() },
            others: differs.map(|(policy, other)| (policy.name.clone(), other.action)).collect(),
            units: units_of(&findings, &code),
            root: Some(code),
            is_read: true,
            is_whole: observation.unread.is_empty(),
            findings,
        }
    }

    /// The ruling on the root. A root that is over leads over no fault that asks for something and is not. That a
    /// program has to be started again mostly follows from what is over, and does not lead; but what comes after
    /// all was over did not follow from it.
    fn lead(&self, findings: &[Finding], meanings: &[Meaning], mut gone: BTreeSet<usize>) -> Option<Ruling> {
        let first = self.lead_of(findings, meanings, &gone)?;
        let (mut excused, mut over_at) = (first.over_at.map(|_| first.index), first.over_at);
        let is_nothing_to_do = first.action == Action::Ignore;
        while let Some(code) = excused.and_then(|index| findings.get(index)).map(|finding| &finding.code) {
            gone.extend(
                findings.iter().enumerate().filter(|(_, finding)| finding.code == *code).map(|(index, _)| index),
            );
            let Some(next) = self.lead_of(findings, meanings, &gone) else { break };
            let last = findings.get(next.index).map(|finding| finding.last_order);
            let is_new = is_nothing_to_do && last > over_at;
            let asks = next.action > Action::Ignore && (next.action != Action::RestartApp || is_new);
            if asks && next.over_at.is_none() {
                return Some(next);
            }
            excused = Some(next.index);
            over_at = over_at.max(next.over_at);
        }
        Some(first)
    }

    /// The ruling on the root among what is not gone.
    fn lead_of(&self, findings: &[Finding], meanings: &[Meaning], gone: &BTreeSet<usize>) -> Option<Ruling> {
        let code = &findings.get(root(findings, meanings, gone)?)?.code;
        // Each device of the root's code is judged by itself; the one that needs most leads, of equals the surer.
        let mut leads: Option<Ruling> = None;
        for (index, (finding, meaning)) in findings.iter().zip(meanings).enumerate() {
            if finding.code != *code || gone.contains(&index) {
                continue;
            }
            let one = self.rule_on(index, finding, meaning, findings);
            let leading = |known: &Ruling| {
                one.action > known.action || one.action == known.action && one.confidence > known.confidence
            };
            if leads.as_ref().is_none_or(leading) {
                leads = Some(one);
            }
        }
        leads
    }

    /// What the root's code asks for on one device, after what else was found there.
    fn rule_on(&self, index: usize, finding: &Finding, meaning: &Meaning, findings: &[Finding]) -> Ruling {
        let mut why: Vec<String> = meaning.why.iter().cloned().collect();
        let (mut class, mut action) = (meaning.class, meaning.action);
        let mut over_at = None;
        if let Some(when) = self.rules.whens.iter().find(|when| fits(when, finding, findings)) {
            class = when.class.unwrap_or(class);
            action = when.action.unwrap_or(action);
            let marked = |mark: &String| findings.iter().filter_map(|other| other.marks.get(mark)).max();
            over_at = when.marks.iter().filter_map(marked).max().copied();
            why.push(format!("{} ({})", when.why, when.id));
        }
        if finding.code.is_xid(&NEVER_HARDWARE) && action.is_hardware() {
            action = Action::RestartApp;
        }
        let own = action;
        if let Some((order, words)) = excuse::over(self.rules, finding, findings) {
            action = Action::Ignore;
            over_at = Some(order);
            why.push(words.to_owned());
        }
        if let Some((said, order, words)) = driver_verdict(finding, action, findings) {
            action = said;
            over_at = (said == Action::Ignore).then_some(order);
            why.push(words);
        }
        if finding.marks.contains_key(GONE) && own.is_hardware() {
            (action, over_at) = (Action::Service, None);
            why.push("the machine was started anew since, and this GPU did not come back".to_owned());
        }
        Ruling { index, class, action, confidence: meaning.confidence, over_at, why }
    }

    /// Does any table know the code?
    fn is_known(&self, code: &Code) -> bool {
        match code {
            Code::Xid(number) => self.rules.xids.contains_key(number),
            Code::Sxid(number) => self.rules.sxids.contains_key(number),
            Code::Named(name) => self.rules.named.contains_key(&**name),
        }
    }

    fn nothing(&self, observation: &Observation, findings: Vec<Finding>) -> Verdict {
        let is_read = observation.lines + observation.records > 0;
        let is_whole = observation.unread.is_empty();
        let nothing = (!is_read).then(|| "nothing was read: no log line, no event, no fresh numbers".to_owned());
        let sure = if is_whole { 0.9 } else { PARTLY };
        Verdict {
            root: None,
            class: Class::None,
            action: if findings.is_empty() { Action::None } else { Action::Ignore },
            confidence: if is_read { sure } else { UNREAD },
            findings,
            root_index: None,
            why: nothing.into_iter().chain(observation.unread.iter().cloned()).collect(),
            policy: self.policy.name.clone(),
            chosen_by: self.policy.name.clone(),
            others: Vec::new(),
            units: Vec::new(),
            is_read,
            is_whole,
        }
    }

    /// What a finding means by itself, before the others are looked at.
    fn meaning(&self, finding: &Finding, observation: &Observation) -> Meaning {
        let mut meaning = match &finding.code {
            Code::Xid(number) => self.xid(*number, finding),
            Code::Sxid(number) => self.sxid(*number, finding),
            Code::Named(name) => self.named(name, finding),
        };
        if let Some(architecture) = observation.known.of(finding.unit.as_ref()) {
            self.bind(&mut meaning, finding, architecture);
        }
        meaning
    }

    /// Where tables or rules are bound to other architectures than the GPU's, they do not speak of it.
    fn bind(&self, meaning: &mut Meaning, finding: &Finding, architecture: Architecture) {
        let mut elsewhere = None;
        for bound in &self.rules.architectures.bounds {
            if !finding.code.is_xid(&bound.xids) {
                continue;
            }
            if !bound.architectures.contains(&architecture) {
                elsewhere = bound.elsewhere.clone().or(elsewhere);
            } else if let Some(here) = &bound.here {
                let why = meaning.why.take().filter(|why| !why.is_empty());
                meaning.why = Some(why.map_or_else(|| here.clone(), |why| format!("{why}; {here}")));
            }
        }
        let mut rules = finding.rules.iter().filter_map(|id| self.rules.text_rule(id)).peekable();
        let speaks = |rule: &TextRule| rule.architectures.is_empty() || rule.architectures.contains(&architecture);
        if rules.peek().is_some() && !rules.any(|compiled| speaks(&compiled.rule)) {
            elsewhere = Some("the rule speaks of other architectures: collect a report".to_owned());
        }
        if let Some(why) = elsewhere {
            (meaning.action, meaning.confidence) = (Action::ContactSupport, 0.3);
            meaning.why = Some(format!("the GPU is of {architecture}: {why}"));
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
            }
            // What one rule says for sure, another does not make doubtful.
            if decided && rule.requires.is_some() || rule.confidence > meaning.confidence || index == 0 {
                meaning.confidence = rule.confidence;
                meaning.why.clone_from(&rule.unsure);
            }
        }
        if let Some(asks) = finding.asks {
            (meaning.action, meaning.confidence) = (asks.action, asks.confidence);
            meaning.why = Some(asks.why.to_owned());
        }
        if finding.marks.contains_key("missing") {
            (meaning.class, meaning.action) = (Class::Image, Action::FixConfig);
        }
        if finding.weak {
            (meaning.rank, meaning.confidence) = (WEAK_RANK, 0.4);
        }
        meaning
    }
}

/// The earliest cause that explains the rest.
fn root(findings: &[Finding], meanings: &[Meaning], canceled: &BTreeSet<usize>) -> Option<usize> {
    let beside =
        |finding: &Finding| matches!(finding.code, Code::Xid(_) | Code::Sxid(_)) && !finding.code.is_xid(&[154]);
    let verdict_leads = !findings.iter().any(|finding| beside(finding) && !finding.code.is_xid(&PROGRAM));
    let mut best: Option<(u8, usize)> = None;
    for (index, (finding, meaning)) in findings.iter().zip(meanings).enumerate() {
        if canceled.contains(&index) {
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

/// Does a rule about several findings fit this root? What other devices show is theirs.
fn fits(when: &When, root: &Finding, findings: &[Finding]) -> bool {
    let named = |pattern: &String, code: &Code| {
        let name = code.to_string();
        pattern.strip_suffix('*').map_or(name == *pattern, |start| name.starts_with(start))
    };
    let here = || findings.iter().filter(|finding| may_belong(finding, root));
    let present = |pattern: &String| here().any(|finding| named(pattern, &finding.code));
    let marked = |finding: &&Finding| {
        let late = |mark: &String| finding.marks.get(mark).is_some_and(|order| *order >= root.last_order);
        when.marks.iter().any(late)
    };
    when.root.iter().any(|pattern| named(pattern, &root.code))
        && (when.with.is_empty() || when.with.iter().any(present))
        && !when.without.iter().any(present)
        && (when.marks.is_empty() || findings.iter().filter(marked).any(|finding| belongs(finding, root, findings)))
}
