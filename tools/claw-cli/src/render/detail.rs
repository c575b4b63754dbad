//! Answers without a form of their own: lists as tables, the rest as names and values.

use claw_tools::inside::ExecView;
use claw_tools::refusal::SuggestedCall;
use serde_json::{Map, Value};

use super::page::Page;
use super::style::{Style, tone_of};
use super::{inside, next_calls, safe, table};

/// Names that come first; the others follow by the alphabet.
const FIRST: [&str; 19] = [
    "reached",
    "said_back",
    "name",
    "node_id",
    "workload_id",
    "operation_id",
    "plan_id",
    "tool",
    "link",
    "schedulable",
    "state",
    "status",
    "reason",
    "since",
    "summary",
    "node",
    "gpus",
    "principal",
    "at",
];
/// Bookkeeping of a list that its last line tells.
const PAGE: [&str; 5] = ["total", "truncated", "next_cursor", "revision", "last_seq"];
/// Deepest nesting that is shown with indentation; what is deeper is shown as JSON.
const DEPTH_MAX: usize = 4;

/// An answer: its summary, what it holds, what to call next.
pub(super) fn answer(tool: &str, args: &Map<String, Value>, content: &Value, style: Style) -> String {
    let Value::Object(map) = content else {
        return inline(content) + "\n";
    };
    let mut page = Page::new(style);
    let mut rest = map.clone();
    if let Some(Value::String(summary)) = rest.remove("summary") {
        page.line(&safe(&summary));
    }
    let command = take_command(&mut rest);
    let next: Option<Vec<SuggestedCall>> = rest.remove("next").and_then(|next| serde_json::from_value(next).ok());
    let last = page_line(tool, args, &rest);
    if last.is_some() {
        rest.retain(|name, _| !PAGE.contains(&name.as_str()));
    }
    // A list alone needs no title.
    match (last.is_some(), only_rows(&rest)) {
        (true, Some((name, rows))) => page.block(&table::rows(name, &rows, style), 0),
        _ => page.block(&fields(&rest, style), 0),
    }
    if let Some(last) = last {
        page.line(&style.dim(&last));
    }
    if let Some(command) = command {
        inside::exec(&command, &mut page, style);
    }
    next_calls(&next.unwrap_or_default(), &mut page);
    page.finish()
}

/// The command of an operation has a form of its own.
fn take_command(map: &mut Map<String, Value>) -> Option<ExecView> {
    let holder = if map.contains_key("operation") { map.get_mut("operation")?.as_object_mut()? } else { map };
    serde_json::from_value(holder.remove("exec")?).ok()
}

/// The last line of a list: how much of it is shown, and how to see more.
fn page_line(tool: &str, args: &Map<String, Value>, map: &Map<String, Value>) -> Option<String> {
    let shown = map.values().find_map(Value::as_array).map_or(0, Vec::len);
    if let Some(last_seq) = map.get("last_seq").and_then(Value::as_u64) {
        let mut more = args.clone();
        more.insert("after".into(), last_seq.into());
        let more = crate::generate::command_line(tool, &Value::Object(more));
        return Some(format!("{shown} shown; what comes next: {}", safe(&more)));
    }
    let total = map.get("total")?.as_u64()?;
    let cursor = map.get("next_cursor").and_then(Value::as_str);
    let more = cursor.map(|cursor| {
        let mut args = args.clone();
        args.insert("cursor".into(), cursor.into());
        let args = Value::Object(args);
        format!("; more: {}", safe(&crate::generate::command_line(tool, &args)))
    });
    Some(format!("{shown} of {total}{}", more.unwrap_or_default()))
}

/// The rows, if there is nothing else.
fn only_rows(map: &Map<String, Value>) -> Option<(&str, Vec<Map<String, Value>>)> {
    let (name, value) = map.iter().next()?;
    (map.len() == 1).then(|| Some((name.as_str(), rows_of(value)?))).flatten()
}

fn rows_of(value: &Value) -> Option<Vec<Map<String, Value>>> {
    value.as_array()?.iter().map(|row| row.as_object().cloned()).collect()
}

/// Names and values, simple ones first, then the nested ones under their names.
pub(super) fn fields(map: &Map<String, Value>, style: Style) -> String {
    nested(map, 0, style)
}

fn nested(map: &Map<String, Value>, depth: usize, style: Style) -> String {
    let shown = map.iter().filter(|(_, value)| !is_empty(value));
    let (mut complex, mut simple): (Vec<_>, Vec<_>) =
        shown.partition(|(_, value)| depth < DEPTH_MAX && is_nested(value));
    let place = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    simple.sort_by_key(|(name, _)| place(name));
    complex.sort_by_key(|(name, _)| place(name));
    let mut page = Page::new(style);
    let width = simple.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in simple {
        let text = inline(value);
        let text = style.toned(tone_of(&text), &safe(&text));
        let title = name.replace('_', " ");
        page.line(&format!("{title:<width$}  {text}"));
    }
    for (name, value) in complex {
        let title = name.replace('_', " ");
        if depth == 0 {
            page.section(&title);
        } else {
            page.line(&style.heading(&title));
        }
        match (value, rows_of(value)) {
            (_, Some(rows)) => page.block(&table::rows(name, &rows, style), 1),
            (Value::Object(inner), None) => page.block(&nested(inner, depth + 1, style), 1),
            (other, None) => page.block(&safe(&inline(other)), 1),
        }
    }
    page.finish()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Takes more than a line: rows, or an object that is not just texts or just counts.
fn is_nested(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|item| item.is_object() && !is_call(item)),
        Value::Object(map) => {
            let flat = map.values().all(Value::is_string) || map.values().all(Value::is_number);
            !is_call(value) && !flat
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_call(value: &Value) -> bool {
    let named = |map: &Map<String, Value>| map.contains_key("tool") && map.contains_key("args");
    value.as_object().is_some_and(|map| map.len() == 2 && named(map))
}

/// A value in one line.
pub(super) fn inline(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => short_number(number),
        Value::String(text) => short_time(text),
        Value::Array(list) => list.iter().map(inline).collect::<Vec<_>>().join(", "),
        Value::Object(map) if is_call(value) => {
            let tool = map["tool"].as_str().unwrap_or_default();
            crate::generate::command_line(tool, &map["args"])
        }
        Value::Object(map) if map.values().all(|v| !v.is_object() && !v.is_array()) => {
            let pair = |(key, inner): (&String, &Value)| format!("{key}={}", inline(inner));
            map.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        Value::Object(_) => value.to_string(),
    }
}

/// A number with at most two places after the point; `--json` has them all.
fn short_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => number.to_string(),
    }
}

/// An instant without its milliseconds; any other text as it is.
pub(super) fn short_time(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_instant = bytes.len() == 24
        && (bytes[10], bytes[19], bytes[23]) == (b'T', b'.', b'Z')
        && bytes[..19].iter().all(|b| b.is_ascii_digit() || b"-T:".contains(b));
    if is_instant { format!("{}Z", &text[..19]) } else { text.to_owned() }
}
