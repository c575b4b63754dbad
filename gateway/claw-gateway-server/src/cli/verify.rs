//! `claw-gateway verify`: is the journal what was written?

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use claw_storage::{Journal as _, SqliteJournal};

/// Reads everything, checks everything, and says where the journal stands.
pub(super) fn journal(data_dir: &Path) -> anyhow::Result<String> {
    let folder = data_dir.join("journal");
    // Opening would make a new one.
    anyhow::ensure!(folder.join("journal.db").exists(), "there is no journal in {}", folder.display());
    let (mut journal, opened) =
        SqliteJournal::open(&folder).with_context(|| format!("the journal in {} does not open", folder.display()))?;
    let report = journal.verify().with_context(|| format!("the journal in {} is damaged", folder.display()))?;
    let mut hash = String::with_capacity(64);
    for byte in report.head.hash {
        write!(hash, "{byte:02x}").expect("a text takes what is written to it");
    }
    let snapshot = report.snapshot_seq.map_or_else(|| "none".to_owned(), |seq| seq.to_string());
    Ok(format!(
        "journal ok head={} epoch={} hash={hash} live={} archived={} archive_files={} blobs={} snapshot={snapshot} unacknowledged={}\n",
        report.head.seq,
        report.head.epoch,
        report.n_live,
        report.n_archived,
        report.n_archive_files,
        report.n_blobs,
        opened.n_unacknowledged,
    ))
}
