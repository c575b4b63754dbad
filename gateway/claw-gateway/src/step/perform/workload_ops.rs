//! Running and stopping.

use std::sync::Arc;

use claw_proto::ids::WorkloadId;
use claw_proto::limits::GRACE_S_MAX;
use claw_proto::message::StatusCause;
use claw_proto::spec::{OnPartition, WorkloadSpec};
use claw_proto::validation::ValidSpec;
use claw_tools::def::UndoClass;
use claw_tools::outcome::{Assumption, EffectKind, Observed, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal, SuggestedCall};
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use serde_json::json;

use super::Performed;
use crate::Cluster;
use crate::event::{Event, Goal, Inverse};
use crate::step::follow::end;
use crate::step::honored;
use crate::step::work::Work;
use crate::tenancy;
use crate::workload::Desired;

/// Of a name that is made, what it runs takes so much at most.
const NAME_BASE_BYTES: usize = 40;

pub(super) fn run(
    work: &mut Work<'_>,
    spec: &WorkloadSpec,
    env_handle: Option<&str>,
    assumptions: &[Assumption],
) -> Result<Performed, Refusal> {
    let mut assumptions = assumptions.to_vec();
    let mut spec = spec.clone();
    tenancy::assign(work.state, work.caller, &mut spec, &mut assumptions)?;
    let valid = checked(work.state, spec, &mut assumptions)?;
    super::secret_ops::usable(work, valid.spec())?;
    let workload_id = WorkloadId::next(&mut work.ids);
    let name = name_of(work, &valid, workload_id)?;
    let shown = valid.shared();
    work.emit(Event::WorkloadSubmitted {
        workload_id,
        name: name.clone(),
        spec: Arc::new(valid),
        env_handle: env_handle.map(str::to_owned),
    });
    let summary = ["run ", &crate::query::what(&shown), " as ", &name].concat();
    let mut outcome = Outcome::new(EffectKind::Accepted, summary);
    outcome.workload_id = Some(workload_id);
    outcome.spec = Some(shown);
    outcome.assumptions = assumptions;
    Ok(Performed {
        outcome,
        inverse: Inverse::StopWorkload { workload_id },
        undo: UndoClass::Compensating,
        not_restored: "what it did while it ran",
        goal: Goal::WorkloadRuns { workload_id },
        undoes: None,
    })
}

/// The specification with its defaults, if it keeps every rule and all of it can be honored.
pub(in crate::step) fn checked(
    cluster: &Cluster,
    mut spec: WorkloadSpec,
    assumptions: &mut Vec<Assumption>,
) -> Result<ValidSpec, Refusal> {
    if spec.on_partition.is_none() {
        let default = OnPartition::StopAfter(cluster.policy.default_stop_after_s);
        spec.on_partition = Some(default);
        assumptions.push(Assumption {
            field: "on_partition".into(),
            value: serde_json::to_value(default).unwrap_or_default(),
            why: "default: a cut-off node stops it after this time, and only then may it start elsewhere".into(),
        });
    }
    let valid = self::valid(spec)?;
    honored::check(valid.spec())?;
    lease_lasts(cluster, valid.on_partition())?;
    tenancy::known(cluster, valid.spec().tenant.as_deref(), tenancy::whole_amounts(&valid))?;
    Ok(valid)
}

/// The specification, or all its faults.
pub(super) fn valid(spec: WorkloadSpec) -> Result<ValidSpec, Refusal> {
    ValidSpec::parse(spec).map_err(|error| spec_invalid(&error))
}

/// A lease that is shorter than what heartbeats renew would end without a partition.
fn lease_lasts(cluster: &Cluster, on_partition: OnPartition) -> Result<(), Refusal> {
    let least_s = cluster.policy.stop_after_s_min();
    match on_partition {
        OnPartition::StopAfter(seconds) if seconds < least_s => Err(Refusal::new(
            ErrorCode::SpecInvalid,
            format!("stop_after of {seconds} s would run out between the heartbeats of a connected node; give it {least_s} s or more"),
        )
        .with_field("spec.on_partition", seconds.to_string())
        .with_allowed([format!("stop_after of {least_s} s or more, or keep")])),
        OnPartition::StopAfter(_) | OnPartition::Keep => Ok(()),
    }
}

fn spec_invalid(error: &claw_proto::validation::ValidationError) -> Refusal {
    let evidence: Vec<_> = error
        .faults
        .iter()
        .map(|f| json!({ "field": format!("spec.{}", f.path), "code": f.code, "message": f.message, "got": f.got, "allowed": f.allowed }))
        .collect();
    let mut refusal =
        Refusal::new(ErrorCode::SpecInvalid, format!("the specification has {} fault(s): {error}", error.faults.len()))
            .with_evidence(json!(evidence));
    if let Some(first) = error.faults.first() {
        refusal = refusal
            .with_field(format!("spec.{}", first.path), first.got.clone().unwrap_or_default())
            .with_allowed(first.allowed.clone());
    }
    refusal
}

/// The given name, if it is free; else one made of what it runs.
fn name_of(work: &Work<'_>, spec: &ValidSpec, id: WorkloadId) -> Result<String, Refusal> {
    if let Some(name) = &spec.spec().name {
        if let Some(other) = work.state.workloads.by_name(name) {
            return Err(Refusal::new(
                ErrorCode::InvalidState,
                format!("the name {name:?} is taken by {} ({})", other.workload_id, other.state),
            )
            .with_field("spec.name", name.clone())
            .with_next("workload_get", json!({ "workload": other.workload_id })));
        }
        return Ok(name.clone());
    }
    let base = spec
        .spec()
        .model
        .as_deref()
        .or(spec.spec().command.as_ref().and_then(|c| c.first()).map(String::as_str))
        .unwrap_or("workload");
    let base: String = base
        .rsplit('/')
        .next()
        .unwrap_or("workload")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let base = base.trim_matches('-');
    let base = if base.is_empty() { "workload" } else { &base[..base.len().min(NAME_BASE_BYTES)] };
    let base = base.trim_matches('-');
    // The id's last characters are random. Six tell apart as many as people look
    // at; where two of a whole fleet are the same, more are taken.
    let id = id.to_string();
    let named = |n: usize| [base, "-", &id[id.len() - n..]].concat();
    let free = |name: &String| work.state.workloads.by_name(name).is_none();
    Ok((6..20).map(named).find(free).unwrap_or_else(|| named(20)))
}

pub(super) fn stop(work: &mut Work<'_>, workload: &str, grace_s: Option<u32>) -> Result<Performed, Refusal> {
    let entry = work.state.resolve_workload(workload)?.clone();
    let id = entry.workload_id;
    let done = |outcome: Outcome, goal: Goal| Performed {
        outcome,
        inverse: Inverse::Impossible {
            why: "a stopped program cannot be continued; run it again with workload_run".into(),
        },
        undo: UndoClass::None,
        not_restored: "its state",
        goal,
        undoes: None,
    };
    let unchanged = |summary: String| {
        let mut outcome = Outcome::new(EffectKind::NoChange, summary);
        outcome.workload_id = Some(id);
        outcome.observed = Some(Observed { state: entry.state.to_string(), at: entry.since });
        outcome.simulated = entry.simulated();
        outcome
    };
    if entry.state.is_final() {
        return Ok(done(
            unchanged(format!("{} has ended already ({}, {})", entry.name, entry.state, entry.reason)),
            Goal::Immediate,
        ));
    }
    if entry.desired == Desired::Stop {
        return Ok(done(unchanged(format!("{} is being stopped already", entry.name)), Goal::Immediate));
    }
    let grace_s = grace_s.unwrap_or_else(|| entry.spec.grace_s()).min(GRACE_S_MAX);
    stop_workload(work, id, grace_s, WorkloadReason::StopRequested, false);
    let mut outcome =
        Outcome::new(EffectKind::Accepted, format!("stop {} (TERM, {grace_s} s grace, KILL)", entry.name));
    outcome.workload_id = Some(id);
    outcome.simulated = entry.simulated();
    let goal = if entry.live().is_some() {
        outcome.next.push(SuggestedCall::new("workload_wait", json!({ "workload": id })));
        Goal::WorkloadEnds { workload_id: id }
    } else {
        outcome.observed = Some(Observed { state: WorkloadState::Stopped.to_string(), at: work.now() });
        Goal::Immediate
    };
    Ok(done(outcome, goal))
}

/// Ends a workload, or moves it away: a waiting one at once, a live one by its node.
pub(in crate::step) fn stop_workload(
    work: &mut Work<'_>,
    id: WorkloadId,
    grace_s: u32,
    why: WorkloadReason,
    requeue: bool,
) {
    let Some(entry) = work.state.workloads.get(id).cloned() else {
        return;
    };
    if entry.live().is_none() {
        if !requeue {
            end(work, &entry, WorkloadState::Stopped, why);
        }
        return;
    }
    work.emit(Event::WorkloadStopping { workload_id: id, why, grace_s, requeue, regroup: false, notice: false });
    work.order_stop(id, grace_s, StatusCause::StopRequested);
}
