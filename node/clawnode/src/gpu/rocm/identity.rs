//! What the GPUs are and how they are connected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use claw_proto::ids::GpuUuid;
use claw_proto::spec::GpuVendor;
use claw_proto::topology::{GpuInfo, MigSlice};
use tracing::debug;

use super::super::models;
use super::super::topology::{self, Link, Place};
use super::amd_smi::Facts;
use super::kfd::{self, Node};
use super::serial::{Serial, uuid_of_slot};
use super::sysfs::{self, Card};
use super::tools::Told;

pub(super) const MIB: u64 = 1024 * 1024;
/// A GPU with less memory of its own is an integrated one that lives on the host's: not one to
/// give away, MiB.
const MEMORY_MIB_MIN: u64 = 1_024;

/// A GPU as it is, and the partitions that it is cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) gpu: GpuInfo,
    pub(super) slices: Vec<GpuInfo>,
    pub(super) card: Card,
    /// What KFD counts its processes under, one for each partition.
    pub(super) gpu_ids: Vec<u64>,
}

/// What a scan has at hand for each GPU.
struct Host<'a> {
    sysfs: &'a Path,
    nodes: BTreeMap<String, Vec<Node>>,
    nics: Vec<(String, Place)>,
    told: &'a Told,
    driver_version: String,
}

/// What all GPUs are. Who was known before keeps its UUID.
pub(super) fn identify(
    sysfs: &Path,
    cards: BTreeMap<String, Card>,
    before: &BTreeMap<String, Known>,
    told: &Told,
) -> BTreeMap<String, Known> {
    let nodes = kfd::by_card(&kfd::nodes(sysfs), &cards);
    let version = sysfs::driver_version(sysfs);
    let driver_version = match &told.rocm_version {
        Some(rocm) => format!("{version} (ROCm {rocm})"),
        None => version,
    };
    let host = Host { sysfs, nodes, nics: topology::nic_places(sysfs), told, driver_version };
    let mut known = BTreeMap::new();
    let mut uuids: BTreeSet<GpuUuid> = BTreeSet::new();
    let mut next_cdi = 0;
    for (address, card) in cards {
        let of_card: &[Node] = host.nodes.get(&address).map_or(&[], Vec::as_slice);
        let cdi = next_cdi;
        // amd-ctk numbers what KFD has, by PCI address and render node, partitions singly.
        next_cdi += of_card.len();
        let memory_mib = memory_mib(&card, of_card, before.get(&address));
        if memory_mib < MEMORY_MIB_MIN {
            debug!(address, memory_mib, "a GPU without memory of its own is left out");
            continue;
        }
        let mut uuid = uuid(&card, of_card, before.get(&address));
        if uuids.contains(&uuid) {
            // Two dies that share a number.
            uuid = uuid_of_slot(card.device_id, &address);
        }
        uuids.insert(uuid.clone());
        let seed = GpuInfo::new(uuid, 0, GpuVendor::Amd, String::new(), memory_mib);
        known.insert(address, one(&host, card, of_card, seed, cdi));
    }
    connect(&host, &mut known);
    known
}

/// Memory of a GPU. One that hangs may not tell it any more.
fn memory_mib(card: &Card, nodes: &[Node], before: Option<&Known>) -> u64 {
    let of_nodes = || Some(nodes.iter().map(|node| node.memory_bytes).fold(0, u64::saturating_add)).filter(|n| *n > 0);
    let mib = card.vram_bytes.or_else(of_nodes).map(|bytes| bytes / MIB);
    mib.or_else(|| before.map(|before| before.gpu.memory_mib)).unwrap_or(0)
}

fn uuid(card: &Card, nodes: &[Node], before: Option<&Known>) -> GpuUuid {
    if let Some(before) = before.filter(|before| before.card.device_id == card.device_id) {
        // A GPU that hangs may not tell its number any more.
        let other = card.serial.is_some() && before.card.serial.is_some() && card.serial != before.card.serial;
        if !other {
            return before.gpu.uuid.clone();
        }
    }
    let serial = card.serial.or_else(|| nodes.iter().find_map(|node| node.serial));
    serial.map_or_else(|| uuid_of_slot(card.device_id, &card.address), Serial::uuid)
}

/// What a tool said of a GPU: by its address, or by its number where the tool had no address.
fn facts<'a>(told: &'a Told, card: &Card) -> Option<&'a Facts> {
    let by_address = told.facts.iter().find(|facts| facts.address.as_ref() == Some(&card.address));
    by_address.or_else(|| {
        let same = |facts: &&Facts| facts.address.is_none() && facts.serial.is_some() && facts.serial == card.serial;
        told.facts.iter().find(same)
    })
}

/// A GPU of which UUID and memory are known.
fn one(host: &Host<'_>, card: Card, nodes: &[Node], seed: GpuInfo, cdi: usize) -> Known {
    let facts = facts(host.told, &card);
    let place = topology::place(host.sysfs, &card.address);
    let names = [facts.and_then(|facts| facts.name.as_deref()), card.product_name.as_deref()];
    let architecture = nodes.iter().find_map(|node| node.architecture.clone());
    let gpu = GpuInfo {
        pci_address: Some(card.address.clone()),
        numa_node: place.numa_node,
        compute_capability: architecture.or_else(|| facts.and_then(|facts| facts.architecture.clone())),
        driver_version: Some(host.driver_version.clone()),
        cdi_device: (!nodes.is_empty()).then(|| format!("amd.com/gpu={cdi}")),
        nics: topology::nearest(&place, &host.nics),
        model: models::amd(card.device_id, card.revision, &names),
        ..seed
    };
    let slices = if nodes.len() > 1 { slices(&gpu, &card, nodes, cdi) } else { Vec::new() };
    // As a whole it has no device of its own.
    let cdi_device = gpu.cdi_device.clone().filter(|_| slices.is_empty());
    let gpu_ids = nodes.iter().map(|node| node.gpu_id).collect();
    Known { gpu: GpuInfo { cdi_device, ..gpu }, slices, card, gpu_ids }
}

/// The partitions of a GPU, in the order of their render nodes.
fn slices(gpu: &GpuInfo, card: &Card, nodes: &[Node], cdi: usize) -> Vec<GpuInfo> {
    let modes: Vec<&str> = card.partition.iter().filter_map(Option::as_deref).collect();
    let profile = if modes.is_empty() { format!("1/{}", nodes.len()) } else { modes.join("-") };
    let share = gpu.memory_mib / u64::try_from(nodes.len()).unwrap_or(1).max(1);
    let slice = |(n, node): (usize, &Node)| GpuInfo {
        uuid: GpuUuid(format!("{}-{n}", gpu.uuid)),
        index: u32::try_from(n).unwrap_or(u32::MAX),
        memory_mib: Some(node.memory_bytes / MIB).filter(|mib| *mib > 0).unwrap_or(share),
        mig: Some(MigSlice { parent: gpu.uuid.clone(), profile: profile.clone() }),
        cdi_device: Some(format!("amd.com/gpu={}", cdi + n)),
        ..gpu.clone()
    };
    nodes.iter().enumerate().map(slice).collect()
}

/// Fills in the islands: GPUs of one XGMI hive, and GPUs with XGMI links between them.
fn connect(host: &Host<'_>, known: &mut BTreeMap<String, Known>) {
    let uuids: Vec<GpuUuid> = known.values().map(|one| one.gpu.uuid.clone()).collect();
    let nodes_of = |address: &String| host.nodes.get(address);
    let by_node: BTreeMap<u32, &GpuUuid> = known
        .iter()
        .flat_map(|(address, one)| nodes_of(address).into_iter().flatten().map(|node| (node.number, &one.gpu.uuid)))
        .collect();
    let mut links: Vec<(GpuUuid, Link)> = Vec::new();
    for (address, one) in known.iter() {
        let nodes = nodes_of(address).map_or(&[][..], Vec::as_slice);
        let hive = one.card.hive.or_else(|| nodes.iter().find_map(|node| node.hive));
        links.extend(hive.map(|hive| (one.gpu.uuid.clone(), Link::Hub(format!("hive {hive:x}")))));
        // A link between partitions of one GPU leads to itself.
        let peers = nodes.iter().flat_map(|node| &node.linked).filter_map(|number| by_node.get(number));
        links.extend(peers.map(|peer| (one.gpu.uuid.clone(), Link::Gpu((*peer).clone()))));
    }
    let islands = topology::islands(&uuids, &links);
    for one in known.values_mut() {
        one.gpu.nvlink_island = islands.get(&one.gpu.uuid).copied();
    }
}
