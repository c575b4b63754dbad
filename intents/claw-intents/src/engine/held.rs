//! What the words hold if a request is taken as a given order: the readers are
//! asked, whoever chose the order. The checker of proposals stands on this.

use serde_json::{Map, Value};

use crate::act::{self, Act, Found};
use crate::answer::{Assumption, Provenance, Question, RefusalCode, Source};
use crate::catalog::Catalog;
use crate::context::Context;
use crate::items::Items;
use crate::read;

use super::{choose, draft, launch, several};

/// The orders that a request's own words give.
#[derive(Debug)]
pub(crate) struct Orders {
    /// Every phrase that may be one.
    pub(crate) found: Vec<Found>,
    /// The one that the grammar takes.
    pub(crate) order: Option<Found>,
}

impl Orders {
    /// Looks for the orders of a request.
    pub(crate) fn of(items: &Items<'_, '_>) -> Self {
        let found = act::find(items);
        let order = choose::order(items, &found);
        Self { found, order }
    }
}

/// The operation that reads an action of the format.
pub(crate) fn act_of(action: &str) -> Option<Act> {
    Some(match action {
        "run" => Act::Run,
        "deploy" => Act::Deploy,
        "update" => Act::Update,
        "scale" => Act::Scale,
        "stop" => Act::Stop,
        "rollback" => Act::Rollback,
        "drain" => Act::Drain,
        "undrain" => Act::Undrain,
        "diagnose" => Act::Diagnose,
        "query" => Act::Query,
        "alert" => Act::Alert,
        "bid" => Act::Bid,
        "offer" => Act::Offer,
        _ => return None,
    })
}

/// What the readers found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    /// Fields, the action among them.
    pub(crate) fields: Map<String, Value>,
    pub(crate) assumptions: Vec<Assumption>,
    pub(crate) provenance: Vec<Provenance>,
    pub(crate) questions: Vec<Question>,
    pub(crate) refusal: Option<(RefusalCode, String)>,
}

/// Reads a request as this order, with further fields that somebody else gave.
pub(crate) fn held(
    items: &Items<'_, '_>,
    orders: &Orders,
    (context, catalog): (&Context, &Catalog),
    order: Found,
    further: &[(String, Value)],
) -> Held {
    let mut items = items.clone();
    let from_is_old =
        matches!(order.act, Act::Update | Act::Scale | Act::Run) && !choose::says(&items, "act.autoscale");
    read::mask::mask(&mut items, from_is_old);
    let mut left_out = Vec::new();
    if let Some(own) = orders.order.filter(|own| own.act == order.act) {
        let others = several::others(&items, &orders.found, own);
        left_out = several::left_out(&items, &others, own);
        several::mask(&mut items, &others, own);
    }
    let mut draft = draft(&items, context, catalog, order);
    for (path, value) in further {
        draft.derive(path, value.clone(), Source::Model);
    }
    if !further.is_empty() && matches!(draft.root, "workload" | "changes") && draft.refusal.is_none() {
        launch::recheck(&mut draft);
    }
    let (questions, refusal) = (std::mem::take(&mut draft.questions), draft.refusal.take());
    let (fields, mut assumptions, provenance) = draft.finish();
    assumptions.extend(left_out);
    let mut seen = std::collections::BTreeSet::new();
    assumptions.retain(|a| a.field == "action" || seen.insert(a.field.clone()));
    Held { fields, assumptions, provenance, questions, refusal }
}
