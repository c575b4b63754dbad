//! What the node has, put together from its parts and told when it changes.

use claw_proto::spec::RuntimeKind;
use claw_proto::topology::{FindingCode, NodeCapabilities, NodeFinding};

use super::Agent;
use super::health::Finder;
use crate::clock;
use crate::node::Input;
use crate::runtime::{Availability, Runtime};

/// Adds what the runtimes say: which of the allowed ones work, and the engine
/// behind them. Returns what is wrong with them.
pub(super) fn add_runtimes<'a>(
    capabilities: &mut NodeCapabilities,
    allowed: &[RuntimeKind],
    runtimes: impl Iterator<Item = &'a mut Box<dyn Runtime>>,
) -> Vec<NodeFinding> {
    capabilities.runtimes.clear();
    capabilities.engine = None;
    let has_gpus = !capabilities.gpus.is_empty() && !capabilities.simulated;
    let mut all = Vec::new();
    for runtime in runtimes.filter(|runtime| allowed.contains(&runtime.kind())) {
        let Availability { works, engine, findings } = runtime.availability();
        if works {
            capabilities.runtimes.push(runtime.kind());
        }
        capabilities.engine = capabilities.engine.take().or(engine);
        // What an engine cannot do with GPUs matters where there are some.
        all.extend(findings.into_iter().filter(|finding| finding.code != FindingCode::EngineLimited || has_gpus));
    }
    all
}

impl Agent {
    /// Tells the gateway and the runtimes what the node has now, if that is news.
    pub(super) fn set_capabilities(&mut self, mut new: NodeCapabilities) {
        let findings = add_runtimes(&mut new, &self.allowed, self.runtimes.values_mut());
        self.findings.set(Finder::Runtimes, findings);
        new.findings = self.findings.all();
        if new == self.capabilities {
            return;
        }
        self.capabilities = new;
        let capabilities = Box::new(self.capabilities.clone());
        self.each_runtime(|runtime| runtime.set_capabilities(&capabilities));
        self.feed(Input::Capabilities { now: clock::now(), capabilities });
    }
}
