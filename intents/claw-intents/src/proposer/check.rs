//! The checker: whether the words of a request allow what somebody proposes.
//!
//! The grammar's readers are asked what the words hold under the proposed
//! action. What they read stands, whatever the proposal says. What they did not
//! read can be proposed only where it is open, costs nothing and is backed by
//! words outside of quotes, by the context or by the catalogue. The result is
//! judged like an intent of the grammar's own: contradictions, and whether the
//! model fits.

use claw_proto::time::Timestamp;
use serde_json::{Map, Value};

use crate::act::Found;
use crate::answer::{Answer, Assumption, Intent, Provenance, Question, Source, Understood};
use crate::catalog::Catalog;
use crate::engine::held::{self, Held, Orders};
use crate::items::Items;
use crate::text::Words;

use super::evidence::{self, Evidence};
use super::reply::{self, Reply};
use super::{Fault, Inputs, Unsure, schema};

/// Orders that a word may give which no lexicon has: they are about one thing that is named, and cost nothing.
const ENDS: [&str; 3] = ["stop", "drain", "undrain"];

/// Actions that change nothing.
const READS: &[&str] = &["query", "diagnose"];
/// Why a field is in an answer that the words do not say so that the grammar reads it.
const PROPOSED: &str = "a language model proposes it; the words allow it and do not say it in a form that is known";

/// Judges a proposer's answer by the words of the request.
///
/// None where it asks back and the grammar's own answer is as good.
///
/// # Errors
/// Why it does not pass: each fault names the field, what the answer says and what it may say.
pub fn check(inputs: &Inputs<'_>, catalog: &Catalog, said: &str) -> Result<Option<Answer>, Vec<Fault>> {
    match reply::read(said).map_err(|fault| vec![fault])? {
        Reply::Intent(proposal) => intent(inputs, catalog, &proposal).map(|u| Some(Answer::Intent(u))),
        Reply::Question(fields) => question(inputs, fields).map_err(|fault| vec![fault]),
    }
}

/// A question in place of the grammar's own, in words of ours: what a model words is not shown.
fn question(inputs: &Inputs<'_>, fields: Vec<String>) -> Result<Option<Answer>, Fault> {
    for field in &fields {
        if !schema::is_field(field) {
            let why = "no intent has such a field";
            return Err(Fault::new("questions", Value::from(field.as_str()), Vec::new(), why));
        }
    }
    if *inputs.unsure != Unsure::NoOrder || fields.iter().any(|field| field == "action") {
        return Ok(None);
    }
    let ask = |field: String| Question { prompt: format!("What is meant for {field}?"), field, options: Vec::new() };
    Ok(Some(Answer::Question(fields.into_iter().map(ask).collect())))
}

fn intent(inputs: &Inputs<'_>, catalog: &Catalog, proposal: &Map<String, Value>) -> Result<Understood, Vec<Fault>> {
    let words = Words::new(inputs.request);
    let items = Items::new(&words, inputs.context, catalog);
    let orders = Orders::of(&items);
    let evidence = Evidence { items: &items, context: inputs.context, catalog };
    let action = proposal.get("action").and_then(Value::as_str).unwrap_or_default();
    let (order, said) = order(action, &orders, &evidence).map_err(|fault| vec![fault])?;
    let place = (inputs.context, catalog);
    let held = held::held(&items, &orders, place, order, &[]);
    let action = agreed_action(action, &held).map_err(|fault| vec![fault])?;
    if !said {
        names_one(&held, &evidence, action)?;
    }
    let added = additions(proposal, &held, &evidence, action)?;
    // Once more with what is added, so that the whole is judged.
    let whole = held::held(&items, &orders, place, order, &added);
    if let Some((code, message)) = &whole.refusal {
        let got = Value::from(action);
        return Err(vec![Fault::new("action", got, Vec::new(), format!("taken so it is {code}: {message}"))]);
    }
    unanswered(&held, &added)?;
    let understood = finish(whole, &added, said).map_err(|fault| vec![fault])?;
    keeps(inputs.answer, &understood).map_err(|fault| vec![fault])?;
    Ok(understood)
}

/// The order that a proposed action is read as, and whether the words say it in a form that is known.
fn order(action: &str, orders: &Orders, evidence: &Evidence<'_, '_, '_>) -> Result<(Found, bool), Fault> {
    let refuse = |allowed: Vec<&str>, why: &str| {
        let allowed = allowed.into_iter().map(Value::from).collect();
        Fault::new("action", Value::from(action), allowed, why)
    };
    if let Some(order) = orders.order {
        return Ok((order, true));
    }
    let Some(act) = held::act_of(action) else {
        return Err(refuse(schema::actions(), "there is no such action"));
    };
    let at = evidence.unknown_order().filter(|_| ENDS.contains(&action) || READS.contains(&action));
    if at.is_none() && !READS.contains(&action) {
        let why = "no words outside of quotes give such an order";
        return Err(refuse(READS.to_vec(), why));
    }
    Ok((Found { act, at: at.unwrap_or_default(), strength: 3 }, false))
}

/// The action that the readers made of the order; the proposal must say the same.
fn agreed_action<'h>(action: &str, held: &'h Held) -> Result<&'h str, Fault> {
    let own = held.fields.get("action").and_then(Value::as_str).unwrap_or_default();
    if own == action {
        return Ok(own);
    }
    let allowed = vec![Value::from(own)];
    Err(Fault::new("action", Value::from(action), allowed, "the words give another order"))
}

/// Whether an order that the grammar has no word for names one thing alone: its readers take the
/// first name, since a second one belongs to an order that they would have seen.
fn names_one(held: &Held, evidence: &Evidence<'_, '_, '_>, action: &str) -> Result<(), Vec<Fault>> {
    let faults: Vec<Fault> = leaves(&held.fields)
        .into_iter()
        .filter_map(|(path, value)| {
            let backing = evidence::backing(&path, action).filter(|backing| backing.is_name())?;
            let allowed = evidence.backs(backing, &value).err()?;
            Some(Fault::new(path, value, allowed, "the words name several, or none; a person must choose"))
        })
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    // What becomes of a second thing, of whatever sort, is nothing that one order says.
    let said = evidence.said();
    if !READS.contains(&action) && said.len() > 1 {
        let why = format!("the words name {}; a person must say what becomes of each", said.join(" and "));
        return Err(vec![Fault::new("action", Value::from(action), Vec::new(), why)]);
    }
    Ok(())
}

/// The proposed fields that the readers did not read, each of them allowed.
fn additions(
    proposal: &Map<String, Value>,
    held: &Held,
    evidence: &Evidence<'_, '_, '_>,
    action: &str,
) -> Result<Vec<(String, Value)>, Vec<Fault>> {
    let own = Value::Object(held.fields.clone());
    let (mut added, mut faults) = (Vec::new(), Vec::new());
    for (path, value) in leaves(proposal).into_iter().filter(|(path, _)| path != "action") {
        let read = at(&own, &path);
        if let Some(read) = read {
            if !same(read, &value) {
                faults.push(Fault::new(path, value, vec![read.clone()], "the words give another value"));
            }
            continue;
        }
        if let Some(question) = held.questions.iter().find(|q| q.field == path && !q.options.is_empty()) {
            let allowed = question.options.iter().cloned().map(Value::from).collect();
            faults.push(Fault::new(path, value, allowed, "the words have several readings, and a person must choose"));
            continue;
        }
        let Some(backing) = evidence::backing(&path, action) else {
            let why = "the words do not give it; leave it out";
            faults.push(Fault::new(path, value, Vec::new(), why));
            continue;
        };
        match evidence.backs(backing, &value) {
            Ok(()) => added.push((path, value)),
            Err(allowed) => {
                let why = "no words outside of quotes give it";
                faults.push(Fault::new(path, value, allowed, why));
            }
        }
    }
    if faults.is_empty() { Ok(added) } else { Err(faults) }
}

/// Every question of the readers must be answered by what is added, and none by choosing for a person.
fn unanswered(held: &Held, added: &[(String, Value)]) -> Result<(), Vec<Fault>> {
    let answered = |question: &Question| {
        question.options.is_empty()
            && added.iter().any(|(path, _)| {
                *path == question.field
                    || path.strip_prefix(question.field.as_str()).is_some_and(|rest| rest.starts_with('.'))
            })
    };
    let open: Vec<Fault> = held
        .questions
        .iter()
        .filter(|question| !answered(question))
        .map(|question| {
            let allowed = question.options.iter().cloned().map(Value::from).collect();
            Fault::new(question.field.as_str(), Value::Null, allowed, format!("still open: {}", question.prompt))
        })
        .collect();
    if open.is_empty() { Ok(()) } else { Err(open) }
}

/// The typed intent, with what was proposed marked in provenance and assumptions.
fn finish(whole: Held, added: &[(String, Value)], order_said: bool) -> Result<Understood, Fault> {
    let intent: Intent = serde_json::from_value(Value::Object(whole.fields.clone())).map_err(|error| {
        let message = error.to_string();
        let field = message.split('`').nth(1).unwrap_or_default().to_owned();
        Fault::new(field, Value::Null, Vec::new(), message)
    })?;
    let mut provenance = whole.provenance;
    let mut assumptions = whole.assumptions;
    let mut proposed: Vec<(String, Value)> = added.to_vec();
    if !order_said {
        provenance.retain(|p| p.field != "action");
        provenance.insert(0, Provenance { field: "action".into(), source: Source::Model });
        proposed.insert(0, ("action".into(), whole.fields.get("action").cloned().unwrap_or_default()));
    }
    let note = |(field, value): (String, Value)| Assumption { field, value, why: PROPOSED.into() };
    assumptions.extend(proposed.into_iter().map(note));
    Ok(Understood { intent, assumptions, provenance })
}

/// An intent of the grammar is never overruled, only added to.
fn keeps(own: &Answer, better: &Understood) -> Result<(), Fault> {
    let Answer::Intent(own) = own else { return Ok(()) };
    let value = |intent: &Intent| serde_json::to_value(intent).unwrap_or_default();
    let (own, better) = (value(&own.intent), value(&better.intent));
    let own = own.as_object().map(leaves).unwrap_or_default();
    let lost = own.into_iter().find(|(path, value)| at(&better, path).is_none_or(|other| !same(other, value)));
    match lost {
        None => Ok(()),
        Some((path, value)) => Err(Fault::new(path, Value::Null, vec![value], "the grammar read another value")),
    }
}

/// Every value that is no object, by its dotted path.
fn leaves(object: &Map<String, Value>) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (key, value) in object {
        match value {
            Value::Object(inner) => {
                found.extend(leaves(inner).into_iter().map(|(path, value)| (format!("{key}.{path}"), value)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                found.push((key.clone(), value.clone()));
            }
        }
    }
    found
}

/// The value at a dotted path, keys with dots in them included.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if let Some(found) = value.get(path) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(dot, _)| at(value.get(&path[..dot])?, &path[dot + 1..]))
}

/// Whether two values are the same: numbers by their size, times as instants, texts in any case.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => {
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
            matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if close(a, b))
        }
        (Value::String(a), Value::String(b)) => {
            let instants = (a.parse::<Timestamp>(), b.parse::<Timestamp>());
            a.eq_ignore_ascii_case(b) || matches!(instants, (Ok(a), Ok(b)) if a == b)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}
