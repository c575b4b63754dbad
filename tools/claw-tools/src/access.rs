//! Who may do what: roles, permissions and risk tiers, as one table each.

use claw_proto::closed_enum;

closed_enum! {
    /// What a credential may do in general.
    Role {
        /// Looks only.
        Viewer = "viewer",
        /// Runs work and operates nodes.
        Operator = "operator",
        /// Everything, access and approval included.
        Admin = "admin"
    }
}

closed_enum! {
    /// What one operation needs.
    Permission {
        /// See the state of the fleet.
        Read = "read",
        /// See what workloads wrote.
        Logs = "logs",
        /// See the event journal.
        EventsRead = "events_read",
        /// Run and stop workloads, apply and undo one's plans.
        WorkloadWrite = "workload_write",
        /// Run commands inside running workloads.
        WorkloadExec = "workload_exec",
        /// Cordon, drain and label nodes.
        NodeWrite = "node_write",
        /// Enroll, configure and remove nodes.
        NodeAdmin = "node_admin",
        /// Store, replace and delete secrets of one's own.
        SecretWrite = "secret_write",
        /// Make tenants and set their quotas.
        QuotaAdmin = "quota_admin",
        /// Make and revoke credentials.
        AccessAdmin = "access_admin",
        /// Decide on somebody's plan.
        Approve = "approve"
    }
}

closed_enum! {
    /// Who holds a credential; a person's confirmation counts, a program's does not.
    PrincipalKind { Person = "person", Agent = "agent" }
}

closed_enum! {
    /// How much harm an operation can do, computed from its effect.
    Tier {
        /// Reads.
        Read = "0",
        /// Reversible, own work, bounded.
        Reversible = "1",
        /// Evicts others' work, many nodes, money, secrets or access.
        Disruptive = "2",
        /// Irreversible or fleet-wide.
        Irreversible = "3"
    }
}

impl Role {
    /// The one table of roles and permissions.
    pub const fn allows(self, permission: Permission) -> bool {
        use Permission as P;
        match (self, permission) {
            (Self::Admin, _) => true,
            (Self::Operator | Self::Viewer, P::Read | P::Logs | P::EventsRead) => true,
            (Self::Operator, P::WorkloadWrite | P::WorkloadExec | P::NodeWrite | P::SecretWrite) => true,
            (Self::Operator, P::NodeAdmin | P::QuotaAdmin | P::AccessAdmin | P::Approve) => false,
            (
                Self::Viewer,
                P::WorkloadWrite
                | P::WorkloadExec
                | P::NodeWrite
                | P::NodeAdmin
                | P::SecretWrite
                | P::QuotaAdmin
                | P::AccessAdmin
                | P::Approve,
            ) => false,
        }
    }
}
