//! What is said when something was not done.

use claw_tools::refusal::Refusal;
use serde_json::Value;

use super::page::Page;
use super::style::{Style, Tone};
use super::{detail, next_calls, safe};
use crate::error::CliError;

/// Columns of the names.
const WIDTH: usize = 12;
/// What is said of an error that may pass.
const MAY_PASS: &str = "the same call may succeed later";

/// An error with what can be done about it.
pub(crate) fn error(error: &CliError, style: Style) -> String {
    if let CliError::Refused { refusal: inner, .. } = error {
        return refusal(inner, style);
    }
    let mut page = Page::new(style);
    page.line(&format!("{}: {}", style.toned(Tone::Bad, "error"), safe(&error.to_string())));
    if let CliError::Fault { fault, .. } = error
        && fault.retryable
    {
        page.line(&format!("  {MAY_PASS}"));
    }
    if let CliError::Child { log, .. } = error {
        for line in log {
            page.line(&format!("  | {}", safe(line)));
        }
    }
    if !error.hint().is_empty() {
        page.line(&format!("  {}", error.hint()));
    }
    page.finish()
}

/// A refusal: code, field, what was got, what is allowed, the nearest name, what next.
pub(super) fn refusal(refusal: &Refusal, style: Style) -> String {
    let mut page = Page::new(style);
    let code = style.toned(Tone::Bad, refusal.code.as_str());
    page.line(&format!("refused {code}: {}", safe(&refusal.message)));
    let mut pair = |name: &str, value: &str| page.pair(name, WIDTH, &safe(value));
    pair("field", refusal.field.as_deref().unwrap_or_default());
    pair("got", refusal.got.as_deref().unwrap_or_default());
    pair("allowed", &refusal.allowed.join(" | "));
    pair("did you mean", refusal.did_you_mean.as_deref().unwrap_or_default());
    if refusal.retryable {
        pair("retry", MAY_PASS);
    }
    match &refusal.evidence {
        Value::Array(list) if list.iter().all(Value::is_string) => {
            for item in list {
                pair("evidence", &detail::inline(item));
            }
        }
        Value::Object(facts) if facts.values().any(|fact| fact.is_array() || fact.is_object()) => {
            page.line("  evidence");
            page.block(&detail::fields(facts, style), 2);
        }
        other => pair("evidence", &detail::inline(other)),
    }
    next_calls(&refusal.next, &mut page);
    page.finish()
}
