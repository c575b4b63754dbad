//! The short way to run something: words, or a few flags and a command after `--`.
//!
//! The flags are a table of places in the specification; what each takes and means is read
//! from the specification's own schema.

use clap::{Arg, ArgMatches, Command, value_parser};
use claw_tools::def::OpDef;
use claw_tools::registry::Call;
use serde_json::{Map, Value};

use crate::error::CliError;
use crate::fields::{self, Field, Kind};
use crate::generate;

/// Flag and place in the specification.
pub(crate) const FLAGS: [(&str, &str); 17] = [
    ("name", "name"),
    ("image", "image"),
    ("model", "model"),
    ("gpu-count", "gpu.count"),
    ("gpu-model", "gpu.model"),
    ("gpu-memory-gib-min", "gpu.memory_gib_min"),
    ("cpu-cores", "cpu_cores"),
    ("memory-gib", "memory_gib"),
    ("disk-gib", "disk_gib"),
    ("node", "placement.node"),
    ("runtime", "runtime"),
    ("env", "env"),
    ("label", "labels"),
    ("port", "ports"),
    ("working-dir", "working_dir"),
    ("priority", "priority"),
    ("max-duration-s", "max_duration_s"),
];
const HEADING: &str = "Specification (the rest of it: --spec)";

/// The operation has this short way.
pub(crate) fn applies(op: &OpDef) -> bool {
    op.name == "workload_run"
}

/// The field is given by the short way and needs no flag of its own.
pub(crate) fn replaces(op: &OpDef, field: &Field) -> bool {
    applies(op) && field.name == "request"
}

/// The schema of a place in the specification.
fn schema_at(path: &str) -> Value {
    let op = claw_tools::registry::find("workload_run").expect("the operation is in the registry");
    let mut schema = &(op.params_schema)()["properties"]["spec"];
    for part in path.split('.') {
        schema = &schema["properties"][part];
    }
    schema.clone()
}

/// Adds the words, the flags and the command to the clap command.
pub(crate) fn extend(command: Command) -> Command {
    let words = Arg::new("request")
        .value_name("WORDS")
        .help("What to run, in words: \"Run Llama 70B on 4 H100s\"")
        .num_args(0..)
        .index(1);
    let argv = Arg::new("command")
        .value_name("COMMAND")
        .help("Program and its arguments, after --")
        .num_args(0..)
        .value_parser(value_parser!(String))
        .index(2)
        .last(true);
    let flags = FLAGS.iter().enumerate().map(|(place, (flag, path))| {
        let schema = schema_at(path);
        let kind = Kind::of(&schema);
        let value_name = match kind {
            Kind::Map => "KEY=VALUE".to_owned(),
            _ => flag.to_uppercase(),
        };
        let arg = Arg::new(format!("spec.{path}"))
            .long(*flag)
            .help(fields::help(&schema))
            .help_heading(HEADING)
            .display_order(100 + place);
        generate::takes(arg, &kind, value_name)
    });
    let flags: Vec<Arg> = flags.collect();
    command.arg(words).arg(argv).args(flags).after_help(
        "Examples:\n  claw workload run \"Run Llama 70B on 4 H100s\" --mode plan\n  \
         claw workload run --name hello --runtime process -- echo hello\n  \
         claw workload run --spec @job.toml --wait-s 60",
    )
}

/// Turns words, flags and the command into `request` or `spec`.
pub(crate) fn complete(matches: &ArgMatches, args: &mut Map<String, Value>) -> Result<(), CliError> {
    let words: Vec<&str> = matches.get_many::<String>("request").into_iter().flatten().map(String::as_str).collect();
    let mut spec = match args.remove("spec") {
        Some(Value::Object(spec)) => Some(spec),
        Some(_) => return Err(CliError::Usage("--spec takes an object")),
        None => None,
    };
    for (_, path) in FLAGS {
        let kind = Kind::of(&schema_at(path));
        if let Some(value) = generate::value(matches, &format!("spec.{path}"), &kind) {
            put(spec.get_or_insert_default(), path, value);
        }
    }
    if let Some(argv) = matches.get_many::<String>("command") {
        let argv: Vec<Value> = argv.map(|word| Value::from(word.as_str())).collect();
        spec.get_or_insert_default().insert("command".into(), Value::from(argv));
    }
    match (words.is_empty(), spec) {
        (true, None) => {
            Err(CliError::Usage("say what to run: in words, by --spec, or by flags and a command after --"))
        }
        (false, Some(_)) => Err(CliError::Usage("give words or a specification, not both (a command stands after --)")),
        (false, None) => {
            args.insert("request".into(), Value::from(words.join(" ")));
            Ok(())
        }
        (true, Some(spec)) => {
            args.insert("spec".into(), Value::Object(spec));
            checked(args)
        }
    }
}

/// The gateway's own check, made here: a slip is named before anything is sent.
fn checked(args: &Map<String, Value>) -> Result<(), CliError> {
    match Call::parse("workload_run", Value::Object(args.clone())) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(CliError::Refused {
            content: serde_json::to_value(&refusal).unwrap_or_default(),
            refusal: Box::new(refusal),
        }),
    }
}

/// Puts a value into an object, making the objects around it.
fn put(spec: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            spec.insert(path.to_owned(), value);
        }
        Some((outer, inner)) => {
            let outer = spec.entry(outer).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = outer {
                put(map, inner, value);
            }
        }
    }
}
