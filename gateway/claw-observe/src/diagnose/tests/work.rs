//! Work is linear in the input, whatever it is: counted in bytes searched and literals hit, not in time.

use crate::diagnose::analyze::Analyzer;
use crate::diagnose::observe::{LINE_BYTES, Observer};
use crate::diagnose::pattern::work;
use crate::diagnose::policy::Policy;
use crate::diagnose::rules::Rules;

/// The smaller size of a line, in bytes; four times as much is still read whole.
const SMALL: usize = LINE_BYTES / 4;
/// How often one byte of a line may be looked at, where the line is made of what many rules look for; of all
/// literals in one line it is 185 times.
const LOOKS: u64 = 200;
/// How much a line four times as long may take; quadratic work is 16. Where the short line holds a part of the piece
/// alone, such as half of the literals, the long one wakes more rules: that is bounded by [`LOOKS`], and says nothing
/// of growth.
const GROWTH: u64 = 5;

/// What is repeated until a line is full: prefixes, brackets, near matches, every literal.
fn families() -> Vec<(String, String)> {
    let plain = [
        "N",
        "[",
        "({[<",
        "\"",
        "\\",
        "\t",
        "é",
        "NVRM: ",
        "Xid (",
        "Xid (PCI:0000:3b:00",
        "Xid (PCI:0000:3b:00): ",
        "Xid (PCI:0000:3b:00): 79, ",
        "NVRM: Xid (PCI:0000:3b:00): 154, changed to 0x",
        "SXid (PCI:0000:06:00.0): 20034, Fatal, ",
        "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, ",
        "NVRM: Xid (PCI:0000:3b:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000) ",
        "Xid (3b:00): 7",
        "xid 79 on GPU",
        "GPU-",
        "GPU 0000:3b:00",
        "Error: ",
        "Traceback (most recent call last) ",
        "{\"log\":\"",
        "{\"message\":{",
        "kernel: ",
        "[rank0]: ",
        "[    1.000000] ",
        "2026-01-02T03:04:05Z ",
        "killed process ",
        "ring gfx timeout",
        "nfs: server ",
        "NCCL WARN NET/IB : ",
        "uncorrectable ",
        "1 uncorrectable hardware error",
        "out of memory ",
        "tried to allocate 1 GiB ",
        "process 1 has 1 GiB memory in use ",
        "a.b.c.d.",
        "AError.",
        "| a | ",
        "0x",
        "1:",
        "--------",
    ];
    let mut all: Vec<_> = plain.iter().map(|piece| ((*piece).to_owned(), (*piece).to_owned())).collect();
    let rules = Rules::built_in();
    all.push(("every literal".to_owned(), rules.literals().join(" ")));
    let first = rules.text.iter().filter_map(|compiled| compiled.rule.literals.first().cloned());
    all.push(("a literal of every rule".to_owned(), first.collect::<Vec<_>>().join(" ")));
    all.extend(
        rules
            .text
            .iter()
            .map(|compiled| (compiled.id.to_string(), compiled.rule.examples.join(" ").replace('\n', " "))),
    );
    all
}

/// The work of a line of so many bytes, with what stands before.
fn work_of(head: &str, piece: &str, bytes: usize) -> u64 {
    let mut line = head.to_owned();
    while line.len() < bytes {
        line.push_str(piece);
    }
    let end = (0..=bytes).rev().find(|end| line.is_char_boundary(*end)).unwrap();
    line.truncate(end);
    let rules = Rules::built_in();
    let mut observer = Observer::new(rules, "log");
    work::take();
    observer.line(&line);
    Analyzer::new(rules, Policy::ours()).judge(&observer.finish());
    work::take()
}

#[test]
fn a_line_four_times_as_long_is_at_most_five_times_the_work() {
    let mut worst = (0.0, String::new());
    let mut most = (0, String::new());
    for (name, piece) in families() {
        for head in ["", "[ 1.000000] NVRM: Xid (PCI:0000:3b:00): 79, ", "[rank0]: Traceback (most recent call last): "]
        {
            let (small, large) = (work_of(head, &piece, SMALL), work_of(head, &piece, 4 * SMALL));
            let growth = large as f64 / small as f64;
            let is_whole = piece.len() + head.len() <= SMALL;
            if is_whole && growth > worst.0 {
                worst = (growth, format!("{head}{name}"));
            }
            if large > most.0 {
                most = (large, format!("{head}{name}"));
            }
            assert!(
                !is_whole || large <= GROWTH * small,
                "{head:?} {name:?}: {small} for {SMALL} bytes, {large} for four times as many"
            );
            assert!(large <= LOOKS * LINE_BYTES as u64, "{head:?} {name:?}: {large} for {LINE_BYTES} bytes");
        }
    }
    let looks = most.0 as f64 / LINE_BYTES as f64;
    println!(
        "growth at most {:.2} ({:.40}); a byte is looked at {looks:.0} times at most ({:.40})",
        worst.0, worst.1, most.1
    );
}

#[test]
fn four_times_as_many_lines_are_four_times_the_work() {
    for (name, piece) in families() {
        let of = |lines: usize| {
            let mut observer = Observer::new(Rules::built_in(), "log");
            work::take();
            for number in 0..lines {
                // Writers differ, so that what is kept of them grows to its bound.
                observer.line(&format!("[rank{number:04}]: {piece}"));
            }
            drop(observer.finish());
            work::take()
        };
        let (small, large) = (of(50), of(200));
        assert!(large * 10 <= small * 42, "{name:?}: {small} for 50 lines, {large} for 200");
    }
}
