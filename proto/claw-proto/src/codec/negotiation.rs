//! Which protocol version two peers speak.

use std::fmt;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that negotiates.
    Ours,
    /// The other one.
    Theirs,
}

/// Two peers have no protocol version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionMismatch {
    /// Oldest and newest version of this side.
    pub ours: (u32, u32),
    /// Oldest and newest version of the peer.
    pub theirs: (u32, u32),
    /// Which side is too old.
    pub upgrade: Side,
}

impl fmt::Display for VersionMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |(min, max): (u32, u32)| {
            if min == max { format!("version {min}") } else { format!("versions {min} to {max}") }
        };
        let upgrade = match self.upgrade {
            Side::Ours => "this side",
            Side::Theirs => "the peer",
        };
        write!(
            f,
            "no common protocol version: this side speaks {}, the peer {}; upgrade {upgrade}",
            range(self.ours),
            range(self.theirs),
        )
    }
}

impl std::error::Error for VersionMismatch {}

/// The newest version that both sides speak; a range is oldest and newest version.
///
/// # Errors
/// [`VersionMismatch`], which says who has to upgrade, if there is none. A range
/// that runs backwards has no versions; the side that names it is the one to upgrade.
pub fn negotiate(ours: (u32, u32), theirs: (u32, u32)) -> Result<u32, VersionMismatch> {
    let newest = ours.1.min(theirs.1);
    if newest >= ours.0.max(theirs.0) {
        return Ok(newest);
    }
    let is_theirs = theirs.0 > theirs.1 || (ours.0 <= ours.1 && theirs.1 < ours.0);
    let upgrade = if is_theirs { Side::Theirs } else { Side::Ours };
    Err(VersionMismatch { ours, theirs, upgrade })
}
