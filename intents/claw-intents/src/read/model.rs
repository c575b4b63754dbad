//! The model and the precision of its weights.

use crate::answer::Source;
use crate::catalog::resolve::Resolution;
use crate::draft::Draft;
use crate::items::{Items, Kind};

pub(crate) fn read(draft: &mut Draft<'_, '_, '_>) {
    read_precision(draft);
    let items = draft.items;
    // Behind a correction only the models that follow it count.
    let named = |i: &usize| matches!(items.at(*i).map(|item| &item.kind), Some(Kind::Model(_)));
    let from = (0..items.len()).rev().find(|i| items.corrects(*i) && (*i..items.len()).any(|k| named(&k))).unwrap_or(0);
    for i in from..items.len() {
        let Some(Kind::Model(resolution)) = items.at(i).map(|item| item.kind.clone()) else {
            continue;
        };
        if draft.is_used(i) {
            continue;
        }
        let path = draft.path("model");
        match resolution {
            Resolution::One { model, alternatives } => {
                draft.set("model", model.id.as_str(), i..i + 1);
                if !alternatives.is_empty() {
                    let others: Vec<&str> = alternatives.iter().map(|m| m.id.as_str()).collect();
                    let why = format!("{:?} names no version; also known: {}", items.raw(i), others.join(", "));
                    draft.assume(&path, model.id.as_str().into(), why);
                }
                if items.list[i].corrected {
                    draft.assume(
                        &path,
                        model.id.as_str().into(),
                        format!("{:?} is read as {}", items.raw(i), model.id),
                    );
                }
            }
            Resolution::Several(models) | Resolution::NoSuch(models) => {
                // "the llama deployment" describes a thing and names no model.
                if describes(items, i) || told_about(items, i) {
                    continue;
                }
                let options: Vec<String> = models.iter().take(8).map(|m| m.id.clone()).collect();
                draft.mark(&(i..i + 1));
                draft.ask(
                    &path,
                    format!("Which model is meant by {:?}: {}?", items.raw(i), options.join(", ")),
                    options,
                );
            }
            Resolution::Unknown => {}
        }
    }
    read_unknown(draft);
    if draft.has("model") {
        let path = draft.path("model");
        draft.derive_source(&path, Source::Catalogue);
    }
}

/// "because llama was too chatty": a family without a size beside a model by its name, and no choice
/// between the two.
fn told_about(items: &Items<'_, '_>, i: usize) -> bool {
    let whole = |k: usize| matches!(items.at(k).map(|item| &item.kind), Some(Kind::Model(Resolution::One { .. })));
    let chosen = |k: usize| items.any(k, &["or", "and", "correct"]) || items.punct(k, '/');
    let beside = (i.saturating_sub(2)..i + 3).any(|k| k != i && chosen(k));
    !beside && (0..items.len()).any(|k| k != i && whole(k) && !items.corrects_between(k.min(i), k.max(i)))
}

fn describes(items: &Items<'_, '_>, i: usize) -> bool {
    items.any(i + 1, &["noun.deployment", "pron.one", "noun.workload"]) && i > 0 && items.any(i - 1, &["det.the"])
}

/// "falcon 40b": a name that the catalogue does not know, with a size as models have it.
fn read_unknown(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    if draft.has("model") || draft.has("image") {
        return;
    }
    for i in 0..items.len() {
        let Some(item) = items.at(i) else {
            continue;
        };
        let sized = item
            .text
            .strip_suffix('b')
            .is_some_and(|n| n.chars().all(|c| c.is_ascii_digit() || c == '.') && !n.is_empty())
            || item.text.rsplit_once('-').is_some_and(|(_, size)| {
                size.strip_suffix('b')
                    .is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit() || c == '.'))
            });
        // "to zone us-west-2b"
        let place = i > 0 && items.is(i - 1, "noun.zone");
        if sized && !place && item.kind == Kind::Word && item.senses.is_empty() && !item.known {
            let named =
                i > 0 && items.at(i - 1).is_some_and(|before| before.senses.is_empty() && before.kind == Kind::Word);
            let from = if named { i - 1 } else { i };
            let text = items.span(&(from..i + 1)).text;
            let path = draft.path("model");
            let near: Vec<String> =
                draft.catalog.models().iter().filter(|m| m.key.contains(&item.text)).map(|m| m.id.clone()).collect();
            draft.ask(&path, format!("{text:?} is not in the catalogue. Which model is meant?"), near);
            return;
        }
    }
}

fn read_precision(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        if let Some(bits) =
            draft.items.at(i).and_then(|item| item.senses.after("quant.")).filter(|bits| *bits != "word")
        {
            draft.set("quantization", bits, i..i + 1);
        }
    }
}
