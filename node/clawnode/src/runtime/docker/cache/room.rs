//! Room for caches: what must go for one, and whose filling has to end because nothing can.

use std::io;
use std::time::SystemTime;

use super::super::gc::{Limits, Removal, Stored, plan_gc};
use super::tree::{folders, size_now};
use super::{Cache, CacheError, MIB, Uses, at, free_bytes, manifest, readers_of};
use crate::clock;

/// A cache that needs room.
pub(super) struct Need<'a> {
    name: &'a str,
    bytes: u64,
    /// Of caches that are being filled and began before, bytes.
    others: u64,
    /// It lies on the disk already.
    is_on_disk: bool,
}

impl<'a> Need<'a> {
    /// Of a cache that was filled.
    pub(super) fn sealed(name: &'a str, bytes: u64) -> Self {
        Self { name, bytes, others: 0, is_on_disk: true }
    }

    /// Of a folder that is to be copied.
    pub(super) fn imported(name: &'a str, bytes: u64) -> Self {
        Self { is_on_disk: false, ..Self::sealed(name, bytes) }
    }
}

/// A cache that is being filled.
struct Filling {
    began: SystemTime,
    name: String,
    bytes: u64,
}

impl Cache {
    /// Who fills a cache that has outgrown its room, and what is short. What nobody uses
    /// goes first, the least recently used before others. Of caches under the limit in
    /// which those that began before leave no room, the later ones are named; where the
    /// disk gets full, the last one.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn outgrown(&self) -> Result<Vec<(String, CacheError)>, CacheError> {
        if self.config.mib_max.is_none() && self.config.disk_free_mib_min == 0 {
            return Ok(Vec::new());
        }
        // Outside of the lock of all: counting a million files takes its time.
        let filling = self.filling()?;
        if filling.is_empty() || self.fits(&filling)? {
            return Ok(Vec::new());
        }
        self.change(|cache, uses| {
            let (mut outgrown, mut others) = (Vec::new(), 0);
            for Filling { name, bytes, .. } in &filling {
                let need = Need { name, bytes: *bytes, others, is_on_disk: true };
                let writer = uses.writers.get(name).cloned();
                match (cache.make_room(uses, &need), writer) {
                    // Room is kept for an import, though nobody can end it.
                    (Ok(()), _) | (Err(CacheError::TooLarge { .. }), None) => others += bytes,
                    (Err(error @ CacheError::TooLarge { .. }), Some(writer)) => outgrown.push((writer, error)),
                    (Err(CacheError::DiskFull { free_mib, least_mib, .. }), _) => {
                        let last = filling.iter().rev().find_map(|one| Some((&one.name, uses.writers.get(&one.name)?)));
                        outgrown.extend(last.map(|(name, writer)| {
                            (writer.clone(), CacheError::DiskFull { name: name.clone(), free_mib, least_mib })
                        }));
                        break;
                    }
                    (Err(error), _) => return Err(error),
                }
            }
            Ok(outgrown)
        })
    }

    /// What is being filled, in the order in which it was begun.
    fn filling(&self) -> Result<Vec<Filling>, CacheError> {
        let mut filling = Vec::new();
        for (name, path) in folders(&self.root.join("staging"))? {
            let data = path.join("data");
            let began =
                std::fs::metadata(path.join("data")).and_then(|data| data.created().or_else(|_| data.modified()));
            match began {
                _ if name.starts_with('.') => {}
                Ok(began) => filling.push(Filling { began, name, bytes: size_now(&data) }),
                // It is over, or has hardly begun.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&data)(error)),
            }
        }
        filling.sort_by(|a, b| (a.began, &a.name).cmp(&(b.began, &b.name)));
        Ok(filling)
    }

    /// Whether all of it has room beside all that is there; where not, more has to be looked at.
    fn fits(&self, filling: &[Filling]) -> Result<bool, CacheError> {
        let mut total = filling.iter().fold(0_u64, |sum, one| sum.saturating_add(one.bytes));
        for name in self.names()? {
            let newest = self.newest(&name)?.map(|(_, path)| manifest(&path));
            // One that is being removed just now.
            total = total.saturating_add(newest.and_then(Result::ok).map_or(0, |manifest| manifest.bytes));
        }
        let free = free_bytes(&self.root).map_err(at(&self.root))?;
        let has_room = self.config.mib_max.is_none_or(|mib| total <= mib.saturating_mul(MIB));
        Ok(has_room && free >= self.config.disk_free_mib_min.saturating_mul(MIB))
    }

    /// Removes the least recently used caches that nobody reads until this one fits.
    pub(super) fn make_room(&self, uses: &mut Uses, need: &Need<'_>) -> Result<(), CacheError> {
        for removal in self.room(uses, need)? {
            tracing::info!(cache = removal.id, mib = removal.bytes / MIB, "an unused cache was removed");
            uses.last_used_ms.remove(&removal.id);
            self.discard(&self.root.join("sealed").join(&removal.id))?;
        }
        Ok(())
    }

    /// What has to go, so that it fits.
    pub(super) fn room(&self, uses: &Uses, need: &Need<'_>) -> Result<Vec<Removal>, CacheError> {
        let Need { name, bytes, others, is_on_disk } = *need;
        let mut stored = Vec::new();
        for other in self.names()? {
            let Some((_, path)) = self.newest(&other)? else { continue };
            let is_same = other == name;
            stored.push(Stored {
                bytes: manifest(&path)?.bytes,
                last_used_ms: uses.last_used_ms.get(&other).copied().unwrap_or(0),
                // The old one of the same name goes by itself if nobody reads it.
                in_use: is_same || !readers_of(uses, &other).is_empty(),
                pinned: self.config.keep.contains(&other),
                id: other,
            });
        }
        let bytes_max = self.config.mib_max.map(|mib| mib.saturating_mul(MIB).saturating_sub(others));
        let is_replaced = |one: &Stored| one.id == name && readers_of(uses, name).is_empty();
        stored.retain(|one| !is_replaced(one));
        let free = free_bytes(&self.root).map_err(at(&self.root))?.saturating_sub(if is_on_disk { 0 } else { bytes });
        let least = self.config.disk_free_mib_min.saturating_mul(MIB);
        let limits = Limits {
            bytes_max: bytes_max.map(|most| most.saturating_sub(bytes)),
            bytes_short: least.saturating_sub(free),
            unused_ms_min: 0,
        };
        let plan = plan_gc(&stored, clock::wall().unix_ms(), &limits);
        let freed: u64 = plan.iter().map(|removal| removal.bytes).sum();
        let total: u64 = stored.iter().map(|one| one.bytes).sum();
        let room = bytes_max.map_or(u64::MAX, |most| most.saturating_sub(total - freed));
        if bytes > room {
            return Err(CacheError::TooLarge { name: name.to_owned(), mib: bytes.div_ceil(MIB), room_mib: room / MIB });
        }
        if freed < limits.bytes_short {
            let (name, free_mib) = (name.to_owned(), free / MIB);
            return Err(CacheError::DiskFull { name, free_mib, least_mib: self.config.disk_free_mib_min });
        }
        Ok(plan)
    }
}
