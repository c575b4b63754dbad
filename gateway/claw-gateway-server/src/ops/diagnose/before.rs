//! What was before a fault: the same code on the same GPU, starts of its machine, and what was changed.

use std::collections::BTreeSet;

use claw_gateway::registry::NodeEntry;
use claw_observe::Observer;
use claw_observe::diagnose::analyze::fleet::{Change, changes_before};
use claw_observe::diagnose::analyze::{History, Verdict};
use claw_observe::diagnose::code::Code;
use claw_observe::diagnose::device::{Names, Unit};
use claw_observe::diagnose::policy::Policy;
use claw_observe::diagnose::rules::Rules;
use claw_proto::ids::GpuUuid;
use claw_proto::time::Timestamp;
use claw_tools::diagnosis::FaultChange;

use super::{Desk, kernel, seconds};
use crate::control::{Boot, Changed, KernelRead, Start};

/// Changes that an answer names.
const CHANGES_NAMED: usize = 5;
/// A day, milliseconds.
const DAY_MS: i64 = 86_400_000;
/// Seconds since 1970 begin here; smaller ones are counted from the start of a machine.
const EPOCH_S: f64 = 1e9;

/// What is known of one node's past.
#[derive(Debug)]
struct Past {
    starts: Vec<Start>,
    xids: Vec<(GpuUuid, u32, Boot)>,
    kernel: Option<KernelRead>,
    names: Names,
}

/// What is known of the past of a target's nodes.
#[derive(Debug, Default)]
pub(super) struct Before {
    nodes: Vec<String>,
    pasts: Vec<Past>,
    changes: Vec<Change>,
}

impl Past {
    /// The machine's runs are counted from 0; what no agent tells is of the last.
    fn run(&self, boot_id: Option<&str>) -> usize {
        let Some(boot_id) = boot_id else { return self.starts.len() };
        self.starts.iter().position(|start| start.boot_id == boot_id).map_or(0, |place| place + 1)
    }

    /// In which runs of the machine a code was seen, and on which unit.
    fn sightings(&self, code: &Code) -> Vec<(Unit, usize)> {
        let told = self.xids.iter().filter(|(_, number, _)| *code == Code::Xid(*number));
        let told = told.map(|(uuid, _, boot)| (Unit::Uuid(uuid.to_string()), self.run(boot.as_deref())));
        let mut sightings: Vec<(Unit, usize)> = told.collect();
        let Some(kernel) = &self.kernel else { return sightings };
        for (lines, boot_id) in [(&kernel.before, &kernel.boot_before), (&kernel.lines, &kernel.boot_id)] {
            let mut observer = Observer::new(Rules::built_in(), "kernel log");
            observer.machine("", self.names.clone());
            for line in lines {
                observer.line(&kernel::text(line));
            }
            let found = observer.finish().findings.into_iter().filter(|found| found.code == *code);
            let run = self.run(Some(boot_id.as_str()));
            sightings.extend(found.filter_map(|found| Some((found.unit?, run))));
        }
        sightings
    }

    /// Starts of the machine that followed a sighting on a unit, of those that were followed by one.
    fn remediations(&self, sightings: &[(Unit, usize)], unit: &Unit, since: Timestamp) -> u32 {
        let runs: BTreeSet<usize> = sightings.iter().filter(|(its, _)| its == unit).map(|(_, run)| *run).collect();
        // What followed the last sighting is yet to show whether it helped.
        let last = runs.last().copied().unwrap_or(0);
        let starts = self.starts.iter().enumerate().take(last);
        let n = starts.filter(|(run, start)| runs.contains(run) && start.at >= since).count();
        u32::try_from(n).unwrap_or(u32::MAX)
    }
}

impl Before {
    /// Takes in what is known of a node. What was done to the whole fleet is taken once.
    pub(super) fn node(&mut self, desk: &Desk, node: &NodeEntry, observer: &mut Observer) {
        if self.nodes.contains(&node.name) {
            return;
        }
        let control = &desk.ops.control;
        if self.nodes.is_empty() {
            self.changes.extend(of_fleet(desk));
            if control.changes().is_behind() {
                observer.unread("what was changed of late cannot be read at present".to_owned());
            }
        }
        self.changes.extend(of_node(desk, node));
        self.pasts.push(Past {
            starts: control.changes().starts(node.node_id),
            xids: control.metrics().xids(node.node_id),
            kernel: control.kernels().read(node.node_id),
            names: desk.names(node, None),
        });
        self.nodes.push(node.name.clone());
    }

    /// How often the machine was started anew after the root's code on its unit. Lines are looked at again only for
    /// a fault of a machine that was started anew.
    pub(super) fn history(&self, verdict: &Verdict, policy: &Policy, now: Timestamp) -> History {
        let Some(root) = verdict.root.as_ref().filter(|_| !verdict.units.is_empty()) else { return History::default() };
        let days = policy.within_days.map_or(i64::MAX / DAY_MS, i64::from);
        let since = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(days.saturating_mul(DAY_MS)));
        let mut most = 0;
        for past in self.pasts.iter().filter(|past| !past.starts.is_empty()) {
            let sightings = past.sightings(root);
            let counted = verdict.units.iter().map(|unit| past.remediations(&sightings, unit, since));
            most = most.max(counted.max().unwrap_or(0));
        }
        History { remediations: most }
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

/// What was done to a node.
pub(super) fn of_node(desk: &Desk, node: &NodeEntry) -> Vec<Change> {
    let known = desk.ops.control.changes().of_node(node.node_id).into_iter();
    known.map(|changed| change(Some(node.name.clone()), changed)).collect()
}

/// What was done to the fleet as a whole.
pub(super) fn of_fleet(desk: &Desk) -> Vec<Change> {
    desk.ops.control.changes().of_fleet().into_iter().map(|changed| change(None, changed)).collect()
}

fn change(node: Option<String>, changed: Changed) -> Change {
    Change { node, what: changed.what, at_s: seconds(changed.at), may_cause: changed.may_cause }
}
