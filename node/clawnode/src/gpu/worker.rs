//! One driver on a thread of its own.
//!
//! A driver can block for ever, and no thread can be ended from outside. So the
//! thread is asked and waited for with a deadline; if it does not answer it is left
//! alone, and its late answer is still taken. After a pause a new thread tries with
//! a driver made anew, and the process of the old one, where it has one, is killed
//! ([`Leash`]). Threads that were left behind are counted, and there are never more
//! than [`Patience::threads_max`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use claw_proto::message::{GpuEvent, GpuMetrics};
use claw_proto::topology::GpuDriver as GpuDriverKind;
use tracing::{debug, warn};

use super::leash::Leash;
use super::{GpuDriver, Sampling, Seen};

/// How long drivers are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the first answer of a new thread, milliseconds: a driver may have to wake its GPUs.
    pub first_ms: u64,
    /// For an answer, milliseconds.
    pub answer_ms: u64,
    /// A driver that is silent for so long has failed GPUs; before that they are degraded, milliseconds.
    pub failed_after_ms: u64,
    /// Before a new thread is tried, milliseconds; it doubles with each, until one has lasted so long.
    pub retry_ms: u64,
    /// Most threads of one driver, those that were left behind included.
    pub threads_max: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first_ms: 10_000, answer_ms: 5_000, failed_after_ms: 60_000, retry_ms: 30_000, threads_max: 4 }
    }
}

/// How to make a driver. It is made on its thread, since already that may hang. What
/// process it starts it puts on the leash.
pub type MakeDriver = Arc<dyn Fn(&Arc<Leash>) -> Box<dyn GpuDriver> + Send + Sync>;

/// What a driver's thread is asked.
#[derive(Debug, Clone)]
pub enum Ask {
    /// To look, at this uptime in milliseconds.
    Detect(u64),
    /// To measure.
    Measure(Sampling),
}

/// What it says.
#[derive(Debug)]
pub enum Answer {
    /// What it sees, and what happened since it looked last.
    Seen(Seen, Vec<GpuEvent>),
    /// What it measured.
    Measured(Vec<GpuMetrics>),
    /// It panicked or says that it is over, and so is the thread.
    Over(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The driver has been silent for so long, milliseconds.
    Hung {
        /// Since it was asked.
        silent_ms: u64,
        /// Threads that are left behind.
        n_left: usize,
    },
    /// It panicked, its process ended, or its thread could not be made.
    Failed {
        /// What it said.
        message: String,
    },
}

struct Thread {
    asks: SyncSender<Ask>,
    answers: Receiver<Answer>,
    /// Whether it has answered at all.
    proven: bool,
    since: Instant,
    leash: Arc<Leash>,
}

/// Nobody listens to it any more.
impl Drop for Thread {
    fn drop(&mut self) {
        self.leash.cut();
    }
}

/// A driver and the thread that talks to it.
pub struct Worker {
    kind: GpuDriverKind,
    make: MakeDriver,
    patience: Patience,
    thread: Option<Thread>,
    /// Threads that run, the current one included.
    n_threads: Arc<AtomicUsize>,
    asked_at: Option<Instant>,
    silent_since: Option<Instant>,
    failure: Option<String>,
    retry_at: Option<Instant>,
    retry_ms: u64,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("kind", &self.kind).field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl Worker {
    /// A driver that is made when it is first asked.
    pub fn new(kind: GpuDriverKind, make: MakeDriver, patience: Patience) -> Self {
        Self {
            kind,
            make,
            patience,
            thread: None,
            n_threads: Arc::new(AtomicUsize::new(0)),
            asked_at: None,
            silent_since: None,
            failure: None,
            retry_at: None,
            retry_ms: patience.retry_ms,
        }
    }

    /// Which driver it is.
    pub fn kind(&self) -> GpuDriverKind {
        self.kind
    }

    /// Asks, if the driver is free. An answer that came too late is given back.
    pub fn ask(&mut self, ask: Ask) -> Option<Answer> {
        let late = self.take_late();
        let now = Instant::now();
        let due = self.retry_at.is_none_or(|at| at <= now);
        if self.asked_at.is_some() || self.thread.is_none() {
            // Whoever is made anew looks first: nothing can be measured before.
            if !due || matches!(ask, Ask::Measure(_)) {
                return late;
            }
            self.renew(now);
        }
        if self.asked_at.is_none()
            && let Some(thread) = &self.thread
        {
            match thread.asks.try_send(ask) {
                Ok(()) => self.asked_at = Some(now),
                Err(error) => self.failed(format!("its thread takes no more work: {error}")),
            }
        }
        late
    }

    /// Waits for the answer to what was asked at `from`, as long as the driver may
    /// take. Who has been silent is not waited for again: its late answer comes
    /// with the next [`Worker::ask`].
    ///
    /// # Errors
    /// [`Trouble`] if there is none.
    pub fn answer(&mut self, from: Instant) -> Result<Option<Answer>, Trouble> {
        if let (Some(thread), Some(asked_at), None) = (&self.thread, self.asked_at, self.silent_since) {
            let wait_ms = if thread.proven { self.patience.answer_ms } else { self.patience.first_ms };
            let left = Duration::from_millis(wait_ms).saturating_sub(from.elapsed());
            match thread.answers.recv_timeout(left) {
                Ok(answer) => return self.answered(answer).map(Some),
                Err(RecvTimeoutError::Timeout) => self.fell_silent(asked_at),
                Err(RecvTimeoutError::Disconnected) => self.failed("its thread ended".to_owned()),
            }
        }
        match self.trouble() {
            Some(trouble) => Err(trouble),
            None => Ok(None),
        }
    }

    /// What is wrong with it now.
    pub fn trouble(&self) -> Option<Trouble> {
        if let Some(since) = self.silent_since {
            let silent_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Some(Trouble::Hung { silent_ms, n_left: self.n_threads.load(Ordering::Acquire) });
        }
        self.failure.clone().map(|message| Trouble::Failed { message })
    }

    fn fell_silent(&mut self, asked_at: Instant) {
        warn!(driver = %self.kind, "the GPU driver does not answer");
        self.silent_since = Some(asked_at);
        self.wait_for_retry();
    }

    fn failed(&mut self, message: String) {
        warn!(driver = %self.kind, message, "the GPU driver failed");
        (self.thread, self.asked_at, self.silent_since) = (None, None, None);
        self.failure = Some(message);
        self.wait_for_retry();
    }

    fn wait_for_retry(&mut self) {
        self.retry_at = Some(Instant::now() + Duration::from_millis(self.retry_ms));
        self.retry_ms = self.retry_ms.saturating_mul(2).min(self.patience.retry_ms.saturating_mul(32));
    }

    fn answered(&mut self, answer: Answer) -> Result<Answer, Trouble> {
        self.asked_at = None;
        if let Answer::Over(message) = answer {
            self.failed(message.clone());
            return Err(self.trouble().unwrap_or(Trouble::Failed { message }));
        }
        let (silent, failure) = (self.silent_since.take(), self.failure.take());
        if silent.is_some() || failure.is_some() {
            warn!(driver = %self.kind, "the GPU driver answers again");
        }
        self.retry_at = None;
        if let Some(thread) = &mut self.thread {
            thread.proven = true;
            // One that answers and is over again and again is not tried again at once each time.
            if thread.since.elapsed() >= Duration::from_millis(self.retry_ms) {
                self.retry_ms = self.patience.retry_ms;
            }
        }
        Ok(answer)
    }

    /// The answer of a thread that had been silent.
    fn take_late(&mut self) -> Option<Answer> {
        self.asked_at?;
        match self.thread.as_ref()?.answers.try_recv() {
            Ok(answer) => self.answered(answer).ok(),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.failed("its thread ended".to_owned());
                None
            }
        }
    }

    /// Leaves a silent thread behind and starts another, if there may be one more.
    fn renew(&mut self, now: Instant) {
        // A process that is killed answers nothing: its end is no news of a driver that has been silent.
        if self.thread.as_ref().is_some_and(|thread| thread.leash.cut()) {
            (self.thread, self.asked_at) = (None, None);
        }
        if self.n_threads.load(Ordering::Acquire) >= self.patience.threads_max {
            self.retry_at = Some(now + Duration::from_millis(self.retry_ms));
            return;
        }
        (self.thread, self.asked_at) = (None, None);
        if self.silent_since.is_some() {
            self.wait_for_retry();
        }
        let (asks, asked) = sync_channel(1);
        let (answering, answers) = sync_channel(1);
        let (make, count) = (Arc::clone(&self.make), Running::new(&self.n_threads));
        let leash = Arc::new(Leash::default());
        let held = Arc::clone(&leash);
        let name = format!("gpu-{}", self.kind);
        let work = move || serve(|| make(&held), &asked, &answering, count);
        match std::thread::Builder::new().name(name).spawn(work) {
            Ok(_) => self.thread = Some(Thread { asks, answers, proven: false, since: now, leash }),
            Err(error) => self.failed(format!("no thread: {error}")),
        }
    }
}

/// Counts a thread as long as it runs.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve(
    make: impl Fn() -> Box<dyn GpuDriver>,
    asked: &Receiver<Ask>,
    answering: &SyncSender<Answer>,
    running: Running,
) {
    let mut driver = None;
    while let Ok(ask) = asked.recv() {
        let work = AssertUnwindSafe(|| {
            let driver = driver.get_or_insert_with(&make);
            let answer = match ask {
                Ask::Detect(uptime_ms) => {
                    let seen = driver.detect(uptime_ms);
                    Answer::Seen(seen, driver.events())
                }
                Ask::Measure(sampling) => Answer::Measured(driver.measure(&sampling)),
            };
            driver.over().map_or(answer, Answer::Over)
        });
        let panicked = |panic: &(dyn Any + Send)| Answer::Over(format!("it panicked: {}", message_of(panic)));
        let answer = catch_unwind(work).unwrap_or_else(|panic| panicked(panic.as_ref()));
        let over = matches!(answer, Answer::Over(_));
        if answering.send(answer).is_err() || over {
            debug!("a GPU driver's thread ends: nobody listens any more, or the driver is over");
            break;
        }
    }
    // A broken driver may also panic when it is dropped.
    if catch_unwind(AssertUnwindSafe(|| drop(driver))).is_err() {
        debug!("a GPU driver panicked while it was dropped");
    }
    drop(running);
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
