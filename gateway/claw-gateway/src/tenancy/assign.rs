//! Whose a workload is: the tenant that it names, or the only one that its submitter is a member of.

use claw_proto::spec::WorkloadSpec;
use claw_tools::access::Role;
use claw_tools::nearest::nearest;
use claw_tools::outcome::Assumption;
use claw_tools::refusal::{ErrorCode, Refusal};
use serde_json::json;

use super::{Tenant, amounts, counted};
use crate::Cluster;
use crate::command::Caller;
use crate::scheduler::fairness::{Amounts, RESOURCES};

/// Most tenants that a refusal names.
const NAMED_MAX: usize = 10;

/// Gives a specification its tenant, if its submitter has one and may use the one that is named.
///
/// # Errors
/// `NOT_FOUND` where the tenant is none, `FORBIDDEN` where the caller is no member,
/// `SPEC_INVALID` where it could be several.
pub(crate) fn assign(
    cluster: &Cluster,
    caller: &Caller,
    spec: &mut WorkloadSpec,
    assumptions: &mut Vec<Assumption>,
) -> Result<(), Refusal> {
    let is_member = |entry: &Tenant| entry.quota.members.contains(&caller.principal);
    if let Some(name) = &spec.tenant {
        let Some(entry) = cluster.tenants.get(name) else { return Err(unknown(cluster, name)) };
        let is_allowed = caller.role == Role::Admin || cluster.tenants.line(name).any(|entry| is_member(entry));
        return if is_allowed { Ok(()) } else { Err(no_member(cluster, caller, entry)) };
    }
    let own: Vec<&str> = cluster.tenants.iter().filter(|entry| is_member(entry)).map(|e| &*e.name).collect();
    match own.as_slice() {
        [] => Ok(()),
        [only] => {
            let why = format!("default: {} is a member of this tenant alone", caller.principal);
            assumptions.push(Assumption { field: "tenant".into(), value: json!(only), why });
            spec.tenant = Some((*only).to_owned());
            Ok(())
        }
        several => {
            let message = format!("{} is a member of several tenants; say for which it runs", caller.principal);
            Err(Refusal::new(ErrorCode::SpecInvalid, message)
                .with_field("spec.tenant", "")
                .with_allowed(several.iter().take(NAMED_MAX).map(|name| (*name).to_owned()))
                .with_next("quota_get", json!({})))
        }
    }
}

/// The tenant that a specification names is there, and could ever hold so much.
///
/// # Errors
/// `NOT_FOUND`, or `SPEC_INVALID` where a bound is less than what is asked for.
pub(crate) fn known(cluster: &Cluster, tenant: Option<&str>, wanted: Amounts) -> Result<(), Refusal> {
    let Some(name) = tenant else { return Ok(()) };
    if cluster.tenants.get(name).is_none() {
        return Err(unknown(cluster, name));
    }
    for entry in cluster.tenants.line(name) {
        let most = amounts(&entry.quota.most, u64::MAX);
        if let Some(resource) = (0..RESOURCES).find(|at| wanted.0[*at] > most.0[*at]) {
            let (wanted, most, what) = (counted(wanted)[resource], counted(most)[resource], super::NAMES[resource]);
            let message = format!(
                "it asks for {wanted} {what}, and {} may hold {most} at most: it could never start",
                entry.name
            );
            let field = ["spec.gpu.count", "spec.cpu_cores", "spec.memory_gib"][resource];
            return Err(Refusal::new(ErrorCode::SpecInvalid, message)
                .with_field(field, wanted.to_string())
                .with_allowed([format!("{most} {what} or less, over all nodes")])
                .with_next("quota_get", json!({ "tenant": entry.name })));
        }
    }
    Ok(())
}

/// There is no such tenant.
pub(crate) fn unknown(cluster: &Cluster, name: &str) -> Refusal {
    let message = if cluster.tenants.is_empty() {
        "this fleet has no tenants: leave tenant out, or make one with quota_set".to_owned()
    } else {
        "there is no tenant of this name".to_owned()
    };
    Refusal::new(ErrorCode::NotFound, message)
        .with_field("spec.tenant", name)
        .with_nearest(nearest(name, cluster.tenants.iter().map(|entry| &*entry.name)))
        .with_next("quota_get", json!({}))
}

fn no_member(cluster: &Cluster, caller: &Caller, entry: &Tenant) -> Refusal {
    let is_own = |entry: &&std::sync::Arc<Tenant>| entry.quota.members.contains(&caller.principal);
    let own: Vec<String> = cluster.tenants.iter().filter(is_own).map(|e| e.name.to_string()).take(NAMED_MAX).collect();
    let message = format!("{} is no member of the tenant {}; an admin adds members", caller.principal, entry.name);
    Refusal::new(ErrorCode::Forbidden, message).with_field("spec.tenant", &*entry.name).with_allowed(own)
}
