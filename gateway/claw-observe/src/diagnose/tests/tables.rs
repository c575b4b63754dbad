//! The tables of codes in `rules/` are what the shared knowledge tables say.
//!
//! `UPDATE_EXPECT=1` writes them anew from the shared tables, which is how they came to be.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Codes whose first action is not the plain reading of the catalog's column, and why.
const XID_ACTIONS: [(u32, &str, &str); 15] = [
    (48, "drain_and_reset", "the workflow drains, then resets"),
    (74, "check_link", "the registers decide; the link comes first"),
    (95, "drain_and_reset", "every program on the GPU is suspect: drain first"),
    (109, "restart_app", "catalog resets, device plugin ignores: the program first"),
    (137, "restart_app", "gpud: the program first"),
    (162, "ignore", "power smoothing works again"),
    (163, "ignore", "a reset only where power smoothing is required"),
    (164, "service", "plan service"),
    (165, "service", "plan service"),
    (166, "contact_support", "confidential computing"),
    (167, "reboot_node", "gpud: reboot"),
    (168, "service", "plan service"),
    (169, "reboot_node", "gpud: reboot"),
    (170, "contact_support", "confidential computing"),
    (171, "drain_and_reset", "detail of 48"),
];

/// A file of the shared data beside this checkout: not beside the one that this was compiled in, whose build it may be.
pub(super) fn shared_path(name: &str) -> PathBuf {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&here).join("../../../shared").join(name)
}

/// Says that nothing was tested; no way out where `./dev test` has seen the shared data.
pub(super) fn skip(what: &str) {
    assert!(std::env::var_os("CLAW_SHARED").is_none(), "{what} cannot be read, and the shared data are here");
    eprintln!("SKIPPED: {what} cannot be read");
}

pub(super) fn shared(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(shared_path("diagnosis").join(name)).ok();
    if text.is_none() {
        skip(name);
    }
    text
}

fn rules(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules").join(name)
}

fn rows(tsv: &str) -> impl Iterator<Item = Vec<&str>> {
    tsv.lines().skip(1).filter(|line| !line.is_empty()).map(|line| line.split('\t').collect())
}

/// Catalog buckets in the words of the answers.
fn action(bucket: &str) -> &'static str {
    match bucket {
        "RESTART_APP" | "RESTART_VM" | "WORKFLOW_XID_13" | "WORKFLOW_XID_31" => "restart_app",
        "IGNORE" | "WORKFLOW_XID_45" => "ignore",
        "RESET_GPU" => "reset_gpu",
        "RESTART_BM" => "reboot_node",
        "CHECK_MECHANICALS" => "service",
        "UPDATE_SWFW" => "fix_config",
        _ => "contact_support",
    }
}

/// Where a code stands among the causes of a burst; the lower leads.
fn xid_rank(code: u32, class: &str, severity: &str) -> u8 {
    match code {
        79 | 173 => 10,
        // Precursor of 79, which leads where both are seen.
        167 => 11,
        48 | 95 | 140 | 64 | 156 => 20,
        171 | 172 => 22,
        62 | 119 | 120 | 143 => 30,
        74 | 136 | 144..=150 => 40,
        // A peer's access to a wrong address poisons the reader, which then reports 94.
        137 => 49,
        94 => 50,
        46 | 109 => 60,
        63 | 92 | 93 | 157 | 168 => 65,
        45 => 90,
        14 | 106 | 107 | 162 => 95,
        154 => 92,
        _ => match (class, severity) {
            (_, "fatal") => 32,
            ("power", _) => 64,
            ("link", _) => 48,
            ("driver", "warning") => 61,
            ("driver", _) => 76,
            ("none", _) => 78,
            _ => 70,
        },
    }
}

fn render_xids(tsv: &str) -> String {
    let mut out = head("Xid codes: NVIDIA's catalog and gpud's reading of newer codes", "xid.tsv");
    for row in rows(tsv) {
        let [code, name, class, severity, now, then, sympathetic, cancels, note, source] = row[..] else {
            panic!("a row of xid.tsv has other columns: {row:?}");
        };
        let number: u32 = code.parse().unwrap();
        let chosen = XID_ACTIONS.iter().find(|(code, ..)| *code == number || (*code == 171 && number == 172));
        let first = chosen.map_or_else(|| action(now), |(_, action, _)| action);
        let why = chosen.map_or(note, |(_, _, why)| why);
        let why = if note == "-" || why == note { why.to_owned() } else { format!("{note}; {why}") };
        let rank = xid_rank(number, class, severity);
        let numbers: Vec<&str> = cancels.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).collect();
        let cancels = if number == 162 { numbers.join(", ") } else { String::new() };
        writeln!(
            out,
            "  {{ code = {code}, name = {name:?}, class = {class:?}, severity = {severity:?}, action = {first:?}, catalog = [{now:?}, {then:?}], rank = {rank}, after = {sympathetic:?}, cancels = [{cancels}], note = {why:?}, source = {source:?} }},"
        )
        .unwrap();
    }
    out + "]\n"
}

fn sxid_rank(group: &str, severity: &str, first: &str, class: &str) -> u8 {
    match (group, severity) {
        ("always_fatal", _) => 15,
        ("fatal", _) => 38,
        (_, "fatal") => 39,
        (_, "info") => 94,
        _ if first == "ignore" => 94,
        _ if class == "thermal" => 47,
        _ => 46,
    }
}

fn render_sxids(tsv: &str) -> String {
    let mut out = head("SXid codes of NVSwitch: Fabric Manager's guide as gpud carries it", "sxid.tsv");
    for row in rows(tsv) {
        let [code, name, class, group, severity, now, then, _, cancels, note, source] = row[..] else {
            panic!("a row of sxid.tsv has other columns: {row:?}");
        };
        let rank = sxid_rank(group, severity, now, class);
        let cancels = if cancels == "-" { "" } else { cancels };
        writeln!(
            out,
            "  {{ code = {code}, name = {name:?}, class = {class:?}, group = {group:?}, severity = {severity:?}, action = {now:?}, then = {then:?}, rank = {rank}, cancels = [{cancels}], note = {note:?}, source = {source:?} }},"
        )
        .unwrap();
    }
    out + "]\n"
}

fn render_nvlink5(tsv: &str) -> String {
    let mut out = head("NVLink5 errors: unit, link event and status decide", "xid_nvlink5.tsv");
    for row in rows(tsv) {
        let [xid, unit, mask, _, status, severity, resolution, if_fatal, investigate, origin, source] = row[..] else {
            panic!("a row of xid_nvlink5.tsv has other columns: {row:?}");
        };
        // Bits 25 to 20 of the first word number the link event.
        let event = u8::from_str_radix(&mask[6..12], 2).unwrap();
        writeln!(
            out,
            "  {{ xid = {xid}, unit = {unit:?}, event = {event}, status = {status}, severity = {severity:?}, resolution = {resolution:?}, if_fatal = {if_fatal:?}, investigate = {investigate:?}, origin = {origin:?}, source = {source:?} }},"
        )
        .unwrap();
    }
    out + "]\n"
}

fn head(what: &str, table: &str) -> String {
    format!(
        "# {what}.\n# Written by tests/tables.rs from the table {table}; `UPDATE_EXPECT=1` writes it anew.\nrow = [\n"
    )
}

fn check(table: &str, file: &str, render: fn(&str) -> String) {
    let Some(tsv) = shared(table) else { return };
    let wanted = render(&tsv);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(rules(file), &wanted).unwrap();
    }
    let found = std::fs::read_to_string(rules(file)).unwrap();
    let lines = found.lines().zip(wanted.lines()).filter(|(found, wanted)| found != wanted).count();
    assert!(found == wanted, "rules/{file} differs from {table} in {lines} lines; UPDATE_EXPECT=1 writes it anew");
}

#[test]
fn xid_table_is_the_shared_one() {
    check("xid.tsv", "xid.toml", render_xids);
}

#[test]
fn sxid_table_is_the_shared_one() {
    check("sxid.tsv", "sxid.toml", render_sxids);
}

#[test]
fn nvlink5_table_is_the_shared_one() {
    check("xid_nvlink5.tsv", "nvlink5.toml", render_nvlink5);
}
