//! Workloads that span nodes: all parts or none, one part's end is everybody's,
//! and never two generations of one workload at a time.

use claw_proto::ids::{NodeId, WorkloadId};
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{RestartPolicy, WorkloadSpec};
use claw_proto::topology::{NicInfo, NodeCapabilities};
use claw_tools::nodes::GpuListParams;
use claw_tools::operations::OperationState;
use claw_tools::outcome::{EffectKind, Mode};
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use super::fleet::{Fleet, h100x8, run_of, spec};
use crate::workload::WorkloadEntry;
use crate::{Effect, Operation, query};

fn over(nodes: u32, gpus: u32) -> WorkloadSpec {
    WorkloadSpec { nodes: Some(nodes), ..spec(gpus) }
}

fn running(f: &mut Fleet, nodes: u32, gpus: u32) -> WorkloadId {
    let id = f.submit(over(nodes, gpus)).workload_id.unwrap();
    f.report_all(id, N::Running, C::Progress, None);
    assert_eq!(f.workload(id).state, WorkloadState::Running);
    id
}

fn homes(w: &WorkloadEntry) -> Vec<NodeId> {
    w.lives().map(|a| a.node_id).collect()
}

#[test]
fn a_gang_lands_whole_in_one_rack_and_each_node_learns_its_rank() {
    let mut f = Fleet::with_nodes(6);
    for (node, rack) in [("n0", "a"), ("n1", "b"), ("n2", "b"), ("n3", "b"), ("n4", "b"), ("n5", "a")] {
        let set = [("rack".to_owned(), rack.to_owned()), ("zone".to_owned(), "z".to_owned())].into();
        f.operate("root", Operation::NodeLabel { node: node.into(), set, remove: vec![] }, Mode::Apply, None).unwrap();
    }
    f.effects.clear();
    let out = f.submit(over(4, 32));
    assert_eq!(out.effect, EffectKind::Accepted);
    let report = out.placement.unwrap();
    assert_eq!(
        report.summary,
        "goes to n1, n2, n3, n4: 4 of 6 nodes that fit, one rack of one zone, 8 GPUs each, simulated"
    );
    assert_eq!(report.chosen.as_ref().unwrap().others.len(), 3);
    let id = out.workload_id.unwrap();
    let w = f.workload(id);
    let started = f.effects.iter().filter(|e| matches!(e, Effect::StartWorkload { .. })).count();
    assert_eq!((started, w.lives().count(), w.attempt().0), (4, 4, 4));
    for (rank, home) in homes(&w).into_iter().enumerate() {
        let (_, start, _) = query::desired_set(&f.cluster, home);
        let ranks = start[0].0.ranks.clone().unwrap();
        assert_eq!((ranks.node_rank as usize, ranks.n_nodes, ranks.world_size), (rank, 4, 32));
        assert_eq!((ranks.first_rank as usize, ranks.master_address.as_str()), (rank * 8, "n1"));
    }
    // It runs once all of it runs.
    let first = w.live().unwrap().clone();
    f.report_as(first.node_id, id, first.attempt, N::Running, C::Progress, None);
    assert_eq!(f.workload(id).state, WorkloadState::Placed);
    let operation = |f: &Fleet| f.cluster.operations[&out.operation_id.unwrap()].state;
    assert_eq!(operation(&f), OperationState::Pending, "one part that runs is no workload that runs");
    f.report_all(id, N::Running, C::Progress, None);
    assert_eq!(operation(&f), OperationState::Succeeded);
    let row = query::workload_row(&f.cluster, &f.workload(id));
    assert_eq!((row.state, row.gpus, row.nodes.join(" ")), (WorkloadState::Running, 32, "n1 n2 n3 n4".into()));
    // It has ended well once all of it has.
    let last = f.workload(id).lives().last().unwrap().clone();
    f.report_as(last.node_id, id, last.attempt, N::Completed, C::Exited, Some(0));
    assert_eq!((f.workload(id).state, f.workload(id).lives().count()), (WorkloadState::Running, 3));
    f.report_all(id, N::Completed, C::Exited, Some(0));
    assert_eq!((f.workload(id).state, f.workload(id).reason), (WorkloadState::Completed, WorkloadReason::ExitedZero));
}

#[test]
fn a_gang_that_does_not_fit_whole_takes_nothing_and_says_why() {
    let mut f = Fleet::with_nodes(4);
    let small = f.submit(spec(1)).workload_id.unwrap();
    let out = f.submit(over(4, 32));
    assert_eq!(out.effect, EffectKind::Queued);
    let id = out.workload_id.unwrap();
    assert_eq!((f.workload(id).live(), f.workload(id).reason), (None, WorkloadReason::NoRoom));
    let summary = query::explain(&f.cluster, &id.to_string(), f.now).unwrap().summary;
    assert!(summary.contains("needs 4 nodes at once and 3 nodes can take a part now: gpu_busy on 1 node"), "{summary}");
    f.report(small, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(id).lives().count(), 4);
    // Five nodes there are not, whatever ends.
    let never = f.submit(over(5, 40));
    assert!(!never.placement.unwrap().waiting_helps);
}

#[test]
fn one_part_that_fails_takes_the_others_along_and_all_start_again() {
    let mut f = Fleet::with_nodes(3);
    let restarted = WorkloadSpec { restart: Some(RestartPolicy::OnFailure), max_restarts: Some(1), ..over(3, 24) };
    let id = f.submit(restarted).workload_id.unwrap();
    f.report_all(id, N::Running, C::Progress, None);
    f.effects.clear();
    let parts: Vec<_> = f.workload(id).lives().cloned().collect();
    f.report_as(parts[1].node_id, id, parts[1].attempt, N::Failed, C::Exited, Some(7));
    assert_eq!((f.workload(id).state, f.workload(id).reason), (WorkloadState::Stopping, WorkloadReason::ExitedNonZero));
    let stops = f.effects.iter().filter(|e| matches!(e, Effect::StopWorkload { .. })).count();
    assert_eq!(stops, 2, "both others are told to stop");
    let (_, start, stop) = query::desired_set(&f.cluster, parts[0].node_id);
    assert_eq!((start.len(), stop.len()), (0, 1), "and a node that connects anew is told the same");
    f.report_as(parts[0].node_id, id, parts[0].attempt, N::Stopped, C::StopRequested, None);
    f.pass(60);
    assert_eq!(f.workload(id).state, WorkloadState::Stopping, "nothing starts while a part still runs");
    f.report_as(parts[2].node_id, id, parts[2].attempt, N::Stopped, C::StopRequested, None);
    f.pass(60);
    let w = f.workload(id);
    assert_eq!((w.state, w.restarts, w.lives().count(), w.main_attempt().0), (WorkloadState::Placed, 1, 3, 4));
    assert_eq!(w.attempts[0].reason, WorkloadReason::PeerFailed);
    // The second failure is one too many: it ends as its failed part did.
    f.report_all(id, N::Failed, C::Exited, Some(7));
    let w = f.workload(id);
    assert_eq!((w.state, w.reason), (WorkloadState::Failed, WorkloadReason::ExitedNonZero));
    assert_eq!(query::workload_row(&f.cluster, &w).exit_code, Some(7));
}

#[test]
fn a_node_that_is_lost_moves_the_whole_gang_after_its_lease() {
    let mut f = Fleet::with_nodes(3);
    let id = running(&mut f, 2, 16);
    let [kept, lost] = homes(&f.workload(id))[..] else { panic!("two homes") };
    f.silence(lost);
    f.pass(30);
    assert_eq!(f.workload(id).state, WorkloadState::Running, "the lease has not run out with its margin");
    f.pass(3);
    assert_eq!((f.workload(id).state, f.workload(id).reason), (WorkloadState::Stopping, WorkloadReason::NodeLost));
    let part = f.workload(id).live_on(kept).unwrap().clone();
    f.report_as(kept, id, part.attempt, N::Stopped, C::StopRequested, None);
    let w = f.workload(id);
    assert_eq!((w.state, w.lives().count()), (WorkloadState::Placed, 2));
    assert!(!homes(&w).contains(&lost) && w.restarts == 0);
}

#[test]
fn a_drained_node_and_a_stop_end_all_parts() {
    let mut f = Fleet::with_nodes(3);
    let id = running(&mut f, 2, 16);
    let home = f.cluster.nodes.get(homes(&f.workload(id))[1]).unwrap().name.clone();
    f.plan_and_apply(Operation::NodeDrain { node: home.clone(), grace_s: None }).unwrap();
    f.report_all(id, N::Stopped, C::StopRequested, None);
    let w = f.workload(id);
    assert_eq!((w.state, w.lives().count()), (WorkloadState::Placed, 2));
    assert!(!homes(&w).contains(&f.node(&home).node_id));
    f.operate("alice", Operation::WorkloadStop { workload: id.to_string(), grace_s: None }, Mode::Apply, None).unwrap();
    f.report_all(id, N::Stopped, C::StopRequested, None);
    assert_eq!((f.workload(id).state, f.workload(id).reason), (WorkloadState::Stopped, WorkloadReason::StopRequested));
}

#[test]
fn gpus_that_nodes_cannot_share_evenly_are_refused() {
    let mut f = Fleet::with_nodes(3);
    let refused = f.operate("alice", run_of(over(3, 16)), Mode::Apply, None).unwrap_err();
    assert_eq!((refused.field.as_deref(), refused.allowed), (Some("spec.nodes"), vec!["1, 2, 4, 8, 16".to_owned()]));
}

/// With an RDMA adapter near each GPU, listed in no order of their addresses.
fn railed(name: &str) -> NodeCapabilities {
    let mut machine = h100x8(name);
    for gpu in &mut machine.gpus {
        gpu.nics = vec!["eth0".into(), format!("ib{}", gpu.index)];
    }
    let nic = |n: u32| NicInfo {
        name: format!("ib{n}"),
        numa_node: None,
        pci_address: Some(format!("0000:{n:02x}:00.0")),
        speed_mbps: None,
        rdma: true,
    };
    let eth0 = NicInfo { name: "eth0".into(), rdma: false, ..nic(0) };
    machine.nics = (0..8).rev().map(nic).chain([eth0]).collect();
    machine
}

#[test]
fn parts_on_different_nodes_get_gpus_on_the_same_rails() {
    let mut f = Fleet::with_nodes(0);
    f.join_as("n0", railed("n0"));
    f.submit(spec(1));
    f.join_as("n1", railed("n1"));
    // By themselves n0 would give its GPUs 1 and 2, and n1 0 and 1.
    let out = f.submit(over(2, 4));
    let report = out.placement.clone().unwrap();
    assert_eq!(
        report.summary,
        "goes to n0, n1: 2 of 2 nodes that fit, how near they are is not known (no label rack), 2 GPUs each, on the \
         same rails, simulated"
    );
    let w = f.workload(out.workload_id.unwrap());
    let gpus: Vec<&str> = w.lives().flat_map(|part| &part.gpus).map(|gpu| gpu.0.as_str()).collect();
    assert_eq!(gpus, ["GPU-n0-1", "GPU-n0-2", "GPU-n1-1", "GPU-n1-2"]);
    let rows = query::gpu_list(&f.cluster, &GpuListParams::default()).unwrap();
    let rails: Vec<_> = rows.gpus.iter().map(|row| row["rail"].as_u64()).collect();
    assert_eq!(rails[..8], (0..8).map(Some).collect::<Vec<_>>());
}

#[test]
fn parts_that_have_to_take_other_rails_say_how_many_gpus_are_off() {
    let mut f = Fleet::with_nodes(0);
    f.join_as("n0", railed("n0"));
    let first = f.submit(spec(4)).workload_id.unwrap();
    f.submit(spec(4));
    f.join_as("n1", railed("n1"));
    f.submit(spec(4));
    f.report(first, N::Completed, C::Exited, Some(0));
    // The lower half of n0 is free, and the upper one of n1.
    let report = f.submit(over(2, 8)).placement.unwrap();
    assert!(report.summary.contains("4 GPUs each, 4 GPUs off the rails of the others"), "{}", report.summary);
}

#[test]
fn where_a_node_lacks_an_adapter_nothing_is_said_of_rails() {
    let mut f = Fleet::with_nodes(0);
    f.join_as("n0", railed("n0"));
    let mut lacks = railed("n1");
    lacks.nics.retain(|nic| nic.name != "ib0");
    lacks.gpus[0].nics.clear();
    f.join_as("n1", lacks);
    let report = f.submit(over(2, 2)).placement.unwrap();
    assert!(report.chosen.is_some() && !report.summary.contains("rails"), "{}", report.summary);
}
