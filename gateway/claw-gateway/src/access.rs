//! The one place where permission is decided, for every operation.

use claw_tools::def::OpDef;
use claw_tools::refusal::{ErrorCode, Refusal};
use serde_json::json;

use crate::command::Caller;

/// The caller's role has the permission that the operation needs, or a refusal.
pub fn authorize(def: &OpDef, caller: &Caller) -> Result<(), Refusal> {
    if caller.role.allows(def.permission) {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::Forbidden,
        format!("{} needs the permission {}, which the role {} does not have", def.name, def.permission, caller.role),
    )
    .with_evidence(json!({ "principal": caller.principal, "role": caller.role, "permission": def.permission })))
}
