//! The end of a round: everything is healed, time passes, and what the gateway
//! says is compared with what really ran.

use claw_gateway::Cluster;
use claw_gateway::scheduler::{Decision, decide_for};
use claw_gateway::workload::{AttemptEntry, WorkloadEntry};
use claw_proto::message::StatusCause;
use claw_proto::spec::OnPartition;
use claw_tools::workloads::{WorkloadReason as R, WorkloadState as S};

use crate::agenda::Ctx;
use crate::execution::{ExecutionLog, Key, Span, Truth};
use crate::machine::Machine;

/// A statement about the end that does not hold (yet).
pub(crate) type Unsettled = (&'static str, String);

/// Whether nothing is under way any more and everything agrees. What is still
/// under way may come right later; the caller asks again.
pub(crate) fn settled(ctx: &Ctx, cluster: &Cluster, machines: &[Machine], log: &ExecutionLog) -> Result<(), Unsettled> {
    for machine in machines {
        let member = cluster.nodes.get(machine.node_id).is_some();
        if member && !(machine.is_registered() && machine.is_quiet()) {
            return Err(("F1_nodes_come_back", machine.describe()));
        }
    }
    for entry in cluster.workloads.iter() {
        settled_workload(ctx, cluster, machines, log, entry)?;
    }
    for (key, machine) in log.live() {
        // A machine that was thrown out of the fleet is on its own.
        let member = cluster.nodes.get(machines[machine].node_id).is_some();
        let node_id = machines[machine].node_id;
        let wanted = cluster.workloads.get(key.0).and_then(|w| w.live_on(node_id).map(|a| a.attempt));
        if member && wanted != Some(key.1) {
            return Err(("F2_what_runs_is_wanted", format!("{key:?} runs on m{machine}; wanted is {wanted:?}")));
        }
    }
    Ok(())
}

fn settled_workload(
    ctx: &Ctx,
    cluster: &Cluster,
    machines: &[Machine],
    log: &ExecutionLog,
    entry: &WorkloadEntry,
) -> Result<(), Unsettled> {
    let id = entry.workload_id;
    match entry.state {
        S::Completed | S::Failed | S::Stopped | S::Lost => Ok(()),
        S::Pending => {
            let held_back = entry.held_back(ctx.wall()).is_some();
            if !held_back && matches!(decide_for(cluster, entry), Decision::Place { .. }) {
                return Err(("F3_who_waits_has_to", format!("{id} could start and waits ({})", entry.reason)));
            }
            Ok(())
        }
        S::Running => {
            if entry.live().is_none() {
                return Err(("F4_running_runs", format!("{id} has no live attempt")));
            }
            for live in entry.lives() {
                let span = log.span((id, live.attempt));
                let runs = span.is_some_and(|s| s.ended.is_none() && machines[s.machine].node_id == live.node_id);
                if !runs {
                    let attempt = live.attempt.0;
                    let detail = format!("{id} attempt {attempt} is running for the gateway; really: {span:?}");
                    return Err(("F4_running_runs", detail));
                }
            }
            Ok(())
        }
        S::Placed | S::Pulling | S::Starting | S::Stopping => {
            Err(("F5_nothing_is_stuck", format!("{id} is {} ({}) since {}", entry.state, entry.reason, entry.since)))
        }
    }
}

/// Every attempt that is over ended as the execution log shows.
pub(crate) fn judge_attempts(ctx: &mut Ctx, cluster: &Cluster, log: &ExecutionLog) {
    for entry in cluster.workloads.iter() {
        let keeps = entry.spec.on_partition() == OnPartition::Keep;
        for attempt in entry.attempts.iter().filter(|a| !a.live) {
            if let Err(why) = judge(attempt, keeps, log, (entry.workload_id, attempt.attempt)) {
                let detail = format!(
                    "{} attempt {}: the gateway says {} ({}), {why}",
                    entry.workload_id, attempt.attempt.0, attempt.state, attempt.reason
                );
                ctx.fail("T1_every_attempt_ended_as_it_really_did", detail);
            }
        }
        let last = entry.verdict();
        if let Err(why) = judge_loss(cluster, entry, log) {
            ctx.fail("T3_lost_means_that_nobody_knows", format!("{} is lost; {why}", entry.workload_id));
        }
        // Stopped while it waited to be started again: its attempts ended as they did.
        let in_queue = entry.state == S::Stopped && entry.reason == R::StopRequested;
        if entry.state.is_final() && last.is_some_and(|a| a.live || a.state != entry.state && !in_queue) {
            let detail = format!("{} is {} and its last attempt is {last:?}", entry.workload_id, entry.state);
            ctx.fail("T2_a_workload_ends_as_its_last_attempt", detail);
        }
    }
}

/// A workload that was given up stays lost only if its node cannot tell how it ended.
fn judge_loss(cluster: &Cluster, entry: &WorkloadEntry, log: &ExecutionLog) -> Result<(), String> {
    let given_up = entry.state == S::Lost && entry.reason == R::NodeLost;
    let Some(last) = entry.verdict().filter(|_| given_up) else {
        return Ok(());
    };
    let node_is_back = cluster.nodes.get(last.node_id).is_some();
    match log.span((entry.workload_id, last.attempt)) {
        Some(Span { ended: Some((_, truth)), forgotten: false, .. }) if node_is_back => match truth {
            Truth::Exited(_) | Truth::Signaled(_) | Truth::Stopped(_) => Err(format!("its node knows: {truth:?}")),
            Truth::MachineDied | Truth::AgentDied | Truth::SupervisorDied => Ok(()),
        },
        Some(_) | None => Ok(()),
    }
}

fn judge(attempt: &AttemptEntry, keeps: bool, log: &ExecutionLog, key: Key) -> Result<(), String> {
    let span = log.span(key);
    let truth = match span.map(|span| span.ended) {
        None => None,
        Some(Some((_, truth))) => Some(truth),
        // Nobody sees that machine again, and nobody starts a copy: it may run for ever.
        Some(None) if attempt.reason == R::NodeRemoved && keeps => return Ok(()),
        Some(None) => return Err(format!("it runs since {:?} ms", span.map(|s| s.started_ms))),
    };
    let agrees = match attempt.state {
        S::Completed => truth == Some(Truth::Exited(0)) && attempt.exit_code == Some(0),
        S::Failed => failed_so(attempt, truth),
        S::Stopped => stopped_so(attempt, truth),
        S::Lost => lost_so(attempt, truth),
        S::Pending | S::Placed | S::Pulling | S::Starting | S::Running | S::Stopping => false,
    };
    if agrees { Ok(()) } else { Err(format!("exit code {:?}, really: {truth:?}", attempt.exit_code)) }
}

fn failed_so(attempt: &AttemptEntry, truth: Option<Truth>) -> bool {
    match truth {
        Some(Truth::Exited(code)) => code != 0 && attempt.exit_code == Some(code),
        Some(Truth::Signaled(signal)) => attempt.signal == Some(signal),
        Some(Truth::Stopped(_) | Truth::MachineDied | Truth::AgentDied | Truth::SupervisorDied) => false,
        None => matches!(attempt.reason, R::StartFailed | R::NodeUnsupported | R::GpuMissing),
    }
}

fn stopped_so(attempt: &AttemptEntry, truth: Option<Truth>) -> bool {
    match truth {
        // Stopped before its program began.
        None => true,
        Some(Truth::Stopped(StatusCause::PartitionLease)) => {
            attempt.reason == R::PartitionLease || attempt.reason == R::StopRequested
        }
        Some(Truth::Stopped(StatusCause::MaxDuration)) => attempt.reason == R::MaxDuration,
        Some(Truth::Stopped(_)) => !matches!(attempt.reason, R::PartitionLease | R::MaxDuration),
        Some(Truth::Exited(_) | Truth::Signaled(_) | Truth::MachineDied | Truth::AgentDied | Truth::SupervisorDied) => {
            false
        }
    }
}

/// Lost: it died with what carried it; or the gateway gave it up after the
/// lease, and how it ended was told too late, or never.
fn lost_so(attempt: &AttemptEntry, truth: Option<Truth>) -> bool {
    match attempt.reason {
        R::NodeLost | R::NodeRemoved | R::NotOnNode => true,
        R::AgentRestarted => matches!(truth, Some(Truth::AgentDied) | None),
        R::SupervisorGone => matches!(truth, Some(Truth::MachineDied | Truth::SupervisorDied) | None),
        _ => false,
    }
}
