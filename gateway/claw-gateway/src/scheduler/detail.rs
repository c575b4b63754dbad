//! What a node lacks, in words: made where somebody asks.

use claw_proto::mig::{MigGeometry, geometry};
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::PlacementReason as R;

use super::fit::Miss;
use super::view::View;

/// What is missing, in words; `in_the_way` is who it is to be kept apart from.
pub(super) fn detail(miss: Miss, view: &View, spec: &ValidSpec, in_the_way: &str) -> String {
    let demand = spec.node_demand();
    let node = &*view.node;
    let (wanted, has) = (demand.gpus, miss.has);
    let label = |key: &str| node.labels.get(key).map_or("none", String::as_str);
    let placement = spec.spec().placement.clone().unwrap_or_default();
    match miss.reason {
        R::NodeNotNamed => format!("wanted {}", placement.node.unwrap_or_default()),
        R::NodeExcluded => "excluded by the spec".into(),
        R::ZoneMismatch => format!("wanted zone {}, is in {}", placement.zone.unwrap_or_default(), label("zone")),
        R::LabelMismatch => {
            let at = usize::try_from(has).unwrap_or(usize::MAX);
            let unlike = placement.labels.iter().nth(at);
            unlike.map_or_else(String::new, |(key, value)| format!("wanted {key}={value}, has {}", label(key)))
        }
        R::TaintNotTolerated => {
            let unborne = node.taints().find(|(label, value)| !placement.bears(label, value));
            unborne.map_or_else(String::new, |(label, value)| {
                format!("its label {label}={value} is a taint that the spec does not bear")
            })
        }
        R::RuntimeMissing => runtime_detail(view, spec),
        R::GpuVendorMismatch => format!("wanted {}", demand.gpu_vendor.map_or("any", |v| v.as_str())),
        R::GpuModelMismatch => {
            let model = view.gpus.first().and_then(|gpu| view.info(gpu)).map_or("none", |info| info.model.as_str());
            format!("wanted {}, has {model}", demand.models_in_words())
        }
        R::GpuMemoryTooSmall => format!("wanted {} MiB per GPU, has {has}", demand.gpu_memory_mib_min),
        R::GpuCountTooSmall => format!("wanted {wanted}, has {has}"),
        R::NvlinkIslandTooSmall => format!("wanted {wanted} in one island, the largest has {has}"),
        R::CpuTooSmall => format!("wanted {} millicores, has {has}", demand.cpu_millis),
        R::MemoryTooSmall => format!("wanted {} MiB, has {has}", demand.memory_mib),
        R::DiskTooSmall => format!("wanted {} MiB, has {has}", demand.disk_mib),
        R::NodeUnreachable if node.capabilities.is_none() => "enrolled, never connected".into(),
        R::NodeUnreachable => node.link.to_string(),
        R::NodeUnschedulable => node.schedulable.to_string(),
        R::NodeReserved => "kept for another tenant (reservation_list)".to_owned(),
        R::MigProfileMissing => {
            let wanted = demand.mig_profile.as_deref().unwrap_or_default();
            format!("wanted a slice {wanted}, has none{}", never_cut_so(view, wanted))
        }
        R::GpuMemoryUncapped => "it holds nobody who shares a GPU to the memory of the share".to_owned(),
        R::GpuUnhealthy => format!("wanted {wanted}, healthy {has}"),
        R::GpuBusy if demand.is_share() => {
            format!("wanted {} of a GPU, at most {} of one is free", permille(demand.gpu_milli.into()), permille(has))
        }
        R::GpuBusy => format!("wanted {wanted}, free {has} of {}", miss.of),
        R::RoomClaimed if has == 0 => format!("{} workload(s) before it wait for room there", miss.of),
        R::RoomClaimed => format!("wanted {wanted}, free {has}, of which {} wait for work before it", miss.of),
        R::NvlinkIslandBusy => format!("wanted {wanted} free in one island, the largest has {has}"),
        R::CpuBusy => format!("wanted {} millicores, free {has}", demand.cpu_millis),
        R::MemoryBusy => format!("wanted {} MiB, free {has}", demand.memory_mib),
        R::DiskBusy => format!("wanted {} MiB, free {has}", demand.disk_mib),
        R::KeptApart => format!("apart from {in_the_way}"),
    }
}

/// That the node's GPUs cannot be cut so, where a table tells it of all of them.
fn never_cut_so(view: &View, profile: &str) -> String {
    // Of attributes (`+me`) the tables tell nothing.
    if profile.contains('+') {
        return String::new();
    }
    let whole = view.node.gpus().iter().filter(|gpu| gpu.mig.is_none());
    let known: Option<Vec<&MigGeometry>> = whole.map(|gpu| geometry(&gpu.model, gpu.memory_mib)).collect();
    match known.as_deref() {
        Some([first, rest @ ..]) if [*first].iter().chain(rest).all(|known| known.profile(profile).is_none()) => {
            format!(", and {} {} GB cannot be cut so ({})", first.model, first.memory_gb, first.names())
        }
        _ => String::new(),
    }
}

/// Thousandths as a fraction, such as 0.25.
pub(super) fn permille(milli: u64) -> String {
    let (mut text, rest) = ((milli / 1_000).to_string(), milli % 1_000);
    if rest > 0 {
        text.push('.');
        // A fourth digit in front keeps the zeros that follow the point.
        text.push_str(&(1_000 + rest).to_string()[1..]);
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

fn runtime_detail(view: &View, spec: &ValidSpec) -> String {
    let runtimes = view.capabilities().map_or(&[][..], |capabilities| &capabilities.runtimes);
    let has: Vec<&str> = runtimes.iter().map(|r| r.as_str()).collect();
    let wants = match spec.spec().runtime {
        Some(kind) => kind.as_str(),
        None if spec.spec().image.is_some() => "docker",
        None if spec.spec().model.is_some() => "a simulated node (the model has no image)",
        None => "process",
    };
    format!("wants {wants}, has {}", if has.is_empty() { "none".to_owned() } else { has.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::permille;

    #[test]
    fn thousandths_are_told_as_fractions_are() {
        for milli in 0..=2_000_u32 {
            assert_eq!(permille(milli.into()), (f64::from(milli) / 1_000.0).to_string());
        }
    }
}
