//! Shares of GPUs: what is promised, what is left, and what is said of it.

use std::collections::BTreeSet;

use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{GpuRequest, Placement, PlacementStrategy, Priority, RuntimeKind, WorkloadSpec};
use claw_proto::topology::{GpuDriver, NodeCapabilities};
use claw_proto::validation::GPU_MILLI;
use claw_tools::nodes::{GpuListParams, NodeListParams};
use claw_tools::quotas::QuotaAmounts;
use claw_tools::scheduling::{CapacityFindParams, FragmentationReportParams};
use claw_tools::workloads::{PlacementReason, WorkloadState};
use claw_tools::{access::PrincipalKind, access::Role};
use serde_json::json;

use super::fleet::{Fleet, capped, h100x8, share, slice, sliced, spec, who};
use crate::{Operation, query};

fn gpus(f: &Fleet, id: claw_proto::ids::WorkloadId) -> Vec<String> {
    f.workload(id).lives().flat_map(|a| &a.gpus).map(ToString::to_string).collect()
}

#[test]
fn shares_fill_a_gpu_before_they_open_another_and_never_take_more_than_there_is() {
    let mut f = Fleet::with_nodes(2);
    let ids: Vec<_> =
        [0.5, 0.3, 0.4, 0.2, 0.6].iter().map(|part| f.submit(share(*part)).workload_id.unwrap()).collect();
    let on: Vec<_> = ids.iter().map(|id| gpus(&f, *id)[0].clone()).collect();
    // 0.5 and 0.3 and 0.2 fill the first, 0.4 and 0.6 the second.
    assert_eq!((on[0] == on[1], on[0] == on[3], on[2] == on[4], on[0] == on[2]), (true, true, true, false), "{on:?}");
    let row = query::node_list(&f.cluster, &NodeListParams::default()).unwrap().nodes.remove(0);
    assert_eq!((&row["gpus_total"], &row["gpus_free"]), (&json!(8), &json!(6)));
    let list = query::gpu_list(&f.cluster, &GpuListParams { free: Some(false), ..GpuListParams::default() }).unwrap();
    assert_eq!(list.total, 2);
    assert_eq!(list.gpus[0]["shares"].as_array().unwrap().len(), 3, "{:?}", list.gpus[0]);
    // Seven whole ones are not there any more, and what ends makes room again.
    let large = f.submit(spec(7)).workload_id.unwrap();
    assert!(f.workload(large).live().is_some_and(|a| f.cluster.nodes.get(a.node_id).unwrap().name == "n1"));
    for id in &ids {
        f.report(*id, N::Completed, C::Exited, Some(0));
    }
    let again = f.submit(spec(8)).workload_id.unwrap();
    assert_eq!(f.workload(again).state, WorkloadState::Placed);
}

#[test]
fn what_a_share_gets_is_said_and_so_is_what_it_does_not() {
    let mut f = Fleet::with_nodes(1);
    f.submit(spec(7));
    let id = f.submit(share(0.5)).workload_id.unwrap();
    let detail = query::workload_detail(&f.cluster, &id.to_string(), |_| None).unwrap();
    assert_eq!(
        detail.isolation,
        "simulated: nothing really runs; its GPU is shared by time: nothing keeps others from its memory or its time"
    );
    assert_eq!(detail.workload.what, "train on 0.5 of a GPU");
    assert!(
        detail.placement.unwrap().summary.contains("0.5 of a GPU, shared by time and not kept apart; 0.5 of it left")
    );
    // Another half fits beside it, and more does not; halves of what is asked for are tried.
    let waits = f.submit(share(0.75)).workload_id.unwrap();
    let report = f.workload(waits).report.clone().unwrap();
    assert_eq!(report.rejected[0].reason, PlacementReason::GpuBusy);
    assert_eq!(&*report.rejected[0].detail, "wanted 0.75 of a GPU, at most 0.5 of one is free");
    let told = query::explain(&f.cluster, &waits.to_string(), f.now).unwrap();
    assert!(told.would_start_if.iter().any(|r| r.change == "it asked for 0.375 of a GPU instead of 0.75"), "{told:?}");
    assert!(told.blockers.iter().any(|b| b.workload_id == id), "{:?}", told.blockers);
    // Memory is the share's: half of an H100 has 39 GiB beside what the driver keeps.
    let with_memory = |gib| {
        let gpu = Some(GpuRequest { fraction: Some(0.5), memory_gib_min: Some(gib), ..GpuRequest::default() });
        WorkloadSpec { gpu, ..spec(0) }
    };
    let much = f.submit(with_memory(48.0)).workload_id.unwrap();
    assert_eq!(f.workload(much).report.clone().unwrap().rejected[0].reason, PlacementReason::GpuMemoryTooSmall);
    let enough = f.submit(with_memory(40.0)).workload_id.unwrap();
    assert_eq!(f.workload(enough).state, WorkloadState::Placed);
}

/// Every program that shares a GPU must be held to its memory: where the node does so, it does it for each.
#[test]
fn who_must_have_its_memory_to_itself_goes_where_shares_are_capped_and_is_told_so() {
    let mut f = Fleet::with_nodes(1);
    let id = f.submit(capped(share(0.5))).workload_id.unwrap();
    let report = f.workload(id).report.clone().unwrap();
    assert_eq!((report.rejected[0].reason, report.waiting_helps), (PlacementReason::GpuMemoryUncapped, false));
    assert_eq!(&*report.rejected[0].detail, "it holds nobody who shares a GPU to the memory of the share");
    let told = query::explain(&f.cluster, &id.to_string(), f.now).unwrap();
    let changes: Vec<&str> = told.would_start_if.iter().map(|remedy| remedy.change.as_str()).collect();
    assert!(changes.contains(&"it did not need its memory kept apart"), "{changes:?}");
    assert!(changes.contains(&"it took a whole GPU instead of a share"), "{changes:?}");
    // Whole GPUs are nobody else's.
    let whole = f.submit(capped(spec(1))).workload_id.unwrap();
    assert_eq!(f.workload(whole).state, WorkloadState::Placed);
    let mut machine = h100x8("n1");
    machine.gpus.iter_mut().for_each(|gpu| gpu.caps_shares = true);
    f.join_as("n1", machine);
    // One that does not ask for it is held to its memory there as well.
    let beside =
        WorkloadSpec { placement: Some(Placement { node: Some("n1".into()), ..Placement::default() }), ..share(0.5) };
    let beside = f.submit(beside).workload_id.unwrap();
    assert_eq!(gpus(&f, id), gpus(&f, beside));
    for id in [id, beside] {
        let detail = query::workload_detail(&f.cluster, &id.to_string(), |_| None).unwrap();
        let held = "; its GPU is shared by time: the node's kernel holds each who shares it to the memory of the share";
        assert_eq!(detail.isolation, format!("simulated: nothing really runs{held}"));
        assert!(detail.placement.unwrap().summary.contains("0.5 of a GPU, its memory capped by the node's kernel"));
    }
    let rows = query::gpu_list(&f.cluster, &GpuListParams { free: Some(false), ..GpuListParams::default() }).unwrap();
    let shared = rows.gpus.iter().find(|row| row["node"] == json!("n1")).unwrap();
    assert_eq!(shared["memory_capped"], json!(true), "{shared:?}");
}

/// Where something really runs it is said of each grant what keeps others from it.
#[test]
fn of_each_grant_it_is_said_what_keeps_others_from_it() {
    let mut f = Fleet::with_nodes(0);
    let real = |name: &str, runtime| NodeCapabilities {
        runtimes: vec![runtime],
        simulated: false,
        gpu_driver: GpuDriver::Nvml,
        ..sliced(name)
    };
    f.join_as("boxes", real("boxes", RuntimeKind::Docker));
    f.join_as("hosts", real("hosts", RuntimeKind::Process));
    let mut told = |spec: WorkloadSpec, runtime: RuntimeKind| {
        let image = (runtime == RuntimeKind::Docker).then(|| "app:1".to_owned());
        let id = f.submit(WorkloadSpec { image, runtime: Some(runtime), ..spec }).workload_id.unwrap();
        let detail = |f: &Fleet| query::workload_detail(&f.cluster, &id.to_string(), |_| None).unwrap().isolation;
        let lives = detail(&f);
        f.report(id, N::Completed, C::Exited, Some(0));
        (lives, detail(&f))
    };
    let whole = "; its GPUs are whole and given to no other workload";
    let (boxed, bare) = ("container", "none: a host process without isolation");
    for (spec, in_a_box, on_the_host) in [
        (spec(0), String::new(), String::new()),
        (spec(2), whole.into(), format!("{whole}, and it sees all of the node's GPUs")),
        (
            slice("3g.40gb"),
            "; its slice of a GPU is kept apart by hardware".into(),
            "; it sees the GPU's other slices as well as its own".into(),
        ),
    ] {
        // What it had others may have once it has ended.
        assert_eq!(told(spec.clone(), RuntimeKind::Docker), (format!("{boxed}{in_a_box}"), boxed.to_owned()));
        assert_eq!(told(spec, RuntimeKind::Process), (format!("{bare}{on_the_host}"), bare.to_owned()));
    }
}

#[test]
fn a_share_counts_as_one_for_quotas_for_capacity_and_for_who_has_to_leave() {
    let mut f = Fleet::with_nodes(1);
    let most = Some(QuotaAmounts { gpus: Some(1), ..QuotaAmounts::default() });
    let (parent, guaranteed, lends, weight, members) = (None, None, None, None, None);
    f.plan_and_apply(Operation::QuotaSet { tenant: "lab".into(), parent, guaranteed, most, lends, weight, members })
        .unwrap();
    let of_lab = |part| WorkloadSpec {
        tenant: Some("lab".into()),
        preemptible: Some(true),
        priority: Some(Priority::Low),
        ..share(part)
    };
    let ids: Vec<_> = [0.4, 0.4, 0.4].iter().map(|part| f.submit(of_lab(*part)).workload_id.unwrap()).collect();
    let states: Vec<_> = ids.iter().map(|id| f.workload(*id).state).collect();
    assert_eq!(states, [WorkloadState::Placed, WorkloadState::Placed, WorkloadState::Pending], "0.8 of 1 are held");
    f.submit(spec(7));
    let caller = who("alice", Role::Admin, PrincipalKind::Person, f.now);
    let wanted = CapacityFindParams { spec: share(0.1), copies_max: Some(16) };
    let found = query::capacity_find(&f.cluster, &wanted, &caller, &mut f.ids.clone()).unwrap();
    assert_eq!(found.copies, 2, "{}", found.summary);
    let report = query::fragmentation(&f.cluster, &FragmentationReportParams::default()).unwrap();
    assert_eq!((report.models[0].free, report.models[0].free_in_part), (0, 0.2), "{report:?}");
    assert!(report.models[0].lost > 0.0 && report.models[0].lost_percent > 99.0, "{report:?}");
    let why = "0 GPUs and 0.2 of shared ones free, and work that asks for 0.4 of one or more does not fit";
    assert_eq!(report.models[0].worst[0].why, why);
    // A whole GPU needs both who share one to leave.
    for id in &ids[..2] {
        f.report(*id, N::Running, C::Progress, None);
    }
    f.pass(61);
    let urgent = f.submit(WorkloadSpec { priority: Some(Priority::Critical), ..spec(1) }).workload_id.unwrap();
    let claim = f.workload(urgent).claim.clone().unwrap();
    assert_eq!(claim.victims.len(), 2, "{claim:?}");
    for id in &claim.victims {
        f.report(*id, N::Stopped, C::StopRequested, None);
    }
    assert_eq!(gpus(&f, urgent).len(), 1);
    assert_eq!(f.cluster.workloads.free_milli(&f.workload(urgent).live().unwrap().gpus[0]), 0);
    assert_eq!(f.cluster.workloads.held().map(|(_, h)| h.taken_milli()).max(), Some(GPU_MILLI));
}

#[test]
fn shares_leave_large_islands_whole_and_lie_apart_for_who_wants_that() {
    let mut f = Fleet::with_nodes(1);
    // GPUs 0 to 3 are one island, 4 to 7 the other, of which one is taken.
    let first = f.submit(spec(1)).workload_id.unwrap();
    let small: Vec<_> = gpus(&f, first);
    let id = f.submit(share(0.25)).workload_id.unwrap();
    let island = |gpu: &str| gpu.ends_with(['0', '1', '2', '3']);
    assert_eq!(island(&gpus(&f, id)[0]), island(&small[0]), "four that are linked stay whole");
    let placement = Some(Placement { strategy: Some(PlacementStrategy::Spread), ..Placement::default() });
    let mut f = Fleet::with_nodes(2);
    let on: BTreeSet<String> = (0..6)
        .map(|_| {
            let apart = WorkloadSpec { placement: placement.clone(), ..share(0.5) };
            let id = f.submit(apart).workload_id.unwrap();
            let report = f.workload(id).report.clone().unwrap();
            assert!(report.summary.contains("0.5 of it left"), "{}", report.summary);
            gpus(&f, id)[0].clone()
        })
        .collect();
    assert_eq!(on.len(), 6, "each has a GPU of its own: {on:?}");
}

/// A node of more GPUs than can be measured is neither better nor worse than one that loses nothing.
#[test]
fn what_is_learned_does_not_fill_nodes_that_cannot_be_measured() {
    let mut f = Fleet::with_slices(1);
    let mut large = h100x8("big");
    for n in 8..10 {
        let mut gpu = large.gpus[0].clone();
        (gpu.uuid, gpu.index) = (claw_proto::ids::GpuUuid(format!("GPU-big-{n}")), n);
        large.gpus.push(gpu);
    }
    f.join_as("big", large);
    for _ in 0..4 {
        let id = f.submit(spec(8)).workload_id.unwrap();
        f.report(id, N::Completed, C::Exited, Some(0));
    }
    let id = f.submit(spec(0)).workload_id.unwrap();
    let home = f.cluster.nodes.get(f.workload(id).live().unwrap().node_id).unwrap().name.clone();
    assert_eq!(home, "n0", "where fewer GPUs are");
    let learned = crate::Cluster::from_snapshot(
        crate::cluster::SNAPSHOT_FORMAT,
        &f.cluster.to_snapshot(),
        f.cluster.policy.clone(),
    );
    assert!(learned.unwrap().likely == f.cluster.likely, "what was learned stands in the snapshot");
    assert!(*f.cluster.likely != crate::scheduler::Likely::default(), "something was learned");
}
