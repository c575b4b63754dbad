//! Scale, stop, roll back, drain and undrain: orders to things that are there.

use serde_json::{Value, json};

use crate::act::{Act, Found};
use crate::answer::{RefusalCode, Source};
use crate::draft::Draft;
use crate::items::{Items, Kind};
use crate::lexicon::Lang;
use crate::read;
use crate::read::refs::{self, Thing};

use super::action;
use super::target::{self, Target};

mod replicas;

use replicas::{read_count, relative};

/// Finds the deployment that an order is about and sets it, or asks.
pub(super) fn deployment_target(draft: &mut Draft<'_, '_, '_>, order: Found) {
    let named = match target::of(draft, order, &[Thing::Deployment]) {
        // A change names images, nodes and labels too: only what is surely a deployment is another one.
        Target::Unclear(names) if order.act != Act::Update || sure_deployments(draft, &names) => {
            target::ask(draft, "deployment", &names);
            return;
        }
        Target::One(name) if order.act != Act::Update || name.thing.is_some() => Some(name),
        Target::One(_) | Target::Unnamed | Target::Placed | Target::Unclear(_) => None,
    };
    let candidate = named
        .map(|name| name.at)
        .or_else(|| refs::beside_noun(draft, Thing::Deployment))
        .or_else(|| refs::modal_subject(draft.items))
        .or_else(|| release_of(draft))
        .or_else(|| refs::name_like(draft))
        .or_else(|| known_name(draft));
    if let Some(k) = candidate {
        if let Some(name) = refs::deployment(draft, k, "deployment") {
            draft.set_at("deployment", json!(name), k..k + 1);
        }
        return;
    }
    if !draft.context.deployments.is_empty() {
        if let Some(name) = refs::described(draft, Thing::Deployment, "deployment") {
            draft.derive("deployment", json!(name), Source::Context);
        } else if draft.questions.is_empty() {
            draft.ask("deployment", "Which deployment is meant?", names(draft));
        }
        return;
    }
    let named = subject(draft, order).or_else(|| counted(draft)).or_else(|| refs::object(draft, order.at));
    match named.or_else(|| head(draft)) {
        Some(k) => {
            let name = refs::name_of(draft.items, k);
            draft.set_at("deployment", json!(name), k..k + 1);
        }
        None => draft.ask("deployment", "Which deployment is meant?", Vec::new()),
    }
}

/// "let shop scale itself", "shop should scale": the word before the order's own verb.
fn subject(draft: &Draft<'_, '_, '_>, order: Found) -> Option<usize> {
    if !matches!(order.act, Act::Scale | Act::Autoscale) {
        return None;
    }
    let items = draft.items;
    let modal =
        |k: usize| items.at(k).is_some_and(|n| matches!(n.text.as_str(), "should" | "must" | "shall" | "can" | "to"));
    let k = order.at.checked_sub(if order.at > 1 && modal(order.at - 1) { 2 } else { 1 })?;
    let led = k == 0
        || items.ends_clause(k - 1)
        || items.at(k - 1).is_some_and(|n| matches!(n.text.as_str(), "let" | "have" | "make"));
    (led && plain_word(items, k) && !draft.is_used(k)).then_some(k)
}

/// "the replica count of pay to 2": of what replicas are, whatever the word means elsewhere.
fn counted(draft: &Draft<'_, '_, '_>) -> Option<usize> {
    let items = draft.items;
    let of = |i: usize| items.is(i, "noun.replica") && items.is(i + 1, "of");
    let word = |k: usize| items.at(k).is_some_and(|n| n.kind == Kind::Word && n.text.chars().all(char::is_alphabetic));
    (0..items.len()).filter(|i| of(*i)).map(|i| i + 2).find(|k| {
        word(*k)
            && !items.any(*k, &["det.the", "det.that", "det.a", "det.all", "noun.deployment", "each"])
            && !draft.is_used(*k)
    })
}

/// "shop needs 6 replicas", "shop from 2 to 6 replicas": what the request begins with.
fn head(draft: &Draft<'_, '_, '_>) -> Option<usize> {
    let items = draft.items;
    let k = (0..items.len()).find(|k| !items.any(*k, &["polite", "greeting"]) && !items.ends_clause(*k))?;
    let counted = (k + 1..items.len()).any(|m| items.is(m, "noun.replica"));
    (counted && plain_word(items, k) && !draft.is_used(k)).then_some(k)
}

/// A word that may be a name: unknown, or a plain noun.
fn plain_word(items: &Items<'_, '_>, k: usize) -> bool {
    items.at(k).is_some_and(|n| {
        n.kind == Kind::Word
            && !n.text.contains(' ')
            && n.text.chars().any(char::is_alphabetic)
            && n.senses.iter().all(|s| s == "n")
    })
}

/// Whether a noun or the context says of each name that it is a deployment's.
fn sure_deployments(draft: &Draft<'_, '_, '_>, names: &[target::Name]) -> bool {
    let known = |at: usize| {
        let name = refs::name_of(draft.items, at);
        draft.context.deployments.iter().any(|d| d.name.eq_ignore_ascii_case(&name))
    };
    names.iter().all(|n| n.thing.is_some() || known(n.at))
}

/// "that release of search": what it is a release of.
fn release_of(draft: &Draft<'_, '_, '_>) -> Option<usize> {
    let items = draft.items;
    let of = |k: usize| {
        items.at(k).is_some_and(|n| {
            matches!(
                n.text.as_str(),
                "release" | "version" | "build" | "update" | "rollout" | "deploy" | "upgrade" | "push"
            )
        })
    };
    (2..items.len()).find(|k| items.is(k - 1, "of") && of(k - 2) && refs::can_name(items, *k) && !draft.is_used(*k))
}

fn names(draft: &Draft<'_, '_, '_>) -> Vec<String> {
    draft.context.deployments.iter().take(8).map(|d| d.name.clone()).collect()
}

fn known_name(draft: &Draft<'_, '_, '_>) -> Option<usize> {
    (0..draft.items.len()).find(|i| draft.items.at(*i).is_some_and(|n| n.known) && !draft.is_used(*i))
}

pub(super) fn scale(draft: &mut Draft<'_, '_, '_>, order: Found) {
    action(draft, "scale", order);
    deployment_target(draft, order);
    read::scale::read_autoscale(draft);
    if draft.has("autoscale") {
        read::mask::read_bare_corrections(draft);
        if draft.get("autoscale.max").is_none() {
            draft.ask("autoscale.max", "How many replicas at most?", Vec::new());
        } else if draft.get("autoscale.min").is_none() {
            draft.ask("autoscale.min", "How many replicas at least?", Vec::new());
        }
        return;
    }
    if relative(draft) {
        return;
    }
    read::scale::read_replicas(draft);
    if draft.get("replicas").is_none() {
        read_count(draft, order);
    }
    // "to 3 and to 5 replicas"
    let items = draft.items;
    for k in 2..items.len() {
        let joined =
            items.is(k - 1, "to") && (items.is(k - 2, "and") || items.is(k + 1, "and") && items.is(k + 2, "to"));
        if let Some(n) = items.count(k).filter(|_| joined && !draft.is_used(k)) {
            draft.set_at("replicas", json!(n), k..k + 1);
        }
    }
    read::mask::read_bare_corrections(draft);
    if draft.get("replicas").is_none() && order.act == Act::Autoscale {
        draft.ask("autoscale", "Between how many replicas, and on which metric?", Vec::new());
    } else if draft.get("replicas").is_none() {
        draft.ask("replicas", "To how many replicas?", Vec::new());
    }
}

/// "drain gpu-3 and keep all its jobs running", "stop it but leave it running".
fn refuse_kept_running(draft: &mut Draft<'_, '_, '_>, order: Found) {
    const BETWEEN: &[&str] = &["det.the", "det.that", "det.all", "noun.workload", "noun.deployment"];
    let items = draft.items;
    let end = (order.at..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let kept = (order.at + 1..end).any(|i| {
        let keeps = items.at(i).is_some_and(|n| matches!(n.text.as_str(), "keep" | "keeping" | "leave" | "leaving"));
        let runs = (i + 1..end).find(|k| !items.any(*k, BETWEEN));
        items.at(i).is_some_and(|n| matches!(n.text.as_str(), "keep it running" | "keep them running"))
            || keeps && runs.is_some_and(|k| items.is(k, "state.running") && items.list[k].text.contains("run"))
    });
    if kept {
        draft.refuse(RefusalCode::Contradictory, "what is stopped or drained does not keep running");
    }
}

/// Words of an order to stop that leave no time.
const HARD: &[&str] = &["-9", "sigkill", "hard"];

pub(super) fn stop(draft: &mut Draft<'_, '_, '_>, order: Found) {
    action(draft, "stop", order);
    stop_target(draft, order);
    refuse_kept_running(draft, order);
    let items = draft.items;
    for i in 0..items.len() {
        let negated = i > 0 && items.any(i - 1, &["not", "no"]);
        let let_finish = || items.gaps(i).iter().any(|(sense, _)| *sense == "grace.yes");
        if items.is(i, "grace.yes") && !items.is(i, "grace.no") || let_finish() {
            draft.set_at("graceful", json!(!negated), i..i + 1);
        } else if items.is(i, "grace.no")
            && (i != order.at || !items.is(i, "grace.yes") && HARD.iter().any(|word| items.list[i].text.contains(word)))
            && !negated
        {
            draft.set_at("graceful", json!(false), i..i + 1);
        }
    }
    if let Some((k, seconds)) =
        (0..items.len()).filter(|k| !draft.is_used(*k)).find_map(|k| items.seconds(k).map(|s| (k, s)))
    {
        draft.set_at("grace_s", json!(seconds), k..k + 1);
        // "90 secs to save": what it is for says how it stops.
        let to_end = (0..items.len()).find(|i| items.is(*i, "noun.grace") && items.list[*i].text.starts_with("to "));
        if let Some(i) = to_end.filter(|_| draft.get("graceful").is_none()) {
            draft.set_at("graceful", json!(true), i..i + 1);
        }
    }
}

/// Whether a name begins those of deployments, and those of workloads.
fn in_list(draft: &Draft<'_, '_, '_>, k: usize) -> (bool, bool) {
    let name = refs::name_of(draft.items, k).to_lowercase();
    let begins = |full: &str| full.to_lowercase().starts_with(&name);
    let deployments = draft.context.deployments.iter().any(|d| begins(&d.name));
    let workloads = draft.context.workloads.iter().any(|w| begins(&w.id) || w.name.as_deref().is_some_and(begins));
    (deployments, workloads)
}

/// The name of what is to be stopped, if the words give one; an error if all is said with that.
fn stop_name(draft: &mut Draft<'_, '_, '_>, order: Found) -> Result<Option<target::Name>, ()> {
    let items = draft.items;
    let says = |noun: &str| (0..items.len()).any(|i| items.is(i, noun));
    match target::of(draft, order, &[Thing::Workload, Thing::Deployment]) {
        Target::One(name) => Ok(Some(name)),
        Target::Unclear(names) => {
            let deployments =
                names.first().is_some_and(|n| n.thing == Some(Thing::Deployment) || in_list(draft, n.at).0)
                    || says("noun.deployment") && !says("noun.workload");
            target::ask(draft, if deployments { "deployment" } else { "workload_id" }, &names);
            Err(())
        }
        Target::Unnamed if !says("noun.workload") || refs::beside_noun(draft, Thing::Node).is_none() => Ok(None),
        // "the job on gpu-5": a place describes it.
        Target::Placed | Target::Unnamed if draft.context.workloads.is_empty() => {
            draft.ask("workload_id", "Which workload is meant?", Vec::new());
            Err(())
        }
        Target::Placed | Target::Unnamed => {
            if let Some(name) = refs::described(draft, Thing::Workload, "workload_id") {
                draft.derive("workload_id", json!(name), Source::Context);
            }
            Err(())
        }
    }
}

fn stop_target(draft: &mut Draft<'_, '_, '_>, order: Found) {
    let items = draft.items;
    let Ok(named) = stop_name(draft, order) else {
        return;
    };
    match named.map(|name| (name.at, name.thing)) {
        Some((k, Some(Thing::Deployment))) => return set_deployment(draft, k),
        Some((k, Some(_))) => return set_workload(draft, k),
        _ => {}
    }
    // "stop train-4 on node a-7": the node says where.
    let is_meant = |k: &usize| named.is_none_or(|name| name.at == *k);
    if let (Some(k), None) = (
        refs::beside_noun(draft, Thing::Node).filter(is_meant),
        (0..items.len()).find(|i| items.is(*i, "noun.workload")),
    ) {
        let name = refs::name_of(items, k);
        draft.refuse(RefusalCode::Unsupported, format!("{name:?} is a node: it can be drained, not stopped"));
        return;
    }
    let says_deployment = (0..items.len()).any(|i| items.is(i, "noun.deployment"));
    let says_workload = (0..items.len()).any(|i| items.is(i, "noun.workload"));
    let named = named.map(|name| name.at).or_else(|| refs::name_like(draft)).or_else(|| known_name(draft));
    if let Some(k) = named.or_else(|| only_object(draft, order)) {
        match in_list(draft, k) {
            (true, false) => set_deployment(draft, k),
            (false, true) => set_workload(draft, k),
            _ if says_deployment || draft.context.workloads.is_empty() && !draft.context.deployments.is_empty() => {
                set_deployment(draft, k);
            }
            _ => set_workload(draft, k),
        }
        return;
    }
    let deployments = !draft.context.deployments.is_empty() && !says_workload;
    if says_deployment || deployments && draft.context.workloads.is_empty() {
        match refs::described(draft, Thing::Deployment, "deployment") {
            Some(name) => draft.derive("deployment", json!(name), Source::Context),
            None => draft.ask("deployment", "Which deployment is meant?", Vec::new()),
        }
        return;
    }
    match refs::described(draft, Thing::Workload, "workload_id") {
        Some(name) => draft.derive("workload_id", json!(name), Source::Context),
        None => draft.ask("workload_id", "Which workload is meant?", Vec::new()),
    }
}

/// The plain object of an order where the context has no list to describe from.
fn only_object(draft: &Draft<'_, '_, '_>, order: Found) -> Option<usize> {
    (draft.context.deployments.is_empty() && draft.context.workloads.is_empty())
        .then(|| refs::object(draft, order.at))
        .flatten()
}

fn set_deployment(draft: &mut Draft<'_, '_, '_>, k: usize) {
    if let Some(name) = refs::deployment(draft, k, "deployment") {
        draft.set_at("deployment", json!(name), k..k + 1);
    }
}

fn set_workload(draft: &mut Draft<'_, '_, '_>, k: usize) {
    if let Some(id) = refs::workload(draft, k, "workload_id") {
        draft.set_at("workload_id", json!(id), k..k + 1);
    }
}

pub(super) fn rollback(draft: &mut Draft<'_, '_, '_>, order: Found) {
    action(draft, "rollback", order);
    let items = draft.items;
    let mut found: Vec<(usize, u64)> = (0..items.len()).filter_map(|i| revision_at(draft, i).map(|r| (i, r))).collect();
    for (i, _) in &found {
        draft.mark(&(*i..*i + 1));
    }
    // "it is at revision 9, put it back to 8": the present one is not the wanted one.
    let wanted = |i: usize| {
        (i.saturating_sub(3)..i).any(|k| {
            items.list[k]
                .text
                .split(' ')
                .any(|w| matches!(w, "to" | "auf" | "a" | "à" | "到" | "→" | "->" | ">" | "=>"))
        })
    };
    if found.len() > 1 && found.iter().any(|(i, _)| wanted(*i)) {
        let corrected = |i: usize| (i.saturating_sub(3)..i).any(|k| items.is(k, "correct"));
        found.retain(|(i, _)| wanted(*i) || corrected(*i));
    }
    // "revision 7 is broken, use revision 6 again": what is said to go wrong is not wanted.
    let wrong = |i: usize| {
        let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
        let end = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
        (start..end).any(|k| {
            items.is(k, "tells") || items.at(k).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("sym.")))
        })
    };
    if found.len() > 1 && !found.iter().all(|(i, _)| wrong(*i)) {
        found.retain(|(i, _)| !wrong(*i));
    }
    // "roll it back, 12 is broken, 11 was fine"
    if found.is_empty() {
        let told = |k: &usize| {
            let starts = *k > 0 && items.ends_clause(k - 1);
            starts
                && items
                    .at(k + 1)
                    .is_some_and(|n| matches!(n.text.as_str(), "is" | "was" | "worked" | "works" | "isn't"))
        };
        let numbered = (0..items.len()).filter(told).filter_map(|k| Some((k, u64::from(items.count(k)?))));
        found.extend(numbered.filter(|(k, _)| !wrong(*k)));
    }
    // "rev 9 was fine, rev 10 isn't: roll back"
    let praised = |i: usize| {
        const FINE: &[&str] = &["fine", "worked", "good", "ok", "okay", "stable", "healthy"];
        let end = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
        (i..end).any(|k| items.at(k).is_some_and(|n| n.text.split(' ').any(|w| FINE.contains(&w))))
    };
    if found.len() > 1 && found.iter().any(|(i, _)| praised(*i)) {
        found.retain(|(i, _)| praised(*i));
    }
    // "rollback search 7": a number that ends the order.
    if found.is_empty()
        && let Some(i) = (order.at + 1..items.len()).find(|k| items.count(*k).is_some() && items.ends_clause(k + 1))
        && items.at(i - 1).is_some_and(|n| n.kind == Kind::Word && (n.known || n.senses.is_empty()))
        && items.list[i].senses.is_empty()
    {
        found.push((i, u64::from(items.count(i).unwrap_or_default())));
    }
    let is_absolute = !found.is_empty();
    for (i, revision) in found {
        draft.set_at("to_revision", json!(revision), i..i + 1);
    }
    deployment_target(draft, order);
    if !is_absolute {
        back_by(draft);
    }
    read::mask::read_bare_corrections(draft);
}

/// "back two revisions": so many before the one that the deployment is known to have.
fn back_by(draft: &mut Draft<'_, '_, '_>) {
    const SEVERAL: &[&str] = &["revisions", "versions", "releases", "builds", "revisionen", "versionen", "révisions"];
    let items = draft.items;
    let several = |i: usize| items.at(i).is_some() && SEVERAL.contains(&items.raw(i).to_lowercase().as_str());
    let said =
        (1..items.len()).find_map(|i| items.count(i).filter(|n| *n > 1 && several(i + 1)).map(|n| (i, u64::from(n))));
    let Some((i, n)) = said else { return };
    let name = draft.get("deployment").and_then(Value::as_str).map(str::to_owned);
    let known = draft.context.deployments.iter().find(|d| Some(&d.name) == name.as_ref()).and_then(|d| d.revision);
    match known.and_then(|known| known.checked_sub(n)).filter(|to| *to > 0) {
        Some(to) => draft.set_at("to_revision", json!(to), i..i + 2),
        None => draft.ask("to_revision", format!("Which revision is {n} back?"), Vec::new()),
    }
}

/// "revision 7", "rev12", "r18", "v3", "to 4".
fn revision_at(draft: &Draft<'_, '_, '_>, i: usize) -> Option<u64> {
    let items = draft.items;
    let item = items.at(i)?;
    if let Some(n) = items.count(i) {
        let mut k = i;
        while k > 0
            && (items.punct(k - 1, '#')
                || items.punct(k - 1, ':')
                || items.list[k - 1].text == "number"
                || items.list[k - 1].text == "nr"
                || items.list[k - 1].text == "no")
        {
            k -= 1;
        }
        let before = k.checked_sub(1)?;
        let said = items.any(before, &["noun.revision", "to"])
            || items.list[before].text.contains("revision")
            || items.list[before].text.contains("version")
            || items.list[before].text.contains("rev")
            || items.is(before, "act.rollback") && items.list[before].text.contains("to");
        // Chinese puts the noun behind: 到 5 版本; "back one version" counts them.
        let behind = items.is(i + 1, "noun.revision") && items.lang == Lang::Chinese;
        return (said || behind).then_some(u64::from(n));
    }
    let text = item.text.as_str();
    let digits = ["revision", "rev", "r", "v", "#"].iter().find_map(|p| text.strip_prefix(p))?;
    (!digits.is_empty() && !item.known).then(|| digits.trim_start_matches('-').parse().ok()).flatten()
}

pub(super) fn drain(draft: &mut Draft<'_, '_, '_>, order: Found, name: &str) {
    action(draft, name, order);
    node_target(draft, order, "node");
    if name == "undrain" {
        return;
    }
    refuse_kept_running(draft, order);
    let items = draft.items;
    for i in 0..items.len() {
        if items.is(i, "force.no") && !items.is(i, "force") {
            draft.set_at("force", json!(false), i..i + 1);
        } else if items.is(i, "force") {
            let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
            let negated = i > 0 && items.any(i - 1, &["not", "no"]) || (start..i).any(|k| items.is(k, "force.no"));
            draft.set_at("force", json!(!negated), i..i + 1);
        }
    }
    if let Some((k, seconds)) =
        (0..items.len()).filter(|k| !draft.is_used(*k)).find_map(|k| items.seconds(k).map(|s| (k, s)))
    {
        draft.set_at("deadline_s", json!(seconds), k..k + 1);
    }
}

/// The only node that is out of service, where the words tell no more than "that node".
fn only_drained(draft: &Draft<'_, '_, '_>) -> Option<String> {
    let out = |state: Option<&str>| {
        state.is_some_and(|s| matches!(s.to_lowercase().as_str(), "drained" | "draining" | "cordoned" | "maintenance"))
    };
    let items = draft.items;
    let vague = (0..items.len())
        .any(|i| items.is(i, "det.that") || items.at(i).is_some_and(|n| n.text.split(' ').any(|word| word == "it")));
    let mut drained = draft.context.nodes.iter().filter(|n| out(n.state.as_deref()));
    match (drained.next(), drained.next()) {
        (Some(node), None) if vague => Some(node.name.clone()),
        _ => None,
    }
}

/// Finds the node that an order is about.
pub(super) fn node_target(draft: &mut Draft<'_, '_, '_>, order: Found, path: &str) {
    let named = match target::of(draft, order, &[Thing::Node]) {
        Target::Unclear(names) => {
            target::ask(draft, path, &names);
            return;
        }
        Target::One(name) => Some(name.at),
        Target::Unnamed | Target::Placed => None,
    };
    let candidate = named
        .or_else(|| refs::beside_noun(draft, Thing::Node))
        .or_else(|| refs::name_like(draft))
        .or_else(|| known_name(draft));
    if let Some(k) = candidate {
        if let Some(name) = refs::node(draft, k, path) {
            draft.set_at(path, json!(name), k..k + 1);
        }
        return;
    }
    if !draft.context.nodes.is_empty() {
        if order.act == Act::Undrain
            && let Some(name) = only_drained(draft)
        {
            draft.derive(path, json!(name), Source::Context);
        } else if let Some(name) = refs::described(draft, Thing::Node, path) {
            draft.derive(path, json!(name), Source::Context);
        } else if draft.questions.is_empty() {
            draft.ask(path, "Which node is meant?", Vec::new());
        }
        return;
    }
    match refs::object(draft, order.at).filter(|k| draft.items.list[*k].senses.is_empty()) {
        Some(k) => {
            let name = refs::name_of(draft.items, k);
            draft.set_at(path, json!(name), k..k + 1);
        }
        None => draft.ask(path, "Which node is meant?", Vec::new()),
    }
}
