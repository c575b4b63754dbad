//! `claw up` with the real programs: a gateway, this machine as a node, a key for agents.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long everything may take to be up, or to be down again.
const DEADLINE: Duration = Duration::from_secs(90);

fn claw(data_dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claw"));
    command.args(words).env_clear().env("HOME", "/nonexistent").env("CLAW_DATA_DIR", data_dir);
    command
}

fn said(data_dir: &Path, words: &[&str]) -> Output {
    claw(data_dir, words).stdin(Stdio::null()).output().expect("claw runs")
}

/// Starts everything and waits until it says how to connect.
fn up(data_dir: &Path) -> (Child, Value) {
    let words = ["up", "--json", "--http", "127.0.0.1:0", "--node-port", "127.0.0.1:0", "--allow-processes"];
    let mut child = claw(data_dir, &words)
        .args(["--gpu", "sim:h100x8", "--name", "here"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("claw starts");
    let stdout = BufReader::new(child.stdout.take().expect("its output"));
    let (told, line) = mpsc::sync_channel(1);
    std::thread::spawn(move || told.send(stdout.lines().next()));
    let line = line.recv_timeout(DEADLINE).expect("it is up before the deadline").expect("a line").expect("text");
    (child, serde_json::from_str(&line).expect("JSON"))
}

/// Asks it to end, as a service manager does, and waits for that.
fn down(mut child: Child) -> Option<i32> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::TERM).expect("it runs still");
    child.wait().expect("it ends").code()
}

#[test]
fn up_runs_a_gateway_and_this_machine_as_a_node() {
    let programs = Path::new(env!("CARGO_BIN_EXE_claw")).parent().expect("a folder");
    if ["claw-gateway", "clawnode"].iter().any(|name| !programs.join(name).exists()) {
        assert!(std::env::var_os("CI").is_none(), "CI builds the programs first");
        eprintln!("SKIP: claw-gateway and clawnode are not built; `cargo build --workspace --bins` makes them");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // Made by claw itself, for this user only.
    let dir = folder.path().join("data");
    let (child, first) = up(&dir);
    let key = dir.join("operator.key");
    let mode = fs::metadata(&key).expect("the key of agents").permissions().mode() & 0o777;
    assert_eq!((first["operator_key_file"].as_str(), mode), (key.to_str(), 0o600));
    let secret = fs::read_to_string(&key).expect("text");
    assert!(first["claude_mcp_add"].as_str().is_some_and(|line| line.contains(secret.trim())));
    let admin = fs::read_to_string(dir.join("admin.key")).expect("text");
    assert!(!first.to_string().contains(admin.trim()), "never the admin's key");

    // An agent runs a command with the key that it was handed, and may not make keys.
    let agent = ["--key-file", key.to_str().expect("text")];
    let run = ["workload", "run", "--name", "hello", "--runtime", "process", "--wait-s", "30"];
    let run = said(&dir, &[&agent[..], &run, &["--", "sh", "-c", "echo hello from here; exit 3"]].concat());
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let wait = said(&dir, &[&["workload", "wait", "hello", "--wait-s", "60"], &agent[..]].concat());
    assert_eq!(wait.status.code(), Some(6), "it ended with code 3: {wait:?}");
    let logs = said(&dir, &[&["workload", "logs", "hello", "--follow"], &agent[..]].concat());
    assert!(String::from_utf8_lossy(&logs.stdout).contains("hello from here\n"), "{logs:?}");
    let keys = said(&dir, &[&["api", "key-list"], &agent[..]].concat());
    assert_eq!(keys.status.code(), Some(3), "{keys:?}");
    let doctor = said(&dir, &["doctor", "--json"]);
    healthy_but_for_the_disk(&doctor);

    assert_eq!(down(child), Some(0), "it ends cleanly");
    assert_eq!(said(&dir, &["cluster", "status"]).status.code(), Some(4), "nothing is left");
    let (child, second) = up(&dir);
    assert_eq!(second["node_id"], first["node_id"], "the machine stays the same node");
    assert_eq!(fs::read_to_string(&key).expect("text"), secret, "and the agents' key the same");
    assert_eq!(down(child), Some(0));
}

/// Every check passes; how much room the machine of the test has is not the test's to judge.
fn healthy_but_for_the_disk(doctor: &Output) {
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let failed: Vec<&str> =
        checks.iter().filter(|c| c["status"] == "fail").filter_map(|c| c["check"].as_str()).collect();
    assert!(checks.len() > 5 && failed.iter().all(|check| *check == "disk"), "{doctor:?}");
    assert_eq!(doctor.status.code(), Some(if failed.is_empty() { 0 } else { 5 }), "{doctor:?}");
}
