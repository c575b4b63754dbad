//! "show the nodes", "cluster status", "last 50 log lines of job train-42".

use super::measure::duration;
use super::notes::Notes;
use super::target::{Sort, Target, target_at};
use super::{Reading, gpu, skip};
use crate::answer::{Answer, Intent, QueryFilter, QuerySubject, Source, Understood};
use crate::lexicon::{STATES, SUBJECTS};
use crate::text::Words;

/// Words that only say that the whole cluster is meant.
const WHOLE: &[&[&str]] = &[&["cluster"], &["fleet"], &["all"], &["current"], &["system"]];
/// Words that only lead to a target.
const LINKS: &[&[&str]] = &[&["of"], &["for"], &["from"], &["on"], &["in"], &["are"], &["is"]];

#[derive(Default)]
struct Query {
    subject: Option<QuerySubject>,
    filter: QueryFilter,
    limit: Option<u32>,
    whole: bool,
    notes: Notes,
}

pub(super) fn read(reading: Reading<'_>) -> Answer {
    let words = reading.words;
    let mut query = Query::default();
    let mut i = 0;
    while i < words.len() && !query.notes.is_lost() {
        let next = reading
            .verb
            .end_at(i)
            .or_else(|| query.subject(words, i))
            .or_else(|| query.amount(words, i))
            .or_else(|| query.state(words, i))
            .or_else(|| query.gpu_model(reading, i))
            .or_else(|| query.target(reading, i))
            .or_else(|| query.small_word(words, i))
            .or_else(|| skip(words, i));
        i = next.unwrap_or_else(|| {
            query.notes.not_understood(i);
            i + 1
        });
    }
    query.finish(reading)
}

impl Query {
    fn subject(&mut self, words: &Words<'_>, i: usize) -> Option<usize> {
        let (subject, next) = SUBJECTS
            .iter()
            .filter_map(|(phrase, subject)| Some((*subject, words.phrase(i, phrase)?)))
            .max_by_key(|(_, next)| *next)?;
        // "status of the nodes" asks for the nodes.
        let weak = QuerySubject::Status;
        if self.subject == Some(weak) && subject != weak {
            self.subject = None;
        }
        if self.subject.is_none() || subject != weak {
            let source = Source::Text(words.span(i..next));
            self.notes.set(&mut self.subject, subject, "subject", source);
        }
        Some(next)
    }

    /// "last 50 lines", "last 5", "last hour", "since 2 hours".
    fn amount(&mut self, words: &Words<'_>, i: usize) -> Option<usize> {
        let since =
            words.any(i, &[&["in", "the", "last"], &["of", "the", "last"], &["last"], &["since"], &["past"]])?;
        let (seconds, next) = match duration(words, since) {
            Some(found) => found,
            None => match crate::words::seconds_per(words.word(since)) {
                Some(seconds) => (u64::from(seconds), since + 1),
                None => return self.count(words, i, since),
            },
        };
        let source = Source::Text(words.span(i..next));
        self.notes.set(&mut self.filter.since_s, seconds, "filter.since_s", source);
        Some(next)
    }

    fn count(&mut self, words: &Words<'_>, i: usize, at: usize) -> Option<usize> {
        let (limit, next) = words.number(at).filter(|(n, _)| *n > 0)?;
        let source = Source::Text(words.span(i..next));
        self.notes.set(&mut self.limit, limit, "limit", source);
        Some(words.skip(next, &[&["lines"], &["entries"]]))
    }

    fn state(&mut self, words: &Words<'_>, i: usize) -> Option<usize> {
        let state = STATES.iter().find(|state| words.word(i) == **state)?;
        let source = Source::Text(words.span(i..i + 1));
        self.notes.set(&mut self.filter.state, (*state).to_owned(), "filter.state", source);
        Some(i + 1)
    }

    fn gpu_model(&mut self, reading: Reading<'_>, i: usize) -> Option<usize> {
        let found = gpu::phrase_at(reading.words, i, reading.catalog)?;
        let (model, at) = found.model?;
        let only_model = found.count.is_none() && found.memory_gib.is_none() && found.nvlink.is_none();
        if !only_model {
            return None;
        }
        let source = Source::Text(reading.words.span(at));
        let id = model.id.clone();
        self.notes.set(&mut self.filter.gpu_model, id, "filter.gpu_model", source);
        // "H100 GPUs" names the subject too; the phrase has taken its noun.
        if reading.words.word(found.next - 1).starts_with("gpu") {
            let source = Source::Text(reading.words.span(i..found.next));
            self.notes.set(&mut self.subject, QuerySubject::Gpus, "subject", source);
        }
        Some(found.next)
    }

    fn target(&mut self, reading: Reading<'_>, i: usize) -> Option<usize> {
        let workload = target_at(reading.words, i, Sort::Workload, reading.context);
        let node = target_at(reading.words, i, Sort::Node, reading.context);
        let (sort, (target, next)) = match (workload, node) {
            (Some(workload), None) => (Sort::Workload, workload),
            (None, Some(node)) => (Sort::Node, node),
            (None, None) => return None,
            (Some((_, next)), Some(_)) => {
                let text = reading.words.span(i..next).text;
                let options = vec![format!("node {text}"), format!("workload {text}")];
                let prompt = format!("Is {text:?} the node or the workload?");
                self.notes.ask("filter", prompt, options);
                return Some(next);
            }
        };
        let (slot, field) = match sort {
            Sort::Workload => (&mut self.filter.workload_id, "filter.workload_id"),
            Sort::Node => (&mut self.filter.node, "filter.node"),
        };
        let span = reading.words.span(i..next);
        match target {
            Target::Named(id) => self.notes.set(slot, id, field, Source::Text(span)),
            Target::Fits(id) => {
                self.notes.assume(field, &id, format!("the only one that {:?} fits", span.text));
                self.notes.set(slot, id, field, Source::Context);
            }
            Target::Several(ids) => {
                let prompt = format!("{:?} fits several; which one?", span.text);
                self.notes.ask(field, prompt, ids);
            }
            Target::NoSuch(ids) => {
                let prompt = format!("Nothing known is {:?}; which one is meant?", span.text);
                self.notes.ask(field, prompt, ids);
            }
        }
        Some(next)
    }

    fn small_word(&mut self, words: &Words<'_>, i: usize) -> Option<usize> {
        if let Some(next) = words.any(i, WHOLE) {
            self.whole = true;
            return Some(next);
        }
        words.any(i, LINKS)
    }

    fn finish(mut self, reading: Reading<'_>) -> Answer {
        let named = self.filter.node.is_some() || self.filter.workload_id.is_some();
        if self.subject.is_none() && self.filter.state.as_deref() == Some("running") && !named {
            self.notes.assume("subject", QuerySubject::Workloads, "what runs is workloads");
            let source = Source::Default;
            self.notes.set(&mut self.subject, QuerySubject::Workloads, "subject", source);
        } else if self.subject.is_none() && (self.whole || named) {
            self.notes.assume("subject", QuerySubject::Status, "nothing more was asked for");
            self.notes.set(&mut self.subject, QuerySubject::Status, "subject", Source::Default);
        }
        if let Some((typed, right)) = &reading.verb.corrected {
            let why = format!("{typed:?} was read as {right:?}");
            self.notes.assume("action", "query", why);
        }
        if let Some(objection) = self.notes.objection(reading.words, "filter", "") {
            return objection;
        }
        let Some(subject) = self.subject else {
            let subjects = ["status", "nodes", "gpus", "workloads", "logs", "events"];
            let options = subjects.map(str::to_owned).to_vec();
            return Answer::ask("subject", "What shall be shown?", options);
        };
        if subject == QuerySubject::Logs && self.filter.workload_id.is_none() {
            let known = reading.context.workloads.iter();
            let ids = known.map(|w| w.id.clone()).take(8).collect();
            return Answer::ask("filter.workload_id", "The logs of which workload?", ids);
        }
        let (assumptions, provenance) = self.notes.into_reasons();
        Answer::Intent(Understood {
            intent: Intent::Query { subject, filter: self.filter, limit: self.limit },
            assumptions,
            provenance,
        })
    }
}
