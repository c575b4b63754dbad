//! S1–S7 over random histories. S1, S2, S3 and S7 are invariants that the fleet
//! checks after every command; S4 (only preemptible work of a lower priority, or
//! of the same where a guarantee is taken back, is stopped for other work, and only if that then fits) to S6 are checked here.

use std::collections::BTreeMap;

use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{AntiAffinity, OnPartition, Placement, Priority, RestartPolicy, TopologyDomain, WorkloadSpec};
use claw_proto::topology::NodeCapabilities;
use claw_tools::outcome::Mode;
use claw_tools::quotas::QuotaAmounts;
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use proptest::prelude::*;

use super::fleet::{Fleet, capped, choice, machine_of, nvlink, run_of, share, slice, spec};
use crate::scheduler::{Decision, decide_for};
use crate::{Command, Operation, invariants, step, tenancy};

#[derive(Debug, Clone)]
pub(super) enum Move {
    Submit {
        gpus: u32,
        nvlink: bool,
        nodes: u32,
        priority: usize,
        keep: bool,
        restart: bool,
        apply: bool,
        tenant: Option<usize>,
        part: Option<usize>,
        apart: Option<usize>,
    },
    Label {
        node: usize,
        label: usize,
        is_set: bool,
    },
    Report {
        pick: usize,
        part: usize,
        state: usize,
    },
    Stop {
        pick: usize,
    },
    Gate {
        pick: usize,
        closes: bool,
    },
    Drain {
        node: usize,
    },
    Undrain {
        node: usize,
    },
    Cordon {
        node: usize,
    },
    Silence {
        node: usize,
    },
    Return {
        node: usize,
        forgot: bool,
    },
    Remove {
        node: usize,
    },
    Undo {
        pick: usize,
    },
    Cancel {
        pick: usize,
    },
    Pass {
        seconds: i64,
    },
    Quota {
        tenant: usize,
        most: Option<u32>,
        guaranteed: u32,
        lends: bool,
    },
    Keep {
        tenant: usize,
        node: Option<usize>,
        in_s: i64,
        duration_s: u64,
    },
    Free {
        tenant: usize,
    },
    Defrag {
        horizon_s: u64,
    },
}

pub(super) fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => (0_u32..9, any::<bool>(), 1_u32..4, 0_usize..5, any::<bool>(), any::<bool>(), prop::bool::weighted(0.8), (prop::option::of(0_usize..3), prop::option::weighted(0.3, 0_usize..PARTS.len()), prop::option::weighted(0.3, 0_usize..5)))
            .prop_map(|(gpus, nvlink, nodes, priority, keep, restart, apply, (tenant, part, apart))| Move::Submit { gpus: gpus * nodes, nvlink, nodes, priority, keep, restart, apply, tenant, part, apart }),
        1 => (0_usize..3, 0_usize..3, any::<bool>()).prop_map(|(node, label, is_set)| Move::Label { node, label, is_set }),
        12 => (any::<usize>(), any::<usize>(), 0_usize..8).prop_map(|(pick, part, state)| Move::Report { pick, part, state }),
        1 => any::<usize>().prop_map(|pick| Move::Stop { pick }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, closes)| Move::Gate { pick, closes }),
        1 => (0_usize..3).prop_map(|node| Move::Drain { node }),
        1 => (0_usize..3).prop_map(|node| Move::Undrain { node }),
        1 => (0_usize..3).prop_map(|node| Move::Cordon { node }),
        2 => (0_usize..3).prop_map(|node| Move::Silence { node }),
        2 => (0_usize..3, prop::bool::weighted(0.2)).prop_map(|(node, forgot)| Move::Return { node, forgot }),
        1 => (0_usize..3).prop_map(|node| Move::Remove { node }),
        1 => any::<usize>().prop_map(|pick| Move::Undo { pick }),
        1 => any::<usize>().prop_map(|pick| Move::Cancel { pick }),
        2 => prop_oneof![4 => 0_i64..90, 1 => 500_i64..700].prop_map(|seconds| Move::Pass { seconds }),
        2 => (0_usize..3, prop::option::of(0_u32..20), 0_u32..12, any::<bool>())
            .prop_map(|(tenant, most, guaranteed, lends)| Move::Quota { tenant, most, guaranteed, lends }),
        1 => (0_usize..3, prop::option::of(0_usize..3), 0_i64..200, 1_u64..300)
            .prop_map(|(tenant, node, in_s, duration_s)| Move::Keep { tenant, node, in_s, duration_s }),
        1 => (0_usize..3).prop_map(|tenant| Move::Free { tenant }),
        1 => (60_u64..10_000).prop_map(|horizon_s| Move::Defrag { horizon_s }),
    ]
}

/// Tenants that may come to be, and what each is a part of.
pub(super) const TENANTS: [(&str, Option<&str>); 3] = [("lab", None), ("vision", Some("lab")), ("web", None)];

/// Parts of a GPU, and GPUs of one of several models.
const PARTS: [fn() -> WorkloadSpec; 9] = [
    || share(0.25),
    || share(0.3),
    || share(0.5),
    || share(0.9),
    || capped(share(0.3)),
    || slice("3g.40gb"),
    || slice("1g.10gb"),
    || choice(3, Some("A100"), &["H100"]),
    || choice(5, None, &["A100", "H100"]),
];

/// Labels of nodes: where they stand, and a taint.
const LABELS: [(&str, &str); 3] = [("rack", "r1"), ("zone", "a"), ("taint/dedicated", "lab")];

/// Work with labels, work that is kept apart from it, and work that bears a taint.
const APART: [fn(&mut WorkloadSpec); 5] = [
    |spec| drop(spec.labels.insert("app".into(), "db".into())),
    |spec| {
        spec.labels.insert("app".into(), "db".into());
        spec.placement = Some(apart_from_db(TopologyDomain::Node));
    },
    |spec| spec.placement = Some(apart_from_db(TopologyDomain::Rack)),
    |spec| spec.placement = Some(apart_from_db(TopologyDomain::Zone)),
    |spec| spec.placement = Some(Placement { tolerations: vec!["dedicated".into()], ..Placement::default() }),
];

pub(super) fn apart_from_db(within: TopologyDomain) -> Placement {
    let labels = [("app".to_owned(), "db".to_owned())].into();
    Placement { anti_affinity: Some(AntiAffinity { labels, within: Some(within) }), ..Placement::default() }
}

fn label(f: &mut Fleet, node: usize, label: usize, is_set: bool) {
    let (key, value) = LABELS[label];
    let set = if is_set { [(key.to_owned(), value.to_owned())].into() } else { BTreeMap::new() };
    let remove = if is_set { Vec::new() } else { vec![key.to_owned()] };
    drop(f.operate("root", Operation::NodeLabel { node: format!("n{node}"), set, remove }, Mode::Apply, None));
}

const STATES: [(N, C, Option<i32>); 8] = [
    (N::Pulling, C::Progress, None),
    (N::Starting, C::Progress, None),
    (N::Running, C::Progress, None),
    (N::Completed, C::Exited, Some(0)),
    (N::Failed, C::Exited, Some(1)),
    (N::Stopped, C::StopRequested, None),
    (N::Stopped, C::PartitionLease, None),
    (N::Lost, C::SupervisorGone, None),
];

fn wanted(gpus: u32, linked: bool, nodes: u32, priority: usize, keep: bool, restart: bool) -> WorkloadSpec {
    let base = if linked { nvlink(gpus) } else { spec(gpus) };
    WorkloadSpec {
        priority: Some(Priority::ALL[priority]),
        on_partition: Some(if keep { OnPartition::Keep } else { OnPartition::StopAfter(20) }),
        restart: restart.then_some(RestartPolicy::OnFailure),
        nodes: (nodes > 1).then_some(nodes),
        preemptible: (priority > 2).then_some(true),
        // Some can begin again where they were.
        checkpoint_interval_s: restart.then_some(30),
        // Of some it is known when they end.
        max_duration_s: (keep && nodes == 1).then_some(100),
        ..base
    }
}

fn set_quota(f: &mut Fleet, tenant: (&str, Option<&str>), most: Option<u32>, guaranteed: u32, lends: bool) {
    let gpus = |gpus: Option<u32>| Some(QuotaAmounts { gpus, ..QuotaAmounts::default() });
    let (guaranteed, most, lends) = (gpus(Some(guaranteed)), gpus(most), Some(lends));
    let (tenant, parent) = (tenant.0.to_owned(), tenant.1.map(str::to_owned));
    let set = Operation::QuotaSet { tenant, parent, guaranteed, most, lends, weight: None, members: None };
    drop(f.plan_and_apply(set));
}

/// Keeps a node for a tenant, this one or any.
fn keep(f: &mut Fleet, tenant: usize, node: Option<usize>, in_s: i64, duration_s: u64) {
    let tenant = TENANTS[tenant].0.to_owned();
    let operation = Operation::ReservationCreate {
        name: tenant.clone(),
        tenant,
        nodes: node.is_none().then_some(1),
        node_names: node.iter().map(|node| format!("n{node}")).collect(),
        gpus: None,
        model: None,
        starts_at: Some(f.now.plus_ms(in_s * 1_000)),
        duration_s,
    };
    drop(f.plan_and_apply(operation));
}

/// The same with a part of a GPU, if one is drawn.
fn of_part(spec: WorkloadSpec, part: Option<usize>) -> WorkloadSpec {
    match part {
        Some(part) => WorkloadSpec { nodes: None, gpu: PARTS[part]().gpu, ..spec },
        None => spec,
    }
}

/// What a node has that is back; what it forgot with its store is also how it held shares to their memory.
fn back(name: &str, forgot: bool) -> NodeCapabilities {
    let mut machine = machine_of(name);
    machine.gpus.iter_mut().for_each(|gpu| gpu.caps_shares &= !forgot);
    machine
}

fn gate(f: &mut Fleet, workload: String, closes: bool) {
    let operation = if closes {
        Operation::WorkloadHold { workload, gate: "hold".into() }
    } else {
        Operation::WorkloadRelease { workload, gates: Vec::new() }
    };
    apply(f, operation);
}

fn apply(f: &mut Fleet, operation: Operation) {
    drop(f.operate("alice", operation, Mode::Apply, None));
}

/// Performs one move; refusals are fine, broken invariants are not.
pub(super) fn play(f: &mut Fleet, m: &Move) {
    let nth = |f: &Fleet, pick: usize| {
        let n = f.cluster.workloads.len();
        (n > 0).then(|| f.cluster.workloads.iter().nth(pick % n).map(|w| w.workload_id)).flatten()
    };
    let operation = |f: &Fleet, pick: usize| {
        let n = f.cluster.operations.len();
        (n > 0).then(|| f.cluster.operations.keys().nth(pick % n).copied()).flatten()
    };
    let name = |node: &usize| format!("n{node}");
    let node_id = |f: &Fleet, node: &usize| f.cluster.nodes.by_name(&format!("n{node}")).map(|n| n.node_id);
    match m {
        Move::Submit { gpus, nvlink, nodes, priority, keep, restart, apply, tenant, part, apart } => {
            let mode = if *apply { Mode::Apply } else { Mode::Plan };
            let tenant = tenant.map(|at| TENANTS[at].0.to_owned());
            let mut spec = WorkloadSpec { tenant, ..wanted(*gpus, *nvlink, *nodes, *priority, *keep, *restart) };
            if let Some(apart) = apart {
                APART[*apart](&mut spec);
            }
            let _ = f.operate("alice", run_of(of_part(spec, *part)), mode, None);
        }
        Move::Report { pick, part, state } => {
            let (state, cause, exit) = STATES[*state];
            if let Some(id) = nth(f, *pick) {
                f.report_part(id, *part, (state, cause, exit));
            }
        }
        Move::Label { node, label: at, is_set } => label(f, *node, *at, *is_set),
        Move::Stop { pick } => {
            if let Some(id) = nth(f, *pick) {
                apply(f, Operation::WorkloadStop { workload: id.to_string(), grace_s: None });
            }
        }
        Move::Gate { pick, closes } => nth(f, *pick).into_iter().for_each(|id| gate(f, id.to_string(), *closes)),
        Move::Drain { node } => apply(f, Operation::NodeDrain { node: name(node), grace_s: None }),
        Move::Undrain { node } => apply(f, Operation::NodeUndrain { node: name(node) }),
        Move::Cordon { node } => apply(f, Operation::NodeCordon { node: name(node) }),
        Move::Silence { node } => {
            if let Some(id) = node_id(f, node) {
                f.silence(id);
            }
        }
        Move::Return { node, forgot } => {
            if let Some(id) = node_id(f, node) {
                f.connect(id, back(&name(node), *forgot), &[], if *forgot { 8 } else { 7 });
            }
        }
        Move::Remove { node } => drop(f.operate("alice", Operation::NodeRemove { node: name(node) }, Mode::Plan, None)),
        Move::Undo { pick } => {
            if let Some(operation_id) = operation(f, *pick) {
                apply(f, Operation::Undo { operation_id });
            }
        }
        Move::Cancel { pick } => {
            if let Some(operation_id) = operation(f, *pick) {
                apply(f, Operation::OperationCancel { operation_id });
            }
        }
        Move::Pass { seconds } => f.pass(*seconds),
        Move::Keep { tenant, node, in_s, duration_s } => keep(f, *tenant, *node, *in_s, *duration_s),
        Move::Defrag { horizon_s } => {
            let horizon_s = Some(*horizon_s);
            drop(f.plan_and_apply(Operation::Defrag { model: None, horizon_s, moves_max: None, moves: None }));
        }
        Move::Free { tenant } => {
            drop(f.plan_and_apply(Operation::ReservationDelete { name: TENANTS[*tenant].0.to_owned() }));
        }
        Move::Quota { tenant, most, guaranteed, lends } => set_quota(f, TENANTS[*tenant], *most, *guaranteed, *lends),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, .. ProptestConfig::default() })]

    /// S1, S2, S3, S7 and the rest of `invariants` after every command; events
    /// survive the journal and rebuild the state; indexes equal a rebuild.
    #[test]
    fn invariants_hold_over_random_histories(history in prop::collection::vec(moves(), 1..60)) {
        let mut f = Fleet::with_slices(3);
        for m in &history {
            play(&mut f, m);
        }
        invariants::check_indexes(&f.cluster).unwrap();
    }

    /// S4: a submission that may not preempt never stops anybody.
    #[test]
    fn s4_a_submission_takes_nothing_from_others(history in prop::collection::vec(moves(), 1..30), gpus in 0_u32..9) {
        let mut f = Fleet::with_slices(2);
        for m in &history {
            play(&mut f, m);
        }
        let before: Vec<_> = f.cluster.workloads.iter().filter(|w| w.live().is_some()).map(|w| (w.workload_id, w.attempt(), w.state)).collect();
        let _ = f.operate("mallory", run_of(wanted(gpus, false, 1, 4, true, false)), Mode::Apply, None);
        for (id, attempt, state) in before {
            let w = f.workload(id);
            prop_assert_eq!((w.attempt(), w.state), (attempt, state));
        }
    }

    /// S4: whoever is stopped for another said so, is less important, and the other fits once they are gone.
    #[test]
    fn s4_preemption_takes_only_what_was_offered_and_only_if_it_helps(history in prop::collection::vec(moves(), 1..40), gpus in 1_u32..17, nodes in 1_u32..3) {
        let mut f = Fleet::with_slices(2);
        for m in &history {
            play(&mut f, m);
        }
        f.pass(61);
        let before = f.cluster.clone();
        let Ok(out) = f.operate("mallory", run_of(wanted(gpus.div_ceil(nodes) * nodes, false, nodes, 0, true, false)), Mode::Apply, None) else { return Ok(()) };
        let id = out.workload_id.unwrap();
        let leaves = |w: &crate::workload::WorkloadEntry| w.state == WorkloadState::Stopping;
        let stopped: Vec<_> = f.cluster.workloads.iter().filter(|w| leaves(w) && before.workloads.get(w.workload_id).is_some_and(|w| !leaves(w))).cloned().collect();
        let claim = f.workload(id).claim.clone();
        let victims = claim.as_ref().map_or(&[][..], |c| &c.victims);
        prop_assert!(stopped.iter().all(|w| w.spec.spec().preemptible == Some(true) && victims.contains(&w.workload_id)), "{:?}", stopped);
        prop_assert_eq!(stopped.len(), victims.len());
        for w in stopped {
            prop_assert!(w.spec.priority().value() < Priority::Critical.value());
            while f.workload(w.workload_id).state == WorkloadState::Stopping {
                f.report(w.workload_id, N::Stopped, C::StopRequested, None);
            }
        }
        if claim.is_some() {
            prop_assert!(f.workload(id).live().is_some(), "they left in vain");
        }
    }

    /// S5: same input, same plan. S6: an unchanged world changes nothing.
    #[test]
    fn s5_s6_decisions_repeat_and_rest(history in prop::collection::vec(moves(), 1..40)) {
        let mut a = Fleet::with_slices(3);
        let mut b = Fleet::with_slices(3);
        for m in &history {
            play(&mut a, m);
            play(&mut b, m);
        }
        prop_assert_eq!(&a.journal, &b.journal);
        // Whoever waits would still wait, and another tick at the same instant is silent.
        for w in a.cluster.workloads.queue().filter_map(|id| a.cluster.workloads.get(id)) {
            let held_back = w.held_back(a.now).is_some();
            let would_wait = matches!(decide_for(&a.cluster, w), Decision::Wait { .. });
            let is_behind = w.reason == WorkloadReason::QuotaExceeded && tenancy::waits_behind(&a.cluster, w).is_some();
            prop_assert!(held_back || would_wait || is_behind, "{} could start and was left waiting", w.name);
        }
        a.system(Command::Tick);
        let (quiet, _) = step(&a.cluster, Command::Tick, &crate::Caller::system(a.now), &mut a.ids.clone()).unwrap();
        prop_assert!(quiet.events.is_empty(), "{:?}", quiet.events);
    }

    /// A record that comes again, or of an attempt that is not live, changes nothing.
    #[test]
    fn status_records_count_once(history in prop::collection::vec(moves(), 1..40), pick: usize, state in 0_usize..8) {
        let mut f = Fleet::with_slices(2);
        for m in &history {
            play(&mut f, m);
        }
        let live: Vec<_> = f.cluster.workloads.iter().filter_map(|w| w.live().map(|l| (w.workload_id, l.node_id, l.attempt))).collect();
        prop_assume!(!live.is_empty());
        let (id, node_id, attempt) = live[pick % live.len()];
        let (state, cause, exit) = STATES[state];
        f.report_as(node_id, id, attempt, state, cause, exit);
        let n = f.journal.len();
        f.report_as(node_id, id, attempt, state, cause, exit);
        prop_assert_eq!(f.journal.len(), n);
        let w = f.workload(id);
        prop_assert!(w.state != WorkloadState::Lost || w.live().is_none());
    }
}
