//! # claw-fuzz: what strangers, disks and crashes may hand in, judged on any bytes
//!
//! Each [`Target`] is a plain function of bytes. It reads them as the program
//! does, and panics where a promise is broken: no panic and no endless loop in
//! our code, what was read is what is written again, damage is named.
//! libFuzzer looks for such bytes (`./dev fuzz`); what it found worth keeping
//! stands in `corpus/<target>` and is replayed by every test run.
//!
//! Files are not fuzzed as bytes alone, for no mutation gets past a checksum: an
//! input is read as a [`tape`] of orders to an own encoder, which forges sound
//! frames with absurd content, or as edits of a sound journal.

mod frames;
mod journal;
mod log_segments;
mod node_files;
mod settings;
mod tape;
mod words;

use std::path::PathBuf;

/// One thing that reads bytes of others.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name; that of its folder below `corpus`, too.
    pub name: &'static str,
    /// What it reads.
    pub what: &'static str,
    /// Reads the bytes, and panics where a promise is broken.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, what: &'static str, run: fn(&[u8])) -> Target {
    Target { name, what, run }
}

/// Every target.
pub const TARGETS: [Target; 9] = [
    target("node_frame", "a frame between gateway and node", frames::node_frame),
    target("tool_arguments", "a call of an operation", words::tool_arguments),
    target("workload_request", "a request in words", words::workload_request),
    target("gateway_config", "the gateway's settings", settings::gateway_config),
    target("node_config", "a node's settings", settings::node_config),
    target("journal", "edits of the gateway's journal", journal::journal),
    target("log_segments", "the gateway's log files", log_segments::log_segments),
    target("node_log", "a node's log files", node_files::node_log),
    target("node_store", "a node's record store", node_files::node_store),
];

/// Runs the target called `name` on `bytes`.
///
/// # Panics
/// If there is no such target, or the bytes break one of its promises.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("the name is one of TARGETS").run)(bytes);
}

/// The folder with the kept inputs of all targets, in the checkout that runs.
pub fn corpus_dir() -> PathBuf {
    let compiled_from = env!("CARGO_MANIFEST_DIR");
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| compiled_from.into());
    PathBuf::from(here).join("corpus")
}
