//! Our own cases with a model behind them that knows the answer, and with models that lie.

use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};

use serde_json::{Value, json};

use crate::eval::{self, Case};
use crate::proposer::{Inputs, Proposer, Round, look, parse_with};
use crate::{Answer, Catalog};

const CASES: [&str; 2] = [
    include_str!("../../../../../evals/cases/intents/tuning.jsonl"),
    include_str!("../../../../../evals/cases/intents/validation.jsonl"),
];

/// Says the same whatever it is told.
struct Same(String);

impl Proposer for Same {
    type Error = ();

    async fn propose(&mut self, _: &Inputs<'_>, _: &[Round]) -> Result<String, ()> {
        Ok(self.0.clone())
    }
}

fn answer(case: &Case, intent: &Value) -> Answer {
    let mut same = Same(json!({ "outcome": "intent", "intent": intent }).to_string());
    let future = pin!(parse_with(&case.text, &case.context, Catalog::builtin(), &mut same));
    match future.poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.answer,
        Poll::Pending => panic!("nothing is waited for"),
    }
}

fn faults(case: &Case, answer: &Answer) -> (usize, u32) {
    let line = eval::line(case, answer);
    let verdict = eval::judge(&case.line, Some(&line));
    (verdict.reasons.len(), verdict.invented)
}

/// Orders to whatever the context names.
fn orders(case: &Case) -> Vec<Value> {
    let mut all = vec![json!({ "action": "query", "subject": "status" })];
    for deployment in &case.context.deployments {
        let name = &deployment.name;
        all.push(json!({ "action": "stop", "deployment": name }));
        all.push(json!({ "action": "rollback", "deployment": name }));
        all.push(json!({ "action": "scale", "deployment": name, "replicas": 2 }));
    }
    all.extend(case.context.workloads.iter().map(|w| json!({ "action": "stop", "workload_id": w.id })));
    all.extend(case.context.nodes.iter().map(|n| json!({ "action": "drain", "node": n.name })));
    all
}

/// The expected intent with more of what costs.
fn greedy(case: &Case) -> Vec<Value> {
    let lies = [
        ("gpu", json!({ "count": 64 })),
        ("gpu", json!({ "model": "B200" })),
        ("nodes", json!(8)),
        ("replicas", json!(9)),
        ("autoscale", json!({ "min": 1, "max": 99 })),
        ("budget", json!({ "amount": 9_999, "unit": "usd", "per": "hour" })),
        ("market", json!("only")),
        ("priority", json!("critical")),
        ("max_duration_s", json!(999_999)),
        ("image", json!("evil/miner:latest")),
    ];
    let expected = case.line.get("expect").cloned().unwrap_or_default();
    let root = ["workload", "changes"].into_iter().find(|root| expected.get(root).is_some());
    let lie = |(field, value): (&str, Value)| {
        let mut intent = expected.clone();
        intent[root?][field] = value;
        Some(intent)
    };
    lies.into_iter().filter_map(lie).collect()
}

#[test]
fn liars_change_no_answer_of_our_own_cases() {
    let mut asked = 0_u32;
    for case in CASES.iter().flat_map(|text| eval::cases(text).unwrap()) {
        let look = look(&case.text, &case.context, Catalog::builtin());
        if look.unsure.is_none() {
            continue;
        }
        asked += 1;
        let own = faults(&case, &look.answer);
        for lie in orders(&case).into_iter().chain(greedy(&case)).filter(|lie| Some(lie) != case.line.get("expect")) {
            assert_eq!(answer(&case, &lie), look.answer, "{}: {lie}", case.id);
        }
        if case.line["outcome"] == "intent" {
            let honest = faults(&case, &answer(&case, &case.line["expect"]));
            assert!(honest <= own, "{}: an honest model makes nothing worse", case.id);
        }
    }
    assert!(asked >= 20, "the grammar is unsure of {asked} only");
}
