//! What `claw diagnose` does without a gateway: log files, cases as JSON lines, a rule explained.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use claw_observe::diagnose::code::Code;
use claw_observe::diagnose::insight::{self, Target};
use claw_observe::diagnose::observe::LINE_BYTES;
use claw_observe::diagnose::policy::Policy;
use claw_observe::diagnose::{cases, rules::Rules};
use claw_observe::{Analyzer, Insight, Observer};
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
            .help("Explain a rule or a code, such as xid_79"),
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
    let policy = Policy::named(&options.policy).map_err(|_| CliError::Usage("there is no such policy"))?;
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
    let rules = Rules::built_in();
    let mut observer = Observer::new(rules, "");
    for path in files {
        observer.next_source(&path.display().to_string());
        let failed = |source| CliError::File { path: path.clone(), source };
        if path == Path::new("-") {
            read(&mut io::stdin().lock(), &mut observer).map_err(failed)?;
        } else {
            let file = File::open(path).map_err(failed)?;
            read(&mut BufReader::with_capacity(1 << 16, file), &mut observer).map_err(failed)?;
        }
    }
    let verdict = Analyzer::new(rules, policy).judge(&observer.finish());
    let insight = Insight::new(rules, &verdict, &Target::default());
    if screen.is_json() {
        screen.json(&json!(insight.diagnosis))?;
    } else {
        screen.print(&insight.text())?;
    }
    Ok(Exit::Ok)
}

/// Feeds lines of any length and any bytes, in bounded memory.
fn read(input: &mut impl BufRead, observer: &mut Observer) -> io::Result<()> {
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
        let room = LINE_BYTES.saturating_sub(line.len()).min(part.len());
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

/// What a rule or a code is, and where it is written.
fn explain(name: &str, screen: &Screen) -> Result<Exit, CliError> {
    let rules = Rules::built_in();
    let mut lines: Vec<String> = Vec::new();
    if let Some(compiled) = rules.text_rule(name) {
        let rule = &compiled.rule;
        lines.push(format!("rule {name} finds {} ({})", rule.code, compiled.vendor));
        lines.push(format!("pattern: {}", rule.pattern));
        if let Some(except) = &rule.except {
            lines.push(format!("except: {except}"));
        }
        for example in &rule.examples {
            lines.push(format!("example: {}", example.lines().next_back().unwrap_or_default()));
        }
        lines.push(format!("source: {}", compiled.source));
    }
    let code = rules.text_rule(name).map_or_else(|| name.parse().ok(), |compiled| Some(compiled.code.clone()));
    let known = code.as_ref().is_some_and(|code| match code {
        Code::Xid(_) | Code::Sxid(_) => true,
        Code::Named(name) => rules.named.contains_key(&**name),
    });
    let Some(code) = code.filter(|_| known || !lines.is_empty()) else {
        return Err(CliError::Usage("there is no such rule or code"));
    };
    lines.push(format!("{code}: {}", insight::cause(rules, &code)));
    let told = match &code {
        Code::Xid(number) => rules.xids.get(number).map(|row| (row.class, row.action, row.source.clone())),
        Code::Sxid(number) => rules.sxids.get(number).map(|row| (row.class, row.action, row.source.clone())),
        Code::Named(name) => rules.named.get(&**name).map(|code| (code.class, code.action, code.confirm.clone())),
    };
    if let Some((class, action, note)) = told {
        lines.push(format!("class {}, first {}\n{note}", class.as_str(), action.as_str()));
    }
    screen.print(&(lines.join("\n") + "\n"))?;
    Ok(Exit::Ok)
}
