//! Operations on approvals: a person agrees to exactly one plan.

use claw_proto::closed_enum;
use claw_proto::ids::{ApprovalId, PlanId};
use claw_proto::time::Timestamp;

use crate::access::Tier;
use crate::outcome::Change;

closed_enum! {
    /// What was decided.
    ApprovalState { Waiting = "waiting", Approved = "approved", Rejected = "rejected", Expired = "expired", Used = "used" }
}
closed_enum! {
    /// What the person says.
    ApprovalDecision { Approve = "approve", Reject = "reject" }
}

read_params! {
    /// Which approvals.
    ApprovalListParams {
        /// Only in this state; waiting by default.
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<ApprovalState>,
        /// Rows, 20 by default, newest first.
        #[schemars(range(min = 1, max = 100))]
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    }
}

/// Decide on a plan.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalDecideParams {
    /// Which approval.
    pub approval_id: ApprovalId,
    /// Yes or no.
    pub decision: ApprovalDecision,
    /// The plan's `diff_hash` (its first 8 characters are enough): shows that this very plan was looked at.
    #[schemars(length(min = 8, max = 64))]
    pub diff_hash: String,
    /// Why, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Your key for this intention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub request_id: Option<String>,
}

impl ApprovalDecideParams {
    /// The common fields.
    pub fn mutation(&self) -> crate::outcome::Mutation {
        crate::outcome::Mutation {
            mode: crate::outcome::Mode::Apply,
            request_id: self.request_id.clone(),
            reason: self.reason.clone(),
            wait_s: 0,
        }
    }
}

output! {
    /// One approval.
    ApprovalView {
        /// Id.
        approval_id: ApprovalId,
        /// Plan that it is bound to.
        plan_id: PlanId,
        /// Hash that it is bound to.
        diff_hash: String,
        /// What would be done.
        summary: String,
        /// Changes.
        diff: Vec<Change>,
        /// Harm.
        tier: Tier,
        /// Who asks.
        requested_by: String,
        /// When.
        at: Timestamp,
        /// Not valid after.
        expires_at: Timestamp,
        /// Where it stands.
        state: ApprovalState,
        /// Who decided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_by: Option<String>,
    }
}
output! {
    /// Approvals, newest first.
    ApprovalList {
        /// Rows.
        approvals: Vec<ApprovalView>,
        /// How many match in all.
        total: u32,
    }
}
