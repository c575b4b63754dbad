//! Operations on stored plans.

use claw_proto::ids::PlanId;
use claw_proto::time::Timestamp;

use crate::outcome::PlanView;

/// Which plan.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanGetParams {
    /// Id.
    pub plan_id: PlanId,
}

/// Apply a plan. (It has no `mode`: a plan of a plan would say nothing new.)
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanApplyParams {
    /// Id.
    pub plan_id: PlanId,
    /// Your key for this intention: a retry with the same key has one effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub request_id: Option<String>,
    /// Why, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Wait up to so many seconds for the observed result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 300))]
    pub wait_s: Option<u32>,
}

impl PlanApplyParams {
    /// The common fields.
    pub fn mutation(&self) -> crate::outcome::Mutation {
        crate::outcome::Mutation {
            mode: crate::outcome::Mode::Apply,
            request_id: self.request_id.clone(),
            reason: self.reason.clone(),
            wait_s: self.wait_s.unwrap_or(0),
        }
    }
}

output! {
    /// A plan and where it stands.
    PlanDetail {
        /// The plan.
        plan: PlanView,
        /// Who made it.
        principal: String,
        /// When.
        at: Timestamp,
        /// It would still do exactly this on the present fleet.
        current: bool,
        /// How the present fleet differs, if it does.
        drift: Vec<crate::outcome::Change>,
        /// `open`, `approved`, `rejected`, `applied` or `expired`.
        status: String,
        /// What to call next.
        next: Vec<crate::refusal::SuggestedCall>,
    }
}
