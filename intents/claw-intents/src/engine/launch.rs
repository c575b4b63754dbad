//! Run, deploy and update: what a workload shall be.

use serde_json::{Value, json};

use crate::act::{Act, Found};
use crate::answer::Source;
use crate::draft::Draft;
use crate::items::{Items, Kind};
use crate::read::refs::{self, Thing};
use crate::read::{self, kind};

use super::action;

mod check;

pub(super) fn launch(draft: &mut Draft<'_, '_, '_>, order: Found) {
    let deploys = order.act == Act::Deploy;
    action(draft, if deploys { "deploy" } else { "run" }, order);
    if deploys {
        rollout(draft);
        environment(draft);
    }
    read::workload(draft);
    if deploys {
        deployment_name(draft);
    }
    kind::assume(draft, order.act);
    if !has_program(draft) {
        let path = draft.path("model");
        draft.ask(&path, "What shall run: which model, image or command?", Vec::new());
    }
    check::check(draft);
    if draft.refusal.is_none() && draft.questions.is_empty() {
        state_defaults(draft);
    }
}

/// Judges a workload that got fields from elsewhere than its readers, as its own are judged.
pub(super) fn recheck(draft: &mut Draft<'_, '_, '_>) {
    check::check(draft);
    if draft.refusal.is_none() && draft.root == "workload" {
        state_defaults(draft);
    }
}

fn has_program(draft: &Draft<'_, '_, '_>) -> bool {
    ["model", "image", "command", "kind"].iter().any(|field| draft.has(field))
        || draft.questions.iter().any(|q| q.field.ends_with("model"))
}

/// A default that spends money is never silent.
fn state_defaults(draft: &mut Draft<'_, '_, '_>) {
    let path = draft.path("gpu.count");
    if !draft.has("gpu.count") && !draft.has("gpu.fraction") && !draft.has("gpu.mig_profile") {
        let why = if draft.has("gpu") {
            "the request does not say how many GPUs; it cannot run before that is said"
        } else {
            "the request asks for no GPU; it gets none unless a number is said"
        };
        draft.assume(&path, Value::Null, why);
    }
    if let (Some(model), None) = (draft.field("model").and_then(Value::as_str), draft.field("quantization"))
        && let Some(model) = draft.catalog.model(model)
    {
        let why = format!("no precision was named; the published weights take {:.1} GiB", model.weights_gib(None));
        let path = draft.path("quantization");
        draft.assume(&path, json!(model.published_quantization), why);
    }
    if draft.has("market") && !draft.has("budget") && draft.field("market").and_then(Value::as_str) != Some("never") {
        let path = draft.path("budget");
        draft.assume(&path, Value::Null, "no limit of spending was named; nothing is bought before one is");
    }
}

/// Rolling, canary, blue/green, and the canary's share.
pub(super) fn rollout(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if let Some(strategy) = items.at(i).and_then(|item| item.senses.after("strategy.")) {
            draft.set_at("strategy", json!(strategy), i..i + 1);
        }
    }
    let canary = (0..items.len()).find(|i| items.any(*i, &["noun.canary", "strategy.canary"]));
    // A deployment may be called "traffic".
    let traffic = (0..items.len()).find(|i| items.is(*i, "noun.traffic") && !items.list[*i].known);
    if canary.is_none() && traffic.is_none() {
        return;
    }
    let near = canary.or(traffic).unwrap_or_default();
    let percent = (0..items.len())
        .filter(|k| !draft.is_used(*k))
        .filter_map(|k| {
            items
                .qty(k, "unit.percent")
                .or_else(|| (near.abs_diff(k) <= 2 && traffic.is_some()).then(|| items.num(k)).flatten())
                .or_else(|| share_of_traffic(items, k))
                .map(|n| (k, n))
        })
        .min_by_key(|(k, _)| near.abs_diff(*k));
    if let Some((k, n)) = percent {
        draft.set_at("canary_percent", json!(n), k..k + 1);
        if draft.get("strategy").is_none() {
            draft.derive("strategy", json!("canary"), Source::Default);
            draft.assume("strategy", json!("canary"), "a share of the traffic is what a canary gets");
        }
        if n > 100.0 {
            draft.refuse(crate::answer::RefusalCode::Contradictory, "a canary gets at most all of the traffic");
        }
    }
}

/// "a quarter of the traffic", "a canary of one tenth".
fn share_of_traffic(items: &Items<'_, '_>, k: usize) -> Option<f64> {
    match items.at(k)?.kind {
        Kind::Share(share)
            if (k + 1..k + 4).any(|m| items.is(m, "noun.traffic"))
                || (k.saturating_sub(2)..k).any(|m| items.any(m, &["noun.canary", "strategy.canary"])) =>
        {
            Some(share * 100.0)
        }
        _ => None,
    }
}

fn environment(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if let Some(environment) = items.at(i).and_then(|item| item.senses.after("env."))
            && !draft.is_used(i)
            && !items.at(i).is_some_and(|n| n.known)
        {
            draft.set_at("environment", json!(environment), i..i + 1);
        }
    }
}

/// "deployment chat-small", where no "as" named it.
fn deployment_name(draft: &mut Draft<'_, '_, '_>) {
    if draft.get("deployment").is_some() {
        return;
    }
    if let Some(k) = refs::beside_noun(draft, Thing::Deployment)
        .filter(|k| draft.items.list[*k].kind == Kind::Word && *k > 0 && draft.items.is(*k - 1, "noun.deployment"))
    {
        let name = refs::name_of(draft.items, k);
        draft.set_at("deployment", json!(name), k..k + 1);
    }
}

pub(super) fn update(draft: &mut Draft<'_, '_, '_>, order: Found) {
    action(draft, "update", order);
    super::control::deployment_target(draft, order);
    rollout(draft);
    read::workload(draft);
    let changes: Vec<String> =
        draft.get("changes").and_then(Value::as_object).map(|c| c.keys().cloned().collect()).unwrap_or_default();
    if changes.iter().all(|c| c == "replicas" || c == "autoscale")
        && !changes.is_empty()
        && draft.get("strategy").is_none()
    {
        as_scale(draft, &changes);
        return;
    }
    if changes.is_empty() {
        if let Some(n) =
            (0..draft.items.len()).find(|k| draft.free_number(*k).is_some() && *k > 0 && draft.items.is(k - 1, "to"))
        {
            draft.mark(&(n..n + 1));
        }
        draft.ask("changes", "What shall change?", Vec::new());
    }
    check::check(draft);
}

/// A change of the replicas alone is a scaling.
fn as_scale(draft: &mut Draft<'_, '_, '_>, changes: &[String]) {
    for change in changes {
        let path = format!("changes.{change}");
        let (Some(value), Some(at)) = (draft.get(&path).cloned(), draft.given_by(&path)) else {
            continue;
        };
        draft.forget(&path);
        draft.replace(change, value, at);
    }
    let at = draft.given_by("action").unwrap_or(0..1);
    draft.forget("changes");
    draft.replace("action", json!("scale"), at);
}
