//! Numbered codes of NVIDIA: Xid, `SXid`, the driver's own verdict, exporters and bit masks.

use std::sync::LazyLock;

use regex::Captures;

use super::code::Code;
use super::device::{self, Unit};
use super::envelope::Envelope;
use super::nvlink5::{self, LinkError};
use super::pattern::{Pattern, regex};
use super::rules::Input;
use super::{guard, observe::Match};

/// What more a numbered line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Detail {
    /// The recovery action of Xid 154, 0 to 7.
    pub(super) recovery: Option<u8>,
    /// An error of `NVLink5`.
    pub(super) link_error: Option<LinkError>,
    /// Does the line call it fatal? Only `SXids` say so.
    pub(super) fatal: Option<bool>,
}

const DEVICE: &str = r"(?P<dev>(?:[0-9a-f]{4}|[0-9a-f]{8}):[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?|[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?|GPU-[0-9a-f\-]{4,40}|\.{2,4}|…|[x*]{2,4}:[x*]{2}:[x*]{2}(?:\.[x*\d])?)";

/// `NVRM: Xid (PCI:0000:91:00): 79, …`; the domain, `PCI:` and `NVRM:` may be missing.
static XID: LazyLock<Pattern> = LazyLock::new(|| {
    regex(&format!(r"(?i)(?P<nvrm>NVRM: *)?\bXid \((?:PCI:)? ?{DEVICE}[^)]{{0,60}}\): ?(?P<code>\d{{1,6}})\b"))
});

/// A line whose beginning is cut off: `(PCI:0000:3b:00): 79, pid=…`.
static CUT: LazyLock<Pattern> = LazyLock::new(|| {
    regex(&format!(
        r"(?i)^(?:x?id |d )?\(PCI:{DEVICE}\): ?(?P<code>\d{{1,6}}), ?(?P<rest>(?:pid|Ch |GPU |Timeout|Row|name|Contained|Uncontained|MMU)[^\n]*)"
    ))
});

/// `nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 …`.
static SXID: LazyLock<Pattern> = LazyLock::new(|| {
    regex(&format!(
        r"(?i)\bSXid \((?:PCI:)? ?{DEVICE}[^)]{{0,60}}\): ?(?P<code>\d{{1,6}})(?:,? ?(?P<severity>non-?fatal|fatal))?"
    ))
});

/// The Fabric Manager's log.
static SWITCH: LazyLock<Pattern> =
    LazyLock::new(|| regex(r"(?i)detected NVSwitch (?P<severity>non-?fatal|fatal) error (?P<code>\d{4,6})\b"));

/// Device plugin, gpud, DCGM and others that tell of an Xid and name the device.
static TOLD: LazyLock<Pattern> = LazyLock::new(|| {
    regex(
        r"(?i)(?:XidCriticalError: Xid=(?P<a>\d+) on Device(?:=(?P<dev>[\w.:\-]{1,64}))?|\bxid(?: error| code)?(?: ?[:=] ?| )(?P<b>\d{1,4})\b.{0,80}?(?:GPU-[0-9a-f]{4,8}|(?:on|for|from|of) GPU:? ?\d|PCI:|[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2})|(?:GPU-[0-9a-f]{8}|\b[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.\d).{0,60}?\bxid(?: error| code)?(?: ?[:=] ?| )(?P<c>\d{1,4})\b|\bXID (?P<d>\d{1,4}) detected on (?:physical_)?chid|DCGM_FI_DEV_XID_ERRORS\{[^}]*\} +(?P<e>[1-9]\d*)\b)",
    )
});

/// The driver's verdict.
static VERDICT: LazyLock<Pattern> = LazyLock::new(|| {
    regex(
        r"(?i)\bto (?:0x)?(?P<value>[0-9a-f]+)\b(?: ?\((?P<word>[^)]*)\)?)?|\bto \(?(?P<only>none|gpu reset|node reboot|drain p2p|drain and reset)",
    )
});

/// A mask of reasons for low clocks.
static CLOCKS: LazyLock<Pattern> = LazyLock::new(|| {
    regex(
        r"(?i)(?:clocks?[ _.](?:event|throttle)[ _]?reasons?(?:[._]active)?|throttle[ _]reasons?)\S* ?[:=,]? *(?P<mask>0x[0-9a-f]{1,16})\b",
    )
});

/// Bits of the mask; see the handbook, d.3.
const BRAKE: u64 = 0x80;
const THERMAL: u64 = 0x08 | 0x20 | 0x40;

/// Finds all numbered codes of one message.
pub(super) fn find(envelope: &Envelope<'_>, message: &str) -> Vec<Match> {
    let mut found = xids(envelope, message);
    if found.is_empty()
        && let Some(captures) = CUT.captures(message)
    {
        let rest = captures.name("rest").map_or("", |m| m.as_str());
        found.extend(xid(&captures, rest, 0));
    }
    found.extend(sxids(envelope, message));
    if found.is_empty() {
        found.extend(told(envelope, message));
        found.extend(clocks(envelope, message));
    }
    found
}

/// All Xids of a line: messages are printed into each other. The surroundings of the first decide.
fn xids(envelope: &Envelope<'_>, message: &str) -> Vec<Match> {
    let mut all =
        XID.captures_iter(message).filter_map(|captures| Some((captures.get(0)?.range(), captures))).peekable();
    let mut found = Vec::new();
    let mut is_first = true;
    while let Some((at, captures)) = all.next() {
        // What is said of one ends where the next begins, so that no byte is looked at for each of them.
        let next = all.peek().map_or(message.len(), |(next, _)| next.start);
        let rest = message.get(at.end..next).unwrap_or_default();
        if std::mem::take(&mut is_first) {
            let before = message.get(..at.start).unwrap_or_default();
            let allowed = guard::accepts(Input::Kernel, envelope, message, at.start, at.start + 1)
                && guard::words(before) <= 6
                && explained(rest);
            if !allowed {
                return Vec::new();
            }
        }
        found.extend(xid(&captures, rest, at.start));
    }
    found
}

/// All `SXids` of a line; here, too, the surroundings of the first decide.
fn sxids(envelope: &Envelope<'_>, message: &str) -> Vec<Match> {
    let mut all =
        SXID.captures_iter(message).filter_map(|captures| Some((captures.get(0)?.range(), captures))).peekable();
    let Some((first, _)) = all.peek() else { return Vec::new() };
    if !guard::accepts(Input::Kernel, envelope, message, first.start, first.end) {
        return Vec::new();
    }
    all.filter_map(|(at, captures)| sxid(&captures, at.start)).collect()
}

/// False where the text after the number explains it.
fn explained(rest: &str) -> bool {
    let closes = rest.trim_start_matches(['"', '\'']).len() < rest.len() && !rest.contains(',');
    let prose = [" means", " indicates", " is ", " then ", " (see"].iter().any(|word| rest.starts_with(word));
    !prose && !closes
}

/// One match; `rest` is what is said of it.
fn xid(captures: &Captures<'_>, rest: &str, at: usize) -> Option<Match> {
    let code = captures["code"].parse::<u32>().ok()?;
    let mut detail = Detail::default();
    if code == 154 {
        detail.recovery = recovery(rest);
    }
    if (144..=150).contains(&code) {
        detail.link_error = nvlink5::read(rest);
    }
    Some(Match {
        code: Code::Xid(code),
        unit: unit(&captures["dev"]),
        at,
        rule: "nvidia.xid".into(),
        detail,
        ..Match::default()
    })
}

fn unit(text: &str) -> Option<Unit> {
    if text.starts_with("GPU-") {
        return Some(Unit::Uuid(text.to_owned()));
    }
    device::pci(text).map(Unit::Pci)
}

fn recovery(rest: &str) -> Option<u8> {
    let found = VERDICT.captures(rest)?;
    let word = found.name("word").or_else(|| found.name("only")).map(|word| word.as_str().to_ascii_lowercase());
    let by_word = word.as_deref().and_then(|word| match word {
        "none" => Some(0),
        _ if word.contains("drain and reset") => Some(4),
        _ if word.contains("p2p") => Some(3),
        _ if word.contains("reboot") => Some(2),
        _ if word.contains("reset") => Some(1),
        _ => None,
    });
    let value = found.name("value").and_then(|value| u8::from_str_radix(value.as_str(), 16).ok());
    value.filter(|value| *value <= 7).or(by_word)
}

fn sxid(captures: &Captures<'_>, start: usize) -> Option<Match> {
    let code = captures["code"].parse().ok()?;
    let severity = captures.name("severity").map(|word| word.as_str().to_ascii_lowercase());
    Some(Match {
        code: Code::Sxid(code),
        unit: unit(&captures["dev"]),
        at: start,
        rule: "nvidia.sxid".into(),
        detail: Detail { fatal: severity.map(|word| !word.starts_with("non")), ..Detail::default() },
        ..Match::default()
    })
}

fn told(envelope: &Envelope<'_>, message: &str) -> Option<Match> {
    if let Some(captures) = SWITCH.captures(message) {
        let start = captures.get(0)?.start();
        let allowed = guard::accepts(Input::Any, envelope, message, start, start + 1);
        let fatal = !captures["severity"].to_ascii_lowercase().starts_with("non");
        return allowed.then_some(Match {
            code: Code::Sxid(captures["code"].parse().ok()?),
            unit: device::find(message),
            at: start,
            rule: "nvidia.fabric-manager".into(),
            detail: Detail { fatal: Some(fatal), ..Detail::default() },
            ..Match::default()
        });
    }
    let captures = TOLD.captures(message)?;
    let start = captures.get(0)?.start();
    let number = ["a", "b", "c", "d", "e"].iter().find_map(|name| captures.name(name))?;
    let allowed = guard::accepts(Input::Any, envelope, message, start, number.end());
    // The plugin's name of a device is one, whatever it looks like.
    let named = captures.name("dev").map(|name| name.as_str().trim_end_matches(['.', ':']));
    let named = named.and_then(|name| unit(name).or_else(|| Some(Unit::Uuid(name.to_owned()))));
    allowed.then_some(Match {
        code: Code::Xid(number.as_str().parse().ok()?),
        unit: named.or_else(|| device::find(message)),
        at: start,
        rule: "nvidia.xid.told".into(),
        ..Match::default()
    })
}

fn clocks(envelope: &Envelope<'_>, message: &str) -> Option<Match> {
    let captures = CLOCKS.captures(message)?;
    let start = captures.get(0)?.start();
    let mask = u64::from_str_radix(captures["mask"].trim_start_matches("0x"), 16).ok()?;
    let name = match mask {
        _ if mask & BRAKE != 0 => "power_brake",
        _ if mask & THERMAL != 0 => "thermal_violation",
        _ => return None,
    };
    let allowed = guard::accepts(Input::Any, envelope, message, start, start + 1);
    allowed.then_some(Match {
        code: Code::Named(name.into()),
        unit: device::find(message),
        at: start,
        rule: "nvidia.clocks-mask".into(),
        ..Match::default()
    })
}
