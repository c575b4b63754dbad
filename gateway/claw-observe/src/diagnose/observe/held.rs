//! What an observer holds in bytes, counted over its own parts.

use super::{Finding, Observer};
use crate::diagnose::code::Code;
use crate::diagnose::device::Unit;

/// Bytes of a node of a `BTreeMap` with entries of this size: eleven entries, twelve children and a head.
fn node(entry: usize) -> usize {
    11 * entry + 12 * size_of::<usize>() + 16
}

/// Bytes of the nodes of a `BTreeMap`, of which each holds at least five entries, but for the first.
fn nodes(len: usize, entry: usize) -> usize {
    if len == 0 { 0 } else { (len / 5 + 1) * node(entry) }
}

fn of_code(code: &Code) -> usize {
    // Shared, and counted for each as if it were not.
    code.name().map_or(0, |name| name.len() + 16)
}

fn of_unit(unit: Option<&Unit>) -> usize {
    match unit {
        Some(Unit::Pci(text) | Unit::Uuid(text) | Unit::Server(text)) => text.capacity(),
        Some(Unit::Index(_) | Unit::Rank(_)) | None => 0,
    }
}

fn of_finding(finding: &Finding) -> usize {
    let marks: usize = finding.marks.keys().map(String::capacity).sum();
    let link = finding.detail.link_error.as_ref().map_or(0, |error| error.unit.capacity());
    of_code(&finding.code)
        + of_unit(finding.unit.as_ref())
        + finding.rules.capacity() * size_of::<std::sync::Arc<str>>()
        + marks
        + nodes(finding.marks.len(), size_of::<(String, u64)>())
        + finding.excerpt.capacity()
        + finding.frame.as_ref().map_or(0, String::capacity)
        + link
}

impl Observer {
    /// Bytes that it holds now, without the line in work.
    pub(in crate::diagnose) fn held_bytes(&self) -> usize {
        let findings: usize = self.findings.iter().map(of_finding).sum();
        let places: usize = self.places.keys().map(|(code, unit)| of_code(code) + of_unit(unit.as_ref())).sum();
        let (open, known, names) = (self.tracebacks.held_bytes(), self.known.held_bytes(), self.machines.held_bytes());
        size_of::<Self>()
            + self.findings.capacity() * size_of::<Finding>()
            + findings
            + nodes(self.places.len(), size_of::<((Code, Option<Unit>), usize)>())
            + places
            + self.unread.capacity() * size_of::<String>()
            + self.unread.iter().map(String::capacity).sum::<usize>()
            + self.headings.capacity() * size_of::<Option<u64>>()
            + self.candidates.capacity() * size_of::<usize>()
            + self.table.cell.capacity()
            + open
            + known
            + names
    }
}
