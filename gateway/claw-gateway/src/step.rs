//! One command, decided.
//!
//! Each event is applied to the state at once, so that what follows sees it: the
//! shell need not apply the events again. [`advance`] decides on the shell's own
//! state and copies of it only what somebody else holds as well; [`step`] leaves
//! the state alone and gives a new one. They decide alike.

mod approve;
mod diff;
mod exec;
mod follow;
mod honored;
mod link;
mod notice;
mod operate;
mod perform;
mod preview;
mod queue;
mod status;
mod undo;
mod work;

use claw_proto::ids::{IdSource, NodeId, WorkloadId};
use claw_proto::message::NodeSettings;
use claw_proto::spec::{OnPartition, WorkloadSpec};
use claw_proto::validation::ValidSpec;
use claw_tools::outcome::{Mode, Outcome};
use claw_tools::refusal::Refusal;
use claw_tools::workloads::WorkloadReason;

pub(crate) use self::approve::drift;
pub(crate) use self::follow::partition_lease_end;
pub use self::operate::replayed;
pub(crate) use self::perform::secret_handles;
pub use self::preview::preview;
use self::work::Work;
use crate::Cluster;
use crate::command::{Caller, Command, Operation};
use crate::effect::Effect;
use crate::event::{Event, EventRecord};
use crate::tenancy;

/// A value that must not stand in the journal, stored beside it in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Handle that events refer to it by.
    pub handle: String,
    /// The value.
    pub bytes: Vec<u8>,
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// Answer of an operation. `replayed`: it was given before, nothing new happened.
    Outcome {
        /// The answer.
        outcome: Box<Outcome>,
        /// It was given before.
        replayed: bool,
    },
    /// A machine is enrolled.
    Enrolled {
        /// Its id, for the certificate.
        node_id: NodeId,
    },
    /// A node may go on.
    Registered {
        /// Its settings.
        settings: NodeSettings,
    },
    /// Nothing to tell.
    Done,
}

/// What follows from a command.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Decision {
    /// To be journaled, in order, all or nothing.
    pub events: Vec<EventRecord>,
    /// To be stored in the same transaction.
    pub blobs: Vec<Blob>,
    /// To be performed once that is durable.
    pub effects: Vec<Effect>,
    /// To be told once that is durable.
    pub report: Report,
}

/// Decides one command: what follows, and the state after.
pub fn step(
    cluster: &Cluster,
    command: Command,
    caller: &Caller,
    ids: &mut dyn IdSource,
) -> Result<(Decision, Cluster), Refusal> {
    let mut after = cluster.clone();
    let decision = advance(&mut after, command, caller, ids)?;
    Ok((decision, after))
}

/// Decides one command and brings the state to what it is after. A refusal leaves it as it was.
///
/// # Panics
/// If a command that no copy is kept for were refused after it changed something, which none is: nothing may go on
/// from a state that nobody decided.
pub fn advance(
    cluster: &mut Cluster,
    command: Command,
    caller: &Caller,
    ids: &mut dyn IdSource,
) -> Result<Decision, Refusal> {
    let clock = cluster.clock;
    cluster.clock = clock.max(caller.now);
    let base = (!is_checked_first(&command)).then(|| cluster.clone());
    let mut work = Work::new(cluster, base, caller, ids);
    match decide(&mut work, command) {
        Ok(report) => Ok(work.into_decision(report)),
        Err(refusal) => {
            work.take_back();
            cluster.clock = clock;
            Err(refusal)
        }
    }
}

/// All that this command may be refused for is looked at before it changes anything, and nobody asks what was
/// before: no copy of the state is kept for it.
fn is_checked_first(command: &Command) -> bool {
    match command {
        Command::Operate { operation: Operation::WorkloadRun { .. }, mutation, .. } => mutation.mode == Mode::Apply,
        Command::NodeStatus { .. } | Command::Tick => true,
        _ => false,
    }
}

fn decide(work: &mut Work<'_>, command: Command) -> Result<Report, Refusal> {
    let report = match command {
        Command::Operate { operation, mutation, args_hash, secret_hash } => {
            operate::operate(work, operation, &mutation, &args_hash, secret_hash)?
        }
        Command::PlanApply { plan_id, mutation, args_hash, secret_hash } => {
            approve::apply_plan(work, plan_id, &mutation, &args_hash, secret_hash)?
        }
        Command::ApprovalDecide { approval_id, decision, diff_hash, mutation, args_hash } => {
            approve::decide(work, approval_id, decision, &diff_hash, &mutation, &args_hash)?
        }
        Command::CaRotated { rotation } => {
            // Told again after a crash: once is enough.
            if work.state.ca.finished < rotation && rotation <= work.state.ca.requested {
                work.emit(Event::CaRotated { rotation });
            }
            Report::Done
        }
        Command::GatewayStarted { epoch } => {
            work.emit(Event::GatewayStarted { epoch });
            exec::forget_unheard(work);
            Report::Done
        }
        Command::Bootstrap { key_id, secret_hash, principal } => link::bootstrap(work, key_id, secret_hash, principal)?,
        Command::NodeEnroll { token_id, secret_hash, name } => link::enroll(work, token_id, &secret_hash, &name)?,
        Command::NodeRegister { node_id, capabilities, running, store_id, epoch_seen } => {
            link::register(work, node_id, *capabilities, &running, store_id, epoch_seen)?
        }
        Command::NodeCapabilities { node_id, capabilities } => link::capabilities(work, node_id, *capabilities)?,
        Command::NodeStatus { node_id, records } => status::records(work, node_id, &records)?,
        Command::ExecEnded { operation_id, end, output } => exec::ended(work, operation_id, end, output)?,
        Command::NodesSilent { nodes } => link::silent(work, &nodes),
        Command::Tick => follow::tick(work),
    };
    follow::settle(work);
    Ok(report)
}

/// A specification that this core can honor, as `workload_run` would take it.
pub(crate) fn checked_spec(cluster: &Cluster, caller: &Caller, mut spec: WorkloadSpec) -> Result<ValidSpec, Refusal> {
    tenancy::assign(cluster, caller, &mut spec, &mut Vec::new())?;
    perform::checked(cluster, spec, &mut Vec::new())
}

/// Looks at the whole queue, as after a change of the fleet; for copies of the fleet.
pub(crate) fn reschedule(cluster: &mut Cluster, caller: &Caller, ids: &mut dyn IdSource) -> Decision {
    let mut work = Work::new(cluster, None, caller, ids);
    work.room_changed = true;
    follow::settle(&mut work);
    work.into_decision(Report::Done)
}

/// All that runs on a node is lost, as after its lease; what keeps running when cut off is
/// not. For copies of the fleet.
pub(crate) fn lose_node(cluster: &mut Cluster, caller: &Caller, ids: &mut dyn IdSource, node_id: NodeId) -> Decision {
    let held = cluster.nodes.get(node_id).map(|n| n.usage.workloads.clone()).unwrap_or_default();
    let is_lost =
        |id: &WorkloadId| cluster.workloads.get(*id).is_some_and(|w| w.spec.on_partition() != OnPartition::Keep);
    let lost: Vec<WorkloadId> = held.into_iter().filter(is_lost).collect();
    let mut work = Work::new(cluster, None, caller, ids);
    for id in lost {
        follow::end_lost(&mut work, (id, node_id), WorkloadReason::NodeLost, "its node is lost");
    }
    follow::settle(&mut work);
    work.into_decision(Report::Done)
}

#[cfg(test)]
mod tests;
