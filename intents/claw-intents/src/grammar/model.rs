//! The model that a request names: "Llama 70B".

use std::ops::Range;

use claw_proto::spec::GpuVendor;

use super::gpu as gpus;
use super::run::Run;
use crate::answer::Source;
use crate::catalog::Model;
use crate::catalog::resolve::Resolution;
use crate::lexicon::GPU_NOUNS;
use crate::text::Kind;

/// So many words of a model's name are looked at.
const NAME_WORDS_MAX: usize = 8;

/// "Llama 70B".
pub(super) fn read(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let catalog = run.reading.catalog;
    let start = words.skip(i, &[&["model"], &["the", "model"]]);
    let mut name: Vec<&str> = Vec::new();
    let mut gpus_follow = false;
    for k in start..words.len().min(start + NAME_WORDS_MAX) {
        let gpu = gpus::name_at(words, k, catalog).is_some() || GPU_NOUNS.contains(&words.word(k));
        if gpu || words.tokens[k].kind != Kind::Word {
            gpus_follow = gpu;
            break;
        }
        name.push(words.word(k));
    }
    while gpus_follow && name.last().is_some_and(|last| *last == "x" || GpuVendor::from_text(last).is_some()) {
        name.pop();
    }
    let found = catalog.name_at(&name, gpus_follow)?;
    let end = start + found.words;
    let text = run.span(start..end).text;
    if let Some(right) = found.corrected {
        let why = format!("{text:?} was read as {right:?}");
        run.notes.assume("workload.model", right, why);
    }
    let ids = |models: &[&Model]| models.iter().map(|m| m.id.clone()).collect::<Vec<_>>();
    match found.resolution {
        Resolution::One { model, alternatives } => take_model(run, model, &ids(&alternatives), start..end),
        Resolution::Several(models) => {
            let prompt = format!("Which {text} is meant?");
            run.notes.ask("workload.model", prompt, ids(&models));
        }
        Resolution::NoSuch(models) => {
            let prompt = format!("The catalogue has no {text:?}; which model is meant?");
            run.notes.ask("workload.model", prompt, ids(&models));
        }
        Resolution::Unknown => return None,
    }
    Some(words.skip(end, &[&["model"]]))
}

fn take_model<'a>(run: &mut Run<'a>, model: &'a Model, alternatives: &[String], tokens: Range<usize>) {
    const FIELD: &str = "workload.model";
    let span = run.span(tokens);
    if let Some(old) = run.model.filter(|old| old.id != model.id) {
        let prompt = format!("Both {} and {} are named; which one shall run?", old.id, model.id);
        return run.notes.ask(FIELD, prompt, vec![old.id.clone(), model.id.clone()]);
    }
    if !span.text.eq_ignore_ascii_case(&model.id) {
        let why = if alternatives.is_empty() {
            format!("{:?} in the catalogue", span.text)
        } else {
            format!("{:?} without a version; also known: {}", span.text, alternatives.join(", "))
        };
        run.notes.assume(FIELD, &model.id, why);
    }
    if run.model.is_none() {
        run.notes.came_from(FIELD, Source::Text(span));
    }
    run.model = Some(model);
}
