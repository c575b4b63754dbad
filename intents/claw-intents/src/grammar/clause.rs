//! The clauses of a request to run something. Each reads one thing at a place
//! and says where the next one begins, or leaves the place to another clause.

use std::ops::Range;

use claw_proto::spec::{GpuVendor, Interconnect, Priority, Quantization, WorkloadKind};

use super::run::Run;
use super::target::{Sort, Target, match_name, nearest, target_at};
use super::{gpu as gpus, measure};
use crate::answer::{RefusalCode, Source};
use crate::text::{Quote, Words};
use crate::words::digits;

/// The text of a word or a quote, as a name.
fn name_text(words: &Words<'_>, i: usize) -> Option<String> {
    match words.quote(i) {
        Some((Quote::Code | Quote::Marks, text)) => Some(text.trim().to_owned()),
        Some(_) => None,
        None => Some(words.raw(i).to_owned()),
    }
    .filter(|name| !name.is_empty())
}

/// "call it art-bot", "named art-bot".
pub(super) fn name(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let at = words.any(
        i,
        &[
            &["call", "it"],
            &["name", "it"],
            &["named"],
            &["called"],
            &["under", "the", "name"],
            &["with", "the", "name"],
            &["with", "name"],
            &["name"],
        ],
    )?;
    let at = words.skip_symbol(at, ':');
    let name = name_text(words, at)?;
    let source = run.text(at..at + 1);
    run.notes.set(&mut run.spec.name, name, "workload.name", source);
    Some(at + 1)
}

/// "with image acme/api:2".
pub(super) fn image(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip(i, &[&["with"], &["using"], &["from"], &["in"]]);
    let start = words.skip(words.skip_article(start), &[&["docker"], &["container"]]);
    let at = words.skip_symbol(words.phrase(start, &["image"])?, ':');
    let image = name_text(words, at)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if !image.chars().all(allowed) {
        return None;
    }
    let source = run.text(at..at + 1);
    run.notes.set(&mut run.spec.image, image, "workload.image", source);
    Some(at + 1)
}

/// "with env MODE=fast and SHOTS=5".
pub(super) fn env(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip(i, &[&["with"], &["set"]]);
    let start = words.any(start, &[&["env"], &["environment"], &["env", "var"], &["environment", "variable"]])?;
    let mut at = words.skip_symbol(start, ':');
    let mut end = None;
    while let Some((key, value)) = words.raw(at).split_once('=') {
        let old = run.spec.env.insert(key.to_owned(), value.to_owned());
        if old.is_some_and(|old| old != value) {
            let prompt = format!("{key} is given twice; which value is meant?");
            run.notes.ask("workload.env", prompt, Vec::new());
        }
        let source = run.text(at..at + 1);
        run.notes.came_from(&format!("workload.env.{key}"), source);
        end = Some(at + 1);
        let next = words.skip_symbol(at + 1, ',');
        at = words.skip(next, &[&["and"]]);
    }
    end
}

/// "expose port 8000", "ports 8000 and 9090".
pub(super) fn ports(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip(i, &[&["expose"], &["publish"], &["open"], &["on"], &["with"]]);
    let mut at = words.any(start, &[&["port"], &["ports"]])?;
    let mut end = None;
    loop {
        let Some(port) = digits(words.word(at)).and_then(|n| u16::try_from(n).ok()).filter(|p| *p > 0) else {
            return end;
        };
        if !run.spec.ports.contains(&port) {
            run.spec.ports.push(port);
            let source = run.text(at..at + 1);
            run.notes.came_from("workload.ports", source);
        }
        end = Some(at + 1);
        let next = words.skip_symbol(at + 1, ',');
        let next = words.skip(next, &[&["and"], &["and", "port"]]);
        if next == at + 1 {
            return end;
        }
        at = next;
    }
}

/// What a named node means, with a question where that is not clear.
fn settle(run: &mut Run<'_>, target: Target, field: &str, tokens: Range<usize>) -> Option<(String, Source)> {
    let span = run.span(tokens);
    match target {
        Target::Named(name) => Some((name, Source::Text(span))),
        Target::Fits(name) => {
            let why = format!("the only known node that {:?} fits", span.text);
            run.notes.assume(field, &name, why);
            Some((name, Source::Context))
        }
        Target::Several(names) => {
            run.notes.ask(field, format!("{:?} fits several nodes; which one?", span.text), names);
            None
        }
        Target::NoSuch(names) => {
            run.notes.ask(field, format!("No known node is {:?}; which one is meant?", span.text), names);
            None
        }
    }
}

/// "not on node gpu-1 and gpu-2", "avoid node gpu-1".
pub(super) fn excluded_nodes(run: &mut Run<'_>, i: usize) -> Option<usize> {
    const FIELD: &str = "workload.placement.exclude_nodes";
    let words = run.reading.words;
    let mut at =
        words.any(i, &[&["not", "on"], &["but", "not", "on"], &["just", "not", "on"], &["avoid"], &["avoiding"]])?;
    let plural = words.any(words.skip_article(at), &[&["nodes"]]);
    let mut end = None;
    let mut first = true;
    loop {
        let found = match plural {
            Some(after) => {
                at = if first { after } else { at };
                let id_like = |name: &str| name.contains(|c: char| c.is_ascii_digit() || c == '-');
                let name = words.raw(at);
                id_like(name).then(|| (match_name(name, Sort::Node, run.reading.context), at + 1))
            }
            None => target_at(words, at, Sort::Node, run.reading.context),
        };
        let Some((target, next)) = found else {
            return end;
        };
        if let Some((name, source)) = settle(run, target, FIELD, at..next)
            && !run.placement.exclude_nodes.contains(&name)
        {
            run.placement.exclude_nodes.push(name);
            run.notes.came_from(FIELD, source);
        }
        end = Some(next);
        first = false;
        at = words.skip(words.skip_symbol(next, ','), &[&["and"], &["or"], &["nor"]]);
        if at == next {
            return end;
        }
    }
}

/// "on node gpu-1", or "on gpu-1" where the context knows it.
pub(super) fn node(run: &mut Run<'_>, i: usize) -> Option<usize> {
    const FIELD: &str = "workload.placement.node";
    let words = run.reading.words;
    let start = words.skip_on(i);
    let said = Sort::Node.nouns().contains(&words.word(words.skip_article(start)));
    if start == i && !said {
        return None;
    }
    let named = target_at(words, start, Sort::Node, run.reading.context);
    let (target, next) = named.or_else(|| looks_like_node(run, start))?;
    if let Some((name, source)) = settle(run, target, FIELD, start..next) {
        run.notes.set(&mut run.placement.node, name, FIELD, source);
    }
    Some(next)
}

/// "on gpu-1" with neither the word "node" nor a context that knows it: asked about.
fn looks_like_node(run: &Run<'_>, i: usize) -> Option<(Target, usize)> {
    let name = run.reading.words.raw(i);
    let is_name = name.starts_with(|c: char| c.is_alphabetic())
        && name.contains('-')
        && name.contains(|c: char| c.is_ascii_digit());
    let is_gpu = gpus::name_at(run.reading.words, i, run.reading.catalog).is_some();
    let nearest = nearest(name, Sort::Node, run.reading.context);
    (is_name && !is_gpu).then(|| (Target::NoSuch(nearest), i + 1))
}

/// "in zone eu-west-1a".
pub(super) fn zone(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip_article(words.skip(i, &[&["in"], &["on"]]));
    let at = words.skip_symbol(words.phrase(start, &["zone"])?, ':');
    let zone = name_text(words, at)?;
    let source = run.text(at..at + 1);
    run.notes.set(&mut run.placement.zone, zone, "workload.placement.zone", source);
    Some(at + 1)
}

/// "for tenant support"; another tenant than the caller's is refused before.
pub(super) fn tenant(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip_article(words.skip(i, &[&["for"], &["in"]]));
    let at = words.skip_symbol(words.phrase(start, &["tenant"])?, ':');
    let tenant = name_text(words, at)?;
    let source = run.text(at..at + 1);
    run.notes.set(&mut run.spec.tenant, tenant, "workload.tenant", source);
    Some(at + 1)
}

/// "8 cores".
pub(super) fn cpu(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip_on(i);
    let (cores, next) = words.number(start).filter(|(n, _)| *n > 0)?;
    let end =
        words.any(next, &[&["cores"], &["core"], &["cpu"], &["cpus"], &["vcpu"], &["vcpus"], &["cpu", "cores"]])?;
    let source = run.text(start..end);
    run.notes.set(&mut run.spec.cpu_cores, f64::from(cores), "workload.cpu_cores", source);
    Some(end)
}

/// "64 GB RAM", "500 gigs disk", "8 GB shm".
pub(super) fn memory(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip_on(i);
    let (gib, after) = measure::size_gib(words, start)?;
    let at = words.skip(after, &[&["of"]]);
    let (slot, field, end) = if let Some(end) = words.any(at, &[&["ram"], &["memory"], &["mem"]]) {
        (&mut run.spec.memory_gib, "workload.memory_gib", end)
    } else if let Some(end) = words.any(at, &[&["disk"], &["storage"], &["disk", "space"]]) {
        (&mut run.spec.disk_gib, "workload.disk_gib", end)
    } else {
        let end = words.any(at, &[&["shm"], &["shared", "memory"]])?;
        (&mut run.spec.shm_gib, "workload.shm_gib", end)
    };
    let source = Source::Text(words.span(start..end));
    run.notes.set(slot, gib, field, source);
    Some(end)
}

/// "3 replicas".
pub(super) fn replicas(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip_on(i);
    let (count, next) = words.number(start).filter(|(n, _)| *n > 0)?;
    let end = words.any(next, &[&["replica"], &["replicas"], &["copies"]])?;
    let source = run.text(start..end);
    run.notes.set(&mut run.spec.replicas, count, "workload.replicas", source);
    Some(end)
}

/// "low priority", "prio high", "best effort", "preemptible".
pub(super) fn priority(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    if let Some(end) = words.any(i, &[&["preemptible"]]) {
        let source = run.text(i..end);
        run.notes.set(&mut run.spec.preemptible, true, "workload.preemptible", source);
        return Some(end);
    }
    let start = words.skip_article(words.skip(i, &[&["with"], &["at"]]));
    let noun: &[&[&str]] = &[&["priority"], &["prio"]];
    let (level, end) = if let Some(end) = words.any(start, &[&["best", "effort"], &["best-effort"]]) {
        (Priority::BestEffort, end)
    } else if let Some(at) = words.any(start, noun) {
        let at = words.skip_symbol(at, ':');
        (Priority::from_text(words.word(at))?, at + 1)
    } else {
        (Priority::from_text(words.word(start))?, words.any(start + 1, noun)?)
    };
    let source = run.text(start..end);
    run.notes.set(&mut run.spec.priority, level, "workload.priority", source);
    Some(end)
}

/// "for 6h", "at most 30 minutes".
pub(super) fn duration(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let before: &[&[&str]] =
        &[&["for"], &["for", "at", "most"], &["for", "up", "to"], &["for", "max"], &["at", "most"], &["max"]];
    let start = words.any(i, before)?;
    let (seconds, end) = measure::duration(words, start)?;
    let source = run.text(start..end);
    run.notes.set(&mut run.spec.max_duration_s, seconds, "workload.max_duration_s", source);
    Some(end)
}

/// "as a batch job", "inference".
pub(super) fn kind(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip_article(words.skip(i, &[&["as"]]));
    let kind = WorkloadKind::from_text(words.word(start))?;
    let noun = words.any(start + 1, &[&["job"], &["workload"], &["task"], &["run"]]);
    let alone = matches!(kind, WorkloadKind::Batch | WorkloadKind::Inference) || start > i;
    let end = noun.or_else(|| alone.then_some(start + 1))?;
    let source = run.text(start..end);
    run.notes.set(&mut run.spec.kind, kind, "workload.kind", source);
    Some(end)
}

/// "in fp8", "int8".
pub(super) fn quantization(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip(i, &[&["in"], &["at"], &["with"]]);
    let precision = Quantization::from_text(words.word(start))?;
    let end = words.skip(start + 1, &[&["precision"], &["quantization"], &["weights"]]);
    let source = run.text(start..start + 1);
    run.notes.set(&mut run.spec.quantization, precision, "workload.quantization", source);
    Some(end)
}

/// "with NVLink".
pub(super) fn nvlink(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let start = words.skip_on(i);
    let end = words.phrase(start, &["nvlink"])?;
    if gpus::phrase_at(words, i, run.reading.catalog).is_some() {
        return None;
    }
    let source = run.text(start..end);
    run.notes.set(&mut run.gpu.interconnect, Interconnect::Nvlink, "workload.gpu.interconnect", source);
    Some(end)
}

/// "on 4 H100s".
pub(super) fn gpu(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let words = run.reading.words;
    let found = gpus::phrase_at(words, i, run.reading.catalog)?;
    if let Some([few, many]) = found.either {
        let options = vec![few.to_string(), many.to_string()];
        run.notes.ask("workload.gpu.count", "How many GPUs?", options);
    }
    if let Some((count, at)) = found.count {
        if run.gpu.count.is_some_and(|old| (old == 0) != (count == 0)) {
            let message = "GPUs and no GPU are both asked for";
            run.notes.refuse(RefusalCode::Contradictory, message);
        }
        let source = Source::Text(words.span(at));
        run.notes.set(&mut run.gpu.count, count, "workload.gpu.count", source);
    }
    if let Some((model, at)) = &found.model {
        let source = Source::Text(words.span(at.clone()));
        run.notes.set(&mut run.gpu.model, model.id.clone(), "workload.gpu.model", source);
    }
    if let Some((gib, at)) = found.memory_gib {
        let source = Source::Text(words.span(at));
        run.notes.set(&mut run.gpu.memory_gib_min, gib, "workload.gpu.memory_gib_min", source);
    }
    if let Some(at) = found.nvlink {
        let source = Source::Text(words.span(at));
        run.notes.set(&mut run.gpu.interconnect, Interconnect::Nvlink, "workload.gpu.interconnect", source);
    }
    if let Some((vendor, at)) = found.vendor {
        take_vendor(run, vendor, found.model.map(|(model, _)| model.vendor), at);
    }
    Some(found.next)
}

/// A vendor that is said; beside a model's name it adds nothing, or contradicts it.
fn take_vendor(run: &mut Run<'_>, said: GpuVendor, of_model: Option<GpuVendor>, at: Range<usize>) {
    match of_model {
        None => {
            let source = run.text(at);
            run.notes.set(&mut run.gpu.vendor, said, "workload.gpu.vendor", source);
        }
        Some(vendor) if vendor == said => {}
        Some(vendor) => {
            let message = format!("that GPU is made by {vendor}, not by {said}");
            run.notes.refuse(RefusalCode::Contradictory, message);
        }
    }
}

/// "llama 8b, 1 L4, run it": the pronoun adds nothing once something is named.
pub(super) fn pronoun(run: &mut Run<'_>, i: usize) -> Option<usize> {
    let behind_verb = run.reading.verb.tokens.iter().any(|range| range.end == i);
    let named = run.model.is_some() || run.spec.image.is_some();
    (behind_verb && named && run.reading.words.word(i) == "it").then_some(i + 1)
}
