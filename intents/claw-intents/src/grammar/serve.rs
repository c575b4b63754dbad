//! Image and command of a workload, where the catalogue knows how to serve its model.

use claw_proto::spec::{GpuVendor, Quantization, WorkloadKind};
use serde_json::Value;

use super::run::Run;
use crate::answer::Source;
use crate::catalog::{Model, Server};

const IMAGE: &str = "workload.image";
const COMMAND: &str = "workload.command";

/// Fills in what the words leave open, and states it.
pub(super) fn fill(run: &mut Run<'_>) {
    let Some(model) = run.model else {
        if run.spec.image.is_none() {
            let why = "no image was named, so only a node that runs host processes can run it";
            run.notes.assume(IMAGE, Value::Null, why);
        }
        return;
    };
    run.spec.model = Some(model.id.clone());
    run.notes.came_from("workload.model", Source::Catalogue);
    if run.spec.command.is_some() {
        return;
    }
    if run.spec.image.is_some() {
        let why = "an image was named without a command, so its own entry point runs";
        return run.notes.assume(COMMAND, Value::Null, why);
    }
    let Some(server) = usable_server(run, model) else {
        let why = format!(
            "the catalogue knows no image that serves {} on what was asked for; name image and command to really run it",
            model.id
        );
        return run.notes.assume(IMAGE, Value::Null, why);
    };
    let Some(command) = command(run, model, server) else {
        let why = format!(
            "{} at the asked-for precision needs weights that the catalogue does not know; name image and command to really run it",
            model.id
        );
        return run.notes.assume(IMAGE, Value::Null, why);
    };
    let why = format!("the catalogue serves {} with {}", model.id, server.id);
    run.notes.assume(IMAGE, &server.image, why);
    run.spec.image = Some(server.image.clone());
    run.notes.came_from(IMAGE, Source::Catalogue);
    let why = format!("the catalogue's command; license: {}", model.license);
    run.notes.assume(COMMAND, &command, why);
    run.spec.command = Some(command);
    run.notes.came_from(COMMAND, Source::Catalogue);
    narrow_vendor(run, server);
}

/// Where any GPU will do, the image narrows it to the vendors that it runs on.
fn narrow_vendor(run: &mut Run<'_>, server: &Server) {
    const FIELD: &str = "workload.gpu.vendor";
    if let ([vendor], None, None) = (server.vendors.as_slice(), &run.gpu.model, run.gpu.vendor) {
        run.gpu.vendor = Some(*vendor);
        let why = format!("{} runs on GPUs of {vendor} only", server.image);
        run.notes.assume(FIELD, vendor, why);
        run.notes.came_from(FIELD, Source::Catalogue);
    }
}

/// The server of a model if it serves this kind of work on these GPUs.
fn usable_server<'a>(run: &Run<'a>, model: &Model) -> Option<&'a Server> {
    let catalog = run.reading.catalog;
    let server = catalog.server_of(model)?;
    let named = run.gpu.model.as_deref().and_then(|id| catalog.gpu(id));
    let vendor: Option<GpuVendor> = run.gpu.vendor.or(named.map(|gpu| gpu.vendor));
    let right_vendor = vendor.is_none_or(|vendor| server.vendors.contains(&vendor));
    let right_kind = matches!(run.spec.kind, Some(WorkloadKind::Inference | WorkloadKind::Service));
    (right_vendor && right_kind && run.gpu.count != Some(0)).then_some(server)
}

/// The command that serves a model on the GPUs asked for; none if the precision
/// needs weights that the catalogue does not know.
fn command(run: &Run<'_>, model: &Model, server: &Server) -> Option<Vec<String>> {
    let mut command: Vec<String> =
        server.command.iter().map(|part| part.replace("{repository}", &model.repository)).collect();
    if let Some(asked) = run.spec.quantization {
        command.extend(precision_flags(model, asked)?.iter().map(ToString::to_string));
    }
    let mut add = |flag: &str, value: String| command.extend([flag.to_owned(), value]);
    // Tensor parallelism needs heads that divide over the GPUs; a pipeline does not.
    if let Some(count) = run.gpu.count.filter(|count| *count > 1) {
        if model.divides_over(count) {
            add("--tensor-parallel-size", count.to_string());
        } else {
            add("--pipeline-parallel-size", count.to_string());
        }
    }
    if let [port] = run.spec.ports.as_slice() {
        add("--port", port.to_string());
    }
    Some(command)
}

/// The flags by which the published weights are loaded at this precision; none if
/// there is no way. Weights of 16 bits can be made smaller while loading, to
/// 4 bits only where no experts are mixed; nothing else is turned into another.
fn precision_flags(model: &Model, asked: Quantization) -> Option<&'static [&'static str]> {
    let published = model.published_quantization;
    let wide = matches!(published, Quantization::Fp16 | Quantization::Bf16);
    let dense = model.active_params_b.is_none();
    match asked {
        same if same == published => Some(&[]),
        Quantization::Bf16 if wide => Some(&["--dtype", "bfloat16"]),
        Quantization::Fp16 if wide => Some(&["--dtype", "float16"]),
        Quantization::Fp8 if wide => Some(&["--quantization", "fp8"]),
        Quantization::Int4 if wide && dense => Some(&["--quantization", "bitsandbytes"]),
        Quantization::Fp32
        | Quantization::Fp16
        | Quantization::Bf16
        | Quantization::Fp8
        | Quantization::Int8
        | Quantization::Int4 => None,
    }
}
