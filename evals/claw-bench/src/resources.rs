//! What a process uses, as the system tells it.

use anyhow::{Context as _, Result};

/// Memory that a process has in RAM, KiB.
///
/// # Errors
/// If there is no such process.
pub fn resident_kib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    parse_kib(&status, "VmRSS:").context("no VmRSS")
}

/// Memory of a process in RAM that no file backs: what it allocated, not its code; KiB.
///
/// # Errors
/// If there is no such process.
pub fn anonymous_kib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    parse_kib(&status, "RssAnon:").context("no RssAnon")
}

fn parse_kib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time that the threads of a process have used, seconds. From the scheduler's own
/// count, for the clock's ticks miss what is shorter than they are; threads that have ended
/// are not in it.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut total = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")? {
        // A thread may have ended meanwhile.
        let count = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        total += parse_run_seconds(&count).unwrap_or(0.0);
    }
    Ok(total)
}

fn parse_run_seconds(schedstat: &str) -> Option<f64> {
    let run_ns: f64 = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(run_ns / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_read() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmRSS:\t   812 kB\nRssAnon:\t 40 kB\n";
        assert_eq!((parse_kib(status, "VmRSS:"), parse_kib(status, "RssAnon:")), (Some(812.0), Some(40.0)));
        assert_eq!(parse_run_seconds("2500000000 9 12\n"), Some(2.5));
        assert_eq!(parse_run_seconds(""), None);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(resident_kib(std::process::id()).unwrap() > 500.0);
        assert!(anonymous_kib(std::process::id()).unwrap() > 0.0);
    }
}
