//! Does one node fit, and with which GPUs?

mod fixed;
mod kinds;
mod numa;

use std::sync::Arc;

use claw_proto::spec::{Placement, RuntimeKind};
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use claw_proto::validation::{Demand, GPU_MILLI, ValidSpec};
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::workloads::PlacementReason as R;
use smallvec::{SmallVec, smallvec};

pub(super) use self::fixed::{Fixed, Found};
use self::kinds::{caps, is_of_kind, is_of_model, is_of_vendor, is_wanted, kinds};
pub(super) use self::numa::splits as splits_numa;
use super::likely::Losses;
use super::rank::Rank;
use super::view::{Gpu, View};
use super::{Candidate, LEFT_MAX, MILLI_LEFT_MAX, Score, runtime_for, spreads};
use crate::Cluster;
use crate::registry::NodeEntry;
use crate::reservations;
use crate::workload::{WorkloadEntry, ends_by};

/// Why a node does not fit, with the number that is missing. The words are made when they are
/// asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Miss {
    pub(super) reason: R,
    /// What there is.
    pub(super) has: u64,
    /// Of how much, or what else the reason counts.
    pub(super) of: u64,
}

/// It has room, but not for who has to be kept apart from what is there or near.
pub(super) const KEPT_APART: Miss = Miss { reason: R::KeptApart, has: 0, of: 0 };

type Check = Result<(), Miss>;

/// Room that is being made for others, as far as it concerns who asks.
#[derive(Clone, Copy)]
pub(super) struct Claims<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) asker: Option<&'a WorkloadEntry>,
    /// When it will have ended at the latest, if it begins now and that is known.
    pub(super) ends_at: Option<Timestamp>,
    /// With it its tenant holds no more than it is guaranteed.
    pub(super) is_guaranteed: bool,
}

/// GPUs of one node; most nodes have eight, and those need no memory of their own.
type Gpus = SmallVec<[Gpu; 8]>;

/// How a node would take it: the GPUs of a [`Fit`] before they are kept for longer.
struct Judged {
    chosen: Gpus,
    runtime: RuntimeKind,
    score: Score,
}

/// How a node would take it.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    /// GPUs, in order of their index on the node.
    chosen: Arc<[Gpu]>,
    runtime: RuntimeKind,
    pub(super) score: Score,
}

impl Fit {
    /// With these GPUs, in order of their index on the node.
    pub(super) fn new(chosen: Arc<[Gpu]>, runtime: RuntimeKind, score: Score) -> Self {
        Self { chosen, runtime, score }
    }

    /// Which GPUs, by their places, with which runtime, and how well as far as ranks tell.
    pub(super) fn named(&self) -> (Vec<u16>, RuntimeKind, Rank) {
        (self.chosen.iter().map(|gpu| gpu.at).collect(), self.runtime, Rank::of(&self.score))
    }

    /// On this node.
    pub(super) fn candidate(self, view: &View) -> Candidate<'_> {
        Candidate { view, chosen: self.chosen, runtime: self.runtime, score: self.score }
    }
}

fn miss(reason: R, has: u64, of: u64) -> Miss {
    Miss { reason, has, of }
}

fn count(n: usize) -> u64 {
    n as u64
}

/// What is asked of a node's GPUs: the demand, with one of its models.
#[derive(Clone, Copy)]
struct Ask<'a> {
    demand: &'a Demand,
    /// None for any.
    model: Option<&'a str>,
    /// Kinds of the node's GPUs that are wanted, as bits: asked once for each and not for each GPU.
    kinds: u64,
}

impl std::ops::Deref for Ask<'_> {
    type Target = Demand;

    fn deref(&self) -> &Demand {
        self.demand
    }
}

/// How the node would take it, or the most severe reason why not. What will never fit comes
/// before what only waits. Without `claims`, room that is being made keeps nobody out.
pub(super) fn judge(view: &View, spec: &ValidSpec, claims: Option<Claims<'_>>, losses: &Losses) -> Result<Fit, Miss> {
    let Judged { chosen, runtime, score } = judge_models(view, spec, claims, losses)?;
    Ok(Fit { chosen: Arc::from(&chosen[..]), runtime, score })
}

/// The same, for who wants to know how well it fits and not with which GPUs: the reason of a
/// node that does not take it. `fixed` is what was found of the node when it was looked at first.
pub(super) fn score_of(view: &View, spec: &ValidSpec, losses: &Losses, fixed: &mut Option<Fixed>) -> Result<Score, R> {
    let demand = spec.node_demand();
    // Whoever names several models is asked about each: what is fixed is for those who look at numbers alone.
    if demand.gpu_models.len() > 1 {
        return judge_models(view, spec, None, losses).map(|judged| judged.score).map_err(|miss| miss.reason);
    }
    let fixed = fixed.get_or_insert_with(|| Fixed::of(view, spec));
    let runtime = fixed.answer?;
    judge_now(view, spec, (fixed.ask(demand), runtime), None, losses)
        .map(|judged| judged.score)
        .map_err(|miss| miss.reason)
}

/// How the node would take it, or why not, where this was found of the node for it, and nothing keeps it out for
/// good; nothing for a specification that names several models where the node has several kinds of GPUs.
pub(super) fn judge_fixed(view: &View, spec: &ValidSpec, fixed: &Fixed, losses: &Losses) -> Option<Result<Fit, Miss>> {
    let demand = spec.node_demand();
    let runtime = fixed.answer.ok().filter(|_| Fixed::is_of(view, demand))?;
    let judged = judge_now(view, spec, (fixed.ask(demand), runtime), None, losses);
    let fit = judged.map(|Judged { chosen, runtime, mut score }| {
        score.fallback = fixed.fallback(demand.gpu_models_ranked);
        Fit { chosen: Arc::from(&chosen[..]), runtime, score }
    });
    debug_assert_eq!(
        fit.as_ref().map(|fit| &fit.score),
        judge(view, spec, None, losses).as_ref().map(|fit| &fit.score)
    );
    Some(fit)
}

/// With GPUs of the best of its models.
fn judge_models(view: &View, spec: &ValidSpec, claims: Option<Claims<'_>>, losses: &Losses) -> Result<Judged, Miss> {
    let demand = spec.node_demand();
    let of = |model: Option<&String>| {
        let ask = Ask { demand, model: model.map(String::as_str), kinds: 0 };
        judge_model(view, spec, Ask { kinds: kinds(view, ask), ..ask }, claims, losses)
    };
    let [first, fallbacks @ ..] = &demand.gpu_models[..] else { return of(None) };
    let mut best = of(Some(first));
    for (model, fallback) in fallbacks.iter().zip(1_u8..) {
        if best.is_ok() && demand.gpu_models_ranked {
            break;
        }
        let verdict = of(Some(model)).map(|mut fit| {
            fit.score.fallback = if demand.gpu_models_ranked { fallback } else { 0 };
            fit
        });
        best = match (best, verdict) {
            (Ok(best), Ok(fit)) if fit.score < best.score => Ok(fit),
            // Of models that do not fit, the one that is nearest to fitting tells why.
            (Err(best), Err(miss)) if (miss.reason as u8) <= best.reason as u8 => Err(best),
            (Err(_), verdict) => verdict,
            (best, _) => best,
        };
    }
    best
}

/// The same, with GPUs of one model.
fn judge_model(
    view: &View,
    spec: &ValidSpec,
    demand: Ask<'_>,
    claims: Option<Claims<'_>>,
    losses: &Losses,
) -> Result<Judged, Miss> {
    let runtime = could(view, spec, demand)?;
    judge_now(view, spec, (demand, runtime), claims, losses)
}

/// Whether it would fit if the node were idle, and with which runtime: this changes only with what the
/// node has and how it is called.
fn could(view: &View, spec: &ValidSpec, demand: Ask<'_>) -> Result<RuntimeKind, Miss> {
    let Some(capabilities) = view.capabilities() else {
        return Err(miss(R::NodeUnreachable, 0, 0));
    };
    let node = &*view.node;
    selected(node, spec)?;
    let runtime = runtime_for(node, spec).ok_or_else(|| miss(R::RuntimeMissing, 0, 0))?;
    size(view, demand)?;
    short(capabilities.cpu_millis, demand.cpu_millis, R::CpuTooSmall)?;
    short(capabilities.memory_mib, demand.memory_mib, R::MemoryTooSmall)?;
    short(capabilities.disk_mib, demand.disk_mib, R::DiskTooSmall)?;
    Ok(runtime)
}

fn short(total: u64, wanted: u64, reason: R) -> Check {
    if total < wanted { Err(miss(reason, total, 0)) } else { Ok(()) }
}

/// Whether it fits as the node is now, where it could.
fn judge_now(
    view: &View,
    spec: &ValidSpec,
    (demand, runtime): (Ask<'_>, RuntimeKind),
    claims: Option<Claims<'_>>,
    losses: &Losses,
) -> Result<Judged, Miss> {
    let Some(capabilities) = view.capabilities() else {
        return Err(miss(R::NodeUnreachable, 0, 0));
    };
    let node = &*view.node;
    if node.link != NodeLink::Online {
        return Err(miss(R::NodeUnreachable, 0, 0));
    }
    if node.schedulable != Schedulable::Active {
        return Err(miss(R::NodeUnschedulable, 0, 0));
    }
    let is_own = reserved(view, spec, claims)?;
    room(view, demand)?;
    let free = free(view, demand, claims)?;
    short(capabilities.cpu_millis.saturating_sub(node.usage.cpu_millis), demand.cpu_millis, R::CpuBusy)?;
    short(capabilities.memory_mib.saturating_sub(node.usage.memory_mib), demand.memory_mib, R::MemoryBusy)?;
    short(capabilities.disk_mib.saturating_sub(node.usage.disk_mib), demand.disk_mib, R::DiskBusy)?;
    if let Some(claims) = claims {
        host_unclaimed(view, &demand, claims)?;
    }
    // Who wants to be spread does not mind what others could use.
    let loss = |chosen: &[Gpu]| if spreads(spec) { 0 } else { losses.loss(view, &demand, chosen) };
    let (chosen, lost) = if demand.is_share() {
        shared(&free, spreads(spec), view.n_islands, loss)
    } else {
        let chosen = choose(&free, view.n_islands, demand.gpus as usize);
        let lost = loss(&chosen);
        (chosen, lost)
    };
    let score = Score { lost, unreserved: !is_own, ..score(view, capabilities, spec, runtime, (&free, &chosen)) };
    Ok(Judged { chosen, runtime, score })
}

/// The specification names the node, or none, and bears its taints.
pub(super) fn is_let_in(node: &NodeEntry, spec: &ValidSpec) -> bool {
    selected(node, spec).is_ok()
}

fn selected(node: &NodeEntry, spec: &ValidSpec) -> Check {
    let placement = spec.spec().placement.as_ref();
    placement.map_or(Ok(()), |placement| named(node, placement))?;
    let is_borne = |(label, value)| placement.is_some_and(|placement| placement.bears(label, value));
    if node.taints().all(is_borne) { Ok(()) } else { Err(miss(R::TaintNotTolerated, 0, 0)) }
}

fn named(node: &NodeEntry, placement: &Placement) -> Check {
    let is = |text: &String| *text == node.name || *text == node.node_id.to_string();
    if placement.node.as_ref().is_some_and(|wanted| !is(wanted)) {
        return Err(miss(R::NodeNotNamed, 0, 0));
    }
    if placement.exclude_nodes.iter().any(is) {
        return Err(miss(R::NodeExcluded, 0, 0));
    }
    if placement.zone.is_some() && node.labels.get("zone") != placement.zone.as_ref() {
        return Err(miss(R::ZoneMismatch, 0, 0));
    }
    let unlike = placement.labels.iter().position(|(key, value)| node.labels.get(key) != Some(value));
    unlike.map_or(Ok(()), |at| Err(miss(R::LabelMismatch, count(at), 0)))
}

/// Enough GPUs of the right model, vendor and memory, whoever holds them.
fn size(view: &View, demand: Ask<'_>) -> Check {
    let wanted = demand.gpus as usize;
    if wanted == 0 {
        return Ok(());
    }
    let is_large = |gpu: &&Gpu| is_wanted(view, gpu, demand);
    let n_large = view.gpus.iter().filter(is_large).count();
    if n_large < wanted {
        return Err(too_small(view, demand, n_large));
    }
    if demand.nvlink && wanted > 1 {
        let largest = largest_island(view, view.gpus.iter().filter(is_large));
        if largest < wanted {
            return Err(miss(R::NvlinkIslandTooSmall, count(largest), 0));
        }
    }
    Ok(())
}

/// What it is that its GPUs lack.
fn too_small(view: &View, demand: Ask<'_>, n_large: usize) -> Miss {
    let any = |has: &dyn Fn(&Gpu) -> bool| view.gpus.iter().any(has);
    if demand.mig_profile.is_some() && !any(&|gpu| is_of_kind(view, gpu, demand)) {
        return miss(R::MigProfileMissing, 0, 0);
    }
    if !view.gpus.is_empty() && !any(&|gpu| is_of_vendor(view, gpu, demand)) {
        return miss(R::GpuVendorMismatch, 0, 0);
    }
    if !view.gpus.is_empty() && !any(&|gpu| is_of_model(view, gpu, demand)) {
        return miss(R::GpuModelMismatch, 0, 0);
    }
    let right = || view.gpus.iter().filter(|gpu| is_of_kind(view, gpu, demand) && is_of_model(view, gpu, demand));
    let right_and_capped = || right().filter(|gpu| caps(view, gpu, demand));
    if right().next().is_some() && right_and_capped().next().is_none() {
        return miss(R::GpuMemoryUncapped, 0, 0);
    }
    let most = right_and_capped().map(|gpu| demand.memory_mib_of(gpu.memory_mib)).max();
    match most {
        Some(most) if n_large == 0 => miss(R::GpuMemoryTooSmall, most, 0),
        _ => miss(R::GpuCountTooSmall, count(n_large), 0),
    }
}

/// Enough of them are healthy and free.
fn room(view: &View, demand: Ask<'_>) -> Check {
    let wanted = demand.gpus as usize;
    let (mut n_healthy, mut n_free, mut most_free) = (0, 0, 0);
    for gpu in view.gpus.iter().filter(|gpu| wanted > 0 && gpu.is_healthy && is_wanted(view, gpu, demand)) {
        n_healthy += 1;
        n_free += usize::from(gpu.free_milli >= demand.gpu_milli);
        most_free = most_free.max(gpu.free_milli);
    }
    if n_healthy < wanted {
        return Err(miss(R::GpuUnhealthy, count(n_healthy), 0));
    }
    if n_free < wanted {
        let has = if demand.is_share() { u64::from(most_free) } else { count(n_free) };
        let of = if demand.mig_profile.is_some() { n_healthy } else { view.n_whole };
        return Err(miss(R::GpuBusy, has, count(of)));
    }
    Ok(())
}

/// It is kept for its tenant now; or for another one, and then it is not to be had.
fn reserved(view: &View, spec: &ValidSpec, claims: Option<Claims<'_>>) -> Result<bool, Miss> {
    let Some(Claims { cluster, .. }) = claims else { return Ok(false) };
    let (node_id, tenant) = (view.node_id(), spec.spec().tenant.as_deref());
    match reservations::keeping_out(cluster, node_id, spec) {
        Some(_) => Err(miss(R::NodeReserved, 0, 0)),
        None => Ok(reservations::is_kept_for(cluster, node_id, tenant)),
    }
}

/// Those that it can have.
fn free(view: &View, demand: Ask<'_>, claims: Option<Claims<'_>>) -> Result<Gpus, Miss> {
    let wanted = demand.gpus as usize;
    if wanted == 0 {
        return Ok(Gpus::new());
    }
    let is_free = |gpu: &&Gpu| gpu.is_healthy && gpu.free_milli >= demand.gpu_milli && is_wanted(view, gpu, demand);
    let mut free: Gpus = view.gpus.iter().filter(is_free).copied().collect();
    if let Some(claims) = claims {
        let n_free = free.len();
        free.retain(|gpu| {
            let kept = view.info(gpu).map_or(u32::MAX, |info| claims.kept_milli(&info.uuid));
            kept == 0 || u32::from(gpu.free_milli) >= kept.saturating_add(u32::from(demand.gpu_milli))
        });
        if free.len() < wanted {
            return Err(miss(R::RoomClaimed, count(n_free), count(n_free - free.len())));
        }
    }
    if demand.nvlink && wanted > 1 {
        let largest = largest_island(view, free.iter());
        if largest < wanted {
            return Err(miss(R::NvlinkIslandBusy, count(largest), 0));
        }
    }
    Ok(free)
}

impl Claims<'_> {
    /// A claim keeps out whoever stands behind it in the queue and may still be there when it begins; one
    /// that takes back a guarantee also who stands before it, is no more important and would borrow.
    fn binds(&self, claimant: &WorkloadEntry) -> bool {
        let Some(claim) = &claimant.claim else { return false };
        let comes_before = |asker: &WorkloadEntry| {
            let borrows = claim.reclaims
                && !self.is_guaranteed
                && asker.spec.priority().value() <= claimant.spec.priority().value();
            claimant.workload_id != asker.workload_id && (borrows || claimant.outranks(asker))
        };
        !claim.lets_in(self.ends_at) && self.asker.is_none_or(comes_before)
    }

    /// What of a GPU is kept for those before who asks, thousandths.
    pub(super) fn kept_milli(&self, gpu: &claw_proto::ids::GpuUuid) -> u32 {
        let claimants = self.cluster.workloads.claimants(gpu).filter(|claimant| self.binds(claimant));
        claimants.map(|claimant| u32::from(claimant.spec.demand().gpu_milli)).sum()
    }
}

/// What is being made free is still in use: a claim counts against what will be left when those who leave for
/// it, or end before it begins, are gone.
fn host_unclaimed(view: &View, demand: &Demand, claims: Claims<'_>) -> Check {
    let cluster = claims.cluster;
    let binding = || cluster.workloads.claimants_on(view.node_id()).filter(|claimant| claims.binds(claimant));
    let claimed: SmallVec<[&Demand; 4]> = binding().map(|claimant| claimant.spec.node_demand()).collect();
    let (false, Some(capabilities)) = (claimed.is_empty(), view.capabilities()) else { return Ok(()) };
    let begins_at = binding().map(|w| w.claim.as_ref().and_then(|claim| claim.begins_at));
    // Where several wait, the first may begin at any time.
    let begins_at = begins_at.reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b))).flatten();
    let leaves = |w: &WorkloadEntry| {
        let since = w.live_on(view.node_id()).and_then(|live| live.started_at).unwrap_or(cluster.clock);
        let ends = begins_at.zip(ends_by(&w.spec, since)).is_some_and(|(begins_at, ends_at)| ends_at <= begins_at);
        ends || binding().any(|by| by.claim.as_ref().is_some_and(|claim| claim.victims.contains(&w.workload_id)))
    };
    let usage = &view.node.usage;
    let leaving = usage.workloads.iter().filter_map(|id| cluster.workloads.get(*id)).filter(|w| leaves(w));
    let leaving: SmallVec<[&Demand; 8]> = leaving.map(|w| w.spec.node_demand()).collect();
    let short = |total: u64, used: u64, of: fn(&Demand) -> u64| {
        let sum = |some: &[&Demand]| some.iter().map(|demand| of(demand)).sum::<u64>();
        let stays = used.saturating_sub(sum(&leaving));
        total < stays.saturating_add(sum(&claimed)).saturating_add(of(demand))
    };
    if short(capabilities.cpu_millis, usage.cpu_millis, |d| d.cpu_millis)
        || short(capabilities.memory_mib, usage.memory_mib, |d| d.memory_mib)
        || short(capabilities.disk_mib, usage.disk_mib, |d| d.disk_mib)
    {
        return Err(miss(R::RoomClaimed, 0, count(claimed.len())));
    }
    Ok(())
}

/// How many of these each island has.
fn by_island<'a>(n_islands: usize, gpus: impl Iterator<Item = &'a Gpu>) -> SmallVec<[usize; 8]> {
    let mut counts = smallvec![0; n_islands];
    for island in gpus.filter_map(|gpu| gpu.island) {
        counts[usize::from(island)] += 1;
    }
    counts
}

fn largest_island<'a>(view: &View, gpus: impl Iterator<Item = &'a Gpu>) -> usize {
    by_island(view.n_islands, gpus).into_iter().max().unwrap_or(0)
}

/// The smallest island that is large enough; else, where NVLink is not demanded, the fewest
/// and fullest islands; smallest GPUs first.
fn choose(free: &[Gpu], n_islands: usize, wanted: usize) -> Gpus {
    if wanted == 0 {
        return Gpus::new();
    }
    if n_islands == 0 {
        return take(free.into(), wanted);
    }
    let counts = by_island(n_islands, free.iter());
    // Of equally large ones, that with the lowest index on the node.
    let mut first: SmallVec<[u32; 8]> = smallvec![u32::MAX; n_islands];
    for gpu in free {
        if let Some(island) = gpu.island.map(usize::from)
            && first[island] == u32::MAX
        {
            first[island] = gpu.index;
        }
    }
    let order = |island: u16| (counts[usize::from(island)], first[usize::from(island)]);
    let islands = (0..n_islands).filter_map(|island| u16::try_from(island).ok());
    let enough = islands.filter(|island| counts[usize::from(*island)] >= wanted).min_by_key(|island| order(*island));
    if let Some(island) = enough {
        return take(free.iter().filter(|gpu| gpu.island == Some(island)).copied().collect(), wanted);
    }
    let mut pool = Gpus::from(free);
    pool.sort_by_key(|gpu| std::cmp::Reverse(gpu.island.map(order)));
    pool.truncate(wanted);
    take(pool, wanted)
}

/// For a share: the GPU that takes least from likely work, and of equals that of which least is
/// left (most, for who wants to be spread) and whose island has the fewest whole ones, so that
/// others stay whole; with what it takes.
fn shared(free: &[Gpu], spreads: bool, n_islands: usize, loss: impl Fn(&[Gpu]) -> u32) -> (Gpus, u32) {
    let whole = by_island(n_islands, free.iter().filter(|gpu| gpu.free_milli == GPU_MILLI));
    let standing = |gpu: &Gpu| {
        let left = if spreads { GPU_MILLI - gpu.free_milli } else { gpu.free_milli };
        (left, gpu.island.map_or(0, |island| whole[usize::from(island)]), gpu.memory_mib)
    };
    let mut best = None;
    for (at, gpu) in free.iter().enumerate() {
        // Of equal ones the first stands for all.
        if free[..at].iter().any(|first| standing(first) == standing(gpu)) {
            continue;
        }
        let order = (loss(std::slice::from_ref(gpu)), standing(gpu));
        if best.as_ref().is_none_or(|(least, _)| order < *least) {
            best = Some((order, *gpu));
        }
    }
    best.map_or((Gpus::new(), 0), |((lost, _), gpu)| (smallvec![gpu], lost))
}

fn take(mut gpus: Gpus, wanted: usize) -> Gpus {
    gpus.sort_by_key(|g| (g.memory_mib, g.index));
    numa::nearest_first(&mut gpus, wanted);
    gpus.truncate(wanted);
    gpus.sort_by_key(|g| g.index);
    gpus
}

/// The island that all of them belong to.
pub(super) fn common_island(chosen: &[Gpu]) -> Option<u16> {
    let first = chosen.first()?.island?;
    chosen.iter().all(|g| g.island == Some(first)).then_some(first)
}

fn score(
    view: &View,
    capabilities: &NodeCapabilities,
    spec: &ValidSpec,
    runtime: RuntimeKind,
    (free, chosen): (&[Gpu], &[Gpu]),
) -> Score {
    let (demand, node) = (spec.node_demand(), &*view.node);
    let is_whole = |gpu: &&Gpu| gpu.free_milli == GPU_MILLI;
    let n_free = few(free.iter().filter(is_whole).count());
    let touched = free.iter().filter(is_whole).filter(|g| chosen.iter().any(|c| c.island == g.island)).count();
    let n_opened = few(chosen.iter().filter(is_whole).count());
    let left = |total: u64, used: u64, wanted: u64| total.saturating_sub(used + wanted) * 1000 / total.max(1);
    let host_left = left(capabilities.cpu_millis, node.usage.cpu_millis, demand.cpu_millis)
        + left(capabilities.memory_mib, node.usage.memory_mib, demand.memory_mib);
    let all_free =
        few(view.gpus.iter().filter(is_whole).filter(|gpu| gpu.is_slice == demand.mig_profile.is_some()).count());
    let (mut gpus_left, mut island_left) = (all_free.saturating_sub(n_opened), few(touched).saturating_sub(n_opened));
    let mut host_left_permille = host_left;
    if spreads(spec) {
        gpus_left = LEFT_MAX - gpus_left;
        island_left = LEFT_MAX - island_left.min(n_free);
        host_left_permille = 2000 - host_left.min(2000);
    }
    let shared = chosen.first().filter(|_| demand.is_share());
    let milli_left = shared.map_or(0, |gpu| gpu.free_milli.saturating_sub(demand.gpu_milli));
    Score {
        simulated: runtime == RuntimeKind::Sim || (capabilities.simulated && demand.gpus > 0),
        unreserved: true,
        fallback: 0,
        broken_island: chosen.len() > 1 && common_island(chosen).is_none(),
        split_numa: numa::splits(chosen),
        lost: 0,
        opened: shared.is_some_and(|gpu| (gpu.free_milli == GPU_MILLI) != spreads(spec)),
        milli_left: if spreads(spec) { MILLI_LEFT_MAX - milli_left } else { milli_left },
        island_left,
        gpus_left,
        gpu_memory_over_mib: chosen.iter().map(|g| g.memory_mib.saturating_sub(demand.gpu_memory_mib_min)).sum(),
        host_left_permille,
        node_id: node.node_id,
    }
}

/// At most [`LEFT_MAX`].
fn few(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(LEFT_MAX).min(LEFT_MAX)
}
