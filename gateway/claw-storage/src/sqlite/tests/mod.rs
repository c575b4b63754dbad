use std::path::Path;

use tempfile::TempDir;

use super::{JournalOptions, SqliteJournal};
use crate::conformance;
use crate::memory::MemoryJournal;

/// Small archives and no ballast.
fn options() -> JournalOptions {
    JournalOptions {
        reserve_bytes: 0,
        archive_events_max: 4,
        ..JournalOptions::default()
    }
}

fn open(dir: &Path) -> SqliteJournal {
    SqliteJournal::open_with(dir, options()).unwrap().0
}

#[test]
fn both_journals_conform() {
    conformance::run(MemoryJournal::default);
    let root = TempDir::new().unwrap();
    let mut n = 0;
    conformance::run(|| {
        n += 1;
        open(&root.path().join(n.to_string()))
    });
}
