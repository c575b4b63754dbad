//! Decisions of the gateway, checked by their events alone: the events are the certificate.
//!
//! [`Auditor`] keeps books of its own, of nodes, GPUs, claims and what runs, and
//! shares no code with whoever decided. It has two parts. `certificate`, of less than three
//! hundred lines with the quotas that it counts, accepts a decision only if each gang is complete, no GPU
//! has two users, no quota is exceeded, and nothing that is kept for somebody is taken or put off.
//! `rules` looks at all else: work goes where its specification allows, on GPUs that are there, healthy and
//! as it asks, within the node's cores, memory and disk, behind no closed gate, apart from whom it is to be
//! kept apart, not on a node that is kept for another tenant; and nobody is stopped for others who did not
//! agree to it, is not less important, was stopped too often, or has had neither its grace nor said that its
//! checkpoint is written. The seeded simulation and the property tests run it on every decision, and so do
//! debug builds of the gateway.

mod certificate;
mod notices;
mod quotas;
mod rules;

use claw_proto::ids::{GpuUuid, NodeId, WorkloadId};

use self::certificate::Certificate;
use self::rules::Rules;
use crate::event::EventRecord;

/// Why a decision is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Wrong {
    /// Nobody submitted it, or it has ended.
    #[error("{0} is placed and does not wait")]
    DoesNotWait(WorkloadId),
    /// The node is unknown, not heard from, or takes no work.
    #[error("{0} goes to {1}, which takes no work")]
    NoSuchNode(WorkloadId, NodeId),
    /// The specification names another node, zone or label.
    #[error("{0} goes to {1}, where its specification does not let it")]
    NotAllowed(WorkloadId, NodeId),
    /// A gate of it is closed.
    #[error("{0} is placed although a gate of it is closed")]
    Gated(WorkloadId),
    /// Work is there or near from which one of the two was to be kept apart.
    #[error("{0} is placed and not kept apart from {1}")]
    NotKeptApart(WorkloadId, WorkloadId),
    /// The node has no such GPU to give, or it is not healthy.
    #[error("{0} gets {1}, which is not there to give")]
    NoSuchGpu(WorkloadId, GpuUuid),
    /// More or fewer GPUs than it asks for, one of them twice, or others than it asks for.
    #[error("{0} gets other GPUs than it asks for")]
    OtherGpus(WorkloadId),
    /// The GPU has a user already, or less of it is left than a share needs.
    #[error("{0} gets {1}, which has a user")]
    DoubleBooked(WorkloadId, GpuUuid),
    /// Its cores, memory or disk do not suffice.
    #[error("{0} goes to {1}, which has no room for it")]
    Overcommitted(WorkloadId, NodeId),
    /// Its tenant, or one that this is a part of, has what it may have.
    #[error("{0} is placed beyond what {1} may hold")]
    OverQuota(WorkloadId, String),
    /// The node is kept for another tenant.
    #[error("{0} goes to {1}, which is kept for another tenant")]
    Reserved(WorkloadId, NodeId),
    /// Parts are missing, stand on one node, or are counted wrongly.
    #[error("{0} is not placed as a whole")]
    GangIncomplete(WorkloadId),
    /// The room is kept for work that comes before it.
    #[error("{0} takes room that is kept for {1}")]
    RoomTaken(WorkloadId, WorkloadId),
    /// Nobody needs its room, or it did not agree, or it is not less important.
    #[error("{0} is stopped for others without right")]
    StoppedWithoutRight(WorkloadId),
    /// It was stopped for others too often within a day.
    #[error("{0} is stopped for others too often")]
    StoppedTooOften(WorkloadId),
    /// It is stopped for others before it said that its checkpoint is written, and before its grace is over.
    #[error("{0} is stopped for others before its answer and its grace")]
    StoppedTooEarly(WorkloadId),
    /// It tells of its checkpoints, and is stopped for others without being told to write one.
    #[error("{0} is stopped for others without notice")]
    NotNoticed(WorkloadId),
    /// What is kept for it would begin later than it was told, though it was not given up.
    #[error("the start that is kept for {0} is put off")]
    StartPutOff(WorkloadId),
    /// Something runs there.
    #[error("{0} is removed while work runs there")]
    NodeInUse(NodeId),
}

/// The books. After a decision that is wrong they are of no more use.
#[derive(Debug, Clone, Default)]
pub struct Auditor {
    certificate: Certificate,
    rules: Rules,
}

/// Journaled events by the decisions that they are of: all that one decision says has one time and one cause. Two
/// decisions of one caller within a millisecond are not told apart.
pub fn decisions(records: &[EventRecord]) -> impl Iterator<Item = &[EventRecord]> {
    records.chunk_by(|a, b| (a.at, &a.principal) == (b.at, &b.principal))
}

impl Auditor {
    /// Empty books of a fleet where nobody is stopped for others more often than so in a day.
    pub fn new(per_day_max: usize) -> Self {
        Self { certificate: Certificate::default(), rules: Rules::new(per_day_max) }
    }

    /// Takes the events of one decision into the books.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&mut self, decision: &[EventRecord]) -> Result<(), Wrong> {
        for record in decision {
            self.certificate.clock = self.certificate.clock.max(record.at);
            self.rules.before(record, &self.certificate)?;
            self.certificate.event(record)?;
            self.rules.after(record, &self.certificate)?;
        }
        self.rules.decided();
        self.certificate.decided()
    }
}
