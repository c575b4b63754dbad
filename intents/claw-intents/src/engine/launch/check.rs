//! What contradicts itself, and what cannot fit.

use claw_proto::spec::Quantization;
use serde_json::Value;

use crate::answer::RefusalCode;
use crate::catalog::fit::{GpuShape, Verdict, catalog_fit};
use crate::draft::Draft;

pub(super) fn check(draft: &mut Draft<'_, '_, '_>) {
    gpu_agrees(draft);
    policies_agree(draft);
    fits(draft);
}

fn text<'d>(draft: &'d Draft<'_, '_, '_>, field: &str) -> Option<&'d str> {
    draft.field(field)?.as_str()
}

fn number(draft: &Draft<'_, '_, '_>, field: &str) -> Option<f64> {
    draft.field(field)?.as_f64()
}

fn gpu_agrees(draft: &mut Draft<'_, '_, '_>) {
    let model = text(draft, "gpu.model").and_then(|name| draft.catalog.gpu(name));
    let mut faults = Vec::new();
    if let Some(model) = model {
        let vendor = text(draft, "gpu.vendor");
        if vendor.is_some_and(|v| v != model.vendor.as_str()) {
            faults.push(format!("{} is made by {}", model.id, model.vendor));
        }
        let largest = model.memory_gib.iter().copied().fold(0.0, f64::max);
        if number(draft, "gpu.memory_gib_min").is_some_and(|gib| gib > largest + 1e-6) {
            faults.push(format!("{} has at most {largest} GiB", model.id));
        }
        if number(draft, "gpu.count") == Some(0.0) {
            faults.push(format!("no GPU at all, and {}", model.id));
        }
    }
    let none = number(draft, "gpu.count") == Some(0.0);
    if none
        && (draft.has("gpu.fraction")
            || draft.has("gpu.mig_profile")
            || draft.has("gpu.memory_gib_min")
            || text(draft, "gpu.interconnect") == Some("nvlink"))
    {
        faults.push("no GPU at all, and wishes for one".into());
    }
    if let (Some(nodes), Some(count)) = (number(draft, "nodes"), number(draft, "gpu.count"))
        && count > 0.0
        && count < nodes
    {
        faults.push(format!("{count} GPUs are not enough for {nodes} nodes"));
    }
    if let Some(node) = text(draft, "placement.node")
        && let Some(excluded) = draft.field("placement.exclude_nodes").and_then(Value::as_array)
        && excluded.iter().any(|n| n.as_str() == Some(node))
    {
        faults.push(format!("on {node} and not on {node}"));
    }
    if let Some(fault) = faults.into_iter().next() {
        draft.refuse(RefusalCode::Contradictory, fault);
    }
}

fn policies_agree(draft: &mut Draft<'_, '_, '_>) {
    if text(draft, "restart") == Some("never") && number(draft, "max_restarts").is_some_and(|n| n > 0.0) {
        draft.refuse(RefusalCode::Contradictory, "never restarted, and restarted several times");
    }
    if let (Some(min), Some(max)) = (number(draft, "autoscale.min"), number(draft, "autoscale.max"))
        && min > max
    {
        draft.refuse(RefusalCode::Contradictory, format!("at least {min} and at most {max} replicas"));
    }
    if let (Some(every), Some(whole)) = (number(draft, "checkpoint_interval_s"), number(draft, "max_duration_s"))
        && every > whole
    {
        draft.refuse(RefusalCode::Contradictory, "the first checkpoint would come after the end");
    }
}

/// Refuses a model whose weights cannot fit the GPUs asked for.
fn fits(draft: &mut Draft<'_, '_, '_>) {
    let Some(model) = text(draft, "model").and_then(|id| draft.catalog.model(id)) else {
        return;
    };
    let precision = text(draft, "quantization").and_then(Quantization::from_text);
    let count = draft.field("gpu.count").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let share = number(draft, "gpu.fraction");
    let mig = text(draft, "gpu.mig_profile")
        .and_then(|p| p.split('.').nth(1))
        .and_then(|m| m.trim_end_matches("gb").parse::<f64>().ok());
    let name = text(draft, "gpu.model").map(str::to_owned);
    let count = match (count, share, mig) {
        (Some(0) | None, None, None) => return,
        (count, _, _) => count.unwrap_or(1),
    };
    let stated = number(draft, "gpu.memory_gib_min");
    let known = name.as_deref().and_then(|n| draft.catalog.gpu(n));
    let memory = mig.or_else(|| {
        let whole = stated
            .filter(|_| known.is_some())
            .or_else(|| known.map(|g| g.memory_gib.iter().copied().fold(0.0, f64::max)))?;
        Some(whole * share.unwrap_or(1.0))
    });
    let shape = GpuShape { model: name.as_deref(), memory_gib: memory, count };
    let fit = catalog_fit(draft.catalog, model, precision, shape);
    if let Verdict::DoesNotFit { memory_gib, gpus_needed } = fit.verdict {
        let gpu = name.unwrap_or_else(|| "GPU".into());
        let message = format!(
            "{} takes {:.1} GiB at {}, and {count} × {gpu} have {memory_gib:.0} GiB; {gpus_needed} would hold the weights",
            model.id, fit.weights_gib, fit.quantization
        );
        draft.refuse(RefusalCode::DoesNotFit, message);
    }
}
