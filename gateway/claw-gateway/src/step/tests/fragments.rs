//! What the report of fragmentation counts is what the scheduler then does.

use claw_proto::spec::WorkloadSpec;
use claw_tools::refusal::ErrorCode;
use claw_tools::scheduling::FragmentationReportParams;
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use proptest::prelude::*;

use super::fleet::{Fleet, choice, spec};
use super::properties::{Move, moves, play};
use crate::query;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, .. ProptestConfig::default() })]

    /// So many more of a size as are told would fit do start, and no more; nothing is lost beyond what is free.
    #[test]
    fn what_would_fit_does(history in prop::collection::vec(moves(), 1..40), size in 0_usize..4) {
        let mut f = Fleet::with_slices(3);
        for m in history.iter().filter(|m| !matches!(m, Move::Quota { .. })) {
            play(&mut f, m);
        }
        // Whoever waits, or keeps room, would take what becomes free before them.
        prop_assume!(f.cluster.workloads.queue_len() == 0);
        let report = query::fragmentation(&f.cluster, &FragmentationReportParams::default()).unwrap();
        for of in &report.models {
            // Both sides are rounded to hundredths.
            prop_assert!(of.lost <= f64::from(of.free) + of.free_in_part + 0.01, "{of:?}");
            prop_assert!(of.free <= of.gpus);
            prop_assert_eq!(of.by_free.iter().map(|row| row.free * row.nodes).sum::<u32>(), of.free);
            let more = &of.more[size];
            let mut n_started = 0;
            loop {
                let id = f.submit(choice(more.gpus, Some(&of.model), &[])).workload_id.unwrap();
                if f.workload(id).state != WorkloadState::Placed {
                    break;
                }
                n_started += 1;
            }
            prop_assert_eq!(n_started, more.workloads);
        }
    }
}

#[test]
fn what_is_lost_is_weighed_by_what_is_typical_and_says_why() {
    let mut f = Fleet::with_nodes(2);
    let report = |f: &Fleet| query::fragmentation(&f.cluster, &FragmentationReportParams::default()).unwrap();
    let empty = report(&f);
    assert!(empty.assumed && empty.models[0].lost.to_bits() == 0, "{empty:?}");
    // Three of eight are left on n0, all eight on n1; half of the work asks for eight at once.
    let large = f.submit(spec(8)).workload_id.unwrap();
    f.submit(spec(5));
    let n1 = f.workload(large).live().unwrap().node_id;
    f.report(
        large,
        claw_proto::message::NodeWorkloadState::Completed,
        claw_proto::message::StatusCause::Exited,
        Some(0),
    );
    let told = report(&f);
    let h100 = &told.models[0];
    assert_eq!((h100.gpus, h100.free, h100.largest, told.assumed), (16, 11, 8, false));
    // To work of five and of eight the three are lost, to nobody the eight.
    assert!((h100.lost - 3.0).abs() < 1e-9, "{h100:?}");
    assert_eq!(h100.more.iter().map(|row| row.workloads).collect::<Vec<_>>(), [11, 5, 2, 1]);
    assert_eq!(h100.worst[0].why, "3 GPUs free, and work that asks for 5 or more does not fit");
    // Cores that are all taken strand the GPUs beside them.
    let hungry = WorkloadSpec { cpu_cores: Some(60.0), ..spec(1) };
    let id = f.submit(hungry).workload_id.unwrap();
    let told = report(&f);
    let node = f.cluster.nodes.get(f.workload(id).live().unwrap().node_id).unwrap().name.clone();
    let row = told.models[0].worst.iter().find(|row| row.node == node).unwrap();
    assert!(row.why.contains("cores and") && row.lost > 0.0, "{row:?} {n1}");
    let refused =
        query::fragmentation(&f.cluster, &FragmentationReportParams { model: Some("H10".into()) }).unwrap_err();
    assert_eq!((refused.code, refused.did_you_mean.as_deref()), (ErrorCode::NotFound, Some("H100")));
}

#[test]
fn room_that_is_kept_for_who_waits_is_not_told_as_free() {
    let mut f = Fleet::with_nodes(2);
    let bounded = |gpus| WorkloadSpec { max_duration_s: Some(3_600), ..spec(gpus) };
    f.submit(bounded(4));
    f.submit(bounded(8));
    let waits = f.submit(bounded(8)).workload_id.unwrap();
    f.pass(601);
    assert_eq!(f.workload(waits).reason, WorkloadReason::Reserved);
    let told = query::fragmentation(&f.cluster, &FragmentationReportParams::default()).unwrap();
    // The four that are open beside the first are kept, and the other node has none.
    let h100 = &told.models[0];
    assert_eq!((h100.free, h100.lost.to_bits(), h100.more[2].workloads), (0, 0, 0), "{told:?}");
    let id = f.submit(spec(4)).workload_id.unwrap();
    assert_eq!(f.workload(id).state, WorkloadState::Pending);
}
