//! `claw intent parse --llm`: the intent engine of this machine with a language
//! model behind it, for the requests that the grammar is unsure of.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use claw_intents::{Answer, Catalog, Context, Now, Provenance, Source};
use claw_llm::{Llm, Parsed, Settings, key_from, key_of};
use serde_json::{Map, Value, json};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;
use crate::render;

/// Holds the key of the endpoint, where no file does.
const KEY_VARIABLE: &str = "CLAW_LLM_KEY";

/// Which model is asked, as it was said on the command line and in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlmOptions {
    /// Base URL of the endpoint.
    url: String,
    /// Name of the model.
    model: String,
    /// File that holds the key.
    key_file: Option<PathBuf>,
    /// Time for one request in all.
    timeout: Duration,
    /// Whether plain HTTP to another machine is allowed.
    plain_http: bool,
    /// Where transcripts are written.
    transcript: Option<PathBuf>,
}

/// Adds the flags.
pub(crate) fn with_flags(leaf: Command) -> Command {
    let own = |name: &'static str| Arg::new(name).long(name).help_heading("Language model");
    let file = |name| own(name).value_parser(value_parser!(PathBuf)).value_hint(ValueHint::FilePath).value_name("FILE");
    leaf.arg(
        own("llm")
            .action(ArgAction::SetTrue)
            .conflicts_with("watch")
            .help("Where the grammar of this machine is unsure, let a language model propose; without a gateway"),
    )
    .arg(
        own("llm-url")
            .value_name("URL")
            .env("CLAW_LLM_URL")
            .hide_env_values(true)
            .help("Base URL of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1"),
    )
    .arg(
        own("llm-model").value_name("NAME").env("CLAW_LLM_MODEL").hide_env_values(true).help("Name of the model there"),
    )
    .arg(
        file("llm-key-file")
            .env("CLAW_LLM_KEY_FILE")
            .hide_env_values(true)
            .help(format!("File that holds its key [default: the variable {KEY_VARIABLE}, or no key]")),
    )
    .arg(
        own("llm-timeout-s")
            .value_name("N")
            .default_value("60")
            .value_parser(value_parser!(u64).range(1..=600))
            .help("Time for one request in all, seconds"),
    )
    .arg(
        own("llm-plain-http")
            .action(ArgAction::SetTrue)
            .help("Allow plain HTTP to another machine: requests and key can be read on the way"),
    )
    .arg(file("llm-transcript").help("Add what was said to this file, one JSON object for each request"))
}

/// What the flags and the environment say; none without `--llm`.
pub(crate) fn options(matches: &ArgMatches) -> Result<Option<LlmOptions>, CliError> {
    if !matches.get_flag("llm") {
        return Ok(None);
    }
    let text = |name: &str| matches.get_one::<String>(name).cloned().filter(|text| !text.trim().is_empty());
    let (Some(url), Some(model)) = (text("llm-url"), text("llm-model")) else {
        return Err(CliError::Usage(
            "--llm needs an endpoint and a model: --llm-url and --llm-model, or CLAW_LLM_URL and CLAW_LLM_MODEL; its key by --llm-key-file, CLAW_LLM_KEY_FILE or CLAW_LLM_KEY",
        ));
    };
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    Ok(Some(LlmOptions {
        url,
        model,
        key_file: path("llm-key-file"),
        timeout: Duration::from_secs(matches.get_one::<u64>("llm-timeout-s").copied().unwrap_or(60)),
        plain_http: matches.get_flag("llm-plain-http"),
        transcript: path("llm-transcript"),
    }))
}

/// A model that can be asked.
#[derive(Debug)]
pub(crate) struct Asked {
    llm: Llm,
    transcript: Option<(PathBuf, std::fs::File)>,
}

impl Asked {
    /// Makes the client; nothing is sent yet.
    pub(crate) fn open(options: &LlmOptions) -> Result<Self, CliError> {
        let bad = |why: String| CliError::Setting { what: "the language model", why };
        let mut settings = Settings::new(options.url.as_str(), options.model.as_str());
        settings.plain_http = options.plain_http;
        settings.limits.all = options.timeout;
        settings.limits.call = options.timeout;
        let from_variable = || std::env::var(KEY_VARIABLE).ok().filter(|key| !key.trim().is_empty());
        let key = match &options.key_file {
            Some(path) => Some(key_from(path)),
            None => from_variable().map(key_of),
        };
        settings.key = key.transpose().map_err(|error| bad(error.to_string()))?;
        let llm = Llm::new(settings).map_err(|error| bad(error.to_string()))?;
        let transcript = match &options.transcript {
            Some(path) => Some((path.clone(), appended(path).map_err(|error| CliError::file(path, error))?)),
            None => None,
        };
        Ok(Self { llm, transcript })
    }

    /// Parses one request; what the model did wrong is told beside the answer.
    pub(crate) async fn parse(
        &mut self,
        id: &str,
        text: &str,
        context: &Context,
        screen: &Screen,
    ) -> Result<Answer, CliError> {
        let Parsed { answer, failure, transcript } = self.llm.parse(text, context, Catalog::builtin()).await;
        if let Some((path, file)) = &mut self.transcript {
            file.write_all(transcript.line().as_bytes()).map_err(|error| CliError::file(path.as_path(), error))?;
        }
        if let Some(failure) = failure {
            let of = if id.is_empty() { String::new() } else { format!("{id}: ") };
            screen.note(&format!("{}\n", render::safe(&format!("{of}{failure}"))))?;
        }
        Ok(answer)
    }
}

/// Opened for adding; who else uses the machine may not read what people ask for.
fn appended(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    // One that was there before may have been open to others.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// One request from the command line. Nothing is known of a cluster but the present.
pub(crate) async fn one(text: &str, options: &LlmOptions, screen: &Screen) -> Result<Exit, CliError> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let context = Context { now: now.parse::<Now>().ok(), ..Context::default() };
    let answer = {
        let _waiting = screen.wait("language model");
        Asked::open(options)?.parse("", text, &context, screen).await?
    };
    let content = content(&answer, &context);
    if screen.is_json() {
        screen.json(&content)?;
    } else {
        let op = claw_tools::registry::find("intent_parse");
        screen.print(&render::answer(op, &Map::new(), &content, screen.style()))?;
    }
    Ok(Exit::Ok)
}

/// An answer in the form of `intent_parse`, without the calls that only a gateway knows.
fn content(answer: &Answer, context: &Context) -> Value {
    let mut content = json!(answer);
    if let Answer::Intent(understood) = answer {
        content["provenance"] = understood.provenance.iter().map(source).collect();
        if let Some(said) = claw_intents::say(&understood.intent, context, Catalog::builtin()) {
            content["said_back"] = Value::from(said);
        }
    }
    content
}

fn source(provenance: &Provenance) -> Value {
    let field = &provenance.field;
    match &provenance.source {
        Source::Text(span) => json!({ "field": field, "source": "text", "words": span.text }),
        other @ (Source::Catalogue | Source::Context | Source::Default | Source::Model) => {
            json!({ "field": field, "source": json!(other)["kind"] })
        }
    }
}
