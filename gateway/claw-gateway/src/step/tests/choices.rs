//! Models that a workload falls back to, and what has to keep it apart from others.

use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::spec::{GpuRequest, Isolation, WorkloadSpec};
use claw_proto::topology::{GpuInfo, MigSlice, NodeCapabilities};
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{PlacementReason, WorkloadState};
use expect_test::expect;

use super::fleet::{Fleet, choice, h100x8, of_model, share, slice, spec};
use crate::query;

/// One node of each of these models, called n0, n1, …
fn fleet(models: &[&str]) -> Fleet {
    let mut f = Fleet::with_nodes(0);
    for (at, model) in models.iter().enumerate() {
        let name = format!("n{at}");
        f.join_as(&name, of_model(&name, model));
    }
    f
}

/// Where all its parts run, and what was said of it.
fn placed(f: &mut Fleet, spec: WorkloadSpec) -> (Vec<String>, String) {
    let id = f.submit(spec).workload_id.unwrap();
    let w = f.workload(id);
    let on = w.lives().map(|a| f.cluster.nodes.get(a.node_id).unwrap().name.clone()).collect();
    (on, w.report.clone().unwrap().summary.clone())
}

#[test]
fn a_later_model_is_taken_only_where_an_earlier_one_has_no_room() {
    let mut f = fleet(&["A100", "L40S", "H100"]);
    let wish = || choice(8, Some("H100"), &["L40S", "A100"]);
    let (on, why) = placed(&mut f, wish());
    assert_eq!(on, ["n2"]);
    assert!(why.contains("H100, its first choice"), "{why}");
    let (on, why) = placed(&mut f, wish());
    assert_eq!(on, ["n1"]);
    assert!(why.contains("L40S, its choice 2 of 3"), "{why}");
    let (on, why) = placed(&mut f, wish());
    assert_eq!(on, ["n0"]);
    assert!(why.contains("A100, its choice 3 of 3"), "{why}");
    // Then it waits for any of them: the one that is nearest to fitting tells why.
    let waits = f.submit(wish()).workload_id.unwrap();
    let report = f.workload(waits).report.clone().unwrap();
    assert_eq!((report.rejected.len(), report.rejected[0].reason), (1, PlacementReason::GpuBusy), "{report:?}");
    assert!(report.waiting_helps);
    assert_eq!(query::explain(&f.cluster, &waits.to_string(), f.now).unwrap().blockers.len(), 3);
    // What no node has is named, with all that would do.
    let none = f.submit(choice(1, Some("B200"), &["GB200"])).workload_id.unwrap();
    let report = f.workload(none).report.clone().unwrap();
    assert_eq!(&*report.rejected[0].detail, "wanted B200, else GB200, has A100");
    assert!(!report.waiting_helps);
}

#[test]
fn without_a_first_choice_the_best_fit_of_all_models_is_taken() {
    let mut f = fleet(&["A100", "H100", "L40S"]);
    placed(&mut f, choice(4, Some("H100"), &[]));
    let (on, why) = placed(&mut f, choice(4, None, &["A100", "H100"]));
    assert_eq!(on, ["n1"], "it fills the node that is half full");
    assert!(why.contains("H100, of A100 or H100"), "{why}");
    let (on, _) = placed(&mut f, choice(1, None, &["A100", "H100"]));
    assert_eq!(on, ["n0"], "a model that it did not name is not taken");
}

#[test]
fn all_parts_of_a_gang_get_one_model() {
    let mut f = fleet(&["H100", "A100", "A100"]);
    let gang = |nodes: u32| WorkloadSpec { nodes: Some(nodes), ..choice(8 * nodes, Some("H100"), &["A100"]) };
    let (mut on, why) = placed(&mut f, gang(2));
    on.sort();
    assert_eq!(on, ["n1", "n2"]);
    assert!(why.contains("A100, its choice 2 of 2"), "{why}");
    let id = f.submit(gang(3)).workload_id.unwrap();
    assert_eq!(f.workload(id).state, WorkloadState::Pending, "three nodes of one model are not there");
}

#[test]
fn what_must_be_kept_apart_by_hardware_never_lands_on_a_share() {
    let hardware = |spec: WorkloadSpec| {
        let gpu = Some(GpuRequest { isolation: Some(Isolation::Hardware), ..spec.gpu.clone().unwrap() });
        WorkloadSpec { gpu, ..spec }
    };
    let refused = ValidSpec::parse(hardware(share(0.5))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "invalid value: gpu.isolation: no hardware keeps the shares of a GPU apart (got hardware); allowed: none, memory, or gpu.mig_profile or whole GPUs instead of gpu.fraction"
    );
    let mut f = Fleet::with_slices(2);
    for spec in [hardware(spec(1)), hardware(slice("1g.10gb")), hardware(share(1.0))] {
        let id = f.submit(spec).workload_id.unwrap();
        assert_eq!(f.workload(id).state, WorkloadState::Placed);
        // Nobody gets a part of what it has.
        let its = f.workload(id).lives().flat_map(|a| a.gpus.clone()).collect::<Vec<_>>();
        let other = f.submit(share(0.1)).workload_id.unwrap();
        assert_eq!(f.workload(other).state, WorkloadState::Placed);
        assert!(f.workload(other).lives().all(|a| a.gpus.iter().all(|gpu| !its.contains(gpu))));
    }
}

#[test]
fn a_slice_that_nobody_has_cut_is_told_with_how_a_gpu_could_be_cut() {
    let mut f = Fleet::with_nodes(1);
    let node = f.node("n0").node_id;
    let mut has = h100x8("n0");
    has.gpus.truncate(2);
    let parent = has.gpus[1].clone();
    let part = |n: u32, profile: &str| GpuInfo {
        uuid: GpuUuid(format!("MIG-{n}")),
        index: 2 + n,
        mig: Some(MigSlice { parent: parent.uuid.clone(), profile: profile.into() }),
        ..parent.clone()
    };
    has.gpus.push(part(0, "4g.40gb"));
    f.connect(node, has.clone(), &[], 7);
    let would = |f: &Fleet, id: WorkloadId| {
        let explained = query::explain(&f.cluster, &id.to_string(), f.now).unwrap();
        let told = |r: &claw_tools::workloads::Remedy| format!("{} -> {}", r.change, r.call.tool);
        explained.would_start_if.iter().map(told).collect::<Vec<_>>()
    };
    // Beside a 4g.40gb a 3g.40gb always has room; no GPU that is whole has to be cut for it.
    let small = f.submit(slice("3g.40gb")).workload_id.unwrap();
    expect![[r#"
        [
            "slices 3g.40gb were cut on n0: 1 from GPU 1 (H100), in its simulation -> node_get",
            "it took a whole GPU instead of a slice 3g.40gb -> workload_run",
            "it took a slice 4g.40gb instead of 3g.40gb -> workload_run",
        ]
    "#]]
    .assert_debug_eq(&would(&f, small));
    let whole = f.submit(slice("7g.80gb")).workload_id.unwrap();
    assert_eq!(
        would(&f, whole)[0],
        "slices 7g.80gb were cut on n0: 1 from GPU 0 (H100), in its simulation -> node_get"
    );
    // A part of other GPUs: none of these is ever cut so.
    let never = f.submit(slice("1g.5gb")).workload_id.unwrap();
    let report = f.workload(never).report.clone().unwrap();
    assert_eq!(
        &*report.rejected[0].detail,
        "wanted a slice 1g.5gb, has none, and H100 80 GB cannot be cut so (1g.10gb, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb, \
         7g.80gb)"
    );
    assert!(!would(&f, never)[0].contains("were cut"), "{:?}", would(&f, never));
    // What was offered is done on the host, and it starts.
    has.gpus.push(part(1, "3g.40gb"));
    f.connect(node, has, &[], 7);
    assert_eq!(f.workload(small).live().unwrap().gpus, [GpuUuid("MIG-1".into())]);
}

/// Eight GPUs without NVLink, four beside each processor.
fn without_nvlink(name: &str) -> NodeCapabilities {
    let mut machine = h100x8(name);
    for gpu in &mut machine.gpus {
        gpu.nvlink_island = None;
    }
    machine
}

/// The indexes of the GPUs that a submission got, and on which node.
fn got(f: &mut Fleet, gpus: u32) -> (String, Vec<u32>) {
    let chosen = f.submit(spec(gpus)).placement.unwrap().chosen.clone().unwrap();
    let listed = f.node(&chosen.node).gpus().to_vec();
    let index = |uuid: &GpuUuid| listed.iter().find(|gpu| gpu.uuid == *uuid).unwrap().index;
    (chosen.node, chosen.gpus.iter().map(index).collect())
}

#[test]
fn gpus_without_nvlink_are_of_one_numa_node_where_one_has_enough() {
    let mut f = Fleet::with_nodes(0);
    f.join_as("n0", without_nvlink("n0"));
    let on_n0 = |gpus: &[u32]| ("n0".to_owned(), gpus.to_vec());
    assert_eq!(got(&mut f, 1), on_n0(&[0]));
    assert_eq!(got(&mut f, 4), on_n0(&[4, 5, 6, 7]));
    assert_eq!(got(&mut f, 2), on_n0(&[1, 2]));
    // Where none has enough, the one that has most comes first.
    let mut f = Fleet::with_nodes(0);
    f.join_as("n0", without_nvlink("n0"));
    assert_eq!(got(&mut f, 3), on_n0(&[0, 1, 2]));
    assert_eq!(got(&mut f, 5), on_n0(&[3, 4, 5, 6, 7]));
}

#[test]
fn a_node_with_enough_on_one_numa_node_is_taken_before_one_that_is_a_tighter_fit() {
    let mut f = Fleet::with_nodes(0);
    f.join_as("n0", without_nvlink("n0"));
    for gpus in [3, 3] {
        got(&mut f, gpus);
    }
    f.join_as("n1", without_nvlink("n1"));
    // One is left on each side of n0.
    let report = f.submit(spec(2)).placement.unwrap();
    assert_eq!(report.chosen.as_ref().unwrap().node, "n1");
    assert_eq!(report.runner_up.as_ref().unwrap().why_not, "its free GPUs are on several NUMA nodes");
}
