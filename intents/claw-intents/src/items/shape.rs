//! What single words are by their form: images, paths, instants, GPU names.

use claw_proto::spec::GpuVendor;
use claw_proto::time::Timestamp;

use crate::catalog::{Catalog, squeeze};

use super::Kind;

/// A GPU model's name, with the memory that is part of it; whether it is a plural.
pub(super) fn gpu<'c>(catalog: &'c Catalog, name: &str) -> Option<Kind<'c>> {
    let squeezed = squeeze(name);
    if let Some((id, plural)) = exact_gpu(catalog, &squeezed) {
        return Some(Kind::Gpu { id, memory_gib: None, plural });
    }
    // A memory size right behind the name: a100-80gb, a100_40g, a100-80.
    let at = name.rfind(['-', '_', '/', ' '])?;
    let (head, tail) = (squeeze(&name[..at]), &name[at + 1..]);
    let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
    let size: f64 = tail[..digits].parse().ok()?;
    let unit = &tail[digits..];
    if !matches!(unit, "" | "g" | "gb" | "gib" | "gbs") || digits == 0 || tail.starts_with('0') {
        return None;
    }
    let (id, plural) = exact_gpu(catalog, &head)?;
    let exists = catalog.gpu(id).is_some_and(|g| g.memory_gib.iter().any(|m| (m - size).abs() < 0.5));
    (exists || !unit.is_empty()).then_some(Kind::Gpu { id, memory_gib: Some(size), plural })
}

fn exact_gpu<'c>(catalog: &'c Catalog, squeezed: &str) -> Option<(&'c str, bool)> {
    let (plain, maker) = strip_maker(squeezed);
    let find = |name: &str| {
        let of_maker = |g: &&crate::catalog::GpuModel| maker.is_none_or(|maker| g.vendor == maker);
        catalog.gpus_called(name).find(of_maker).map(|g| g.id.as_str())
    };
    if let Some(id) = find(plain) {
        return Some((id, false));
    }
    // "A100-SXM4", "H100 PCIe": how the card is mounted.
    let mounted = ["sxm5", "sxm4", "sxm", "pcie", "nvl"].iter().find_map(|form| plain.strip_suffix(form));
    if let Some(id) = mounted.and_then(find) {
        return Some((id, false));
    }
    let single = plain.strip_suffix("'s").or_else(|| plain.strip_suffix('s'))?;
    find(single).map(|id| (id, true))
}

/// A name without its maker's, and the maker.
fn strip_maker(name: &str) -> (&str, Option<GpuVendor>) {
    const MAKERS: &[(&str, GpuVendor)] = &[
        ("nvidiageforce", GpuVendor::Nvidia),
        ("nvidiatesla", GpuVendor::Nvidia),
        ("nvidia", GpuVendor::Nvidia),
        ("geforce", GpuVendor::Nvidia),
        ("tesla", GpuVendor::Nvidia),
        ("amdinstinct", GpuVendor::Amd),
        ("instinct", GpuVendor::Amd),
        ("amd", GpuVendor::Amd),
        ("apple", GpuVendor::Apple),
    ];
    MAKERS
        .iter()
        .find_map(|(maker, vendor)| {
            name.strip_prefix(maker).filter(|rest| !rest.is_empty()).map(|rest| (rest, Some(*vendor)))
        })
        .unwrap_or((name, None))
}

/// A MIG profile such as 3g.40gb.
pub(super) fn is_mig(word: &str) -> bool {
    let Some((slices, memory)) = word.split_once("g.") else {
        return false;
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let memory = memory.split('+').next().unwrap_or(memory);
    digits(slices) && memory.strip_suffix("gb").is_some_and(digits)
}

/// What is taken as written: paths, addresses, flags.
pub(super) fn is_verbatim(word: &str) -> bool {
    word.contains("://")
        || (word.starts_with('-') && word.len() > 1 && !word[1..].starts_with(|c: char| c.is_ascii_digit()))
        || (word.starts_with('/') && word.len() > 1)
        || word.starts_with("./")
        || word.starts_with("../")
}

/// `KEY=value`.
pub(super) fn pair(raw: &str) -> Option<(String, String)> {
    let (key, value) = raw.split_once('=')?;
    let plain = key.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
    plain.then(|| (key.to_owned(), value.to_owned()))
}

/// A container image: `name:tag`, `owner/name`, or with a registry or digest.
pub(super) fn is_image(word: &str) -> bool {
    if word.contains("://") || word.contains(":/") || word.starts_with(['/', '-', '.', ':']) || word.contains('=') {
        return false;
    }
    if !word.starts_with(|c: char| c.is_ascii_alphanumeric()) || !word.bytes().any(|b| b.is_ascii_alphabetic()) {
        return false;
    }
    if let Some((name, digest)) = word.split_once('@') {
        return !name.is_empty() && digest.starts_with("sha256:");
    }
    let (path, tag) = match word.rfind(':') {
        Some(at) if !word[at..].contains('/') => (&word[..at], &word[at + 1..]),
        _ => (word, ""),
    };
    let clean =
        |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':'));
    let parts: Vec<&str> = path.split('/').collect();
    let named =
        parts.iter().all(|p| clean(p)) && parts.last().is_some_and(|p| p.bytes().any(|b| b.is_ascii_alphabetic()));
    let tagged = !tag.is_empty() && clean(tag) && !path.is_empty();
    let dimension = path.bytes().all(|b| b.is_ascii_digit() || b == b'/');
    named && !dimension && (tagged || parts.len() > 1)
}

/// A point in time: RFC 3339, with a space or without seconds too.
pub(super) fn instant(word: &str) -> Option<Timestamp> {
    let upper = word.to_uppercase();
    if upper.len() < 17 || upper.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    if let Ok(at) = upper.parse() {
        return Some(at);
    }
    // Without seconds.
    let (head, zone) = upper.split_at_checked(16)?;
    format!("{head}:00{zone}").parse().ok()
}

/// A local date and time without a zone: `2026-03-12T08:00`.
pub(super) fn local_instant(word: &str) -> Option<(Kind<'static>, u32)> {
    let (day, clock) = word.split_once('t')?;
    Some((date(day)?, clock_minutes(clock)?))
}

/// `2026-03-12`, `12.03.2026`.
pub(super) fn date(word: &str) -> Option<Kind<'static>> {
    let parts: Vec<&str> = word.split(['-', '.', '/']).collect();
    let [first, middle, last] = parts.as_slice() else {
        return None;
    };
    let number = |s: &str| -> Option<u32> {
        (s.len() <= 4 && s.bytes().all(|digit| digit.is_ascii_digit())).then(|| s.parse().ok())?
    };
    let (y, m, d) = if first.len() == 4 {
        (number(first)?, number(middle)?, number(last)?)
    } else if last.len() == 4 && word.contains('.') {
        (number(last)?, number(middle)?, number(first)?)
    } else {
        return None;
    };
    let year = i32::try_from(y).ok()?;
    ((1970..=2200).contains(&year) && (1..=12).contains(&m) && (1..=31).contains(&d)).then_some(Kind::Date(
        Some(year),
        m,
        d,
    ))
}

/// A time of day with a colon, such as 22:00 or 9:30pm, in minutes.
pub(super) fn clock_minutes(word: &str) -> Option<u32> {
    let (word, shift) = match (word.strip_suffix("pm"), word.strip_suffix("am")) {
        (Some(rest), _) => (rest, Some(12)),
        (_, Some(rest)) => (rest, Some(0)),
        _ => (word.strip_suffix('h').unwrap_or(word), None),
    };
    let mut parts = word.split(':');
    let hour: u32 = two_digits(parts.next()?)?;
    let minute: u32 = two_digits(parts.next()?)?;
    let second = parts.next().map_or(Some(0), two_digits)?;
    let hour = match shift {
        Some(shift) if (1..=12).contains(&hour) => hour % 12 + shift,
        Some(_) => return None,
        None => hour,
    };
    (parts.next().is_none() && hour <= 24 && minute < 60 && second == 0).then_some(hour * 60 + minute)
}

fn two_digits(s: &str) -> Option<u32> {
    (1..=2).contains(&s.len()).then_some(())?;
    s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse().ok())?
}

/// Whether a word is a time of day.
pub(super) fn is_clock(word: &str) -> bool {
    word.contains(':') && clock_minutes(word).is_some()
}

/// Whether a word looks like the name of a thing rather than a word of a
/// language: letters with digits, dashes or underscores.
pub(crate) fn is_name_like(word: &str) -> bool {
    // "gpu-3's": whose something is.
    let word = word.strip_suffix("'s").unwrap_or(word);
    let letters = word.chars().any(char::is_alphabetic);
    let marks = word.chars().any(|c| c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    let clean = word.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    letters && marks && clean && word.starts_with(char::is_alphanumeric)
}

/// Names of nodes speak of machines and GPUs, and have a number: gpu-07, h100-02, rack2-n4.
pub(crate) fn looks_like_node(catalog: &Catalog, name: &str) -> bool {
    const PARTS: &[&str] = &[
        "gpu", "node", "rack", "rig", "host", "box", "worker", "server", "srv", "compute", "blade", "hpc", "dgx",
        "hgx", "edge", "machine",
    ];
    name.contains(|c: char| matches!(c, '-' | '_' | '.') || c.is_ascii_digit())
        && name.split(['-', '_', '.']).any(|part| {
            let letters = part.trim_end_matches(|c: char| c.is_ascii_digit());
            PARTS.contains(&letters) || catalog.gpu(part).is_some()
        })
}
