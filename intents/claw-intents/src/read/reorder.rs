//! A setting and its value, brought together: "the port of deployment chat to 9000" is read as
//! "the port to 9000, of deployment chat".

use crate::items::{Item, Items, Kind};
use crate::lexicon::Senses;

use super::refs;

/// Moves whose setting it is behind the value, to the end of the sentence. What stood at `of` stands at
/// the place that comes back.
pub(crate) fn reorder(items: &mut Items<'_, '_>, of: usize) -> usize {
    let Some((from, to)) = (1..items.len()).find_map(|i| Some((i, owner(items, i)?))) else {
        return of;
    };
    let end = (to..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let at = items.list[end - 1].span.end;
    let moved: Vec<Item<'_>> = items.list.drain(from..to).collect();
    let comma = Item { kind: Kind::Punct(','), text: ",".to_owned(), span: at..at, ..moved[0].clone() };
    let behind = end - (to - from);
    items.list.splice(behind..behind, std::iter::once(Item { senses: Senses::default(), ..comma }).chain(moved));
    match of {
        _ if of < from => of,
        // The comma stands before what was moved, and before what comes after the sentence.
        _ if of < to => of - from + behind + 1,
        _ if of < end => of - (to - from),
        _ => of + 1,
    }
}

/// The end of "of deployment chat" at a place, where its new value follows.
fn owner(items: &Items<'_, '_>, i: usize) -> Option<usize> {
    if !items.any(i, &["of", "for", "on"]) || items.ends_clause(i - 1) || items.num(i - 1).is_some() {
        return None;
    }
    let from = if items.is(i + 1, "det.the") { i + 2 } else { i + 1 };
    let to = match (items.is(from, "noun.deployment"), items.is(from + 1, "noun.deployment")) {
        (true, _) if refs::can_name(items, from + 1) => from + 2,
        (_, true) if refs::can_name(items, from) => from + 2,
        _ if items.at(from).is_some_and(|n| n.known) => from + 1,
        _ => return None,
    };
    let valued = items.at(to).is_some_and(|n| {
        matches!(n.text.as_str(), "to" | "from" | "=" | "→" | "->" | "at" | "auf" | "von" | "a" | "à" | "sur" | "en")
    });
    let setting =
        items.at(i - 1).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("noun.") || s.starts_with("quant.")));
    (valued && setting).then_some(to)
}
