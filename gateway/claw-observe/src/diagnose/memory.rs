//! What an out-of-memory message says: what was asked for, what was free, and a fix.

use super::pattern::{Pattern, regex};
use std::sync::LazyLock;

const SIZE: &str = r"(?P<n>\d+(?:\.\d+)?) ?(?P<unit>[KMGT]i?B|bytes)";

static ASKED: LazyLock<Pattern> =
    LazyLock::new(|| regex(&format!(r"(?i)(?:tried to allocate|trying to allocate|allocate|allocating) {SIZE}")));
static TOTAL: LazyLock<Pattern> = LazyLock::new(|| {
    regex(&format!(r"(?i)(?:total capacity of {SIZE}|; (?P<n2>\d+(?:\.\d+)?) ?(?P<unit2>[KMGT]i?B) total capacity)"))
});
static FREE: LazyLock<Pattern> = LazyLock::new(|| regex(&format!(r"(?i){SIZE} (?:is )?free")));
static ALLOCATED: LazyLock<Pattern> = LazyLock::new(|| regex(&format!(r"(?i){SIZE} (?:is |already )?allocated")));
static RESERVED: LazyLock<Pattern> = LazyLock::new(|| regex(&format!(r"(?i){SIZE} (?:is )?reserved")));
static IN_USE: LazyLock<Pattern> = LazyLock::new(|| regex(&format!(r"(?i)this process has {SIZE} memory in use")));
static OTHERS: LazyLock<Pattern> = LazyLock::new(|| regex(&format!(r"(?i)process \d+ has {SIZE} memory in use")));

/// The numbers of one message, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OutOfMemory {
    /// What was asked for.
    pub asked_mib: Option<f64>,
    /// What the GPU has.
    pub total_mib: Option<f64>,
    /// What was free.
    pub free_mib: Option<f64>,
    /// What the framework had handed out.
    pub allocated_mib: Option<f64>,
    /// What the framework held back.
    pub reserved_mib: Option<f64>,
    /// What other processes hold.
    pub others_mib: Option<f64>,
}

/// Reads the numbers of one message; none if it has none.
pub fn read(line: &str) -> Option<OutOfMemory> {
    let mib = |pattern: &Pattern| {
        let found = pattern.captures(line)?;
        let (n, unit) = match (found.name("n"), found.name("n2")) {
            (Some(n), _) => (n, found.name("unit")?),
            (None, Some(n)) => (n, found.name("unit2")?),
            (None, None) => return None,
        };
        let factor = match unit.as_str().to_ascii_lowercase().as_str() {
            "tib" | "tb" => 1_048_576.0,
            "gib" | "gb" => 1_024.0,
            "mib" | "mb" => 1.0,
            "kib" | "kb" => 1.0 / 1_024.0,
            _ => 1.0 / 1_048_576.0,
        };
        n.as_str().parse::<f64>().ok().map(|n| n * factor)
    };
    let mine = IN_USE.find(line).map(|found| found.range());
    let foreign = OTHERS.find_iter(line).find(|found| mine.as_ref().is_none_or(|mine| found.start() > mine.end));
    let found = OutOfMemory {
        asked_mib: mib(&ASKED),
        total_mib: mib(&TOTAL),
        free_mib: mib(&FREE),
        allocated_mib: mib(&ALLOCATED),
        reserved_mib: mib(&RESERVED),
        others_mib: foreign.or_else(|| OTHERS.find(line)).and_then(|_| mib(&OTHERS)),
    };
    (found != OutOfMemory::default()).then_some(found)
}

impl OutOfMemory {
    /// The numbers in words.
    pub fn words(&self) -> String {
        let part = |name: &str, value: Option<f64>| value.map(|mib| format!("{name} {}", size(mib)));
        let parts = [
            part("asked", self.asked_mib),
            part("free", self.free_mib),
            part("allocated", self.allocated_mib),
            part("reserved", self.reserved_mib),
            part("other processes", self.others_mib),
            part("total", self.total_mib),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// What would help, from these numbers.
    pub fn fix(&self) -> &'static str {
        let asked = self.asked_mib.unwrap_or(0.0);
        let share = |part: f64| part / self.total_mib.unwrap_or(f64::INFINITY);
        if self.others_mib.is_some_and(|others| share(others) > 0.2 || others > asked) {
            return "another process holds memory on this GPU: give the work a GPU of its own, or end that process";
        }
        if self.reserved_mib.is_some_and(|reserved| reserved > 2.0 * asked && share(reserved) > 0.1) {
            return "the framework holds back more than was asked for, in pieces: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True";
        }
        if self.total_mib.is_some_and(|total| asked > total) {
            return "one allocation is larger than the GPU: shard the model or shrink the input";
        }
        "a smaller batch or sequence, activation checkpoints, sharding, or a GPU with more memory"
    }
}

fn size(mib: f64) -> String {
    if mib >= 1_024.0 { format!("{:.2} GiB", mib / 1_024.0) } else { format!("{mib:.0} MiB") }
}
