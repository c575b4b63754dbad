use std::sync::Arc;

use claw_proto::ids::{ApprovalId, Attempt, FaultId, GpuUuid, NodeId, OperationId, PlanId, WorkloadId};
use claw_proto::message::LogStream;
use claw_proto::spec::{GpuRequest, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_tools::access::Tier;
use claw_tools::def::UndoClass;
use claw_tools::outcome::{Assumption, Change, Credential, EffectKind, Observed, Outcome, PlanView};
use claw_tools::refusal::{ErrorCode, Fault, Refusal, SuggestedCall};
use claw_tools::registry::find;
use claw_tools::workloads::{
    ChosenPlace, LogGapView, LogLineView, PlacementReason, PlacementReport, RejectedNodes, RunnerUp, WorkloadLogs,
    WorkloadState,
};
use expect_test::{ExpectFile, expect_file};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Style, answer, error};
use crate::error::CliError;

fn at() -> Timestamp {
    Timestamp::from_unix_ms(1_772_366_400_123)
}

fn wl(n: u128) -> WorkloadId {
    WorkloadId::from_bits(n)
}

/// What was asked for.
fn asked() -> serde_json::Map<String, Value> {
    json!({ "limit": 2 }).as_object().cloned().unwrap_or_default()
}

/// The text of an answer, as a terminal without colors shows it.
fn check(tool: &str, content: &impl Serialize, golden: ExpectFile) {
    let content = serde_json::to_value(content).expect("an answer is JSON");
    golden.assert_eq(&answer(find(tool), &asked(), &content, Style::PLAIN));
}

fn plan_view() -> PlanView {
    let change = |n: u128, field: &str, from: &str, to: &str| Change {
        subject: format!("workload {}", wl(n)),
        field: field.into(),
        from: from.into(),
        to: to.into(),
    };
    PlanView {
        plan_id: PlanId::from_bits(3),
        tool: "node_drain".into(),
        diff: vec![
            change(1, "node", "gpu-1", "gpu-2"),
            change(2, "state", "running", "pending"),
            Change {
                subject: "node gpu-1".into(),
                field: "taint".into(),
                from: String::new(),
                to: "x\u{1b}[31m".into(),
            },
        ],
        diff_hash: "5f0c2a9b7d31e8aa".into(),
        evicts: vec![wl(2)],
        tier: Tier::Disruptive,
        undo: UndoClass::Compensating,
        not_restored: "work that was moved away is not moved back".into(),
        expires_at: at().plus_ms(600_000),
        approval_id: Some(ApprovalId::from_bits(4)),
        summary: "Drains gpu-1".into(),
    }
}

/// What was understood comes first, in the one sentence that a person approves.
#[test]
fn a_request_that_was_understood() {
    let content = json!({
        "outcome": "intent",
        "intent": { "action": "drain", "node": "gpu-1", "force": false },
        "said_back": "Drain node \"gpu-1\", without force.",
        "provenance": [{ "field": "node", "source": "text", "words": "gpu-1" }],
        "next": [{ "tool": "node_drain", "args": { "node": "gpu-1", "mode": "plan" } }],
    });
    check("intent_parse", &content, expect_file!["../golden/intent_parse.txt"]);
}

#[test]
fn an_accepted_run() {
    let mut outcome = Outcome::new(EffectKind::Accepted, "Runs llama-70b on dgx-1 with 4×H100");
    outcome.operation_id = Some(OperationId::from_bits(5));
    outcome.workload_id = Some(wl(1));
    outcome.observed = Some(Observed { state: "running".into(), at: at() });
    outcome.simulated = true;
    outcome.spec = Some(Arc::new(WorkloadSpec {
        model: Some("llama-3.3-70b-instruct".into()),
        gpu: Some(GpuRequest { count: Some(4), model: Some("H100".into()), ..GpuRequest::default() }),
        ..WorkloadSpec::default()
    }));
    outcome.assumptions =
        vec![Assumption { field: "quantization".into(), value: json!("fp8"), why: "fits 4×80 GiB".into() }];
    outcome.placement = Some(std::sync::Arc::new(PlacementReport {
        summary: "1 of 4 nodes fits".into(),
        considered: 4,
        chosen: Some(ChosenPlace {
            node_id: NodeId::from_bits(1),
            node: "dgx-1".into(),
            gpus: vec![GpuUuid("GPU-0".into()), GpuUuid("GPU-1".into())],
            nvlink_island: Some(0),
            others: Vec::new(),
            why: "least room left over".into(),
        }),
        rejected: vec![RejectedNodes {
            reason: PlacementReason::GpuBusy,
            count: 2,
            nodes: ["dgx-2".to_owned(), "dgx-3".to_owned()].into(),
            detail: "wants 4, has 3 free".into(),
        }],
        runner_up: Some(RunnerUp { node: "dgx-4".into(), why_not: "breaks an NVLink island".into() }),
        waiting_helps: true,
    }));
    outcome.next = vec![
        SuggestedCall::new("workload_wait", json!({ "workload": wl(1), "wait_s": 60 })),
        SuggestedCall::new("workload_logs", json!({ "workload": wl(1) })),
    ];
    check("workload_run", &outcome, expect_file!["../golden/outcome_run.txt"]);
}

#[test]
fn a_plan() {
    let mut outcome = Outcome::new(EffectKind::Planned, "Would drain gpu-1: 1 workload moves, 1 waits");
    outcome.node_id = Some(NodeId::from_bits(1));
    outcome.plan = Some(plan_view());
    outcome.next = vec![SuggestedCall::new("plan_apply", json!({ "plan_id": PlanId::from_bits(3) }))];
    check("node_drain", &outcome, expect_file!["../golden/outcome_plan.txt"]);
}

#[test]
fn a_credential() {
    let mut outcome = Outcome::new(EffectKind::Accepted, "Made a token for gpu-9");
    outcome.credential = Some(Credential {
        id: "tok_1".into(),
        secret: Some("clawjoin.v1.abc".into()),
        usage: "clawnode join URL --token clawjoin.v1.abc".into(),
    });
    check("node_token_create", &outcome, expect_file!["../golden/outcome_credential.txt"]);
}

#[test]
fn lists_and_details() {
    let node = |name: &str, link: &str, free: u32| {
        json!({ "node_id": NodeId::from_bits(u128::from(free)), "name": name, "link": link, "link_since": at(), "schedulable": "active", "gpus": "8×H100",
                "gpus_total": 8, "gpus_free": free, "cpu_cores_free": 63.5, "memory_gib_free": 900.0, "workloads": 2, "simulated": false,
                "labels": { "zone": "a", "evil": "\u{1b}]0;x\u{7}" }, "revision": 12 })
    };
    let nodes = json!({ "nodes": [node("dgx-1", "online", 4), node("dgx-2", "unreachable", 8)], "total": 27, "truncated": true, "next_cursor": "c1", "revision": 12 });
    check("node_list", &nodes, expect_file!["../golden/node_list.txt"]);
    let some = json!({ "nodes": [{ "name": "dgx-1", "labels": { "zone": "a" } }], "total": 1, "truncated": false, "revision": 12 });
    check("node_list", &some, expect_file!["../golden/node_list_fields.txt"]);
    let empty = json!({ "nodes": [], "total": 0, "truncated": false, "revision": 12 });
    check("node_list", &empty, expect_file!["../golden/node_list_empty.txt"]);
    let event = json!({ "seq": 7, "at": at(), "kind": "NodeDrained", "subjects": [], "text": "drained", "principal": "alice", "reason": "fan" });
    let events = json!({ "events": [event], "truncated": true, "last_seq": 7 });
    check("events_list", &events, expect_file!["../golden/events_list.txt"]);
    let status = json!({ "summary": "1 of 3 nodes does not answer", "revision": 7, "at": at(), "journal_writable": true,
        "nodes": { "total": 3, "online": 2, "unreachable": 1, "unschedulable": 0 }, "gpus": { "total": 24, "free": 12, "held": 12, "unhealthy": 0 },
        "workloads": { "pending": 0, "starting": 0, "running": 3, "stopping": 0, "completed": 1, "failed": 0, "stopped": 0, "lost": 0 },
        "simulated": true, "problems": [{ "code": "NODE_UNREACHABLE", "message": "dgx-2 is not heard from", "workloads": [wl(1)], "next": [SuggestedCall::new("node_get", json!({ "node": "dgx-2" }))] }],
        "next": [SuggestedCall::new("node_get", json!({ "node": "dgx-2" }))] });
    check("cluster_status", &status, expect_file!["../golden/cluster_status.txt"]);
    let row = json!({ "workload_id": wl(1), "name": "train", "state": "pending", "reason": "no_room", "since": at(), "what": "image a:1", "gpus": 0, "attempt": 0, "simulated": false, "revision": 3 });
    let explain = json!({ "summary": "Waits: all H100 are held", "workload": row, "queue_position": 1,
        "placement": { "summary": "no node has room", "considered": 2, "rejected": [{ "reason": "gpu_busy", "count": 2, "nodes": ["dgx-1", "dgx-2"], "detail": "wants 8, has 4 free" }], "waiting_helps": true },
        "blockers": [{ "workload_id": wl(2), "name": "other", "owner": "alice", "gpus": 4, "node": "dgx-1" }],
        "would_start_if": [{ "change": "with 4 GPUs", "call": SuggestedCall::new("workload_run", json!({ "spec": { "gpu": { "count": 4 } }, "mode": "plan" })), "verified": true }],
        "history": ["submitted", "no room"], "next": [] });
    check("workload_explain", &explain, expect_file!["../golden/workload_explain.txt"]);
}

#[test]
fn log_lines() {
    let line = |stream, sequence, text: &str| LogLineView { stream, sequence, at: at(), text: text.into() };
    let logs = WorkloadLogs {
        workload_id: wl(1),
        attempt: Attempt(2),
        untrusted: true,
        lines: vec![
            line(LogStream::Stdout, 1, "step 1 loss 2.31"),
            line(LogStream::Stderr, 1, "warning: \u{1b}[2J cleared?"),
            line(LogStream::System, 1, "limits not enforced: cgroup is read-only"),
        ],
        truncated: true,
        gaps: vec![LogGapView {
            stream: LogStream::Stdout,
            first_sequence: 1,
            n_lost: 40,
            why: "the buffer was full".into(),
        }],
        simulated: false,
        state: WorkloadState::Running,
    };
    check("workload_logs", &logs, expect_file!["../golden/workload_logs.txt"]);
}

#[test]
fn refusals_faults_and_errors() {
    let refusal = Refusal::new(ErrorCode::NotFound, "there is no node \"gpu-7\"")
        .with_field("node", "gpu-7")
        .with_allowed(["gpu-07".to_owned(), "gpu-08".to_owned()])
        .with_nearest(Some("gpu-07".to_owned()))
        .with_evidence(json!({ "nodes": 2 }))
        .with_next("node_get", json!({ "node": "gpu-07" }));
    let busy = Refusal::new(ErrorCode::JournalUnavailable, "the journal cannot be written")
        .with_evidence(json!(["no space left on device", "reads go on"]));
    let plan_first = Refusal::new(ErrorCode::PlanRequired, "this is tier 3").with_evidence(json!({
        "diff": [{ "subject": "node vm", "field": "member", "from": "yes", "to": "" }], "evicts": [], "tier": "3",
    }));
    let url = || "http://127.0.0.1:7700/mcp".to_owned();
    let refused = |refusal: Refusal| CliError::Refused { refusal: Box::new(refusal), content: Value::Null };
    let fault =
        Fault { fault_id: FaultId::from_bits(9), message: "the journal's thread ended".into(), retryable: true };
    let errors = [
        refused(refusal),
        refused(busy),
        refused(plan_first),
        CliError::Fault { fault, content: Value::Null },
        CliError::Unauthenticated { url: url() },
        CliError::Unreachable { url: url(), why: "connection refused".into() },
        CliError::ProgramMissing { name: "clawnode" },
        CliError::HashDiffers { tool: "node_remove".into(), wanted: "12345678".into(), now: "9abcdef0".into() },
    ];
    let text: Vec<String> =
        errors.iter().map(|e| format!("exit {}\n{}", e.exit().code(), error(e, Style::PLAIN))).collect();
    expect_file!["../golden/errors.txt"].assert_eq(&text.join("\n"));
}

#[test]
fn colors_are_only_added() {
    let content =
        json!({ "nodes": [{ "name": "a", "link": "online" }], "total": 1, "truncated": false, "revision": 1 });
    let plain = answer(find("node_list"), &asked(), &content, Style::PLAIN);
    let colored = answer(find("node_list"), &asked(), &content, Style { color: true, width: Some(80) });
    assert!(colored.contains("\u{1b}["), "{colored:?}");
    let mut bare = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        bare.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    bare.push_str(rest);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&bare), words(&plain));
}
