//! The program itself: its one line, its exit codes, what it says about a
//! damaged journal.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn gateway(words: &[&str], data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claw-gateway"));
    command.args(words).arg("--data-dir").arg(data_dir).stdin(Stdio::null());
    command
}

/// A running gateway, ended when dropped.
struct Gateway {
    child: Child,
    ready: String,
}

impl Gateway {
    fn start(data_dir: &Path) -> Self {
        let words = ["run", "--http", "127.0.0.1:0", "--node", "127.0.0.1:0", "--log-format", "json"];
        let mut child =
            gateway(&words, data_dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        Self { child, ready }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// How it ended; one that never does is ended by the test runner.
    fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn it_says_where_it_is_stops_in_order_and_its_journal_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut gateway_process = Gateway::start(&data_dir);
    let words: Vec<&str> = gateway_process.ready.trim_end().split(' ').collect();
    let [_, "ready", mcp, node] = words[..] else { panic!("{:?}", gateway_process.ready) };
    assert!(mcp.starts_with("mcp=http://127.0.0.1:") && mcp.ends_with("/mcp"), "{mcp}");
    assert!(node.starts_with("node=https://127.0.0.1:") && !node.ends_with(":0"), "{node}");

    // A second one on the same folder does not start.
    let second = gateway(&["run", "--http", "127.0.0.1:0", "--node", "127.0.0.1:0"], &data_dir);
    let (code, _, said) = run(second);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is in use by process"), "{said}");

    gateway_process.signal(Signal::TERM);
    assert_eq!(gateway_process.ended().code(), Some(0));
    let mut rest = String::new();
    gateway_process.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "standard output has one line");

    let key = std::fs::read_to_string(data_dir.join("admin.key")).unwrap();
    assert!(key.starts_with("clawkey_key_") && key.lines().count() == 1);
    let (code, said, _) = run(gateway(&["verify"], &data_dir));
    assert_eq!(code, 0);
    assert!(said.starts_with("journal ok head=") && said.contains(" epoch=1 "), "{said}");

    // Killed, it starts again under the next epoch, with the same key.
    let mut again = Gateway::start(&data_dir);
    again.signal(Signal::KILL);
    again.ended();
    let mut third = Gateway::start(&data_dir);
    third.signal(Signal::INT);
    assert_eq!(third.ended().code(), Some(0));
    assert_eq!(std::fs::read_to_string(data_dir.join("admin.key")).unwrap(), key);
    let (_, said, _) = run(gateway(&["verify"], &data_dir));
    assert!(said.contains(" epoch=3 "), "{said}");
}

#[test]
fn a_damaged_journal_is_named_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut running = Gateway::start(&data_dir);
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code(), Some(0));
    std::fs::remove_file(data_dir.join("journal").join("journal.head")).unwrap();
    for words in [&["run", "--http", "127.0.0.1:0", "--node", "127.0.0.1:0"][..], &["verify"]] {
        let (code, out, said) = run(gateway(words, &data_dir));
        assert_eq!((code, out.as_str()), (3, ""), "{said}");
        assert!(said.contains("damaged") && said.contains("journal.head"), "{said}");
    }
}

#[test]
fn what_cannot_work_is_refused_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    for (words, problem) in [
        (&["run", "--http", "0.0.0.0:0"][..], "not a loopback address"),
        (&["run", "--set", "node.listne=1"], "did you mean node.listen?"),
        (&["run", "--config", "/nonexistent/gateway.toml"], "cannot read /nonexistent/gateway.toml"),
        (&["walk"], "unrecognized subcommand"),
    ] {
        let (code, out, said) = run(gateway(words, &data_dir));
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {said}");
        assert!(said.contains(problem), "{words:?}: {said}");
    }
    assert!(!data_dir.exists());
}
