//! The reference of the command line in the guide, kept true by a test.

use std::fmt::Write as _;

use claw_tools::def::OpDef;
use claw_tools::registry::OPERATIONS;
use expect_test::expect_file;

use crate::cli::confirmable;
use crate::exit::Exit;
use crate::fields::{self, COMMON, Field, Kind};
use crate::run_flags;

const HEAD: &str = "# Command line reference

Made from the definitions of the operations; a test keeps it true. `claw <noun> <verb> --help` says the same.

Every operation also takes `--json` (print exactly what the gateway answered). Reads take `--watch [SECONDS]`. `claw workload logs`
takes `--follow`; `claw workload copy` takes `--to FILE|DIR`, which saves a file or a whole folder.
Changes take `--mode plan|apply`, `--request-id KEY` (a retry with the same key has one effect), `--reason TEXT` and
`--wait-s SECONDS`; those that can be planned take `--confirm HASH`, which applies the waiting plan whose hash begins so.

The gateway is found by `--gateway` or `CLAW_GATEWAY`, else by what `claw up` left in the data folder, else at
`http://127.0.0.1:7700/mcp`. The key is `--key` or `CLAW_API_KEY`, else the content of `--key-file`, else `admin.key` in
the data folder (`--data-dir` or `CLAW_DATA_DIR`, `~/.local/share/clawbernetes` if neither is set). `CLAW_LOG=debug`
shows what happens on the wire; `NO_COLOR` turns colors off.

An argument that is JSON is given as text, as `@FILE` (JSON, or TOML if it ends in `.toml`), or as `-` for standard input.

## Exit codes

";

fn takes(field: &Field) -> String {
    match &field.kind {
        Kind::Text => "text".to_owned(),
        Kind::Choice(values) => values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "),
        Kind::Integer(least, i64::MAX) => format!("whole number from {least}"),
        Kind::Integer(least, most) => format!("whole number, {least} to {most}"),
        Kind::Number => "number".to_owned(),
        Kind::Boolean => "`true`, `false`".to_owned(),
        Kind::List(item) => {
            let item = Field { kind: (**item).clone(), ..field.clone() };
            format!("{}; repeatable", takes(&item))
        }
        Kind::Map => "`KEY=VALUE`; repeatable".to_owned(),
        Kind::Json => "JSON".to_owned(),
        Kind::Secret => "a file, or `-` for standard input".to_owned(),
        Kind::Argv => "a program and its arguments".to_owned(),
    }
}

fn section(op: &OpDef) -> String {
    let (noun, verb) = op.cli_path();
    let all = fields::of(op);
    let subject = all.iter().find(|field| field.positional);
    let subject = subject.map(|field| format!(" {}", field.value_name()));
    let name = format!("{noun} {}{}", verb.unwrap_or_default(), subject.unwrap_or_default());
    let mut text = format!("### claw {}\n\n{}\n\n", name.trim_end(), op.doc);
    let kind = match (op.read_only, confirmable(op)) {
        (true, _) => "a read".to_owned(),
        (false, true) => format!("a change of tier {} at least, which can be planned", op.tier),
        (false, false) => format!("a change of tier {} at least", op.tier),
    };
    writeln!(text, "Operation `{}`: {kind}; needs `{}`.", op.name, op.permission).expect("writing to a string");
    let own: Vec<&Field> = all
        .iter()
        .filter(|field| !COMMON.contains(&field.name.as_str()) || (op.read_only && field.name == "wait_s"))
        .collect();
    if !own.is_empty() {
        text.push_str("\n| argument | takes | meaning |\n|---|---|---|\n");
    }
    for field in own {
        let flag = match (field.positional, run_flags::replaces(op, field)) {
            _ if field.kind == Kind::Argv => "`-- COMMAND`".to_owned(),
            (true, _) => format!("`{}`", field.value_name()),
            (false, true) => "`WORDS`".to_owned(),
            (false, false) => format!("`--{}`", field.flag()),
        };
        let needed = if field.required { " (required)" } else { "" };
        writeln!(text, "| {flag}{needed} | {} | {} |", takes(field), field.help).expect("writing to a string");
    }
    text
}

#[test]
fn the_reference_is_true() {
    let mut text = HEAD.to_owned();
    text.push_str("| code | meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        writeln!(text, "| {} | {} |", exit.code(), exit.meaning()).expect("writing to a string");
    }
    text.push_str("\n## Operations\n");
    for op in OPERATIONS {
        write!(text, "\n{}", section(op)).expect("writing to a string");
    }
    text.push_str("\n## Short ways of `claw workload run`\n\nA few flags and a command after `--` make the specification; they also change one given by `--spec`.\n\n| flag | place in the specification |\n|---|---|\n");
    for (flag, path) in run_flags::FLAGS {
        writeln!(text, "| `--{flag}` | `{path}` |").expect("writing to a string");
    }
    text.push_str(LOCAL);
    expect_file!["../../../gateway/docs/guide/cli.md"].assert_eq(&text);
}

const LOCAL: &str = "
## Commands of this machine

| command | what it does |
|---|---|
| `claw up` | runs a gateway and this machine as a node, makes a key of role operator for agents, and shows how to connect one |
| `claw bench sched` | replays a trace of a GPU cluster with a policy of placement |
| `claw bench jct` | replays a trace of gang jobs with a policy of the queue |
| `claw bench backfill` | measures promised starts and backfill on a seeded trace and checks each decision |
| `claw intent parse --jsonl` | answers intent cases from standard input, without a gateway |
| `claw intent parse --llm` | lets a language model propose where the grammar of this machine is unsure; `CLAW_LLM_URL`, `CLAW_LLM_MODEL` and, if it needs a key, `CLAW_LLM_KEY_FILE` or `CLAW_LLM_KEY` name it; with `--jsonl` for each case |
| `claw eval intents CASES` | scores the intent engine, or an answer file, against cases; with `--random N`, tries N made-up requests and tells panics and times |
| `claw model list` | lists the catalogue of models |
| `claw model fit MODEL` | says whether a model fits GPUs, with its context, and which would do |
| `claw doctor` | looks for what is missing on this machine and says how to mend it |
| `claw mcp` | is an MCP server on standard input and output that hands everything on to the gateway with this key |
| `claw call TOOL JSON` | calls any operation by its name |
| `claw tools` | lists all operations |
| `claw completion SHELL` | prints a completion script for `bash`, `zsh` or `fish` |

## Plans, and who confirms them

A change of tier 2 or 3 is refused with `PLAN_REQUIRED` until it was planned. On a terminal `claw` makes the plan, shows
its diff and asks for the first 8 characters of its hash; then it approves and applies exactly that plan. Where nobody
can be asked it prints the two commands that do the same and ends with 2. A plan that is out of date is refused
(`STALE_PLAN`), and one's own tier 3 plan cannot be approved by oneself unless the gateway's configuration allows it.
";
