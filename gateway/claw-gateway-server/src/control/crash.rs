//! Named points at which a test ends the gateway with SIGKILL.
//!
//! Off unless the environment variable `CLAW_GATEWAY_CRASH_AT` names a point and
//! a count, such as `after_fsync@3`: the third time that a caller's mutation
//! comes there. A gateway started so says it loudly.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use claw_storage::{FaultHook, FaultPoint};

claw_proto::closed_enum! {
    /// Where.
    CrashPoint {
        /// Decided, nothing written.
        BeforeAppend = "before_append",
        /// Written, not committed.
        AfterAppend = "after_append",
        /// On disk, nobody told.
        AfterFsync = "after_fsync",
        /// On disk and published, effects not performed.
        BeforeEffect = "before_effect",
        /// Effects handed over, no reply.
        AfterEffect = "after_effect",
        /// The reply is the only thing missing.
        BeforeReply = "before_reply"
    }
}

/// The value does not name a point and a count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "crash plan {got:?} is not <point>@<count>; points are before_append, after_append, after_fsync, before_effect, after_effect, before_reply"
)]
pub struct CrashPlanError {
    /// What was given.
    pub got: String,
}

/// When to die, if at all.
#[derive(Debug, Default)]
pub struct CrashPlan {
    at: Option<(CrashPoint, u64)>,
    hits: AtomicU64,
    /// Only a caller's mutation counts, not ticks and heartbeats.
    armed: AtomicBool,
}

impl CrashPlan {
    /// Never dies.
    pub fn none() -> Self {
        Self::default()
    }
    /// Reads `<point>@<count>`.
    pub fn parse(text: &str) -> Result<Self, CrashPlanError> {
        let error = || CrashPlanError { got: text.to_owned() };
        let (point, count) = text.split_once('@').ok_or_else(error)?;
        let point = CrashPoint::from_text(point).ok_or_else(error)?;
        let count: u64 = count.parse().map_err(|_| error())?;
        Ok(Self { at: Some((point, count.max(1))), ..Self::default() })
    }
    /// Dies somewhere.
    pub fn is_set(&self) -> bool {
        self.at.is_some()
    }
    pub(super) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Release);
    }
    /// Comes to a point.
    pub(super) fn reach(&self, point: CrashPoint) {
        let Some((wanted, count)) = self.at else {
            return;
        };
        if wanted == point
            && self.armed.load(Ordering::Acquire)
            && self.hits.fetch_add(1, Ordering::AcqRel) + 1 == count
        {
            die();
        }
    }
}

/// As `kill -9` does: no destructor, no flush, no reply.
fn die() {
    let me = rustix::process::getpid();
    if let Err(error) = rustix::process::kill_process(me, rustix::process::Signal::KILL) {
        tracing::error!(%error, "could not end the process at its crash point");
    }
    loop {
        std::thread::park();
    }
}

impl FaultHook for CrashPlan {
    fn at(&self, point: FaultPoint) {
        self.reach(match point {
            FaultPoint::BeforeAppend => CrashPoint::BeforeAppend,
            FaultPoint::AfterAppend => CrashPoint::AfterAppend,
            FaultPoint::AfterFsync => CrashPoint::AfterFsync,
        });
    }
}
