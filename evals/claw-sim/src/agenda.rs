//! Virtual time: what happens when, and what every part may use.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use claw_proto::message::{Envelope, GatewayMessage, NodeMessage};
use claw_proto::time::Timestamp;
use claw_tools::refusal::Refusal;
use clawnode::node::RuntimeEvent;

use crate::execution::Key;
use crate::rng::Rng;
use crate::{Broken, Sabotage};

/// The wall clock when a round begins, milliseconds since the Unix epoch.
const WALL_MS_AT_START: i64 = 1_772_366_400_000;

/// What travels on a connection.
#[derive(Debug, Clone)]
pub(crate) enum Payload<M> {
    /// One frame.
    Frame(Box<Envelope<M>>),
    /// The other side has closed.
    Close,
}

/// One thing that happens at an instant. `run` and `boot` name the life of a
/// process or machine that it belongs to: what was meant for an earlier life
/// happens to nobody.
#[derive(Debug)]
pub(crate) enum Happening {
    GatewayStart,
    GatewayCrash,
    GatewaySecond {
        run: u32,
    },
    Synced {
        run: u32,
    },
    Orders {
        conn: u32,
    },
    SetAgain {
        conn: u32,
    },
    LaneRetry {
        conn: u32,
    },
    Beat {
        conn: u32,
    },
    ToGateway {
        conn: u32,
        payload: Payload<NodeMessage>,
    },
    ToNode {
        conn: u32,
        payload: Payload<GatewayMessage>,
    },
    /// The gateway's side of a broken connection notices.
    GatewayNotices {
        conn: u32,
    },
    /// The node's side does.
    NodeNotices {
        conn: u32,
    },
    Connect {
        machine: usize,
        run: u32,
    },
    Wake {
        machine: usize,
        run: u32,
    },
    Written {
        machine: usize,
        run: u32,
    },
    DiskRetry {
        machine: usize,
        run: u32,
    },
    Prepare {
        machine: usize,
        run: u32,
        key: Key,
    },
    Begin {
        machine: usize,
        boot: u32,
        key: Key,
    },
    Due {
        machine: usize,
        boot: u32,
        key: Key,
    },
    /// A virtual program writes a checkpoint, by itself or as it was told to.
    Checkpoint {
        machine: usize,
        boot: u32,
        key: Key,
        answers_notice: bool,
    },
    Told {
        machine: usize,
        run: u32,
        event: RuntimeEvent,
    },
    AgentStart {
        machine: usize,
    },
    MachineStart {
        machine: usize,
    },
    Fault(usize),
    Heal {
        machine: usize,
        number: u32,
        reset: bool,
    },
    Wish(usize),
    Ask {
        request: usize,
    },
    Patience {
        request: usize,
        tries: u32,
    },
    Answer {
        request: usize,
        answer: Box<Result<claw_tools::outcome::Outcome, Refusal>>,
    },
}

#[derive(Debug)]
struct Entry {
    at_ms: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest: a heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.order).cmp(&(self.at_ms, self.order))
    }
}

/// Counts over a round, to see that what is meant to happen does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Happenings.
    pub happenings: u64,
    /// Events in the journal at the end.
    pub events: u64,
    /// Workloads submitted.
    pub workloads: u64,
    /// Virtual processes that began.
    pub started: u64,
    /// Attempts that a supervisor or agent ended for the partition lease.
    pub lease_ends: u64,
    /// Attempts that the gateway gave up because the lease had run out.
    pub given_up: u64,
    /// Workloads that went on through a partition and were taken back.
    pub adopted: u64,
    /// Deaths of the gateway.
    pub gateway_crashes: u64,
    /// Deaths of agents.
    pub agent_crashes: u64,
    /// Deaths of machines.
    pub machine_crashes: u64,
    /// Commits that the journal did not take.
    pub journal_failures: u64,
    /// Checkpoints that the gateway heard of.
    pub checkpoints: u64,
    /// Programs that were told to write one before they were stopped.
    pub notices: u64,
    /// Of these, programs that answered in time.
    pub notices_answered: u64,
    /// Answers that callers got.
    pub answers: u64,
    /// Of these, answers to a repeated request.
    pub replays: u64,
    /// Refusals that callers got.
    pub refusals: u64,
}

impl Counts {
    /// Adds another round's.
    pub fn add(&mut self, other: &Self) {
        self.happenings += other.happenings;
        self.events += other.events;
        self.workloads += other.workloads;
        self.started += other.started;
        self.lease_ends += other.lease_ends;
        self.given_up += other.given_up;
        self.adopted += other.adopted;
        self.gateway_crashes += other.gateway_crashes;
        self.agent_crashes += other.agent_crashes;
        self.machine_crashes += other.machine_crashes;
        self.journal_failures += other.journal_failures;
        self.checkpoints += other.checkpoints;
        self.notices += other.notices;
        self.notices_answered += other.notices_answered;
        self.answers += other.answers;
        self.replays += other.replays;
        self.refusals += other.refusals;
    }
}

/// Time, chance and the verdict of one round.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// True time since the round began, milliseconds.
    pub(crate) now_ms: u64,
    pub(crate) rng: Rng,
    queue: BinaryHeap<Entry>,
    order: u64,
    trace: Option<Vec<String>>,
    broken: Option<Broken>,
    pub(crate) sabotage: Option<Sabotage>,
    /// Frames go through the codec, events through JSON, restarts through snapshots.
    pub(crate) thorough: bool,
    /// Frames of a connection may be doubled and overtake each other.
    pub(crate) unordered: bool,
    /// No more faults: from here on everything must come right.
    pub(crate) calm: bool,
    /// Per machine: until when its way to the gateway was last disturbed.
    pub(crate) trouble_until_ms: Vec<u64>,
    pub(crate) counts: Counts,
}

impl Ctx {
    pub(crate) fn new(rng: Rng, n_machines: usize, sabotage: Option<Sabotage>, trace: bool) -> Self {
        Self {
            now_ms: 0,
            rng,
            queue: BinaryHeap::new(),
            order: 0,
            trace: trace.then(Vec::new),
            broken: None,
            sabotage,
            thorough: false,
            unordered: false,
            calm: false,
            trouble_until_ms: vec![0; n_machines],
            counts: Counts::default(),
        }
    }

    /// The gateway's clock, which is true time here.
    pub(crate) fn wall(&self) -> Timestamp {
        wall_at(self.now_ms)
    }

    pub(crate) fn at(&mut self, at_ms: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Entry { at_ms: at_ms.max(self.now_ms), order: self.order, what });
    }

    pub(crate) fn after(&mut self, delay_ms: u64, what: Happening) {
        self.at(self.now_ms + delay_ms, what);
    }

    /// The next happening not later than `until_ms`; moves time on.
    pub(crate) fn next(&mut self, until_ms: u64) -> Option<Happening> {
        if self.broken.is_some() || self.queue.peek().is_none_or(|entry| entry.at_ms > until_ms) {
            return None;
        }
        let entry = self.queue.pop()?;
        self.now_ms = entry.at_ms;
        self.counts.happenings += 1;
        Some(entry.what)
    }

    /// A line of the readable trace; costs nothing when nobody reads.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let seconds = self.now_ms / 1_000;
            trace.push(format!("{seconds:>5}.{:03}  {}", self.now_ms % 1_000, line()));
        }
    }

    pub(crate) const fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// The round has failed; the first reason counts.
    pub(crate) fn fail(&mut self, oracle: &'static str, detail: impl Into<String>) {
        let detail = detail.into();
        self.note(|| format!("BROKEN {oracle}: {detail}"));
        if self.broken.is_none() {
            self.broken = Some(Broken { oracle, detail, at_ms: self.now_ms });
        }
    }

    pub(crate) const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// The way between a machine and the gateway is disturbed until then.
    pub(crate) fn disturb(&mut self, machine: usize, until_ms: u64) {
        self.trouble_until_ms[machine] = self.trouble_until_ms[machine].max(until_ms);
    }

    pub(crate) fn disturb_all(&mut self, until_ms: u64) {
        for machine in 0..self.trouble_until_ms.len() {
            self.disturb(machine, until_ms);
        }
    }

    pub(crate) fn into_verdict(self) -> (Option<Broken>, Counts, Vec<String>) {
        (self.broken, self.counts, self.trace.unwrap_or_default())
    }
}

/// True time as a timestamp.
pub(crate) fn wall_at(at_ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(WALL_MS_AT_START.saturating_add(i64::try_from(at_ms).unwrap_or(i64::MAX)))
}

/// Timestamp of the gateway's clock as true time.
pub(crate) fn since_start(at: Timestamp) -> u64 {
    u64::try_from(at.unix_ms() - WALL_MS_AT_START).unwrap_or(0)
}
