//! What the compute side of amdgpu (KFD) tells below `class/kfd/kfd`: the
//! architecture of each GPU, its partitions, XGMI links, and processes.
//!
//! A node of the topology is a CPU, or a GPU, or one partition of a GPU. Source:
//! the kernel's `amdkfd` (kfd_topology.c, kfd_process.c) as ROCm's libhsakmt reads it.

use std::collections::BTreeMap;
use std::path::Path;

use super::serial::Serial;
use super::sysfs::{self, Card};

/// Type of a link that is XGMI (HSA_IOLINKTYPE_XGMI).
const LINK_XGMI: u64 = 11;
/// Types of memory that are the GPU's own (HSA_HEAPTYPE_FRAME_BUFFER_PUBLIC, _PRIVATE).
const HEAPS_OWN: [u64; 2] = [1, 2];

/// One GPU, or a partition of one, as KFD sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Number of the node.
    pub(super) number: u32,
    /// What its processes are counted under.
    pub(super) gpu_id: u64,
    /// Domain, bus and device.
    pub(super) slot: Slot,
    /// Function; of a partitioned GPU it may be the number of the partition.
    pub(super) function: u64,
    /// Architecture, such as gfx942.
    pub(super) architecture: Option<String>,
    /// Its own number.
    pub(super) serial: Option<Serial>,
    /// XGMI hive.
    pub(super) hive: Option<u64>,
    /// Number of `renderD<n>`.
    pub(super) render_minor: u32,
    /// Its own memory, bytes.
    pub(super) memory_bytes: u64,
    /// Nodes that it reaches over XGMI.
    pub(super) linked: Vec<u32>,
}

/// Which GPU each node is, or is a partition of: GPUs are told by their address
/// and render node. Nodes are in the order of their render nodes.
pub(super) fn by_card(nodes: &[Node], cards: &BTreeMap<String, Card>) -> BTreeMap<String, Vec<Node>> {
    let mut by_card: BTreeMap<String, Vec<Node>> = BTreeMap::new();
    for node in nodes {
        let in_slot: Vec<&Card> = cards.values().filter(|card| Slot::of(&card.address) == Some(node.slot)).collect();
        let function = format!(".{}", node.function);
        let card = match in_slot.as_slice() {
            [only] => Some(*only),
            // Virtual functions of one GPU share a slot.
            several => {
                let by_render = several.iter().find(|card| card.render_minor == Some(node.render_minor));
                by_render.or_else(|| several.iter().find(|card| card.address.ends_with(&function))).copied()
            }
        };
        if let Some(card) = card {
            by_card.entry(card.address.clone()).or_default().push(node.clone());
        }
    }
    for of_one in by_card.values_mut() {
        of_one.sort_by_key(|node| node.render_minor);
    }
    by_card
}

/// A PCI address without its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    domain: u32,
    bus: u8,
    device: u8,
}

impl Slot {
    /// Of an address in the kernel's spelling.
    pub(super) fn of(address: &str) -> Option<Self> {
        let (slot, _) = address.split_once('.')?;
        let mut parts = slot.split(':');
        let domain = u32::from_str_radix(parts.next()?, 16).ok()?;
        let bus = u8::from_str_radix(parts.next()?, 16).ok()?;
        let device = u8::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self { domain, bus, device })
    }
}

/// Lines `key value` with decimal numbers.
pub(super) fn properties(text: &str) -> BTreeMap<&str, u64> {
    let pair = |line: &'_ str| -> Option<(usize, u64)> {
        let at = line.find(' ')?;
        Some((at, line[at..].trim().parse().ok()?))
    };
    text.lines().filter_map(|line| pair(line).map(|(at, value)| (&line[..at], value))).collect()
}

/// Name of an architecture: 90402 is gfx942, 90010 is gfx90a, 110000 is gfx1100.
pub(super) fn architecture(version: u64) -> Option<String> {
    let (major, minor, step) = (version / 10_000, version / 100 % 100, version % 100);
    (major > 0 && major < 100).then(|| format!("gfx{major}{minor:x}{step:x}"))
}

/// The GPUs of the topology, by number of their nodes.
pub(super) fn nodes(sysfs: &Path) -> Vec<Node> {
    let folder = sysfs.join("class/kfd/kfd/topology/nodes");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut nodes: Vec<Node> = numbers.filter_map(|number| node(&folder.join(number.to_string()), number)).collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

fn node(folder: &Path, number: u32) -> Option<Node> {
    // Zero for a CPU.
    let gpu_id = sysfs::number(&folder.join("gpu_id")).filter(|id| *id != 0)?;
    let text = sysfs::text(&folder.join("properties"))?;
    let properties = properties(&text);
    let value = |key: &str| properties.get(key).copied();
    let location = value("location_id")?;
    let slot = Slot {
        domain: u32::try_from(value("domain").unwrap_or(0)).ok()?,
        bus: u8::try_from((location >> 8) & 0xff).ok()?,
        device: u8::try_from((location >> 3) & 0x1f).ok()?,
    };
    Some(Node {
        number,
        gpu_id,
        slot,
        function: location & 7,
        architecture: value("gfx_target_version").and_then(architecture),
        serial: value("unique_id").and_then(Serial::new),
        hive: value("hive_id").filter(|hive| *hive != 0),
        render_minor: value("drm_render_minor").and_then(|minor| u32::try_from(minor).ok()).unwrap_or(0),
        memory_bytes: memory_bytes(folder),
        linked: linked(folder),
    })
}

/// Properties of each entry of a folder: memory banks, links.
fn each(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| sysfs::text(&entry.ok()?.path().join("properties"))).collect()
}

fn memory_bytes(node: &Path) -> u64 {
    let banks = each(&node.join("mem_banks"));
    let sizes = banks.iter().map(|text| properties(text)).filter_map(|bank| {
        let own = bank.get("heap_type").is_some_and(|heap| HEAPS_OWN.contains(heap));
        bank.get("size_in_bytes").copied().filter(|_| own)
    });
    sizes.fold(0, u64::saturating_add)
}

fn linked(node: &Path) -> Vec<u32> {
    let links = ["io_links", "p2p_links"].map(|folder| each(&node.join(folder))).concat();
    let to = |text: &String| {
        let link = properties(text);
        let is_xgmi = link.get("type") == Some(&LINK_XGMI);
        link.get("node_to").copied().filter(|_| is_xgmi).and_then(|to| u32::try_from(to).ok())
    };
    links.iter().filter_map(to).collect()
}

/// Memory that each process has on a GPU or partition, bytes. A process that
/// opened KFD is listed for every GPU; those that use nothing are left out.
pub(super) fn processes(sysfs: &Path, gpu_ids: &[u64], max: usize) -> Vec<(u32, u64)> {
    let Ok(entries) = std::fs::read_dir(sysfs.join("class/kfd/kfd/proc")) else { return Vec::new() };
    let mut processes: Vec<(u32, u64)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let used = gpu_ids.iter().filter_map(|id| sysfs::number(&entry.path().join(format!("vram_{id}"))));
            let used = used.fold(0, u64::saturating_add);
            (used > 0).then_some((pid, used))
        })
        .collect();
    // The largest, if they are more than a message holds.
    processes.sort_by_key(|(pid, used)| (std::cmp::Reverse(*used), *pid));
    processes.truncate(max);
    processes.sort_unstable();
    processes
}
