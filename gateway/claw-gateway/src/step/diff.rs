//! The change of desired state that a command makes, in canonical order.

use std::collections::BTreeSet;

use claw_proto::ids::WorkloadId;
use claw_tools::outcome::Change;
use claw_tools::quotas::QuotaAmounts;
use claw_tools::reservations::Reservation;
use imbl::ordmap::DiffItem;
use sha2::{Digest, Sha256};

use crate::Cluster;
use crate::cluster::{ExecEntry, SecretEntry};
use crate::registry::NodeEntry;
use crate::tenancy::Tenant;
use crate::workload::{AttemptEntry, Desired, WorkloadEntry};

/// Desired state before against after. Unchanged parts are shared and cost nothing.
pub(super) fn diff(before: &Cluster, after: &Cluster) -> Vec<Change> {
    let mut changes = Vec::new();
    for item in before.workloads.map().diff(after.workloads.map()) {
        let (old, new) = sides(&item);
        compare(
            &mut changes,
            "workload",
            old.map(|w| workload_fields(before, w)),
            new.map(|w| workload_fields(after, w)),
        );
    }
    for item in before.nodes.map().diff(after.nodes.map()) {
        let (old, new) = sides(&item);
        compare(&mut changes, "node", old.map(|n| node_fields(n)), new.map(|n| node_fields(n)));
    }
    for item in before.execs.diff(&after.execs) {
        let (old, new) = sides(&item);
        compare(&mut changes, "workload", old.map(|e| exec_fields(e)), new.map(|e| exec_fields(e)));
    }
    for item in before.tenants.map().diff(after.tenants.map()) {
        let (old, new) = sides(&item);
        compare(&mut changes, "tenant", old.map(|t| tenant_fields(t)), new.map(|t| tenant_fields(t)));
    }
    for item in before.reservations.map().diff(after.reservations.map()) {
        let (old, new) = sides(&item);
        let fields = |cluster: &Cluster, kept: &Reservation| {
            let name = |id| cluster.nodes.get(id).map_or_else(|| id.to_string(), |node| node.name.clone());
            let nodes: Vec<String> = kept.nodes.iter().map(|id| name(*id)).collect();
            let when = format!("{} to {}", kept.starts_at, kept.ends_at);
            (kept.name.clone(), vec![("for", kept.tenant.clone()), ("nodes", nodes.join(" ")), ("when", when)])
        };
        compare(&mut changes, "reservation", old.map(|r| fields(before, r)), new.map(|r| fields(after, r)));
    }
    for item in before.secrets.diff(&after.secrets) {
        let (old, new) = sides(&item);
        compare(&mut changes, "secret", old.map(|s| secret_fields(s)), new.map(|s| secret_fields(s)));
    }
    for item in before.keys.diff(&after.keys) {
        let (old, new) = sides(&item);
        let fields = |k: &crate::cluster::KeyEntry| {
            let what = format!("{} key for {} ({})", k.role, k.principal, k.kind);
            (k.key_id.to_string(), vec![("key", what), ("valid", (!k.revoked).to_string())])
        };
        compare(&mut changes, "key", old.map(|k| fields(k)), new.map(|k| fields(k)));
    }
    for item in before.tokens.diff(&after.tokens) {
        let (old, new) = sides(&item);
        let fields = |t: &crate::cluster::TokenEntry| {
            let what = format!("one node named {}", t.name.as_deref().unwrap_or("anything"));
            (t.token_id.to_string(), vec![("token", what), ("valid", (!t.revoked).to_string())])
        };
        compare(&mut changes, "token", old.map(|t| fields(t)), new.map(|t| fields(t)));
    }
    let authority = |c: &Cluster| ("certificate authority".to_owned(), vec![("rotation", c.ca.requested.to_string())]);
    if before.ca.requested != after.ca.requested {
        compare(&mut changes, "fleet", Some(authority(before)), Some(authority(after)));
    }
    changes.sort();
    changes
}

/// Workloads that would lose their place or be told to end.
pub(super) fn evicted(before: &Cluster, after: &Cluster) -> BTreeSet<WorkloadId> {
    let mut evicted = BTreeSet::new();
    for item in before.workloads.map().diff(after.workloads.map()) {
        let (old, new) = sides(&item);
        let Some(old) = old.filter(|w| !w.state.is_final() && w.desired != Desired::Stop) else {
            continue;
        };
        // One that is being moved loses, too, if it is to end instead.
        let loses = new.is_none_or(|w| {
            (w.desired != Desired::Run && w.desired != old.desired)
                || w.state.is_final()
                || (old.live().is_some() && w.live().map(AttemptEntry::first) != old.live().map(AttemptEntry::first))
        });
        if loses {
            evicted.insert(old.workload_id);
        }
    }
    evicted
}

/// Work of others that is kept from starting by a gate that was not closed before.
pub(super) fn holds_others(before: &Cluster, after: &Cluster, principal: &str) -> bool {
    let is_held = |item: DiffItem<'_, '_, WorkloadId, std::sync::Arc<WorkloadEntry>>| match sides(&item) {
        (Some(old), Some(new)) => {
            old.submitted_by != principal && new.gates.iter().any(|gate| !old.gates.contains(gate))
        }
        _ => false,
    };
    before.workloads.map().diff(after.workloads.map()).any(is_held)
}

/// SHA-256 of the canonical diff, hex.
pub(super) fn hash(changes: &[Change]) -> String {
    let canonical = serde_json::to_vec(changes).expect("changes hold only strings");
    hex(&Sha256::digest(&canonical))
}

type Fields = (String, Vec<(&'static str, String)>);

fn workload_fields(cluster: &Cluster, w: &WorkloadEntry) -> Fields {
    let place = match (w.live(), w.desired) {
        (Some(_), Desired::Move | Desired::Regroup) => "to be moved".to_owned(),
        (Some(_), Desired::Run | Desired::Stop) => w.lives().map(|a| place(cluster, a)).collect::<Vec<_>>().join(", "),
        (None, _) if w.state.is_final() => String::new(),
        (None, _) => "queue".to_owned(),
    };
    let wanted = match w.desired {
        _ if w.state.is_final() => "ended",
        Desired::Run | Desired::Move | Desired::Regroup => "run",
        Desired::Stop => "stop",
    };
    (
        w.workload_id.to_string(),
        vec![
            ("gates", w.gates.join(" ")),
            ("name", w.name.clone()),
            ("place", place),
            ("what", what(w)),
            ("wanted", wanted.to_owned()),
        ],
    )
}

fn place(cluster: &Cluster, a: &AttemptEntry) -> String {
    let node = cluster.nodes.get(a.node_id).map_or_else(|| a.node_id.to_string(), |n| n.name.clone());
    let gpus: Vec<String> = a.gpus.iter().map(ToString::to_string).collect();
    if gpus.is_empty() { node } else { format!("{node} [{}]", gpus.join(" ")) }
}

fn what(w: &WorkloadEntry) -> String {
    let spec = serde_json::to_vec(w.spec.spec()).unwrap_or_default();
    let digest = hex(&Sha256::digest(&spec)[..6]);
    format!("{} (spec {digest})", crate::query::what(w.spec.spec()))
}

fn node_fields(n: &NodeEntry) -> Fields {
    let labels: Vec<String> = n.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let settings = format!(
        "metrics every {} ms, log buffer {} bytes",
        n.settings.metrics_interval_ms, n.settings.log_buffer_bytes
    );
    // Draining becomes drained by itself: the same wish.
    let schedulable = if n.schedulable == claw_tools::nodes::Schedulable::Drained {
        claw_tools::nodes::Schedulable::Draining
    } else {
        n.schedulable
    };
    let credentials = if n.is_revoked() { "revoked" } else { "valid" };
    (
        n.name.clone(),
        vec![
            ("certificates", credentials.to_owned()),
            ("labels", labels.join(",")),
            ("member", "yes".to_owned()),
            ("schedulable", schedulable.to_string()),
            ("settings", settings),
        ],
    )
}

fn tenant_fields(t: &Tenant) -> Fields {
    let q = &t.quota;
    let amounts = |of: &QuotaAmounts, none: &str| {
        let named = [(of.gpus, "GPUs"), (of.cpu_cores, "cores"), (of.memory_gib, "GiB of memory")];
        let told: Vec<String> = named.iter().filter_map(|(n, what)| n.map(|n| format!("{n} {what}"))).collect();
        if told.is_empty() { none.to_owned() } else { told.join(", ") }
    };
    let members: Vec<&str> = q.members.iter().map(String::as_str).collect();
    (
        t.name.to_string(),
        vec![
            ("guaranteed", amounts(&q.guaranteed, "nothing")),
            ("lends", q.lends.to_string()),
            ("members", members.join(" ")),
            ("most", amounts(&q.most, "no bound")),
            ("part of", q.parent.clone().unwrap_or_default()),
            ("weight", q.weight.to_string()),
        ],
    )
}

fn secret_fields(s: &SecretEntry) -> Fields {
    let users: Vec<&str> = std::iter::once(&s.access.owner).chain(&s.access.used_by).map(String::as_str).collect();
    let fields = vec![("used by", users.join(" ")), ("value", format!("version {}", s.version))];
    (s.handle.clone(), fields)
}

fn exec_fields(e: &ExecEntry) -> Fields {
    let what = format!("{} within {} s", serde_json::json!(e.command), e.timeout_s);
    (format!("{} attempt {}", e.workload_id, e.attempt.0), vec![("exec", what)])
}

fn compare(changes: &mut Vec<Change>, kind: &str, old: Option<Fields>, new: Option<Fields>) {
    let name = new.as_ref().or(old.as_ref()).map_or_else(String::new, |(name, _)| name.clone());
    let old = old.map(|(_, fields)| fields).unwrap_or_default();
    let new = new.map(|(_, fields)| fields).unwrap_or_default();
    let keys: BTreeSet<&str> = old.iter().chain(&new).map(|(key, _)| *key).collect();
    let value = |fields: &[(&'static str, String)], key: &str| {
        fields.iter().find(|(k, _)| *k == key).map_or_else(String::new, |(_, v)| v.clone())
    };
    for key in keys {
        let (from, to) = (value(&old, key), value(&new, key));
        if from != to {
            changes.push(Change { subject: format!("{kind} {name}"), field: key.to_owned(), from, to });
        }
    }
}

fn sides<'a, K, V>(
    item: &DiffItem<'a, 'a, K, std::sync::Arc<V>>,
) -> (Option<&'a std::sync::Arc<V>>, Option<&'a std::sync::Arc<V>>) {
    match item {
        DiffItem::Add(_, new) => (None, Some(*new)),
        DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
        DiffItem::Remove(_, old) => (Some(*old), None),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}
