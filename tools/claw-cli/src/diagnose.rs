//! What `claw diagnose` does without a gateway: log files, cases as JSON lines, a rule explained.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use claw_observe::diagnose::cases;
use claw_observe::diagnose::code::Code;
use claw_observe::diagnose::insight::{self, Target};
use claw_observe::diagnose::observe::{LINE_BYTES, Observation};
use claw_observe::diagnose::policy::{self, Policy};
use claw_observe::diagnose::rules::{Compiled, Rules};
use claw_observe::{Analyzer, Insight, Observer};
use claw_tools::diagnosis::FaultAction;
use claw_tools::nearest::nearest;
use serde_json::json;

use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;

/// What is diagnosed.
#[derive(Debug, Clone, PartialEq)]
pub struct DiagnoseOptions {
    /// Cases come on standard input, answers go out.
    pub jsonl: bool,
    /// Log files; `-` is standard input.
    pub logs: Vec<PathBuf>,
    /// The rule or code that is explained.
    pub explain: Option<String>,
    /// The policy's name.
    pub policy: String,
}

/// Adds to the operation `diagnose` what this machine does alone.
pub(crate) fn extend(leaf: Command) -> Command {
    let alone =
        |arg: Arg| arg.help_heading("Without a gateway").conflicts_with_all(["workload", "node", "text", "watch"]);
    leaf.arg(alone(
        Arg::new("logs")
            .long("logs")
            .value_name("FILE")
            .num_args(1..)
            .value_parser(value_parser!(PathBuf))
            .value_hint(ValueHint::FilePath)
            .help("Log files of one incident; - is standard input. Nothing is sent anywhere"),
    ))
    .arg(alone(
        Arg::new("jsonl")
            .long("jsonl")
            .action(ArgAction::SetTrue)
            .conflicts_with_all(["logs", "explain"])
            .help("Cases on standard input, one JSON object a line with id and lines; one answer a line"),
    ))
    .arg(alone(
        Arg::new("explain")
            .long("explain")
            .value_name("RULE")
            .conflicts_with("logs")
            .help("Explain a rule, a code such as xid_79, or a policy"),
    ))
}

/// What is done here; none if the gateway is asked.
pub(crate) fn options(matches: &ArgMatches) -> Option<DiagnoseOptions> {
    let options = DiagnoseOptions {
        jsonl: matches.get_flag("jsonl"),
        logs: matches.get_many::<PathBuf>("logs").into_iter().flatten().cloned().collect(),
        explain: matches.get_one::<String>("explain").cloned(),
        policy: matches.get_one::<String>("policy").cloned().unwrap_or_else(|| Policy::ours().name.clone()),
    };
    let here = options.jsonl || !options.logs.is_empty() || options.explain.is_some();
    here.then_some(options)
}

/// Diagnoses and prints.
pub(crate) fn run(options: &DiagnoseOptions, screen: &Screen) -> Result<Exit, CliError> {
    let policy = Policy::named(&options.policy).map_err(|unknown| CliError::NotKnown {
        what: "policy",
        name: unknown.name,
        near: format!("; there are {}", unknown.known.join(", ")),
    })?;
    if let Some(name) = &options.explain {
        return explain(name, screen);
    }
    if options.jsonl { answers(policy, screen) } else { logs(&options.logs, policy, screen) }
}

fn answers(policy: &'static Policy, screen: &Screen) -> Result<Exit, CliError> {
    let mut exit = Exit::Ok;
    for (index, line) in io::stdin().lock().lines().enumerate() {
        let line = line.map_err(|source| CliError::File { path: PathBuf::from("-"), source })?;
        if line.trim().is_empty() {
            continue;
        }
        match cases::answer(&line, index + 1, policy) {
            Ok(answer) => screen.print(&format!("{}\n", json!(answer)))?,
            Err(error) => {
                tracing::error!(%error, "left out");
                exit = Exit::Usage;
            }
        }
    }
    Ok(exit)
}

fn logs(files: &[PathBuf], policy: &'static Policy, screen: &Screen) -> Result<Exit, CliError> {
    let verdict = Analyzer::new(Rules::built_in(), policy).judge(&observed(files)?);
    let insight = Insight::new(Rules::built_in(), &verdict, &Target::default());
    if screen.is_json() {
        screen.json(&json!(insight.diagnosis))?;
    } else {
        screen.print(&insight.text())?;
    }
    Ok(Exit::Ok)
}

/// What stands in files of one incident, and which of them could not be read.
fn observed(files: &[PathBuf]) -> Result<Observation, CliError> {
    let mut observer = Observer::new(Rules::built_in(), "");
    for path in files {
        observer.next_source(&path.display().to_string());
        let failed = |source| CliError::File { path: path.clone(), source };
        if path == Path::new("-") {
            read(&mut io::stdin().lock(), &mut observer).map_err(failed)?;
        } else {
            let file = File::open(path).map_err(failed)?;
            read(&mut BufReader::with_capacity(1 << 16, file), &mut observer).map_err(failed)?;
        }
        if observer.source_lines() == 0 {
            observer.unread(format!("{}: no line of text", path.display()));
        }
    }
    Ok(observer.finish())
}

/// Feeds lines of any length and any bytes, in bounded memory.
pub(crate) fn read(input: &mut impl BufRead, observer: &mut Observer) -> io::Result<()> {
    let mut line: Vec<u8> = Vec::new();
    let mut began = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            if began {
                observer.line(&String::from_utf8_lossy(&line));
            }
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        // A little more than is looked at, so that the observer sees that it is not all.
        let room = (LINE_BYTES + 1).saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        began = true;
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            observer.line(&String::from_utf8_lossy(&line));
            line.clear();
            began = false;
        }
    }
}

/// What a rule, a code or a policy is, and where it is written.
fn explain(name: &str, screen: &Screen) -> Result<Exit, CliError> {
    let rules = Rules::built_in();
    let mut lines: Vec<String> = Vec::new();
    if let Ok(policy) = Policy::named(name) {
        lines.extend(of_policy(policy));
    } else if let Some(compiled) = rules.text_rule(name) {
        lines.extend(of_rule(compiled));
        lines.extend(of_code(rules, &compiled.code));
    } else if let Some(told) = name.parse().ok().and_then(|code| of_code(rules, &code)) {
        lines.push(told);
    } else {
        let near = near(rules, name);
        let near = if near.is_empty() { String::new() } else { format!("; near are {}", near.join(", ")) };
        return Err(CliError::NotKnown { what: "rule, code or policy of a diagnosis", name: name.to_owned(), near });
    }
    screen.print(&(lines.join("\n") + "\n"))?;
    Ok(Exit::Ok)
}

fn of_rule(compiled: &Compiled) -> Vec<String> {
    let rule = &compiled.rule;
    let mut lines = vec![format!("rule {} finds {} ({})", rule.id, rule.code, compiled.vendor)];
    lines.push(format!("pattern: {}", rule.pattern));
    lines.extend(rule.except.iter().map(|except| format!("except: {except}")));
    lines.extend(rule.unsure.iter().map(|unsure| format!("unsure ({:.1}): {unsure}", rule.confidence)));
    let last = |example: &String| format!("example: {}", example.lines().next_back().unwrap_or_default());
    lines.extend(rule.examples.iter().map(last));
    if !rule.ladder.is_empty() {
        lines.push(format!("actions: {}", ladder(&rule.ladder)));
    }
    lines.push(format!("source: {}", compiled.source));
    lines
}

/// What a code is; none if no table and no file of the rules knows it.
fn of_code(rules: &Rules, code: &Code) -> Option<String> {
    let (class, action, more) = match code {
        Code::Xid(number) => {
            let row = rules.xids.get(number)?;
            let [now, then] = &row.catalog;
            let follows = if row.after == "no" { String::new() } else { format!("only follows: {}\n", row.after) };
            (row.class, row.action, format!("catalog: {now}, then {then}\n{follows}source: {}", row.source))
        }
        Code::Sxid(number) => {
            let row = rules.sxids.get(number)?;
            let more = format!("group {}; if it stays: {}\nsource: {}", row.group, row.then, row.source);
            (row.class, row.action, more)
        }
        Code::Named(name) => {
            let row = rules.named.get(&**name)?;
            (row.class, row.action, format!("actions: {}\nwould confirm: {}", ladder(&row.ladder), row.confirm))
        }
    };
    let cause = insight::cause(rules, code);
    Some(format!("{code}: {cause}\nclass {}, first {}\n{more}", class.as_str(), action.as_str()))
}

fn of_policy(policy: &Policy) -> Vec<String> {
    let mut lines = vec![format!("policy {}: {}", policy.name, policy.about)];
    if let (Some(most), Some(then)) = (policy.remediations, policy.then) {
        let days = policy.within_days.map_or(String::new(), |days| format!(" within {days} days"));
        lines.push(format!("after {most} remediations{days}: {then}"));
    }
    lines.push(format!("source: {}", policy.source));
    lines
}

fn ladder(actions: &[FaultAction]) -> String {
    actions.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(", ")
}

/// Names that are like one that nobody knows: at most three.
fn near(rules: &Rules, name: &str) -> Vec<String> {
    let text = rules.text.iter().map(|compiled| compiled.rule.id.clone());
    let codes = rules.named.keys().cloned();
    let xids = rules.xids.keys().map(|number| format!("xid_{number}"));
    let sxids = rules.sxids.keys().map(|number| format!("sxid_{number}"));
    let policies = policy::all().iter().map(|policy| policy.name.clone());
    let mut all: Vec<String> = text.chain(codes).chain(xids).chain(sxids).chain(policies).collect();
    let mut near = Vec::new();
    while near.len() < 3
        && let Some(found) = nearest(name, all.iter().map(String::as_str))
    {
        all.retain(|other| *other != found);
        near.push(found);
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = "step=1 loss=2.0\nstep=2 loss=1.9\n";
    const LOST: &str = "[ 1.0] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.\n";

    /// Root, confidence and reasons over files with these contents.
    fn told(contents: &[&[u8]]) -> (Option<Code>, f64, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = |(index, content): (usize, &&[u8])| {
            let path = folder.path().join(format!("log-{index}"));
            std::fs::write(&path, content).unwrap();
            path
        };
        let files: Vec<PathBuf> = contents.iter().enumerate().map(file).collect();
        let verdict = Analyzer::new(Rules::built_in(), Policy::ours()).judge(&observed(&files).unwrap());
        (verdict.root, verdict.confidence, verdict.why.join("; "))
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_one_without_faults() {
        let utf16: Vec<u8> = LOST.repeat(9).encode_utf16().flat_map(u16::to_le_bytes).collect();
        // What `gzip` made of 50 lines of a log, or of anything else: bytes in no order.
        let mut state = 7_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        };
        let packed: Vec<u8> = [0x1f, 0x8b, 8].into_iter().chain((0..20_000).map(|_| byte())).collect();
        for (content, says) in [
            (b"\n  \n\n".as_slice(), "no line of text"),
            (b"".as_slice(), "no line of text"),
            (&utf16, "is not text"),
            (&packed, "is not text"),
        ] {
            let (root, confidence, why) = told(&[content]);
            assert!(root.is_none() && confidence <= 0.1 && why.contains(says), "{root:?} {confidence} {why}");
            // Beside a file that can be read, it makes unsure.
            let (root, confidence, why) = told(&[HEALTHY.as_bytes(), content]);
            assert!(root.is_none() && confidence <= 0.5 && why.contains(says), "{root:?} {confidence} {why}");
            let (root, confidence, why) = told(&[content, LOST.as_bytes()]);
            assert_eq!((root, confidence), (Some(Code::Xid(79)), 0.9), "{why}");
            assert!(why.contains(says), "{why}");
        }
        assert_eq!(told(&[HEALTHY.as_bytes(), HEALTHY.as_bytes()]), (None, 0.9, String::new()));
    }

    #[test]
    fn what_stands_behind_the_cut_of_a_line_is_not_nothing() {
        let of = |bytes: usize| format!("{HEALTHY}{}{LOST}{HEALTHY}", " x".repeat(bytes / 2));
        let (root, confidence, why) = told(&[of(LINE_BYTES).as_bytes()]);
        assert!(root.is_none() && confidence <= 0.5 && why.contains("1 line of") && why.contains("cut"), "{why}");
        assert_eq!(told(&[of(LINE_BYTES / 2).as_bytes()]).0, Some(Code::Xid(79)));
        let whole = "x".repeat(LINE_BYTES);
        assert_eq!(told(&[whole.as_bytes()]), (None, 0.9, String::new()));
    }
}
