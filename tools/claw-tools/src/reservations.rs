//! Operations on reservations: whole nodes that are kept for a tenant for a time.

use claw_proto::ids::NodeId;
use claw_proto::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most reservations of a fleet.
pub const RESERVATIONS_MAX: usize = 256;
/// Most nodes of a reservation.
pub const RESERVED_NODES_MAX: usize = 1_024;
/// A reservation ends after so long at most: 90 days, seconds.
pub const RESERVED_S_MAX: u64 = 90 * 24 * 60 * 60;
/// It begins within so long: a year, seconds.
pub const RESERVED_AHEAD_S_MAX: u64 = 366 * 24 * 60 * 60;

/// Nodes that are kept for a tenant for a time, by which only its work, that of its parts, and
/// what ends before is placed there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Name.
    pub name: String,
    /// The tenant that they are kept for.
    pub tenant: String,
    /// Which nodes, in order of their ids.
    pub nodes: Vec<NodeId>,
    /// From when on.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// Who asked for it.
    pub by: String,
}

mutation_params! {
    /// Keep whole nodes for a tenant for a time. Say how many (`nodes`) or which (`node_names`).
    ReservationCreateParams {
        /// Name: 1-63 of a-z 0-9 -.
        #[schemars(length(min = 1, max = 63))]
        name: String,
        /// The tenant that they are kept for, with its parts.
        #[schemars(length(min = 1, max = 63))]
        tenant: String,
        /// How many nodes; they are chosen among those that are free of others' work by then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_024))]
        nodes: Option<u32>,
        /// Which nodes, by name or id.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 1_024))]
        node_names: Vec<String>,
        /// Each node that is chosen has so many GPUs at least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 256))]
        gpus: Option<u32>,
        /// The chosen nodes' GPUs are of this model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 63))]
        model: Option<String>,
        /// From when on; now, if not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        starts_at: Option<Timestamp>,
        /// For how long, seconds.
        #[schemars(range(min = 1, max = 7_776_000))]
        duration_s: u64,
    }
}
mutation_params! {
    /// End a reservation; what runs there goes on.
    ReservationDeleteParams {
        /// Which.
        #[schemars(length(min = 1, max = 63))]
        name: String,
    }
}
read_params! {
    /// Which reservations.
    ReservationListParams {
        /// Only those for this tenant.
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant: Option<String>,
        /// Only those that keep this node (name or id).
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<String>,
    }
}

output! {
    /// One reservation.
    ReservationView {
        /// Name.
        name: String,
        /// The tenant that it is for.
        tenant: String,
        /// Its nodes, by name.
        nodes: Vec<String>,
        /// Nodes of it that are not there any more.
        nodes_gone: u32,
        /// GPUs of its nodes.
        gpus: u32,
        /// Workloads of the tenant, or a part of it, that run there.
        own_workloads: u32,
        /// Others' workloads that still run there, by id.
        others: Vec<claw_proto::ids::WorkloadId>,
        /// It has begun.
        active: bool,
        /// From when on.
        starts_at: Timestamp,
        /// Until when.
        ends_at: Timestamp,
        /// Who asked for it.
        by: String,
    }
}
output! {
    /// All reservations, the next to begin first.
    ReservationList {
        /// In a sentence.
        summary: String,
        /// Reservations.
        reservations: Vec<ReservationView>,
    }
}
