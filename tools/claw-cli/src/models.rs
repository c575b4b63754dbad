//! `claw model list` and `claw model fit`: the catalogue of models, without a gateway.

use std::fmt::Write as _;

use clap::{Arg, ArgMatches, Command, value_parser};
use claw_intents::{Catalog, Estimate, Load, Model, Resolution};
use claw_proto::spec::Quantization;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;

/// What is asked about models.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelCommand {
    /// All of them.
    List,
    /// Whether one fits.
    Fit {
        /// Its name.
        model: String,
        /// GPU model; missing = which would do.
        gpu: Option<String>,
        /// Memory of each GPU, GiB; missing = the largest that exists.
        memory_gib: Option<f64>,
        /// How many GPUs.
        count: u32,
        /// Precision; missing = the published one.
        quantization: Option<Quantization>,
        /// The conversations held at once.
        load: Load,
    },
}

/// The commands of this file.
pub(crate) fn command() -> Command {
    let value = |name: &'static str, value_name: &'static str| Arg::new(name).long(name).value_name(value_name);
    let precisions: Vec<&str> = Quantization::ALL.iter().map(|q| q.as_str()).collect();
    let fit = Command::new("fit")
        .about("Say whether a model fits GPUs with its context, and which would do")
        .arg(Arg::new("model").value_name("MODEL").required(true).help("Its name, such as \"llama 70b\""))
        .arg(value("gpu", "GPU").help("GPU model, such as H100 [default: show which would do]"))
        .arg(value("memory", "GIB").value_parser(value_parser!(f64)).help("Memory of each GPU [default: the largest]"))
        .arg(value("count", "N").default_value("1").value_parser(value_parser!(u32).range(1..=1024)).help("GPUs"))
        .arg(value("quantization", "PRECISION").value_parser(precisions).help("Precision [default: the published one]"))
        .arg(
            value("context", "TOKENS")
                .default_value("8192")
                .value_parser(value_parser!(u32).range(1..=16_000_000))
                .help("Context of each conversation"),
        )
        .arg(
            value("batch", "N")
                .default_value("8")
                .value_parser(value_parser!(u32).range(1..=65_536))
                .help("Conversations at once"),
        );
    Command::new("model")
        .about("Look at the catalogue of models, without a gateway")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("list").about("List the models"))
        .subcommand(fit)
}

/// What `claw model …` asks for.
pub(crate) fn model(matches: &ArgMatches) -> ModelCommand {
    let Some(inner) = matches.subcommand_matches("fit") else {
        return ModelCommand::List;
    };
    let text = |name: &str| inner.get_one::<String>(name).cloned();
    let number = |name: &str, default| inner.get_one::<u32>(name).copied().unwrap_or(default);
    ModelCommand::Fit {
        model: text("model").unwrap_or_default(),
        gpu: text("gpu"),
        memory_gib: inner.get_one::<f64>("memory").copied(),
        count: number("count", 1),
        quantization: text("quantization").and_then(|q| Quantization::from_text(&q)),
        load: Load { context_tokens: number("context", 8_192), sequences: number("batch", 8) },
    }
}

pub(crate) fn run(command: &ModelCommand, screen: &Screen) -> Result<Exit, CliError> {
    let catalog = Catalog::builtin();
    match command {
        ModelCommand::List => list(catalog, screen),
        ModelCommand::Fit { model, gpu, memory_gib, count, quantization, load } => {
            let model = named(catalog, model)?;
            match gpu {
                None => propose(catalog, model, *quantization, *load, screen),
                Some(gpu) => {
                    let known = catalog.gpu(gpu).ok_or_else(|| bad(format!("{gpu:?} is no GPU of the catalogue")))?;
                    let largest = known.memory_gib.iter().copied().fold(0.0, f64::max);
                    let estimate = model.estimate(*quantization, *load, memory_gib.unwrap_or(largest), *count);
                    show(model, &format!("{count} × {}", known.id), &estimate, screen)
                }
            }
        }
    }
}

fn list(catalog: &Catalog, screen: &Screen) -> Result<Exit, CliError> {
    let mut text = String::new();
    for model in catalog.models() {
        let weights = model.weights_gib(None);
        if screen.is_json() {
            let line = json!({
                "id": model.id, "params_b": model.params_b, "published_quantization": model.published_quantization,
                "weights_gib": weights, "context": model.context, "license": model.license, "source": model.source,
            });
            writeln!(text, "{line}").map_err(|error| bad(error.to_string()))?;
        } else {
            let precision = model.published_quantization.as_str();
            let (id, params) = (&model.id, model.params_b);
            writeln!(text, "{id:<36}{params:>8.1} B{weights:>8.1} GiB {precision:<5} {}", model.license)
                .map_err(|error| bad(error.to_string()))?;
        }
    }
    screen.print(&text)?;
    Ok(Exit::Ok)
}

fn named<'c>(catalog: &'c Catalog, name: &str) -> Result<&'c Model, CliError> {
    if let Some(model) = catalog.model(name) {
        return Ok(model);
    }
    let ids = |models: &[&Model]| models.iter().map(|m| m.id.as_str()).collect::<Vec<_>>().join(", ");
    match catalog.resolve(name) {
        Resolution::One { model, .. } => Ok(model),
        Resolution::Several(models) | Resolution::NoSuch(models) => {
            Err(bad(format!("{name:?} is none or several: {}", ids(&models))))
        }
        Resolution::Unknown => Err(bad(format!("{name:?} is no model of the catalogue; `claw model list` has them"))),
    }
}

fn show(model: &Model, gpus: &str, estimate: &Estimate, screen: &Screen) -> Result<Exit, CliError> {
    if screen.is_json() {
        screen.print(&format!("{}\n", json!({ "model": model.id, "gpus": gpus, "estimate": estimate })))?;
    } else {
        let verdict = if estimate.fits { "fits" } else { "does not fit" };
        let divides = if estimate.divides { "" } else { "; its heads do not divide over so many GPUs" };
        screen.print(&format!("{} {verdict} {gpus}: {}{divides}\n", model.id, figures(estimate)))?;
    }
    Ok(if estimate.fits && estimate.divides { Exit::Ok } else { Exit::NotReached })
}

fn figures(e: &Estimate) -> String {
    let (weights, context, runtime) = (e.weights_gib, e.context_gib, e.runtime_gib);
    let (needed, usable) = (e.needed_gib, e.usable_gib);
    format!(
        "weights {weights:.1} + context {context:.1} + runtime {runtime:.1} = {needed:.1} of {usable:.1} GiB usable"
    )
}

fn propose(
    catalog: &Catalog,
    model: &Model,
    quantization: Option<Quantization>,
    load: Load,
    screen: &Screen,
) -> Result<Exit, CliError> {
    let proposals = catalog.proposals(model, quantization, load);
    if screen.is_json() {
        let proposals: Vec<Value> = proposals.iter().map(|p| json!(p)).collect();
        screen.print(&format!("{}\n", json!({ "model": model.id, "proposals": proposals })))?;
    } else {
        let mut text = String::new();
        for p in &proposals {
            writeln!(text, "{} × {} ({} GiB): {}", p.count, p.gpu, p.memory_gib, figures(&p.estimate))
                .map_err(|error| bad(error.to_string()))?;
        }
        screen.print(&text)?;
    }
    Ok(if proposals.is_empty() { Exit::NotReached } else { Exit::Ok })
}

fn bad(why: impl Into<String>) -> CliError {
    CliError::Setting { what: "the question about models", why: why.into() }
}
