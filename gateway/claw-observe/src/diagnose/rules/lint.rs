//! Finds rules that are dead, double, without a source, or that do not find their own examples.

use std::collections::BTreeSet;

use regex::Regex;

use super::{Compiled, Rules};
use crate::diagnose::observe::Observer;
use crate::diagnose::series::Sign;

/// What is wrong with the rules, one line each; empty if nothing is.
pub fn lint(rules: &'static Rules) -> Vec<String> {
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for compiled in &rules.text {
        let id = &compiled.rule.id;
        if !names.insert(id.as_str()) {
            faults.push(format!("{id}: a second rule of that name"));
        }
        faults.extend(form(rules, compiled));
        faults.extend(fixtures(rules, compiled));
    }
    faults.extend(codes(rules));
    faults.extend(architectures(rules));
    faults
}

/// A model is of one architecture, and what codes are bound to is dated and says something.
fn architectures(rules: &Rules) -> Vec<String> {
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for row in &rules.architectures.models {
        let all = row.names.iter().chain(&row.capability).chain(&row.geforce);
        faults.extend(all.filter(|name| !names.insert(name.as_str())).map(|name| format!("{name}: a second time")));
        if !row.source.contains("20") {
            faults.push(format!("{}: its source has no date", row.architecture));
        }
    }
    for bound in &rules.architectures.bounds {
        let unknown = bound.xids.iter().filter(|number| !rules.xids.contains_key(number));
        faults.extend(unknown.map(|number| format!("{}: Xid {number} is in no table", bound.id)));
        if bound.architectures.is_empty() || bound.here.is_none() && bound.elsewhere.is_none() {
            faults.push(format!("{}: bounds nothing", bound.id));
        }
        if !bound.source.contains("20") {
            faults.push(format!("{}: its source has no date", bound.id));
        }
    }
    faults
}

/// Expressions compile, sources are dated, codes are known.
fn form(rules: &Rules, compiled: &Compiled) -> Vec<String> {
    let rule = &compiled.rule;
    let mut faults = Vec::new();
    for expression in std::iter::once(&rule.pattern).chain(&rule.except) {
        if let Err(error) = Regex::new(expression) {
            faults.push(format!("{}: the expression does not compile: {error}", rule.id));
        }
    }
    if !compiled.source.contains("20") {
        faults.push(format!("{}: its source has no date", rule.id));
    }
    let known = compiled.code.name().is_none_or(|name| rules.named.contains_key(name));
    if !known {
        faults.push(format!("{}: the code {} is not in codes.toml", rule.id, rule.code));
    }
    if let Some(other) = &rule.requires
        && rules.text_rule(other).is_none()
    {
        faults.push(format!("{}: requires {other}, which is no rule", rule.id));
    }
    if rule.literals.is_empty() || rule.examples.is_empty() {
        faults.push(format!("{}: needs a literal and an example", rule.id));
    }
    if rule.literals.iter().any(|literal| literal.len() < 3) {
        faults.push(format!("{}: a literal of fewer than three letters would hit every line", rule.id));
    }
    if !(0.0..=1.0).contains(&rule.confidence) {
        faults.push(format!("{}: confidence is between 0 and 1", rule.id));
    }
    faults
}

/// Its examples give its code through the whole observer; its counter-examples do not.
fn fixtures(rules: &'static Rules, compiled: &Compiled) -> Vec<String> {
    let rule = &compiled.rule;
    let mut faults = Vec::new();
    for example in &rule.examples {
        let found = observe(rules, example);
        let by_rule = |(_, id): &&(String, String)| *id == rule.id;
        if !found.iter().any(|(_, ids)| ids.split(' ').any(|id| id == rule.id)) && !found.iter().any(|f| by_rule(&f)) {
            faults.push(format!("{}: does not find its example {example:?}; found {found:?}", rule.id));
        }
        let others: Vec<_> =
            found.iter().filter(|(code, _)| *code != rule.code && !rule.beside.contains(code)).collect();
        if !others.is_empty() {
            faults.push(format!("{}: overlaps on its example {example:?}: {others:?}", rule.id));
        }
    }
    for counter in &rule.counter {
        let found = observe(rules, counter);
        if found.iter().any(|(code, _)| *code == rule.code) {
            faults.push(format!("{}: finds its counter-example {counter:?}", rule.id));
        }
    }
    faults
}

/// Codes and rules that found something in a text, by name.
fn observe(rules: &'static Rules, text: &str) -> Vec<(String, String)> {
    let mut observer = Observer::new(rules, "example");
    for line in text.lines() {
        observer.line(line);
    }
    let found = observer.finish().findings;
    found.iter().map(|finding| (finding.code.to_string(), finding.rules.join(" "))).collect()
}

/// Every named code has a rule or a parser, and every cross-reference leads somewhere.
fn codes(rules: &Rules) -> Vec<String> {
    let mut faults = Vec::new();
    // Found by a parser, reported by drivers as events, or seen in series.
    let parsed = ["user_code", "gpu_lost", "gpu_memory_uncorrected", "gpu_memory_corrected"];
    let signs: Vec<_> = Sign::ALL.into_iter().filter_map(Sign::code).collect();
    let unknown = signs.iter().filter_map(|code| code.name()).filter(|name| !rules.named.contains_key(*name));
    faults.extend(unknown.map(|name| format!("{name}: a sign of series, and no code")));
    for name in rules.named.keys() {
        let has_rule = rules.text.iter().any(|compiled| compiled.code.name() == Some(name));
        let is_sign = signs.iter().any(|code| code.name() == Some(name));
        if !has_rule && !is_sign && !parsed.contains(&name.as_str()) {
            faults.push(format!("{name}: no rule finds this code"));
        }
    }
    for when in &rules.whens {
        for code in when.root.iter().chain(&when.with).chain(&when.without) {
            let numbered = code.starts_with("xid_") || code.starts_with("sxid_");
            if !numbered && !code.ends_with('*') && !rules.named.contains_key(code) {
                faults.push(format!("{}: {code} is no code", when.id));
            }
        }
        for mark in &when.marks {
            let set = rules.text.iter().any(|compiled| compiled.rule.mark.as_ref() == Some(mark));
            if !set {
                faults.push(format!("{}: no rule sets the mark {mark}", when.id));
            }
        }
        if !when.source.contains("20") {
            faults.push(format!("{}: its source has no date", when.id));
        }
    }
    for compiled in &rules.text {
        let asked = |mark: &String| rules.whens.iter().any(|when| when.marks.contains(mark));
        if compiled.rule.mark.as_ref().is_some_and(|mark| !asked(mark)) {
            faults.push(format!("{}: nothing asks for its mark", compiled.id));
        }
        if compiled.rule.confidence < 0.4 && compiled.rule.unsure.is_none() {
            faults.push(format!("{}: does not say why it is so unsure", compiled.id));
        }
    }
    faults
}
