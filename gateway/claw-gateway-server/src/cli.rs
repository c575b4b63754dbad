//! The command line of `claw-gateway`.
//!
//! Standard output carries what was asked for and nothing else; everything the
//! gateway says of itself goes to standard error.

mod health;
mod verify;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use claw_storage::{JournalError, OpenError};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::app::{GatewayServer, StartError};
use crate::config::{self, GatewayConfig, Sources, default_data_dir};
use crate::control::{self, CrashPlan};

/// Exit code of a damaged journal.
const EXIT_DAMAGED: u8 = 3;
/// Exit code of a command line or configuration that cannot work.
const EXIT_USAGE: u8 = 2;
/// Names a point at which a test ends the process; see [`CrashPlan`].
const CRASH_VARIABLE: &str = "CLAW_GATEWAY_CRASH_AT";

/// What is logged unless RUST_LOG says otherwise: the MCP library would tell of every request.
const DEFAULT_FILTER: &str = "info,rmcp=warn";

/// The control plane of a Clawbernetes fleet.
#[derive(Debug, Parser)]
#[command(
    name = "claw-gateway",
    version,
    after_help = "Exit codes: 0 stopped in order, 1 failed, 2 wrong command line or configuration, 3 the journal is damaged."
)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
    /// Form of the log on standard error; RUST_LOG sets what is logged.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Check the whole journal, and print where it stands or what is damaged. One of an older format is brought to
    /// today's.
    Verify(DataArgs),
    /// Ask the running gateway of this configuration whether it can work; exit code 0 or 1.
    Health(DataArgs),
    /// Print the JSON schema of the configuration.
    ConfigSchema,
    /// Print a configuration with every key, its meaning and its default.
    ConfigExample,
}

#[derive(Debug, Args)]
struct DataArgs {
    /// Folder of everything that the gateway keeps [default: clawbernetes in $XDG_DATA_HOME or ~/.local/share].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as node.heartbeat_interval_ms=500; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Address of MCP and REST.
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    /// Address of the node port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    node: Option<SocketAddr>,
    /// After restoring an old copy: the highest epoch that nodes say they saw.
    #[arg(long, value_name = "N", default_value_t = 0)]
    epoch_above: u64,
}

/// Runs the program with these arguments.
pub async fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, errors to standard error.
            return match error.print() {
                Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE)),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    log_to_stderr(cli.log_format);
    let done = match cli.command {
        Command::Run(args) => Box::pin(run(args)).await,
        Command::Verify(args) => verify(args),
        Command::Health(args) => health(args).await,
        Command::ConfigSchema => print(&config::schema()),
        Command::ConfigExample => print(&config::example()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_usage =
        error.chain().any(|cause| cause.is::<config::ConfigError>() || cause.is::<control::CrashPlanError>());
    if error.chain().any(is_damage) {
        ExitCode::from(EXIT_DAMAGED)
    } else if is_usage {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// The journal is not what was written.
fn is_damage(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(OpenError::Damage(_)))
        || matches!(cause.downcast_ref(), Some(JournalError::Damage(_)))
        || matches!(
            cause.downcast_ref(),
            Some(StartError::Control(control::StartError::Event { .. } | control::StartError::Snapshot(_)))
        )
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(colors).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn load(data: DataArgs, more: Vec<(&'static str, String)>) -> anyhow::Result<(GatewayConfig, PathBuf)> {
    let sources = Sources {
        file: data.config,
        env: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        set: data.set,
        flags: more,
    };
    let config = sources.load()?;
    let data_dir = match data.data_dir.or_else(|| config.data_dir.clone()) {
        Some(data_dir) => data_dir,
        None => default_data_dir(|name| std::env::var_os(name))?,
    };
    Ok((config, data_dir))
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let flags = [("http.listen", args.http), ("node.listen", args.node)];
    let flags = flags.into_iter().filter_map(|(path, addr)| Some((path, addr?.to_string()))).collect();
    let (config, data_dir) = load(args.data, flags)?;
    raise_open_files();
    let mut server = GatewayServer::new(config, &data_dir).with_epoch_above(args.epoch_above);
    if let Some(plan) = std::env::var_os(CRASH_VARIABLE) {
        let plan = CrashPlan::parse(&plan.to_string_lossy())?;
        tracing::warn!(?plan, "this gateway will end itself with SIGKILL, for a test");
        server = server.with_crash_plan(plan);
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = Box::pin(server.start()).await.map_err(explain)?;
    print(&format!("{}\n", running.ready_line()))?;
    tell_manager(&[NotifyState::Ready]);
    let ended_by_itself = tokio::select! {
        () = told_to_stop(&mut terminate, &mut interrupt) => false,
        () = running.core_over() => true,
    };
    tell_manager(&[NotifyState::Stopping]);
    tokio::select! {
        () = running.shutdown() => {}
        () = told_to_stop(&mut terminate, &mut interrupt) => {
            anyhow::bail!("stopped at once, as asked a second time; what was acknowledged is on disk");
        }
    }
    anyhow::ensure!(!ended_by_itself, "the core ended by itself");
    Ok(())
}

async fn told_to_stop(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Tells systemd (`Type=notify`) how far it is; without a service manager nothing.
fn tell_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Says what to do about a start that failed.
fn explain(error: StartError) -> anyhow::Error {
    let advice = match &error {
        StartError::Control(control::StartError::Journal(OpenError::Damage(damage))) => verify::advice(damage),
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(advice)
}

fn verify(args: DataArgs) -> anyhow::Result<()> {
    let (_, data_dir) = load(args, Vec::new())?;
    print(&verify::journal(&data_dir)?)
}

async fn health(args: DataArgs) -> anyhow::Result<()> {
    let (config, _) = load(args, Vec::new())?;
    print(&health::check(&config).await?)
}

/// One file for each connection, and thousands of nodes.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
