//! What an order is about, what is no order now, and further orders.

use super::*;

fn context(value: Value) -> Context {
    serde_json::from_value(value).unwrap()
}

/// Each text is an intent whose field is this; none = it must be a question on the field.
fn hold(cases: &[(&str, &str, Option<&str>)], context: &Context) {
    let mut wrong = Vec::new();
    for (text, field, wanted) in cases {
        let got = answer(text, context);
        let right = match wanted {
            Some(value) => at(&got, &format!("intent.{field}")) == *value,
            None => got["questions"][0]["field"] == *field,
        };
        if !right {
            wrong.push(format!("{text}: wanted {field} {wanted:?}, got {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_thing_in_the_orders_own_clause_is_meant() {
    let cases = [
        ("keep job x-1 running, stop x-2", "workload_id", Some("x-2")),
        ("keep x-1 and stop x-2", "workload_id", Some("x-2")),
        ("job x-1 is fine. stop job x-2", "workload_id", Some("x-2")),
        ("stop x-2. job x-1 is fine", "workload_id", Some("x-2")),
        ("stop x-2, job x-1 is fine", "workload_id", Some("x-2")),
        ("stop x-2 and keep x-1", "workload_id", Some("x-2")),
        ("job a-7 looks good; cancel job b-3", "workload_id", Some("b-3")),
        ("node gpu-1 is fine. drain node gpu-2", "node", Some("gpu-2")),
        ("do not touch gpu-1. drain gpu-2", "node", Some("gpu-2")),
        ("leave gpu-1 alone and drain gpu-2", "node", Some("gpu-2")),
        ("drain gpu-2 but leave gpu-1 alone", "node", Some("gpu-2")),
        ("gpu-4 was repaired. cordon gpu-5", "node", Some("gpu-5")),
        ("drain gpu-2, fan-3 is broken", "node", Some("gpu-2")),
        ("deployment api is fine. roll back deployment chat to revision 3", "deployment", Some("chat")),
        ("api-1 is fine. scale chat-2 to 3", "deployment", Some("chat-2")),
        ("deployment api is fine. scale chat to 3", "deployment", Some("chat")),
        ("cancel job train-7 on node gpu-3", "workload_id", Some("train-7")),
        ("job x-1 hangs. kill it", "workload_id", Some("x-1")),
        ("stop job x-1 — no, x-2", "workload_id", Some("x-2")),
        ("stop job x-1 no wait x-2", "workload_id", Some("x-2")),
        ("stop job x-1, I mean x-2", "workload_id", Some("x-2")),
        ("drain node gpu-1, sorry, gpu-2", "node", Some("gpu-2")),
        ("stop train-4 on node a-7", "workload_id", Some("train-4")),
        ("stop train-4 on node a-7, sorry, train-5", "workload_id", Some("train-5")),
    ];
    hold(&cases, &Context::default());
    let known = context(json!({
        "workloads": [{ "id": "wl-1", "name": "trainer" }, { "id": "wl-2", "name": "other" }],
        "deployments": [{ "name": "chat" }, { "name": "search" }]
    }));
    hold(
        &[
            ("other is fine. stop trainer", "workload_id", Some("wl-1")),
            ("stop job trainer (wl-1)", "workload_id", Some("wl-1")),
            ("stop trainer and other", "workload_id", None),
            ("chat is fine, scale search to 3", "deployment", Some("search")),
            ("roll back chat and search", "deployment", None),
        ],
        &known,
    );
}

#[test]
fn several_things_are_a_question() {
    let cases = [
        ("stop job x-1. stop job x-2", "workload_id", None),
        ("stop job x-1; stop job x-2", "workload_id", None),
        ("stop job x-1\nstop job x-2", "workload_id", None),
        ("stop job alpha and job beta", "workload_id", None),
        ("stop alpha and beta", "workload_id", None),
        ("stop job \"a-1\" and job \"b-2\"", "workload_id", None),
        ("stop job x-1 and deployment chat", "workload_id", None),
        ("stop a-1 b-2", "workload_id", None),
        ("stop jobs x-1 through x-9", "workload_id", None),
        ("stop jobs x-1 to x-9", "workload_id", None),
        ("stop job x-1 (and x-2)", "workload_id", None),
        ("job x-1 and job x-2 hang, kill them", "workload_id", None),
        ("stop deployments chat and search", "deployment", None),
        ("drain gpu-1. drain gpu-2", "node", None),
        ("drain node alpha and node beta", "node", None),
        ("undrain gpu-1, gpu-2 and gpu-3", "node", None),
        ("roll back deployment api; roll back deployment chat", "deployment", None),
        ("scale deployment chat to 2 and deployment search to 3", "deployment", None),
        ("scale chat and search to 3", "deployment", None),
        ("update deployment chat and deployment search to image nginx:2", "deployment", None),
    ];
    hold(&cases, &Context::default());
    let got = answer("stop job x-1 and x-2", &Context::default());
    assert_eq!(got["questions"][0]["options"], json!(["x-1", "x-2"]), "{got}");
}

#[test]
fn an_exception_is_never_the_target() {
    let cases = [
        ("drain all nodes except gpu-1", "node", None),
        ("drain everything but gpu-1", "node", None),
        ("stop all jobs except x-1", "workload_id", None),
        ("stop every job other than x-1", "workload_id", None),
        ("delete all deployments except chat", "deployment", None),
        ("leere alle nodes außer gpu-1", "node", None),
        ("stop all jobs on gpu-1", "workload_id", None),
        ("stop the job on gpu-1", "workload_id", None),
        ("stop the job on node gpu-1", "workload_id", None),
    ];
    hold(&cases, &Context::default());
}

#[test]
fn what_is_no_order_now_is_asked() {
    let cases = [
        "stoppe nicht job x-1",
        "n'arrête pas le job x-1",
        "不要停止任务 x-1",
        "don't stop job x-1",
        "should I drain gpu-1?",
        "should we roll back deployment chat",
        "what happens if I stop job x-1?",
        "how do I drain gpu-1?",
        "how can we stop job x-1",
        "is it safe to drain gpu-1?",
        "soll ich gpu-1 leeren?",
        "drain gpu-1 unless job x-1 runs there",
        "drain gpu-1 when job x-1 is done",
        "stop job x-1 if it hangs",
        "if it hangs, stop job x-1",
        "roll back deployment chat if errors go up",
        "revert the stop of job x-1",
    ];
    hold(&cases.map(|text| (text, "action", None)), &Context::default());
    for text in ["leere gpu-1 nicht", "ne vide pas gpu-1", "no pares el job x-1"] {
        let got = answer(text, &Context::default());
        let action = at(&got, "intent.action");
        assert!(action.is_null() || action == "query", "{text}: {got}");
    }
}

#[test]
fn a_wish_and_a_limit_are_orders() {
    let cases = [
        ("can you drain gpu-1?", "node", Some("gpu-1")),
        ("could you please drain gpu-1 now?", "node", Some("gpu-1")),
        ("drain gpu-1, force it if needed", "node", Some("gpu-1")),
        ("stop job x-1 if you can", "workload_id", Some("x-1")),
        ("don't stop job x-1, stop job x-2", "workload_id", Some("x-2")),
        ("undo the drain of gpu-1", "node", Some("gpu-1")),
        ("undo the last drain on gpu-1", "node", Some("gpu-1")),
        ("undo the last update of chat-1", "deployment", Some("chat-1")),
    ];
    hold(&cases, &Context::default());
    assert_eq!(at(&answer("undo the drain of gpu-1", &Context::default()), "intent.action"), "undrain");
}

/// A question on the action, or an assumption on it that names the order that is left out.
fn tells_of(got: &Value, further: &str) -> bool {
    let said = |why: &Value| why.as_str().is_some_and(|why| why.contains(further));
    let assumed = got["assumptions"].as_array().into_iter().flatten();
    got["questions"][0]["field"] == "action" || assumed.into_iter().any(|a| a["field"] == "action" && said(&a["why"]))
}

#[test]
fn no_further_order_is_dropped_in_silence() {
    let first = ["run phi-4 on 1 H100", "deploy phi-4 on 1 H100", "drain gpu-1", "scale deployment chat to 3"];
    let further = ["stop the rest", "stop everything", "stop the trainer task", "kill all other jobs", "stop the chat"];
    let mut silent = Vec::new();
    for first in first {
        for further in further {
            for joint in [" and ", ", then ", ". "] {
                let text = format!("{first}{joint}{further}");
                let got = answer(&text, &Context::default());
                if !tells_of(&got, further) {
                    silent.push(format!("{text}: {got}"));
                }
            }
        }
    }
    for (text, further) in [
        ("stop the chat and run phi-4 on 1 H100", "stop the chat"),
        ("drain gpu-1, pause the audit task", "pause the audit task"),
        ("drain gpu-1 and delete everything else", "delete everything else"),
    ] {
        let got = answer(text, &Context::default());
        if !tells_of(&got, further) {
            silent.push(format!("{text}: {got}"));
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn a_limit_of_what_is_started_is_no_further_order() {
    for text in [
        "run phi-4 on 1 H100 and stop it after 6h",
        "run phi-4 on 1 H100 and kill the job after 6h",
        "run phi-4 on 1 H100 and then stop the job after 6h",
    ] {
        let got = answer(text, &Context::default());
        assert_eq!(at(&got, "intent.workload.max_duration_s"), 21_600, "{text}: {got}");
        assert!(!tells_of(&got, "is a further order"), "{text}: {got}");
    }
}

#[test]
fn an_action_is_told_by_its_own_words() {
    for (text, word) in [
        ("update the image of deployment ws to acme/ws:3.1", "update"),
        ("for ws: change the image of deployment ws to acme/ws:3.1", "change"),
        ("set the image of deployment ws to acme/ws:3.1 and WORKERS=8", "set"),
        ("hey folks, long update image of deployment ws to acme/ws:3.1 and set WORKERS=8very 20 minutes!!", "set"),
        ("the image of deployment ws, update it to acme/ws:3.1", "update"),
    ] {
        let got = answer(text, &Context::default());
        let told = got["provenance"].as_array().into_iter().flatten().find(|p| p["field"] == "action");
        let told = told.map(|p| p["source"].to_string());
        assert!(told.as_ref().is_some_and(|t| t.contains(word)), "{text}: {told:?} in {got}");
    }
}
