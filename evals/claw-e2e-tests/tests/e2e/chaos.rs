//! Rounds of random trouble on one fleet: work comes and goes while agents and
//! gateway are killed and wires are cut. The nodes' own execution logs, and
//! files that the programs write themselves, judge what the gateway says.
//!
//! `CLAW_E2E_SEED=<n>` replays the draws of a run; what the processes do between
//! them is theirs. `CLAW_SOAK` makes it ten times as long.

mod dice;
mod jobs;
mod verdict;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use claw_e2e_tests::fleet::{Fleet, PROCESS_NODE};
use claw_e2e_tests::gateway::Gateway;
use claw_e2e_tests::proxy::{Proxy, Wire};
use claw_e2e_tests::session::{Answer, Session};
use claw_tools::refusal::ErrorCode;
use serde_json::{Value, json};

use crate::support::{PATIENCE, judged, say, text};
use dice::Dice;
use jobs::Job;

const NODES: usize = 2;
/// How often a plan is made anew because the fleet moved on.
const PLAN_TRIES: usize = 8;

/// The fleet and what was asked of it so far.
struct Chaos {
    fleet: Fleet,
    agent: Session,
    wires: Vec<Proxy>,
    cut: [bool; NODES],
    jobs: Vec<Job>,
    dice: Dice,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Submit,
    SubmitTwice,
    Stop,
    Drain,
    Undrain,
    KillAgent,
    KillGateway,
    Cut,
    Silence,
    Heal,
}

/// Drawn by weight: work has to come for trouble to matter.
const ACTIONS: &[(Action, u64)] = &[
    (Action::Submit, 6),
    (Action::SubmitTwice, 1),
    (Action::Stop, 3),
    (Action::Drain, 2),
    (Action::Undrain, 3),
    (Action::KillAgent, 3),
    (Action::KillGateway, 3),
    (Action::Cut, 2),
    (Action::Silence, 2),
    (Action::Heal, 3),
];

impl Chaos {
    async fn start(seed: u64) -> Result<Self> {
        let mut fleet = Fleet::start(&[]).await?;
        let mut wires = Vec::new();
        for n in 0..NODES {
            let wire = Proxy::start(fleet.gateway.node_authority().to_owned()).await?;
            fleet.add_node_behind(&format!("node-{n}"), PROCESS_NODE, &wire).await?;
            wires.push(wire);
        }
        let agent = fleet.operator("agent").await?;
        Ok(Self { fleet, agent, wires, cut: [false; NODES], jobs: Vec::new(), dice: Dice::new(seed) })
    }

    async fn act(&mut self, action: Action) -> Result<()> {
        let n = self.dice.below(NODES as u64);
        let n = usize::try_from(n)?;
        match action {
            Action::Submit => {
                for _ in 0..=self.dice.below(2) {
                    self.submit(false).await?;
                }
                Ok(())
            }
            Action::SubmitTwice => self.submit(true).await,
            Action::Stop => self.stop_some().await,
            Action::Drain => self.drain(n).await,
            Action::Undrain => self.undrain(n).await,
            Action::KillAgent => self.kill_agent(n).await,
            Action::KillGateway => self.kill_gateway().await,
            Action::Cut => {
                self.wire(n, Wire::Cut);
                Ok(())
            }
            Action::Silence => {
                self.wire(n, Wire::Silent);
                Ok(())
            }
            Action::Heal => self.heal(n).await,
        }
    }

    fn wire(&mut self, n: usize, wire: Wire) {
        self.cut[n] = wire != Wire::Up;
        self.wires[n].set(wire);
    }

    /// Submits a job, or the same one twice at once, until there is an answer.
    async fn submit(&mut self, twice: bool) -> Result<()> {
        let mut job = Job::draw(&mut self.dice, self.jobs.len(), self.fleet.root());
        let first = self.agent.insist("workload_run", job.args.clone(), PATIENCE);
        if twice {
            let second = self.agent.insist("workload_run", job.args.clone(), PATIENCE);
            let (first, second) = tokio::try_join!(first, second)?;
            ensure!(accepted(&job, first)? == accepted(&job, second)?, "{}: two receipts", job.name);
        } else {
            job.receipt = accepted(&job, first.await?)?;
        }
        if twice {
            job.receipt = accepted(&job, self.agent.insist("workload_run", job.args.clone(), PATIENCE).await?)?;
        }
        self.jobs.push(job);
        Ok(())
    }

    async fn stop_some(&mut self) -> Result<()> {
        let candidates: Vec<usize> = (0..self.jobs.len()).filter(|i| !self.jobs[*i].was_stopped).collect();
        let Some(i) = self.dice.pick(&candidates).copied() else { return Ok(()) };
        let job = &mut self.jobs[i];
        job.was_stopped = true;
        let args = json!({ "workload": job.name, "grace_s": 1, "request_id": format!("stop-{}", job.name) });
        match self.agent.insist("workload_stop", args, PATIENCE).await? {
            Answer::Ok(_) => Ok(()),
            other => bail!("stop {}: {other:?}", job.name),
        }
    }

    /// Plans, approves and applies; again if the fleet moved on meanwhile.
    async fn drain(&mut self, n: usize) -> Result<()> {
        let node = self.fleet.nodes[n].name.clone();
        for _ in 0..PLAN_TRIES {
            let planned = self.agent.call("node_drain", json!({ "node": node, "grace_s": 1, "mode": "plan" })).await?;
            if planned["effect"] == "no_change" {
                return Ok(());
            }
            let plan = &planned["plan"];
            if let Some(id) = plan.get("approval_id").filter(|id| !id.is_null()) {
                let args = json!({ "approval_id": id, "decision": "approve", "diff_hash": plan["diff_hash"] });
                self.fleet.admin.call("approval_decide", args).await?;
            }
            match self.agent.ask("plan_apply", json!({ "plan_id": plan["plan_id"] })).await {
                Answer::Ok(_) => return Ok(()),
                Answer::Refused(refusal) if refusal.code == ErrorCode::StalePlan => {}
                other => bail!("the plan to drain {node}: {other:?}"),
            }
        }
        // The fleet never stood still: so be it.
        Ok(())
    }

    async fn undrain(&mut self, n: usize) -> Result<()> {
        let args = json!({ "node": self.fleet.nodes[n].name });
        self.agent.call("node_undrain", args).await.map(drop)
    }

    /// The agent dies and comes back, mostly at once; if its wire is cut it cannot say so.
    async fn kill_agent(&mut self, n: usize) -> Result<()> {
        self.fleet.nodes[n].kill9().await?;
        if self.dice.below(3) == 0 {
            return Ok(());
        }
        let node = &mut self.fleet.nodes[n];
        if self.cut[n] { node.launch_unheard() } else { node.launch().await }
    }

    /// The wire carries again and the agent lives.
    async fn heal(&mut self, n: usize) -> Result<()> {
        self.wire(n, Wire::Up);
        if self.fleet.nodes[n].is_alive() {
            return Ok(());
        }
        self.fleet.nodes[n].launch().await
    }

    /// The gateway dies in the middle of a request and comes back.
    async fn kill_gateway(&mut self) -> Result<()> {
        let mut job = Job::draw(&mut self.dice, self.jobs.len(), self.fleet.root());
        let agent = self.agent.clone();
        let asking = agent.insist("workload_run", job.args.clone(), PATIENCE);
        let after_ms = self.dice.below(40);
        let (answer, died) = tokio::join!(asking, die_at_deadline(&mut self.fleet.gateway, after_ms));
        died?;
        job.receipt = accepted(&job, answer?)?;
        self.jobs.push(job);
        Ok(())
    }

    /// Judges what runs and what is over, again and again, until so many milliseconds are over.
    async fn judge_until_deadline(&self, length_ms: u64) -> Result<()> {
        let end = Instant::now() + Duration::from_millis(length_ms);
        while Instant::now() < end {
            judged(&self.fleet)?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.what_is_over_agrees().await
    }

    async fn rounds(&mut self, n_rounds: usize) -> Result<()> {
        for _ in 0..4 {
            self.submit(false).await?;
        }
        for round in 1..=n_rounds {
            let action = self.dice.weighted(ACTIONS);
            say(&format!("round {round}: {action:?}"));
            self.act(action).await.with_context(|| format!("round {round}: {action:?}"))?;
            // Trouble without work would show nothing.
            if self.dice.below(2) == 0 {
                self.submit(false).await.with_context(|| format!("round {round}: work after {action:?}"))?;
            }
            let pause_ms = 200 + self.dice.below(2_300);
            self.judge_until_deadline(pause_ms).await.with_context(|| format!("after round {round}: {action:?}"))?;
            self.all_there_once().await.with_context(|| format!("after round {round}: {action:?}"))?;
        }
        Ok(())
    }
}

/// Dies so many milliseconds from now, and comes back.
async fn die_at_deadline(gateway: &mut Gateway, after_ms: u64) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    gateway.kill9().await?;
    gateway.launch(&[]).await
}

/// The receipt, if the request was accepted.
fn accepted(job: &Job, answer: Answer) -> Result<Value> {
    match answer {
        Answer::Ok(receipt) if !text(&receipt, "/workload_id").is_empty() => Ok(receipt),
        other => bail!("{} was not accepted: {other:?}", job.name),
    }
}

fn seed() -> Result<u64> {
    match std::env::var("CLAW_E2E_SEED") {
        Ok(text) => text.parse().context("CLAW_E2E_SEED is not a number"),
        Err(_) => Ok(u64::from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.subsec_nanos())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_trouble_lose_nothing_and_run_nothing_twice() -> Result<()> {
    let soak = std::env::var_os("CLAW_SOAK").is_some();
    let (n_rounds, deadline_s) = if soak { (200, 3_600) } else { (20, 240) };
    let seed = seed()?;
    say(&format!("CLAW_E2E_SEED={seed} replays these {n_rounds} rounds"));
    let mut chaos = Chaos::start(seed).await?;
    let story = async {
        chaos.rounds(n_rounds).await?;
        chaos.settle().await?;
        chaos.verdict().await
    };
    let told = tokio::time::timeout(Duration::from_secs(deadline_s), story).await;
    let result = told.context("not over in time").and_then(|result| result);
    result.with_context(|| format!("CLAW_E2E_SEED={seed}\n{}", chaos.fleet.last_words()))
}
