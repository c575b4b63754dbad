//! The kernel's log, polled beside the machine, and what of it the gateway is told.

use claw_proto::message::NodeMessage;
use claw_proto::topology::NodeFinding;
use tracing::warn;

use super::Agent;
use super::health::Finder;
use super::jobs::Job;
use crate::clock;
use crate::kernel_log::KernelLog;
use crate::node::Input;

/// The kernel's log, and what is known of it while a job has it.
#[derive(Debug)]
pub(super) struct Kernel {
    /// None while a job reads it, and where none is read at all.
    log: Option<KernelLog>,
    /// A connection came up meanwhile: it has been told nothing.
    is_new: bool,
    finding: Option<NodeFinding>,
}

impl Kernel {
    pub(super) fn new(log: Option<KernelLog>) -> Self {
        Self { log, is_new: false, finding: None }
    }
}

impl Agent {
    pub(super) fn start_kernel(&mut self) {
        let Some(mut log) = self.kernel.log.take() else { return };
        let now = clock::now();
        self.jobs.spawn_blocking(move || {
            log.poll(now);
            Job::Listened { log }
        });
    }

    pub(super) fn listened(&mut self, mut log: KernelLog) {
        let finding = log.finding();
        if finding != self.kernel.finding {
            if let Some(finding) = &finding {
                warn!(path = finding.subject, detail = finding.detail, "the kernel's log cannot be read");
            }
            self.findings.set(Finder::Kernel, finding.iter().cloned().collect());
            self.kernel.finding = finding;
            let capabilities = self.capabilities.clone();
            self.set_capabilities(capabilities);
        }
        if std::mem::take(&mut self.kernel.is_new) {
            log.reconnected();
        }
        if self.node.is_registered()
            && let Some(told) = log.news()
        {
            let message = Box::new(NodeMessage::KernelLog(told));
            self.feed(Input::Say { now: clock::now(), message });
        }
        self.kernel.log = Some(log);
    }

    /// A connection came up: the next poll tells it all that is held.
    pub(super) fn kernel_anew(&mut self) {
        self.kernel.is_new = true;
    }
}
