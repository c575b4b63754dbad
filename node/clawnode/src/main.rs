//! # clawnode: the agent of a machine
//!
//! Exit codes: 0 done · 1 failed · 2 wrong usage or configuration · 3 not
//! enrolled yet · 4 another agent runs on the data folder · 5 the gateway
//! refused to enroll the node.
//!
//! Standard output carries one line, `clawnode ready node_id=…`, once the node
//! is registered for the first time; everything else goes to standard error.
//! Under a service manager only this process may be signaled (`KillMode=process`
//! of systemd): host processes and their supervisors live on without it.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clawnode::config::{ConfigError, NodeConfig};
use clawnode::enroll::{self, EnrollError, JoinToken};
use clawnode::files::{Durability, replace};
#[cfg(not(target_os = "macos"))]
use clawnode::gpu;
use clawnode::identity::{Credentials, DataDir, Identity, IdentityError};
use clawnode::runtime::docker::cache::Cache;
use clawnode::runtime::process::shim;
use clawnode::shell::{AgentError, AgentEvent, AgentOptions, status_text};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not enrolled yet, \
4 another agent runs on the data folder, 5 the gateway refused to enroll the node.";

/// The agent of a machine in a Clawbernetes fleet.
#[derive(Debug, Parser)]
#[command(name = "clawnode", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes this machine a node of a cluster.
    Join {
        /// The gateway's node port, such as <https://gateway:7443>.
        gateway: String,
        /// The one-time token from `claw node token-create`.
        #[arg(long, env = "CLAWNODE_JOIN_TOKEN", hide_env_values = true)]
        token: String,
        /// Name that the node is listed under; the host's name if absent.
        #[arg(long)]
        name: Option<String>,
        /// The machine is a node already and its certificate has ended or is revoked.
        #[arg(long, conflicts_with = "name")]
        again: bool,
        /// Where the node keeps its data.
        #[arg(long, env = "CLAWNODE_DATA_DIR")]
        data_dir: Option<PathBuf>,
        /// Configuration to begin with, such as `gpu=sim:h100x8`.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Runs the node until SIGTERM; host processes run on afterwards.
    Run {
        /// Where the node keeps its data.
        #[arg(long, env = "CLAWNODE_DATA_DIR")]
        data_dir: Option<PathBuf>,
        /// Configuration file; `config.toml` in the data folder if absent.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Shows who this node is and what it has, from its data folder.
    Status {
        /// Where the node keeps its data.
        #[arg(long, env = "CLAWNODE_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// The weights cache of this node: what it has, and what is put in by hand.
    Cache {
        /// Where the node keeps its data.
        #[arg(long, env = "CLAWNODE_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        #[command(subcommand)]
        word: CacheWord,
    },
    /// Prints the JSON schema of the configuration.
    ConfigSchema,
    /// Supervises one host process (started by the agent).
    #[command(hide = true)]
    Shim {
        /// The attempt's folder.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Serves NVIDIA's management library to the agent (started by it).
    #[cfg(not(target_os = "macos"))]
    #[command(hide = true)]
    GpuDriver {
        /// The agent's process.
        #[arg(long)]
        parent: i32,
    },
}

#[derive(Debug, Subcommand)]
enum CacheWord {
    /// Lists the caches, their size and who reads them.
    List,
    /// Copies a folder into a cache; workloads mount it as `cache:NAME`.
    Import {
        /// Folder to copy.
        dir: PathBuf,
        /// Name of the cache.
        name: String,
        /// Notes a checksum over all of it.
        #[arg(long)]
        sha256: bool,
    },
    /// Removes a cache that nobody uses.
    Remove {
        /// Name of the cache.
        name: String,
    },
}

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    start_tracing();
    match perform(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Logs go to standard error; `CLAWNODE_LOG` filters them, `NO_COLOR` is honored.
fn start_tracing() {
    let filter = std::env::var("CLAWNODE_LOG").ok().and_then(|filter| filter.parse().ok());
    let filter = filter.unwrap_or_else(|| tracing_subscriber::EnvFilter::new("info"));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = !no_color && io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(io::stderr).init();
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let identity = error.downcast_ref::<IdentityError>().or_else(|| match error.downcast_ref::<AgentError>() {
        Some(AgentError::Identity(identity)) => Some(identity),
        Some(_) | None => None,
    });
    if let Some(IdentityError::NotEnrolled { .. }) = identity {
        return 3;
    }
    if let Some(IdentityError::Locked { .. }) = identity {
        return 4;
    }
    match error.downcast_ref::<EnrollError>() {
        Some(EnrollError::Refused { .. }) => return 5,
        Some(EnrollError::Token | EnrollError::Endpoint(_)) => return 2,
        Some(_) | None => {}
    }
    let usage =
        error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(AgentError::Gpu(_) | AgentError::Endpoint(_)));
    if usage { 2 } else { 1 }
}

fn perform(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Join { gateway, token, again: true, data_dir, .. } => {
            let data_dir = open_data_dir(data_dir)?;
            runtime()?.block_on(join_again(&gateway, &token, &data_dir))
        }
        Command::Join { gateway, token, name, again: false, data_dir, settings } => {
            let data_dir = open_data_dir(data_dir)?;
            runtime()?.block_on(join(&gateway, &token, name, &data_dir, &settings))
        }
        Command::Run { data_dir, config } => run(open_data_dir(data_dir)?, config),
        Command::Status { data_dir } => say(&status_text(&open_data_dir(data_dir)?)?),
        Command::Cache { data_dir, word } => cache(&open_data_dir(data_dir)?, word),
        Command::ConfigSchema => {
            let schema = serde_json::to_string_pretty(&schemars::schema_for!(NodeConfig))?;
            say(&format!("{schema}\n"))
        }
        Command::Shim { dir } => Ok(shim::run(&dir)?),
        #[cfg(not(target_os = "macos"))]
        Command::GpuDriver { parent } => Ok(gpu::nvml::serve::run(parent)?),
    }
}

/// Absolute: supervisors do not stand in the folder that the agent was started in.
fn open_data_dir(data_dir: Option<PathBuf>) -> io::Result<DataDir> {
    Ok(DataDir::at(std::path::absolute(data_dir.unwrap_or_else(DataDir::default_root))?))
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// The one place that writes to standard output.
fn say(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

async fn join(
    gateway: &str,
    token: &str,
    name: Option<String>,
    data_dir: &DataDir,
    settings: &[String],
) -> anyhow::Result<()> {
    let mut config = NodeConfig::from_settings(settings.iter().map(String::as_str))?;
    if name.is_some() {
        config.name = name;
    }
    let name = match &config.name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let token = JoinToken::parse(token)?;
    data_dir.create()?;
    let _lock = data_dir.lock()?;
    if data_dir.is_enrolled() {
        let Identity { node_id, .. } = data_dir.load()?;
        anyhow::bail!("{} already belongs to {node_id}; use another --data-dir", data_dir.root().display());
    }
    let (enrolled, key_pem) = enroll::enroll(gateway, &token, &name).await?;
    replace(&data_dir.config(), config.to_toml()?.as_bytes(), Durability::Synced)?;
    let identity = Identity { node_id: enrolled.node_id, name, node_url: enrolled.node_url };
    data_dir.store(&Credentials {
        identity: &identity,
        key_pem: &key_pem,
        certificate_pem: &enrolled.certificate_pem,
        authority_pem: &enrolled.ca_pem,
    })?;
    say(&format!(
        "joined as {} ({}); start it with: clawnode run --data-dir {}\n",
        identity.node_id,
        identity.name,
        data_dir.root().display()
    ))
}

/// A new certificate for the node that lives in this folder; records and work stay.
async fn join_again(gateway: &str, token: &str, data_dir: &DataDir) -> anyhow::Result<()> {
    let token = JoinToken::parse(token)?;
    let _lock = data_dir.lock()?;
    let Identity { node_id, name, .. } = data_dir.load()?;
    let (enrolled, key_pem) = enroll::enroll(gateway, &token, &name).await?;
    if enrolled.node_id != node_id {
        anyhow::bail!(
            "the gateway enrolled {name} as {}, and {} belongs to {node_id}, which is not in the fleet any more; \
             join with another --data-dir, and remove {}",
            enrolled.node_id,
            data_dir.root().display(),
            enrolled.node_id
        );
    }
    data_dir.store_again(&key_pem, &enrolled.certificate_pem, &enrolled.ca_pem)?;
    say(&format!(
        "enrolled again as {node_id} ({name}); start it with: clawnode run --data-dir {}\n",
        data_dir.root().display()
    ))
}

fn cache(data_dir: &DataDir, word: CacheWord) -> anyhow::Result<()> {
    let config = NodeConfig::load(&data_dir.config(), std::env::vars())?;
    data_dir.create()?;
    let cache = Cache::open(data_dir.root().join("cache"), config.runtime.docker.cache)?;
    match word {
        CacheWord::List => cache.entries()?.iter().try_for_each(|entry| say(&format!("{entry}\n"))),
        CacheWord::Import { dir, name, sha256 } => {
            let manifest = cache.import(&dir, &name, sha256)?;
            say(&format!("cache {name}: {manifest}\n"))
        }
        CacheWord::Remove { name } => {
            cache.remove(&name)?;
            say(&format!("cache {name} is removed\n"))
        }
    }
}

fn run(data_dir: DataDir, config: Option<PathBuf>) -> anyhow::Result<()> {
    let path = config.unwrap_or_else(|| data_dir.config());
    let config = NodeConfig::load(&path, std::env::vars())?;
    if !data_dir.is_enrolled() {
        return Err(IdentityError::NotEnrolled { path: data_dir.root().to_path_buf() }.into());
    }
    let shim_program = std::env::current_exe()?;
    runtime()?.block_on(serve(data_dir, config, &shim_program))
}

async fn serve(data_dir: DataDir, config: NodeConfig, shim_program: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (news, mut events) = tokio::sync::mpsc::channel(16);
    let agent = AgentOptions { data_dir, config, shim_program: shim_program.to_path_buf(), news }.build()?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(agent.run(stop.clone()));
    let mut said_ready = false;
    // Ready is an agent that works, with or without its gateway: nodes go on through an outage.
    tell_manager(&[NotifyState::Ready, NotifyState::Status("works; not registered yet")]);
    loop {
        tokio::select! {
            () = &mut running => return Ok(()),
            Some(AgentEvent::Registered { node_id }) = events.recv() => {
                if !said_ready {
                    said_ready = true;
                    say(&format!("clawnode ready node_id={node_id}\n"))?;
                    tell_manager(&[NotifyState::Status(&format!("registered as {node_id}"))]);
                }
            }
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
        }
    }
}

/// Tells systemd (`Type=notify`) how far it is; without a service manager nothing.
fn tell_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
