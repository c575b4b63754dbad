//! What sort of work it is.

use serde_json::{Value, json};

use crate::act::Act;
use crate::answer::Source;
use crate::draft::Draft;

/// Kinds by their words; the first that is said counts, "batch" and "training" before "service".
pub(crate) fn read(draft: &mut Draft<'_, '_, '_>) {
    const ORDER: &[&str] = &["kind.batch", "kind.training", "kind.interactive", "kind.inference", "kind.service"];
    // "batch-embed the archive": what is done in batches.
    let order = draft.given_by("action").map(|at| at.start);
    if let Some(i) = order.filter(|i| draft.items.at(*i).is_some_and(|n| n.text.starts_with("batch-") && !n.known)) {
        let path = draft.path("kind");
        draft.set_unmarked(&path, json!("batch"), i..i + 1);
        return;
    }
    for sense in ORDER {
        let found = (0..draft.items.len()).find(|i| {
            draft.items.is(*i, sense)
                && draft.items.list.get(i + 1).is_none_or(|n| n.text != "size")
                && !draft.is_used(*i)
                && !is_part_of_name(draft, *i)
                // "bump the embedding service": what is changed, and no kind.
                && !(draft.root == "changes"
                    && draft.items.is(*i, "noun.deployment")
                    && !(*i > 0 && draft.items.any(*i - 1, &["det.a", "as"])))
        });
        if let Some(i) = found {
            let kind = sense.trim_start_matches("kind.");
            // "the training service" is no service.
            draft.set("kind", kind, i..i + 1);
            return;
        }
    }
}

fn is_part_of_name(draft: &Draft<'_, '_, '_>, i: usize) -> bool {
    i > 0 && draft.items.any(i - 1, &["noun.zone", "noun.label"])
}

/// The kind that the operation or the model implies, stated as an assumption.
pub(crate) fn assume(draft: &mut Draft<'_, '_, '_>, act: Act) {
    let path = draft.path("kind");
    let unstated = (0..draft.items.len()).any(|i| draft.items.is(i, "nokind"));
    if draft.get(&path).is_some() || unstated {
        return;
    }
    let (kind, why) = match act {
        Act::Train => ("training", "the request is to train"),
        Act::Serve if draft.has("model") => ("inference", "the request is to serve a model"),
        Act::Serve => ("service", "the request is to serve"),
        _ if draft.has("model") && !draft.has("command") => ("inference", "a model by its name is run to serve it"),
        _ => return,
    };
    draft.derive(&path, json!(kind), Source::Default);
    draft.assume(&path, Value::from(kind), why);
}
