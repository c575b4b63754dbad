//! Bids and offers on the market.

use serde_json::json;

use crate::act::Found;
use crate::catalog::resolve::Resolution;
use crate::draft::Draft;
use crate::items::Kind;
use crate::read;

pub(super) fn bid(draft: &mut Draft<'_, '_, '_>, order: Found) {
    super::action(draft, "bid", order);
    read::money::read_budget_at(draft, "budget");
    duration(draft);
    read::gpu::read(draft);
    let items = draft.items;
    for i in 0..items.len() {
        if let Some(Kind::Model(Resolution::One { model, .. })) = items.at(i).map(|n| n.kind.clone()) {
            draft.set_at("workload.model", json!(model.id), i..i + 1);
        }
    }
    read::mask::read_bare_corrections(draft);
    if draft.get("gpu").is_none() {
        draft.ask("gpu", "How many GPUs, and which?", Vec::new());
    }
    price(draft);
}

pub(super) fn offer(draft: &mut Draft<'_, '_, '_>, order: Found) {
    super::action(draft, "offer", order);
    read::money::read_budget_at(draft, "budget");
    duration(draft);
    super::control::node_target(draft, order, "node");
    read::gpu::read(draft);
    // A node is one of one.
    draft.forget("nodes");
    read::mask::read_bare_corrections(draft);
    price(draft);
}

/// How long capacity is bought or sold.
fn duration(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let free = |k: &usize| !draft.is_used(*k) && items.seconds(*k).is_some();
    let plain = |k: &usize| items.list[*k].kind != Kind::Word || *k > 0 && items.any(k - 1, &["for", "limit.time"]);
    if let Some(k) = (0..items.len()).find(|k| free(k) && plain(k)) {
        let seconds = items.seconds(k).unwrap_or_default();
        draft.set_at("duration_s", json!(seconds), k..k + 1);
    }
}

/// A price is always said; it is never made up.
fn price(draft: &mut Draft<'_, '_, '_>) {
    if draft.get("budget.amount").is_none() && !draft.questions.iter().any(|q| q.field.starts_with("budget")) {
        draft.ask("budget", "At which price, in USD or MOLT, and per GPU hour, per hour or in total?", Vec::new());
    }
}
