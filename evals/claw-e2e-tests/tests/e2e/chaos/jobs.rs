//! Programs whose whole doing is known: each numbers its lines and writes down,
//! outside of the protocol, how far each of its attempts came.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::dice::Dice;
use crate::support::{contents, run_of, script};

/// How a program behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Prints so many lines and ends with 0.
    Fine(usize),
    /// Prints so many lines and ends with 3.
    Fails(usize),
    /// Its first attempt ends with 5, a later one with 0 (restart on failure).
    SecondTry(usize),
    /// Prints its lines and goes on until it is stopped.
    Long(usize),
}

/// One request and what became of it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) args: Value,
    /// The first answer; every later one has to be the same.
    pub(super) receipt: Value,
    pub(super) was_stopped: bool,
    folder: PathBuf,
}

impl Job {
    pub(super) fn draw(dice: &mut Dice, number: usize, root: &Path) -> Self {
        let n_lines = 1 + usize::try_from(dice.below(20)).unwrap_or(0);
        let kind = match dice.below(6) {
            0 | 1 => Kind::Fine(n_lines),
            2 => Kind::Fails(n_lines),
            3 => Kind::SecondTry(n_lines),
            _ => Kind::Long(300),
        };
        let on_partition = if dice.below(3) == 0 { json!("keep") } else { json!({ "stop_after": 3 }) };
        Self::new(format!("job-{number}"), kind, on_partition, root.to_path_buf())
    }

    fn new(name: String, kind: Kind, on_partition: Value, folder: PathBuf) -> Self {
        let (n_lines, end) = match kind {
            Kind::Fine(n) => (n, "exit 0"),
            Kind::Fails(n) => (n, "exit 3"),
            Kind::SecondTry(n) => (n, "[ $CLAW_ATTEMPT -ge 2 ] || exit 5; exit 0"),
            Kind::Long(n) => (n, "while :; do sleep 0.2; done"),
        };
        let file = folder.join(&name);
        let text = format!(
            "i=0; while [ $i -lt {n_lines} ]; do i=$((i+1)); echo line $i; echo $i >> {}.$CLAW_ATTEMPT; sleep 0.1; done; {end}",
            file.display()
        );
        let mut spec = script(&name, &text);
        spec["on_partition"] = on_partition;
        spec["grace_s"] = json!(1);
        if matches!(kind, Kind::SecondTry(_)) {
            spec["restart"] = json!("on_failure");
            spec["max_restarts"] = json!(5);
        }
        Self { args: run_of(spec), name, kind, receipt: Value::Null, was_stopped: false, folder }
    }

    /// How many lines this attempt wrote, by its own account.
    pub(super) fn lines_written(&self, attempt: u64) -> usize {
        contents(&self.folder.join(format!("{}.{attempt}", self.name))).lines().count()
    }
}
