//! Command lines of operations, both ways: a clap command made from the schema, the arguments
//! that its matches stand for, and the command line of a call that somebody suggests.

#[cfg(test)]
mod tests;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, ValueHint, value_parser};
use claw_tools::def::OpDef;
use serde_json::{Map, Number, Value};

use crate::error::CliError;
use crate::fields::{self, COMMON, Field, Kind};
use crate::{json_input, run_flags, secret_input};

/// Heading of the fields that all changes have.
const COMMON_HEADING: &str = "Every change";

/// The clap command of an operation, under the last word of its path.
pub(crate) fn command(op: &'static OpDef) -> Command {
    let (noun, verb) = op.cli_path();
    let mut command = Command::new(verb.unwrap_or(noun)).about(op.title).long_about(op.doc);
    for (place, field) in fields::of(op).into_iter().enumerate() {
        if run_flags::replaces(op, &field) {
            continue;
        }
        if field.positional {
            command = command
                .arg(positional(&field))
                .group(ArgGroup::new("subject").args([field.name.clone(), flag_id(&field)]).required(true));
        }
        command = match field.kind {
            Kind::Argv => command.arg(argv(&field)),
            _ => command.arg(flag(&field).display_order(place)),
        };
    }
    if run_flags::applies(op) {
        return run_flags::extend(command);
    }
    command.override_usage(usage(op))
}

/// The usage line: what is required, the one without a flag first.
fn usage(op: &OpDef) -> String {
    let (noun, verb) = op.cli_path();
    let mut words = vec!["claw".to_owned(), noun];
    words.extend(verb);
    for field in fields::of(op).iter().filter(|field| field.required) {
        match field.kind {
            Kind::Argv => {}
            _ if field.positional => words.push(format!("<{}>", field.value_name())),
            _ => words.push(format!("--{} <{}>", field.flag(), field.value_name())),
        }
    }
    words.push("[OPTIONS]".to_owned());
    if fields::of(op).iter().any(|field| field.kind == Kind::Argv) {
        words.push("-- <COMMAND>...".to_owned());
    }
    words.join(" ")
}

/// A command after `--`.
fn argv(field: &Field) -> Arg {
    Arg::new(field.name.clone())
        .value_name(field.value_name())
        .help(field.help.clone())
        .num_args(1..)
        .required(true)
        .value_parser(value_parser!(String))
        .index(2)
        .last(true)
}

/// The id of a field's flag; a positional field has two arguments.
fn flag_id(field: &Field) -> String {
    if field.positional { format!("--{}", field.name) } else { field.name.clone() }
}

fn positional(field: &Field) -> Arg {
    Arg::new(field.name.clone())
        .value_name(field.value_name())
        .help(field.help.clone())
        .value_parser(parser(&field.kind))
        .index(1)
}

fn flag(field: &Field) -> Arg {
    let arg = Arg::new(flag_id(field))
        .long(field.flag())
        .help(field.help.clone())
        .required(field.required && !field.positional);
    let arg = takes(arg, &field.kind, field.value_name());
    let arg = if field.positional { arg.hide(true) } else { arg };
    if COMMON.contains(&field.name.as_str()) { arg.help_heading(COMMON_HEADING) } else { arg }
}

/// Makes an argument take values of a kind.
pub(crate) fn takes(arg: Arg, kind: &Kind, value_name: String) -> Arg {
    let arg = arg.value_parser(parser(kind)).value_name(value_name);
    match kind {
        Kind::Boolean => arg.num_args(0..=1).default_missing_value("true"),
        Kind::List(item) if matches!(**item, Kind::Choice(_)) => arg.action(ArgAction::Append).value_delimiter(','),
        Kind::List(_) | Kind::Map => arg.action(ArgAction::Append),
        Kind::Json | Kind::Secret => arg.value_hint(ValueHint::FilePath),
        Kind::Argv => arg.action(ArgAction::Append),
        Kind::Text | Kind::Choice(_) | Kind::Integer(..) | Kind::Number => arg,
    }
}

fn parser(kind: &Kind) -> ValueParser {
    match kind {
        Kind::Text | Kind::Json | Kind::Secret | Kind::Argv => value_parser!(String),
        Kind::Choice(values) => PossibleValuesParser::new(values.clone()).into(),
        Kind::Integer(least, most) => value_parser!(i64).range(*least..=*most).into(),
        Kind::Number => value_parser!(f64).into(),
        Kind::Boolean => value_parser!(bool),
        Kind::List(item) => parser(item),
        Kind::Map => ValueParser::new(key_value),
    }
}

/// One `KEY=VALUE`.
fn key_value(text: &str) -> Result<(String, String), KeyValueError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(KeyValueError),
    }
}

/// The text is not `KEY=VALUE`.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("expected KEY=VALUE")]
struct KeyValueError;

/// The arguments of the operation that a matched command line stands for.
pub(crate) fn arguments(op: &'static OpDef, matches: &ArgMatches) -> Result<Map<String, Value>, CliError> {
    let mut args = Map::new();
    for field in fields::of(op) {
        if run_flags::replaces(op, &field) {
            continue;
        }
        let by_place = field.positional.then(|| value(matches, &field.name, &field.kind));
        let found = match by_place {
            Some(Some(value)) => Some(value),
            _ => value(matches, &flag_id(&field), &field.kind),
        };
        let Some(found) = found else { continue };
        let found = match (&field.kind, found) {
            (Kind::Json, Value::String(text)) => json_input::read(&field.flag(), &text)?,
            (Kind::Secret, Value::String(path)) => secret_input::read(&path, &mut args)?,
            (_, found) => found,
        };
        args.insert(field.name, found);
    }
    if run_flags::applies(op) {
        run_flags::complete(matches, &mut args)?;
    }
    Ok(args)
}

/// What was given for an argument, as JSON.
pub(crate) fn value(matches: &ArgMatches, id: &str, kind: &Kind) -> Option<Value> {
    let number = |n: &f64| Number::from_f64(*n).map_or(Value::Null, Value::Number);
    match kind {
        Kind::Text | Kind::Choice(_) | Kind::Json | Kind::Secret => {
            matches.get_one::<String>(id).map(|text| Value::from(text.as_str()))
        }
        Kind::Integer(..) => matches.get_one::<i64>(id).map(|n| Value::from(*n)),
        Kind::Number => matches.get_one::<f64>(id).map(number),
        Kind::Boolean => matches.get_one::<bool>(id).map(|yes| Value::from(*yes)),
        Kind::List(item) => match **item {
            Kind::Integer(..) => many(matches, id, |n: &i64| Value::from(*n)),
            Kind::Number => many(matches, id, number),
            Kind::Boolean => many(matches, id, |yes: &bool| Value::from(*yes)),
            Kind::Text | Kind::Choice(_) | Kind::List(_) | Kind::Map | Kind::Json | Kind::Secret | Kind::Argv => {
                many(matches, id, |text: &String| Value::from(text.as_str()))
            }
        },
        Kind::Argv => many(matches, id, |text: &String| Value::from(text.as_str())),
        Kind::Map => {
            let pairs = matches.get_many::<(String, String)>(id)?;
            Some(pairs.map(|(key, text)| (key.clone(), Value::from(text.as_str()))).collect())
        }
    }
}

fn many<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, id: &str, json: impl Fn(&T) -> Value) -> Option<Value> {
    let values = matches.get_many::<T>(id)?;
    Some(values.map(json).collect())
}

/// The command line that makes a call, ready to be pasted into a shell.
pub(crate) fn command_line(tool: &str, args: &Value) -> String {
    let known = claw_tools::registry::find(tool);
    let parts = match (known, args) {
        (Some(op), Value::Object(args)) => operation_line(op, args),
        (Some(op), Value::Null) => operation_line(op, &Map::new()),
        _ => None,
    };
    let parts = parts.unwrap_or_else(|| vec!["call".into(), tool.into(), args.to_string()]);
    let words = parts.iter().map(|part| quoted(part));
    ["claw".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// The words after `claw`; nothing if an argument has no place on the command line.
fn operation_line(op: &OpDef, args: &Map<String, Value>) -> Option<Vec<String>> {
    let (noun, verb) = op.cli_path();
    let mut words: Vec<String> = [Some(noun), verb].into_iter().flatten().collect();
    let fields = fields::of(op);
    if args.keys().any(|name| fields.iter().all(|field| field.name != *name)) {
        return None;
    }
    let mut last = Vec::new();
    for field in &fields {
        let Some(value) = args.get(&field.name) else {
            continue;
        };
        let mut give = |text: String| words.extend(given(&field.flag(), text));
        match (&field.kind, value) {
            (Kind::Json, value) => give(value.to_string()),
            // Never the value itself.
            (Kind::Secret, _) => give("FILE".to_owned()),
            (Kind::Argv, Value::Array(items)) => {
                last.push("--".to_owned());
                for item in items {
                    last.push(word(item)?);
                }
            }
            (Kind::Map, Value::Object(pairs)) => {
                for (key, text) in pairs {
                    give(format!("{key}={}", text.as_str()?));
                }
            }
            (Kind::List(_), Value::Array(items)) => {
                for item in items {
                    give(word(item)?);
                }
            }
            (_, value) => {
                let text = word(value)?;
                let bare = !text.starts_with('-') && !text.is_empty();
                if bare && (field.positional || run_flags::replaces(op, field)) {
                    words.push(text);
                } else if run_flags::replaces(op, field) {
                    return None;
                } else {
                    give(text);
                }
            }
        }
    }
    words.extend(last);
    Some(words)
}

/// A flag and its value; in one word if the value could be taken for a flag or overlooked.
fn given(flag: &str, text: String) -> Vec<String> {
    if text.starts_with('-') || text.is_empty() {
        vec![format!("--{flag}={text}")]
    } else {
        vec![format!("--{flag}"), text]
    }
}

/// A scalar as one word.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A word as a POSIX shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
