//! A draft: the fields of an intent while a request is read, each with the
//! words that gave it. Two values for one field are a correction if the words
//! say so, a choice if "or" parts them, and else a contradiction.

use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::answer::{Assumption, Provenance, Question, RefusalCode, Source};
use crate::catalog::Catalog;
use crate::context::Context;
use crate::items::{Items, Kind};

/// A field that was set, and by which items.
#[derive(Debug, Clone, PartialEq)]
struct Given {
    path: String,
    items: Range<usize>,
}

/// The fields read so far.
#[derive(Debug)]
pub(crate) struct Draft<'a, 't, 'c> {
    /// The request.
    pub(crate) items: &'a Items<'t, 'c>,
    /// What may be looked up.
    pub(crate) context: &'a Context,
    /// Models and GPUs.
    pub(crate) catalog: &'c Catalog,
    /// Where the fields of the workload go: `workload` or `changes`.
    pub(crate) root: &'static str,
    /// Items that a field was read from.
    pub(crate) used: Vec<bool>,
    value: Map<String, Value>,
    given: Vec<Given>,
    other_sources: Vec<Provenance>,
    pub(crate) assumptions: Vec<Assumption>,
    pub(crate) questions: Vec<Question>,
    pub(crate) refusal: Option<(RefusalCode, String)>,
}

impl<'a, 't, 'c> Draft<'a, 't, 'c> {
    pub(crate) fn new(
        items: &'a Items<'t, 'c>,
        context: &'a Context,
        catalog: &'c Catalog,
        root: &'static str,
    ) -> Self {
        Self {
            items,
            context,
            catalog,
            root,
            used: vec![false; items.len()],
            value: Map::new(),
            given: Vec::new(),
            other_sources: Vec::new(),
            assumptions: Vec::new(),
            questions: Vec::new(),
            refusal: None,
        }
    }

    /// The full path of a field of the workload.
    pub(crate) fn path(&self, field: &str) -> String {
        if self.root.is_empty() { field.to_owned() } else { format!("{}.{field}", self.root) }
    }

    /// Sets a field of the workload from the request's words.
    pub(crate) fn set(&mut self, field: &str, value: impl Into<Value>, items: Range<usize>) {
        let path = self.path(field);
        self.set_at(&path, value.into(), items);
    }

    /// Sets any field from the request's words.
    pub(crate) fn set_at(&mut self, path: &str, value: Value, items: Range<usize>) {
        self.mark(&items);
        let old = self.get(path).cloned();
        let old_items = self.given.iter().find(|g| g.path == path).map(|g| g.items.clone());
        match (old, old_items) {
            (Some(old), Some(at)) if old != value => self.clash(path, (old, at), (value, items)),
            (Some(_), Some(_)) => {}
            _ => self.put(path, value, items),
        }
    }

    fn put(&mut self, path: &str, value: Value, items: Range<usize>) {
        insert(&mut self.value, path, value);
        self.given.retain(|g| g.path != path);
        self.given.push(Given { path: path.to_owned(), items });
    }

    fn clash(&mut self, path: &str, old: (Value, Range<usize>), new: (Value, Range<usize>)) {
        let (first, second) = if old.1.start <= new.1.start { (old, new) } else { (new, old) };
        let between = first.1.end.min(second.1.start)..second.1.start;
        let source = self.items;
        if source.corrects_between(between.start, between.end) || source.corrects_between(between.end, second.1.end) {
            self.put(path, second.0, second.1);
        } else if between.clone().any(|i| source.is(i, "or")) || (between.end..second.1.end).any(|i| source.is(i, "or"))
        {
            let options = vec![text_of(&first.0), text_of(&second.0)];
            let prompt = format!("Which is meant for {path}: {} or {}?", options[0], options[1]);
            self.ask(path, prompt, options);
        } else {
            let message = format!("{path} is said to be {} and {}", text_of(&first.0), text_of(&second.0));
            self.refuse(RefusalCode::Contradictory, message);
        }
    }

    /// Sets a field whose words may give another field too.
    pub(crate) fn set_unmarked(&mut self, path: &str, value: Value, items: Range<usize>) {
        self.put(path, value, items);
    }

    /// Replaces a field whatever it was.
    pub(crate) fn replace(&mut self, path: &str, value: Value, items: Range<usize>) {
        self.mark(&items);
        self.put(path, value, items);
    }

    /// Adds to a list.
    pub(crate) fn add(&mut self, field: &str, value: impl Into<Value>, items: Range<usize>) {
        let path = self.path(field);
        self.mark(&items);
        let value = value.into();
        let mut list = self.get(&path).and_then(Value::as_array).cloned().unwrap_or_default();
        if !list.contains(&value) {
            list.push(value);
        }
        self.put(&path, Value::Array(list), items);
    }

    /// Sets an entry of a map, whose key may contain dots.
    pub(crate) fn entry(&mut self, field: &str, key: &str, value: &str, items: Range<usize>) {
        let path = self.path(field);
        self.mark(&items);
        let mut map = self.get(&path).and_then(Value::as_object).cloned().unwrap_or_default();
        map.insert(key.to_owned(), json!(value));
        self.put(&path, Value::Object(map), items);
    }

    /// Sets a field from elsewhere than the words.
    pub(crate) fn derive(&mut self, path: &str, value: Value, source: Source) {
        insert(&mut self.value, path, value);
        self.other_sources.push(Provenance { field: path.to_owned(), source });
    }

    /// Names a further source of a field.
    pub(crate) fn derive_source(&mut self, path: &str, source: Source) {
        self.other_sources.push(Provenance { field: path.to_owned(), source });
    }

    /// States an assumption.
    pub(crate) fn assume(&mut self, field: &str, value: Value, why: impl Into<String>) {
        self.assumptions.push(Assumption { field: field.to_owned(), value, why: why.into() });
    }

    /// Asks a person.
    pub(crate) fn ask(&mut self, field: &str, prompt: impl Into<String>, options: Vec<String>) {
        if !self.questions.iter().any(|q| q.field == field) {
            self.questions.push(Question { field: field.to_owned(), prompt: prompt.into(), options });
        }
    }

    /// Refuses; the first reason stays.
    pub(crate) fn refuse(&mut self, code: RefusalCode, message: impl Into<String>) {
        if self.refusal.is_none() {
            self.refusal = Some((code, message.into()));
        }
    }

    pub(crate) fn mark(&mut self, items: &Range<usize>) {
        for i in items.clone() {
            if let Some(used) = self.used.get_mut(i) {
                *used = true;
            }
        }
    }

    /// Whether an item gave a field already.
    pub(crate) fn is_used(&self, i: usize) -> bool {
        self.used.get(i).copied().unwrap_or(true)
    }

    /// The value at a path.
    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let mut value = self.value.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        Some(value)
    }

    /// Whether a field of the workload is set.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.get(&self.path(field)).is_some()
    }

    /// A field of the workload.
    pub(crate) fn field(&self, field: &str) -> Option<&Value> {
        self.get(&self.path(field))
    }

    /// The items that gave a field.
    pub(crate) fn given_by(&self, path: &str) -> Option<Range<usize>> {
        self.given.iter().find(|g| g.path == path).map(|g| g.items.clone())
    }

    /// Takes a field back.
    pub(crate) fn forget(&mut self, path: &str) {
        self.given.retain(|g| g.path != path);
        remove(&mut self.value, path);
    }

    /// The last field before an item whose value is a number and for which `fits` holds.
    pub(crate) fn last_number_before(&self, i: usize, fits: impl Fn(&str) -> bool) -> Option<String> {
        let number = |path: &str| self.get(path).is_some_and(Value::is_number);
        self.given
            .iter()
            .filter(|g| g.items.end <= i && number(&g.path) && fits(&g.path))
            .max_by_key(|g| g.items.end)
            .map(|g| g.path.clone())
    }

    /// Whether a number item is at a place and no field was read from it.
    pub(crate) fn free_number(&self, i: usize) -> Option<f64> {
        match self.items.at(i)?.kind {
            Kind::Num(n) if !self.is_used(i) => Some(n),
            _ => None,
        }
    }

    /// The finished fields and where each comes from.
    pub(crate) fn finish(self) -> (Map<String, Value>, Vec<Assumption>, Vec<Provenance>) {
        let mut provenance: Vec<(usize, Provenance)> = self
            .given
            .iter()
            .map(|g| {
                let source = Source::Text(self.items.span(&g.items));
                (g.items.start, Provenance { field: g.path.clone(), source })
            })
            .collect();
        provenance.sort_by_key(|(start, _)| *start);
        let all = provenance.into_iter().map(|(_, p)| p).chain(self.other_sources).collect();
        (self.value, self.assumptions, all)
    }
}

fn insert(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = map.entry(head).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn remove(map: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => {
            map.remove(path);
        }
        Some((head, rest)) => {
            if let Some(Value::Object(inner)) = map.get_mut(head) {
                remove(inner, rest);
                if inner.is_empty() {
                    map.remove(head);
                }
            }
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
