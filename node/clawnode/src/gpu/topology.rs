//! How GPUs are connected: to each other, to the host's memory, to the network.
//!
//! The rules are pure. What the host has is read from a sysfs root, which is a
//! parameter so that a test can build one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use claw_proto::ids::GpuUuid;
use claw_proto::limits::NICS_PER_NODE_MAX;
use claw_proto::topology::NicInfo;

use super::merge::pci_address;

/// One active link of a GPU: to another GPU, or to a switch that others share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Directly to this GPU.
    Gpu(GpuUuid),
    /// To something that is no GPU of this node, by its address: an NVSwitch.
    Hub(String),
}

/// Islands of GPUs that reach each other over links: a number for each GPU that
/// is connected to another one, from 0 in the order of `gpus`.
pub fn islands(gpus: &[GpuUuid], links: &[(GpuUuid, Link)]) -> BTreeMap<GpuUuid, u32> {
    let index: BTreeMap<&GpuUuid, usize> = gpus.iter().enumerate().map(|(n, gpu)| (gpu, n)).collect();
    let mut hubs: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sets = Sets((0..gpus.len()).collect());
    for (from, link) in links {
        let Some(from) = index.get(from) else { continue };
        let to = match link {
            Link::Gpu(to) => index.get(to).copied(),
            Link::Hub(address) => Some(*hubs.entry(address).or_insert(*from)),
        };
        if let Some(to) = to {
            sets.join(*from, to);
        }
    }
    let roots: Vec<usize> = (0..gpus.len()).map(|n| sets.root(n)).collect();
    let (mut names, mut named) = (BTreeMap::new(), BTreeMap::new());
    for (gpu, root) in gpus.iter().zip(&roots) {
        // A GPU alone is connected to nobody.
        if roots.iter().filter(|other| *other == root).count() > 1 {
            let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
            named.insert(gpu.clone(), *names.entry(*root).or_insert(next));
        }
    }
    named
}

/// Disjoint sets; the smallest member names each.
struct Sets(Vec<usize>);

impl Sets {
    fn root(&mut self, of: usize) -> usize {
        let mut at = of;
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// How far two PCI devices are apart, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// Below one PCIe switch.
    Switch,
    /// Below one host bridge.
    HostBridge,
    /// At one NUMA node.
    Node,
    /// At different NUMA nodes, or it is not known.
    Far,
}

/// Where a PCI device sits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Host bridge, then bridges and switches, then the device itself.
    pub path: Vec<String>,
    /// NUMA node, if the firmware tells.
    pub numa_node: Option<u32>,
}

impl Place {
    /// How far another device is, and over how many common parts (more are nearer).
    pub fn distance(&self, other: &Self) -> (Distance, Reverse<usize>) {
        let pairs = self.path.iter().zip(&other.path);
        let common = pairs.take_while(|(a, b)| a == b).count();
        let distance = match common {
            0 if self.numa_node.is_some() && self.numa_node == other.numa_node => Distance::Node,
            0 => Distance::Far,
            1 => Distance::HostBridge,
            _ => Distance::Switch,
        };
        (distance, Reverse(common))
    }
}

/// Names of the interfaces that are nearest to a GPU, all that are equally near;
/// none if the nearest is at another NUMA node.
pub fn nearest(gpu: &Place, nics: &[(String, Place)]) -> Vec<String> {
    let distances = nics.iter().map(|(name, place)| (gpu.distance(place), name));
    let Some(least) = distances.clone().map(|(distance, _)| distance).min() else { return Vec::new() };
    if least.0 == Distance::Far {
        return Vec::new();
    }
    distances.filter(|(distance, _)| *distance == least).map(|(_, name)| name.clone()).collect()
}

/// Where a PCI device sits, read below a sysfs root.
pub fn place(sysfs: &Path, address: &str) -> Place {
    let device = sysfs.join("bus/pci/devices").join(address);
    let real = device.canonicalize().unwrap_or_default();
    let is_part = |part: &&str| part.starts_with("pci") || pci_address(part).is_some();
    let parts = real.iter().filter_map(|part| part.to_str());
    let path = parts.skip_while(|part| !part.starts_with("pci")).filter(is_part).map(str::to_owned).collect();
    Place { path, numa_node: numa_node(&device) }
}

fn numa_node(device: &Path) -> Option<u32> {
    // −1 is the kernel's word for not knowing.
    text(&device.join("numa_node"))?.parse().ok()
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The interfaces of the host that are PCI devices, read below a sysfs root, by name.
pub fn nics(sysfs: &Path) -> Vec<NicInfo> {
    let Ok(entries) = std::fs::read_dir(sysfs.join("class/net")) else { return Vec::new() };
    let rdma = rdma_addresses(sysfs);
    let mut nics: Vec<NicInfo> = entries
        .filter_map(|entry| {
            let (path, name) = entry.ok().map(|entry| (entry.path(), entry.file_name()))?;
            let pci_address = device_address(&path)?;
            let speed = text(&path.join("speed")).and_then(|speed| speed.parse::<i64>().ok());
            Some(NicInfo {
                name: name.to_str()?.to_owned(),
                numa_node: numa_node(&path.join("device")),
                rdma: rdma.contains(&pci_address),
                // Without a link the kernel says −1 or refuses.
                speed_mbps: speed.and_then(|speed| u32::try_from(speed).ok()).filter(|speed| *speed > 0),
                pci_address: Some(pci_address),
            })
        })
        .collect();
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    nics.truncate(NICS_PER_NODE_MAX);
    nics
}

/// PCI addresses of the host's RDMA devices.
fn rdma_addresses(sysfs: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(sysfs.join("class/infiniband")) else { return BTreeSet::new() };
    entries.filter_map(|entry| device_address(&entry.ok()?.path())).collect()
}

/// PCI address of what a class entry is; a function of a virtual bus on top counts as its parent.
fn device_address(class_entry: &Path) -> Option<String> {
    let real = class_entry.join("device").canonicalize().ok()?;
    real.iter().rev().filter_map(|part| part.to_str()).filter(|part| part.contains('.')).find_map(pci_address)
}

/// The host's interfaces with their places, for [`nearest`].
pub fn nic_places(sysfs: &Path) -> Vec<(String, Place)> {
    let with_place = |nic: NicInfo| {
        let address = nic.pci_address?;
        Some((nic.name, place(sysfs, &address)))
    };
    nics(sysfs).into_iter().filter_map(with_place).collect()
}

#[cfg(test)]
mod tests;
