//! The program as it is called: exit codes, and what goes to which stream.

mod llm;
mod peer;
mod up;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use claw_proto::ids::{ApprovalId, NodeId, PlanId};
use peer::{KEY, Peer};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

/// `claw` with nothing of this machine's environment.
fn command(words: &[&str], url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claw"));
    command.args(words).env_clear().env("HOME", "/nonexistent").env("CLAW_GATEWAY", url).env("CLAW_API_KEY", KEY);
    command
}

/// Runs `claw` against a gateway that is not there.
fn claw(words: &[&str], input: &str) -> Output {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/mcp", closed.local_addr().expect("its address"));
    drop(closed);
    claw_at(&url, words, input)
}

fn claw_at(url: &str, words: &[&str], input: &str) -> Output {
    let mut child = command(words, url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("claw starts");
    let mut stdin = child.stdin.take().expect("its standard input");
    stdin.write_all(input.as_bytes()).expect("it reads or ends");
    drop(stdin);
    child.wait_with_output().expect("claw ends")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn slips_are_1_and_say_what_is_meant() {
    let output = claw(&["node", "drian", "gpu-1"], "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output), "");
    assert!(err(&output).contains("'drain'"), "{}", err(&output));
    let output = claw(&["call", "node_get", "-"], "{");
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("not valid JSON"), "{}", err(&output));
}

#[test]
fn a_slip_inside_a_specification_is_refused_before_anything_is_sent() {
    let output = claw(&["workload", "run", "--spec", "-", "--json"], r#"{"gpu":{"cuont":1}}"#);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(2), ""));
    let refusal: Value = serde_json::from_str(&out(&output)).expect("the refusal is the answer");
    assert_eq!((&refusal["field"], &refusal["did_you_mean"]), (&json!("spec.gpu.cuont"), &json!("count")));
}

#[test]
fn nobody_there_is_4_and_says_what_to_do() {
    for words in [&["node", "list"][..], &["call", "node_list"], &["node", "list", "--json"]] {
        let output = claw(words, "");
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(4), ""), "{words:?}");
        let lines: Vec<String> = err(&output).lines().map(str::to_owned).collect();
        assert!(lines.len() == 2 && lines[0].contains("does not answer"), "{lines:?}");
    }
}

#[test]
fn what_needs_no_gateway_works_without_one() {
    let tools = claw(&["tools", "--json"], "");
    let tools: Value = serde_json::from_str(&out(&tools)).expect("JSON");
    let names = tools.as_array().expect("a list").iter().map(|tool| tool["tool"].as_str());
    let known = claw_tools::registry::OPERATIONS.iter().map(|op| Some(op.name));
    assert!(names.eq(known), "every operation, in order");
    assert!(out(&claw(&["--help"], "")).contains("Exit codes:"));
    for shell in ["bash", "zsh", "fish"] {
        let script = claw(&["completion", shell], "");
        assert!(script.status.success() && out(&script).contains("drain"), "{shell}");
    }
    let doctor = claw(&["doctor", "--json"], "");
    assert_eq!(doctor.status.code(), Some(5), "no gateway is a failure");
    let checks: Vec<Value> = serde_json::from_str(&out(&doctor)).expect("JSON");
    for check in &checks {
        assert_eq!(check["status"] != "ok", check["mend"] != "", "what is wrong can be mended: {check}");
    }
}

#[test]
fn the_bridge_is_there_before_the_gateway_and_says_so() {
    let asked = [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": "node_list", "arguments": {} } }),
    ];
    let input = asked.map(|message| message.to_string()).join("\n") + "\n";
    let output = claw(&["mcp"], &input);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("only messages")).collect();
    assert_eq!(answers[0]["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(answers[1]["result"]["isError"], true);
    assert!(answers[1].to_string().contains("claw doctor"), "{text}");
}

const HASH: &str = "5f0c2a9b7d31e8aa";

/// A gateway whose one node is removed only by an approved plan.
fn guarded(tool: &str, args: &Value) -> Result<Value, Value> {
    let plan = json!({
        "plan_id": PlanId::from_bits(3), "tool": "node_remove", "diff": [{ "subject": "node gpu-1", "field": "enrolled", "from": "yes", "to": "" }],
        "diff_hash": HASH, "evicts": [], "tier": "3", "undo": "none", "expires_at": "2026-03-01T12:10:00Z",
        "approval_id": ApprovalId::from_bits(4), "summary": "Removes gpu-1",
    });
    let outcome = |effect: &str, summary: &str| json!({ "effect": effect, "summary": summary, "simulated": false, "node_id": NodeId::from_bits(1) });
    match (tool, args["mode"].as_str()) {
        ("cluster_status", _) => Ok(json!({ "summary": "all is well" })),
        ("node_remove", Some("plan")) => {
            let mut planned = outcome("planned", "Would remove gpu-1");
            planned["plan"] = plan;
            Ok(planned)
        }
        ("node_remove", _) => Err(
            json!({ "code": "PLAN_REQUIRED", "message": "removing a node is tier 3", "retryable": false, "next": [{ "tool": "node_remove", "args": { "mode": "plan" } }] }),
        ),
        ("approval_list", _) => Ok(json!({ "approvals": [{
            "approval_id": ApprovalId::from_bits(4), "plan_id": PlanId::from_bits(3), "diff_hash": HASH, "summary": "Removes gpu-1", "diff": [], "tier": "3",
            "requested_by": "root", "at": "2026-03-01T12:00:00Z", "expires_at": "2026-03-01T12:10:00Z", "state": "waiting",
        }], "total": 1 })),
        ("plan_get", _) => Ok(
            json!({ "plan": plan, "principal": "root", "at": "2026-03-01T12:00:00Z", "current": true, "drift": [], "status": "open", "next": [] }),
        ),
        ("approval_decide", _) => Ok(outcome("accepted", "Approved")),
        ("plan_apply", _) => Ok(outcome("accepted", "Removed gpu-1")),
        (other, _) => Err(json!({ "code": "UNKNOWN_TOOL", "message": other, "retryable": false })),
    }
}

fn approved_and_applied(reason: &str) -> [String; 2] {
    [
        format!(
            "approval_decide {}",
            json!({ "approval_id": ApprovalId::from_bits(4), "decision": "approve", "diff_hash": HASH, "reason": reason })
        ),
        format!("plan_apply {}", json!({ "plan_id": PlanId::from_bits(3), "reason": reason })),
    ]
}

#[test]
fn answers_refusals_and_keys_over_the_wire() {
    let peer = Peer::start(guarded);
    let output = claw_at(&peer.url, &["cluster", "status"], "");
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), "all is well\n"));
    let output = claw_at(&peer.url, &["cluster", "status", "--json"], "");
    assert_eq!(out(&output), "{\"summary\":\"all is well\"}\n", "exactly what was answered");
    let output = claw_at(&peer.url, &["cluster", "status", "--key", "wrong"], "");
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(3), ""));
    assert!(err(&output).contains("does not take this key"), "{}", err(&output));
    let output = claw_at(&peer.url, &["call", "no_such", "{}"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).starts_with("refused UNKNOWN_TOOL: no_such"), "{}", err(&output));
}

#[test]
fn where_nobody_can_be_asked_the_plan_is_shown_and_the_way_on() {
    let peer = Peer::start(guarded);
    let output = claw_at(&peer.url, &["node", "remove", "gpu-1", "--reason", "old"], "");
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""));
    let told = err(&output);
    let line = format!(
        "  claw approval decide {} --decision approve --diff-hash 5f0c2a9b && claw plan apply {}\n",
        ApprovalId::from_bits(4),
        PlanId::from_bits(3)
    );
    assert!(told.contains(&line) && told.contains("enrolled") && told.contains("PLAN_REQUIRED"), "{told}");
    assert!(told.contains("  claw node remove gpu-1 --mode plan --reason old\n"), "its own arguments: {told}");
    let calls = [
        r#"node_remove {"node":"gpu-1","reason":"old"}"#,
        r#"node_remove {"mode":"plan","node":"gpu-1","reason":"old"}"#,
    ];
    assert_eq!(peer.calls(), calls);
}

#[test]
fn a_hash_given_with_the_command_confirms_exactly_that_plan() {
    let peer = Peer::start(guarded);
    let planned = claw_at(&peer.url, &["node", "remove", "gpu-1", "--mode", "plan"], "");
    assert!(out(&planned).contains("  claw node remove gpu-1 --confirm 5f0c2a9b\n"), "{}", out(&planned));
    peer.calls();
    let output = claw_at(&peer.url, &["node", "remove", "gpu-1", "--confirm", "5f0c2a9b", "--reason", "old"], "");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).starts_with("accepted: Removed gpu-1\n"), "{}", out(&output));
    assert_eq!(peer.calls()[2..], approved_and_applied("old"));
    let output = claw_at(&peer.url, &["node", "remove", "gpu-1", "--confirm", "00000000"], "");
    assert_eq!(output.status.code(), Some(2));
    let calls = peer.calls();
    assert!(
        !calls.iter().any(|call| call.starts_with("plan_apply") || call.starts_with("approval_decide")),
        "{calls:?}"
    );
}

/// Runs `claw` on a terminal of its own, types `answer` when it is asked, and returns what it
/// showed there.
fn on_a_terminal(peer: &Peer, words: &[&str], answer: &str) -> (Option<i32>, String, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other side");
    let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("text");
    let side = || File::options().read(true).write(true).open(&name).map(OwnedFd::from).expect("its other side");
    let mut child = command(words, &peer.url)
        .env("NO_COLOR", "1")
        .stdin(side())
        .stderr(side())
        .stdout(Stdio::piped())
        .spawn()
        .expect("claw starts");
    let mut terminal = File::from(master);
    let mut shown = Vec::new();
    let mut chunk = [0; 4096];
    let mut answered = false;
    // Reading fails when the last user of the other side is gone.
    while let Ok(n) = terminal.read(&mut chunk) {
        shown.extend_from_slice(&chunk[..n]);
        if !answered && String::from_utf8_lossy(&shown).contains("of the hash (5f0c2a9b): ") {
            answered = true;
            terminal.write_all(format!("{answer}\n").as_bytes()).expect("it is read");
        }
        if n == 0 {
            break;
        }
    }
    let mut said = String::new();
    child.stdout.take().expect("its output").read_to_string(&mut said).expect("text");
    let code = child.wait().expect("claw ends").code();
    (code, said, String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_person_confirms_by_typing_the_hash() {
    let peer = Peer::start(guarded);
    let words = ["node", "remove", "gpu-1", "--reason", "old"];
    let (code, said, shown) = on_a_terminal(&peer, &words, "5f0c2a9b");
    assert_eq!(code, Some(0), "{shown}");
    assert!(said.starts_with("accepted: Removed gpu-1\n") && shown.contains("tier 3"), "{said}{shown}");
    assert_eq!(peer.calls()[2..], approved_and_applied("old"));
    for wrong in ["5f0c2a9c", "5f0c", ""] {
        let (code, said, shown) = on_a_terminal(&peer, &words, wrong);
        assert_eq!((code, said.as_str()), (Some(2), ""), "{shown}");
        assert!(shown.contains("nothing was changed"), "{shown}");
        assert_eq!(peer.calls().len(), 2, "asked, planned, and no more");
    }
}

#[test]
fn the_bridge_hands_everything_on_as_it_is() {
    let peer = Peer::start(guarded);
    let call = |id: u32, name: &str, args: Value| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": name, "arguments": args } });
    let asked = [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }),
        call(3, "cluster_status", json!({})),
        call(4, "node_remove", json!({ "node": "gpu-1" })),
    ];
    let input = asked.map(|message| message.to_string()).join("\n") + "\n";
    let output = claw_at(&peer.url, &["mcp"], &input);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let mut answers: Vec<Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).expect("only messages")).collect();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0]["result"]["instructions"], "Call cluster_status first.");
    assert_eq!(answers[1]["result"]["tools"][0]["name"], "cluster_status");
    assert_eq!(answers[2]["result"]["structuredContent"], json!({ "summary": "all is well" }));
    assert_eq!(
        (&answers[3]["result"]["isError"], &answers[3]["result"]["structuredContent"]["code"]),
        (&json!(true), &json!("PLAN_REQUIRED"))
    );
}

#[test]
fn watching_looks_again() {
    let peer = Peer::start(guarded);
    let mut child = command(&["cluster", "status", "--watch", "1", "--json"], &peer.url)
        .stdout(Stdio::piped())
        .spawn()
        .expect("claw starts");
    let stdout = BufReader::new(child.stdout.take().expect("its output"));
    let lines: Vec<String> = stdout.lines().take(2).map(|line| line.expect("text")).collect();
    child.kill().expect("it runs still");
    child.wait().expect("claw ends");
    assert_eq!(lines, [r#"{"summary":"all is well"}"#; 2]);
    assert!(peer.n_calls() >= 2);
}

/// A queue that knows what is offered says so, in what it was asked and in what came of it; and an argument that would
/// do nothing is refused.
#[test]
fn a_queue_is_replayed_with_what_it_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    let (nodes, pods) = (folder.path().join("nodes.csv"), folder.path().join("pods.csv"));
    let machines = ["m0", "m1", "m2", "m3"].map(|name| format!("{name},16000,64000,8,T4")).join("\n");
    let wants = |n: u32| format!("p{n:02},{},1,1,1000,", if n.is_multiple_of(2) { 1_000 } else { 6_000 });
    let asked = (0..64).map(wants).collect::<Vec<_>>().join("\n");
    std::fs::write(&nodes, format!("sn,cpu_milli,memory_mib,gpu,model\n{machines}")).expect("machines");
    std::fs::write(&pods, format!("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n{asked}")).expect("requests");
    let (nodes, pods) = (nodes.display().to_string(), pods.display().to_string());
    let bench = |more: &[&str]| {
        let words = ["bench", "sched", "--nodes", &nodes, "--pods", &pods, "--seeds", "2", "--json"];
        claw(&words.into_iter().chain(more.iter().copied()).collect::<Vec<_>>(), "")
    };
    let line = |more: &[&str]| -> Value {
        let output = bench(more);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("one line of JSON")
    };
    let allocated = |line: &Value| line["allocation_percent"]["mean"].as_f64().expect("a mean");
    let known = line(&["--arrival", "2", "--window", "8"]);
    let unknown = line(&["--arrival", "2", "--window", "8", "--offered", "1"]);
    assert_eq!((&known["offered"], &unknown["offered"]), (&json!(2.0), &json!(1.0)));
    assert!(known["turned_away_early"] != "nobody" && unknown["turned_away_early"] == "nobody", "{known} {unknown}");
    assert!(allocated(&known) > allocated(&unknown), "{known} {unknown}");
    let core = line(&["--arrival", "2", "--window", "8", "--core"]);
    assert_eq!((&core["window"], core.get("served_first")), (&json!(8), None), "it is told no worths: {core}");
    let larger = line(&["--arrival", "1", "--times", "3"]);
    assert_eq!((&larger["machines"], &larger["refused_though_feasible"]), (&json!(12), &json!(0)));
    for more in [
        &["--offered", "1.3"][..],
        &["--window", "8", "--offered", "0"],
        &["--window", "8", "--core", "--offered", "2"],
    ] {
        let refused = bench(more);
        assert_eq!(refused.status.code(), Some(1), "{more:?}: {refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--offered is for --window"), "{refused:?}");
    }
}
