//! Bounds: memory, long lines, and inputs that nobody meant.

use proptest::prelude::*;

use super::corpus::lines_of;
use super::draw::{Draw, knob, rounds};
use super::tables::shared;
use crate::diagnose::analyze::Analyzer;
use crate::diagnose::code::Code;
use crate::diagnose::device::{Names, Unit};
use crate::diagnose::insight::{Insight, TEXT_CHARS, Target};
use crate::diagnose::observe::{EXCERPT_BYTES, FINDINGS, LINE_BYTES, MEMORY_BYTES, Observer, writer};
use crate::diagnose::pattern::work;
use crate::diagnose::policy::{self, Policy};
use crate::diagnose::rules::Rules;
use crate::diagnose::series::told::told;

fn judge(text: &str) -> Insight {
    let rules = Rules::built_in();
    let mut observer = Observer::new(rules, "log");
    observer.text(text);
    let verdict = Analyzer::new(rules, Policy::ours()).judge(&observer.finish());
    Insight::new(rules, &verdict, &Target { node: Some("node_1".into()), workload: Some("wl_1".into()) })
}

#[test]
fn an_endless_stream_keeps_a_bounded_number_of_findings() {
    let mut observer = Observer::new(Rules::built_in(), "stream");
    for number in 0..20_000_u32 {
        let (bus, slot) = (number >> 8 & 0xff, number & 0xff);
        observer.line(&format!("NVRM: Xid (PCI:{:04x}:{bus:02x}:{slot:02x}): {}, pid=1", number >> 16, number % 180));
        observer.line(&format!("[rank{number}]: Traceback (most recent call last):"));
    }
    let seen = observer.finish();
    assert_eq!((seen.findings.len(), seen.lines), (FINDINGS, 40_000));
    assert_eq!(seen.dropped, 20_000 - FINDINGS as u64, "the rest is counted");
    assert!(seen.findings.iter().all(|finding| finding.excerpt.len() <= EXCERPT_BYTES));
}

/// Lines that make an observer keep as much as it can: other units, long names, marks, open tracebacks, models.
fn greedy(number: u32) -> [String; 7] {
    let server = format!("{number}{}", "\u{1f980}".repeat(119));
    let (bus, slot) = (number >> 8 & 0xff, number & 0xff);
    let writer = format!("(w{} pid={number})", "x".repeat(1_000));
    [
        format!("nfs: server {server} not responding, still trying {}", "y".repeat(EXCERPT_BYTES)),
        format!(
            "NVRM: Xid (PCI:{:04x}:{bus:02x}:{slot:02x}): 144, SAW_MVB Fatal XC0 i0 Link 00 (0x00000001 0x00000010)",
            number >> 16
        ),
        format!("amdgpu {:04x}:{bus:02x}:{slot:02x}.0: amdgpu: GPU reset(2) succeeded!", number >> 16),
        format!("{writer} Traceback (most recent call last):"),
        format!("{writer}   File \"/home/{}/train.py\", line {number}, in {}", "u".repeat(280), "f".repeat(119)),
        format!("GPU {number}: NVIDIA H100 80GB HBM3 (UUID: GPU-5d1f3a77-0000-1111-2222-{number:012x})"),
        format!("{}\u{0}\u{0}{}", "| NVIDIA ".repeat(40), "a ".repeat(500)),
    ]
}

#[test]
fn an_endless_stream_takes_the_stated_bytes_at_most() {
    let mut observer = Observer::new(Rules::built_in(), "stream");
    let mut most = 0;
    for number in 0..700_u32 {
        for line in greedy(number) {
            observer.line(&line);
        }
        if number % 50 == 0 {
            observer.line(&format!("(w{} pid={number}) Traceback (most recent call last):", "x".repeat(LINE_BYTES)));
            observer.unread("n".repeat(400) + &number.to_string());
            observer.next_source(&format!("{}{number}", "s".repeat(200)));
        }
        most = most.max(observer.held_bytes());
        assert!(most <= MEMORY_BYTES, "{most} bytes held after {number} rounds, {MEMORY_BYTES} are stated");
    }
    println!("{most} bytes held at most, {MEMORY_BYTES} are stated");
    assert!(most > MEMORY_BYTES / 4, "the stream was not greedy: {most} bytes");
    assert_eq!(observer.finish().findings.len(), FINDINGS);
}

#[test]
fn a_line_without_end_is_cut() {
    let mut observer = Observer::new(Rules::built_in(), "log");
    let long = format!("NVRM: Xid (PCI:0000:3b:00): 79, {}", "é".repeat(4 << 20));
    observer.line(&long);
    assert_eq!(observer.finish().findings[0].code, Code::Xid(79));
}

/// Rewrites a text by one of several accidents.
fn mutate(draw: &mut Draw, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=draw.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = draw.below(bytes.len());
        match draw.below(6) {
            0 => bytes.truncate(at),
            1 => bytes[at] = u8::try_from(draw.below(256)).unwrap(),
            2 => bytes.insert(at, u8::try_from(draw.below(256)).unwrap()),
            3 => drop(bytes.remove(at)),
            4 => bytes.rotate_left(at),
            _ => {
                let piece = bytes[at..].to_vec();
                bytes.extend_from_slice(&piece);
            }
        }
    }
    bytes.truncate(4_096);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Work per byte of a mutated line, plus 64 for the line; 28 in ten million of them.
const LOOKS: f64 = 60.0;

#[test]
fn accidents_of_lines_never_break_the_engine() {
    let rules = Rules::built_in();
    let mut seeds: Vec<String> = rules.text.iter().flat_map(|compiled| compiled.rule.examples.clone()).collect();
    seeds.push("NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000)".into());
    seeds.push("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12020, Fatal, Link 12 egress".into());
    seeds.extend(shared("public.jsonl").iter().flat_map(|corpus| corpus.lines()).flat_map(lines_of));
    let mut draw = Draw(knob("CLAW_SEED", 7));
    let rounds = rounds("CLAW_FUZZ_ROUNDS", 20_000);
    let fresh = || {
        let mut observer = Observer::new(rules, "log");
        let mut names = Names::default();
        names.add(&Unit::Uuid("GPU-1".into()), [Unit::Index(0), Unit::Rank(3), Unit::Pci("0000:3b:00".into())]);
        observer.machine("node_1", names.clone());
        observer.host("node-1", "node_2", names);
        observer
    };
    let mut observer = fresh();
    let mut most = 0.0_f64;
    for round in 0..rounds {
        let seed = draw.below(seeds.len());
        let line = mutate(&mut draw, &seeds[seed]);
        std::hint::black_box((told(&line), writer(&line)));
        work::take();
        observer.text(&line);
        // A short line is looked at as often as a long one, and every rule may start on it.
        let looks = work::take() as f64 / (line.len() + 64) as f64;
        assert!(looks <= LOOKS, "work of {looks:.0} per byte, plus 64 for a line: {line:?}");
        most = most.max(looks);
        if round % 64 == 63 {
            let seen = std::mem::replace(&mut observer, fresh()).finish();
            let verdict = Analyzer::new(rules, Policy::ours()).judge(&seen);
            let never = verdict.root.as_ref().is_some_and(|root| root.is_xid(&[13, 31, 43, 45]));
            let said = seen.findings.iter().any(|finding| finding.code.is_xid(&[154]));
            assert!(!never || said || !verdict.action.is_hardware(), "{verdict:?}");
        }
    }
    println!("{rounds} mutated lines; work of {most:.0} at most per byte, plus 64 for a line");
}

proptest! {
    #[test]
    fn any_text_gives_a_verdict_of_bounded_length(text in "(?s).{0,600}") {
        let insight = judge(&text);
        prop_assert!(insight.text().chars().count() <= TEXT_CHARS);
    }

    #[test]
    fn an_unknown_xid_is_for_support_under_our_policy(code in 174_u32..100_000) {
        let insight = judge(&format!("NVRM: Xid (PCI:0000:3b:00): {code}, pid=1, name=x, something new"));
        prop_assert_eq!(insight.diagnosis.root, format!("xid_{code}"));
        prop_assert_eq!(insight.diagnosis.action.as_str(), "contact_support");
    }

    #[test]
    fn a_programs_fault_alone_never_touches_hardware(codes in proptest::collection::vec(0_usize..4, 1..6), which in 0_usize..5) {
        let lines: Vec<String> = codes
            .iter()
            .map(|index| format!("NVRM: Xid (PCI:0000:3b:00): {}, pid=1, name=x", [13, 31, 43, 45][*index]))
            .collect();
        let rules = Rules::built_in();
        let mut observer = Observer::new(rules, "log");
        observer.text(&lines.join("\n"));
        let policy = &policy::all()[which];
        let verdict = Analyzer::new(rules, policy).judge(&observer.finish());
        prop_assert!(!verdict.action.is_hardware());
    }
}
