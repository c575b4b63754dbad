//! Models that a workload falls back to, and what has to keep it apart from others.

use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::spec::{GpuRequest, Isolation, WorkloadSpec};
use claw_proto::topology::{GpuInfo, MigSlice};
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
        "invalid value: gpu.isolation: nothing keeps the shares of a GPU apart (got hardware); allowed: none, or gpu.mig_profile or whole GPUs instead of gpu.fraction"
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
