//! The engine: from a request to an answer.

use claw_proto::limits::REQUEST_TEXT_CHARS_MAX;
use serde_json::{Value, json};

use crate::act::{Act, Found};
use crate::answer::{Answer, Intent, RefusalCode, Understood};
use crate::catalog::Catalog;
use crate::context::Context;
use crate::draft::Draft;
use crate::items::{Items, Kind};
use crate::safety;
use crate::text::Words;

mod asked;
mod choose;
mod control;
pub(crate) mod held;
mod launch;
mod observe;
mod several;
mod target;
mod trade;

use held::{Held, Orders, Ready};

/// What can be asked for in words.
const CAN: &str = "in words one can run, deploy, update, scale, stop and roll back work, drain and undrain nodes, diagnose, query, set alerts, and bid and offer on the market";

pub(crate) fn parse(text: &str, context: &Context, catalog: &Catalog) -> Answer {
    if text.chars().count() > REQUEST_TEXT_CHARS_MAX {
        return Answer::refusal(
            RefusalCode::Unsupported,
            format!("a request in words has at most {REQUEST_TEXT_CHARS_MAX} characters"),
        );
    }
    let words = Words::new(text);
    if let Some(message) = safety::objection(&words, context) {
        return Answer::refusal(RefusalCode::Unsafe, message);
    }
    let mut items = Items::new(&words, context, catalog);
    if is_empty(&items) {
        return Answer::refusal(RefusalCode::Empty, format!("there is no request; {CAN}"));
    }
    let Orders { found, order } = Orders::of(&items);
    let Some(order) = order else {
        return no_order(&items);
    };
    let ready = Ready::of(&mut items, &found, Some(order), order);
    match ready.asked {
        Some(question) => question,
        None => finish(held::read(&items, ready, (context, catalog), &[])),
    }
}

/// Reads the fields of an order.
fn draft<'a, 't, 'c>(
    items: &'a Items<'t, 'c>,
    context: &'a Context,
    catalog: &'c Catalog,
    order: Found,
) -> Draft<'a, 't, 'c> {
    let root = match order.act {
        Act::Update => "changes",
        Act::Run | Act::Train | Act::Serve | Act::Deploy => "workload",
        _ => "",
    };
    let mut draft = Draft::new(items, context, catalog, root);
    match order.act {
        Act::Run | Act::Train | Act::Serve | Act::Deploy => launch::launch(&mut draft, order),
        Act::Update => launch::update(&mut draft, order),
        Act::Scale | Act::Autoscale => control::scale(&mut draft, order),
        Act::Stop => control::stop(&mut draft, order),
        Act::Rollback => control::rollback(&mut draft, order),
        Act::Drain => control::drain(&mut draft, order, "drain"),
        Act::Undrain => control::drain(&mut draft, order, "undrain"),
        Act::Diagnose => observe::diagnose(&mut draft, order),
        Act::Query => observe::query(&mut draft, order),
        Act::Alert => observe::alert(&mut draft, order),
        Act::Bid => trade::bid(&mut draft, order),
        Act::Offer => trade::offer(&mut draft, order),
        Act::Unsupported => {
            let word = items.raw(order.at);
            draft.refuse(RefusalCode::Unsupported, format!("{word:?} is no operation of this system; {CAN}"));
        }
    }
    foreign_tenant(&mut draft);
    draft
}

/// However a tenant is named, it is the caller's own.
fn foreign_tenant(draft: &mut Draft<'_, '_, '_>) {
    let Some(own) = draft.context.tenant.as_deref() else {
        return;
    };
    let named = ["workload.tenant", "changes.tenant", "filter.tenant"].into_iter().find_map(|path| draft.get(path));
    if let Some(other) = named.and_then(Value::as_str).filter(|name| !name.eq_ignore_ascii_case(own)) {
        let message = format!("{other:?} is another tenant than your own");
        draft.refuse(RefusalCode::Unsafe, message);
    }
}

fn finish(held: Held) -> Answer {
    if let Some((code, message)) = held.refusal {
        return Answer::Refusal { code, message };
    }
    if !held.questions.is_empty() {
        let mut questions = held.questions;
        questions.truncate(2);
        return Answer::Question(questions);
    }
    match serde_json::from_value::<Intent>(Value::Object(held.fields)) {
        Ok(intent) => Answer::Intent(Understood { intent, assumptions: held.assumptions, provenance: held.provenance }),
        Err(error) => {
            let message = error.to_string();
            let field = message.split('`').nth(1).unwrap_or("action").to_owned();
            Answer::ask(&field, format!("That is not clear yet: {message}"), Vec::new())
        }
    }
}

/// Whether nothing but greetings and signs is there.
fn is_empty(items: &Items<'_, '_>) -> bool {
    let greets = items.list.iter().any(|item| item.senses.has("greeting"));
    items.list.iter().all(|item| match &item.kind {
        Kind::Punct(_) => true,
        Kind::Quote(_) => item.text.trim().is_empty(),
        Kind::Word if !item.text.chars().any(char::is_alphanumeric) => true,
        Kind::Word => item.senses.has("greeting") || item.senses.has("polite") && (greets || item.text.len() < 7),
        _ => false,
    })
}

/// Nothing says what to do.
fn no_order(items: &Items<'_, '_>) -> Answer {
    let ours = items.list.iter().any(|item| {
        item.known
            || matches!(item.kind, Kind::Gpu { .. } | Kind::Model(_))
            || item.senses.iter().any(|s| {
                matches!(
                    s,
                    "noun.gpu" | "noun.node" | "noun.workload" | "noun.deployment" | "noun.cluster" | "noun.replica"
                )
            })
    });
    if !ours {
        return Answer::refusal(RefusalCode::Unsupported, format!("that is no operation of this system; {CAN}"));
    }
    let options = ["run", "deploy", "update", "scale", "stop", "drain", "diagnose", "query"];
    Answer::ask("action", format!("What is to be done? {CAN}."), options.map(str::to_owned).to_vec())
}

/// Sets the action.
fn action(draft: &mut Draft<'_, '_, '_>, name: &str, order: Found) {
    let at = order.at.min(draft.items.len().saturating_sub(1));
    draft.set_unmarked("action", json!(name), at..at + 1);
}
