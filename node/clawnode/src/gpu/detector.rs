//! Several drivers as one: asks them all, waits for none for ever, joins what they see.

use std::time::Instant;

use claw_proto::limits::{FINDINGS_PER_NODE_MAX, GPU_EVENTS_PER_MESSAGE_MAX};
use claw_proto::message::{GpuEvent, GpuMetrics};
use claw_proto::topology::{FindingCode, GpuDriver as GpuDriverKind, GpuHealth, GpuInfo, NodeFinding};
use tracing::warn;

use super::merge::{self, Sight};
use super::select::{self, GpuConfigError, GpuOptions};
use super::worker::{Answer, Ask, MakeDriver, Patience, Trouble, Worker};
use super::{Sampling, Seen};

/// The GPUs of the node now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Driver of the first GPU; `none` without any.
    pub driver: GpuDriverKind,
    /// All GPUs, in a stable order.
    pub gpus: Vec<GpuInfo>,
    /// What stands in the way of seeing or using them.
    pub findings: Vec<NodeFinding>,
}

/// A driver with what it saw last.
#[derive(Debug)]
struct Watched {
    worker: Worker,
    gpus: Vec<GpuInfo>,
    findings: Vec<NodeFinding>,
    failed_after_ms: u64,
}

/// Picks the drivers that the config names, and asks them.
#[derive(Debug)]
pub struct GpuDetector {
    drivers: Vec<Watched>,
    events: Vec<GpuEvent>,
    /// Driver of what was seen last.
    kind: GpuDriverKind,
}

impl GpuDetector {
    /// The detector for a configuration. No driver is touched yet.
    ///
    /// # Errors
    /// [`GpuConfigError`].
    pub fn new(options: GpuOptions) -> Result<Self, GpuConfigError> {
        let patience = options.patience;
        let drivers = select::drivers(options)?;
        Ok(Self::with(drivers, patience))
    }

    /// A detector of these drivers, the ones that win first.
    fn with(drivers: Vec<(GpuDriverKind, MakeDriver)>, patience: Patience) -> Self {
        let watch = |(kind, make)| Watched {
            worker: Worker::new(kind, make, patience),
            gpus: Vec::new(),
            findings: Vec::new(),
            failed_after_ms: patience.failed_after_ms,
        };
        let drivers = drivers.into_iter().map(watch).collect();
        Self { drivers, events: Vec::new(), kind: GpuDriverKind::None }
    }

    /// Driver of the first GPU that was seen; `none` without any.
    pub fn kind(&self) -> GpuDriverKind {
        self.kind
    }

    /// The GPUs that are there now. Takes as long as the slowest driver, at most
    /// its deadline; a driver that is known to hang is not waited for.
    pub fn detect(&mut self, uptime_ms: u64) -> Fleet {
        let from = Instant::now();
        for driver in &mut self.drivers {
            if let Some(Answer::Seen(seen, events)) = driver.worker.ask(Ask::Detect(uptime_ms)) {
                self.events.extend(driver.saw(seen, events));
            }
        }
        for driver in &mut self.drivers {
            match driver.worker.answer(from) {
                Ok(Some(Answer::Seen(seen, events))) => self.events.extend(driver.saw(seen, events)),
                // Its answer to something else: it is free again and will be asked in a moment.
                Ok(Some(Answer::Measured(_) | Answer::Over(_)) | None) | Err(_) => {}
            }
        }
        let sights: Vec<Sight> = self.drivers.iter().map(Watched::sight).collect();
        let gpus = merge::merge(&sights);
        let of_first = |sight: &&Sight| gpus.first().is_some_and(|gpu| sight.gpus.iter().any(|g| g.uuid == gpu.uuid));
        self.kind = sights.iter().find(of_first).map_or(GpuDriverKind::None, |sight| sight.kind);
        let findings = self.drivers.iter().flat_map(Watched::all_findings).take(FINDINGS_PER_NODE_MAX).collect();
        Fleet { driver: self.kind, gpus, findings }
    }

    /// Measures them. What does not answer in time is left out.
    pub fn measure(&mut self, sampling: &Sampling) -> Vec<GpuMetrics> {
        let from = Instant::now();
        for driver in &mut self.drivers {
            if let Some(Answer::Seen(seen, events)) = driver.worker.ask(Ask::Measure(sampling.clone())) {
                self.events.extend(driver.saw(seen, events));
            }
        }
        let mut measured: Vec<GpuMetrics> = Vec::new();
        for driver in &mut self.drivers {
            if let Ok(Some(Answer::Measured(gpus))) = driver.worker.answer(from) {
                // A GPU that two drivers see is measured by the first.
                let new = |gpu: &GpuMetrics| !measured.iter().any(|other| other.uuid == gpu.uuid);
                let gpus: Vec<GpuMetrics> = gpus.into_iter().filter(new).collect();
                measured.extend(gpus);
            }
        }
        measured
    }

    /// What happened to the GPUs since the last call, the oldest first.
    pub fn events(&mut self) -> Vec<GpuEvent> {
        let n_over = self.events.len().saturating_sub(GPU_EVENTS_PER_MESSAGE_MAX);
        if n_over > 0 {
            warn!(n_over, "more GPU events than one message holds; the oldest are dropped");
            self.events.drain(..n_over);
        }
        std::mem::take(&mut self.events)
    }
}

impl Watched {
    fn saw(&mut self, seen: Seen, events: Vec<GpuEvent>) -> Vec<GpuEvent> {
        let Seen { mut gpus, mut findings } = seen;
        findings.extend(merge::remember(&self.gpus, self.worker.kind(), &mut gpus));
        (self.gpus, self.findings) = (gpus, findings);
        events
    }

    /// What it sees; the GPUs of a driver that does not answer keep their identity.
    fn sight(&self) -> Sight {
        let kind = self.worker.kind();
        let mut gpus = self.gpus.clone();
        let (health, reason) = match self.worker.trouble() {
            None => return Sight { kind, gpus },
            Some(Trouble::Hung { silent_ms, .. }) if silent_ms < self.failed_after_ms => {
                (GpuHealth::Degraded, format!("the {kind} driver does not answer"))
            }
            Some(Trouble::Hung { .. }) => (GpuHealth::Failed, format!("the {kind} driver does not answer")),
            Some(Trouble::Failed { message }) => (GpuHealth::Degraded, format!("the {kind} driver failed: {message}")),
        };
        for gpu in &mut gpus {
            merge::at_least(gpu, health, &reason);
        }
        Sight { kind, gpus }
    }

    fn all_findings(&self) -> Vec<NodeFinding> {
        let trouble = self.worker.trouble().map(|trouble| {
            let (code, detail) = match trouble {
                Trouble::Hung { n_left, .. } => {
                    let detail = format!("a call has not come back; {n_left} thread(s) wait for it");
                    (FindingCode::DriverHung, detail)
                }
                Trouble::Failed { message } => (FindingCode::DriverFailed, message),
            };
            NodeFinding { code, subject: self.worker.kind().to_string(), detail }
        });
        trouble.into_iter().chain(self.findings.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
