//! From a parsed command line to an exit code.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use claw_tools::def::OpDef;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::ErrorCode;
use claw_tools::registry::OPERATIONS;
use serde_json::{Map, Value, json};

use crate::cli::{Cli, Commands, ParseError, command, confirmable};
use crate::client::{CallReply, GatewayClient};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;
use crate::{
    approve, bench, bench_scan, bridge, diagnose, doctor, follow, generate, intents, models, render, save, up,
};

/// A call that takes no longer shows no sign of waiting.
const QUICK: Duration = Duration::from_millis(300);

/// A gateway and a screen: what a command works with.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) client: GatewayClient,
    pub(crate) screen: &'a Screen,
}

/// Runs one command line, the program's name first.
pub async fn run<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Exit {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    // Before the line is understood, only this decides how an error looks.
    let plain = Screen::detect(words.iter().any(|word| word == "--json"));
    let cli = match Cli::parse_from(words) {
        Ok(cli) => cli,
        Err(ParseError::Clap(error)) => return usage(&error),
        Err(ParseError::Content(error)) => return failed(&plain, &error),
    };
    let screen = Screen::detect(cli.json);
    match execute(&cli, &screen).await {
        Ok(exit) => exit,
        Err(error) => failed(&screen, &error),
    }
}

/// Help and version are wished for; anything else is a slip.
fn usage(error: &clap::Error) -> Exit {
    let wished = error.exit_code() == 0;
    match error.print() {
        Ok(()) if wished => Exit::Ok,
        _ => Exit::Usage,
    }
}

fn failed(screen: &Screen, error: &CliError) -> Exit {
    match screen.error(error) {
        Ok(()) => error.exit(),
        Err(_) => Exit::Fault,
    }
}

async fn execute(cli: &Cli, screen: &Screen) -> Result<Exit, CliError> {
    match &cli.command {
        Commands::Operation { op, args, watch_s, follow, to, confirm } => {
            let session = Session::open(cli, screen).await?;
            let exit = match (watch_s, confirm) {
                _ if to.is_some() => save::to(&session, args, to.as_deref().unwrap_or(Path::new("."))).await,
                _ if *follow => follow::lines(&session, args).await,
                (Some(seconds), _) => session.watch(op, args, *seconds).await,
                (None, Some(hash)) => {
                    let reply = approve::confirmed(&session, op, args, hash).await;
                    session.show(op, args, reply?)
                }
                (None, None) => session.once(op, args).await,
            };
            session.client.close().await;
            exit
        }
        Commands::Call { tool, args } => {
            let session = Session::open(cli, screen).await?;
            let reply = session.call(tool, args.clone()).await;
            let exit = match (claw_tools::registry::find(tool), reply?) {
                (Some(op), reply) => session.show(op, args, reply),
                (None, reply) => print(screen, None, args, &reply.content).map(|()| Exit::Ok),
            };
            session.client.close().await;
            exit
        }
        Commands::Tools => tools(screen),
        Commands::Completion { shell } => completion(screen, *shell),
        Commands::Mcp => bridge::serve(&cli.connection.endpoint()?).await,
        Commands::Doctor => doctor::run(&cli.connection, screen).await,
        Commands::BenchSched(options) => bench::sched(options, screen),
        Commands::BenchScan { lines } => bench_scan::run(*lines, screen),
        Commands::Diagnose(options) => diagnose::run(options, screen),
        Commands::BenchBackfill(options) => bench::backfill::backfill(options, screen),
        Commands::BenchJct(options) => bench::jct::jct(options, screen),
        Commands::Intents(command) => intents::run(command, screen).await,
        Commands::Models(command) => models::run(command, screen),
        Commands::Up(options) => up::run(&cli.connection, options, screen).await,
    }
}

impl<'a> Session<'a> {
    async fn open(cli: &Cli, screen: &'a Screen) -> Result<Self, CliError> {
        let client = GatewayClient::connect_to(&cli.connection.endpoint()?).await?;
        Ok(Self { client, screen })
    }

    /// One call, with a sign of waiting.
    pub(crate) async fn call(&self, tool: &str, args: Map<String, Value>) -> Result<CallReply, CliError> {
        let mut call = std::pin::pin!(self.client.call(tool, args.clone()));
        let reply = if let Ok(reply) = tokio::time::timeout(QUICK, &mut call).await {
            reply
        } else {
            let _waiting = self.screen.wait(&tool.replace('_', " "));
            call.await
        };
        reply.map_err(|error| with_own_args(error, tool, &args))
    }

    /// One operation. What has to be planned first is planned, shown and confirmed.
    async fn once(&self, op: &'static OpDef, args: &Map<String, Value>) -> Result<Exit, CliError> {
        let reply = match self.call(op.name, args.clone()).await {
            Err(error) if approve::can_mend(op, args, &error) => approve::plan_and_ask(self, op, args, error).await?,
            reply => reply?,
        };
        self.show(op, args, reply)
    }

    fn show(&self, op: &'static OpDef, args: &Map<String, Value>, reply: CallReply) -> Result<Exit, CliError> {
        print(self.screen, Some(op), args, &reply.content)?;
        if !self.screen.is_json()
            && let Some(hint) = how_to_confirm(op, args, &reply.content)
        {
            self.screen.print(&hint)?;
        }
        Ok(exit_of(op, args, &reply.content))
    }

    /// Looks again and again, until it is interrupted. A gateway that is away for a while is
    /// waited for.
    async fn watch(&self, op: &'static OpDef, args: &Map<String, Value>, seconds: u64) -> Result<Exit, CliError> {
        let mut ticks = tokio::time::interval(Duration::from_secs(seconds));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.client.call(op.name, args.clone()).await {
                Ok(reply) if self.screen.is_json() => {
                    self.screen.print(&format!("{}\n", reply.content))?;
                }
                Ok(reply) => {
                    let text = render::answer(Some(op), args, &reply.content, self.screen.style());
                    self.screen.redraw(&text)?;
                }
                Err(error @ CliError::Unreachable { .. }) => self.screen.error(&error)?,
                Err(error) => return Err(error),
            }
        }
    }
}

fn print(screen: &Screen, op: Option<&OpDef>, args: &Map<String, Value>, content: &Value) -> Result<(), CliError> {
    if screen.is_json() {
        screen.json(content)?;
    } else {
        screen.print(&render::answer(op, args, content, screen.style()))?;
    }
    Ok(())
}

/// How the exit code tells what an answer says.
pub(crate) fn exit_of(op: &OpDef, args: &Map<String, Value>, content: &Value) -> Exit {
    let state = |path: &str| content.pointer(path).and_then(Value::as_str).unwrap_or_default();
    match op.name {
        "workload_wait" => {
            let state = state("/workload/state");
            let wanted = args.get("states").and_then(Value::as_array);
            let wished = wanted.is_some_and(|states| states.iter().any(|wish| wish == state));
            let bad = matches!(state, "failed" | "lost") && !wished;
            if content["reached"] == json!(true) && !bad { Exit::Ok } else { Exit::NotReached }
        }
        "operation_wait" => {
            let bad = matches!(state("/operation/state"), "failed" | "canceled");
            if content["reached"] == json!(true) && !bad { Exit::Ok } else { Exit::NotReached }
        }
        _ if op.read_only => Exit::Ok,
        _ => {
            let waited = args.get("wait_s").and_then(Value::as_u64).is_some_and(|s| s > 0);
            match serde_json::from_value::<Outcome>(content.clone()) {
                // A command inside a workload that failed is no success of the one who asked for it.
                Ok(Outcome { exec: Some(exec), .. }) if exec.ended && exec.exit_code != Some(0) => Exit::NotReached,
                Ok(outcome) => match outcome.effect {
                    EffectKind::Refused => Exit::Refused,
                    EffectKind::Accepted | EffectKind::Queued if waited && outcome.observed.is_none() => {
                        Exit::NotReached
                    }
                    EffectKind::Accepted | EffectKind::Queued | EffectKind::Planned | EffectKind::NoChange => Exit::Ok,
                },
                Err(_) => Exit::Fault,
            }
        }
    }
}

/// After a plan that has to be approved: the command line that does both.
fn how_to_confirm(op: &OpDef, args: &Map<String, Value>, content: &Value) -> Option<String> {
    let outcome: Outcome = serde_json::from_value(content.clone()).ok()?;
    let plan = outcome.plan?;
    if outcome.effect != EffectKind::Planned || plan.approval_id.is_none() || !confirmable(op) {
        return None;
    }
    let mut args = args.clone();
    args.remove("mode");
    let line = generate::command_line(op.name, &Value::Object(args));
    let hash = approve::short_hash(&plan.diff_hash);
    Some(format!("\nTo approve and do exactly this:\n  {} --confirm {}\n", render::safe(&line), render::safe(hash)))
}

/// Every operation with its command line.
fn tools(screen: &Screen) -> Result<Exit, CliError> {
    let rows: Vec<Value> = OPERATIONS
        .iter()
        .map(|op| {
            let (noun, verb) = op.cli_path();
            json!({
                "tool": op.name,
                "command": format!("claw {noun} {}", verb.unwrap_or_default()).trim_end(),
                "title": op.title,
                "description": op.doc,
                "tier": op.tier,
                "permission": op.permission,
                "toolset": op.toolset,
                "core": op.core,
                "read_only": op.read_only,
            })
        })
        .collect();
    if screen.is_json() {
        screen.json(&Value::from(rows))?;
    } else {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let body = rows
            .iter()
            .map(|row| ["command", "tier", "permission", "title"].iter().map(|name| text(row, name)).collect())
            .collect();
        screen.print(&render::grid(&["command", "tier", "permission", "what it does"], body, screen.style()))?;
    }
    Ok(Exit::Ok)
}

fn completion(screen: &Screen, shell: clap_complete::Shell) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "claw", &mut script);
    let script = String::from_utf8(script).map_err(io::Error::other)?;
    screen.print(&script)?;
    Ok(Exit::Ok)
}

/// A refusal that wants a plan of the same operation means: with the same arguments.
fn with_own_args(mut error: CliError, tool: &str, args: &Map<String, Value>) -> CliError {
    if let CliError::Refused { refusal, .. } = &mut error
        && refusal.code == ErrorCode::PlanRequired
    {
        for call in refusal.next.iter_mut().filter(|call| call.tool == tool) {
            if let Value::Object(suggested) = &mut call.args {
                for (name, value) in args {
                    suggested.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
    }
    error
}

/// The refusal says that a plan has to be made first.
pub(crate) fn asks_for_plan(error: &CliError) -> bool {
    matches!(error, CliError::Refused { refusal, .. } if refusal.code == ErrorCode::PlanRequired)
}
