//! The kernel's process table, read from `/proc`.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::runtime::folder::ProcessId;

/// What `/proc/<pid>/stat` tells that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) struct ProcessStat {
    pub(in crate::runtime) pid: i32,
    pub(in crate::runtime) state: char,
    pub(in crate::runtime) parent: i32,
    pub(in crate::runtime) session: i32,
    pub(in crate::runtime) start_ticks: u64,
}

/// Reads one process; `None` if it is gone.
pub(in crate::runtime) fn stat(pid: i32) -> Option<ProcessStat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name is in parentheses and may hold anything, so fields are
/// counted from the last closing one.
fn parse_stat(text: &str) -> Option<ProcessStat> {
    let pid = text.split_once(' ')?.0.parse().ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(ProcessStat {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// The process with this number now.
pub(in crate::runtime) fn identify(pid: i32) -> Option<ProcessId> {
    stat(pid).map(|stat| ProcessId { pid, start_ticks: stat.start_ticks })
}

/// Whether this very process is still there (a zombie is not).
pub(in crate::runtime) fn is_alive(process: ProcessId) -> bool {
    stat(process.pid).is_some_and(|stat| stat.start_ticks == process.start_ticks && stat.state != 'Z')
}

fn all() -> Vec<ProcessStat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(stat).collect()
}

/// Living processes of a supervisor's session that are not older than it: its
/// program and what the program started. A session number is not given to
/// anybody else while one of its members lives.
pub(in crate::runtime) fn session_members(shim: ProcessId) -> Vec<i32> {
    let ours = |stat: &ProcessStat| {
        stat.session == shim.pid && stat.pid != shim.pid && stat.start_ticks >= shim.start_ticks && stat.state != 'Z'
    };
    all().iter().filter(|stat| ours(stat)).map(|stat| stat.pid).collect()
}

/// Living descendants of a process.
pub(in crate::runtime) fn descendants(root: i32) -> Vec<i32> {
    let all = all();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|stat| stat.parent == parent && stat.state != 'Z').map(|stat| stat.pid));
        next += 1;
    }
    found.remove(0);
    found
}

/// Children of this process that are over and that nobody has waited for.
pub(in crate::runtime) fn zombie_children() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let zombie = |stat: &&ProcessStat| stat.parent == own && stat.state == 'Z';
    all().iter().filter(zombie).map(|stat| stat.pid).collect()
}

/// Sends KILL to each; one that is gone needs none.
pub(in crate::runtime) fn kill_all(pids: &[i32]) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        if let Err(error) = kill_process(pid, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, pid = pid.as_raw_nonzero().get(), "a process could not be killed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_command_name_does_not_shift_the_fields() {
        let line = "42 (a) b (c) S 7 42 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let expected = ProcessStat { pid: 42, state: 'S', parent: 7, session: 40, start_ticks: 98_765 };
        assert_eq!(parse_stat(line), Some(expected));
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(is_alive(identify(me).unwrap()));
    }
}
