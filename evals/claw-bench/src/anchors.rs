//! The programs that we are measured beside. `evals/scripts/anchors` installs them and
//! says where they are.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use claw_e2e_tests::process::{Running, program};
use claw_e2e_tests::wait::poll_until;
use tokio::net::TcpStream;
use tokio::process::Command;

/// How long a program may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the foreign programs are; absent ones are skipped, and that is said.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    /// The program `etcd`.
    pub etcd: Option<PathBuf>,
    /// A Python with FastMCP.
    pub fastmcp_python: Option<PathBuf>,
}

impl Anchors {
    /// From `CLAW_ANCHOR_ETCD` and `CLAW_ANCHOR_FASTMCP`.
    pub fn from_env() -> Self {
        let path = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_file());
        Self { etcd: path("CLAW_ANCHOR_ETCD"), fastmcp_python: path("CLAW_ANCHOR_FASTMCP") }
    }
}

/// A running anchor; ends when dropped.
#[derive(Debug)]
pub struct Anchor {
    _running: Running,
    /// `host:port`.
    pub authority: String,
}

impl Anchor {
    /// etcd with its data in `dir`: one member, every put synced.
    ///
    /// # Errors
    /// If it does not listen.
    pub async fn etcd(program: &Path, dir: &Path) -> Result<Self> {
        let (clients, peers) = (free_port()?, free_port()?);
        let (client_url, peer_url) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(dir.join("etcd")).args(["--name", "anchor", "--logger", "zap"]);
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("anchor={peer_url}"), "--log-level", "error"]);
        Self::listening(command, clients, &dir.join("etcd.log")).await
    }

    /// The bare rmcp server of this crate.
    ///
    /// # Errors
    /// If it does not listen.
    pub async fn rmcp(dir: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program("claw-rmcp-echo")?);
        command.arg(port.to_string());
        Self::listening(command, port, &dir.join("rmcp.log")).await
    }

    /// FastMCP's server with one tool.
    ///
    /// # Errors
    /// If it does not listen.
    pub async fn fastmcp(python: &Path, dir: &Path) -> Result<Self> {
        let port = free_port()?;
        let script = dir.join("fastmcp_echo.py");
        std::fs::write(&script, include_str!("../peers/fastmcp_echo.py"))?;
        let mut command = Command::new(python);
        command.arg(&script).arg(port.to_string());
        Self::listening(command, port, &dir.join("fastmcp.log")).await
    }

    async fn listening(command: Command, port: u16, log: &Path) -> Result<Self> {
        let mut running = Running::start_unheard(command, log)?;
        let authority = format!("127.0.0.1:{port}");
        let listens = poll_until("it listens", PATIENCE, || async {
            TcpStream::connect(&authority).await.map(|_| Some(())).map_err(|error| anyhow!(error))
        })
        .await;
        let said = || claw_e2e_tests::process::tail_of(log);
        listens.with_context(said)?;
        anyhow::ensure!(running.is_alive(), "it ended: {}", said());
        Ok(Self { _running: running, authority })
    }
}

/// A port that was free just now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
