//! What has the words of an order and is none now: a question about it, a condition that nobody
//! keeps, an order that cannot be taken back.

use crate::act::{self, Act, Found};
use crate::answer::Answer;
use crate::items::{Items, Kind};

use super::{choose, several};

/// The question that such words are.
pub(super) fn question(items: &Items<'_, '_>, order: Found) -> Option<Answer> {
    let options = vec![several::family(order.act).to_owned()];
    if order.act == Act::Query && order.strength < 2 && forbids(items) {
        let prompt = "This says what not to do, and nothing is done. What is to be done?";
        return Some(Answer::ask("action", prompt.to_owned(), Vec::new()));
    }
    if matches!(order.act, Act::Update | Act::Query | Act::Run) && act::moves_to_node(items) {
        let prompt =
            "A drain takes work off a node, to where there is room; it does not choose where to. What is to be done?";
        return Some(Answer::ask("action", prompt.to_owned(), vec!["drain".into(), "query".into()]));
    }
    if matches!(order.act, Act::Query | Act::Diagnose | Act::Alert | Act::Unsupported) {
        return None;
    }
    if advice(items, order.at) {
        let prompt = "This asks about an order, and nothing is done for a question. Shall it be done?";
        return Some(Answer::ask("action", prompt.to_owned(), options));
    }
    if order.act == Act::Rollback && choose::taken_back(items, order.at).is_some() {
        let prompt = "What is done cannot be taken back like a deployment's revision. What is to be done?";
        return Some(Answer::ask("action", prompt.to_owned(), vec!["run".into(), "drain".into(), "rollback".into()]));
    }
    let (from, to) = condition(items, order)?;
    let said = items.span(&(from..to)).text;
    let prompt = format!("No order waits for a condition, and this one has one: {said:?}. Shall it be done now?");
    Some(Answer::ask("action", prompt, options))
}

/// "don't stop job x-1", and no order beside it.
fn forbids(items: &Items<'_, '_>) -> bool {
    const ORDERS: &[&str] = &["act.stop", "act.drain", "act.undrain", "act.rollback", "act.scale", "act.deploy"];
    (0..items.len()).any(|i| items.any(i, ORDERS) && act::negated(items, i))
}

/// "should I drain gpu-1?", "how do I …", "what happens if …".
fn advice(items: &Items<'_, '_>, at: usize) -> bool {
    (0..at).rev().take_while(|k| !items.ends_sentence(*k)).any(|k| items.is(k, "ask.advice"))
}

/// "stop job x-1 if it hangs": the condition of an order that has no place for one.
fn condition(items: &Items<'_, '_>, order: Found) -> Option<(usize, usize)> {
    if !matches!(order.act, Act::Stop | Act::Drain | Act::Undrain | Act::Rollback | Act::Scale)
        || order.act == Act::Scale && choose::says(items, "act.autoscale")
    {
        return None;
    }
    let from = (0..order.at).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
    let to = (order.at..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    // In the order's own clause, or at the head of one: "it hangs when it starts" tells why.
    let here =
        |k: usize| (order.at.min(k)..order.at.max(k)).all(|m| !items.ends_clause(m)) || act::starts_clause(items, k);
    let conditions =
        (from..to).filter(|k| *k != order.at && items.is(*k, "cond") && items.list[*k].text != "should" && here(*k));
    conditions.into_iter().find_map(|at| {
        let end = (at + 1..to).find(|k| items.ends_clause(*k) || *k == order.at).unwrap_or(to);
        let orders = (at + 1..end).any(|k| items.any(k, &["act.stop", "act.drain", "force", "grace.no"]));
        // "after giving it 45 seconds"
        let grace = items.at(at + 1).is_some_and(|n| n.text.ends_with("ing"))
            && (at + 1..end).any(|k| items.seconds(k).is_some());
        (!orders && !grace && (at + 1..end).any(|k| subject(items, k))).then_some((at, end))
    })
}

/// Whether a thing stands here that a condition can be about; "if needed", "if you can" have none.
fn subject(items: &Items<'_, '_>, k: usize) -> bool {
    let Some(item) = items.at(k) else {
        return false;
    };
    let named =
        item.known || item.kind == Kind::Word && item.senses.is_empty() && crate::items::is_name_like(&item.text);
    let pronoun = matches!(item.text.as_str(), "it" | "they" | "its" | "er" | "es" | "sie" | "il" | "elle" | "ella")
        || item.text == "it's"
            && !items
                .at(k + 1)
                .is_some_and(|n| matches!(n.text.as_str(), "ok" | "okay" | "fine" | "possible" | "cool"));
    named
        || pronoun
        || items.any(k, &["noun.workload", "noun.node", "noun.deployment", "noun.gpu", "noun.cluster"])
        || item.senses.iter().any(|s| ["sym.", "state.", "metric."].iter().any(|prefix| s.starts_with(prefix)))
}
