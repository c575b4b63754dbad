use claw_tools::registry::find;
use serde_json::{Value, json};

use super::exit_of;
use crate::exit::Exit;

fn check(tool: &str, args: Value, content: Value, exit: Exit) {
    let args = args.as_object().cloned().expect("arguments are an object");
    let op = find(tool).expect("an operation");
    assert_eq!(exit_of(op, &args, &content), exit, "{tool} {content}");
}

#[test]
fn a_workload_that_failed_or_is_not_there_is_not_reached() {
    let wait = |reached: bool, state: &str| json!({ "reached": reached, "workload": { "state": state } });
    check("workload_wait", json!({}), wait(true, "completed"), Exit::Ok);
    check("workload_wait", json!({}), wait(true, "stopped"), Exit::Ok);
    check("workload_wait", json!({}), wait(true, "failed"), Exit::NotReached);
    check("workload_wait", json!({}), wait(true, "lost"), Exit::NotReached);
    check("workload_wait", json!({}), wait(false, "running"), Exit::NotReached);
    check("workload_wait", json!({ "states": ["failed"] }), wait(true, "failed"), Exit::Ok);
    check("workload_wait", json!({ "states": ["running"] }), wait(true, "failed"), Exit::NotReached);
}

#[test]
fn an_operation_that_failed_or_is_not_seen_is_not_reached() {
    let operation = |reached: bool, state: &str| json!({ "reached": reached, "operation": { "state": state } });
    check("operation_wait", json!({}), operation(true, "succeeded"), Exit::Ok);
    check("operation_wait", json!({}), operation(true, "failed"), Exit::NotReached);
    check("operation_wait", json!({}), operation(false, "pending"), Exit::NotReached);

    let outcome = |effect: &str| json!({ "effect": effect, "summary": "", "simulated": false });
    let seen = json!({ "effect": "accepted", "summary": "", "simulated": false, "observed": { "state": "drained", "at": "2026-03-01T12:00:00Z" } });
    check("node_drain", json!({}), outcome("accepted"), Exit::Ok);
    check("node_drain", json!({ "wait_s": 9 }), outcome("accepted"), Exit::NotReached);
    check("node_drain", json!({ "wait_s": 9 }), seen, Exit::Ok);
    check("node_drain", json!({ "wait_s": 9 }), outcome("no_change"), Exit::Ok);
    check("node_drain", json!({}), outcome("planned"), Exit::Ok);
    check("node_drain", json!({}), outcome("refused"), Exit::Refused);
    check("node_drain", json!({}), json!({ "other": 1 }), Exit::Fault);
    check("node_list", json!({}), json!({ "nodes": [] }), Exit::Ok);
}
