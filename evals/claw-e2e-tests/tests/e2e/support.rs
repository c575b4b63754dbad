//! What all tests share: a bounded fleet, specifications, and the judge's view.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use claw_e2e_tests::fleet::Fleet;
use claw_e2e_tests::oracle::{self, Span};
use claw_e2e_tests::session::Session;
use claw_e2e_tests::wait::poll_until;
use claw_proto::ids::WorkloadId;
use clawnode::runtime::execution_log::ExecutionEntry;
use serde_json::{Value, json};
use tokio::process::Command;

/// How long one thing may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a story on a fleet; a failure or a hang shows what every process said last.
pub(crate) async fn on_fleet(
    deadline_s: u64,
    settings: &[&str],
    story: impl AsyncFnOnce(&mut Fleet) -> Result<()>,
) -> Result<()> {
    let mut fleet = Fleet::start(settings).await?;
    let told = tokio::time::timeout(Duration::from_secs(deadline_s), story(&mut fleet)).await;
    let result = told.map_err(|_| anyhow!("not over after {deadline_s} s")).and_then(|result| result);
    if let Err(error) = result {
        return Err(error.context(fleet.last_words()));
    }
    Ok(())
}

/// A shell script as a host process, small enough that many fit on one machine.
pub(crate) fn script(name: &str, script: &str) -> Value {
    json!({ "name": name, "command": ["sh", "-c", script], "runtime": "process", "cpu_cores": 0.05, "memory_gib": 0.05, "disk_gib": 0.01 })
}

/// `workload_run` of a specification under a key of its own.
pub(crate) fn run_of(spec: Value) -> Value {
    let key = format!("key-{}", spec["name"].as_str().unwrap_or("nameless"));
    json!({ "spec": spec, "request_id": key })
}

/// The text at a JSON pointer, or nothing.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What all nodes say that they executed, in order of nodes.
pub(crate) fn executions(fleet: &Fleet) -> Result<Vec<ExecutionEntry>> {
    let mut entries = Vec::new();
    for node in &fleet.nodes {
        entries.extend(node.executions().with_context(|| node.name.clone())?);
    }
    Ok(entries)
}

/// What ran, as spans. The logs of two nodes cannot be read at one instant, so
/// what looks broken is read again: in files that only grow a fault stays.
pub(crate) fn judged(fleet: &Fleet) -> Result<std::collections::BTreeMap<WorkloadId, Vec<Span>>> {
    let spans = oracle::spans(&executions(fleet)?)?;
    if oracle::never_two(&spans).is_ok() {
        return Ok(spans);
    }
    let spans = oracle::spans(&executions(fleet)?)?;
    oracle::never_two(&spans)?;
    Ok(spans)
}

/// The executions of one workload.
pub(crate) fn spans_of(fleet: &Fleet, detail: &Value) -> Result<Vec<Span>> {
    let id: WorkloadId = text(detail, "/workload/workload_id").parse().context("workload_id")?;
    Ok(judged(fleet)?.remove(&id).unwrap_or_default())
}

/// A file's text; nothing while it is not there.
pub(crate) fn contents(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until a file that somebody appends to has grown by so many lines.
pub(crate) async fn until_grown(path: &std::path::Path, lines: usize) -> Result<()> {
    let from = contents(path).lines().count();
    poll_until(&format!("{} grows", path.display()), PATIENCE, || async {
        let now = contents(path).lines().count();
        if now >= from + lines { Ok(Some(())) } else { Err(anyhow!("{now} lines, {from} before")) }
    })
    .await
}

/// The number of workloads that carry exactly this name.
pub(crate) async fn copies(session: &Session, name: &str) -> Result<usize> {
    let list = session.call("workload_list", json!({ "filter": name, "fields": ["name"], "limit": 100 })).await?;
    ensure!(list["truncated"] == false, "too many workloads to count: {list}");
    Ok(list["workloads"].as_array().into_iter().flatten().filter(|row| row["name"] == name).count())
}

/// Words for whoever reads the output of a test.
#[expect(clippy::print_stderr, reason = "seeds and skipped tests have to be seen")]
pub(crate) fn say(words: &str) {
    eprintln!("{words}");
}

/// What is skipped elsewhere has to be there.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Runs a foreign program to its end.
pub(crate) async fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_mins(3), command.output()).await;
    output.with_context(|| format!("it hangs: {command:?}"))?.with_context(|| format!("{command:?}"))
}

/// Everything that a program said.
pub(crate) fn words(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A second admin, a person: whoever asks for tier 3 does not approve it.
pub(crate) async fn second_admin(fleet: &Fleet) -> Result<Session> {
    let args = json!({ "principal": "second", "role": "admin", "kind": "person" });
    let (_, made) = fleet.admin.plan_and_apply("api_key_create", args, &fleet.admin).await?;
    Ok(Session::new(&fleet.gateway.mcp_url, made["credential"]["secret"].as_str().context("no secret")?))
}
