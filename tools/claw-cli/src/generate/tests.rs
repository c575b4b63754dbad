use std::fmt::Write as _;
use std::process::Command as Process;

use clap::Command;
use claw_tools::def::OpDef;
use claw_tools::registry::OPERATIONS;
use expect_test::expect_file;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use crate::cli::{Cli, Commands, command};
use crate::fields::{self, Field, Kind};
use crate::generate::command_line;

/// The operation and the arguments that a command line stands for.
fn parsed(words: &[String]) -> Result<(String, Map<String, Value>), String> {
    match Cli::parse_from(words).map_err(|error| error.to_string())?.command {
        Commands::Operation { op, args, .. } => Ok((op.name.to_owned(), args)),
        Commands::Call { tool, args } => Ok((tool, args)),
        other => Err(format!("{other:?}")),
    }
}

/// Splits a command line as a real shell does.
fn split_by_shell(line: &str) -> Vec<String> {
    let output = Process::new("sh").arg("-c").arg(format!("printf '%s\\0' {line}")).output();
    let text = String::from_utf8(output.expect("sh runs").stdout).expect("text");
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn the_command_tree_is_consistent() {
    command().debug_assert();
}

#[test]
fn command_lines_become_arguments() {
    let lines = [
        "claw cluster status",
        "claw node list --link online --labels zone=a --labels rack=7 --fields name --fields link --limit 5",
        "claw node get gpu-1",
        "claw node get --node gpu-1",
        "claw node drain gpu-1 --grace-s 30 --mode plan --reason 'fan noise' --wait-s 60 --json",
        "claw node label gpu-1 --set zone=a=b --set empty= --remove old",
        "claw node token-create --ttl-s 60",
        "claw gpu list --free --model H100",
        "claw gpu list --free false",
        "claw workload list --states running,failed --states lost",
        "claw workload run 'Run Llama 70B on 4 H100s' --mode plan",
        "claw workload run Run Llama 70B on 4 H100s",
        "claw workload run --name hello --runtime process --gpu-count 2 --gpu-model H100 --cpu-cores 0.5 --env A=1 --env B=x=y --port 80 --port 443 --node gpu-1 -- sh -c 'echo hello'",
        "claw workload run --spec '{\"image\":\"a:1\",\"gpu\":{\"count\":1}}' --gpu-model H100",
        "claw workload logs wl_x --since 2026-03-01T12:00:00Z --streams stderr --tail 5",
        "claw workload wait w --states running --wait-s 300",
        "claw workload exec w --timeout-s 5 -- cat /proc/1/status",
        "claw workload exec w",
        "claw workload copy w --path /out/model.bin --to /tmp",
        "claw workload copy w --to /tmp --offset 3",
        "claw secret set a --value /nonexistent/file",
        "claw approval decide apr_1 --decision approve --diff-hash 0123456789",
        "claw undo op_1",
        "claw api key-create alice --role operator --kind person",
        "claw call node_get '{\"node\":\"gpu-1\"}'",
        "claw call cluster_status",
        "claw node drain",
        "claw node drain gpu-1 --grace-s 99999",
        "claw node drian gpu-1",
        "claw node list --link onlin",
        "claw node label gpu-1 --set zone",
        "claw workload run",
        "claw workload run words -- command",
        "claw workload run --gpu-count many -- true",
        "claw workload run --spec '{\"gpu\":{\"cuont\":1}}'",
        "claw workload run --spec '[1]'",
        "claw node remove gpu-1 --confirm 1234567",
        "claw node remove gpu-1 --confirm 12345678 --mode plan",
        "claw call node_get '[1]'",
        "claw call node_get '{'",
    ];
    let mut table = String::new();
    for line in lines {
        let answer = match parsed(&split_by_shell(line)) {
            Ok((tool, args)) => format!("{tool} {}", Value::Object(args)),
            Err(error) => {
                let lines: Vec<&str> = error.lines().map(str::trim).collect();
                let told = lines.iter().take_while(|l| !l.starts_with("Usage:"));
                told.filter(|l| !l.is_empty()).copied().collect::<Vec<_>>().join(" / ")
            }
        };
        writeln!(table, "{line}\n    {answer}").expect("writing to a string");
    }
    expect_file!["../golden/command_lines.txt"].assert_eq(&table);
}

/// Any value of a kind.
fn value_of(kind: &Kind) -> BoxedStrategy<Value> {
    // Anything that a command line can carry: all but NUL.
    let text = || "[^\u{0}]{0,12}".prop_map(Value::from);
    match kind {
        Kind::Text => text().boxed(),
        Kind::Secret => "hunter2[a-z]{0,8}".prop_map(Value::from).boxed(),
        Kind::Argv => prop::collection::vec(text(), 1..4).prop_map(Value::from).boxed(),
        Kind::Choice(values) => select(values.clone()).prop_map(Value::from).boxed(),
        Kind::Integer(least, most) => (*least..=*most).prop_map(Value::from).boxed(),
        Kind::Number => (0_u32..1_000).prop_map(|n| json!(f64::from(n) / 4.0)).boxed(),
        Kind::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Kind::List(item) => prop::collection::vec(value_of(item), 1..4).prop_map(Value::from).boxed(),
        Kind::Map => {
            prop::collection::btree_map("[^=\u{0}]{1,8}", "[^\u{0}]{0,8}", 1..4).prop_map(|map| json!(map)).boxed()
        }
        Kind::Json => select(vec![
            json!({ "image": "a:1", "command": ["sh", "-c", "echo \"$HOME\" 'x'"] }),
            json!({ "gpu": { "count": 4 }, "env": { "A": "é\n" } }),
        ])
        .boxed(),
    }
}

/// Any arguments that an operation takes.
fn arguments_of(op: &'static OpDef) -> BoxedStrategy<Map<String, Value>> {
    let all = fields::of(op);
    let (required, optional): (Vec<Field>, Vec<Field>) = all.into_iter().partition(|field| field.required);
    let n_optional = optional.len();
    subsequence(optional, 0..=n_optional)
        .prop_flat_map(move |some| {
            let fields: Vec<Field> = required.iter().cloned().chain(some).collect();
            let values: Vec<_> = fields.iter().map(|field| value_of(&field.kind)).collect();
            let names: Vec<String> = fields.into_iter().map(|field| field.name).collect();
            values.prop_map(move |values| names.iter().cloned().zip(values).collect())
        })
        .prop_map(move |mut args: Map<String, Value>| {
            if op.name == "workload_run" {
                // Words or a specification, one of them; and it is checked before it is sent.
                if args.contains_key("spec") {
                    args.remove("request");
                } else {
                    args.insert("request".into(), "Run 'it' now".into());
                }
                args.entry("request_id").and_modify(|key| *key = "a key".into());
            }
            args
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    /// A suggested call, pasted into a shell, is that very call; so every operation can be
    /// reached with every argument, and a command is made of every schema.
    #[test]
    fn a_call_and_its_command_line_are_the_same(
        calls in OPERATIONS.iter().map(|op| arguments_of(op).prop_map(move |args| (op, args))).collect::<Vec<_>>()
    ) {
        for (op, args) in calls {
            let line = command_line(op.name, &Value::Object(args.clone()));
            if op.name == "secret_set" {
                // Who pastes it puts a file in the place of the value.
                prop_assert!(!line.contains("hunter2") && line.contains("--value FILE"), "{}", line);
                continue;
            }
            let mut words = split_by_shell(&line);
            prop_assert_eq!(parsed(&words), Ok((op.name.to_owned(), args.clone())), "{}", line);
            // Behind `--` it would be a word of the command.
            let at = if op.name == "workload_exec" { 1 } else { words.len() };
            words.insert(at, "--json".to_owned());
            // After `call`'s arguments, too, a global flag is one.
            let cli = Cli::parse_from(&words).expect("the same with a global flag");
            prop_assert!(cli.json, "{}", line);
        }
    }
}

#[test]
fn unknown_calls_become_claw_call() {
    let line = command_line("tool_search", &json!({ "query": "it's" }));
    assert_eq!(line, r#"claw call tool_search '{"query":"it'\''s"}'"#);
    let newer = command_line("node_get", &json!({ "node": "a", "later": 1 }));
    assert_eq!(newer, r#"claw call node_get '{"later":1,"node":"a"}'"#);
}

#[test]
fn help_texts() {
    let help = |path: &[&str]| {
        let mut command: Command = command().term_width(100);
        command.build();
        let mut leaf = &mut command;
        for name in path {
            leaf = leaf.find_subcommand_mut(name).expect("the command exists");
        }
        leaf.render_long_help().to_string()
    };
    expect_file!["../golden/help_claw.txt"].assert_eq(&help(&[]));
    expect_file!["../golden/help_node_drain.txt"].assert_eq(&help(&["node", "drain"]));
    expect_file!["../golden/help_workload_run.txt"].assert_eq(&help(&["workload", "run"]));
}
