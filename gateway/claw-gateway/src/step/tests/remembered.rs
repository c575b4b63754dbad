//! What the scheduler remembers of the fleet saves time and decides nothing: whatever becomes
//! of nodes, their GPUs and copies of the fleet, one that knows nothing answers the same.

use claw_proto::ids::GpuUuid;
use claw_proto::spec::{Placement, WorkloadSpec};
use claw_proto::topology::{GpuHealth, NodeCapabilities};
use claw_proto::validation::ValidSpec;
use claw_tools::outcome::Mode;
use proptest::prelude::*;

use super::fleet::{Fleet, h100x8, nvlink, run_of, spec};
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
        gpu.nvlink_island = (n % 5 != 0).then_some(u32::from(n % 2));
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
