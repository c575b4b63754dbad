//! The demo: what the system is for, step by step, on real processes.
//!
//! A real gateway, this machine as a real node, and two simulated 8×H100 nodes,
//! each a process of its own over mTLS. Every step checks what it shows; the
//! first that fails ends the demo with a non-zero exit.

mod screen;
mod steps;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::fleet::{Fleet, H100_NODE, PROCESS_NODE};
use crate::session::Session;
use screen::Screen;

/// What the steps share.
#[derive(Debug)]
struct Stage {
    fleet: Fleet,
    /// An agent with an operator's key.
    agent: Session,
    screen: Screen,
}

/// Runs all steps; the exit code says whether all held.
pub async fn run() -> ExitCode {
    let start = Instant::now();
    let mut screen = Screen::new();
    screen.title("Clawbernetes: a fleet on this machine, driven by an agent over MCP");
    match play(screen.clone()).await {
        Ok(shown) => {
            screen = shown;
            screen.summary(start.elapsed());
            ExitCode::SUCCESS
        }
        Err(error) => {
            screen.failed(&error);
            ExitCode::FAILURE
        }
    }
}

async fn play(mut screen: Screen) -> Result<Screen> {
    screen.step("start: a gateway, this machine as a node, two simulated 8×H100 nodes");
    let mut fleet = Fleet::start(&["workloads.default_stop_after_s=3"]).await.context("the gateway does not start")?;
    fleet.add_node("this-machine", PROCESS_NODE).await?;
    fleet.add_node("sim-1", H100_NODE).await?;
    fleet.add_node("sim-2", H100_NODE).await?;
    let agent = fleet.operator("demo-agent").await?;
    screen.say(&format!(
        "MCP endpoint {} · the agent holds an operator key, the person an admin key",
        fleet.gateway.mcp_url
    ));
    let status = agent.call("cluster_status", serde_json::json!({})).await?;
    screen.field("cluster_status", &status["summary"]);
    let mut stage = Stage { fleet, agent, screen };
    steps::a_real_command(&mut stage).await.context("step a")?;
    let llama = steps::b_words_to_gpus(&mut stage).await.context("step b")?;
    steps::c_lose_a_node(&mut stage, &llama).await.context("step c")?;
    steps::d_drain_and_undo(&mut stage, &llama).await.context("step d")?;
    steps::e_kill_the_gateway(&mut stage, &llama).await.context("step e")?;
    steps::f_more_than_fits(&mut stage).await.context("step f")?;
    Ok(stage.screen)
}
