//! Windows of GPUs: bounded over the fleet, and as the nodes send them.

use claw_proto::message::SystemMetrics;

use super::*;

fn sent(desk: &MetricsDesk, node: u128, at_ms: i64, uuids: &[String]) {
    let gpu = |uuid: &String| GpuMetrics {
        uuid: GpuUuid(uuid.clone()),
        utilization_percent: 1.0,
        memory_used_mib: 1,
        memory_total_mib: 2,
        temperature_celsius: 40.0,
        power_watts: 70.0,
        simulated: true,
        details: None,
    };
    let gpus = uuids.iter().map(gpu).collect();
    let at = Timestamp::from_unix_ms(at_ms);
    let snapshot = MetricsSnapshot { at, gpus, system: SystemMetrics::default(), workloads: Vec::new() };
    desk.put(NodeId::from_bits(node), snapshot);
}

fn names(node: u128, n: usize) -> Vec<String> {
    (0..n).map(|gpu| format!("GPU-{node}-{gpu}")).collect()
}

#[test]
fn a_fleet_keeps_no_more_windows_than_stated() {
    let desk = MetricsDesk::default();
    let n_nodes = WINDOWS_MAX.div_ceil(GPUS_PER_NODE_MAX) as u128 + 2;
    for node in 0..n_nodes {
        sent(&desk, node, 1_000, &names(node, GPUS_PER_NODE_MAX));
    }
    let kept = |node: u128| desk.windows(NodeId::from_bits(node)).len();
    assert_eq!((0..n_nodes).map(kept).sum::<usize>(), WINDOWS_MAX);
    assert_eq!((kept(0), kept(n_nodes - 1)), (GPUS_PER_NODE_MAX, 0));
    // A node that leaves makes room.
    desk.forget(NodeId::from_bits(0));
    sent(&desk, n_nodes - 1, 2_000, &names(n_nodes - 1, GPUS_PER_NODE_MAX));
    assert_eq!(kept(n_nodes - 1), GPUS_PER_NODE_MAX);
}

#[test]
fn samples_go_to_their_own_gpu_whatever_the_order() {
    let desk = MetricsDesk::default();
    let mut uuids = names(1, 3);
    for n in 0..5 {
        sent(&desk, 1, 10_000 * n, &uuids);
        uuids.rotate_left(1);
    }
    sent(&desk, 1, 50_000, &uuids[..1]);
    let of = |uuid: &String| {
        let windows = desk.windows(NodeId::from_bits(1));
        let (_, window) = windows.iter().find(|(known, _)| known.0 == *uuid).unwrap();
        window.samples(Timestamp::from_unix_ms(0), i64::MAX).len()
    };
    assert_eq!(uuids.iter().map(of).collect::<Vec<_>>(), [6, 5, 5]);
    // What is not measured any more goes after hours.
    sent(&desk, 1, 50_000 + WINDOW_UNUSED_MS, &uuids[..1]);
    assert_eq!(desk.windows(NodeId::from_bits(1)).len(), 1);
    assert_eq!(desk.0.read().unwrap().n_windows, 1);
}
