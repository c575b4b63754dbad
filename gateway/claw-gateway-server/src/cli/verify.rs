//! `claw-gateway verify`: is the journal what was written? One of an older format is brought to today's.

use std::path::Path;

use claw_security::to_hex;
use claw_storage::{Damage, Journal as _, JournalError, OpenError, SqliteJournal};

/// Reads everything, checks everything, and says where the journal stands.
pub(super) fn journal(data_dir: &Path) -> anyhow::Result<String> {
    let folder = data_dir.join("journal");
    // Opening would make a new one.
    anyhow::ensure!(folder.join("journal.db").exists(), "there is no journal in {}", folder.display());
    let (mut journal, opened) = SqliteJournal::open(&folder).map_err(|error| match &error {
        OpenError::Damage(damage) => {
            let advice = advice(damage);
            anyhow::Error::from(error).context(advice)
        }
        _ => error.into(),
    })?;
    let report = journal.verify().map_err(|error| match &error {
        JournalError::Damage(damage) => {
            let advice = advice(damage);
            anyhow::Error::from(error).context(advice)
        }
        _ => error.into(),
    })?;
    let hash = to_hex(&report.head.hash);
    let snapshot = report.snapshot_seq.map_or_else(|| "none".to_owned(), |seq| seq.to_string());
    let migrated = if opened.migrated { " migrated=yes" } else { "" };
    Ok(format!(
        "journal ok head={} epoch={} hash={hash} live={} archived={} archive_files={} blobs={} snapshot={snapshot} unacknowledged={}{migrated}\n",
        report.head.seq,
        report.head.epoch,
        report.n_live,
        report.n_archived,
        report.n_archive_files,
        report.n_blobs,
        opened.n_unacknowledged,
    ))
}

/// Which file, from where on, and what to do.
pub(super) fn advice(damage: &Damage) -> String {
    let from = damage.first_bad_seq.map_or_else(String::new, |seq| format!(", from event {seq} on"));
    format!(
        "the journal is damaged: {}{from}. Nothing was changed. Keep the folder as it is, restore a copy, \
         and start that with --epoch-above and the highest epoch that the nodes saw",
        damage.file
    )
}
