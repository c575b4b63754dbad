//! What a stored plan would change now, without doing or storing anything.

use claw_proto::ids::{IdSource, OperationId};
use claw_tools::outcome::Change;
use claw_tools::refusal::Refusal;

use super::work::Work;
use super::{diff, follow, perform};
use crate::Cluster;
use crate::cluster::PlanEntry;
use crate::command::Caller;

/// The diff that a plan would make on the present fleet.
pub fn preview(
    cluster: &Cluster,
    plan: &PlanEntry,
    caller: &Caller,
    ids: &mut dyn IdSource,
) -> Result<Vec<Change>, Refusal> {
    let mut after = cluster.clone();
    let mut work = Work::new(&mut after, None, caller, ids);
    work.replay_ids(plan.record.ids.iter().filter_map(|text| u128::from_str_radix(text, 16).ok()).collect());
    work.operation_id = Some(OperationId::next(&mut work.ids));
    perform::perform(&mut work, &plan.record.operation, plan.record.secret_hash.as_deref())?;
    follow::settle(&mut work);
    Ok(diff::diff(cluster, work.state))
}
