//! In which order those that wait are tried: by the queue alone where nobody has a
//! quota, else by [`Shares::next`](crate::scheduler::fairness::Shares::next) over the
//! first of each tenant.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use claw_proto::ids::WorkloadId;
use claw_proto::time::Timestamp;
use claw_tools::workloads::PlacementReport;

use super::{Board, blocked, claimants, known, over, report, seconds, whole_amounts};
use crate::Cluster;
use crate::scheduler::fairness::{Amounts, Ask};
use crate::scheduler::{self, Trial};
use crate::workload::WorkloadEntry;

/// In which order those that wait are tried at this moment, from 1, as long as nobody gets a place;
/// without those that their tenant's quota keeps from starting.
pub(crate) fn order(cluster: &Cluster, now: Timestamp) -> BTreeMap<WorkloadId, u32> {
    // Who is held behind a gate is not tried.
    let is_tried = |id: &WorkloadId| cluster.workloads.get(*id).is_some_and(|w| w.gates.is_empty());
    let mut turns = Turns::of(cluster, cluster.workloads.queue().filter(is_tried).collect(), now);
    let mut order = BTreeMap::new();
    let mut place = 1;
    while let Some(turn) = turns.next(cluster) {
        if let Turn::Try(id) = turn {
            order.insert(id, place);
            place += 1;
        }
    }
    order
}

/// Who is tried next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// This one may start, if there is room.
    Try(WorkloadId),
    /// This one may not, whatever room there is.
    Blocked(WorkloadId, Arc<PlacementReport>),
}

/// The waiting, in turn.
#[derive(Debug)]
pub(crate) enum Turns {
    /// In the order of the queue.
    Queue(std::vec::IntoIter<WorkloadId>),
    /// This one alone: nobody's turn has to be weighed against it.
    One(Option<Turn>),
    /// In the order of fair shares.
    Fair(Box<Fair>),
}

/// One that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: WorkloadId,
    priority: u32,
    turn: u64,
    amounts: Amounts,
}

/// One for whom room is made.
#[derive(Debug, Clone, Copy)]
struct Claimant {
    priority: u32,
    /// With it its tenant holds more than it is guaranteed.
    borrows: bool,
}

/// Those that wait, by tenant.
#[derive(Debug)]
pub(crate) struct Fair {
    board: Board,
    now: Timestamp,
    /// Those that are tried before their turn, in the order of the queue: who are held back, so that
    /// their reason is set; and for whom room is made.
    early: VecDeque<(WorkloadId, Option<Claimant>)>,
    lines: BTreeMap<usize, VecDeque<Waiting>>,
    /// Those for whom room is being made: what they will hold is taken already.
    promised: BTreeMap<WorkloadId, Claimant>,
}

impl Turns {
    /// These of the queue, in its order.
    pub(crate) fn of(cluster: &Cluster, queue: Vec<WorkloadId>, now: Timestamp) -> Self {
        if cluster.tenants.is_empty() || queue.is_empty() {
            return Self::Queue(queue.into_iter());
        }
        if let [only] = queue[..] {
            return Self::One(cluster.workloads.get(only).map(|entry| alone(cluster, entry, now)));
        }
        Self::Fair(Box::new(Fair::of(cluster, &queue, now)))
    }

    /// The next; each comes once.
    pub(crate) fn next(&mut self, cluster: &Cluster) -> Option<Turn> {
        match self {
            Self::Queue(queue) => queue.next().map(Turn::Try),
            Self::One(turn) => turn.take(),
            Self::Fair(fair) => fair.next(cluster),
        }
    }

    /// The one that was tried has got its place, or room is made for it.
    pub(crate) fn taken(&mut self, entry: &WorkloadEntry) {
        if let Self::Fair(fair) = self
            && !fair.promised.contains_key(&entry.workload_id)
        {
            // It was admitted when its turn came, and nobody was since.
            fair.promised.extend(promised(&mut fair.board, entry, fair.now));
        }
    }
}

fn alone(cluster: &Cluster, entry: &WorkloadEntry, now: Timestamp) -> Turn {
    let id = entry.workload_id;
    if entry.held_back(now).is_some() {
        return Turn::Try(id);
    }
    let told = blocked(cluster, &entry.spec, Some(entry)).or_else(|| passes(cluster, entry, now).map(behind));
    told.map_or(Turn::Try(id), |told| Turn::Blocked(id, Arc::new(told)))
}

impl Fair {
    fn of(cluster: &Cluster, queue: &[WorkloadId], now: Timestamp) -> Self {
        let mut board = Board::of(cluster);
        let promised: BTreeMap<_, _> =
            claimants(cluster, None).filter_map(|entry| promised(&mut board, entry, now)).collect();
        let (mut early, mut lines) = (VecDeque::new(), BTreeMap::<usize, VecDeque<Waiting>>::new());
        for entry in queue.iter().filter_map(|id| cluster.workloads.get(*id)) {
            let claimant = promised.get(&entry.workload_id).copied();
            if entry.held_back(now).is_some() {
                early.push_back((entry.workload_id, None));
                continue;
            }
            if claimant.is_some() {
                early.push_back((entry.workload_id, claimant));
                continue;
            }
            let (id, turn, amounts) = (entry.workload_id, entry.order, whole_amounts(&entry.spec));
            let waiting = Waiting { id, priority: entry.spec.priority().value(), turn, amounts };
            lines.entry(board.group(&entry.spec)).or_default().push_back(waiting);
        }
        Self { board, now, early, lines, promised }
    }

    fn next(&mut self, cluster: &Cluster) -> Option<Turn> {
        if let Some((id, _)) = self.early.front().copied().filter(|(_, claimant)| self.is_due(*claimant)) {
            self.early.pop_front();
            return Some(Turn::Try(id));
        }
        if let Some(blocked) = self.blocked(cluster) {
            return Some(blocked);
        }
        let heads = self.lines.iter().filter_map(|(group, line)| Some((*group, line.front()?)));
        let asks: Vec<Ask> =
            heads.map(|(group, w)| Ask { group, priority: w.priority, turn: w.turn, amounts: w.amounts }).collect();
        let next = self.board.shares.next(&asks, seconds(self.now))?;
        self.lines.get_mut(&asks[next].group)?.pop_front().map(|waiting| Turn::Try(waiting.id))
    }

    /// Nobody goes before one for whom room is made: the more important do, but for those who would borrow
    /// where it does not.
    fn is_due(&self, claimant: Option<Claimant>) -> bool {
        let Some(Claimant { priority, borrows }) = claimant else { return true };
        let goes_before = |(group, line): (&usize, &VecDeque<Waiting>)| {
            line.front().is_some_and(|head| {
                head.priority > priority && (borrows || self.board.shares.within_guarantee(*group, head.amounts))
            })
        };
        !self.lines.iter().any(goes_before)
    }

    /// The first of a tenant that its quota, or one before it, keeps from starting.
    fn blocked(&mut self, cluster: &Cluster) -> Option<Turn> {
        let (group, id, told) = self.lines.iter().find_map(|(group, line)| {
            let first = line.front()?;
            let entry = cluster.workloads.get(first.id)?;
            let short = self.board.shares.admits(*group, first.amounts).err();
            let told = short.map(|shortage| report(&self.board, &entry.spec, shortage));
            Some((*group, first.id, told.or_else(|| passes(cluster, entry, self.now).map(behind))?))
        })?;
        self.lines.get_mut(&group)?.pop_front();
        Some(Turn::Blocked(id, Arc::new(told)))
    }
}

/// What room is made for is its tenant's from now on, if it may have it.
fn promised(board: &mut Board, entry: &WorkloadEntry, now: Timestamp) -> Option<(WorkloadId, Claimant)> {
    let (group, amounts) = (board.group(&entry.spec), whole_amounts(&entry.spec));
    let borrows = !board.shares.within_guarantee(group, amounts);
    board.shares.take(group, amounts, seconds(now)).ok()?;
    Some((entry.workload_id, Claimant { priority: entry.spec.priority().value(), borrows }))
}

/// The one of the same tenant that has waited long for the quota, and that this one would pass.
fn passes<'a>(cluster: &'a Cluster, entry: &WorkloadEntry, now: Timestamp) -> Option<&'a WorkloadEntry> {
    let tenant = entry.spec.spec().tenant.as_deref()?;
    let before = now.plus_ms(-cluster.policy.reserve_after_ms);
    let long = cluster.workloads.quota_waiters(tenant).take_while(|w| w.since <= before);
    let is_passed = |w: &&Arc<WorkloadEntry>| {
        w.workload_id != entry.workload_id && w.outranks(entry) && waits_for_bound(cluster, w)
    };
    long.into_iter().find(is_passed).map(|w| &**w)
}

/// It waits for a bound of its tenant, and could start once enough is given back: one that the
/// bound does not allow any more, or that no node could ever take, holds nobody back.
fn waits_for_bound(cluster: &Cluster, entry: &WorkloadEntry) -> bool {
    let (tenant, wanted) = (entry.spec.spec().tenant.as_deref(), whole_amounts(&entry.spec));
    let could_ever = || !matches!(scheduler::attempt(cluster, entry), Trial::Wait { waiting_helps: false });
    over(cluster, &entry.spec, Some(entry)).is_some() && known(cluster, tenant, wanted).is_ok() && could_ever()
}

/// Why one that has both room and quota waits: it stands behind another of its tenant.
pub(crate) fn waits_behind(cluster: &Cluster, entry: &WorkloadEntry) -> Option<PlacementReport> {
    passes(cluster, entry, Timestamp::from_unix_ms(i64::MAX)).map(behind)
}

fn behind(first: &WorkloadEntry) -> PlacementReport {
    PlacementReport {
        summary: format!("it waits behind {}, which has waited long for the quota of the same tenant", first.name),
        considered: 0,
        chosen: None,
        rejected: Vec::new(),
        runner_up: None,
        waiting_helps: true,
    }
}
