//! What was before a fault: the same code on the same GPU, starts of its machine, and what was changed.

use claw_gateway::registry::NodeEntry;
use claw_observe::Observer;
use claw_observe::diagnose::analyze::fleet::{Change, changes_before};
use claw_observe::diagnose::analyze::{History, Verdict};
use claw_observe::diagnose::code::Code;
use claw_observe::diagnose::device::Unit;
use claw_observe::diagnose::policy::Policy;
use claw_observe::diagnose::rules::Rules;
use claw_proto::message::KernelLine;
use claw_proto::time::Timestamp;
use claw_tools::diagnosis::FaultChange;

use super::{Desk, kernel, seconds};

/// Changes that an answer names.
const CHANGES_NAMED: usize = 5;
/// A day, milliseconds.
const DAY_MS: i64 = 86_400_000;
/// Seconds since 1970 begin here; smaller ones are counted from the start of a machine.
const EPOCH_S: f64 = 1e9;

/// A code that was seen on a unit.
#[derive(Debug)]
struct Sighting {
    code: Code,
    unit: Unit,
    at: Timestamp,
}

/// What is known of one node's past.
#[derive(Debug, Default)]
struct Past {
    starts: Vec<Timestamp>,
    sightings: Vec<Sighting>,
}

/// What is known of the past of a target's nodes.
#[derive(Debug, Default)]
pub(super) struct Before {
    nodes: Vec<String>,
    pasts: Vec<Past>,
    changes: Vec<Change>,
}

impl Before {
    /// Takes in what is known of a node.
    pub(super) fn node(&mut self, desk: &Desk<'_>, node: &NodeEntry) {
        if self.nodes.contains(&node.name) {
            return;
        }
        let control = &desk.ops.control;
        let starts = control.changes().starts(node.node_id);
        let xids = control.metrics().xids(node.node_id).into_iter();
        let mut sightings: Vec<Sighting> = xids
            .map(|(uuid, code, at)| Sighting { code: Code::Xid(code), unit: Unit::Uuid(uuid.to_string()), at })
            .collect();
        if let Some(read) = control.kernels().read(node.node_id) {
            let names = kernel::names(node, None);
            let mut told = |line: &KernelLine, at: Timestamp| {
                let mut observer = Observer::new(Rules::built_in(), "kernel log");
                observer.machine(names.clone());
                observer.line(&kernel::text(line));
                let found = observer.finish().findings.into_iter();
                sightings.extend(found.filter_map(|found| Some(Sighting { code: found.code, unit: found.unit?, at })));
            };
            for line in &read.before {
                told(line, line.at);
            }
            // What a kernel says while its machine starts comes before its node is heard again.
            let last = starts.last().copied();
            for line in &read.lines {
                told(line, last.map_or(line.at, |last| last.max(line.at)));
            }
        }
        let changes = changes(desk, node);
        self.changes.extend(changes);
        self.pasts.push(Past { starts, sightings });
        self.nodes.push(node.name.clone());
    }

    /// How often the machine was started anew after the root's code on its unit.
    pub(super) fn history(&self, verdict: &Verdict, policy: &Policy, now: Timestamp) -> History {
        let Some(root) = &verdict.root else { return History::default() };
        let days = policy.within_days.map_or(i64::MAX / DAY_MS, i64::from);
        let since = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(days.saturating_mul(DAY_MS)));
        let counted = |past: &Past, unit: &Unit| {
            let its = |sighting: &&Sighting| sighting.code == *root && sighting.unit == *unit;
            let seen: Vec<Timestamp> = past.sightings.iter().filter(its).map(|sighting| sighting.at).collect();
            // What followed the last sighting is yet to show whether it helped.
            let last = seen.iter().max().copied();
            let starts = past.starts.iter().filter(|start| last.is_some_and(|last| **start <= last));
            let mut from = Timestamp::from_unix_ms(i64::MIN);
            let mut n = 0;
            for start in starts {
                let came = seen.iter().any(|at| (from..*start).contains(at));
                n += u32::from(came && *start >= since);
                from = *start;
            }
            n
        };
        let units = || verdict.units.iter();
        let most = self.pasts.iter().flat_map(|past| units().map(|unit| counted(past, unit))).max();
        History { remediations: most.unwrap_or(0) }
    }

    /// What was changed before the root's fault.
    pub(super) fn changes(&self, verdict: &Verdict, now: Timestamp) -> Vec<FaultChange> {
        let Some(root) = verdict.root_index.and_then(|index| verdict.findings.get(index)) else { return Vec::new() };
        let at_s = root.first_s.filter(|at_s| *at_s >= EPOCH_S).unwrap_or(seconds(now));
        let told = |change: &Change| {
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds that were a Timestamp's")]
            let at = Timestamp::from_unix_ms((change.at_s * 1e3).round() as i64);
            let node = change.node.as_ref().filter(|_| self.nodes.len() > 1);
            let what = node.map_or_else(|| change.what.clone(), |node| format!("{node}: {}", change.what));
            FaultChange { at, what }
        };
        changes_before(&self.nodes, at_s, &self.changes).into_iter().map(told).take(CHANGES_NAMED).collect()
    }
}

/// What was done to a node and to the fleet.
pub(super) fn changes(desk: &Desk<'_>, node: &NodeEntry) -> Vec<Change> {
    let known = desk.ops.control.changes().of(node.node_id).into_iter();
    known
        .map(|change| Change {
            node: change.node.map(|_| node.name.clone()),
            what: change.what,
            at_s: seconds(change.at),
        })
        .collect()
}
