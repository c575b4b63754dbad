//! What the scheduler remembers of the fleet saves time and decides nothing: whatever becomes
//! of nodes, their GPUs and copies of the fleet, one that knows nothing answers the same.

use std::collections::BTreeMap;

use claw_proto::ids::GpuUuid;
use claw_proto::spec::{GpuRequest, GpuVendor, Placement, RuntimeKind, WorkloadSpec};
use claw_proto::topology::{GpuHealth, NodeCapabilities};
use claw_proto::validation::ValidSpec;
use claw_tools::outcome::Mode;
use proptest::prelude::*;

use super::fleet::{Fleet, choice, h100x8, nvlink, run_of, share, spec};
use super::properties::{moves, play};
use crate::scheduler::{Decision, IndexHandle, decide};
use crate::{Command, Operation, invariants};

/// What becomes of a fleet's nodes.
#[derive(Debug, Clone)]
enum Change {
    /// A node joins that has these of a few GPUs that several report.
    Join {
        gpus: Vec<u8>,
        cpu_cores: u64,
    },
    /// A node on which nothing runs has other GPUs now.
    Refit {
        node: usize,
        gpus: Vec<u8>,
        cpu_cores: u64,
        sick: usize,
    },
    Remove {
        node: usize,
    },
    Cordon {
        node: usize,
    },
    Silence {
        node: usize,
    },
    Submit {
        gpus: u32,
        nodes: u32,
    },
    End {
        pick: usize,
    },
    /// Something is tried on a copy, and the fleet goes on as it was.
    Try {
        gpus: u32,
        nodes: u32,
        node: usize,
    },
}

fn changes() -> impl Strategy<Value = Change> {
    let gpus = || prop::collection::vec(0_u8..24, 0..8);
    prop_oneof![
        2 => (gpus(), 1_u64..64).prop_map(|(gpus, cpu_cores)| Change::Join { gpus, cpu_cores }),
        2 => (any::<usize>(), gpus(), 1_u64..64, 0_usize..8).prop_map(|(node, gpus, cpu_cores, sick)| Change::Refit { node, gpus, cpu_cores, sick }),
        1 => any::<usize>().prop_map(|node| Change::Remove { node }),
        1 => any::<usize>().prop_map(|node| Change::Cordon { node }),
        1 => any::<usize>().prop_map(|node| Change::Silence { node }),
        4 => (0_u32..5, 1_u32..3).prop_map(|(gpus, nodes)| Change::Submit { gpus, nodes }),
        3 => any::<usize>().prop_map(|pick| Change::End { pick }),
        2 => (0_u32..5, 1_u32..3, any::<usize>()).prop_map(|(gpus, nodes, node)| Change::Try { gpus, nodes, node }),
    ]
}

fn machine(name: &str, gpus: &[u8], cpu_cores: u64, sick: usize) -> NodeCapabilities {
    let mut machine = h100x8(name);
    machine.cpu_millis = cpu_cores * 1_000;
    machine.gpus.truncate(gpus.len());
    for (at, (gpu, n)) in machine.gpus.iter_mut().zip(gpus).enumerate() {
        gpu.uuid = GpuUuid(format!("GPU-{n}"));
        gpu.memory_mib = if n % 3 == 0 { 40_960 } else { 81_559 };
        gpu.nvlink_island = (n % 5 != 0 && !cpu_cores.is_multiple_of(3)).then_some(u32::from(n % 2));
        gpu.numa_node = (n % 7 != 0).then_some(u32::from(n % 3));
        if at == sick {
            gpu.health = GpuHealth::Degraded;
        }
    }
    machine
}

fn work(gpus: u32, nodes: u32) -> WorkloadSpec {
    let base = if gpus.is_multiple_of(2) { spec(gpus * nodes) } else { nvlink(gpus * nodes) };
    WorkloadSpec { nodes: (nodes > 1).then_some(nodes), cpu_cores: Some(f64::from(gpus + 1)), ..base }
}

fn node(f: &Fleet, pick: usize) -> Option<String> {
    let n = f.cluster.nodes.len();
    (n > 0).then(|| f.cluster.nodes.iter().nth(pick % n).map(|node| node.name.clone())).flatten()
}

fn make(f: &mut Fleet, n: usize, change: &Change) {
    let named = |f: &Fleet, pick: usize| node(f, pick).map(|name| (f.node(&name).node_id, name));
    match change {
        Change::Join { gpus, cpu_cores } => {
            let name = format!("m{n}");
            f.join_as(&name, machine(&name, gpus, *cpu_cores, usize::MAX));
        }
        Change::Refit { node, gpus, cpu_cores, sick } => {
            // What runs there would be on GPUs that are gone.
            let empty = |(_, name): &(_, String)| f.node(name).usage.workloads.is_empty();
            if let Some((node_id, name)) = named(f, *node).filter(empty) {
                f.connect(node_id, machine(&name, gpus, *cpu_cores, *sick), &[], 7);
            }
        }
        Change::Remove { node } => {
            if let Some((_, name)) = named(f, *node) {
                let _ = f.plan_and_apply(Operation::NodeDrain { node: name.clone(), grace_s: None });
                let _ = f.plan_and_apply(Operation::NodeRemove { node: name });
            }
        }
        Change::Cordon { node } => {
            if let Some((_, name)) = named(f, *node) {
                let _ = f.operate("alice", Operation::NodeCordon { node: name }, Mode::Apply, None);
            }
        }
        Change::Silence { node } => {
            if let Some((node_id, _)) = named(f, *node) {
                f.silence(node_id);
            }
        }
        Change::Submit { gpus, nodes } => {
            let _ = f.operate("alice", run_of(work(*gpus, *nodes)), Mode::Apply, None);
        }
        Change::End { pick } => play(f, &super::properties::Move::Report { pick: *pick, part: 0, state: 3 }),
        Change::Try { gpus, nodes, node } => {
            let mut fork = f.cluster.clone();
            if let Some((node_id, _)) = named(f, *node) {
                fork.nodes.update(node_id, |node| node.schedulable = claw_tools::nodes::Schedulable::Active);
            }
            drop(decide(&fork, &ValidSpec::parse(work(*gpus, *nodes)).unwrap()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, .. ProptestConfig::default() })]

    /// Nodes that come, go, share GPUs and change them; every shape that is remembered is asked again.
    #[test]
    fn a_scheduler_that_knows_nothing_answers_the_same(history in prop::collection::vec(changes(), 1..40)) {
        let mut f = Fleet::with_nodes(1);
        for (n, change) in history.iter().enumerate() {
            make(&mut f, n, change);
            prop_assert_eq!(invariants::check_indexes(&f.cluster), Ok(()));
        }
    }

    /// The same histories, remembered and not, give the same journal.
    #[test]
    fn decisions_do_not_hang_on_what_is_remembered(history in prop::collection::vec(moves(), 1..40)) {
        let mut a = Fleet::with_slices(2);
        let mut b = Fleet::with_slices(2);
        for m in &history {
            play(&mut a, m);
            play(&mut b, m);
            b.cluster.scheduler = IndexHandle::default();
            prop_assert_eq!(invariants::check_indexes(&a.cluster), Ok(()));
        }
        prop_assert_eq!(&a.journal, &b.journal);
    }
}

/// More shapes than are remembered, each asked twice: what was forgotten is learned again.
#[test]
fn shapes_that_were_forgotten_are_learned_again() {
    let f = Fleet::with_nodes(3);
    let shape = |n: u32| {
        let placement = Placement { exclude_nodes: vec![format!("x{n}")], ..Placement::default() };
        ValidSpec::parse(WorkloadSpec { placement: Some(placement), ..spec(1 + n % 8) }).unwrap()
    };
    let answers = || (0..1_500).map(|n| decide(&f.cluster, &shape(n))).collect::<Vec<_>>();
    let first = answers();
    assert!(first.iter().all(|decision| matches!(decision, Decision::Place { .. })));
    assert_eq!(answers(), first);
}

/// Work beyond the first names: a large fleet's report counts all and names few.
#[test]
fn a_report_counts_every_node_and_names_the_first() {
    let mut f = Fleet::with_nodes(9);
    for n in 0..8 {
        f.submit(spec(8));
        let _ = f.operate("alice", Operation::NodeCordon { node: format!("n{n}") }, Mode::Apply, None);
    }
    f.system(Command::Tick);
    let Decision::Place { report, .. } = decide(&f.cluster, &ValidSpec::parse(spec(8)).unwrap()) else {
        panic!("one node is left")
    };
    let rejected: Vec<_> = report.rejected.iter().map(|r| (r.reason.as_str(), r.count, r.nodes.len())).collect();
    assert_eq!((report.considered, rejected), (9, vec![("node_unschedulable", 8, 5)]));
}

/// Machines that differ from the plain one in one thing each, with a plain one before each, for the index to take
/// them for each other if it could.
fn nearly_alike() -> Vec<(String, NodeCapabilities)> {
    type Change = fn(&mut NodeCapabilities);
    let changes: [Change; 9] = [
        |m| m.gpus.iter_mut().for_each(|gpu| "A100".clone_into(&mut gpu.model)),
        |m| m.gpus.iter_mut().for_each(|gpu| gpu.vendor = GpuVendor::Amd),
        |m| m.gpus.iter_mut().for_each(|gpu| gpu.memory_mib = 40_000),
        |m| m.gpus.iter_mut().for_each(|gpu| gpu.nvlink_island = None),
        |m| m.gpus[3].health = GpuHealth::Failed,
        |m| m.runtimes = vec![RuntimeKind::Docker],
        |m| m.disk_mib = 1024,
        |m| m.cpu_millis = 2_000,
        |m| m.gpus.truncate(7),
    ];
    let machine = |name: &str, change: &Change| {
        let mut machine = h100x8(name);
        machine.gpus.iter_mut().for_each(|gpu| gpu.nvlink_island = gpu.nvlink_island.map(|_| 0));
        change(&mut machine);
        machine
    };
    let named = |(at, change): (usize, &Change)| {
        let plain: Change = |_| {};
        [(format!("n{at}-plain"), plain), (format!("n{at}"), *change)]
    };
    let named: Vec<(String, Change)> = changes.iter().enumerate().flat_map(named).collect();
    named.into_iter().map(|(name, change)| (name.clone(), machine(&name, &change))).collect()
}

/// Why nodes do not take it, and how many.
fn reasons(decision: &Decision) -> BTreeMap<&'static str, u32> {
    let (Decision::Place { report, .. } | Decision::Wait { report }) = decision;
    report.rejected.iter().map(|rejected| (rejected.reason.as_str(), rejected.count)).collect()
}

/// One of several nodes that are alike answers for all of them; who names a node asks that one itself.
#[test]
fn nodes_that_are_nearly_alike_answer_for_themselves() {
    let mut f = Fleet::new();
    let machines = nearly_alike();
    for (name, machine) in &machines {
        f.join_as(name, machine.clone());
    }
    let of_vendor = GpuRequest { count: Some(8), vendor: Some(GpuVendor::Amd), ..GpuRequest::default() };
    let large = GpuRequest { count: Some(1), memory_gib_min: Some(60.0), ..GpuRequest::default() };
    let asked = [
        spec(0),
        spec(1),
        spec(8),
        nvlink(8),
        share(0.5),
        choice(8, Some("A100"), &[]),
        choice(1, Some("H100"), &[]),
        WorkloadSpec { gpu: Some(of_vendor), ..spec(0) },
        WorkloadSpec { gpu: Some(large), ..spec(0) },
        WorkloadSpec { disk_gib: Some(100.0), ..spec(1) },
        WorkloadSpec { cpu_cores: Some(16.0), ..spec(1) },
        WorkloadSpec { runtime: Some(RuntimeKind::Sim), ..spec(1) },
    ];
    for spec in asked {
        let all = decide(&f.cluster.detached(), &ValidSpec::parse(spec.clone()).unwrap());
        let mut alone: BTreeMap<&'static str, u32> = BTreeMap::new();
        for (name, _) in &machines {
            let placement = Some(Placement { node: Some(name.clone()), ..Placement::default() });
            let one = ValidSpec::parse(WorkloadSpec { placement, ..spec.clone() }).unwrap();
            let its = reasons(&decide(&f.cluster, &one)).into_keys().filter(|reason| *reason != "node_not_named");
            its.for_each(|reason| *alone.entry(reason).or_default() += 1);
        }
        assert_eq!(reasons(&all), alone, "{spec:?}");
    }
}
