//! The host's network as far as ranks need it: which interface leads to an
//! address, and which RDMA device belongs to an interface.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;

use claw_proto::message::DesiredWorkload;
use claw_proto::topology::{GpuDriver, NodeCapabilities};
use claw_proto::validation::{GPU_MILLI, share_memory_mib, share_milli};

use super::ports::MeetingPorts;
use super::ranks::{self, RankFacts};

/// What a workload is told of its GPUs and of its ranks, as environment; empty for one process
/// alone with whole GPUs. `ports` are those that it shares with others of this node.
pub(super) async fn placed_environment(
    workload: &DesiredWorkload,
    capabilities: Option<Arc<NodeCapabilities>>,
    ports: Option<&MeetingPorts>,
) -> BTreeMap<String, String> {
    let mut told = share_environment(workload, capabilities.as_deref());
    let key = (workload.workload_id, workload.attempt);
    let meeting_port = ports.filter(|_| ranks::meets_on_loopback(workload)).and_then(|ports| ports.give(key));
    told.extend(rank_environment(workload, capabilities, meeting_port).await);
    told
}

/// What a program has of a GPU that it shares: nothing but itself keeps it to that.
fn share_environment(workload: &DesiredWorkload, capabilities: Option<&NodeCapabilities>) -> BTreeMap<String, String> {
    let milli = share_milli(&workload.spec);
    let mut told = BTreeMap::new();
    if milli >= GPU_MILLI {
        return told;
    }
    told.insert("CLAW_GPU_SHARE".to_owned(), (f64::from(milli) / f64::from(GPU_MILLI)).to_string());
    let gpus = capabilities.map_or(&[][..], |capabilities| &capabilities.gpus);
    if let Some(gpu) = gpus.iter().find(|gpu| workload.gpus.contains(&gpu.uuid)) {
        told.insert("CLAW_GPU_MEMORY_MIB".to_owned(), share_memory_mib(milli, gpu.memory_mib).to_string());
    }
    told
}

/// The ranks of a workload as environment; empty for one process alone.
async fn rank_environment(
    workload: &DesiredWorkload,
    capabilities: Option<Arc<NodeCapabilities>>,
    meeting_port: Option<u16>,
) -> BTreeMap<String, String> {
    if workload.ranks.is_none() && workload.gpus.len() < 2 {
        return BTreeMap::new();
    }
    let workload = workload.clone();
    let gathered = tokio::task::spawn_blocking(move || {
        let facts = capabilities.map(|capabilities| rank_facts(&workload, &capabilities));
        let facts = RankFacts { meeting_port, ..facts.unwrap_or_default() };
        ranks::environment(&workload, &facts)
    });
    gathered.await.unwrap_or_default()
}

/// Gathers what [`super::ranks::environment`] needs. May ask a name server; not
/// for a task that must not wait.
pub fn rank_facts(workload: &DesiredWorkload, capabilities: &NodeCapabilities) -> RankFacts {
    let interface_to_master = workload.ranks.as_ref().filter(|ranks| ranks.n_nodes > 1).and_then(|ranks| {
        let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let found = (ranks.master_address.as_str(), ranks.master_port).to_socket_addrs();
        let mut addresses = match found {
            Ok(addresses) => addresses,
            Err(error) => {
                tracing::warn!(%error, address = ranks.master_address, "the master's address is not known here");
                return None;
            }
        };
        addresses.find_map(|address| match address.ip() {
            IpAddr::V4(address) => interface_to(&table, address),
            // The kernel's table for version 6 has another form; NCCL then picks by itself.
            IpAddr::V6(_) => None,
        })
    });
    // Adapters of simulated GPUs are not there.
    let are_real = capabilities.gpu_driver != GpuDriver::Sim;
    let given = capabilities.gpus.iter().filter(|gpu| are_real && workload.gpus.contains(&gpu.uuid));
    RankFacts {
        interface_to_master,
        nics_of_gpus: given.flat_map(|gpu| gpu.nics.iter().cloned()).collect(),
        nics: capabilities.nics.clone(),
        rdma_devices: rdma_devices(Path::new("/sys/class/infiniband")),
        meeting_port: None,
    }
}

/// The interface of the longest matching prefix in `/proc/net/route`.
fn interface_to(table: &str, address: Ipv4Addr) -> Option<String> {
    // The kernel writes the four bytes as a number of the host's byte order.
    let number = |hex: &str| u32::from_str_radix(hex, 16).ok().map(|value| u32::from_be_bytes(value.to_ne_bytes()));
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let destination = number(fields.get(1)?)?;
        let (metric, mask) = (fields.get(6)?.parse::<u32>().ok()?, number(fields.get(7)?)?);
        let name = (*fields.first()?).to_owned();
        (u32::from(address) & mask == destination).then_some((mask.count_ones(), Reverse(metric), name))
    });
    routes.max().map(|(_, _, name)| name)
}

/// RDMA devices by the interface that they carry.
fn rdma_devices(root: &Path) -> BTreeMap<String, String> {
    let names = |folder: &Path| -> Vec<String> {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let mut found = BTreeMap::new();
    for device in names(root) {
        for interface in names(&root.join(&device).join("device/net")) {
            found.entry(interface).or_insert_with(|| device.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_then_the_lowest_metric() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth1\t0000000A\t00000000\t0001\t0\t0\t200\t000000FF\t0\t0\t0\n\
            eth2\t0000000A\t00000000\t0001\t0\t0\t100\t000000FF\t0\t0\t0\n\
            ib0\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let to = |text: &str| interface_to(table, text.parse().unwrap());
        assert_eq!(to("10.0.1.7").as_deref(), Some("ib0"));
        assert_eq!(to("10.9.9.9").as_deref(), Some("eth2"));
        assert_eq!(to("8.8.8.8").as_deref(), Some("eth0"));
    }

    #[test]
    fn devices_are_found_by_their_interfaces() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("mlx5_0/device/net/ib0")).unwrap();
        fs::create_dir_all(root.path().join("mlx5_1/device/net/ib1")).unwrap();
        let expected =
            BTreeMap::from([("ib0".to_owned(), "mlx5_0".to_owned()), ("ib1".to_owned(), "mlx5_1".to_owned())]);
        assert_eq!(rdma_devices(root.path()), expected);
    }
}
