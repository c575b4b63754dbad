//! `quota_get`.

use std::collections::BTreeMap;

use claw_proto::time::Timestamp;
use claw_tools::quotas::{QuotaGetParams, QuotaHeld, QuotaList, QuotaView};
use claw_tools::refusal::Refusal;
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use crate::Cluster;
use crate::scheduler::fairness::Amounts;
use crate::tenancy::{Board, Tenant, amounts, counted, seconds, unknown};

/// Workloads of a tenant's own: that hold a place, that wait, that wait for the quota.
type Counts = (u32, u32, u32);

/// `quota_get`.
///
/// # Errors
/// `NOT_FOUND` where the tenant is none.
pub fn quota_list(cluster: &Cluster, p: &QuotaGetParams, now: Timestamp) -> Result<QuotaList, Refusal> {
    if let Some(name) = p.tenant.as_deref().filter(|name| cluster.tenants.get(name).is_none()) {
        return Err(unknown(cluster, name).with_field("tenant", name));
    }
    let board = Board::of(cluster);
    let counts = counts(cluster);
    let is_wanted =
        |entry: &Tenant| p.tenant.as_ref().is_none_or(|name| cluster.tenants.counts_for(Some(&entry.name), name));
    let wanted = cluster.tenants.iter().filter(|entry| is_wanted(entry));
    let tenants: Vec<QuotaView> =
        wanted.map(|entry| view(&board, entry, counts.get(&*entry.name).copied(), now)).collect();
    let tops = cluster.tenants.iter().filter(|entry| entry.quota.parent.is_none());
    let promised = tops.fold(Amounts::default(), |sum, entry| sum.plus(amounts(&entry.quota.guaranteed, 0)));
    let fleet = cluster.nodes.capacity();
    let overpromised = promised.beyond(fleet).is_some();
    let summary = summary(cluster.tenants.len(), &tenants, overpromised);
    Ok(QuotaList { summary, tenants, fleet: held(fleet), overpromised })
}

fn counts(cluster: &Cluster) -> BTreeMap<&str, Counts> {
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    for w in cluster.workloads.iter().filter(|w| !w.state.is_final()) {
        let Some(tenant) = w.spec.spec().tenant.as_deref() else { continue };
        let (running, waiting, for_quota) = counts.entry(tenant).or_default();
        *running += u32::from(w.live().is_some());
        *waiting += u32::from(w.state == WorkloadState::Pending);
        *for_quota += u32::from(w.state == WorkloadState::Pending && w.reason == WorkloadReason::QuotaExceeded);
    }
    counts
}

fn view(board: &Board, entry: &Tenant, counts: Option<Counts>, now: Timestamp) -> QuotaView {
    let (running, waiting, waiting_for_quota) = counts.unwrap_or_default();
    let percent = |share: f64| (share * 10_000.0).round() / 100.0;
    let lately = board.group_of(&entry.name).map_or(0.0, |group| board.shares.lately(group, seconds(now)));
    QuotaView {
        tenant: entry.name.to_string(),
        quota: (*entry.quota).clone(),
        held: held(entry.books.held),
        borrows: borrows(entry),
        share_percent: percent(entry.books.held.dominant_share(board.shares.whole())),
        lately_percent: percent(lately),
        running,
        waiting,
        waiting_for_quota,
    }
}

/// It holds more of something than it is guaranteed of it, or what it is guaranteed nothing of.
fn borrows(entry: &Tenant) -> bool {
    let (guaranteed, held) = (amounts(&entry.quota.guaranteed, 0), entry.books.held);
    let mut spoken =
        guaranteed.0.iter().zip(held.0).filter(|(guaranteed, held)| **guaranteed > 0 && *held > 0).peekable();
    match spoken.peek() {
        None => held != Amounts::default(),
        Some(_) => spoken.any(|(guaranteed, held)| held > *guaranteed),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "GPUs of a fleet, a whole number from 0")]
fn held(amounts: Amounts) -> QuotaHeld {
    let [gpus, cpu_cores, memory_gib] = counted(amounts);
    QuotaHeld { gpus: gpus.min(f64::from(u32::MAX)) as u32, cpu_cores, memory_gib }
}

fn summary(n_tenants: usize, shown: &[QuotaView], overpromised: bool) -> String {
    if n_tenants == 0 {
        return "no tenants: everybody may have what is free, by priority and age".into();
    }
    let n_waiting: u32 = shown.iter().map(|row| row.waiting_for_quota).sum();
    let borrowers: Vec<&str> = shown.iter().filter(|row| row.borrows).map(|row| row.tenant.as_str()).take(5).collect();
    let mut text = format!("{} tenant(s), {n_waiting} workload(s) wait for a quota", shown.len());
    if !borrowers.is_empty() {
        text = format!("{text}; beyond their guarantee: {}", borrowers.join(", "));
    }
    if overpromised {
        text.push_str("; more is guaranteed than the fleet has");
    }
    text
}
