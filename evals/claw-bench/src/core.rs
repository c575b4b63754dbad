//! The core with its journal on disk, without a face: `step`, group commit, reply.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use claw_gateway::policy::Policy;
use claw_gateway::{Caller, Command, Operation, Report};
use claw_gateway_server::control::{self, ControlOptions, ControlPlane, ControlTask, CrashPlan, SystemClock};
use claw_proto::ids::TokenId;
use claw_proto::spec::{GpuRequest, WorkloadSpec};
use claw_storage::LogLimits;
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::outcome::{EffectKind, Mode, Mutation};
use tokio::task::JoinHandle;

use crate::fleet::capabilities;
use crate::load::Client;

/// GPU counts that submissions ask for, in turn: more than one shape waits.
pub const GPU_COUNTS: [u32; 4] = [1, 2, 4, 8];

/// A running core; ends with [`CoreUnderTest::stop`].
#[derive(Debug)]
pub struct CoreUnderTest {
    control: ControlPlane,
    task: ControlTask,
    beside: Vec<JoinHandle<()>>,
}

impl CoreUnderTest {
    /// Starts one in `dir` with so many nodes of eight GPUs, all of them taken.
    ///
    /// # Errors
    /// If it does not start, or refuses what the fleet is made of.
    pub async fn start(dir: &Path, n_nodes: u32) -> Result<Self> {
        let options = ControlOptions {
            data_dir: dir.to_path_buf(),
            policy: Policy::default(),
            clock: Arc::new(SystemClock::default()),
            log_limits: LogLimits::default(),
            reserve_bytes: 4 * 1024 * 1024,
            snapshot_every: 10_000,
            keep_events: 100_000,
            epoch_above: 0,
            crash: Arc::new(CrashPlan::none()),
        };
        let (control, mut effects, task) = control::start(options).await?;
        let drain = tokio::spawn(async move { while effects.recv().await.is_some() {} });
        let ticking = control.clone();
        let tick = tokio::spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                if ticking.submit(Command::Tick, Caller::system(ticking.now())).await.is_err() {
                    return;
                }
            }
        });
        let core = Self { control, task, beside: vec![drain, tick] };
        for n in 0..n_nodes {
            core.add_node(&format!("n{n:03}")).await?;
        }
        for n in 0..n_nodes {
            let command = submission(8, format!("fill-{n}"));
            core.control.submit(command, caller(&core.control, 0)).await.map_err(|e| anyhow::anyhow!("{e}"))?;
        }
        Ok(core)
    }

    async fn add_node(&self, name: &str) -> Result<()> {
        let ask = async |command| {
            let caller = Caller::system(self.control.now());
            self.control.submit(command, caller).await.map_err(|error| anyhow::anyhow!("{error}"))
        };
        let hash = "ab".repeat(32);
        let operation = Operation::NodeTokenCreate { name: None, labels: std::collections::BTreeMap::new(), ttl_s: 60 };
        let report = ask(operate(operation, None, Some(hash.clone()))).await?;
        let Report::Outcome { outcome, .. } = report else { anyhow::bail!("no outcome") };
        let token_id: TokenId = outcome.credential.context("no token")?.id.parse()?;
        let enrolled = ask(Command::NodeEnroll { token_id, secret_hash: hash, name: name.to_owned() }).await?;
        let Report::Enrolled { node_id } = enrolled else { anyhow::bail!("not enrolled") };
        let capabilities = Box::new(capabilities(name));
        ask(Command::NodeRegister { node_id, capabilities, running: Vec::new(), store_id: 1, epoch_seen: 0 }).await?;
        Ok(())
    }

    /// `n` clients that submit.
    pub fn clients(&self, n: usize) -> Vec<CoreClient> {
        (0..n).map(|number| CoreClient { control: self.control.clone(), number }).collect()
    }

    /// Ends it in order.
    pub async fn stop(self) {
        for task in self.beside {
            task.abort();
        }
        self.task.stop().await;
    }
}

fn operate(operation: Operation, request_id: Option<String>, secret_hash: Option<String>) -> Command {
    let mutation = Mutation { mode: Mode::Apply, request_id, reason: None, wait_s: 0 };
    Command::Operate { operation, mutation, args_hash: "0".repeat(64), secret_hash }
}

fn submission(gpus: u32, request_id: String) -> Command {
    let gpu = GpuRequest { count: Some(gpus), ..GpuRequest::default() };
    let spec = WorkloadSpec { command: Some(vec!["train".into()]), gpu: Some(gpu), ..WorkloadSpec::default() };
    let operation = Operation::WorkloadRun { spec: Box::new(spec), env_handle: None, assumptions: Vec::new() };
    operate(operation, Some(request_id), None)
}

fn caller(control: &ControlPlane, number: usize) -> Caller {
    Caller {
        principal: format!("client-{number}"),
        kind: PrincipalKind::Agent,
        role: Role::Operator,
        key_id: None,
        now: control.now(),
        reason: String::new(),
    }
}

/// Submits a workload with each call; the answer comes when it is on disk.
#[derive(Debug)]
pub struct CoreClient {
    control: ControlPlane,
    number: usize,
}

impl Client for CoreClient {
    async fn ask(&mut self, n: u64) -> Result<()> {
        let gpus = GPU_COUNTS[usize::try_from(n)? % GPU_COUNTS.len()];
        let command = submission(gpus, format!("r{n}"));
        let report = self.control.submit(command, caller(&self.control, self.number)).await;
        let report = report.map_err(|error| anyhow::anyhow!("{error}"))?;
        let Report::Outcome { outcome, .. } = report else { anyhow::bail!("no outcome: {report:?}") };
        ensure!(matches!(outcome.effect, EffectKind::Accepted | EffectKind::Queued), "{outcome:?}");
        Ok(())
    }
}
