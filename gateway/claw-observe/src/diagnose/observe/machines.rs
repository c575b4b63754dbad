//! Whose GPUs a line speaks of: one machine's whose log it is, or another's that it names.

use std::sync::{Arc, LazyLock};

use super::cut;
use crate::diagnose::device::{self, Names, Unit};
use crate::diagnose::envelope::Envelope;
use crate::diagnose::pattern::{Pattern, regex};

/// Names of GPUs of all machines that lines may name.
pub(super) const NAMES_OF_HOSTS: usize = 4_096;
/// Machines that lines may name.
const HOSTS: usize = 512;

/// Bytes of a message in which its place stands.
const PLACE_BYTES: usize = 160;

/// What programs write of their place before a message: NCCL its host, process, thread and device; launchers a host
/// and a number there.
static PLACE: LazyLock<Pattern> = LazyLock::new(|| {
    regex(r"^(?:(?P<nccl>[\w.\-]+):\d+:\d+ \[(?P<device>\d{1,3})\]|\[(?P<host>[\w.\-]+):(?P<local>\d{1,3})\])[: ]")
});

/// A machine that lines may name.
#[derive(Debug)]
struct Host {
    /// Without its domain, in lower case.
    name: String,
    node: Arc<str>,
    names: Names,
}

/// The machines that lines may speak of.
#[derive(Debug, Default)]
pub(super) struct Machines {
    /// Where no line says otherwise.
    present: Names,
    node: Option<Arc<str>>,
    hosts: Vec<Host>,
    /// What the line in work says of its place: the host's name, and a number there.
    host: Option<String>,
    local: Option<u32>,
}

/// Whose a finding is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// Nothing tells it.
    #[default]
    Unknown,
    /// One node's, by what the caller calls it.
    Node(Arc<str>),
    /// It was seen on several.
    Several,
}

impl Home {
    /// Whose it is after another sighting.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, home) | (home, Self::Unknown) => home,
            (one, other) if one == other => one,
            (Self::Node(_) | Self::Several, Self::Node(_) | Self::Several) => Self::Several,
        }
    }
}

/// A host's name without its domain, in lower case.
fn short(host: &str) -> String {
    host.split('.').next().unwrap_or_default().to_ascii_lowercase()
}

impl Machines {
    pub(super) fn present(&mut self, node: &str, names: Names) {
        self.present = names;
        self.node = Some(node.into());
    }

    /// Lines that name this host are of that node. A name that two nodes have is none's.
    pub(super) fn host(&mut self, host: &str, node: &str, names: Names) {
        let host = short(host);
        let n_names: usize = self.hosts.iter().map(|known| known.names.len()).sum();
        if let Some(known) = self.hosts.iter_mut().find(|known| known.name == host) {
            if *known.node != *node {
                *known = Host { name: host, node: "".into(), names: Names::default() };
            }
        } else if !host.is_empty() && self.hosts.len() < HOSTS && n_names + names.len() <= NAMES_OF_HOSTS {
            self.hosts.push(Host { name: host, node: node.into(), names });
        }
    }

    /// Reads what a line says of its place.
    pub(super) fn line(&mut self, envelope: &Envelope<'_>) {
        let said = PLACE.captures(cut(&envelope.message, PLACE_BYTES));
        let text = |name: &str| said.as_ref().and_then(|said| said.name(name)).map(|found| found.as_str());
        self.host = text("nccl").or_else(|| text("host")).or(envelope.host.as_deref()).map(short);
        self.local = text("device").or_else(|| text("local")).and_then(|number| number.parse().ok());
    }

    /// What a unit of the line in work is called, and whose it is.
    pub(super) fn place(&self, unit: Option<Unit>) -> (Option<Unit>, Home) {
        let host = self.host.as_ref().and_then(|named| self.hosts.iter().find(|known| known.name == *named));
        let names = host.map_or(&self.present, |host| &host.names);
        let local = || self.local.map(Unit::Index).filter(|index| names.knows(index));
        // What a line says of its own place is surer than a rank that it speaks of.
        let unit = match unit {
            Some(unit @ Unit::Rank(_)) => local().or(Some(unit)),
            unit => unit.or_else(local),
        };
        let node = host.map(|host| &host.node).or(self.node.as_ref()).filter(|node| !node.is_empty());
        // Ranks are counted through a job, whichever host a line names.
        let called = |unit: Unit| if matches!(unit, Unit::Rank(_)) { self.present.of(unit) } else { names.of(unit) };
        (unit.map(called), node.map_or(Home::Unknown, |node| Home::Node(Arc::clone(node))))
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let of_host =
            |host: &Host| size_of::<Host>() + host.name.capacity() + host.node.len() + host.names.held_bytes();
        self.present.held_bytes()
            + self.host.as_ref().map_or(0, String::capacity)
            + self.hosts.iter().map(of_host).sum::<usize>()
    }
}

/// The number of the process of a job that wrote a line, if the line says so before its message.
pub fn writer(line: &str) -> Option<u32> {
    if !line.contains("rank") && !line.contains("Rank") && !line.contains("[default") {
        return None;
    }
    match device::find(&crate::diagnose::envelope::open(line).writer) {
        Some(Unit::Rank(rank)) => Some(rank),
        Some(Unit::Pci(_) | Unit::Uuid(_) | Unit::Index(_) | Unit::Server(_)) | None => None,
    }
}
