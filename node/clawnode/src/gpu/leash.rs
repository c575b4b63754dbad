//! A process that a driver works through, held by the driver and by who waits for it.
//!
//! The driver's thread talks to the process and may be blocked by it for ever. Who gives
//! up on that thread [cuts](Leash::cut) the leash: the process is killed, its pipes end,
//! and with them the wait. A process that even then does not go (it waits in the kernel)
//! keeps the thread, so that it counts among those that were left behind.

use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a process may take to end by itself once its pipes have ended.
const GRACE: Duration = Duration::from_millis(500);
/// How often its end is looked for then.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) status: ExitStatus,
    /// It had to be killed: the status says no more than that.
    pub(super) was_killed: bool,
}

/// What holds the process of one driver, if it has one.
#[derive(Debug, Default)]
pub struct Leash(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    child: Option<Child>,
    cut: bool,
}

impl Leash {
    /// Takes a process that was started. If the leash is cut already, it is killed.
    pub(super) fn hold(&self, mut child: Child) {
        let mut held = self.held();
        if held.cut {
            kill(&mut child);
        }
        held.child = Some(child);
    }

    /// Kills the process, and whatever is held from now on. Waits for nothing. Whether there was one.
    pub(super) fn cut(&self) -> bool {
        let mut held = self.held();
        held.cut = true;
        held.child.iter_mut().for_each(kill);
        held.child.is_some()
    }

    /// Waits until the process is gone and tells how it ended; nothing if none is held.
    /// One that does not end by itself is killed after half a second; after that this
    /// waits as long as the kernel takes.
    pub(super) fn end(&self) -> Option<End> {
        let (from, mut was_killed) = (Instant::now(), false);
        loop {
            let ended = self.held().child.as_mut()?.try_wait();
            match ended {
                Ok(None) => {}
                Ok(Some(status)) => {
                    let mut held = self.held();
                    held.child = None;
                    return Some(End { status, was_killed: was_killed || held.cut });
                }
                // Somebody else has waited for it: it is gone, and nothing is known.
                Err(_) => {
                    self.held().child = None;
                    return None;
                }
            }
            if !was_killed && from.elapsed() >= GRACE {
                was_killed = true;
                self.held().child.iter_mut().for_each(kill);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It fails only on one that is gone.
fn kill(child: &mut Child) {
    let _ = child.kill();
}
