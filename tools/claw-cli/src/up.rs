//! `claw up`: a gateway and this machine as a node, and an agent's way in.
//!
//! The programs are the same as on a large fleet. The key that is handed out is an operator's;
//! the admin's stays in the data folder.

mod children;
mod key;

use std::env;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use claw_tools::outcome::Outcome;
use serde_json::{Map, json};

use crate::cli::UpOptions;
use crate::client::GatewayClient;
use crate::credentials::{ADMIN_KEY_FILE, Connection, Endpoint, Secret, URL_FILE};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;
use crate::render;
use crate::run::Session;
use children::Child;

const GATEWAY: &str = "claw-gateway";
const NODE: &str = "clawnode";
/// The exit code by which a node says that it belongs to no cluster.
const NODE_NOT_ENROLLED: i32 = 3;
/// How long the enrollment token of this machine is valid, seconds.
const TOKEN_TTL_S: u32 = 300;

/// Where the gateway said that it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listening {
    mcp_url: String,
    node_url: String,
    /// Who signed the certificate of the MCP endpoint, if it has one.
    ca_pem: Option<String>,
}

/// What runs below `claw up`.
#[derive(Debug)]
struct Running {
    gateway: Child,
    node: Option<Child>,
    /// The note that says where the gateway listens, once it is written.
    note: Option<PathBuf>,
}

/// Starts both, shows how to connect, and stays until it is told to stop or one of them ends.
pub(crate) async fn run(connection: &Connection, options: &UpOptions, screen: &Screen) -> Result<Exit, CliError> {
    let (gateway_program, node_program) = (program(GATEWAY)?, program(NODE)?);
    let data_dir = private_dir(&connection.data_dir)?;
    let mut running = Running { gateway: start_gateway(&gateway_program, &data_dir, options)?, node: None, note: None };
    // Told to stop at any moment, also while things start: nothing is left behind.
    let result = tokio::select! {
        result = serve(&mut running, &node_program, &data_dir, (connection, options), screen) => result,
        () = told_to_stop() => Ok(()),
    };
    screen.note("stopping\n")?;
    let node = match &mut running.node {
        Some(node) => node.stop().await,
        None => Ok(()),
    };
    let gateway = running.gateway.stop().await;
    if let Some(note) = &running.note
        && let Err(error) = fs::remove_file(note)
    {
        tracing::warn!(%error, "the note of where the gateway listened stays behind");
    }
    result.and(node).and(gateway).map(|()| Exit::Ok)
}

/// Brings both up, then waits; it ends by an error only.
async fn serve(
    running: &mut Running,
    node_program: &Path,
    data_dir: &Path,
    (connection, options): (&Connection, &UpOptions),
    screen: &Screen,
) -> Result<(), CliError> {
    let ready = {
        let _waiting = screen.wait("the gateway starts");
        running.gateway.line_that_begins("claw-gateway ready").await?
    };
    let listening = listening(&ready, connection.ca_pem()?).ok_or_else(|| CliError::Child {
        name: GATEWAY,
        why: "said something else than where it listens".to_owned(),
        log: vec![ready.clone()],
    })?;
    let session = admin_session(&listening, data_dir, screen).await?;
    let node_dir = data_dir.join("node");
    join(&session, node_program, &node_dir, &listening, options).await?;
    let node = running.node.insert(start_node(node_program, &node_dir, data_dir, options, &listening)?);
    let ready = {
        let _waiting = screen.wait("the node connects");
        node.line_that_begins("clawnode ready").await?
    };
    let node_id = value_of(&ready, "node_id").unwrap_or_default();
    let key = key::operator(&session, &listening, data_dir).await?;
    session.client.close().await;
    let note = data_dir.join(URL_FILE);
    fs::write(&note, &listening.mcp_url).map_err(|error| CliError::file(&note, error))?;
    running.note = Some(note);
    show(screen, &listening, &node_id, &key, data_dir)?;
    tokio::select! {
        error = running.gateway.ended() => Err(error),
        error = node.ended() => Err(error),
    }
}

/// The program beside this one, or else in `PATH`.
pub(crate) fn program(name: &'static str) -> Result<PathBuf, CliError> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let in_path = env::var_os("PATH").map(|path| env::split_paths(&path).map(|dir| dir.join(name)).collect::<Vec<_>>());
    let runs =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let mut places = beside.into_iter().chain(in_path.into_iter().flatten());
    places.find(runs).ok_or(CliError::ProgramMissing { name })
}

/// A folder that only this user can enter.
fn private_dir(path: &Path) -> Result<PathBuf, CliError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| CliError::file(path, error))?;
    fs::canonicalize(path).map_err(|error| CliError::file(path, error))
}

fn start_gateway(program: &Path, data_dir: &Path, options: &UpOptions) -> Result<Child, CliError> {
    let mut command = tokio::process::Command::new(program);
    command.arg("run").arg("--data-dir").arg(data_dir);
    if let Some(config) = &options.gateway_config {
        command.arg("--config").arg(config);
    }
    if let Some(address) = &options.http {
        command.arg("--http").arg(address);
    }
    if let Some(address) = &options.node_port {
        command.arg("--node").arg(address);
    }
    Child::start(GATEWAY, command, &data_dir.join("gateway.log"))
}

fn start_node(
    program: &Path,
    node_dir: &Path,
    data_dir: &Path,
    options: &UpOptions,
    listening: &Listening,
) -> Result<Child, CliError> {
    let mut command = tokio::process::Command::new(program);
    command.arg("run").arg("--data-dir").arg(node_dir);
    // The port may be another one than when it joined.
    if let Some(address) = listening.node_url.strip_prefix("https://") {
        command.env("CLAWNODE_GATEWAY_URL", format!("wss://{address}/node"));
    }
    if let Some(config) = &options.node_config {
        command.arg("--config").arg(config);
    }
    if let Some(driver) = &options.gpu {
        command.env("CLAWNODE_GPU", driver);
    }
    if options.allow_processes {
        command.env("CLAWNODE_RUNTIME_PROCESS_ENABLED", "true");
    }
    Child::start(NODE, command, &data_dir.join("node.log"))
}

/// `claw-gateway ready mcp=<url> node=<url>`.
fn listening(line: &str, ca_pem: Option<String>) -> Option<Listening> {
    Some(Listening { mcp_url: value_of(line, "mcp")?, node_url: value_of(line, "node")?, ca_pem })
}

fn value_of(line: &str, name: &str) -> Option<String> {
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.map(str::to_owned)
}

async fn admin_session<'a>(
    listening: &Listening,
    data_dir: &Path,
    screen: &'a Screen,
) -> Result<Session<'a>, CliError> {
    let path = data_dir.join(ADMIN_KEY_FILE);
    let key = fs::read_to_string(&path).map_err(|error| CliError::file(&path, error))?;
    let endpoint = Endpoint {
        url: listening.mcp_url.clone(),
        key: Some(Secret::new(key.trim())),
        ca_pem: listening.ca_pem.clone(),
    };
    let client = GatewayClient::connect_to(&endpoint).await?;
    Ok(Session { client, screen })
}

/// Enrolls this machine with a token made for it alone, unless it is enrolled already.
async fn join(
    session: &Session<'_>,
    program: &Path,
    node_dir: &Path,
    listening: &Listening,
    options: &UpOptions,
) -> Result<(), CliError> {
    if is_enrolled(program, node_dir).await? {
        return Ok(());
    }
    let name = options.name.clone().unwrap_or_else(host_name);
    let args = json!({ "name": name, "ttl_s": TOKEN_TTL_S, "reason": "claw up" });
    let outcome: Outcome = crate::approve::ask(session, "node_token_create", args).await?;
    let token = outcome.credential.and_then(|credential| credential.secret);
    let token = token.ok_or_else(|| CliError::Protocol {
        url: listening.mcp_url.clone(),
        why: "node_token_create answered without a token".to_owned(),
    })?;
    let mut command = tokio::process::Command::new(program);
    command.arg("join").arg(&listening.node_url).arg("--data-dir").arg(node_dir).arg("--name").arg(&name);
    // Not as an argument: other users see those.
    command.env("CLAWNODE_JOIN_TOKEN", token);
    children::run_to_end(NODE, &mut command, &[]).await.map(drop)
}

/// The node itself knows what its folder holds.
async fn is_enrolled(program: &Path, node_dir: &Path) -> Result<bool, CliError> {
    let mut command = tokio::process::Command::new(program);
    command.arg("status").arg("--data-dir").arg(node_dir);
    let code = children::run_to_end(NODE, &mut command, &[NODE_NOT_ENROLLED]).await?;
    Ok(code != NODE_NOT_ENROLLED)
}

/// The machine's name as a node's: lower-case letters, digits and dashes.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    let clean: String = first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let clean = clean.trim_matches('-');
    if clean.is_empty() { "this-machine".to_owned() } else { clean.to_owned() }
}

fn show(
    screen: &Screen,
    listening: &Listening,
    node_id: &str,
    key: &key::Operator,
    data_dir: &Path,
) -> Result<(), CliError> {
    let add = format!(
        "claude mcp add --transport http clawbernetes {} --header \"Authorization: Bearer {}\"",
        listening.mcp_url,
        key.secret.expose()
    );
    if screen.is_json() {
        let mut content = Map::new();
        content.insert("mcp_url".into(), listening.mcp_url.as_str().into());
        content.insert("node_url".into(), listening.node_url.as_str().into());
        content.insert("node_id".into(), node_id.into());
        content.insert("operator_key_file".into(), key.path.display().to_string().into());
        content.insert("claude_mcp_add".into(), add.into());
        return Ok(screen.json(&content.into())?);
    }
    let style = screen.style();
    let text = format!(
        "{}\n  MCP endpoint   {}\n  this machine   {}\n  agent's key    {} (role operator)\n  logs           {}\n\n{}\n  {add}\n\n{}\n  claw cluster status\n  claw workload run --mode plan \"Run Llama 70B on 4 H100s\"\n\nCtrl-C stops both.\n",
        style.heading("Clawbernetes is up"),
        render::safe(&listening.mcp_url),
        render::safe(node_id),
        key.path.display(),
        data_dir.join("{gateway,node}.log").display(),
        style.heading("Connect an agent"),
        style.heading("Look around"),
    );
    Ok(screen.print(&text)?)
}

/// Ctrl-C, or TERM from a service manager.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}
