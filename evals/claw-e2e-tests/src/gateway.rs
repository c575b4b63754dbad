//! A gateway process on a data folder; it can die and come back on the same ports.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::process::{Running, program};

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    running: Option<Running>,
    data_dir: PathBuf,
    settings: Vec<String>,
    http: String,
    node: String,
    /// MCP endpoint.
    pub mcp_url: String,
    /// Node port.
    pub node_url: String,
}

impl Gateway {
    /// Starts one on free ports.
    pub async fn start(root: &Path, settings: &[&str]) -> Result<Self> {
        let settings = settings.iter().map(|s| (*s).to_owned()).collect();
        let mut gateway = Self {
            running: None,
            data_dir: root.join("gateway"),
            settings,
            http: "127.0.0.1:0".into(),
            node: "127.0.0.1:0".into(),
            mcp_url: String::new(),
            node_url: String::new(),
        };
        gateway.launch(&[]).await?;
        Ok(gateway)
    }

    /// Starts the process on the folder, with these environment variables.
    pub async fn launch(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        let mut command = Command::new(program("claw-gateway")?);
        command.arg("run").arg("--data-dir").arg(&self.data_dir).args(["--http", &self.http, "--node", &self.node]);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.envs(environment.iter().copied());
        let log = self.data_dir.with_extension("log");
        let running = Running::start(command, "claw-gateway ready", &log).await.context("claw-gateway")?;
        for word in running.ready_line.split_whitespace() {
            if let Some(url) = word.strip_prefix("mcp=") {
                url.clone_into(&mut self.mcp_url);
            }
            if let Some(url) = word.strip_prefix("node=") {
                url.clone_into(&mut self.node_url);
            }
        }
        // The same ports when it comes back: clients and nodes know these.
        self.http = authority(&self.mcp_url).context("no mcp= in the ready line")?;
        self.node = authority(&self.node_url).context("no node= in the ready line")?;
        self.running = Some(running);
        Ok(())
    }

    /// `kill -9`.
    pub async fn kill9(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.kill9().await,
            None => Ok(()),
        }
    }

    /// SIGTERM; returns its exit code.
    pub async fn terminate(&mut self) -> Result<Option<i32>> {
        match self.running.take() {
            Some(running) => Ok(running.terminate().await?.code()),
            None => Ok(None),
        }
    }

    /// Waits until it has ended by itself (a crash point); none if it did not run.
    pub async fn ended(&mut self, deadline: std::time::Duration) -> Result<Option<std::process::ExitStatus>> {
        let Some(running) = self.running.as_mut() else { return Ok(None) };
        let status = running.ended(deadline).await?;
        self.running = None;
        Ok(Some(status))
    }

    /// It runs.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(Running::pid)
    }

    /// The admin's key.
    pub fn admin_key(&self) -> Result<String> {
        let path = self.data_dir.join("admin.key");
        Ok(std::fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// `host:port` of the node port.
    pub fn node_authority(&self) -> &str {
        &self.node
    }

    /// Base URL of the HTTP port.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }
}

fn authority(url: &str) -> Option<String> {
    url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(rest).to_owned())
}
