//! `reservation_list`.

use claw_proto::time::Timestamp;
use claw_tools::refusal::Refusal;
use claw_tools::reservations::{Reservation, ReservationList, ReservationListParams, ReservationView};

use crate::Cluster;
use crate::tenancy::unknown;

/// `reservation_list`.
///
/// # Errors
/// `NOT_FOUND` where the tenant or the node is none.
pub fn reservation_list(
    cluster: &Cluster,
    p: &ReservationListParams,
    now: Timestamp,
) -> Result<ReservationList, Refusal> {
    if let Some(name) = p.tenant.as_deref().filter(|name| cluster.tenants.get(name).is_none()) {
        return Err(unknown(cluster, name).with_field("tenant", name));
    }
    let node_id = p.node.as_deref().map(|text| cluster.resolve_node(text)).transpose()?.map(|node| node.node_id);
    let is_wanted = |kept: &Reservation| {
        p.tenant.as_ref().is_none_or(|tenant| kept.tenant == *tenant)
            && node_id.is_none_or(|node_id| kept.nodes.contains(&node_id))
            && kept.ends_at > now
    };
    let wanted = cluster.reservations.iter().filter(|kept| is_wanted(kept));
    let mut reservations: Vec<ReservationView> = wanted.map(|kept| view(cluster, kept, now)).collect();
    reservations.sort_by(|a, b| (a.starts_at, &a.name).cmp(&(b.starts_at, &b.name)));
    let n_active = reservations.iter().filter(|kept| kept.active).count();
    let summary = match reservations.len() {
        0 => "nothing is reserved".to_owned(),
        n => format!("{n} reservation(s), {n_active} of them active"),
    };
    Ok(ReservationList { summary, reservations })
}

fn view(cluster: &Cluster, kept: &Reservation, now: Timestamp) -> ReservationView {
    let nodes: Vec<_> = kept.nodes.iter().filter_map(|id| cluster.nodes.get(*id)).collect();
    let is_its = |tenant: Option<&str>| cluster.tenants.counts_for(tenant, &kept.tenant);
    let ids = nodes.iter().flat_map(|node| node.usage.workloads.iter().copied());
    let (mut own, mut others) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for id in ids {
        let tenant = cluster.workloads.get(id).and_then(|w| w.spec.spec().tenant.as_deref());
        if is_its(tenant) {
            own.insert(id)
        } else {
            others.insert(id)
        };
    }
    let few = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    ReservationView {
        name: kept.name.clone(),
        tenant: kept.tenant.clone(),
        nodes: nodes.iter().map(|node| node.name.clone()).collect(),
        nodes_gone: few(kept.nodes.len() - nodes.len()),
        gpus: few(nodes.iter().map(|node| node.whole_gpus().count()).sum()),
        own_workloads: few(own.len()),
        others: others.into_iter().collect(),
        active: kept.starts_at <= now,
        starts_at: kept.starts_at,
        ends_at: kept.ends_at,
        by: kept.by.clone(),
    }
}
