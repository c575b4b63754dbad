//! Two hundred contentions in racks full of simulated trainers, over the real protocol: who is
//! stopped for more important work, what that loses, and that nobody is stopped before its
//! answer or its grace. What is judged is the journal, read when all is over. CI plays forty of
//! them; with `CLAW_SOAK` it is two hundred.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use claw_e2e_tests::fleet::Fleet;
use claw_e2e_tests::session::Session;
use claw_e2e_tests::wait::poll_until;
use claw_gateway::audit::{Auditor, decisions};
use claw_gateway::policy::Policy;
use claw_gateway::workload::WorkloadEntry;
use claw_gateway::{Cluster, Event, EventRecord};
use claw_proto::ids::WorkloadId;
use claw_proto::time::Timestamp;
use claw_storage::{Journal as _, SqliteJournal};
use claw_tools::workloads::WorkloadReason;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{PATIENCE, on_fleet, run_of, say, text};

/// Most preemptions of one trainer in a day.
const PER_DAY_MAX: usize = 3;
/// Nobody is stopped that ran for less, milliseconds.
const MIN_RUN_MS: i64 = 1_000;
const SETTINGS: &[&str] = &["preemption.min_run_s=1", "preemption.per_day_max=3"];
const NODE: &[&str] = &[
    "gpu=sim:h100x8",
    "runtime.sim.pull_ms=0",
    "runtime.sim.start_ms=0",
    "runtime.sim.stop_ms=20",
    "link.reconnect_max_ms=500",
];
const RACKS: usize = 8;
const NODES_PER_RACK: usize = 3;
/// With `CLAW_SOAK`, and else.
const CONTENTIONS_PER_RACK: [usize; 2] = [25, 5];
/// Seed of everything that is drawn.
const SEED: u64 = 20_260_301;
/// How the eight GPUs of a node are shared out among its trainers.
const SHARES: [&[u64]; 4] = [&[1, 1, 2, 4], &[1, 1, 1, 1, 2, 2], &[2, 2, 4], &[1, 1, 1, 1, 1, 1, 1, 1]];
/// How often trainers write a checkpoint, milliseconds; 0: they never do.
const EVERY_MS: [u64; 5] = [0, 1_000, 1_500, 3_000, 6_000];
/// How long it takes them to write one when asked, milliseconds; the last is longer than any grace.
const TAKES_MS: [u64; 4] = [0, 100, 400, LATE_MS];
const LATE_MS: u64 = 5_000;

/// A small generator, so that a run can be told by its seed.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let n = self.below(of.len() as u64);
        of[usize::try_from(n).unwrap_or(0)]
    }
}

/// A rack full of trainers.
struct Site {
    rack: String,
    nodes: Vec<String>,
    agent: Session,
    draws: Draws,
    trainers: Vec<Trainer>,
    n_named: u32,
    /// Its trainers need longer than their grace and do not say so: they are asked, and do not answer in time.
    is_late: bool,
}

#[derive(Clone)]
struct Trainer {
    id: String,
    node: String,
    gpus: u64,
}

impl Site {
    fn trainer(&mut self, node: &str, gpus: u64) -> Value {
        self.n_named += 1;
        let (every_ms, takes_ms, says) = if self.is_late {
            (1_000, LATE_MS, false)
        } else {
            (self.draws.pick(&EVERY_MS), self.draws.pick(&TAKES_MS), self.draws.below(4) > 0)
        };
        let mut labels = json!({ "claw.sim/log-lines": "0" });
        if every_ms > 0 {
            labels["claw.sim/checkpoint-every-ms"] = json!(every_ms.to_string());
            labels["claw.sim/checkpoint-ms"] = json!(takes_ms.to_string());
            labels["claw.sim/checkpoint-says-took"] = json!(says.to_string());
        }
        json!({
            "name": format!("{node}-trainer-{}", self.n_named), "runtime": "sim", "command": ["train"],
            "gpu": { "count": gpus }, "cpu_cores": 0.1, "memory_gib": 0.1, "priority": "low", "preemptible": true,
            "grace_s": 1, "placement": { "node": node }, "labels": labels,
        })
    }

    /// The next trainer begins when the one before runs: no two are of the same age.
    async fn begin(&mut self, node: &str, gpus: u64) -> Result<()> {
        let spec = self.trainer(node, gpus);
        let run = self.agent.call("workload_run", run_of(spec)).await?;
        let id = text(&run, "/workload_id").to_owned();
        self.agent.until(&id, &["running"], PATIENCE).await?;
        self.trainers.push(Trainer { id, node: node.to_owned(), gpus });
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        for node in self.nodes.clone() {
            for gpus in self.draws.pick(&SHARES) {
                self.begin(&node, *gpus).await?;
            }
        }
        Ok(())
    }

    /// All run again, and those that write checkpoints have told of one since they began.
    async fn settle(&mut self) -> Result<()> {
        for place in (0..self.trainers.len()).rev() {
            let Trainer { id, node, gpus } = self.trainers[place].clone();
            let is_settled = || async {
                let detail = self.agent.call("workload_get", json!({ "workload": id })).await?;
                let speaks = detail.pointer("/spec/labels/claw.sim~1checkpoint-every-ms").is_some();
                let told = detail["checkpoint"]["attempt"] == detail["workload"]["attempt"];
                if text(&detail, "/workload/state") == "running" && (told || !speaks) {
                    return Ok(Some(detail["workload"]["attempt"].as_u64().unwrap_or(0)));
                }
                Err(anyhow!("{detail}"))
            };
            let attempt = poll_until(&format!("{id} has told of a checkpoint"), PATIENCE, is_settled).await?;
            // One that nobody may stop any more is of no use here.
            if attempt > PER_DAY_MAX as u64 {
                self.agent.call("workload_stop", json!({ "workload": id, "grace_s": 0 })).await?;
                self.agent.until(&id, &["stopped"], PATIENCE).await?;
                self.trainers.remove(place);
                self.begin(&node, gpus).await?;
                Box::pin(self.settle()).await?;
                return Ok(());
            }
        }
        Ok(())
    }

    async fn contend(&mut self, n: usize) -> Result<()> {
        self.settle().await?;
        let gpus = self.draws.pick(&[1, 2, 4]);
        let spec = json!({
            "name": format!("{}-important-{n}", self.rack), "runtime": "sim", "command": ["serve"],
            "gpu": { "count": gpus }, "cpu_cores": 0.1, "memory_gib": 0.1, "priority": "high",
            "placement": { "labels": { "rack": self.rack } },
            "labels": { "claw.sim/run-for-ms": "100", "claw.sim/log-lines": "0" },
        });
        let run = self.agent.call("workload_run", run_of(spec)).await?;
        self.agent.until(text(&run, "/workload_id"), &["completed"], PATIENCE).await?;
        Ok(())
    }

    async fn play(mut self, contentions: usize) -> Result<()> {
        self.fill().await?;
        for n in 0..contentions {
            self.contend(n).await.with_context(|| format!("contention {n} in {}", self.rack))?;
        }
        Ok(())
    }
}

/// The whole journal of a gateway that has ended.
fn journal(fleet: &Fleet) -> Result<Vec<EventRecord>> {
    let (mut journal, _) = SqliteJournal::open(&fleet.gateway.data_dir().join("journal"))?;
    let mut records = Vec::new();
    loop {
        let page = journal.read(records.len() as u64, 1_000)?;
        if page.is_empty() {
            return Ok(records);
        }
        for stored in page {
            records.push(EventRecord::from_json(stored.version, &stored.payload)?);
        }
    }
}

/// What a simulated trainer had done when it began to write this checkpoint, milliseconds: its label says so.
fn done_ms(label: &str) -> i64 {
    label.strip_suffix(" ms done").and_then(|done| done.parse().ok()).unwrap_or(0)
}

/// What each had done when its attempt began, milliseconds: all of it stands in the checkpoint that it began from.
type Begun = BTreeMap<WorkloadId, i64>;

/// GPU milliseconds of its work that no checkpoint holds: what was done while one was written is lost as well.
fn lost(w: &WorkloadEntry, begun: &Begun, at: Timestamp) -> i64 {
    let Some(started_at) = w.started_at() else { return 0 };
    let before = begun.get(&w.workload_id).copied().unwrap_or(0);
    let kept = w.checkpoint_of_latest().map_or(before, |written| done_ms(&written.label));
    (before + at.ms_since(started_at) - kept).max(0) * i64::from(w.spec.demand().gpus)
}

/// It may be stopped, by the rules that bind both: it ran long enough, and was not stopped too often.
fn may_be_stopped(w: &WorkloadEntry, at: Timestamp) -> bool {
    w.started_at().is_none_or(|started_at| at.ms_since(started_at) >= MIN_RUN_MS) && w.preempted_at.len() < PER_DAY_MAX
}

/// The newest of a node leave until there is room, whatever they lose: on that node of the rack where the fewest have
/// to, of several on the one whose leavers began last. So Kubernetes chooses among work of one priority.
fn newest_first(cluster: &Cluster, begun: &Begun, victims: &[WorkloadId], gpus: u32, at: Timestamp) -> i64 {
    let home = victims.first().and_then(|id| cluster.workloads.get(*id)?.live().map(|a| a.node_id));
    let rack = |node_id| cluster.nodes.get(node_id).and_then(|node| node.labels.get("rack").cloned());
    let began = |w: &WorkloadEntry| w.live().and_then(|a| a.started_at);
    let on = |node_id| {
        let is_here = |w: &WorkloadEntry| w.lives().any(|a| a.node_id == node_id) && may_be_stopped(w, at);
        let mut here: Vec<_> = cluster.workloads.preemptible_below(u32::MAX).filter(|w| is_here(w)).collect();
        here.sort_by_key(|w| Reverse(began(w)));
        let mut freed = 0;
        let is_needed = |w: &&Arc<WorkloadEntry>| {
            let is_needed = freed < gpus;
            freed += w.spec.demand().gpus;
            is_needed
        };
        let leavers: Vec<_> = here.into_iter().take_while(is_needed).collect();
        (freed >= gpus).then_some(leavers)
    };
    let nodes = cluster.nodes.iter().map(|node| node.node_id).filter(|id| rack(*id) == home.and_then(rack));
    let order = |leavers: &Vec<&Arc<WorkloadEntry>>| (leavers.len(), Reverse(leavers.iter().map(|w| began(w)).min()));
    let leavers = nodes.filter_map(on).min_by_key(order).unwrap_or_default();
    leavers.into_iter().map(|w| lost(w, begun, at)).sum()
}

/// What two hundred contentions came to.
#[derive(Debug, Default)]
struct Judged {
    contentions: u32,
    victims: u32,
    asked: u32,
    answered: u32,
    /// GPU milliseconds at the decision: ours, and the newest-first baseline of the same moments.
    ours: i64,
    newest: i64,
    /// GPU milliseconds that were really lost: from the last checkpoint to the end.
    really: i64,
    most_preemptions: usize,
}

fn judge(records: &[EventRecord]) -> Result<Judged> {
    let mut auditor = Auditor::new(PER_DAY_MAX);
    for decision in decisions(records) {
        auditor.check(decision).with_context(|| format!("{decision:?}"))?;
    }
    let mut cluster = Cluster::new(Arc::new(Policy::default()));
    let mut judged = Judged::default();
    let mut preemptions: BTreeMap<WorkloadId, usize> = BTreeMap::new();
    let mut begun = Begun::new();
    for record in records {
        match &record.event {
            Event::RoomClaimed { workload_id, claim: Some(claim), .. } if !claim.victims.is_empty() => {
                let victims = claim.victims.iter().filter_map(|id| cluster.workloads.get(*id));
                let gpus = cluster.workloads.get(*workload_id).map_or(0, |w| w.spec.demand().gpus);
                judged.ours += victims.map(|w| lost(w, &begun, record.at)).sum::<i64>();
                judged.newest += newest_first(&cluster, &begun, &claim.victims, gpus, record.at);
                judged.contentions += 1;
            }
            Event::WorkloadStopping { workload_id, why: WorkloadReason::Preempted, notice, .. } => {
                *preemptions.entry(*workload_id).or_default() += 1;
                judged.victims += 1;
                judged.asked += u32::from(*notice);
            }
            Event::NoticeEnded { acked, .. } => judged.answered += u32::from(*acked),
            Event::AttemptEnded { workload_id, why: WorkloadReason::Preempted, node_at, .. } => {
                let w = cluster.workloads.get(*workload_id).context("its workload")?;
                judged.really += lost(w, &begun, node_at.unwrap_or(record.at));
            }
            Event::WorkloadPlaced { workload_id, .. } => {
                let from = cluster.workloads.get(*workload_id).and_then(|w| w.checkpoint.clone());
                begun.insert(*workload_id, from.map_or(0, |checkpoint| done_ms(&checkpoint.label)));
            }
            _ => {}
        }
        cluster.apply(record);
    }
    judged.most_preemptions = preemptions.values().max().copied().unwrap_or(0);
    Ok(judged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contentions_lose_half_of_the_baseline_at_most_and_nobody_is_cut_short() -> Result<()> {
    on_fleet(540, SETTINGS, async |fleet| {
        let soak = std::env::var_os("CLAW_SOAK").is_some();
        let contentions = CONTENTIONS_PER_RACK[usize::from(!soak)];
        let began = std::time::Instant::now();
        let mut sites = JoinSet::new();
        for n in 0..=RACKS {
            let is_late = n == RACKS;
            let (rack, label) = (format!("r{n}"), format!("labels.rack=r{n}"));
            let nodes: Vec<String> =
                (0..if is_late { 1 } else { NODES_PER_RACK }).map(|at| format!("{rack}-n{at}")).collect();
            for node in &nodes {
                fleet.add_node(node, &[NODE, &[label.as_str()]].concat()).await?;
            }
            let agent = fleet.operator(&format!("agent-{n}")).await?;
            let draws = Draws(SEED + n as u64);
            let site = Site { rack, nodes, agent, draws, trainers: Vec::new(), n_named: 0, is_late };
            sites.spawn(site.play(if is_late { 1 } else { contentions }));
        }
        while let Some(played) = sites.join_next().await {
            played??;
        }
        let took = began.elapsed();
        fleet.gateway.terminate().await?;
        let judged = judge(&journal(fleet)?)?;
        say(&format!(
            "{judged:?}\nchosen: {} % of newest first; really lost: {} % of it; {} s",
            100 * judged.ours / judged.newest.max(1),
            100 * judged.really / judged.newest.max(1),
            took.as_secs()
        ));
        ensure!(judged.contentions as usize >= RACKS * contentions, "{judged:?}");
        ensure!(judged.asked > judged.contentions / 2 && judged.answered > judged.contentions / 4, "{judged:?}");
        // Some need longer than their grace and do not say so: in the last rack all.
        ensure!(judged.answered < judged.asked, "{judged:?}");
        // What the baseline would lose at these moments is the least that it would: it waits for no answer.
        ensure!(2 * judged.really <= judged.newest, "{judged:?}");
        ensure!(judged.most_preemptions <= PER_DAY_MAX, "{judged:?}");
        Ok(())
    })
    .await
}
