//! Named points of an append, so that a crash test can die exactly there.

use std::fmt;

/// Where in an append a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultPoint {
    /// Nothing was written yet.
    BeforeAppend,
    /// Everything is written inside the transaction, nothing is committed.
    AfterAppend,
    /// Committed, synced, and the head anchor on disk; the caller was not told yet.
    AfterFsync,
}

/// Called at each [`FaultPoint`]; a crash test ends the process in it.
pub trait FaultHook: Send + Sync {
    /// The append has come to `point`.
    fn at(&self, point: FaultPoint);
}

/// The hook of production: does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl FaultHook for NoFaults {
    fn at(&self, _point: FaultPoint) {}
}

impl fmt::Debug for dyn FaultHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultHook")
    }
}
