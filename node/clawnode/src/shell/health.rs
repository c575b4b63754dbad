//! What the node tells of its own health: GPUs, findings, GPU events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use claw_proto::ids::GpuUuid;
use claw_proto::limits::{FINDINGS_PER_NODE_MAX, GPU_EVENTS_PER_MESSAGE_MAX};
use claw_proto::message::{GpuEvent, NodeMessage};
use claw_proto::topology::{GpuHealth, NodeFinding};
use tracing::warn;

use super::Agent;
use crate::clock;
use crate::gpu::{Fleet, OwnerOf, owner, vulkan};
use crate::node::Input;

/// Where the kernel shows its processes.
const PROC_ROOT: &str = "/proc";

/// Who finds something wrong with the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finder {
    /// The GPU drivers.
    Gpus,
    /// The runtimes.
    Runtimes,
    /// Whoever renews the certificate.
    Certificate,
    /// Whoever reads the kernel's log.
    Kernel,
}

/// What is wrong, by who found it; each replaces its own findings only.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<Finder, Vec<NodeFinding>>);

impl Findings {
    pub(super) fn of_gpus(findings: Vec<NodeFinding>) -> Self {
        Self(BTreeMap::from([(Finder::Gpus, findings)]))
    }

    pub(super) fn set(&mut self, finder: Finder, findings: Vec<NodeFinding>) {
        self.0.insert(finder, findings);
    }

    pub(super) fn all(&self) -> Vec<NodeFinding> {
        self.0.values().flatten().take(FINDINGS_PER_NODE_MAX).cloned().collect()
    }
}

/// GPU events that wait for a registered connection; the newest are kept.
#[derive(Debug, Default)]
pub(super) struct EventQueue(VecDeque<GpuEvent>);

impl Agent {
    pub(super) fn set_gpus(&mut self, fleet: Fleet) {
        let Fleet { driver, mut gpus, findings } = fleet;
        self.share_caps.mark(driver, &mut gpus, &self.node.attempts().collect::<Vec<_>>());
        for finding in findings.iter().filter(|finding| !self.capabilities.findings.contains(finding)) {
            warn!(code = %finding.code, subject = finding.subject, detail = finding.detail, "GPU finding");
        }
        self.findings.set(Finder::Gpus, findings);
        let mut new = self.capabilities.clone();
        if new.gpus != gpus {
            for gpu in gpus.iter().filter(|gpu| gpu.health == GpuHealth::Failed) {
                self.each_runtime(|runtime| runtime.gpu_failed(&gpu.uuid));
            }
        }
        new.simulated |= gpus.iter().any(vulkan::is_software);
        (new.gpu_driver, new.gpus) = (driver, gpus);
        self.set_capabilities(new);
    }

    pub(super) fn add_gpu_events(&mut self, events: Vec<GpuEvent>) {
        if events.is_empty() {
            return;
        }
        for event in &events {
            warn!(gpu = %event.uuid, kind = %event.kind, code = event.code, detail = event.detail, "GPU event");
        }
        let queue = &mut self.gpu_events.0;
        queue.extend(events);
        let n_over = queue.len().saturating_sub(GPU_EVENTS_PER_MESSAGE_MAX);
        if n_over > 0 {
            warn!(n_over, "GPU events that nobody took are dropped, the oldest first");
            queue.drain(..n_over);
        }
        self.send_gpu_events();
    }

    /// Sends what waits, if the gateway has taken the node in.
    pub(super) fn send_gpu_events(&mut self) {
        if self.gpu_events.0.is_empty() || !self.node.is_registered() {
            return;
        }
        let events: Vec<GpuEvent> = self.gpu_events.0.drain(..).collect();
        let message = Box::new(NodeMessage::GpuEvents { events });
        self.feed(Input::Say { now: clock::now(), message });
    }

    /// GPUs that workloads hold, and who among those workloads owns a process.
    pub(super) fn gpu_holders(&self) -> (BTreeSet<GpuUuid>, OwnerOf) {
        let held: Vec<_> = self.node.held_gpus().map(|(gpu, workload)| (gpu.clone(), workload)).collect();
        let workloads = held.iter().map(|(_, workload)| *workload).collect();
        (held.into_iter().map(|(gpu, _)| gpu).collect(), owner::by_environment(Path::new(PROC_ROOT), workloads))
    }
}
