//! The command line: every operation of the registry, and a few commands of this machine.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;
use claw_gateway::scheduler::jobs::{GPUS_PER_NODE_MAX, Policy as QueuePolicy};
use claw_gateway::scheduler::packing::Policy;
use claw_tools::def::OpDef;
use claw_tools::registry::OPERATIONS;
use serde_json::{Map, Value};

use crate::bench::backfill::BackfillOptions;
use crate::bench::jct::JctOptions;
use crate::bench::{FleetOptions, SchedOptions};
use crate::credentials::{Connection, GATEWAY_DEFAULT, Secret, default_data_dir};
use crate::diagnose::{self, DiagnoseOptions};
use crate::error::CliError;
use crate::exit::Exit;
use crate::intents::{self, IntentCommand};
use crate::models::{self, ModelCommand};
use crate::{generate, json_input};

/// Seconds between two looks of `--watch`.
const WATCH_S_DEFAULT: &str = "2";
/// The operation that can be followed.
const LOGS: &str = "workload_logs";
/// The operation that this machine can do alone, too.
const DIAGNOSE: &str = "diagnose";
/// The operation whose answer can be saved.
const COPY: &str = "workload_copy";
/// Takes cases from standard input too.
const PARSE: &str = "intent_parse";
/// Fewest characters of a plan's hash that confirm it.
pub(crate) const HASH_CHARS_MIN: usize = 8;

/// A parsed command line.
#[derive(Debug, Clone)]
pub struct Cli {
    /// Print exactly what the gateway answered.
    pub json: bool,
    /// Which gateway and which key.
    pub connection: Connection,
    /// What to do.
    pub command: Commands,
}

/// What a command line asks for.
#[derive(Debug, Clone)]
pub enum Commands {
    /// One operation, generated from its definition.
    Operation {
        /// Which.
        op: &'static OpDef,
        /// Its arguments.
        args: Map<String, Value>,
        /// Look again every so many seconds.
        watch_s: Option<u64>,
        /// Go on with the lines that come (logs only).
        follow: bool,
        /// Where what is read is saved (outputs only).
        to: Option<PathBuf>,
        /// The first characters of the hash of a plan that a person has looked at.
        confirm: Option<String>,
    },
    /// One operation, by its name and arguments as JSON.
    Call {
        /// Name.
        tool: String,
        /// Arguments.
        args: Map<String, Value>,
    },
    /// List all operations.
    Tools,
    /// Print a completion script.
    Completion {
        /// For which shell.
        shell: Shell,
    },
    /// Be an MCP server on standard input and output, with the caller's key.
    Mcp,
    /// Look for what is missing on this machine.
    Doctor,
    /// Run a gateway and this machine as a node.
    Up(UpOptions),
    /// Replay a trace with a policy of placement.
    BenchSched(SchedOptions),
    /// Scan generated log lines for faults.
    BenchScan {
        /// How many.
        lines: usize,
    },
    /// Tell what logs say about GPU faults.
    Diagnose(DiagnoseOptions),
    /// Replay a trace of jobs with a policy of the queue.
    BenchJct(JctOptions),
    /// Ask the intent engine of this machine.
    Intents(IntentCommand),
    /// Measure promised starts and backfill.
    BenchBackfill(BackfillOptions),
    /// Look at the catalogue of models.
    Models(ModelCommand),
}

/// How `claw up` starts things.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpOptions {
    /// Name of this machine as a node; its host name if absent.
    pub name: Option<String>,
    /// Configuration file of the gateway.
    pub gateway_config: Option<PathBuf>,
    /// Configuration file of the node.
    pub node_config: Option<PathBuf>,
    /// Address of the gateway's HTTP port.
    pub http: Option<String>,
    /// Address of the gateway's port for nodes.
    pub node_port: Option<String>,
    /// GPU driver of this machine's node.
    pub gpu: Option<String>,
    /// Workloads may run as processes of this machine, without isolation.
    pub allow_processes: bool,
}

/// Why a command line was not understood.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Help was asked for, or clap says what is wrong.
    #[error(transparent)]
    Clap(#[from] clap::Error),
    /// An argument's content is wrong.
    #[error(transparent)]
    Content(#[from] CliError),
}

impl Cli {
    /// Understands a command line, the program's name first.
    pub fn parse_from<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<Self, ParseError> {
        let matches = command().try_get_matches_from(words)?;
        let (name, inner) = matches.subcommand().ok_or(CliError::Usage("say what to do"))?;
        let command = commands(name, inner)?;
        let leaf = deepest(&matches);
        Ok(Self { json: leaf.get_flag("json"), connection: connection(leaf), command })
    }
}

/// Global arguments are known at every level; the deepest one has them all.
fn deepest(matches: &ArgMatches) -> &ArgMatches {
    match matches.subcommand() {
        Some((_, inner)) => deepest(inner),
        None => matches,
    }
}

fn connection(matches: &ArgMatches) -> Connection {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    Connection {
        gateway: text("gateway"),
        key: text("key").filter(|key| !key.is_empty()).map(Secret::new),
        key_file: path("key-file"),
        ca_file: path("ca-file"),
        data_dir: path("data-dir").unwrap_or_else(|| {
            let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
            default_data_dir(variable("XDG_DATA_HOME").as_deref(), variable("HOME").as_deref())
        }),
    }
}

fn commands(name: &str, matches: &ArgMatches) -> Result<Commands, ParseError> {
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    let path = |id: &str| matches.get_one::<PathBuf>(id).cloned();
    Ok(match name {
        "call" => Commands::Call {
            tool: text("tool").unwrap_or_default(),
            args: json_input::read_object("the argument object", &text("args").unwrap_or_default())?,
        },
        "tools" => Commands::Tools,
        "completion" => Commands::Completion {
            shell: text("shell").and_then(|name| name.parse().ok()).ok_or(CliError::Usage("say which shell"))?,
        },
        "mcp" => Commands::Mcp,
        "doctor" => Commands::Doctor,
        "up" => Commands::Up(UpOptions {
            name: text("name"),
            gateway_config: path("gateway-config"),
            node_config: path("node-config"),
            http: text("http"),
            node_port: text("node-port"),
            gpu: text("gpu"),
            allow_processes: matches.get_flag("allow-processes"),
        }),
        "bench" => bench(matches)?,
        "eval" => Commands::Intents(intents::eval_of(matches)?),
        "model" => Commands::Models(models::model(matches)),
        noun => operation(noun, matches)?,
    })
}

fn bench(matches: &ArgMatches) -> Result<Commands, ParseError> {
    if let Some(scan) = matches.subcommand_matches("scan") {
        let lines = scan.get_one::<u64>("lines").and_then(|n| usize::try_from(*n).ok()).unwrap_or_default();
        return Ok(Commands::BenchScan { lines });
    }
    if let Some(inner) = matches.subcommand_matches("jct") {
        let policy = inner.get_one::<String>("policy").and_then(|name| QueuePolicy::from_text(name));
        return Ok(Commands::BenchJct(JctOptions {
            policy: policy.unwrap_or(QueuePolicy::Ours),
            trace: inner.get_one::<PathBuf>("trace").cloned().unwrap_or_default(),
            fleet: fleet(inner)?,
        }));
    }
    if let Some(inner) = matches.subcommand_matches("backfill") {
        let number = |id: &str| inner.get_one::<u64>(id).copied().unwrap_or_default();
        return Ok(Commands::BenchBackfill(BackfillOptions {
            jobs: usize::try_from(number("jobs")).unwrap_or(usize::MAX),
            load_percent: number("load"),
            seed: number("seed"),
            faults: number("faults"),
            fleet: fleet(inner)?,
        }));
    }
    let inner = matches.subcommand_matches("sched").ok_or(CliError::Usage("say what to measure"))?;
    let path = |id: &str| inner.get_one::<PathBuf>(id).cloned().unwrap_or_default();
    let policy = inner.get_one::<String>("policy").and_then(|name| Policy::from_text(name));
    let share = |id: &str| inner.get_one::<f64>(id).copied();
    let is_share = |share: &f64| *share > 0.0 && *share <= 10.0;
    let arrival = share("arrival")
        .filter(is_share)
        .ok_or(CliError::Usage("--arrival is demand over capacity: above 0 and at most 10, such as 1.3"))?;
    let window = inner.get_one::<u64>("window").and_then(|n| usize::try_from(*n).ok()).unwrap_or(0);
    let offered = share("offered").unwrap_or(arrival);
    if !is_share(&offered) || (share("offered").is_some() && (window == 0 || inner.get_flag("core"))) {
        return Err(
            CliError::Usage("--offered is for --window without --core: above 0 and at most 10, such as 1.3").into()
        );
    }
    Ok(Commands::BenchSched(SchedOptions {
        policy: policy.unwrap_or(Policy::Ours),
        nodes: path("nodes"),
        pods: path("pods"),
        seeds: inner.get_one::<u64>("seeds").copied().unwrap_or(10),
        arrival,
        window,
        times: inner.get_one::<u64>("times").and_then(|n| usize::try_from(*n).ok()).unwrap_or(1),
        offered,
        core: inner.get_flag("core"),
        scan: inner.get_flag("scan"),
    }))
}

fn fleet(matches: &ArgMatches) -> Result<FleetOptions, ParseError> {
    let number = |id: &str| matches.get_one::<u32>(id).copied().unwrap_or_default();
    let (gpus, gpus_per_node) = (number("gpus"), number("gpus-per-node"));
    if gpus_per_node == 0 || gpus == 0 || !gpus.is_multiple_of(gpus_per_node) {
        return Err(CliError::Usage("--gpus is a whole number of nodes of --gpus-per-node GPUs").into());
    }
    Ok(FleetOptions { gpus, gpus_per_node, restart_s: u64::from(number("restart-s")) })
}

fn operation(noun: &str, matches: &ArgMatches) -> Result<Commands, ParseError> {
    let (verb, inner) = match matches.subcommand() {
        Some((verb, inner)) => (Some(verb.to_owned()), inner),
        None => (None, matches),
    };
    let path = (noun.to_owned(), verb);
    let op = OPERATIONS.iter().find(|op| op.cli_path() == path);
    let op = op.ok_or(CliError::Usage("there is no such operation"))?;
    if op.name == PARSE
        && let Some(command) = intents::parse_of(inner)?
    {
        return Ok(Commands::Intents(command));
    }
    let watch_s = op.read_only.then(|| inner.get_one::<u64>("watch").copied()).flatten();
    let confirm = confirmable(op).then(|| inner.get_one::<String>("confirm").cloned()).flatten();
    if confirm.as_ref().is_some_and(|hash| hash.len() < HASH_CHARS_MIN) {
        return Err(CliError::Usage("--confirm takes at least 8 characters of the plan's hash").into());
    }
    if op.name == DIAGNOSE
        && let Some(options) = diagnose::options(inner)
    {
        return Ok(Commands::Diagnose(options));
    }
    let follow = op.name == LOGS && inner.get_flag("follow");
    let to = (op.name == COPY).then(|| inner.get_one::<PathBuf>("to").cloned()).flatten();
    Ok(Commands::Operation { op, args: generate::arguments(op, inner)?, watch_s, follow, to, confirm })
}

/// The operation can be planned first and then confirmed.
pub(crate) fn confirmable(op: &OpDef) -> bool {
    (op.params_schema)()["properties"].get("mode").is_some()
}

/// The whole clap command.
pub fn command() -> Command {
    let styles = Styles::styled()
        .header(AnsiColor::Green.on_default().bold())
        .usage(AnsiColor::Green.on_default().bold())
        .literal(AnsiColor::Cyan.on_default());
    Command::new("claw")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Clawbernetes: a GPU fleet that agents run and people can trust")
        .styles(styles)
        .arg_required_else_help(true)
        .subcommand_required(true)
        .max_term_width(100)
        .args(globals())
        .subcommands(operations())
        .subcommands(locals())
        .subcommands(intents::commands())
        .subcommand(models::command())
        .after_help(format!("Exit codes:\n{}", Exit::table()))
}

fn globals() -> Vec<Arg> {
    let global = |name: &'static str| Arg::new(name).long(name).global(true).help_heading("Global");
    let rare = |name| global(name).hide_short_help(true);
    let path = |name| rare(name).value_parser(value_parser!(PathBuf)).value_hint(ValueHint::FilePath);
    vec![
        global("json").action(ArgAction::SetTrue).help("Print exactly what the gateway answered, as JSON"),
        rare("gateway")
            .value_name("URL")
            .env("CLAW_GATEWAY")
            .hide_env_values(true)
            .help(format!("MCP endpoint of the gateway [default: that of `claw up`, or {GATEWAY_DEFAULT}]")),
        rare("key")
            .value_name("KEY")
            .env("CLAW_API_KEY")
            .hide_env_values(true)
            .help("API key; other users of this machine can see it here, not in a variable or file"),
        path("key-file").value_name("FILE").help("File that holds the API key [default: admin.key in the data folder]"),
        path("data-dir")
            .value_name("DIR")
            .env("CLAW_DATA_DIR")
            .hide_env_values(true)
            .value_hint(ValueHint::DirPath)
            .help("Data folder of a gateway on this machine [default: ~/.local/share/clawbernetes]"),
        path("ca-file")
            .value_name("FILE")
            .env("CLAW_CA_FILE")
            .hide_env_values(true)
            .help("Authority that signed the gateway's certificate, PEM"),
    ]
}

/// One command for each noun, with the verbs below it.
fn operations() -> Vec<Command> {
    let mut nouns: Vec<Command> = Vec::new();
    for op in OPERATIONS {
        let (noun, verb) = op.cli_path();
        let leaf = with_run_options(op, generate::command(op));
        if verb.is_none() {
            nouns.push(leaf);
            continue;
        }
        match nouns.iter_mut().find(|known| known.get_name() == noun) {
            Some(known) => *known = std::mem::take(known).subcommand(leaf),
            None => nouns.push(
                Command::new(noun.clone())
                    .about(noun_about(&noun))
                    .subcommand_required(true)
                    .arg_required_else_help(true)
                    .subcommand(leaf),
            ),
        }
    }
    nouns
}

/// The verbs of a noun.
fn noun_about(noun: &str) -> String {
    let paths = OPERATIONS.iter().map(OpDef::cli_path);
    let verbs = paths.filter_map(|(of, verb)| verb.filter(|_| of == noun));
    verbs.collect::<Vec<_>>().join(" · ")
}

/// What the CLI adds to an operation.
fn with_run_options(op: &OpDef, leaf: Command) -> Command {
    if op.read_only {
        let leaf = match op.name {
            LOGS => leaf.arg(follow()),
            COPY => leaf.arg(save_to()),
            DIAGNOSE => diagnose::extend(leaf),
            PARSE => intents::with_lines(leaf),
            _ => leaf,
        };
        return leaf.arg(
            Arg::new("watch")
                .long("watch")
                .value_name("SECONDS")
                .num_args(0..=1)
                .default_missing_value(WATCH_S_DEFAULT)
                .value_parser(value_parser!(u64).range(1..=3600))
                .help_heading("Output")
                .help("Look again every so many seconds (2 unless given)"),
        );
    }
    if confirmable(op) {
        return leaf.arg(
            Arg::new("confirm")
                .long("confirm")
                .value_name("HASH")
                .conflicts_with("mode")
                .help_heading("Every change")
                .help("Apply the waiting plan whose hash begins so (at least 8 characters; see --mode plan)"),
        );
    }
    leaf
}

fn follow() -> Arg {
    Arg::new("follow")
        .long("follow")
        .short('f')
        .action(ArgAction::SetTrue)
        .conflicts_with_all(["watch", "wait_s"])
        .help_heading("Output")
        .help("Go on with the lines that come, until the workload has ended")
}

fn save_to() -> Arg {
    Arg::new("to")
        .long("to")
        .value_name("FILE|DIR")
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::AnyPath)
        .conflicts_with_all(["watch", "offset", "bytes_max", "encoding"])
        .help_heading("Output")
        .help("Save the file, or the folder with all that is below it, here")
}

fn locals() -> Vec<Command> {
    vec![
        Command::new("call")
            .about("Call any operation by its name")
            .arg(Arg::new("tool").value_name("TOOL").required(true).help("Name, such as node_list"))
            .arg(
                Arg::new("args")
                    .value_name("JSON|@FILE|-")
                    .default_value("{}")
                    .hide_default_value(true)
                    .help("Arguments: JSON text, a file (JSON or TOML), or - for standard input"),
            ),
        Command::new("tools").about("List all operations"),
        up(),
        bench_command(),
        Command::new("doctor").about("Look for what is missing on this machine, and say how to mend it"),
        Command::new("mcp").about("Be an MCP server on standard input and output, with this key"),
        Command::new("completion")
            .about("Print a completion script")
            .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(["bash", "zsh", "fish"])),
    ]
}

/// `--NAME VALUE`.
fn value_arg(name: &'static str, value_name: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value_name)
}

/// `--NAME CSV`, which has to be said.
fn file_arg(name: &'static str) -> Arg {
    value_arg(name, "CSV").required(true).value_parser(value_parser!(PathBuf)).value_hint(ValueHint::FilePath)
}

fn bench_command() -> Command {
    let scan = Command::new("scan")
        .about("Read generated log lines for faults, beside ripgrep with the same texts where it is installed")
        .arg(
            value_arg("lines", "N")
                .default_value("1000000")
                .value_parser(value_parser!(u64).range(crate::bench_scan::LEAST_LINES..=20_000_000))
                .help("Lines; every thousandth is one of five faults"),
        );
    let policies: Vec<&str> = QueuePolicy::ALL.iter().map(|policy| policy.as_str()).collect();
    let jct = Command::new("jct")
        .about("Replay a trace of gang jobs and tell how long they take from submission to end")
        .long_about(
            "Replays a trace of gang jobs on equal nodes, event by event. A gang starts whole or not at all; one of \
             at most a node's GPUs stands on one node. Whoever is stopped or moved holds its GPUs for --restart-s \
             with its next start before it works on, the same for every policy. What a policy knows of run times is \
             in the answer.",
        )
        .arg(value_arg("policy", "POLICY").default_value("ours").value_parser(policies).help("Policy of the queue"))
        .arg(
            file_arg("trace")
                .help("Jobs: columns timestamp, duration, num_gpus; cluster and limit if there; .gz or not"),
        )
        .args(fleet_args("480"));
    Command::new("bench")
        .about("Measure something on this machine, without a gateway")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(sched_command())
        .subcommand(scan)
        .subcommand(jct)
        .subcommand(backfill_command())
}

fn sched_command() -> Command {
    let policies: Vec<&str> = Policy::ALL.iter().map(|policy| policy.as_str()).collect();
    Command::new("sched")
        .about("Replay a trace of a GPU cluster and tell how much of it a policy allocates")
        .long_about(
            "Replays a trace by the protocol of the openb trace (Weng et al., USENIX ATC 2023): shuffled by the seed, \
             brought to 130 % of the fleet's GPUs, one request at a time, no departures. The allocation is read where \
             the arrived demand is --arrival. With --window so many requests may wait, and the allocation is what \
             stands at the end. Who is served first of those that wait, and who is turned away early where more is \
             --offered than there is, is what did best in rehearsals with work drawn from what is typical.",
        )
        .arg(value_arg("policy", "POLICY").default_value("ours").value_parser(policies).help("Policy of placement"))
        .arg(file_arg("nodes").help("Machines: sn,cpu_milli,memory_mib,gpu,model"))
        .arg(file_arg("pods").help("Requests: name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec"))
        .arg(
            value_arg("seeds", "N")
                .default_value("10")
                .value_parser(value_parser!(u64).range(1..=1000))
                .help("Seeds, from 0"),
        )
        .arg(
            value_arg("arrival", "A")
                .default_value("1.3")
                .value_parser(value_parser!(f64))
                .help("Arrived demand over the fleet's GPUs"),
        )
        .arg(
            value_arg("window", "W")
                .default_value("0")
                .value_parser(value_parser!(u64).range(0..=100_000))
                .help("Requests that may wait"),
        )
        .arg(
            value_arg("times", "N")
                .default_value("1")
                .value_parser(value_parser!(u64).range(1..=1_000))
                .help("So many of each machine, for a larger fleet; requests are drawn from the trace again"),
        )
        .arg(value_arg("offered", "L").value_parser(value_parser!(f64)).help(
            "With --window: demand in all over the fleet's GPUs, as far as the queue knows; 1 for nothing over [default: --arrival]",
        ))
        .arg(Arg::new("core").long("core").action(ArgAction::SetTrue).help(
            "Through the gateway's core (`step`, reports, auditor) and its own policy, which learns what is typical",
        ))
        .arg(
            Arg::new("scan")
                .long("scan")
                .action(ArgAction::SetTrue)
                .help("With --policy fgd: ask every machine at every decision, as published; states are measured once"),
        )
}

fn backfill_command() -> Command {
    let number = |name: &'static str, default: &'static str, range: std::ops::RangeInclusive<u64>| {
        let parser = value_parser!(u64).range(range);
        Arg::new(name).long(name).value_name("N").default_value(default).value_parser(parser)
    };
    Command::new("backfill")
        .about("Measure promised starts and backfill on a seeded trace, each decision checked")
        .long_about(
            "Replays a seeded trace of gang jobs with time limits: the first eight of the queue have promised starts \
             (reserve), the first alone (easy), nobody and no backfill (fifo), nobody at all (greedy). A checker with books of its own judges \
             every decision; faults of twenty kinds are planted into histories, which it has to reject.",
        )
        .arg(number("jobs", "10000", 1..=1_000_000).help("Jobs of the trace"))
        .arg(number("load", "100", 1..=1_000).help("What they offer of the fleet on average, percent"))
        .arg(number("seed", "1", 0..=u64::MAX / 2_000).help("Seed of the trace and of the faults"))
        .arg(number("faults", "10", 0..=10_000).help("Faults that are planted, of each kind"))
        .args(fleet_args("1024"))
}

fn fleet_args(gpus: &'static str) -> [Arg; 3] {
    let number = |name: &'static str, default: &'static str, most: u32| {
        let range = value_parser!(u32).range(0..=i64::from(most));
        Arg::new(name).long(name).value_name("N").default_value(default).value_parser(range)
    };
    [
        number("gpus", gpus, 1_000_000).help("GPUs in all"),
        number("gpus-per-node", "8", GPUS_PER_NODE_MAX).help("GPUs of each node"),
        number("restart-s", "60", 86_400).help("What a stop costs whom it stops, seconds"),
    ]
}

fn up() -> Command {
    let value = |name: &'static str, value_name| Arg::new(name).long(name).value_name(value_name);
    let file = |name| value(name, "FILE").value_parser(value_parser!(PathBuf)).value_hint(ValueHint::FilePath);
    Command::new("up")
        .about("Run a gateway and this machine as a node, and show how to connect an agent")
        .arg(value("name", "NAME").help("Name of this machine as a node [default: its host name]"))
        .arg(value("gpu", "DRIVER").help("GPU driver of the node: none, or simulated GPUs such as sim:h100x8"))
        .arg(
            Arg::new("allow-processes")
                .long("allow-processes")
                .action(ArgAction::SetTrue)
                .help("Let workloads run as processes of this machine, without isolation"),
        )
        .arg(value("http", "ADDR").help("Address of the gateway for agents and people [default: 127.0.0.1:7700]"))
        .arg(value("node-port", "ADDR").help("Address of the gateway for nodes [default: 127.0.0.1:7701]"))
        .arg(file("gateway-config").help("Configuration of the gateway"))
        .arg(file("node-config").help("Configuration of the node"))
}
