//! Operations on quotas: what tenants are guaranteed and may have at most.
//!
//! Tenants are groups of one tree. What a tenant does not use of its guarantee
//! others may borrow, if it lends; between tenants that ask at the same time
//! dominant-resource fair share decides (Ghodsi et al., NSDI 2011).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most tenants of a fleet.
pub const TENANTS_MAX: usize = 256;
/// Most levels of tenants, the uppermost included.
pub const TENANT_LEVELS_MAX: usize = 5;

/// An amount of each resource; what is absent is not spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct QuotaAmounts {
    /// GPUs of any model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000_000))]
    pub gpus: Option<u32>,
    /// CPU cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000_000))]
    pub cpu_cores: Option<u32>,
    /// Memory, GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000_000))]
    pub memory_gib: Option<u32>,
}

/// What a tenant is guaranteed and may have at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quota {
    /// The tenant that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it has before others; what is absent is not guaranteed.
    pub guaranteed: QuotaAmounts,
    /// What it can hold at most, borrowed included; what is absent has no bound.
    pub most: QuotaAmounts,
    /// Others may use what it leaves of its guarantee.
    pub lends: bool,
    /// How much of what nobody is guaranteed falls to it, beside its siblings.
    pub weight: u32,
    /// Principals whose workloads count here.
    pub members: BTreeSet<String>,
}

impl Default for Quota {
    fn default() -> Self {
        let (guaranteed, most) = (QuotaAmounts::default(), QuotaAmounts::default());
        Self { parent: None, guaranteed, most, lends: true, weight: 1, members: BTreeSet::new() }
    }
}

mutation_params! {
    /// Make a tenant, or change its quota: what is not given stays as it is.
    QuotaSetParams {
        /// Name: 1-63 of a-z 0-9 -.
        #[schemars(length(min = 1, max = 63))]
        tenant: String,
        /// The tenant that a new one is a part of; it cannot be changed later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1, max = 63))]
        parent: Option<String>,
        /// What it has before others, as a whole: {} takes all guarantees away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guaranteed: Option<QuotaAmounts>,
        /// What it can hold at most, borrowed included, as a whole: {} takes all bounds away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<QuotaAmounts>,
        /// Others may use what it leaves of its guarantee; true for a new one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lends: Option<bool>,
        /// How much of what nobody is guaranteed falls to it, beside its siblings; 1 for a new one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        weight: Option<u32>,
        /// Principals whose workloads count here, all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 256))]
        members: Option<BTreeSet<String>>,
    }
}
mutation_params! {
    /// Take a tenant away that nothing runs or waits for.
    QuotaDeleteParams {
        /// Which.
        #[schemars(length(min = 1, max = 63))]
        tenant: String,
    }
}
read_params! {
    /// Which quotas.
    QuotaGetParams {
        /// Only this tenant and those that are part of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant: Option<String>,
    }
}

output! {
    /// What is held of each resource.
    QuotaHeld {
        /// GPUs.
        gpus: u32,
        /// CPU cores.
        cpu_cores: f64,
        /// Memory, GiB.
        memory_gib: f64,
    }
}
output! {
    /// One tenant.
    QuotaView {
        /// Name.
        tenant: String,
        /// What it is guaranteed and may have.
        #[serde(flatten)]
        quota: Quota,
        /// What it and those that are part of it hold now.
        held: QuotaHeld,
        /// It holds more than it is guaranteed.
        borrows: bool,
        /// What it holds of its dominant resource, percent of the fleet.
        share_percent: f64,
        /// What it held lately, older hours counting less, percent of the fleet.
        lately_percent: f64,
        /// Workloads of its own that hold a place.
        running: u32,
        /// Workloads of its own that wait.
        waiting: u32,
        /// Of those, how many wait for the quota and not for room.
        waiting_for_quota: u32,
    }
}
output! {
    /// Tenants by name.
    QuotaList {
        /// In one sentence.
        summary: String,
        /// Rows.
        tenants: Vec<QuotaView>,
        /// What the fleet has, nodes that do not answer included.
        fleet: QuotaHeld,
        /// More is guaranteed than the fleet has: not every guarantee can be kept.
        overpromised: bool,
    }
}
