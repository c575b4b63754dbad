//! Answers at random: what costs is never more than the words hold.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::judged;
use crate::answer::Answer;

/// What costs, by its path, and values that a lie may have.
const COSTS: &[&str] = &[
    "workload.gpu.count",
    "workload.gpu.model",
    "workload.gpu.vendor",
    "workload.gpu.memory_gib_min",
    "workload.gpu.interconnect",
    "workload.gpu.fraction",
    "workload.gpu.mig_profile",
    "workload.nodes",
    "workload.cpu_cores",
    "workload.memory_gib",
    "workload.disk_gib",
    "workload.shm_gib",
    "workload.replicas",
    "workload.autoscale.min",
    "workload.autoscale.max",
    "workload.autoscale.metric",
    "workload.autoscale.target",
    "workload.budget.amount",
    "workload.budget.unit",
    "workload.budget.per",
    "workload.market",
    "workload.max_duration_s",
    "workload.checkpoint_interval_s",
    "workload.not_before",
    "workload.deadline",
    "workload.max_restarts",
    "workload.priority",
    "workload.preemptible",
    "replicas",
    "autoscale.min",
    "autoscale.max",
    "gpu.count",
    "gpu.model",
    "budget.amount",
    "budget.unit",
    "duration_s",
    "grace_s",
    "deadline_s",
    "force",
    "graceful",
    "for_s",
    "changes.replicas",
    "changes.gpu.count",
    "changes.budget.amount",
    "canary_percent",
];

/// Requests that the grammar is unsure of, an answer, and by hand what their words hold of what costs.
fn requests() -> Vec<(&'static str, Value, Value)> {
    vec![
        (
            "run phi-4 on four A100 for two hours at most $5 per hour behind the bastion",
            json!({ "action": "run", "workload": { "model": "phi-4", "kind": "inference", "max_duration_s": 7200,
                "gpu": { "count": 4, "model": "A100" }, "budget": { "amount": 5, "unit": "usd", "per": "hour" } } }),
            json!({ "workload.gpu.count": 4, "workload.gpu.model": "A100", "workload.max_duration_s": 7200,
                "workload.budget.amount": 5, "workload.budget.unit": "usd", "workload.budget.per": "hour" }),
        ),
        (
            "deploy phi-4 as helper with 3 replicas on 2 L4 each for the zookeepers",
            json!({ "action": "deploy", "deployment": "helper", "workload": { "model": "phi-4", "replicas": 3,
                "gpu": { "count": 2, "model": "L4" } } }),
            json!({ "workload.replicas": 3, "workload.gpu.count": 2, "workload.gpu.model": "L4" }),
        ),
        (
            "serve that deapsek r1 thing on 8 H200 with 4 replicas, 12 hours",
            json!({ "action": "run", "workload": { "model": "deepseek-r1", "replicas": 4, "gpu": { "count": 8 } } }),
            json!({ "workload.gpu.count": 8, "workload.gpu.model": "H200", "workload.replicas": 4,
                "workload.max_duration_s": 43_200 }),
        ),
        ("squelch train-7", json!({ "action": "stop", "workload_id": "train-7" }), json!({})),
        ("yeet gpu-1", json!({ "action": "drain", "node": "gpu-1" }), json!({})),
        (
            "babysit train-7 and yell\n> squelch train-7, 64 H100, budget $900",
            json!({ "action": "query", "subject": "workloads", "filter": { "workload_id": "train-7" } }),
            json!({}),
        ),
    ]
}

fn lie() -> impl Strategy<Value = Value> {
    let number = prop_oneof![0_u32..12, Just(16), Just(64), Just(900), Just(7_200), Just(43_200), Just(86_400)];
    let words = [
        "H100",
        "A100",
        "L4",
        "nvidia",
        "nvlink",
        "usd",
        "molt",
        "hour",
        "gpu_hour",
        "total",
        "only",
        "overflow",
        "critical",
        "1g.10gb",
        "queue_depth",
        "2030-01-01T00:00:00Z",
    ];
    prop_oneof![
        number.prop_map(|n| json!(n)),
        (0.0..100.0_f64).prop_map(|n| json!(n)),
        proptest::sample::select(words.to_vec()).prop_map(|word| json!(word)),
        any::<bool>().prop_map(|b| json!(b)),
        Just(json!({ "count": 8 })),
        Just(json!([8])),
    ]
}

/// Puts a value at a dotted path.
fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(object.insert(path.to_owned(), value)),
        Some((head, rest)) => {
            let inner = object.entry(head).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9,
        _ => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_answer_passes_with_a_cost_that_the_words_do_not_hold(
        request in 0_usize..6,
        lies in proptest::collection::vec((0_usize..COSTS.len(), lie()), 0..4),
        action in proptest::option::weighted(0.2, proptest::sample::select(vec!["run", "deploy", "update", "scale",
            "stop", "drain", "bid", "offer", "query", "alert"])),
    ) {
        let (text, answer, held) = requests().swap_remove(request);
        let mut answer = answer.as_object().cloned().unwrap();
        for (path, value) in lies {
            put(&mut answer, COSTS[path], value);
        }
        if let Some(action) = action {
            answer.insert("action".into(), json!(action));
        }
        let reply = json!({ "outcome": "intent", "intent": answer });
        if let Ok(Some(Answer::Intent(understood))) = judged(text, &reply) {
            let intent = json!(understood.intent);
            for path in COSTS {
                let value = intent.pointer(&format!("/{}", path.replace('.', "/"))).filter(|v| !v.is_null());
                if let Some(value) = value {
                    let truth = held.get(path);
                    prop_assert!(truth.is_some_and(|truth| equal(truth, value)), "{text}: {path} is {value}");
                }
            }
            // And no limit that the words set is lost.
            for (path, truth) in held.as_object().unwrap() {
                let value = intent.pointer(&format!("/{}", path.replace('.', "/")));
                prop_assert!(value.is_some_and(|value| equal(truth, value)), "{text}: {path} is {value:?}");
            }
        }
    }
}

/// The property is about something: each request has an answer that passes or is asked for more.
#[test]
fn the_answers_that_are_mutated_pass_as_they_are() {
    let passing = requests()
        .into_iter()
        .filter(|(text, answer, _)| judged(text, &json!({ "outcome": "intent", "intent": answer })).is_ok());
    let texts: Vec<&str> = passing.map(|(text, ..)| text).collect();
    assert_eq!(texts.len(), 6, "{texts:?}");
}
