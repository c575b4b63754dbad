//! What a specification can say and this core cannot yet do: refused with the
//! field's name, never ignored. Each stands in `gateway/docs/gaps.md`.

use claw_proto::spec::{MarketUse, RuntimeKind, WorkloadSpec};
use claw_tools::refusal::{ErrorCode, Refusal};
use serde_json::Value;

/// All fields that would be ignored, or nothing.
pub(super) fn check(spec: &WorkloadSpec) -> Result<(), Refusal> {
    let mut faults: Vec<(&str, &str)> = Vec::new();
    let mut not = |path: &'static str, is: bool, why: &'static str| {
        if is {
            faults.push((path, why));
        }
    };
    not(
        "replicas",
        spec.replicas.is_some_and(|n| n != 1),
        "replicas come with deployments, which are not built; submit it several times",
    );
    not("autoscale", spec.autoscale.is_some(), "the autoscaler is not built");
    not("deadline", spec.deadline.is_some(), "the scheduler does not plan for deadlines yet");
    let on_host = runs_on_the_host(spec);
    not("volumes", on_host && !spec.volumes.is_empty(), "a host process sees the host's files; volumes need an image");
    not("market", spec.market.is_some_and(|m| m != MarketUse::Never), "the market is not built");
    not("budget", spec.budget.is_some(), "budgets come with the market, which is not built");
    not("secrets", on_host && !spec.secrets.is_empty(), "a host process has no memory file system for secret files");
    not("outputs", on_host && !spec.outputs.is_empty(), "outputs are collected from containers; they need an image");
    not("shm_gib", on_host && spec.shm_gib.is_some(), "a host process has no shared memory of its own");
    not("read_only_root", on_host && spec.read_only_root.is_some(), "a host process has no file system of its own");
    let Some((path, why)) = faults.first() else {
        return Ok(());
    };
    let got =
        serde_json::to_value(spec).ok().and_then(|v| lookup(&v, path)).map_or_else(String::new, |v| v.to_string());
    let evidence: Vec<Value> =
        faults.iter().map(|(p, w)| serde_json::json!({ "field": format!("spec.{p}"), "why": w })).collect();
    Err(Refusal::new(ErrorCode::NotBuilt, format!("{path}: {why}"))
        .with_field(format!("spec.{path}"), got)
        .with_evidence(Value::Array(evidence)))
}

/// Without an image and a model it can only be a host process, or be simulated when that is asked for.
fn runs_on_the_host(spec: &WorkloadSpec) -> bool {
    match spec.runtime {
        Some(RuntimeKind::Process) => true,
        Some(RuntimeKind::Docker | RuntimeKind::Sim) => false,
        None => spec.image.is_none() && spec.model.is_none(),
    }
}

fn lookup(value: &Value, path: &str) -> Option<Value> {
    path.split('.').try_fold(value, |v, part| v.get(part)).cloned()
}
