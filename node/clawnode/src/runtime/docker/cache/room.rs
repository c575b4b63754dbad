//! Room for caches: what must go for one, and whose filling has to end because nothing can.

use std::path::Path;

use super::super::gc::{Limits, Removal, Stored, plan_gc};
use super::tree::size_now;
use super::{Begun, Cache, CacheError, MIB, Uses, at, free_bytes, lock_file, manifest, readers_of};
use crate::clock;
use crate::files::read_json;

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

    /// Of a folder that is to be copied, beside so many bytes of caches that are being filled.
    pub(super) fn imported(name: &'a str, bytes: u64, others: u64) -> Self {
        Self { name, bytes, others, is_on_disk: false }
    }
}

/// A cache that was being filled when it was measured.
pub(super) struct Filling {
    name: String,
    begun: Begun,
    pub(super) bytes: u64,
}

impl Filling {
    /// It is being filled by the same one as when it was measured.
    pub(super) fn still_is(&self, uses: &Uses) -> bool {
        uses.filling.get(&self.name).is_some_and(|now| now.n == self.begun.n)
    }
}

impl Cache {
    /// Who fills a cache that has outgrown its room, and what is short. What nobody uses
    /// goes first, the least recently used before others. Of several that are being filled
    /// the one that began last is named where there is not room for all.
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
        self.outgrown_of(&filling)
    }

    /// The same of what was measured: only what is still being filled by the same ones counts.
    pub(super) fn outgrown_of(&self, filling: &[Filling]) -> Result<Vec<(String, CacheError)>, CacheError> {
        self.change(|cache, uses| {
            // What was sealed or given back meanwhile is counted as that.
            let filling: Vec<&Filling> = filling.iter().filter(|one| one.still_is(uses)).collect();
            let writer_of = |one: &Filling, uses: &Uses| {
                let is_over = uses.filling.get(&one.name).is_some_and(|begun| begun.is_over);
                uses.writers.get(&one.name).filter(|_| !is_over).cloned()
            };
            let (mut outgrown, mut others) = (Vec::new(), 0);
            for one in &filling {
                let need = Need { name: &one.name, bytes: one.bytes, others, is_on_disk: true };
                match (cache.make_room(uses, &need), writer_of(one, uses)) {
                    // Room is kept for what nobody can be stopped for.
                    (Ok(()), _) | (Err(CacheError::TooLarge { .. }), None) => others += one.bytes,
                    (Err(error @ CacheError::TooLarge { .. }), Some(writer)) => outgrown.push((writer, error)),
                    (Err(CacheError::DiskFull { free_mib, least_mib, .. }), _) => {
                        let last = filling.iter().rev().find_map(|one| Some((one, writer_of(one, uses)?)));
                        outgrown.extend(last.map(|(one, writer)| {
                            (writer, CacheError::DiskFull { name: one.name.clone(), free_mib, least_mib })
                        }));
                        break;
                    }
                    (Err(error), _) => return Err(error),
                }
            }
            Ok(outgrown)
        })
    }

    /// What is being filled, in the order in which it was begun; imports as large as they will be.
    pub(super) fn filling(&self) -> Result<Vec<Filling>, CacheError> {
        let path = self.root.join("uses.json");
        // It is replaced as a whole: no lock is needed to read it.
        let uses = read_json::<Uses>(&path).map_err(at(&path))?.unwrap_or_default();
        let staging = self.root.join("staging");
        // An import that was cut off has no folder or holds no lock, and what it left goes for the next one.
        let is_free = |folder: &Path| lock_file(&folder.join("lock")).is_ok_and(|lock| lock.is_some());
        let is_cut_off = |name: &str| !staging.join(name).is_dir() || is_free(&staging.join(name));
        let is_being_filled = |name: &String| uses.writers.contains_key(name) || !is_cut_off(name);
        let measured = |(name, begun): (&String, &Begun)| Filling {
            name: name.clone(),
            begun: *begun,
            bytes: begun.bytes.unwrap_or_else(|| size_now(&staging.join(name).join("data"))),
        };
        let mut filling: Vec<Filling> =
            uses.filling.iter().filter(|(name, _)| is_being_filled(name)).map(measured).collect();
        filling.sort_by_key(|one| one.begun.n);
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
