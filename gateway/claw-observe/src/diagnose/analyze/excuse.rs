//! What says that a fault is over: it must come at or after the fault, and be of its device.

use std::collections::BTreeSet;

use crate::diagnose::code::{Action, Code};
use crate::diagnose::device::Unit;
use crate::diagnose::observe::{Finding, RESTARTED};
use crate::diagnose::rules::Rules;

/// Is evidence, such as of a reset that succeeded, of the root's device? It names the same one, or
/// one of both names none and all findings together name at most one that it can mean.
pub(super) fn belongs(evidence: &Finding, root: &Finding, findings: &[Finding]) -> bool {
    if evidence.unit == root.unit && root.unit.is_some() {
        return true;
    }
    let device = |finding: &'_ Finding| match &finding.unit {
        Some(unit @ (Unit::Pci(_) | Unit::Uuid(_) | Unit::Index(_))) => Some(unit.clone()),
        Some(Unit::Rank(_) | Unit::Server(_)) | None => None,
    };
    let one_is_bare = evidence.unit.is_none() || root.unit.is_none();
    one_is_bare && findings.iter().filter_map(device).collect::<BTreeSet<_>>().len() <= 1
}

/// May both speak of one device? Where one names none, or they name it in different ways, they may.
///
/// Asked of what bars an excuse, and of what explains a program's fault; an excuse itself must [`belongs`].
pub(super) fn may_belong(one: &Finding, other: &Finding) -> bool {
    match (&one.unit, &other.unit) {
        (Some(one), Some(other)) => one == other || std::mem::discriminant(one) != std::mem::discriminant(other),
        (None, _) | (_, None) => true,
    }
}

/// Findings that a later Xid of the same GPU cancels, and what cancels them: no cause remains.
pub(super) fn canceled(rules: &Rules, findings: &[Finding]) -> BTreeSet<usize> {
    let mut gone = BTreeSet::new();
    for (index, finding) in findings.iter().enumerate() {
        let Code::Xid(number) = &finding.code else { continue };
        let Some(row) = rules.xids.get(number) else { continue };
        for (other, before) in findings.iter().enumerate() {
            let ends = row.cancels.iter().any(|number| before.code == Code::Xid(*number));
            if ends && finding.last_order >= before.last_order && belongs(finding, before, findings) {
                gone.extend([index, other]);
            }
        }
    }
    gone
}

/// From when on a finding is over, and what says so.
pub(super) fn over(rules: &Rules, root: &Finding, findings: &[Finding]) -> Option<(u64, &'static str)> {
    let a_line_says_so = "a later line says that it is over";
    if root.over {
        let started = root.marks.get(RESTARTED).copied();
        let words = started.map_or(a_line_says_so, |_| "the machine was started anew since, and it has not come again");
        return Some((started.unwrap_or(root.last_order), words));
    }
    ended(rules, root, findings).map(|order| (order, a_line_says_so))
}

/// When a later `SXid` of the same switch said that this one is over.
fn ended(rules: &Rules, root: &Finding, findings: &[Finding]) -> Option<u64> {
    let Code::Sxid(number) = &root.code else { return None };
    let ends = |finding: &&Finding| match &finding.code {
        Code::Sxid(other) => rules.sxids.get(other).is_some_and(|row| row.cancels.contains(number)),
        Code::Xid(_) | Code::Named(_) => false,
    };
    let later = |finding: &Finding| finding.last_order >= root.last_order;
    let its = |finding: &&Finding| later(finding) && belongs(finding, root, findings);
    findings.iter().filter(ends).filter(its).map(|finding| finding.last_order).max()
}

/// The driver's own verdict on the root's GPU, of which the last counts, and when it was given. One from before the
/// fault asks for no less than `own`, what the fault asks for itself.
pub(super) fn driver_verdict(root: &Finding, own: Action, findings: &[Finding]) -> Option<(Action, u64, String)> {
    if !matches!(root.code, Code::Xid(_)) {
        return None;
    }
    let verdicts = findings.iter().filter(|finding| finding.code.is_xid(&[154]) && belongs(finding, root, findings));
    let said = verdicts.filter_map(|finding| Some((finding.detail.recovery?, finding.recovery_order)));
    let (value, order) = said.max_by_key(|(_, order)| *order)?;
    let action = recovery_action(value);
    let is_before = order < root.last_order;
    if is_before && (action == Action::Ignore || action < own) {
        return None;
    }
    Some((action, order, format!("the driver's own verdict (Xid 154) on this GPU is {value}: {}", action.as_str())))
}

/// What NVML's recovery actions ask for.
pub(super) fn recovery_action(value: u8) -> Action {
    match value {
        0 => Action::Ignore,
        1 | 6 => Action::ResetGpu,
        2 | 7 => Action::RebootNode,
        3 | 4 => Action::DrainAndReset,
        _ => Action::ContactSupport,
    }
}
