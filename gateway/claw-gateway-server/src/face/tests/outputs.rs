//! What operations answer: every output fits its schema, every retry has one effect.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use claw_tools::registry::{OPERATIONS, find};
use claw_tools::schema::Checker;
use serde_json::{Value, json};

use super::desk::{Desk, desk};

/// Calls operations and checks what they answer.
struct Checked {
    desk: Desk,
    called: BTreeSet<String>,
}

impl Checked {
    async fn call(&mut self, tool: &str, args: Value) -> Value {
        let body = self.desk.ok(tool, &args).await;
        let op = find(tool).unwrap();
        assert_eq!(Checker::new((op.output_schema)()).check(tool, &body), Ok(()), "{tool}: {body}");
        assert!(!body.to_string().contains("hunter2"), "{tool} shows an environment value");
        self.called.insert(tool.to_owned());
        body
    }

    async fn reservations_and_moves(&mut self) {
        self.call("defrag_plan", json!({ "mode": "plan" })).await;
        self.desk.join("gpu-05").await;
        let week = json!({ "name": "week", "tenant": "lab", "nodes": 1, "duration_s": 60 });
        self.planned("reservation_create", week).await;
        let kept = self.call("reservation_list", json!({ "tenant": "lab" })).await;
        assert_eq!(kept["reservations"][0]["nodes"], json!(["gpu-05"]), "{kept}");
        self.planned("reservation_delete", json!({ "name": "week" })).await;
    }

    /// Reads that make something of words, log lines and wishes; `w` runs on `gpu-01`.
    async fn words_logs_and_what_if(&mut self) {
        let parsed = self.call("intent_parse", json!({ "text": "Run Llama 70B on 4 H100s" })).await;
        let made = (&parsed["outcome"], &parsed["next"][0]["tool"]);
        assert_eq!(made, (&json!("intent"), &json!("workload_run")), "{parsed}");
        for text in ["run llama on 2 H100", "🙂"] {
            self.call("intent_parse", json!({ "text": text })).await;
        }
        let spec = json!({ "command": ["true"], "gpu": { "count": 8 }, "nodes": 2 });
        self.call("capacity_find", json!({ "spec": spec })).await;
        let (add, add_nodes) = (json!([{ "spec": spec, "run_s": 60 }]), json!([{ "like": "gpu-01", "count": 1 }]));
        self.call("schedule_simulate", json!({ "add": add, "add_nodes": add_nodes })).await;
        for args in [json!({ "workload": "w" }), json!({ "node": "gpu-01" }), json!({})] {
            assert_eq!(self.call("diagnose", args).await["untrusted"], json!(true));
        }
        let text =
            "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.\nNVRM: Xid (PCI:0000:3b:00): 45, pid=1";
        let told = self.call("diagnose", json!({ "text": text, "policy": "gpud" })).await;
        let first = &told["targets"][0]["diagnosis"];
        assert_eq!((&first["root"], &first["action"]), (&json!("xid_79"), &json!("reboot_node")), "{told}");
    }

    /// Plan, approve, apply.
    async fn planned(&mut self, tool: &str, mut args: Value) -> Value {
        args["mode"] = json!("plan");
        let plan = self.call(tool, args).await["plan"].clone();
        let approval =
            json!({ "approval_id": plan["approval_id"], "decision": "approve", "diff_hash": plan["diff_hash"] });
        self.call("approval_list", json!({})).await;
        self.call("approval_decide", approval).await;
        assert_eq!(self.call("plan_get", json!({ "plan_id": plan["plan_id"] })).await["status"], "approved");
        self.call("plan_apply", json!({ "plan_id": plan["plan_id"] })).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_all_operations_are_what_their_schema_says() {
    let mut c = Checked { desk: desk().await, called: BTreeSet::new() };
    c.desk.join("gpu-01").await;
    c.call("node_token_create", json!({ "name": "gpu-02", "labels": { "zone": "a" } })).await;
    let spec = json!({ "name": "w", "command": ["true"], "env": { "TOKEN": "hunter2" }, "gpu": { "count": 2 } });
    let run = c.call("workload_run", json!({ "spec": spec, "reason": "a test" })).await;
    assert_eq!(run["placement"]["chosen"]["node"], "gpu-01");
    let words = c.call("workload_run", json!({ "request": "Run Llama 3.1 8B on 1 H100", "mode": "plan" })).await;
    assert_eq!((&words["effect"], &words["simulated"]), (&json!("planned"), &json!(true)), "{words}");
    let name = json!({ "workload": "w" });
    for tool in ["workload_get", "workload_explain", "workload_logs"] {
        c.call(tool, name.clone()).await;
    }
    c.words_logs_and_what_if().await;
    c.call("workload_wait", json!({ "workload": "w", "states": ["placed"], "wait_s": 0 })).await;
    for tool in [
        "cluster_status",
        "node_list",
        "gpu_list",
        "workload_list",
        "queue_list",
        "events_list",
        "operation_list",
        "fragmentation_report",
    ] {
        c.call(tool, json!({})).await;
    }
    let operation = json!({ "operation_id": run["operation_id"] });
    c.call("operation_get", operation.clone()).await;
    c.call("operation_wait", json!({ "operation_id": run["operation_id"], "wait_s": 0 })).await;
    c.call("operation_cancel", operation).await;
    for tool in ["node_cordon", "node_uncordon", "node_drain", "node_undrain", "node_get"] {
        c.call(tool, json!({ "node": "gpu-01" })).await;
    }
    let label = c.call("node_label", json!({ "node": "gpu-01", "set": { "zone": "a" } })).await;
    c.call("undo", json!({ "operation_id": label["operation_id"] })).await;
    c.call("node_config_set", json!({ "node": "gpu-01", "metrics_interval_ms": 1_000 })).await;
    c.call("workload_run", json!({ "spec": { "name": "w2", "command": ["true"] } })).await;
    c.call("workload_stop", json!({ "workload": "w2", "wait_s": 1 })).await;
    c.call("workload_run", json!({ "spec": { "name": "w3", "command": ["true"], "gates": ["data"] } })).await;
    c.call("workload_hold", json!({ "workload": "w3" })).await;
    c.call("workload_release", json!({ "workload": "w3" })).await;
    let key = c.planned("api_key_create", json!({ "principal": "bot", "role": "viewer" })).await;
    c.call("api_key_list", json!({ "all": true })).await;
    c.planned("api_key_revoke", json!({ "key_id": key["credential"]["id"] })).await;
    c.planned("secret_set", json!({ "handle": "hf/token", "value": "hunter2", "used_by": ["bot"] })).await;
    assert_eq!(c.call("secret_list", json!({})).await["secrets"][0]["version"], 1);
    c.planned("secret_delete", json!({ "handle": "hf/token" })).await;
    c.planned("quota_set", json!({ "tenant": "lab", "most": { "gpus": 4 }, "members": ["bot"] })).await;
    let quotas = c.call("quota_get", json!({})).await;
    assert_eq!((&quotas["tenants"][0]["tenant"], &quotas["fleet"]["gpus"]), (&json!("lab"), &json!(8)), "{quotas}");
    c.reservations_and_moves().await;
    c.planned("quota_delete", json!({ "tenant": "lab" })).await;
    let spec = json!({ "name": "c", "image": "registry.example/app:1", "runtime": "docker", "outputs": ["/out"] });
    c.call("workload_run", json!({ "spec": spec })).await;
    c.desk.join_with_container("gpu-04", "c").await;
    assert_eq!(c.call("workload_copy", json!({ "workload": "c" })).await["declared"], json!(["/out"]));
    let exec = c.planned("workload_exec", json!({ "workload": "c", "command": ["true"] })).await;
    let of_exec = c.call("operation_get", json!({ "operation_id": exec["operation_id"] })).await;
    assert_eq!((&of_exec["state"], &of_exec["exec"]["ended"]), (&json!("pending"), &json!(false)), "{of_exec}");
    // Irreversible, and nobody else is there to approve it: shown, not done.
    c.desk.join("gpu-03").await;
    c.call("node_drain", json!({ "node": "gpu-03" })).await;
    c.call("node_remove", json!({ "node": "gpu-03", "mode": "plan" })).await;
    c.call("ca_rotate", json!({ "mode": "plan" })).await;
    c.planned("node_revoke", json!({ "node": "gpu-03" })).await;
    let all: BTreeSet<String> = OPERATIONS.iter().map(|op| op.name.to_owned()).collect();
    assert_eq!(c.called, all);
    c.desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_has_one_effect_whatever_the_fleet_looks_like_by_then() {
    let desk = desk().await;
    let run = |args: Value| {
        let mut args = args;
        args["request_id"] = json!("mine");
        args
    };
    let words = run(json!({ "request": "Run Llama 3.1 8B on 1 H100" }));
    let first = desk.ok("workload_run", &words).await;
    desk.join("gpu-01").await;
    let mut again = words.clone();
    again["mode"] = json!("apply");
    again["reason"] = json!("the answer was lost");
    assert_eq!(
        desk.ok("workload_run", &again).await,
        first,
        "the default mode may be said, a reason is no other intention"
    );
    for other in [
        json!({ "request": "Run Llama 3.1 8B on 2 H100" }),
        json!({ "request": "?" }),
        json!({ "spec": { "command": ["true"] } }),
    ] {
        let (status, body) = desk.op(Some(&desk.admin), "workload_run", &run(other)).await;
        assert_eq!((status, body["code"].as_str()), (StatusCode::CONFLICT, Some("IDEMPOTENCY_CONFLICT")), "{body}");
    }
    assert_eq!(desk.ok("workload_list", &json!({})).await["total"], 1);
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_stands_nowhere_else() {
    let desk = desk().await;
    let args = json!({ "principal": "bot", "role": "viewer", "mode": "plan" });
    let planned = desk.ok("api_key_create", &args).await;
    assert_eq!(planned["credential"]["secret"], Value::Null);
    assert_eq!(planned["credential"]["usage"], "the secret is made and shown when the plan is applied");
    let plan = &planned["plan"];
    let approval = json!({ "approval_id": plan["approval_id"], "decision": "approve", "diff_hash": plan["diff_hash"] });
    desk.ok("approval_decide", &approval).await;
    let apply = json!({ "plan_id": plan["plan_id"], "request_id": "once" });
    let secret = desk.ok("plan_apply", &apply).await["credential"]["secret"].as_str().unwrap().to_owned();
    let (status, _) = desk.op(Some(&secret), "cluster_status", &json!({})).await;
    assert_eq!(status, StatusCode::OK, "the key works");
    let again = desk.ok("plan_apply", &apply).await;
    assert_eq!(again["credential"]["secret"], Value::Null);
    assert!(again["credential"]["usage"].as_str().unwrap().contains("shown once"), "{again}");
    let tail = &secret[secret.len() - 20..];
    for (seq, record) in desk.ops.control.events(0, 1_000).await.unwrap() {
        let text = String::from_utf8(record.to_json()).unwrap();
        assert!(!text.contains(tail), "event {seq} holds the secret");
    }
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_paged_without_a_gap_and_filtered() {
    let desk = desk().await;
    for n in 0..30 {
        desk.ok("workload_run", &json!({ "spec": { "name": format!("w-{n}"), "command": ["true"] } })).await;
    }
    let newest = desk.ops.control.snapshot().seq;
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = desk.ok("events_list", &json!({ "after": after, "limit": 7 })).await;
        seen.extend(page["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()));
        after = page["last_seq"].as_u64().unwrap();
        if page["truncated"] == false {
            break;
        }
    }
    assert_eq!(seen, (1..=newest).collect::<Vec<_>>());
    let last = desk.ok("events_list", &json!({ "limit": 3 })).await;
    let seqs: Vec<u64> = last["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!((seqs, &last["truncated"]), (vec![newest - 2, newest - 1, newest], &json!(true)));
    let id = desk.ok("workload_get", &json!({ "workload": "w-3" })).await["workload"]["workload_id"].clone();
    let of_one = desk.ok("events_list", &json!({ "subject": id, "kinds": ["WorkloadSubmitted"] })).await;
    assert_eq!((of_one["events"].as_array().unwrap().len(), &of_one["truncated"]), (1, &json!(false)), "{of_one}");
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_a_large_fleet_stay_small() {
    let desk = desk().await;
    for n in 0..12 {
        desk.join(&format!("gpu-{n:02}")).await;
    }
    let label = "é".repeat(200);
    for n in 0..12 {
        let set: serde_json::Map<String, Value> = (0..10).map(|i| (format!("k{i}"), json!(label))).collect();
        desk.ok("node_label", &json!({ "node": format!("gpu-{n:02}"), "set": set })).await;
    }
    let (mut names, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut args = json!({ "limit": 100 });
        if !cursor.is_null() {
            args["cursor"] = cursor;
        }
        let page = desk.ok("node_list", &args).await;
        assert!(page.to_string().len() <= 20_000, "{} bytes", page.to_string().len());
        names.extend(page["nodes"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()));
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            assert_eq!(page["truncated"], false);
            break;
        }
        assert_eq!(page["truncated"], true);
    }
    assert_eq!(names.len(), 12, "{names:?}");
    desk.task.stop().await;
}
