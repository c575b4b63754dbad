//! Tenants and their quotas.

use std::collections::BTreeSet;

use claw_proto::validation::Validator;
use claw_tools::def::UndoClass;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::quotas::{Quota, TENANT_LEVELS_MAX, TENANTS_MAX};
use claw_tools::refusal::{ErrorCode, Refusal};
use serde_json::json;

use super::Performed;
use crate::command::Operation;
use crate::event::{Event, Goal, Inverse};
use crate::scheduler::fairness::{Amounts, RESOURCES};
use crate::step::work::Work;
use crate::tenancy::{amounts, counted, unknown};

/// Makes a tenant, or changes what is given of its quota.
pub(super) fn set(work: &mut Work<'_>, operation: &Operation) -> Result<Performed, Refusal> {
    let Operation::QuotaSet { tenant, parent, guaranteed, most, lends, weight, members } = operation else {
        return Err(Refusal::new(ErrorCode::InvalidArgument, "this sets no quota"));
    };
    let former = work.state.tenants.get(tenant).map(|entry| (*entry.quota).clone());
    let mut quota = former.clone().unwrap_or_else(|| Quota { parent: parent.clone(), ..Quota::default() });
    if parent.is_some() && quota.parent != *parent {
        let at = quota.parent.as_deref().unwrap_or("the fleet");
        let message = format!("{tenant} is a part of {at}, and stays there; delete it and make it anew elsewhere");
        return Err(
            Refusal::new(ErrorCode::InvalidState, message).with_field("parent", parent.clone().unwrap_or_default())
        );
    }
    quota.guaranteed = guaranteed.unwrap_or(quota.guaranteed);
    quota.most = most.unwrap_or(quota.most);
    quota.lends = lends.unwrap_or(quota.lends);
    quota.weight = weight.unwrap_or(quota.weight);
    quota.members = members.clone().unwrap_or(quota.members);
    put(work, tenant, Some(quota))
}

/// Takes a tenant away.
pub(super) fn delete(work: &mut Work<'_>, tenant: &str) -> Result<Performed, Refusal> {
    if work.state.tenants.get(tenant).is_none() {
        return Err(unknown(work.state, tenant).with_field("tenant", tenant));
    }
    put(work, tenant, None)
}

/// The tenant has this quota from now on, or is gone; the way back is the one before.
pub(in crate::step) fn put(work: &mut Work<'_>, tenant: &str, quota: Option<Quota>) -> Result<Performed, Refusal> {
    let former = work.state.tenants.get(tenant).map(|entry| (*entry.quota).clone());
    let done = |effect: EffectKind, summary: String| Performed {
        outcome: Outcome::new(effect, summary),
        inverse: Inverse::SetQuota { tenant: tenant.to_owned(), expect: quota.clone(), restore: former.clone() },
        undo: UndoClass::Compensating,
        not_restored: match quota {
            Some(_) => "what started by it, or made room for what did",
            None => "what the tenant has had lately (fair share begins anew with it), and what started by it",
        },
        goal: Goal::Immediate,
        undoes: None,
    };
    if former == quota {
        return Ok(done(EffectKind::NoChange, format!("the quota of {tenant} is that already")));
    }
    let Some(new) = &quota else {
        unused(work, tenant)?;
        work.emit(Event::QuotaDeleted { tenant: tenant.to_owned() });
        return Ok(done(EffectKind::Accepted, format!("remove tenant {tenant}")));
    };
    sound(work, tenant, new, former.is_none())?;
    let verb = if former.is_some() { "change the quota of" } else { "make" };
    work.emit(Event::QuotaSet { tenant: tenant.to_owned(), quota: new.clone() });
    Ok(done(EffectKind::Accepted, format!("{verb} tenant {tenant}")))
}

/// Nothing counts there, and nothing is a part of it.
fn unused(work: &Work<'_>, tenant: &str) -> Result<(), Refusal> {
    let part = work.state.tenants.iter().find(|entry| entry.quota.parent.as_deref() == Some(tenant));
    if let Some(part) = part {
        let message = format!("{} is a part of {tenant}: delete that first", part.name);
        return Err(Refusal::new(ErrorCode::InvalidState, message)
            .with_field("tenant", tenant)
            .with_next("quota_delete", json!({ "tenant": part.name, "mode": "plan" })));
    }
    if let Some(kept) = work.state.reservations.iter().find(|kept| kept.tenant == tenant) {
        let message = format!("the reservation {} keeps nodes for {tenant}: end that first", kept.name);
        return Err(Refusal::new(ErrorCode::InvalidState, message)
            .with_field("tenant", tenant)
            .with_next("reservation_delete", json!({ "name": kept.name, "mode": "plan" })));
    }
    let is_its = |spec: &claw_proto::spec::WorkloadSpec| spec.tenant.as_deref() == Some(tenant);
    let user = work.state.workloads.iter().find(|w| !w.state.is_final() && is_its(w.spec.spec()));
    if let Some(user) = user {
        let message = format!("{} is {tenant}'s and has not ended ({})", user.name, user.state);
        return Err(Refusal::new(ErrorCode::InvalidState, message)
            .with_field("tenant", tenant)
            .with_next("workload_stop", json!({ "workload": user.workload_id, "mode": "plan" })));
    }
    Ok(())
}

/// A quota that can stand where it is put.
fn sound(work: &Work<'_>, tenant: &str, quota: &Quota, is_new: bool) -> Result<(), Refusal> {
    named(tenant, &quota.members)?;
    let tenants = &work.state.tenants;
    if is_new && tenants.len() >= TENANTS_MAX {
        return Err(Refusal::new(ErrorCode::TooLarge, format!("there are {TENANTS_MAX} tenants already"))
            .with_field("tenant", tenant));
    }
    let (own, most) = (amounts(&quota.guaranteed, 0), amounts(&quota.most, u64::MAX));
    if let Some(at) = own.beyond(most) {
        let message =
            format!("{tenant} cannot be guaranteed {} and hold {} at most", counted(own)[at], counted(most)[at]);
        return Err(Refusal::new(ErrorCode::InvalidArgument, message)
            .with_field(field("guaranteed", at), counted(own)[at].to_string())
            .with_allowed([format!("{} or less", counted(most)[at])]));
    }
    let promised = |of: &str| {
        let below = tenants.iter().filter(|entry| entry.quota.parent.as_deref() == Some(of) && *entry.name != *tenant);
        below.fold(Amounts::default(), |sum, entry| sum.plus(amounts(&entry.quota.guaranteed, 0)))
    };
    if let Some(at) = promised(tenant).beyond(own) {
        let least = counted(promised(tenant))[at];
        let message = format!("the parts of {tenant} are guaranteed {least}: it cannot have less itself");
        return Err(Refusal::new(ErrorCode::InvalidArgument, message)
            .with_field(field("guaranteed", at), counted(own)[at].to_string())
            .with_allowed([format!("{least} or more")]));
    }
    let Some(parent) = &quota.parent else { return Ok(()) };
    let Some(above) = tenants.get(parent) else {
        return Err(unknown(work.state, parent).with_field("parent", parent.clone()));
    };
    if tenants.line(parent).count() >= TENANT_LEVELS_MAX {
        let message = format!("tenants nest {TENANT_LEVELS_MAX} levels deep, and {parent} is on the last");
        return Err(Refusal::new(ErrorCode::InvalidArgument, message).with_field("parent", parent.clone()));
    }
    let left = amounts(&above.quota.guaranteed, 0).minus(promised(parent));
    if let Some(at) = own.beyond(left) {
        let message = format!("{parent} has {} of its guarantee left for its parts", counted(left)[at]);
        return Err(Refusal::new(ErrorCode::InvalidArgument, message)
            .with_field(field("guaranteed", at), counted(own)[at].to_string())
            .with_allowed([format!("{} or less", counted(left)[at])])
            .with_next("quota_get", json!({ "tenant": parent })));
    }
    Ok(())
}

fn named(tenant: &str, members: &BTreeSet<String>) -> Result<(), Refusal> {
    let mut validator = Validator::new();
    validator.name("tenant", tenant);
    for principal in members {
        validator.name("members", principal);
    }
    validator.finish().map_err(|error| {
        let (field, got) = error.faults.first().map_or_else(
            || ("tenant".to_owned(), String::new()),
            |fault| (fault.path.clone(), fault.got.clone().unwrap_or_default()),
        );
        Refusal::new(ErrorCode::InvalidArgument, error.to_string()).with_field(field, got)
    })
}

fn field(of: &str, at: usize) -> String {
    let names: [&str; RESOURCES] = ["gpus", "cpu_cores", "memory_gib"];
    format!("{of}.{}", names[at])
}
