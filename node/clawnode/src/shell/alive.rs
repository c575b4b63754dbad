//! When the agent was last seen alive, for the one after it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::clock;
use crate::files::{Durability, read_json, replace_json};

#[derive(Debug, Serialize, Deserialize)]
struct Alive {
    boot_id: String,
    boot_ms: u64,
}

/// Notes that the agent is alive now.
pub(super) fn note(path: &Path) {
    let alive = Alive { boot_id: clock::boot_id(), boot_ms: clock::boot_ms() };
    // Only an estimate hangs on it.
    if let Err(error) = replace_json(path, &alive, Durability::Cached) {
        debug!(%error, "the sign of life could not be written");
    }
}

/// When the last agent was seen alive, milliseconds since this boot.
pub(super) fn last(path: &Path) -> Option<u64> {
    match read_json::<Alive>(path) {
        Ok(alive) => alive.filter(|alive| alive.boot_id == clock::boot_id()).map(|alive| alive.boot_ms),
        Err(error) => {
            debug!(%error, "the sign of life could not be read");
            None
        }
    }
}
