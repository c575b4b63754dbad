//! The command of a workload: in backquotes, a fence or quotation marks after
//! the verb, or the rest of the request after "the command".

use super::run::Run;
use crate::answer::Source;
use crate::catalog::resolve::Resolution;
use crate::shell::{self, ShellError};
use crate::text::{Kind, Quote, Words};

/// What announces a command.
const KEYWORDS: &[&[&str]] = &[
    &["command"],
    &["cmd"],
    &["the", "command"],
    &["this", "command"],
    &["the", "following", "command"],
    &["following", "command"],
    &["with", "command"],
    &["with", "the", "command"],
    &["and", "command"],
];
/// Words between the verb and a quoted command.
const BETWEEN: &[&[&str]] = &[&["this"], &["the", "following"], &["following"]];
/// Programs that start containers themselves; their flags mean fields of a specification.
const LAUNCHERS: &[&str] = &["docker", "podman", "nerdctl", "kubectl", "srun", "sbatch"];
/// Shells.
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ash"];
/// Words in an unmarked command that could as well be about the workload.
const DOUBTFUL: &[&str] = &[
    "on", "with", "using", "at", "for", "in", "as", "and", "then", "without", "not", "please", "pls", "named",
    "called", "image", "node",
];

const FIELD: &str = "workload.command";

/// The place after a word that announces a command whose text is not quoted.
pub(super) fn keyword(words: &Words<'_>, i: usize) -> Option<usize> {
    let next = words.skip_symbol(words.any(i, KEYWORDS)?, ':');
    words.quote(next).is_none().then_some(next)
}

/// Reads the command that stands here.
pub(super) fn read(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    if let Some(start) = keyword(words, i) {
        if words.word(start).is_empty() {
            return None;
        }
        return Some(unmarked(run, start));
    }
    let announced = words.any(i, KEYWORDS).map(|at| words.skip_symbol(at, ':'));
    let at = announced.or_else(|| behind_verb(run, i))?;
    let (quote, text) = words.quote(at)?;
    match quote {
        Quote::Code | Quote::Marks => {}
        Quote::Pasted | Quote::Open => return None,
    }
    let text = text.to_owned();
    if announced.is_none() && names_model(run, &text) {
        let options = vec![format!("the model {}", text.trim()), format!("the command {}", text.trim())];
        let prompt = format!("Is {text:?} the model to serve or a command?");
        run.notes.ask("workload.model", prompt, options);
        return Some(at + 1);
    }
    take(run, &text, at..at + 1);
    Some(at + 1)
}

/// The place where a quoted command is expected if the verb ends here: "run `x`",
/// "run this: `x`".
fn behind_verb(run: &Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let verb_ends = run.reading.verb.tokens.iter().any(|range| range.end == i);
    let after = words.skip(words.skip_symbol(i, ':'), BETWEEN);
    verb_ends.then(|| words.skip_symbol(after, ':'))
}

fn names_model(run: &Run<'_>, text: &str) -> bool {
    !matches!(run.reading.catalog.resolve(text), Resolution::Unknown)
}

/// A command without quotes reaches to the end of the request; where that is in
/// doubt, a person says where it ends.
fn unmarked(run: &mut Run<'_>, start: usize) -> usize {
    let words = run.reading.words;
    let rest = words.source[words.tokens[start].span.start..].trim();
    let doubt = (start + 1..words.len()).find(|k| match words.tokens[*k].kind {
        Kind::Word => DOUBTFUL.contains(&words.word(*k)),
        Kind::Symbol(symbol) => matches!(symbol, ',' | '.' | '!'),
        Kind::Quote(quote) => matches!(quote, Quote::Open | Quote::Pasted),
    });
    if let Some(k) = doubt {
        let short = words.span(start..k).text;
        let options = vec![format!("run `{short}`"), format!("run `{rest}`")];
        let prompt = "Where does the command end? Put it in backquotes.";
        run.notes.ask(FIELD, prompt, options);
    } else {
        let text = rest.to_owned();
        take(run, &text, start..words.len());
    }
    words.len()
}

/// Takes a command line as the workload's argument list.
fn take(run: &mut Run<'_>, line: &str, tokens: std::ops::Range<usize>) {
    let source = Source::Text(run.reading.words.span(tokens));
    let argv = match shell::split(line) {
        Ok(argv) => argv,
        Err(error) => return ask(run, line.trim(), &error),
    };
    let program = argv.first().map_or("", |first| first.rsplit('/').next().unwrap_or(first));
    if LAUNCHERS.contains(&program) {
        let prompt = format!("{program:?} starts containers or jobs by itself. Which image and command shall run?");
        return run.notes.ask("workload.image", prompt, Vec::new());
    }
    let by_shell = SHELLS.contains(&program) && argv.get(1).is_some_and(|flag| flag.ends_with('c'));
    if by_shell {
        let why = format!("the text after -c is run by {program:?}, which must exist where the workload runs");
        run.notes.assume(FIELD, &argv, why);
    }
    run.notes.set(&mut run.spec.command, argv, FIELD, source);
}

fn ask(run: &mut Run<'_>, line: &str, error: &ShellError) {
    let options = match error {
        ShellError::NeedsShell { .. } => vec![format!("sh -c {}", shell::quote(line))],
        ShellError::OpenQuote { .. } | ShellError::OpenEscape | ShellError::Empty => Vec::new(),
    };
    let prompt = format!("This command cannot run as it stands: {error}. What shall run?");
    run.notes.ask(FIELD, prompt, options);
}
