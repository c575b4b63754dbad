//! What the words hold if a request is taken as a given order: the readers are
//! asked, whoever chose the order. The grammar's own answer and the checker of
//! proposals both stand on this.

use serde_json::{Map, Value};

use crate::act::{self, Act, Found};
use crate::answer::{Answer, Assumption, Provenance, Question, RefusalCode, Source};
use crate::catalog::Catalog;
use crate::context::Context;
use crate::items::Items;
use crate::read;

use super::{asked, choose, draft, launch, several};

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

/// A request whose words are ready to be read as one order: what they take back is masked, and so are
/// the words of its other orders.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The question that the words are rather than an order.
    pub(crate) asked: Option<Answer>,
    /// The order, where its words stand now.
    order: Found,
    /// Which orders are left out.
    left_out: Vec<Assumption>,
}

impl Ready {
    /// Makes items ready to be read as `order`. `own` is the order that the words themselves give, if
    /// it is this one; else nothing is known of what stands beside it.
    pub(crate) fn of(items: &mut Items<'_, '_>, found: &[Found], own: Option<Found>, order: Found) -> Self {
        let from_is_old =
            matches!(order.act, Act::Update | Act::Scale | Act::Run) && !choose::says(items, "act.autoscale");
        read::mask::mask(items, from_is_old);
        let Some(own) = own else {
            return Self { asked: None, order, left_out: Vec::new() };
        };
        let asked = asked::question(items, own);
        let others = several::others(items, found, own);
        let asked = asked.or_else(|| several::question(items, &others, own));
        let left_out = several::left_out(items, &others, own);
        several::mask(items, &others, own);
        let at = if own.act == Act::Update && others.is_empty() {
            read::reorder::reorder(items, order.at)
        } else {
            order.at
        };
        Self { asked, order: Found { at, ..order }, left_out }
    }
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

/// Reads a request that is ready as its order, with further fields that somebody else gave.
pub(crate) fn read(
    items: &Items<'_, '_>,
    ready: Ready,
    (context, catalog): (&Context, &Catalog),
    further: &[(String, Value)],
) -> Held {
    let mut draft = draft(items, context, catalog, ready.order);
    for (path, value) in further {
        draft.derive(path, value.clone(), Source::Model);
    }
    if !further.is_empty() && matches!(draft.root, "workload" | "changes") && draft.refusal.is_none() {
        launch::recheck(&mut draft);
    }
    let (questions, refusal) = (std::mem::take(&mut draft.questions), draft.refusal.take());
    let (fields, mut assumptions, provenance) = draft.finish();
    assumptions.extend(ready.left_out);
    if !further.is_empty() {
        // What was judged twice is said once.
        let mut seen = std::collections::BTreeSet::new();
        assumptions.retain(|a| a.field == "action" || seen.insert(a.field.clone()));
    }
    Held { fields, assumptions, provenance, questions, refusal }
}

/// Reads a request as the order that a proposal gives. What the words ask is not asked again: the
/// grammar's own answer did.
pub(crate) fn held(
    items: &Items<'_, '_>,
    orders: &Orders,
    place: (&Context, &Catalog),
    order: Found,
    further: &[(String, Value)],
) -> Held {
    let mut items = items.clone();
    let own = orders.order.filter(|own| own.act == order.act);
    let ready = Ready::of(&mut items, &orders.found, own, order);
    read(&items, ready, place, further)
}
