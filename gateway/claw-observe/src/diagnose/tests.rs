//! The rules find what they should, and nothing else.

use super::rules::{Rules, lint};

mod architecture;
mod corpus;
mod decoys;
mod draw;
mod forms;
mod inject;
mod kernel;
mod limits;
mod mutations;
mod reported;
mod series;
mod tables;
mod verdicts;
mod window;
mod work;

#[test]
fn rules_are_sound_and_find_their_examples() {
    let faults = lint::lint(Rules::built_in());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
