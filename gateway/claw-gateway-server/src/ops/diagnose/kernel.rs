//! What nodes' kernels said, in the form of a log line, and what GPUs are called there.

use claw_gateway::registry::NodeEntry;
use claw_observe::Observer;
use claw_observe::diagnose::device::{self, Names, Unit};
use claw_observe::diagnose::reported;
use claw_proto::ids::GpuUuid;
use claw_proto::message::KernelLine;
use claw_proto::time::Timestamp;
use claw_proto::topology::FindingCode;
use claw_tools::diagnosis::KernelLogRead;
use claw_tools::outcome::clip;

use super::{Desk, GPUS_NAMED};
use crate::control::{KernelRead, Missing};

/// Characters of what a node says of its trouble.
const DETAIL_CHARS: usize = 160;

/// What GPUs are called on a node, by UUID; of a workload's own log, by the numbers that it counts them with. Those
/// that are missing there had names, too.
pub(super) fn names(node: &NodeEntry, missing: &[Missing], own: Option<&[GpuUuid]>) -> Names {
    let mut names = Names::default();
    let address = |address: Option<&String>| address.and_then(|address| device::pci(address)).map(Unit::Pci);
    let counted = own.map(|gpus| self::own(node, gpus));
    for gpu in node.gpus() {
        // A program counts from 0 what it was given.
        let index = match &counted {
            None => Some(gpu.index),
            Some(own) => own.iter().position(|uuid| *uuid == gpu.uuid).and_then(|place| u32::try_from(place).ok()),
        };
        let address = address(gpu.pci_address.as_ref());
        names.add(&Unit::Uuid(gpu.uuid.to_string()), address.into_iter().chain(index.map(Unit::Index)));
    }
    for gpu in missing {
        names.add(&Unit::Uuid(gpu.uuid.to_string()), address(gpu.pci_address.as_ref()));
    }
    names
}

/// Some GPUs of a node in the order of its numbers.
pub(super) fn own(node: &NodeEntry, gpus: &[GpuUuid]) -> Vec<GpuUuid> {
    let mut own: Vec<_> = node.gpus().iter().filter(|gpu| gpus.contains(&gpu.uuid)).collect();
    own.sort_by_key(|gpu| gpu.index);
    own.into_iter().map(|gpu| gpu.uuid.clone()).collect()
}

/// What was read of kernel logs for one target.
#[derive(Debug, Default)]
pub(super) struct Kernels {
    pub(super) read: KernelLogRead,
}

impl Kernels {
    /// What is held of a node's kernel; notes if that is nothing, or not all.
    pub(super) fn open(&mut self, desk: &Desk, node: &NodeEntry, observer: &mut Observer) -> Option<KernelRead> {
        let read = desk.ops.control.kernels().read(node.node_id);
        let has = node.capabilities.as_ref();
        let trouble = has.and_then(|has| has.findings.iter().find(|f| f.code == FindingCode::KernelLogUnreadable));
        if read.is_none() && self.read.unread.len() < GPUS_NAMED {
            self.read.unread.push(node.name.clone());
        }
        if let Some(finding) = trouble {
            // A node's words: they stand between marks, and cannot pass for ours.
            let said = clip(&finding.detail, DETAIL_CHARS).replace('"', "'");
            observer.unread(format!("the kernel log of {} cannot be read there; it says \"{said}\"", node.name));
        }
        let read = read?;
        self.read.lost = self.read.lost.saturating_add(read.n_lost);
        if read.lost_at.is_some_and(|at| reported::is_recent(at, desk.ops.control.now())) {
            observer.unread(format!("{} lines of the kernel log of {} are lost", read.n_lost, node.name));
        }
        Some(read)
    }

    /// Feeds lines that count, as the log of a node.
    pub(super) fn feed<'a>(
        &mut self,
        observer: &mut Observer,
        source: &str,
        lines: impl Iterator<Item = &'a KernelLine>,
    ) -> u64 {
        observer.next_source(source);
        let mut n = 0;
        for line in lines {
            observer.line(&text(line));
            n += 1;
        }
        self.read.lines += n;
        n
    }
}

/// A line of the kernel as journals print it, with the node's clock in place of the time since its start.
pub(super) fn text(line: &KernelLine) -> String {
    format!("{} kernel: {}", line.at, line.text)
}

/// Does a line speak of a workload's GPUs, or of none that is known to be another's?
pub(super) fn may_be_of(line: &KernelLine, names: &Names, gpus: &[GpuUuid]) -> bool {
    match device::find(&line.text).map(|unit| names.of(unit)) {
        Some(Unit::Uuid(uuid)) => gpus.iter().any(|gpu| gpu.0 == uuid),
        // An address that is no GPU's here, such as a network card's, or none.
        Some(Unit::Pci(_) | Unit::Index(_) | Unit::Rank(_) | Unit::Server(_)) | None => true,
    }
}

/// Is a line of a time within these?
pub(super) fn is_within(line: &KernelLine, (from, to): (Timestamp, Timestamp)) -> bool {
    (from..=to).contains(&line.at)
}
