//! A node process on a data folder; it can die and come back.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clawnode::runtime::execution_log::{ExecutionEntry, ExecutionEvent};
use tokio::process::Command;

use crate::process::{Running, program};

/// A node.
#[derive(Debug)]
pub struct NodeProcess {
    running: Option<Running>,
    data_dir: PathBuf,
    /// Name.
    pub name: String,
    /// Id, once it has registered.
    pub node_id: String,
}

impl NodeProcess {
    /// Enrolls a machine: `clawnode join`.
    pub async fn join(root: &Path, name: &str, url: &str, token: &str, settings: &[&str]) -> Result<Self> {
        let data_dir = root.join(name);
        let mut command = Command::new(program("clawnode")?);
        command.args(["join", url, "--token", token, "--name", name, "--data-dir"]).arg(&data_dir);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let output = command.output().await.context("clawnode join")?;
        if !output.status.success() {
            bail!("clawnode join {name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { running: None, data_dir, name: name.to_owned(), node_id: String::new() })
    }

    /// `clawnode run`, until it has registered.
    pub async fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(program("clawnode")?);
        command.arg("run").arg("--data-dir").arg(&self.data_dir);
        let running =
            Running::start(command, "clawnode ready", &self.log()).await.with_context(|| self.name.clone())?;
        let id = running.ready_line.split_whitespace().find_map(|w| w.strip_prefix("node_id="));
        id.context("no node_id= in the ready line")?.clone_into(&mut self.node_id);
        self.running = Some(running);
        Ok(())
    }

    /// `clawnode run` without waiting: the gateway may be out of reach.
    pub fn launch_unheard(&mut self) -> Result<()> {
        let mut command = Command::new(program("clawnode")?);
        command.arg("run").arg("--data-dir").arg(&self.data_dir);
        self.running = Some(Running::start_unheard(command, &self.log())?);
        Ok(())
    }

    /// The agent has not ended by itself.
    pub fn is_alive(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::is_alive)
    }

    /// `kill -9` of the agent.
    pub async fn kill9(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.kill9().await,
            None => Ok(()),
        }
    }

    /// SIGTERM of the agent.
    pub async fn terminate(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            running.terminate().await?;
        }
        Ok(())
    }

    /// It runs.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// What really ran there.
    pub fn executions(&self) -> Result<Vec<ExecutionEntry>> {
        let path = self.data_dir.join("execution.log");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

impl Drop for NodeProcess {
    /// Host processes outlive their agent by design; those of a fleet that is gone must not.
    fn drop(&mut self) {
        for entry in self.executions().unwrap_or_default() {
            let Some(pid) = entry.pid.filter(|_| entry.event == ExecutionEvent::Started) else { continue };
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let id = format!("CLAW_WORKLOAD_ID={}", entry.workload_id);
            // The number may be another process's by now.
            let is_its = environment.split(|byte| *byte == 0).any(|variable| variable == id.as_bytes());
            if let Some(group) = rustix::process::Pid::from_raw(pid).filter(|_| is_its) {
                // It may have ended just now.
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
            }
        }
    }
}
