//! What an operation says of itself (annotations) is what it does, over random histories.

use std::collections::{BTreeMap, BTreeSet};

use claw_proto::ids::{KeyId, NodeId, WorkloadId};
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::outcome::EffectKind;
use claw_tools::quotas::QuotaAmounts;
use claw_tools::registry::{OPERATIONS, find};
use claw_tools::workloads::WorkloadReason;
use proptest::prelude::*;

use super::fleet::{Fleet, run_of, spec};
use super::properties::{moves, play};
use crate::{Effect, Operation};

/// Every operation of the core on things of this fleet, by its number; none for
/// an operation that has nothing to work on yet.
fn sample(f: &Fleet, kind: usize, pick: usize) -> Option<Operation> {
    let node = format!("n{}", pick % 3);
    let nth = |n: usize| (n > 0).then(|| pick % n);
    let workload = nth(f.cluster.workloads.len()).and_then(|i| f.cluster.workloads.iter().nth(i));
    let operation_id = nth(f.cluster.operations.len()).and_then(|i| f.cluster.operations.keys().nth(i)).copied();
    Some(match kind {
        0 => run_of(spec(1)),
        1 => Operation::WorkloadStop { workload: workload?.workload_id.to_string(), grace_s: None },
        2 => Operation::NodeDrain { node, grace_s: None },
        3 => Operation::NodeUndrain { node },
        4 => Operation::NodeCordon { node },
        5 => Operation::NodeUncordon { node },
        6 => Operation::NodeLabel { node, set: BTreeMap::from([("zone".into(), "a".into())]), remove: vec![] },
        7 => Operation::NodeConfigSet { node, metrics_interval_ms: Some(20_000), log_buffer_bytes: None },
        8 => Operation::NodeTokenCreate { name: None, labels: BTreeMap::new(), ttl_s: 600 },
        9 => Operation::OperationCancel { operation_id: operation_id? },
        10 => Operation::Undo { operation_id: operation_id? },
        11 => Operation::ApiKeyCreate {
            principal: "dave".into(),
            role: Role::Viewer,
            kind: PrincipalKind::Agent,
            ttl_s: None,
        },
        12 => Operation::NodeRevoke { node },
        13 => Operation::CaRotate {},
        14 => Operation::SecretSet {
            handle: "token".into(),
            used_by: BTreeSet::new(),
            sealed: Some("c2VhbGVk".into()),
            blob: None,
        },
        17 => Operation::QuotaSet {
            tenant: "lab".into(),
            parent: None,
            guaranteed: None,
            most: Some(QuotaAmounts { gpus: Some(8), ..QuotaAmounts::default() }),
            lends: None,
            weight: None,
            members: None,
        },
        18 => Operation::QuotaDelete { tenant: "lab".into() },
        19 => Operation::ReservationCreate {
            name: "week".into(),
            tenant: "lab".into(),
            nodes: Some(1),
            node_names: Vec::new(),
            gpus: None,
            model: None,
            starts_at: None,
            duration_s: 60,
        },
        21 => Operation::Defrag { model: None, horizon_s: None, moves_max: None, moves: None },
        20 => Operation::ReservationDelete { name: "week".into() },
        15 => Operation::SecretDelete { handle: "token".into() },
        16 => Operation::WorkloadExec {
            workload: workload?.workload_id.to_string(),
            command: vec!["true".into()],
            timeout_s: 5,
        },
        22 => Operation::WorkloadHold { workload: workload?.workload_id.to_string(), gate: "hold".into() },
        23 => Operation::WorkloadRelease { workload: workload?.workload_id.to_string(), gates: Vec::new() },
        _ => Operation::ApiKeyRevoke { key_id: *f.cluster.keys.keys().next()? },
    })
}
const KINDS: usize = 25;

/// What somebody could lose.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum Held {
    Runs(WorkloadId),
    Waits(WorkloadId),
    Node(NodeId),
    Key(KeyId),
}

fn held(f: &Fleet) -> BTreeSet<Held> {
    let c = &f.cluster;
    let works = c.workloads.iter().filter(|w| !w.state.is_final()).map(|w| match w.live() {
        // What is being stopped already is nobody's any more.
        Some(_) => Held::Runs(w.workload_id),
        None => Held::Waits(w.workload_id),
    });
    let nodes = c.nodes.iter().map(|n| Held::Node(n.node_id));
    let keys = c.keys.iter().filter(|(_, key)| !key.revoked).map(|(id, _)| Held::Key(*id));
    works.chain(nodes).chain(keys).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, .. ProptestConfig::default() })]

    /// `destructiveHint: false` takes nothing from anybody and orders no node to stop or
    /// leave, but for what said that it may be stopped for more important work;
    /// `idempotentHint: true` changes nothing the second time.
    #[test]
    fn annotations_are_what_operations_do(
        history in prop::collection::vec(moves(), 1..40),
        kind in 0..KINDS,
        pick: usize,
    ) {
        let mut f = Fleet::with_nodes(3);
        for m in &history {
            play(&mut f, m);
        }
        let Some(operation) = sample(&f, kind, pick) else { return Ok(()) };
        let def = find(operation.tool()).unwrap();
        prop_assert!(!def.read_only, "{} is a command of the core", def.name);
        let (before, n_effects) = (held(&f), f.effects.len());
        let Ok(first) = f.plan_and_apply(operation.clone()) else { return Ok(()) };
        if !def.destructive {
            let after = held(&f);
            // What waited may run now: work moves forward by itself.
            let lost: Vec<_> = before.iter().filter(|h| match h {
                Held::Waits(id) => !after.contains(h) && !after.contains(&Held::Runs(*id)),
                h => !after.contains(h),
            }).collect();
            prop_assert!(lost.is_empty(), "{} took {lost:?}", def.name);
            let makes_room = |id: WorkloadId| {
                let w = f.workload(id);
                let is_waited_for = f.cluster.workloads.leaves_for(id).is_some();
                w.reason == WorkloadReason::Preempted && w.spec.spec().preemptible == Some(true) && is_waited_for
            };
            let ends = f.effects[n_effects..].iter().any(|e| match e {
                Effect::StopWorkload { order, .. } => !makes_room(order.workload_id),
                e => matches!(e, Effect::CloseLink { .. }),
            });
            prop_assert!(!ends, "{} ordered an end: {:?}", def.name, &f.effects[n_effects..]);
        }
        if def.idempotent && first.effect != EffectKind::Planned {
            let n_events = f.journal.len();
            let second = f.plan_and_apply(operation);
            let effect = second.as_ref().map(|o| o.effect);
            prop_assert!(matches!(effect, Ok(EffectKind::NoChange) | Err(_)), "{} again: {effect:?}", def.name);
            prop_assert!(f.journal.len() <= n_events + 1, "{} again wrote {:?}", def.name, &f.journal[n_events..]);
        }
    }
}

/// A read is no command of the core at all: what is not read-only has an
/// operation, and the other way round.
#[test]
fn what_changes_something_goes_through_the_core() {
    let f = {
        let mut f = Fleet::with_nodes(3);
        f.submit(spec(1));
        f
    };
    let of_the_core: BTreeSet<&str> =
        (0..KINDS).filter_map(|kind| sample(&f, kind, 0)).map(|o| o.tool()).chain(["node_remove"]).collect();
    for op in OPERATIONS {
        // These act on plans of other operations.
        let on_plans = matches!(op.name, "plan_apply" | "approval_decide");
        let has_key = op.name == "api_key_revoke" || of_the_core.contains(op.name);
        assert_eq!(!op.read_only, has_key || on_plans, "{}", op.name);
    }
}
