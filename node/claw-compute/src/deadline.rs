//! A driver can block for ever, and then there is nothing left but to say so and leave.
//!
//! By a timer and its signal. A second thread would not do: a driver that hangs while it
//! is being opened holds the dynamic linker's lock, and both a thread's first use of its
//! storage and the regular end of a process wait for that lock.
#![expect(unsafe_code, reason = "timers, signals and leaving at once have no safe interface")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claw_compute::report::{Document, ErrorCode, Outcome, ProbeError};

/// What is said when time is up, and where.
static LAST_WORDS: OnceLock<(i32, Vec<u8>)> = OnceLock::new();
/// Whether somebody has begun to say the one document.
static SAID: AtomicBool = AtomicBool::new(false);

/// From now on the process ends at the deadline, with [`ErrorCode::Timeout`] on `output`.
///
/// # Errors
/// What the system says.
pub(crate) fn start(timeout: Duration, output: &File) -> io::Result<()> {
    let message = format!("a driver did not come back within {} ms", timeout.as_millis());
    let document = Document::new(Outcome::Error(ProbeError::new(ErrorCode::Timeout, message)));
    let mut text = serde_json::to_vec(&document)?;
    text.push(b'\n');
    let _ = LAST_WORDS.set((output.as_raw_fd(), text));
    let handler: extern "C" fn(libc::c_int) = time_is_up;
    // SAFETY: the handler only loads statics that are set, and calls what may be called in a handler.
    if unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(i32::try_from(timeout.subsec_micros()).unwrap_or(999_999)),
    };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: the timer is a value of ours; the old one is not asked for.
    if unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The answer is there. If time was up a moment before, this does not return.
pub(crate) fn end() {
    while SAID.swap(true, Ordering::AcqRel) {
        std::thread::park();
    }
}

extern "C" fn time_is_up(_signal: libc::c_int) {
    if SAID.swap(true, Ordering::AcqRel) {
        return;
    }
    if let Some((output, text)) = LAST_WORDS.get() {
        // SAFETY: both calls are allowed in a handler; the text lives as long as the process.
        unsafe { libc::write(*output, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: it does not return, and runs nothing of a driver's.
    unsafe { libc::_exit(i32::from(ErrorCode::Timeout.exit_code())) }
}
