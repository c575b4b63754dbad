//! What the tests share: workloads, waiting with a deadline, reading files.

use std::path::Path;
use std::time::{Duration, Instant};

use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::message::{DesiredWorkload, LogStream};
use claw_proto::spec::{OnPartition, RuntimeKind, WorkloadSpec};
use clawnode::logs::SegmentReader;
use clawnode::runtime::execution_log::ExecutionEntry;

/// The longest that anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A shell script as a workload.
pub(crate) fn script(n: u8, text: &str) -> DesiredWorkload {
    DesiredWorkload {
        workload_id: WorkloadId::from_bits(u128::from(n)),
        attempt: Attempt(1),
        spec: WorkloadSpec {
            command: Some(vec!["/bin/sh".into(), "-c".into(), text.into()]),
            ..WorkloadSpec::default()
        },
        gpus: Vec::new(),
        runtime: RuntimeKind::Process,
        on_partition: OnPartition::Keep,
        grace_s: 5,
        max_duration_s: None,
        secrets: Vec::new(),
        registry_auth: None,
        ranks: None,
        checkpoint_last: None,
    }
}

/// Waits until something is there.
pub(crate) async fn poll_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn executions(path: &Path) -> Vec<ExecutionEntry> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every line of one stream, as text.
pub(crate) fn lines(logs: &Path, stream: LogStream) -> Vec<String> {
    let mut reader = SegmentReader::new(logs, stream);
    let mut all = Vec::new();
    loop {
        let batch = reader.read(10_000, 1 << 20).unwrap();
        assert_eq!(batch.gap, None);
        if batch.lines.is_empty() {
            return all;
        }
        all.extend(batch.lines.into_iter().map(|line| String::from_utf8(line.bytes).unwrap()));
    }
}

/// The number that a script wrote into a file.
pub(crate) fn number_in(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a process runs (a zombie does not).
pub(crate) fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn kill_9(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Words for whoever reads the output of a test.
#[expect(clippy::print_stderr, reason = "skipped tests have to be seen")]
pub(crate) fn say(words: &str) {
    eprintln!("{words}");
}
