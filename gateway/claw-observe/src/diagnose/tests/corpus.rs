//! The shared corpus of real and composed cases, where it is at hand.

use std::collections::BTreeSet;

use serde_json::Value;

use super::tables::shared;
use crate::diagnose::cases;
use crate::diagnose::policy::Policy;

/// Shares of cases that were answered as expected, in percent, and forbidden actions.
#[derive(Debug, Default)]
pub(super) struct Score {
    pub(super) cases: usize,
    pub(super) root: usize,
    class: usize,
    preferred: usize,
    pub(super) forbidden: usize,
    pub(super) missed: Vec<String>,
}

impl Score {
    fn percent(&self, hits: usize) -> f64 {
        100.0 * hits as f64 / self.cases.max(1) as f64
    }
}

/// Doing nothing has one meaning.
fn act(action: &str) -> &str {
    if action == "none" { "ignore" } else { action }
}

/// The lines of one case.
pub(super) fn lines_of(json: &str) -> Vec<String> {
    let case: Value = serde_json::from_str(json).unwrap();
    case["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Scores as the corpus's own scorer does; `change` may rewrite a case's lines first, by its id, or leave it out.
pub(super) fn score(corpus: &str, change: impl Fn(&str, Vec<String>) -> Option<Vec<String>>) -> Score {
    let mut score = Score::default();
    for json in corpus.lines().filter(|line| !line.trim().is_empty()) {
        let case: Value = serde_json::from_str(json).unwrap();
        let lines = case["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect();
        let id = case["id"].as_str().unwrap().to_owned();
        let Some(lines) = change(&id, lines) else { continue };
        let answer = cases::judge(id.clone(), lines.iter().map(String::as_str), Policy::ours());
        let expect = &case["expect"];
        let wanted = expect["action_preferred"].as_str().or(expect["action"].as_str()).unwrap_or_default();
        let hardware = BTreeSet::from(["reset_gpu", "drain_and_reset", "reboot_node", "service"]);
        score.cases += 1;
        score.root += usize::from(expect["root"] == answer.root);
        score.class += usize::from(expect["class"] == answer.class);
        score.preferred += usize::from(act(wanted) == act(answer.action));
        let forbidden = expect["hardware_action_forbidden"] == true && hardware.contains(answer.action);
        score.forbidden += usize::from(forbidden);
        if expect["root"] != answer.root || forbidden {
            score.missed.push(format!("{id}: {} for {}", answer.root, expect["root"]));
        }
    }
    score
}

#[test]
fn public_cases_are_answered() {
    let Some(corpus) = shared("public.jsonl") else { return };
    let score = score(&corpus, |_, lines| Some(lines));
    assert_eq!(score.forbidden, 0, "{:?}", score.missed);
    assert!(score.percent(score.root) >= 95.0, "{score:?}");
    assert!(score.percent(score.class) >= 95.0, "{score:?}");
    assert!(score.percent(score.preferred) >= 88.0, "{score:?}");
}

#[test]
fn composed_cases_are_answered() {
    let Some(corpus) = shared("synthetic.jsonl") else { return };
    let score = score(&corpus, |_, lines| Some(lines));
    assert_eq!(score.forbidden, 0, "{:?}", score.missed);
    assert!(score.percent(score.root) >= 98.0, "{score:?}");
}
