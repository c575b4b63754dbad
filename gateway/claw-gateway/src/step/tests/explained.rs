//! Reasons are the ones that bind, and what is offered helps.

use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{GpuRequest, Interconnect, Isolation, Placement, RuntimeKind, TopologyDomain, WorkloadSpec};
use claw_proto::topology::{GpuInfo, MigSlice};
use claw_proto::validation::ValidSpec;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::outcome::Mode;
use claw_tools::workloads::{PlacementReason as R, Remedy, WorkloadState};
use proptest::prelude::*;

use super::fleet::{Fleet, run_of, spec};
use super::properties::{TENANTS, apart_from_db, moves, play};
use crate::reservations::Reservations;
use crate::scheduler::{Decision, decide};
use crate::tenancy::{self, Tenants};
use crate::{Caller, Cluster, Command, Operation, preemption, query};

fn wishes() -> impl Strategy<Value = WorkloadSpec> {
    let gpu = (
        0_u32..10,
        prop::option::of(prop::sample::select(vec!["H100", "A100"])),
        prop::option::of(prop::sample::select(vec![40.0, 80.0, 141.0])),
        any::<bool>(),
        prop::option::weighted(0.4, prop::sample::select(vec!["0.4", "0.75", "2g.20gb", "3g.40gb", "1g.10gb"])),
        prop::option::weighted(0.3, Just(Isolation::Memory)),
    );
    let host = (
        prop::option::of(prop::sample::select(vec![8.0, 63.0, 65.0])),
        prop::option::of(prop::sample::select(vec![64.0, 600.0])),
    );
    let place = (
        prop::option::of(0_usize..4),
        prop::option::of(0_usize..4),
        prop::option::of(Just("a")),
        any::<bool>(),
        1_u32..3,
        (any::<bool>(), prop::option::weighted(0.3, prop::sample::select(TopologyDomain::ALL)), any::<bool>()),
    );
    (gpu, host, place).prop_map(
        |(
            (gpus, model, memory, nvlink, part, isolation),
            (cpu_cores, memory_gib),
            (named, excluded, zone, labeled, nodes, (bears, apart, is_db)),
        )| {
            let fraction = part.and_then(|part| part.parse().ok());
            let mig_profile = part.filter(|_| fraction.is_none()).map(str::to_owned);
            let (gpus, nodes) = if fraction.is_some() { (1, 1) } else { (gpus, nodes) };
            let gpu = GpuRequest {
                count: Some(gpus * nodes),
                model: model.map(str::to_owned),
                memory_gib_min: memory,
                interconnect: (nvlink && mig_profile.is_none()).then_some(Interconnect::Nvlink),
                fraction,
                mig_profile,
                isolation,
                ..GpuRequest::default()
            };
            let labels = if labeled {
                [("pool".to_owned(), "x".to_owned())].into()
            } else {
                std::collections::BTreeMap::default()
            };
            let placement = Placement {
                node: named.filter(|n| Some(*n) != excluded).map(|n| format!("n{n}")),
                exclude_nodes: excluded.map(|n| format!("n{n}")).into_iter().collect(),
                zone: zone.map(str::to_owned),
                labels,
                tolerations: if bears { vec!["dedicated=lab".to_owned()] } else { Vec::new() },
                anti_affinity: apart.and_then(|within| apart_from_db(within).anti_affinity),
                ..Placement::default()
            };
            let db = [("app".to_owned(), "db".to_owned())];
            let gpu = (gpus > 0).then_some(gpu);
            WorkloadSpec {
                gpu,
                cpu_cores,
                memory_gib,
                nodes: (nodes > 1).then_some(nodes),
                placement: Some(placement),
                labels: db.into_iter().filter(|_| is_db).collect(),
                ..spec(0)
            }
        },
    )
}

/// The world without what a reason says, and with all else as it is.
fn relax(cluster: &mut Cluster, spec: &mut WorkloadSpec, reason: R) {
    let gpu = spec.gpu.get_or_insert_default();
    let placement = spec.placement.get_or_insert_default();
    let ids = |c: &Cluster| c.nodes.iter().map(|n| n.node_id).collect::<Vec<_>>();
    match reason {
        R::NodeNotNamed => placement.node = None,
        R::NodeExcluded => placement.exclude_nodes.clear(),
        R::LabelMismatch => placement.labels.clear(),
        R::ZoneMismatch => placement.zone = None,
        R::TaintNotTolerated => placement.tolerations = vec!["dedicated".to_owned()],
        R::KeptApart => {
            placement.anti_affinity = None;
            spec.labels.clear();
        }
        R::RuntimeMissing => spec.runtime = Some(RuntimeKind::Sim),
        R::GpuModelMismatch => (gpu.model, gpu.model_fallbacks) = (None, Vec::new()),
        R::GpuVendorMismatch => gpu.vendor = None,
        R::GpuMemoryTooSmall => gpu.memory_gib_min = None,
        R::MigProfileMissing => gpu.mig_profile = None,
        R::GpuMemoryUncapped => gpu.isolation = None,
        R::GpuCountTooSmall => gpu.count = spec.nodes.or(Some(1)),
        R::NvlinkIslandTooSmall | R::NvlinkIslandBusy => gpu.interconnect = None,
        R::CpuTooSmall => spec.cpu_cores = Some(0.01),
        R::MemoryTooSmall => spec.memory_gib = Some(0.01),
        R::DiskTooSmall => spec.disk_gib = None,
        R::NodeUnreachable => {
            for id in ids(cluster) {
                cluster.nodes.update(id, |n| n.link = NodeLink::Online);
            }
        }
        R::NodeUnschedulable => {
            for id in ids(cluster) {
                cluster.nodes.update(id, |n| n.schedulable = Schedulable::Active);
            }
        }
        R::NodeReserved => cluster.reservations = Reservations::default(),
        R::GpuUnhealthy | R::GpuBusy | R::CpuBusy | R::MemoryBusy | R::DiskBusy | R::RoomClaimed => {
            let all: Vec<WorkloadId> = cluster.workloads.iter().map(|w| w.workload_id).collect();
            for id in all {
                preemption::free(cluster, id);
            }
        }
    }
    if gpu.count.is_none() {
        spec.gpu = None;
    }
}

/// "slices 1g.10gb were cut on n0: 2 from GPU 1 (H100) and 1 from GPU 2 (H100)": does so, as its host would.
fn cut(f: &mut Fleet, node: &str, change: &str) {
    let node = f.node(node).clone();
    let mut capabilities = (*node.capabilities.clone().unwrap()).clone();
    let words: Vec<&str> = change.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<u32>().unwrap();
    let from = (0..words.len()).filter(|at| words[*at] == "from").map(|at| (number(at - 1), number(at + 2)));
    for (n, index) in from {
        let parent = capabilities.gpus.iter().find(|gpu| gpu.index == index && gpu.mig.is_none()).unwrap().clone();
        for at in 0..n {
            let mig = Some(MigSlice { parent: parent.uuid.clone(), profile: words[1].to_owned() });
            let uuid = GpuUuid(format!("MIG-cut-{index}-{at}"));
            let gb: u64 = words[1].split(['.', 'g']).filter_map(|part| part.parse().ok()).nth(1).unwrap();
            let memory_mib = gb * 1_000;
            let slice = GpuInfo { uuid, index: 100 + at, memory_mib, mig, nvlink_island: None, ..parent.clone() };
            capabilities.gpus.push(slice);
        }
    }
    let command = Command::NodeCapabilities { node_id: node.node_id, capabilities: Box::new(capabilities) };
    f.run(command, &Caller::system(f.now)).unwrap();
}

/// Does what was offered, and says whether the workload, or the smaller one, started.
fn follow(mut f: Fleet, id: WorkloadId, remedy: &Remedy) -> bool {
    let arg = |name: &str| remedy.call.args[name].as_str().unwrap_or_default().to_owned();
    match remedy.call.tool.as_str() {
        "node_uncordon" => drop(f.operate("root", Operation::NodeUncordon { node: arg("node") }, Mode::Apply, None)),
        "node_undrain" => drop(f.operate("root", Operation::NodeUndrain { node: arg("node") }, Mode::Apply, None)),
        "workload_stop" => {
            let stop = Operation::WorkloadStop { workload: arg("workload"), grace_s: None };
            f.plan_and_apply(stop).unwrap();
            let victim = arg("workload").parse().unwrap();
            if let Ok(w) = f.cluster.resolve_workload(&arg("workload")).cloned() {
                for part in w.lives() {
                    f.report_as(part.node_id, victim, part.attempt, N::Stopped, C::StopRequested, None);
                }
            }
        }
        "quota_set" => {
            let most = serde_json::from_value(remedy.call.args["most"].clone()).unwrap();
            let (tenant, parent) = (arg("tenant"), None);
            let (guaranteed, lends, weight, members) = (None, None, None, None);
            f.plan_and_apply(Operation::QuotaSet {
                tenant,
                parent,
                guaranteed,
                most: Some(most),
                lends,
                weight,
                members,
            })
            .unwrap();
        }
        "reservation_delete" => drop(f.plan_and_apply(Operation::ReservationDelete { name: arg("name") }).unwrap()),
        "node_get" => cut(&mut f, &arg("node"), &remedy.change),
        "workload_run" => {
            let smaller: WorkloadSpec = serde_json::from_value(remedy.call.args["spec"].clone()).unwrap();
            let out = f.operate("alice", run_of(smaller), Mode::Apply, None).unwrap();
            return f.workload(out.workload_id.unwrap()).live().is_some();
        }
        other => panic!("{other} is offered and not known here"),
    }
    f.workload(id).state == WorkloadState::Placed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 20_000, .. ProptestConfig::default() })]

    /// Of 300 workloads that wait: without what a reason names that reason is gone
    /// from every node, and without all that is named it starts; what is offered
    /// makes it start when it is done.
    #[test]
    fn the_named_reason_binds_and_the_offered_change_helps(history in prop::collection::vec(moves(), 5..40), wish in wishes(), tenant in prop::option::weighted(0.4, 0_usize..3)) {
        let mut f = Fleet::with_slices(3);
        for m in &history {
            play(&mut f, m);
        }
        let label = Operation::NodeLabel { node: "n0".into(), set: [("zone".to_owned(), "a".to_owned())].into(), remove: vec![] };
        drop(f.operate("root", label, Mode::Apply, None));
        let wish = WorkloadSpec { tenant: tenant.map(|at| TENANTS[at].0.to_owned()), ..wish };
        let Ok(out) = f.operate("alice", run_of(wish.clone()), Mode::Apply, None) else { return Err(TestCaseError::reject("refused")) };
        let id = out.workload_id.unwrap();
        prop_assume!(f.workload(id).state == WorkloadState::Pending && f.cluster.nodes.len() == 3);

        let (mut cluster, mut relaxed) = (f.cluster.clone(), f.workload(id).spec.spec().clone());
        for _ in 0..40 {
            let valid = ValidSpec::parse(relaxed.clone()).unwrap();
            let Decision::Wait { report } = decide(&cluster, &valid) else { break };
            let Some(first) = report.rejected.first() else {
                prop_assert!(tenancy::blocked(&cluster, &valid, None).is_some(), "who waits is told why: {report:?}");
                cluster.tenants = Tenants::default();
                prop_assert!(tenancy::blocked(&cluster, &valid, None).is_none());
                continue;
            };
            let reason = first.reason;
            relax(&mut cluster, &mut relaxed, reason);
            let valid = ValidSpec::parse(relaxed.clone()).unwrap();
            let (Decision::Wait { report } | Decision::Place { report, .. }) = decide(&cluster, &valid);
            prop_assert!(report.rejected.iter().all(|r| r.reason != reason), "{reason} does not bind: {report:?}");
        }
        let valid = ValidSpec::parse(relaxed.clone()).unwrap();
        let is_placed = matches!(decide(&cluster, &valid), Decision::Place { .. });
        prop_assert!(is_placed, "without all that was named it still waits: {:?}", relaxed);

        let offered = query::explain(&f.cluster, &id.to_string(), f.now).unwrap().would_start_if;
        if f.workload(id).claim.is_none() {
            for remedy in offered {
                let fork = Fleet { cluster: f.cluster.clone(), ids: f.ids.clone(), now: f.now, journal: Vec::new(), effects: Vec::new(), auditor: f.auditor.clone() };
                prop_assert!(follow(fork, id, &remedy), "{} did not help {:?}", remedy.change, wish);
            }
        }
    }
}
