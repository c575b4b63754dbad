//! The gateway's shell in miniature: the real core, a journal that takes its
//! time and may fail, effects and answers after durability, and links that
//! behave as the server's do.

mod commit;
mod links;
mod orders;

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_gateway::audit::Auditor;
use claw_gateway::event::EVENT_VERSION;
use claw_gateway::policy::Policy;
use claw_gateway::{Caller, Cluster, Command, EventRecord};
use claw_proto::ids::{IdSource, NodeId, time_ordered_bits};

use crate::agenda::{Ctx, Happening};
use crate::net::Net;
use crate::rng::Rng;
pub(crate) use commit::CrashPoint;
use commit::{Batch, ReplyTo, Submission};
use links::{Registration, Session, Slot};

/// The ids that the server would make: time-ordered, random, rising.
#[derive(Debug)]
pub(crate) struct SimIds {
    rng: Rng,
    now_ms: i64,
    last: u128,
}

impl IdSource for SimIds {
    fn next_bits(&mut self) -> u128 {
        let bits = time_ordered_bits(self.now_ms, self.rng.wide());
        self.last = if bits > self.last { bits } else { self.last + 1 };
        self.last
    }
}

/// The disk, and the process that owns it, if one runs.
#[derive(Debug)]
pub(crate) struct SimGateway {
    pub(crate) journal: Journal,
    /// Has looked at every decision that is on disk.
    auditor: Auditor,
    epoch: u64,
    policy: Arc<Policy>,
    pub(crate) process: Option<Box<Process>>,
    run: u32,
    /// The journal takes nothing until then.
    pub(crate) fails_until_ms: u64,
    /// Only what nodes report is taken until then.
    pub(crate) reserve_until_ms: u64,
    /// Dies at this point of the next commit with a caller's mutation.
    pub(crate) crash_at: Option<CrashPoint>,
    /// The durable state of the process that died last.
    expected: Option<Cluster>,
}

/// Durable events.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    records: Vec<EventRecord>,
    /// The same as they stand on disk; kept in thorough rounds.
    json: Vec<Vec<u8>>,
    /// A snapshot of some earlier state.
    snapshot: Option<Vec<u8>>,
}

/// What dies with the process.
#[derive(Debug)]
pub(crate) struct Process {
    live: Cluster,
    pub(crate) durable: Cluster,
    ids: SimIds,
    inbox: Vec<Submission>,
    committing: Option<Batch>,
    sessions: BTreeMap<u32, Session>,
    slots: BTreeMap<NodeId, Slot>,
    /// A judgment on silence is on its way to the core.
    judging: bool,
    after_judgment: Vec<Registration>,
    /// Registrations on their way to the core.
    registering: u32,
    started_ms: u64,
    pub(crate) ready: bool,
    writable: bool,
}

impl Journal {
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn records(&self) -> &[EventRecord] {
        &self.records
    }

    fn extend(&mut self, ctx: &mut Ctx, records: Vec<EventRecord>) {
        if ctx.thorough {
            for record in &records {
                let bytes = record.to_json();
                match EventRecord::from_json(EVENT_VERSION, &bytes) {
                    Ok(read) if read == *record => {}
                    Ok(_) | Err(_) => {
                        ctx.fail("J1_events_survive_the_journal", String::from_utf8_lossy(&bytes));
                    }
                }
                self.json.push(bytes);
            }
        }
        self.records.extend(records);
    }

    /// The state, from all events; in thorough rounds from their text, and from
    /// a snapshot and the events after it, which must be the same.
    fn fold(&self, ctx: &mut Ctx, policy: &Arc<Policy>) -> Cluster {
        let mut folded = Cluster::new(Arc::clone(policy));
        for record in &self.records {
            folded.apply(record);
        }
        if let Some(bytes) = self.snapshot.as_ref().filter(|_| ctx.thorough) {
            match Cluster::from_snapshot(claw_gateway::cluster::SNAPSHOT_FORMAT, bytes, Arc::clone(policy)) {
                Ok(mut resumed) => {
                    let from = usize::try_from(resumed.seq).unwrap_or(usize::MAX);
                    for json in self.json.iter().skip(from) {
                        match EventRecord::from_json(EVENT_VERSION, json) {
                            Ok(record) => resumed.apply(&record),
                            Err(error) => ctx.fail("J1_events_survive_the_journal", error.to_string()),
                        }
                    }
                    if let Some(what) = difference(&folded, &resumed) {
                        ctx.fail("J3_snapshot_and_tail_equal_all_events", what);
                    }
                }
                Err(error) => ctx.fail("J3_snapshot_and_tail_equal_all_events", error.to_string()),
            }
        }
        folded
    }
}

/// What differs between two states that should be the same.
pub(crate) fn difference(a: &Cluster, b: &Cluster) -> Option<String> {
    let same = [
        ("seq", a.seq == b.seq),
        ("revision", a.revision == b.revision),
        ("epoch", a.epoch == b.epoch),
        ("nodes", a.nodes == b.nodes),
        ("workloads", a.workloads == b.workloads),
        ("operations", a.operations == b.operations),
        ("open_by_workload", a.open_by_workload == b.open_by_workload),
        ("open_by_node", a.open_by_node == b.open_by_node),
        ("plans", a.plans == b.plans),
        ("approvals", a.approvals == b.approvals),
        ("keys", a.keys == b.keys),
        ("tokens", a.tokens == b.tokens),
        ("receipts", a.receipts == b.receipts),
        ("receipts_by_time", a.receipts_by_time == b.receipts_by_time),
        ("mass_loss", a.mass_loss == b.mass_loss),
    ];
    same.iter().find(|(_, same)| !same).map(|(what, _)| format!("{what} differ"))
}

/// Takes a decision into the auditor's books.
fn audited(ctx: &mut Ctx, auditor: &mut Auditor, decision: &[EventRecord]) {
    if let Err(wrong) = auditor.check(decision) {
        ctx.fail("C1_every_decision_is_accepted", wrong.to_string());
    }
}

impl SimGateway {
    /// A gateway that is not running yet, with this much on disk.
    pub(crate) fn new(records: Vec<EventRecord>, policy: Policy, ctx: &mut Ctx) -> Self {
        let mut auditor = Auditor::new(policy.preemption.per_day_max);
        audited(ctx, &mut auditor, &records);
        let mut journal = Journal::default();
        journal.extend(ctx, records);
        Self {
            journal,
            auditor,
            epoch: 0,
            policy: Arc::new(policy),
            process: None,
            run: 0,
            fails_until_ms: 0,
            reserve_until_ms: 0,
            crash_at: None,
            expected: None,
        }
    }

    /// It runs and answers.
    pub(crate) fn is_up(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.ready)
    }

    /// The durable state that readers see.
    pub(crate) fn durable(&self) -> Option<&Cluster> {
        self.process.as_ref().map(|process| &process.durable)
    }

    /// Everything on disk, folded.
    pub(crate) fn folded(&self, ctx: &mut Ctx) -> Cluster {
        self.journal.fold(ctx, &self.policy)
    }

    /// Starts: folds the journal, raises the epoch, goes on.
    pub(crate) fn start(&mut self, ctx: &mut Ctx, net: &mut Net) {
        if self.process.is_some() {
            return;
        }
        let state = self.folded(ctx);
        if let Some(expected) = self.expected.take()
            && let Some(what) = difference(&expected, &state)
        {
            ctx.fail("J2_a_restart_finds_the_durable_state", what);
        }
        self.epoch += 1;
        self.run += 1;
        let (epoch, seed) = (self.epoch, ctx.rng.next());
        ctx.note(|| format!("GATEWAY starts, epoch {epoch}, {} events", state.seq));
        self.process = Some(Box::new(Process {
            live: state.clone(),
            durable: state,
            ids: SimIds { rng: Rng::new(seed), now_ms: 0, last: 0 },
            inbox: Vec::new(),
            committing: None,
            sessions: BTreeMap::new(),
            slots: BTreeMap::new(),
            judging: false,
            after_judgment: Vec::new(),
            registering: 0,
            started_ms: ctx.now_ms,
            ready: false,
            writable: true,
        }));
        let caller = Caller::system(ctx.wall());
        self.submit(ctx, net, Command::GatewayStarted { epoch: self.epoch }, caller, ReplyTo::Started);
    }

    /// `kill -9`: what was not durable never was.
    pub(crate) fn crash(&mut self, ctx: &mut Ctx, net: &mut Net) {
        let Some(process) = self.process.take() else {
            return;
        };
        ctx.counts.gateway_crashes += 1;
        let lost = process.live.seq - process.durable.seq;
        ctx.note(|| format!("GATEWAY dies; {lost} events were not durable"));
        self.expected = Some(self.on_disk(&process));
        // A dead process closes its sockets; a dead machine does not.
        let machine_too = ctx.rng.chance(300);
        for conn in process.sessions.keys() {
            if machine_too {
                net.conn_mut(*conn).gateway_open = false;
                net.cut(ctx, *conn, 12_000);
            } else {
                net.close_gateway(ctx, *conn);
            }
        }
        let down_ms = ctx.rng.pick(&[50, 500, 2_000, 8_000, 20_000]);
        ctx.disturb_all(ctx.now_ms + down_ms + 15_000);
        ctx.after(down_ms, Happening::GatewayStart);
    }

    /// The state that the disk shows: the process may have died between the
    /// write and its own notice of it.
    fn on_disk(&self, process: &Process) -> Cluster {
        let mut state = process.durable.clone();
        let from = usize::try_from(state.seq).unwrap_or(usize::MAX);
        for record in self.journal.records.iter().skip(from) {
            state.apply(record);
        }
        state
    }

    /// Once a second: time passes for the core, and silence is looked for.
    pub(crate) fn second(&mut self, ctx: &mut Ctx, net: &mut Net, run: u32) {
        if run != self.run || self.process.is_none() {
            return;
        }
        ctx.after(1_000, Happening::GatewaySecond { run });
        self.submit(ctx, net, Command::Tick, Caller::system(ctx.wall()), ReplyTo::Nobody);
        self.watch_silence(ctx, net);
        let due = ctx.thorough && ctx.rng.chance(30);
        if let Some(process) = self.process.as_ref().filter(|_| due) {
            self.journal.snapshot = Some(process.durable.to_snapshot());
        }
    }
}
