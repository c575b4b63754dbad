//! The fields of a workload in words.

use claw_proto::spec::{
    Autoscale, GpuRequest, GpuVendor, Interconnect, MarketUse, Placement, PlacementStrategy, Priority, RestartPolicy,
    WorkloadKind, WorkloadSpec,
};

use super::words::{json, metric, money, number, quoted, seconds};

/// "Run llama-3.1-70b-instruct for inference, …".
pub(super) fn launched(verb: &str, spec: &WorkloadSpec) -> Vec<String> {
    let model = spec.model.as_deref().map_or_else(|| "a workload".to_owned(), str::to_owned);
    let mut first = format!("{verb} {model}");
    match spec.kind {
        Some(of) => first = format!("{first} {}", kind(of)),
        // A model is served unless the words say that nothing is said.
        None if spec.model.is_some() && spec.command.is_none() => first.push_str(" of no stated kind"),
        None => {}
    }
    let rest = WorkloadSpec { model: None, kind: None, ..spec.clone() };
    std::iter::once(first).chain(clauses(&rest)).collect()
}

const fn kind(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Inference => "for inference",
        WorkloadKind::Training => "as a training job",
        WorkloadKind::Batch => "as a batch job",
        WorkloadKind::Interactive => "as an interactive session",
        WorkloadKind::Service => "as a service",
    }
}

/// Each field as a clause; those that no words say are left out, and then the sentence is not said.
pub(super) fn clauses(spec: &WorkloadSpec) -> Vec<String> {
    let mut out = program(spec);
    out.extend(spec.gpu.as_ref().map(gpus).unwrap_or_default());
    out.extend(spec.nodes.map(|n| format!("across {n} node{}", if n == 1 { "" } else { "s" })));
    out.extend(host(spec));
    out.extend(policies(spec));
    out.extend(spec.placement.as_ref().map(placement).unwrap_or_default());
    out.extend(spec.tenant.as_deref().map(|tenant| format!("for tenant {}", quoted(tenant))));
    out.extend(spec.market.map(|market| {
        match market {
            MarketUse::Never => "never use the market",
            MarketUse::Overflow => "overflow to the market",
            MarketUse::Only => "only on the market",
        }
        .to_owned()
    }));
    out.extend(spec.budget.as_ref().map(|budget| format!("budget of {}", money(budget))));
    out.extend(spec.replicas.map(|n| format!("{n} replica{}", if n == 1 { "" } else { "s" })));
    out.extend(spec.autoscale.as_ref().map(autoscale));
    out
}

/// What runs.
fn program(spec: &WorkloadSpec) -> Vec<String> {
    let mut out = Vec::new();
    out.extend(spec.model.clone().map(|model| format!("with model {model}")));
    out.extend(spec.kind.map(|of| kind(of).to_owned()));
    out.extend(spec.name.as_deref().map(|name| format!("workload name {}", quoted(name))));
    out.extend(spec.quantization.map(|bits| format!("in {}", bits.as_str())));
    out.extend(spec.image.as_deref().map(|image| format!("image {}", quoted(image))));
    out.extend(spec.command.as_ref().and_then(json).map(|argv| format!("command {argv}")));
    out.extend(spec.working_dir.as_deref().map(|path| format!("working directory {}", quoted(path))));
    out.extend(spec.user.as_deref().map(|user| format!("as user {}", quoted(user))));
    if !spec.env.is_empty() {
        out.extend(json(&spec.env).map(|env| format!("env {env}")));
    }
    out.extend(spec.ports.iter().map(|port| format!("port {port}")));
    for volume in &spec.volumes {
        let mode = if volume.read_only { " read-only" } else { "" };
        out.push(format!("mount {} at {}{mode};", quoted(&volume.source), quoted(&volume.target)));
    }
    out
}

/// GPUs of one replica.
pub(super) fn gpus(gpu: &GpuRequest) -> Vec<String> {
    let mut out = Vec::new();
    match (gpu.count, gpu.model.as_deref()) {
        (Some(0), None) => out.push("no GPU".to_owned()),
        (Some(n), Some(model)) => out.push(format!("{n} x {model}")),
        (Some(n), None) => out.push(format!("{n} GPU{}", if n == 1 { "" } else { "s" })),
        (None, Some(model)) => out.push(format!("on {model}")),
        (None, None) => {}
    }
    out.extend(gpu.vendor.and_then(|vendor| match vendor {
        GpuVendor::Nvidia => Some("made by NVIDIA".to_owned()),
        GpuVendor::Amd => Some("made by AMD".to_owned()),
        GpuVendor::Apple => Some("made by Apple".to_owned()),
        GpuVendor::Intel | GpuVendor::Other => None,
    }));
    out.extend(gpu.memory_gib_min.map(|gib| format!("at least {} GiB of GPU memory", number(gib))));
    out.extend(gpu.interconnect.map(|link| {
        match link {
            Interconnect::Nvlink => "with NVLink",
            Interconnect::Any => "any interconnect",
        }
        .to_owned()
    }));
    out.extend(gpu.fraction.map(|share| {
        // The whole of one has a name; a number of one would count GPUs.
        if share < 1.0 { format!("{} of a GPU", number(share)) } else { "the whole of a GPU".to_owned() }
    }));
    out.extend(gpu.mig_profile.as_ref().map(|profile| format!("MIG profile {profile}")));
    out
}

/// The host's share.
fn host(spec: &WorkloadSpec) -> Vec<String> {
    [
        spec.cpu_cores.map(|n| format!("{} CPU cores", number(n))),
        spec.memory_gib.map(|gib| format!("{} GiB of host memory", number(gib))),
        spec.disk_gib.map(|gib| format!("{} GiB of disk space", number(gib))),
        spec.shm_gib.map(|gib| format!("{} GiB of shared memory", number(gib))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// When, how long, and what becomes of it.
fn policies(spec: &WorkloadSpec) -> Vec<String> {
    let priority = spec.priority.map(|priority| {
        match priority {
            Priority::Critical => "critical priority",
            Priority::High => "high priority",
            Priority::Normal => "normal priority",
            Priority::Low => "low priority",
            Priority::BestEffort => "best effort",
        }
        .to_owned()
    });
    let restart = spec.restart.map(|policy| {
        match policy {
            RestartPolicy::Never => "never restart",
            RestartPolicy::OnFailure => "restart on failure",
            RestartPolicy::Always => "always restart",
        }
        .to_owned()
    });
    [
        priority,
        spec.preemptible.map(|yes| if yes { "preemptible" } else { "not preemptible" }.to_owned()),
        spec.not_before.map(|at| format!("not before {at}")),
        spec.deadline.map(|at| format!("done by {at}")),
        spec.max_duration_s.map(|s| format!("time limit {}", seconds(s))),
        restart,
        spec.max_restarts.map(|n| {
            // Failures are retried where a number is said, unless the words leave the policy open.
            let open = if spec.restart.is_none() { " whatever the restart policy" } else { "" };
            format!("at most {n} restarts{open}")
        }),
        spec.checkpoint_interval_s.map(|s| format!("checkpoint every {}", seconds(s))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where it may run.
fn placement(placement: &Placement) -> Vec<String> {
    let mut out = Vec::new();
    out.extend(placement.node.as_deref().map(|node| format!("on node {}", quoted(node))));
    out.extend(placement.zone.as_deref().map(|zone| format!("in zone {}", quoted(zone))));
    if !placement.labels.is_empty() {
        out.extend(json(&placement.labels).map(|labels| format!("labels {labels}")));
    }
    out.extend(placement.strategy.map(|strategy| {
        match strategy {
            PlacementStrategy::Pack => "packed",
            PlacementStrategy::Spread => "spread out",
        }
        .to_owned()
    }));
    if !placement.exclude_nodes.is_empty() {
        let names: Vec<String> = placement.exclude_nodes.iter().map(|node| quoted(node)).collect();
        out.push(format!("not on nodes {}", names.join(" and ")));
    }
    if !placement.tolerations.is_empty() {
        let borne: Vec<String> = placement.tolerations.iter().map(|taint| quoted(taint)).collect();
        out.push(format!("bearing taints {}", borne.join(" and ")));
    }
    if let Some(apart) = &placement.anti_affinity {
        let within = apart.within.map_or("node", |within| within.as_str());
        out.extend(
            json(&apart.labels).map(|labels| format!("apart from work with labels {labels} within its {within}")),
        );
    }
    out
}

/// "autoscale between 1 and 6 replicas watching GPU utilization at 70".
pub(super) fn autoscale(rule: &Autoscale) -> String {
    let on = rule.metric.map_or_else(String::new, |of| format!(" watching {}", metric(of)));
    let at = match (rule.target, rule.metric) {
        (None, _) => String::new(),
        (Some(target), Some(_)) => format!(" at {}", number(target)),
        (Some(target), None) => format!(" at a target of {}", number(target)),
    };
    format!("autoscale between {} and {} replicas{on}{at}", rule.min, rule.max)
}
