//! Public cases in other clothes: other envelopes, addresses, neighbors, cuts and repeats.

use std::sync::LazyLock;

use regex::Regex;

use super::corpus::{Score, score};
use super::draw::{Draw, rounds};
use super::tables::shared;
use crate::diagnose::observe::Observer;
use crate::diagnose::rules::{Input, Rules};

/// Cases that must keep their root, against the untouched ones, in percent.
const KEPT_PERCENT: f64 = 95.0;

/// Draws of the mutations of one case; `CLAW_MUTATION_ROUNDS` asks for more.
const ROUNDS: u64 = 3;

static TIME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\s*(?:<\d+>)?\[\s*\d+\.\d+\]\s*").unwrap());
static ADDRESS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)\b([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\b").unwrap());

/// Is it a line of the kernel that stands bare or after its own time?
fn of_kernel(line: &str) -> Option<String> {
    let bare = TIME.replace(line, "");
    let kernel = ["NVRM", "amdgpu", "mlx5"].iter().any(|start| bare.starts_with(start)) || bare.contains("SXid (PCI");
    kernel.then(|| bare.into_owned())
}

/// Another envelope for the lines of the kernel, one form for the whole case.
fn envelope(draw: &mut Draw, lines: Vec<String>) -> Vec<String> {
    let (form, host, mut at) = (draw.below(5), draw.below(900), 1_000 + draw.below(9_000_000));
    let dress = |line: String| {
        at += 1;
        let Some(bare) = of_kernel(&line) else { return line };
        match form {
            0 => format!("2026-03-04T05:06:07.123456+00:00 node-{host} kernel: [ {at}.654321] {bare}"),
            1 => format!("Mar  4 05:06:07 node-{host} kernel: [{at}.654321] {bare}"),
            2 => format!("<3>[ {at}.654321] {bare}"),
            3 => format!("3,{at},{at}654321,-;{bare}"),
            _ => format!("[Wed Mar  4 05:06:07 2026] {bare}"),
        }
    };
    lines.into_iter().map(dress).collect()
}

fn journal(draw: &mut Draw, lines: Vec<String>) -> Vec<String> {
    let from = 1_767_225_845_123_456 + draw.below(1_000_000_000);
    let dress = |(index, line): (usize, String)| {
        let kernel = line.contains("NVRM:") || line.contains("SXid (PCI") || line.contains("amdgpu");
        if !kernel || line.trim_start().starts_with(['{', '|']) {
            return line;
        }
        let stamp = (from + index).to_string();
        serde_json::json!({ "MESSAGE": line, "_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": stamp }).to_string()
    };
    lines.into_iter().enumerate().map(dress).collect()
}

/// Other buses: each gets another number, the same for the same, different for different ones.
fn readdress(draw: &mut Draw, lines: Vec<String>) -> Vec<String> {
    let by = u8::try_from(1 + draw.below(255)).unwrap();
    lines.iter().map(|line| moved(line, by)).collect()
}

fn moved(line: &str, by: u8) -> String {
    let other = |found: &regex::Captures<'_>| {
        let bus = u8::from_str_radix(&found[2], 16).unwrap().wrapping_add(by);
        format!("{}:{bus:02x}:{}", &found[1], &found[3])
    };
    ADDRESS.replace_all(line, other).into_owned()
}

fn neighbors(draw: &mut Draw, lines: Vec<String>) -> Vec<String> {
    let healthy = [
        "[rank7]: step=1200 loss=2.113 tokens/s=181233",
        "node1:9:19 [0] NCCL INFO Connected all rings",
        "[ 9999.000000] audit: type=1400 apparmor=\"STATUS\" operation=\"profile_load\"",
        "systemd[1]: Started Daily apt download activities.",
    ];
    let mut mixed = Vec::new();
    for line in lines {
        // A cell of a table and a frame of a traceback go on in the next line.
        let goes_on = line.trim_start().starts_with('|');
        mixed.push(line);
        if !goes_on && draw.below(2) == 0 {
            mixed.push((*draw.pick(&healthy)).to_owned());
        }
    }
    mixed
}

/// Long lines lose their end, each at a place of its own.
fn cut(draw: &mut Draw, lines: Vec<String>) -> Vec<String> {
    let short = |line: String| {
        if line.len() < 150 || line.starts_with('{') {
            return line;
        }
        let keep = line.len() * (85 + draw.below(14)) / 100;
        let end = (0..=keep).rev().find(|end| line.is_char_boundary(*end)).unwrap();
        line[..end].to_owned()
    };
    lines.into_iter().map(short).collect()
}

/// Some lines are told again.
fn repeated(draw: &mut Draw, lines: Vec<String>) -> Vec<String> {
    let again = |line: String| {
        let times = if draw.below(2) == 0 { 2 } else { 1 };
        std::iter::repeat_n(line, times)
    };
    lines.into_iter().flat_map(again).collect()
}

/// Everything at once, in an order that leaves lines lines.
fn all(draw: &mut Draw, lines: Vec<String>) -> Vec<String> {
    let lines = readdress(draw, lines);
    let lines = envelope(draw, lines);
    neighbors(draw, lines)
}

fn report(name: &str, plain: &Score, mutated: &Score) {
    let (cases, roots) = (mutated.cases, mutated.root);
    println!("{name}: {cases} cases changed; root {roots}, untouched {}; forbidden {}", plain.root, mutated.forbidden);
    assert_eq!(mutated.forbidden, 0, "{name}: {:?}", mutated.missed);
    let kept = 100.0 * mutated.root as f64 / plain.root.max(1) as f64;
    assert!(kept >= KEPT_PERCENT, "{name}: {kept:.1} % of the roots are kept; {:?}", mutated.missed);
}

/// A way to rewrite a case, with draws of its own.
type Change = fn(&mut Draw, Vec<String>) -> Vec<String>;

/// Name, how many public cases it changes at least, and the change.
const CHANGES: [(&str, usize, Change); 9] = [
    ("envelope", 50, envelope),
    ("journal", 55, journal),
    ("address", 55, readdress),
    ("carriage return", 120, |_, lines| lines.iter().map(|line| format!("{line}\r")).collect()),
    ("color", 120, |draw, lines| {
        let color = 31 + draw.below(7);
        lines.iter().map(|line| format!("\u{1b}[{color}m{line}\u{1b}[0m")).collect()
    }),
    ("cut", 25, cut),
    ("repeated", 65, repeated),
    ("neighbors", 65, neighbors),
    ("all at once", 90, all),
];

#[test]
fn public_cases_survive_other_clothes() {
    let Some(corpus) = shared("public.jsonl") else { return };
    for (name, least, change) in CHANGES {
        for round in 0..rounds("CLAW_MUTATION_ROUNDS", ROUNDS) {
            // Each case and change has draws of its own: one seed for all would give all the same place and form.
            let changed = |id: &str, lines: &[String]| {
                let mutated = change(&mut Draw::of(&format!("{id} {name}"), round), lines.to_vec());
                (mutated != lines).then_some(mutated)
            };
            // A case that a change leaves as it is shows nothing.
            let plain = score(&corpus, |id, lines| changed(id, &lines).map(|_| lines));
            let mutated = score(&corpus, |id, lines| changed(id, &lines));
            report(&format!("{name}, round {round}"), &plain, &mutated);
            assert!(mutated.cases >= least, "{name}: only {} cases are changed", mutated.cases);
        }
    }
}

#[test]
fn cases_draw_different_mutations() {
    let Some(corpus) = shared("public.jsonl") else { return };
    let ids: Vec<String> = corpus
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    let line = |n: usize| format!("NVRM: Xid (PCI:0000:3b:00): 31, pid={n}, name=python3{}", ", and more".repeat(12));
    let lines: Vec<String> = (0..16).map(line).collect();
    for (name, _, change) in CHANGES.into_iter().filter(|(name, ..)| !matches!(*name, "carriage return" | "color")) {
        let of = |id: &String, round| change(&mut Draw::of(&format!("{id} {name}"), round), lines.clone());
        let forms: std::collections::BTreeSet<Vec<String>> = ids.iter().map(|id| of(id, 0)).collect();
        // There are 255 ways to move an address, of which some are drawn twice.
        assert!(forms.len() * 3 >= ids.len() * 2, "{name}: {} forms for {} cases", forms.len(), ids.len());
        let again = ids.iter().filter(|id| of(id, 0) == of(id, 1)).count();
        assert!(again * 20 <= ids.len(), "{name}: {again} cases are changed alike in the next round");
    }
}

/// What may stand around a line of the kernel, and of a program.
const KERNEL: [fn(&str) -> String; 5] = [
    |line| format!("[ 4711.654321] {line}"),
    |line| format!("2026-03-04T05:06:07.123456+00:00 node-17 kernel: [ 4711.654321] {line}"),
    |line| format!("Mar  4 05:06:07 node-17 kernel: {line}"),
    |line| format!("<3>[ 4711.654321] {line}"),
    |line| serde_json::json!({ "MESSAGE": line, "_TRANSPORT": "kernel" }).to_string(),
];
const PROGRAM: [fn(&str) -> String; 4] = [
    |line| format!("2026-03-04T05:06:07.123456789Z stderr F {line}"),
    |line| format!("[rank3]: {line}"),
    |line| format!("trainer-0  | {line}"),
    |line| serde_json::json!({ "log": format!("{line}\n"), "stream": "stderr" }).to_string(),
];
const BOTH: [fn(&str) -> String; 3] =
    [|line| format!("{line}\r"), |line| format!("\u{1b}[31m{line}\u{1b}[0m"), |line| moved(line, 0x31)];

/// Is the code found in a text whose every line was changed?
fn finds(code: &str, text: &str, change: fn(&str) -> String) -> bool {
    let mut observer = Observer::new(Rules::built_in(), "example");
    text.lines().for_each(|line| observer.line(&change(line)));
    observer.finish().findings.iter().any(|finding| finding.code.to_string() == code)
}

#[test]
fn every_rules_examples_survive_other_clothes_and_counter_examples_stay_empty() {
    let (mut told, mut lost, mut wrong) = (0_usize, Vec::new(), Vec::new());
    for compiled in &Rules::built_in().text {
        let rule = &compiled.rule;
        let own: &[fn(&str) -> String] = if rule.input == Input::Kernel { &KERNEL } else { &PROGRAM };
        for (index, change) in own.iter().chain(&BOTH).enumerate() {
            for example in &rule.examples {
                told += 1;
                if !finds(&rule.code, example, *change) {
                    lost.push(format!("{} in clothes {index}: {example:?}", rule.id));
                }
            }
            for counter in &rule.counter {
                if finds(&rule.code, counter, *change) {
                    wrong.push(format!("{} in clothes {index}: {counter:?}", rule.id));
                }
            }
        }
    }
    println!("{told} examples in other clothes, {} lost", lost.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lost.is_empty(), "{} of {told}:\n{}", lost.len(), lost.join("\n"));
}
