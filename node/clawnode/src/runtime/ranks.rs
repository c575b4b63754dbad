//! What the processes of a workload that spans GPUs or nodes are told about
//! each other: ranks, the place where they meet, and which interface to take.
//!
//! Pure. The names are those that `torchrun`, `torch.distributed`, NCCL and Gloo
//! read. A workload's own environment always wins.

use std::collections::BTreeMap;

use claw_proto::message::{DesiredWorkload, RankAssignment};
use claw_proto::topology::NicInfo;

/// Variable with the port at which the processes meet.
pub(super) const MASTER_PORT: &str = "MASTER_PORT";
/// That port for processes of one node that have a network of their own.
const MASTER_PORT_DEFAULT: u16 = 29_500;
/// Interface of a workload that stays on its node.
const LOOPBACK: &str = "lo";

/// What the node knows that the workload's processes need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RankFacts {
    /// Interface through which the master is reached, if that is known.
    pub interface_to_master: Option<String>,
    /// Network interfaces nearest to the given GPUs, by name, nearest first.
    pub nics_of_gpus: Vec<String>,
    /// All network interfaces of the node.
    pub nics: Vec<NicInfo>,
    /// RDMA device of an interface, such as `mlx5_0`.
    pub rdma_devices: BTreeMap<String, String>,
    /// Port of this node that is the workload's alone, if it shares the node's network.
    pub meeting_port: Option<u16>,
}

/// Whether the processes of a workload have each other as their only peers: they meet on loopback,
/// at a port that the node gives.
pub(super) fn meets_on_loopback(workload: &DesiredWorkload) -> bool {
    workload.ranks.is_none() && workload.gpus.len() > 1
}

/// The environment for an attempt; empty for one process without peers.
pub fn environment(workload: &DesiredWorkload, facts: &RankFacts) -> BTreeMap<String, String> {
    let n_local = u32::try_from(workload.gpus.len()).unwrap_or(u32::MAX).max(1);
    let ranks = match &workload.ranks {
        Some(ranks) => ranks.clone(),
        None if n_local > 1 => alone(n_local, facts.meeting_port.unwrap_or(MASTER_PORT_DEFAULT)),
        None => return BTreeMap::new(),
    };
    let is_alone = ranks.n_nodes <= 1;
    let endpoint = format!("{}:{}", ranks.master_address, ranks.master_port);
    let mut env: BTreeMap<String, String> = [
        ("RANK", ranks.first_rank.to_string()),
        ("LOCAL_RANK", "0".to_owned()),
        ("NODE_RANK", ranks.node_rank.to_string()),
        ("GROUP_RANK", ranks.node_rank.to_string()),
        ("NNODES", ranks.n_nodes.to_string()),
        ("WORLD_SIZE", ranks.world_size.to_string()),
        ("LOCAL_WORLD_SIZE", n_local.to_string()),
        ("MASTER_ADDR", ranks.master_address.clone()),
        (MASTER_PORT, ranks.master_port.to_string()),
        ("PET_NNODES", ranks.n_nodes.to_string()),
        ("PET_NODE_RANK", ranks.node_rank.to_string()),
        ("PET_NPROC_PER_NODE", n_local.to_string()),
        ("PET_MASTER_ADDR", ranks.master_address.clone()),
        ("PET_MASTER_PORT", ranks.master_port.to_string()),
        ("PET_RDZV_BACKEND", if is_alone { "static" } else { "c10d" }.to_owned()),
        ("PET_RDZV_ENDPOINT", endpoint),
        ("PET_RDZV_ID", format!("{}.{}", workload.workload_id, workload.attempt.0)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let interface = if is_alone { Some(LOOPBACK.to_owned()) } else { facts.interface_to_master.clone() };
    if let Some(interface) = interface {
        env.insert("NCCL_SOCKET_IFNAME".to_owned(), interface.clone());
        env.insert("GLOO_SOCKET_IFNAME".to_owned(), interface);
    }
    let adapters = adapters(facts);
    if !is_alone && !adapters.is_empty() {
        env.insert("NCCL_IB_HCA".to_owned(), adapters.join(","));
    }
    env
}

/// Several GPUs of one node: they are each other's only peers.
fn alone(n_local: u32, master_port: u16) -> RankAssignment {
    RankAssignment {
        node_rank: 0,
        n_nodes: 1,
        first_rank: 0,
        world_size: n_local,
        master_address: "127.0.0.1".to_owned(),
        master_port,
    }
}

/// RDMA devices near the given GPUs, each once, nearest first.
fn adapters(facts: &RankFacts) -> Vec<String> {
    let has_rdma = |name: &str| facts.nics.iter().any(|nic| nic.name == name && nic.rdma);
    let mut devices: Vec<String> = Vec::new();
    for name in facts.nics_of_gpus.iter().filter(|name| has_rdma(name)) {
        // Without a device of its own name the interface's is the best there is.
        let device = facts.rdma_devices.get(name).unwrap_or(name);
        if !devices.contains(device) {
            devices.push(device.clone());
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use claw_proto::ids::{Attempt, GpuUuid, WorkloadId};
    use claw_proto::spec::{RuntimeKind, WorkloadSpec};
    use expect_test::{Expect, expect};

    use super::*;
    use crate::runtime::samples;

    fn check(n_gpus: usize, ranks: Option<RankAssignment>, facts: &RankFacts, expected: &Expect) {
        let key = (WorkloadId::from_bits(1), Attempt(2));
        let workload = DesiredWorkload {
            gpus: (0..n_gpus).map(|n| GpuUuid(format!("GPU-{n}"))).collect(),
            ranks,
            ..samples::desired(key, RuntimeKind::Docker, WorkloadSpec::default())
        };
        let env = environment(&workload, facts);
        let lines: Vec<String> = env.into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        expected.assert_eq(&lines.concat());
    }

    fn nic(name: &str, rdma: bool) -> NicInfo {
        NicInfo { name: name.into(), numa_node: None, pci_address: None, speed_mbps: None, rdma }
    }

    #[test]
    fn one_process_is_told_nothing() {
        check(1, None, &RankFacts::default(), &expect![""]);
    }

    #[test]
    fn gpus_of_one_node_meet_on_loopback() {
        check(
            4,
            None,
            &RankFacts::default(),
            &expect![[r"
            GLOO_SOCKET_IFNAME=lo
            GROUP_RANK=0
            LOCAL_RANK=0
            LOCAL_WORLD_SIZE=4
            MASTER_ADDR=127.0.0.1
            MASTER_PORT=29500
            NCCL_SOCKET_IFNAME=lo
            NNODES=1
            NODE_RANK=0
            PET_MASTER_ADDR=127.0.0.1
            PET_MASTER_PORT=29500
            PET_NNODES=1
            PET_NODE_RANK=0
            PET_NPROC_PER_NODE=4
            PET_RDZV_BACKEND=static
            PET_RDZV_ENDPOINT=127.0.0.1:29500
            PET_RDZV_ID=wl_00000000000000000000000001.2
            RANK=0
            WORLD_SIZE=4
        "]],
        );
    }

    #[test]
    fn nodes_meet_at_the_master_and_use_the_near_adapters() {
        let ranks = RankAssignment {
            node_rank: 1,
            n_nodes: 2,
            first_rank: 8,
            world_size: 16,
            master_address: "10.0.0.1".into(),
            master_port: 29_501,
        };
        let facts = RankFacts {
            interface_to_master: Some("eth0".into()),
            nics_of_gpus: vec!["ib1".into(), "ib0".into(), "eth0".into(), "ib1".into()],
            nics: vec![nic("eth0", false), nic("ib0", true), nic("ib1", true), nic("ib2", true)],
            rdma_devices: BTreeMap::from([("ib1".into(), "mlx5_1".into()), ("ib0".into(), "mlx5_0".into())]),
            meeting_port: None,
        };
        check(
            8,
            Some(ranks),
            &facts,
            &expect![[r"
            GLOO_SOCKET_IFNAME=eth0
            GROUP_RANK=1
            LOCAL_RANK=0
            LOCAL_WORLD_SIZE=8
            MASTER_ADDR=10.0.0.1
            MASTER_PORT=29501
            NCCL_IB_HCA=mlx5_1,mlx5_0
            NCCL_SOCKET_IFNAME=eth0
            NNODES=2
            NODE_RANK=1
            PET_MASTER_ADDR=10.0.0.1
            PET_MASTER_PORT=29501
            PET_NNODES=2
            PET_NODE_RANK=1
            PET_NPROC_PER_NODE=8
            PET_RDZV_BACKEND=c10d
            PET_RDZV_ENDPOINT=10.0.0.1:29501
            PET_RDZV_ID=wl_00000000000000000000000001.2
            RANK=8
            WORLD_SIZE=16
        "]],
        );
    }
}
