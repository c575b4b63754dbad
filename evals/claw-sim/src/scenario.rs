//! What a seed makes of a round: machines, wishes of callers, faults.

use std::collections::BTreeMap;

use claw_proto::spec::{
    GpuRequest, Interconnect, OnPartition, Placement, Priority, RestartPolicy, RuntimeKind, WorkloadSpec,
};

use crate::machine::Shape;
use crate::net::Way;
use crate::rng::Rng;

/// Faults begin after this, milliseconds.
const QUIET_MS: u64 = 3_000;

/// Something that goes wrong at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks; each side notices in its own time.
    Cut { machine: usize },
    /// Nothing passes, in one or both directions, for so long. Afterwards what
    /// was held arrives late, or the connections break.
    Partition { machine: usize, ms: u64, up: bool, down: bool, reset: bool },
    /// Frames take so much longer for a while.
    Slow { machine: usize, extra_ms: u64, ms: u64 },
    /// The agent dies and is started again.
    Agent { machine: usize, down_ms: u64, lose_store: bool },
    /// The machine dies and boots again.
    Machine { machine: usize, down_ms: u64, lose_store: bool },
    /// The node's disk is full for a while.
    NodeDisk { machine: usize, ms: u64 },
    /// Somebody kills a supervisor.
    Supervisor { machine: usize },
    /// A GPU fails, and is well again later.
    Gpu { machine: usize, index: usize, failed: bool, ms: u64 },
    /// The gateway dies now.
    Gateway,
    /// The gateway dies at a named point of a coming commit.
    GatewayAt { point: usize },
    /// The gateway's journal takes nothing for a while.
    Journal { ms: u64 },
    /// The gateway's journal takes only what nodes report for a while.
    Reserve { ms: u64 },
}

/// Something that a caller wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wish {
    Run { spec: Box<WorkloadSpec> },
    Stop { pick: u64, grace_s: Option<u32> },
    Drain { machine: usize },
    Undrain { machine: usize },
    Cordon { machine: usize },
    Uncordon { machine: usize },
    Label { machine: usize, value: u64 },
    Configure { machine: usize, interval_ms: u64 },
    Remove { machine: usize },
    Undo { pick: u64 },
    Cancel { pick: u64 },
}

/// A wish, whose, when and how.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) at_ms: u64,
    pub(crate) caller: usize,
    pub(crate) wish: Wish,
    /// Shown first, then applied.
    pub(crate) planned: bool,
    /// Asked again after it was answered.
    pub(crate) repeated: bool,
    /// Asked twice at once.
    pub(crate) doubled: bool,
}

/// A whole round.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) shapes: Vec<Shape>,
    pub(crate) ways: Vec<Way>,
    pub(crate) plans: Vec<Plan>,
    pub(crate) faults: Vec<(u64, Fault)>,
    /// Faults end and healing begins here, milliseconds.
    pub(crate) chaos_ms: u64,
}

impl Scenario {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let n_machines = usize::try_from(rng.between(2, 4)).unwrap_or(2);
        let shapes = (0..n_machines).map(|_| shape(rng)).collect();
        let ways = (0..n_machines).map(|_| way(rng)).collect();
        let chaos_ms = rng.between(30, 110) * 1_000;
        let mut plans: Vec<Plan> = (0..rng.between(3, 12)).map(|n| run_plan(rng, n, n_machines, chaos_ms)).collect();
        let others = rng.between(2, 9);
        plans.extend((0..others).map(|_| other_plan(rng, n_machines, chaos_ms)));
        let n_faults = rng.between(1, 8);
        let faults = (0..n_faults).map(|_| (rng.between(QUIET_MS, chaos_ms), fault(rng, n_machines))).collect();
        Self { shapes, ways, plans, faults, chaos_ms }
    }
}

fn shape(rng: &mut Rng) -> Shape {
    Shape {
        n_gpus: rng.pick(&[1, 2, 4, 8]),
        kind: if rng.chance(250) { RuntimeKind::Sim } else { RuntimeKind::Process },
        drift_ppm: i64::try_from(rng.below(20_001)).unwrap_or(0) - 10_000,
        wall_offset_ms: i64::try_from(rng.below(120_000)).unwrap_or(0) - 60_000,
        sluggish_ms: rng.pick(&[0, 5, 50, 300]),
        store_id: rng.wide(),
    }
}

fn way(rng: &mut Rng) -> Way {
    Way { latency_ms: rng.pick(&[1, 5, 40]), ..Way::default() }
}

fn run_plan(rng: &mut Rng, n: u64, n_machines: usize, chaos_ms: u64) -> Plan {
    let spec = Box::new(spec(rng, n, n_machines));
    Plan {
        at_ms: rng.between(500, chaos_ms * 2 / 3),
        caller: rng.index(3),
        wish: Wish::Run { spec },
        planned: rng.chance(200),
        repeated: rng.chance(250),
        doubled: rng.chance(150),
    }
}

fn spec(rng: &mut Rng, n: u64, n_machines: usize) -> WorkloadSpec {
    let mut labels = BTreeMap::new();
    labels.insert("claw.sim/request".to_owned(), n.to_string());
    if rng.chance(800) {
        labels.insert("claw.sim/run-for-ms".to_owned(), rng.between(1, 30_000).to_string());
    }
    if rng.chance(250) {
        labels.insert("claw.sim/exit-code".to_owned(), rng.between(1, 4).to_string());
    } else if rng.chance(60) {
        labels.insert("claw.sim/signal".to_owned(), rng.pick(&[9, 11]).to_string());
    }
    if rng.chance(100) {
        labels.insert("claw.sim/fail-attempts".to_owned(), rng.between(1, 2).to_string());
    }
    if rng.chance(50) {
        labels.insert("claw.sim/start-error".to_owned(), "no such program".to_owned());
    }
    if rng.chance(800) {
        labels.insert("claw.sim/term-ms".to_owned(), rng.pick(&[0, 100, 2_000]).to_string());
    }
    let gpus = rng.pick(&[0, 1, 1, 2, 4]);
    let gpu = (gpus > 0).then(|| GpuRequest {
        count: Some(gpus),
        interconnect: (gpus > 1 && rng.chance(300)).then_some(Interconnect::Nvlink),
        ..GpuRequest::default()
    });
    let nodes = (gpus > 1 && rng.chance(250)).then_some(2);
    let restart =
        rng.pick(&[None, Some(RestartPolicy::Never), Some(RestartPolicy::OnFailure), Some(RestartPolicy::Always)]);
    let placement = rng
        .chance(120)
        .then(|| Placement { node: Some(format!("m{}", rng.index(n_machines))), ..Placement::default() });
    WorkloadSpec {
        command: Some(vec!["train".to_owned()]),
        name: rng.chance(200).then(|| format!("job-{}", n % 3)),
        gpu,
        nodes,
        cpu_cores: rng.chance(200).then_some(12.0),
        on_partition: Some(on_partition(rng)),
        restart,
        max_restarts: (restart == Some(RestartPolicy::Always)
            || rng.chance(100) && restart != Some(RestartPolicy::Never))
        .then(|| u32::try_from(rng.between(1, 4)).unwrap_or(1)),
        priority: rng.pick(&[None, Some(Priority::Critical), Some(Priority::High), Some(Priority::Low)]),
        max_duration_s: rng.chance(150).then(|| rng.between(2, 12)),
        grace_s: rng.pick(&[None, Some(0), Some(1), Some(5)]),
        placement,
        labels,
        preemptible: rng.chance(300).then_some(true),
        checkpoint_interval_s: rng.chance(200).then_some(5),
        ..WorkloadSpec::default()
    }
}

fn on_partition(rng: &mut Rng) -> OnPartition {
    if rng.chance(250) {
        return OnPartition::Keep;
    }
    OnPartition::StopAfter(rng.pick(&[5, 10, 10, 12, 20, 20, 30, 30]))
}

fn other_plan(rng: &mut Rng, n_machines: usize, chaos_ms: u64) -> Plan {
    let machine = rng.index(n_machines);
    let wish = match rng.below(100) {
        0..25 => Wish::Stop { pick: rng.next(), grace_s: rng.pick(&[None, Some(0), Some(3)]) },
        25..40 => Wish::Drain { machine },
        40..52 => Wish::Undrain { machine },
        52..60 => Wish::Cordon { machine },
        60..68 => Wish::Uncordon { machine },
        68..74 => Wish::Label { machine, value: rng.below(3) },
        74..78 => Wish::Configure { machine, interval_ms: rng.pick(&[5_000, 20_000]) },
        78..83 => Wish::Remove { machine },
        83..91 => Wish::Undo { pick: rng.next() },
        _ => Wish::Cancel { pick: rng.next() },
    };
    Plan {
        at_ms: rng.between(2_000, chaos_ms),
        caller: rng.index(3),
        wish,
        planned: rng.chance(400),
        repeated: rng.chance(250),
        doubled: rng.chance(150),
    }
}

fn fault(rng: &mut Rng, n_machines: usize) -> Fault {
    let machine = rng.index(n_machines);
    let ms = rng.pick(&[300, 2_000, 7_000, 15_000, 30_000, 50_000]);
    match rng.below(100) {
        0..14 => Fault::Cut { machine },
        14..38 => {
            let (up, down) = rng.pick(&[(true, true), (true, true), (true, false), (false, true)]);
            Fault::Partition { machine, ms, up, down, reset: rng.chance(500) }
        }
        38..44 => Fault::Slow { machine, extra_ms: rng.pick(&[500, 3_000]), ms },
        44..56 => Fault::Agent { machine, down_ms: rng.pick(&[10, 500, 5_000, 20_000]), lose_store: rng.chance(80) },
        56..64 => Fault::Machine { machine, down_ms: rng.pick(&[1_000, 10_000, 40_000]), lose_store: rng.chance(250) },
        64..68 => Fault::NodeDisk { machine, ms },
        68..71 => Fault::Supervisor { machine },
        71..75 => Fault::Gpu { machine, index: rng.index(4), failed: rng.chance(500), ms },
        75..83 => Fault::Gateway,
        83..93 => Fault::GatewayAt { point: rng.index(6) },
        93..98 => Fault::Journal { ms: rng.pick(&[500, 3_000, 12_000]) },
        _ => Fault::Reserve { ms },
    }
}
