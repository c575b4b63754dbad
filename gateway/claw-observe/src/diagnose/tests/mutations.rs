//! Public cases in other clothes: other envelopes, addresses, neighbors, cuts and repeats.

use regex::Regex;

use super::corpus::{Score, score};
use super::draw::Draw;
use super::tables::shared;
use crate::diagnose::observe::Observer;
use crate::diagnose::rules::{Input, Rules};

/// Cases that must keep their root, against the untouched ones, in percent.
const KEPT_PERCENT: f64 = 95.0;

fn envelope(line: &str) -> String {
    let prefix = Regex::new(r"^\s*(?:<\d+>)?\[\s*\d+\.\d+\]\s*").unwrap();
    let bare = prefix.replace(line, "");
    if bare.starts_with("NVRM") || bare.contains("SXid (PCI") || bare.starts_with("amdgpu") || bare.starts_with("mlx5")
    {
        return format!("2026-03-04T05:06:07.123456+00:00 node-17 kernel: [ 4711.654321] {bare}");
    }
    line.to_owned()
}

fn journal(line: &str) -> String {
    let kernel = line.contains("NVRM:") || line.contains("SXid (PCI") || line.contains("amdgpu");
    if !kernel || line.trim_start().starts_with(['{', '|']) {
        return line.to_owned();
    }
    serde_json::json!({ "MESSAGE": line, "_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": "1767225845123456" })
        .to_string()
}

fn readdress(line: &str) -> String {
    let address = Regex::new(r"(?i)\b([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\b").unwrap();
    let other = |found: &regex::Captures<'_>| {
        let bus = u8::from_str_radix(&found[2], 16).unwrap().wrapping_add(0x31);
        format!("{}:{bus:02x}:{}", &found[1], &found[3])
    };
    address.replace_all(line, other).into_owned()
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

fn cut(line: String) -> String {
    if line.len() < 150 || line.starts_with('{') {
        return line;
    }
    let end = (0..=line.len() * 92 / 100).rev().find(|end| line.is_char_boundary(*end)).unwrap();
    line[..end].to_owned()
}

fn report(name: &str, plain: &Score, mutated: &Score) {
    println!("{name}: root {}, untouched {}; forbidden {}", mutated.root, plain.root, mutated.forbidden);
    assert_eq!(mutated.forbidden, 0, "{name}: {:?}", mutated.missed);
    let kept = 100.0 * mutated.root as f64 / plain.root.max(1) as f64;
    assert!(kept >= KEPT_PERCENT, "{name}: {kept:.1} % of the roots are kept; {:?}", mutated.missed);
}

#[test]
fn public_cases_survive_other_clothes() {
    let Some(corpus) = shared("public.jsonl") else { return };
    let plain = score(&corpus, |_, lines| lines);
    let each = |change: fn(&str) -> String| score(&corpus, move |_, lines| lines.iter().map(|l| change(l)).collect());
    report("envelope", &plain, &each(envelope));
    report("journal", &plain, &each(journal));
    report("address", &plain, &each(readdress));
    report("carriage return", &plain, &each(|line| format!("{line}\r")));
    report("color", &plain, &each(|line| format!("\u{1b}[31m{line}\u{1b}[0m")));
    report("cut", &plain, &score(&corpus, |_, lines| lines.into_iter().map(cut).collect()));
    let twice = |_, lines: Vec<String>| lines.into_iter().flat_map(|line| [line.clone(), line]).collect();
    report("twice", &plain, &score(&corpus, twice));
    let between = |index: usize, lines| neighbors(&mut Draw(index as u64), lines);
    report("neighbors", &plain, &score(&corpus, between));
    let all = |index: usize, lines: Vec<String>| {
        let lines = lines.iter().map(|line| readdress(&envelope(line))).collect();
        neighbors(&mut Draw(index as u64 + 99), lines)
    };
    report("all at once", &plain, &score(&corpus, all));
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
    [|line| format!("{line}\r"), |line| format!("\u{1b}[31m{line}\u{1b}[0m"), |line| readdress(line)];

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
