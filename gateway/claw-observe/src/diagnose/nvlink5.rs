//! Errors of `NVLink5` (Xid 144 to 150): unit, link event and status decide, not the number.

use std::sync::LazyLock;

use super::code::Action;
use super::pattern::{Pattern, regex};
use super::rules::{Nvlink5Row, Rules};

/// What a line of an `NVLink5` error says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkError {
    /// The sub-unit.
    pub(super) unit: String,
    /// Does the line call it fatal?
    pub(super) fatal: bool,
    /// The link, if it names one.
    pub(super) link: Option<u32>,
    /// The first word: which unit, which event.
    pub(super) info: u32,
    /// The second word: the error status. None in a cut line.
    pub(super) status: Option<u32>,
}

/// What the table says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    /// What to do first.
    pub(super) action: Action,
    /// Its place among causes; the lower leads.
    pub(super) rank: u8,
    /// The rows of the table, in words.
    pub(super) why: String,
}

static FORM: LazyLock<Pattern> = LazyLock::new(|| {
    regex(
        r"(?i)(?:^|[\s,])(?P<unit>[A-Z][A-Z0-9_]{2,30})\s+(?P<severity>link[ _-]?fatal|fatal|non-?fatal)\b(?:.{0,24}?\bLink\s+(?P<link>-?\d+))?(?:.{0,24}?\(?(?P<info>0x[0-9a-f]{1,8})(?:\s+(?P<status>0x[0-9a-f]{1,8})\b)?)?",
    )
});

/// Reads what stands after the number.
pub(super) fn read(rest: &str) -> Option<LinkError> {
    let found = FORM.captures(rest)?;
    let hex = |name: &str| u32::from_str_radix(found.name(name)?.as_str().trim_start_matches("0x"), 16).ok();
    Some(LinkError {
        unit: found["unit"].to_ascii_uppercase(),
        fatal: !found["severity"].to_ascii_lowercase().starts_with("non"),
        link: found.name("link").and_then(|link| link.as_str().parse().ok()),
        info: hex("info").unwrap_or(0),
        status: hex("status"),
    })
}

/// Bits 25 to 20 of the first word number the event of a link.
fn event(info: u32) -> u8 {
    u8::try_from((info >> 20) & 0x3f).unwrap_or(0)
}

/// Looks the error up in the table.
pub(super) fn resolve(rules: &Rules, xid: u32, error: &LinkError) -> Resolution {
    let named = |row: &&Nvlink5Row| row.xid == xid && row.unit.split('/').any(|unit| same_unit(unit, &error.unit));
    let of_unit: Vec<&Nvlink5Row> = rules.nvlink5.iter().filter(named).collect();
    let by_event = of_unit.iter().any(|row| row.event != 0);
    let rows: Vec<&Nvlink5Row> = if by_event {
        of_unit.iter().copied().filter(|row| row.event == event(error.info)).collect()
    } else {
        let status = error.status.unwrap_or(0);
        let exact: Vec<_> = of_unit.iter().copied().filter(|row| row.status == status).collect();
        let bits = |row: &&Nvlink5Row| row.status & status != 0 && row.status.is_power_of_two();
        if exact.is_empty() { of_unit.iter().copied().filter(bits).collect() } else { exact }
    };
    let known = error.status.is_some() || by_event;
    let link = error.link.map_or(String::new(), |link| format!(", link {link}"));
    let worst = rows
        .iter()
        .filter(|_| known)
        .map(|row| judge(row, error))
        .max_by_key(|found| (found.action.is_hardware(), found.action));
    let found = worst.unwrap_or_else(|| Resolution {
        action: Action::ContactSupport,
        rank: if error.fatal { 40 } else { 42 },
        why: format!("{} with this status is in no row of the table", error.unit),
    });
    Resolution { why: found.why + &link, ..found }
}

/// `TLW_RX` is written with and without its pipe, `NETIR_LINK_EVT` also by its event.
fn same_unit(row: &str, line: &str) -> bool {
    row == line
}

fn judge(row: &Nvlink5Row, error: &LinkError) -> Resolution {
    let by_verdict = row.resolution == "XID_154_EVAL";
    let fatal = error.fatal && row.if_fatal == "RESET_GPU";
    let action = match row.resolution.as_str() {
        _ if fatal => Action::ResetGpu,
        "RESET_GPU" => Action::ResetGpu,
        _ if by_verdict => Action::ContactSupport,
        _ if row.investigate.contains("CABLES") || row.investigate.contains("LINK_SI") => Action::CheckLink,
        _ => Action::Ignore,
    };
    // A reset leads what needs none, and both lead what only follows.
    let rank = match action.is_hardware() {
        _ if row.investigate.starts_with("SYMPATHETIC") => 43,
        true => 40,
        false => 42,
    };
    Resolution {
        action,
        rank,
        why: format!(
            "{}, status {:#x}: {}, then {} ({})",
            row.unit, row.status, row.resolution, row.investigate, row.origin
        ),
    }
}
