//! Secrets: handles and who may use them. Values come in sealed, as blobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_proto::spec::WorkloadSpec;
use claw_proto::validation::Validator;
use claw_tools::def::UndoClass;
use claw_tools::nearest::nearest;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use serde_json::json;

use super::Performed;
use crate::cluster::SecretEntry;
use crate::effect::Effect;
use crate::event::{Event, Goal, Inverse};
use crate::step::work::Work;

/// Most secrets of a fleet.
const SECRETS_MAX: usize = 10_000;

fn done(summary: String, why: &str) -> Performed {
    Performed {
        outcome: Outcome::new(EffectKind::Accepted, summary),
        inverse: Inverse::Impossible { why: why.into() },
        undo: UndoClass::None,
        not_restored: "the former value",
        goal: Goal::Immediate,
        undoes: None,
    }
}

/// Stores a sealed value; a former one is erased.
pub(super) fn set(
    work: &mut Work<'_>,
    handle: &str,
    used_by: &BTreeSet<String>,
    blob: Option<&str>,
) -> Result<Performed, Refusal> {
    let mut validator = Validator::new();
    validator.secret_handle("handle", handle);
    for principal in used_by {
        validator.name("used_by", principal);
    }
    validator.finish().map_err(|error| {
        let field = error.faults.first().map_or_else(|| "handle".to_owned(), |fault| fault.path.clone());
        Refusal::new(ErrorCode::InvalidArgument, error.to_string()).with_field(field, "")
    })?;
    let blob =
        blob.ok_or_else(|| Refusal::new(ErrorCode::InvalidArgument, "no value was given").with_field("value", ""))?;
    let former = work.state.secrets.get(handle).cloned();
    match &former {
        Some(secret) => may_change(work, secret)?,
        None if work.state.secrets.len() >= SECRETS_MAX => {
            let message = format!("there are {SECRETS_MAX} secrets already; delete some");
            return Err(Refusal::new(ErrorCode::TooLarge, message).with_next("secret_list", json!({})));
        }
        None => {}
    }
    let owner = former.as_ref().map_or(&work.caller.principal, |secret| &secret.access.owner).clone();
    let version = former.as_ref().map_or(1, |secret| secret.version.saturating_add(1));
    let (handle_text, used_by) = (handle.to_owned(), used_by.clone());
    work.emit(Event::SecretSet { handle: handle_text, owner: owner.clone(), used_by, blob: blob.to_owned() });
    if let Some(former) = former {
        work.effect(Effect::EraseBlob { handle: former.blob.clone() });
    }
    let summary = format!("set secret {handle} of {owner} (version {version})");
    Ok(done(summary, "the former value of a secret is erased; set it again"))
}

/// Erases a secret that nothing uses.
pub(super) fn delete(work: &mut Work<'_>, handle: &str) -> Result<Performed, Refusal> {
    let secret = find(work, "handle", handle)?;
    may_change(work, &secret)?;
    let users: Vec<String> = work
        .state
        .workloads
        .iter()
        .filter(|w| !w.state.is_final() && handles(w.spec.spec()).any(|(_, used)| used == handle))
        .map(|w| w.name.clone())
        .take(10)
        .collect();
    if let Some(first) = users.first() {
        return Err(Refusal::new(ErrorCode::InvalidState, format!("{handle} is used by {}", users.join(", ")))
            .with_field("handle", handle)
            .with_next("workload_stop", json!({ "workload": first, "mode": "plan" })));
    }
    work.emit(Event::SecretDeleted { handle: handle.to_owned() });
    work.effect(Effect::EraseBlob { handle: secret.blob.clone() });
    Ok(done(format!("delete secret {handle}: its value is erased"), "an erased secret does not come back"))
}

fn may_change(work: &Work<'_>, secret: &SecretEntry) -> Result<(), Refusal> {
    if secret.access.may_change(&work.caller.principal, work.caller.role) {
        return Ok(());
    }
    let message = format!("the secret {} is {}'s; they or an admin change it", secret.handle, secret.access.owner);
    Err(Refusal::new(ErrorCode::Forbidden, message).with_field("handle", secret.handle.clone()))
}

fn find(work: &Work<'_>, field: &str, handle: &str) -> Result<Arc<SecretEntry>, Refusal> {
    work.state.secrets.get(handle).cloned().ok_or_else(|| {
        // Not repeated: a caller may have put the secret itself here.
        Refusal::new(ErrorCode::NotFound, "there is no secret of this handle")
            .with_field(field, "")
            .with_nearest(nearest(handle, work.state.secrets.keys().map(String::as_str)))
            .with_next("secret_list", json!({}))
    })
}

/// The handles that a specification names, each with its field.
pub(crate) fn handles(spec: &WorkloadSpec) -> impl Iterator<Item = (String, &str)> {
    let files = spec.secrets.iter().enumerate().map(|(n, s)| (format!("spec.secrets[{n}].handle"), s.handle.as_str()));
    files.chain(spec.pull_secret.as_deref().map(|handle| ("spec.pull_secret".to_owned(), handle)))
}

/// All secrets that a workload names are there and may be used by the caller.
pub(super) fn usable(work: &Work<'_>, spec: &WorkloadSpec) -> Result<(), Refusal> {
    for (field, handle) in handles(spec) {
        let secret = find(work, &field, handle)?;
        if !secret.access.may_use(&work.caller.principal, work.caller.role) {
            let message = format!("the secret {handle} is {}'s, and not for your workloads", secret.access.owner);
            return Err(Refusal::new(ErrorCode::Forbidden, message)
                .with_field(field, handle)
                .with_next("secret_list", json!({ "filter": handle })));
        }
    }
    Ok(())
}
