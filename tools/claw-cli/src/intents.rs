//! `claw intent parse --jsonl` and `claw eval intents`: the intent engine on
//! this machine, without a gateway.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use claw_intents::Catalog;
use claw_intents::eval;
use serde_json::{Map, Value, json};

use crate::error::CliError;
use crate::exit::Exit;
use crate::intents_random;
use crate::llm::{self, LlmOptions};
use crate::output::Screen;

/// Most of what is read from standard input or a file, bytes.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// What is asked of the intent engine.
#[derive(Debug, Clone, PartialEq)]
pub enum IntentCommand {
    /// Read cases from standard input and answer each with a line.
    ParseLines {
        /// The model that may propose.
        llm: Option<LlmOptions>,
    },
    /// Parse one request here, with a model that may propose.
    ParseOne {
        /// The request.
        text: String,
        /// The model.
        llm: LlmOptions,
    },
    /// Score a case file.
    Eval {
        /// The cases.
        cases: PathBuf,
        /// Answers to score; missing = the engine's own.
        answers: Option<PathBuf>,
        /// Least share of exact cases, 0 to 1, for a good exit code.
        fail_under: f64,
    },
    /// Try made-up requests.
    Random {
        /// Cases that they are made from.
        cases: PathBuf,
        /// How many.
        count: u32,
        /// The same seed makes the same requests.
        seed: u64,
    },
}

/// The commands of this file.
pub(crate) fn commands() -> Vec<Command> {
    let file = |name: &'static str| Arg::new(name).value_parser(value_parser!(PathBuf)).value_hint(ValueHint::FilePath);
    let eval = Command::new("intents")
        .about("Score the intent engine, or an answer file, against cases")
        .arg(file("cases").value_name("CASES").required(true).help("Cases, one JSON object a line"))
        .arg(file("answers").long("answers").value_name("FILE").help("Answers to score instead of the engine's own"))
        .arg(
            Arg::new("fail-under")
                .long("fail-under")
                .value_name("RATE")
                .default_value("0")
                .value_parser(value_parser!(f64))
                .help("End with 6 if the share of exact cases is less"),
        )
        .arg(
            Arg::new("random")
                .long("random")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..))
                .conflicts_with_all(["answers", "fail-under"])
                .help("Try N requests made from the cases by cutting and splicing: panics, answers, times"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("S")
                .default_value("1")
                .value_parser(value_parser!(u64))
                .help("The same seed makes the same requests"),
        );
    let parent = |name: &'static str, about: &'static str, child: Command| {
        Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true).subcommand(child)
    };
    vec![parent("eval", "Score something on this machine, without a gateway", eval)]
}

/// `claw intent parse` with `--jsonl` and `--llm`: cases from standard input instead of one request,
/// and a model where the grammar is unsure.
pub(crate) fn with_lines(leaf: Command) -> Command {
    llm::with_flags(leaf)
    .arg(
        Arg::new("jsonl").long("jsonl").action(ArgAction::SetTrue).conflicts_with("text").help_heading("Output").help(
            "Read cases from standard input, one JSON object a line, and answer each with a line; without a gateway",
        ),
    )
    // The request, or cases instead of it.
    .mut_group("subject", |group| group.arg("jsonl"))
}

/// What `claw intent parse` asks of this machine; none if it asks the gateway.
pub(crate) fn parse_of(matches: &ArgMatches) -> Result<Option<IntentCommand>, CliError> {
    let llm = llm::options(matches)?;
    if matches.get_flag("jsonl") {
        return Ok(Some(IntentCommand::ParseLines { llm }));
    }
    let text = matches.get_one::<String>("text").cloned().unwrap_or_default();
    Ok(llm.map(|llm| IntentCommand::ParseOne { text, llm }))
}

/// What `claw eval …` asks for.
pub(crate) fn eval_of(matches: &ArgMatches) -> Result<IntentCommand, CliError> {
    let inner = matches.subcommand_matches("intents").ok_or(CliError::Usage("say what to score"))?;
    let cases = inner.get_one::<PathBuf>("cases").cloned().unwrap_or_default();
    if let Some(count) = inner.get_one::<u32>("random").copied() {
        let seed = inner.get_one::<u64>("seed").copied().unwrap_or_default();
        return Ok(IntentCommand::Random { cases, count, seed });
    }
    Ok(IntentCommand::Eval {
        cases,
        answers: inner.get_one::<PathBuf>("answers").cloned(),
        fail_under: inner.get_one::<f64>("fail-under").copied().unwrap_or_default(),
    })
}

pub(crate) async fn run(command: &IntentCommand, screen: &Screen) -> Result<Exit, CliError> {
    match command {
        IntentCommand::ParseLines { llm } => lines(llm.as_ref(), screen).await,
        IntentCommand::ParseOne { text, llm } => llm::one(text, llm, screen).await,
        IntentCommand::Random { cases, count, seed } => {
            let read = eval::cases(&read(cases)?).map_err(|error| bad(&format!("{}: {error}", cases.display())))?;
            intents_random::run(&read, *count, *seed, screen)
        }
        IntentCommand::Eval { cases, answers, fail_under } => score(cases, answers.as_deref(), *fail_under, screen),
    }
}

/// Cases from standard input, each answered by a line.
async fn lines(llm: Option<&LlmOptions>, screen: &Screen) -> Result<Exit, CliError> {
    let mut asked = llm.map(llm::Asked::open).transpose()?;
    let text = all_of(std::io::stdin().lock()).map_err(|error| bad(&error))?;
    for case in eval::cases(&text).map_err(|error| bad(&error.to_string()))? {
        let answer = match &mut asked {
            None => eval::answer(&case, Catalog::builtin()),
            Some(asked) => {
                let answer = asked.parse(&case.id, &case.text, &case.context, screen).await?;
                eval::line(&case, &answer)
            }
        };
        screen.print(&format!("{}\n", Value::Object(answer)))?;
    }
    Ok(Exit::Ok)
}

fn score(cases: &Path, answers: Option<&Path>, fail_under: f64, screen: &Screen) -> Result<Exit, CliError> {
    let text = read(cases)?;
    let in_file = |error: eval::EvalError| bad(&format!("{}: {error}", cases.display()));
    // Whoever answered: a case that cannot be judged is refused.
    let checked = eval::cases(&text).map_err(in_file)?;
    let lines = eval::lines(&text).map_err(in_file)?;
    let answers: BTreeMap<String, Map<String, Value>> = if let Some(path) = answers {
        let text = read(path)?;
        let lines = eval::lines(&text).map_err(|error| bad(&format!("{}: {error}", path.display())))?;
        lines.into_iter().collect()
    } else {
        checked.iter().map(|case| (case.id.clone(), eval::answer(case, Catalog::builtin()))).collect()
    };
    let report = eval::score(&lines, &answers);
    if screen.is_json() {
        screen.print(&format!("{}\n", json!(report)))?;
    } else {
        screen.print(&report.table())?;
    }
    Ok(if report.all.rate() < fail_under { Exit::NotReached } else { Exit::Ok })
}

fn read(path: &Path) -> Result<String, CliError> {
    let named = |error: String| bad(&format!("{}: {error}", path.display()));
    all_of(std::fs::File::open(path).map_err(|error| named(error.to_string()))?).map_err(named)
}

/// All that there is to read; what is too much is refused, not cut.
fn all_of(from: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > INPUT_BYTES_MAX) {
        return Err(format!("it has more than {} MiB, which is the most; part it", INPUT_BYTES_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn bad(why: &str) -> CliError {
    CliError::Setting { what: "the input", why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_input_is_refused_and_not_cut() {
        let text = |bytes: u64| std::io::repeat(b'a').take(bytes);
        let most = all_of(text(INPUT_BYTES_MAX)).map(|text| text.len());
        assert_eq!(most, Ok(usize::try_from(INPUT_BYTES_MAX).unwrap()));
        let error = all_of(text(INPUT_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error, "it has more than 64 MiB, which is the most; part it");
        assert!(all_of([0xff_u8].as_slice()).is_err());
    }
}
