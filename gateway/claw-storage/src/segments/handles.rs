//! Files open for writing: bounded, the one unused longest is closed first.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::durable;

use super::LogKey;

#[derive(Debug)]
pub(super) struct Handles {
    max: usize,
    open: HashMap<LogKey, (File, u64)>,
    n_uses: u64,
}

impl Handles {
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), open: HashMap::new(), n_uses: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The file at `path`, which is the one that `key` writes to; created if absent.
    pub(super) fn writer(&mut self, key: &LogKey, path: &Path) -> io::Result<&mut File> {
        self.n_uses += 1;
        let file = if let Some((file, _)) = self.open.remove(key) {
            file
        } else {
            self.make_room();
            durable::private_file().append(true).create(true).open(path)?
        };
        let used = (file, self.n_uses);
        Ok(&mut self.open.entry(key.clone()).insert_entry(used).into_mut().0)
    }

    pub(super) fn close(&mut self, key: &LogKey) {
        self.open.remove(key);
    }

    /// Puts another file in the place of the one that `key` writes to.
    #[cfg(test)]
    pub(super) fn replace(&mut self, key: &LogKey, file: File) {
        self.open.insert(key.clone(), (file, self.n_uses));
    }

    /// A closed file loses no error: the kernel reports a failed write-back to the
    /// next descriptor that is synced.
    fn make_room(&mut self) {
        if self.open.len() < self.max {
            return;
        }
        let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.open.remove(&key);
        }
    }
}
