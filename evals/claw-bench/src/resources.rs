//! What a process uses, as the system tells it.

use anyhow::{Context as _, Result};

/// Clock ticks in a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory that a process has in RAM, KiB.
///
/// # Errors
/// If there is no such process.
pub fn resident_kib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    parse_resident_kib(&status).context("no VmRSS")
}

fn parse_resident_kib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time that a process has used, of all its threads, seconds.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    parse_cpu_seconds(&stat).context("no times")
}

fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    // The name stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_read() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmRSS:\t   812 kB\n";
        assert_eq!(parse_resident_kib(status), Some(812.0));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 9 1 2";
        assert_eq!(parse_cpu_seconds(stat), Some(2.0));
        assert!(resident_kib(std::process::id()).unwrap() > 500.0);
    }
}
