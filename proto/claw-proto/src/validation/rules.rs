//! The rules of a workload specification, group by group, and what it demands.

use std::collections::BTreeSet;

use super::checks::{canonical_path, indexed};
use super::gpu_models::{canonical_gpu_model, nearest_gpu_model, vendor_of};
use super::{Demand, FaultCode, GPU_MILLI, Validator};
use crate::limits;
use crate::spec::{
    Autoscale, AutoscaleMetric, GpuRequest, Interconnect, Isolation, OnPartition, Placement, RestartPolicy,
    RuntimeKind, SecretRef, Volume, WorkloadSpec,
};

/// MiB in a GiB.
const MIB_PER_GIB: f64 = 1024.0;

/// Notes every fault of a specification.
pub(super) fn check(v: &mut Validator, spec: &WorkloadSpec) {
    identity(v, spec);
    program(v, spec);
    resources(v, spec);
    if let Some(gpu) = &spec.gpu {
        gpu_request(v, gpu);
    }
    scale(v, spec);
    schedule(v, spec);
    if let Some(placement) = &spec.placement {
        place(v, placement);
    }
    files(v, spec);
}

fn identity(v: &mut Validator, spec: &WorkloadSpec) {
    if let Some(name) = &spec.name {
        v.name("name", name);
    }
    if let Some(tenant) = &spec.tenant {
        v.tenant_ref("tenant", tenant);
    }
    v.labels("labels", &spec.labels);
}

fn program(v: &mut Validator, spec: &WorkloadSpec) {
    if spec.model.is_none() && spec.image.is_none() && spec.command.is_none() {
        v.fault("command", FaultCode::Missing, "nothing to run: give a command, an image or a model");
    }
    if let Some(model) = &spec.model {
        v.model_id("model", model);
    }
    if let Some(image) = &spec.image {
        v.image("image", image);
    }
    if let Some(command) = &spec.command {
        v.argv("command", command);
        match command.first() {
            None => {
                v.fault("command", FaultCode::Malformed, "is an empty list")
                    .with_allowed("the program, then its arguments");
            }
            Some(program) if program.trim().is_empty() => {
                v.fault("command[0]", FaultCode::Malformed, "is empty").with_allowed("the program's name or path");
            }
            Some(_) => {}
        }
    }
    v.argv("args", &spec.args);
    v.env("env", &spec.env);
    if let Some(user) = &spec.user {
        v.user("user", user);
    }
    runtime(v, spec);
    ports(v, &spec.ports);
}

fn runtime(v: &mut Validator, spec: &WorkloadSpec) {
    if let Some(handle) = &spec.pull_secret {
        v.secret_handle("pull_secret", handle);
    }
    let of_images = [("pull", spec.pull.is_some()), ("pull_secret", spec.pull_secret.is_some())];
    for (field, _) in
        of_images.into_iter().filter(|(_, is_set)| *is_set && spec.image.is_none() && spec.model.is_none())
    {
        v.fault(field, FaultCode::Conflict, "is about an image, and there is none").with_allowed("leave it out");
    }
    if spec.runtime == Some(RuntimeKind::Process) {
        if spec.read_only_root == Some(true) {
            v.fault("read_only_root", FaultCode::Conflict, "a host process has no file system of its own")
                .with_got(true)
                .with_allowed("runtime docker, or leave it out");
        }
        if spec.image.is_some() {
            v.fault("runtime", FaultCode::Conflict, "a host process does not run an image")
                .with_got("process")
                .with_allowed("docker, or leave image out");
        }
        if spec.command.is_none() {
            v.fault("command", FaultCode::Missing, "runtime process needs a command");
        }
    }
}

fn ports(v: &mut Validator, ports: &[u16]) {
    v.count("ports", ports.len(), limits::PORTS_MAX);
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate().take(limits::PORTS_MAX) {
        let at = indexed("ports", index);
        v.whole(&at, u64::from(*port), 1, u64::from(u16::MAX));
        if !seen.insert(*port) {
            v.fault(&at, FaultCode::Conflict, "is listed twice").with_got(port);
        }
    }
}

fn resources(v: &mut Validator, spec: &WorkloadSpec) {
    if let Some(cores) = spec.cpu_cores {
        v.positive("cpu_cores", cores, limits::CPU_CORES_MAX);
    }
    if let Some(memory) = spec.memory_gib {
        v.positive("memory_gib", memory, limits::MEMORY_GIB_MAX);
    }
    if let Some(disk) = spec.disk_gib {
        v.positive("disk_gib", disk, limits::DISK_GIB_MAX);
    }
    if let Some(shm) = spec.shm_gib
        && v.positive("shm_gib", shm, limits::MEMORY_GIB_MAX)
        && let Some(memory) = spec.memory_gib
        && shm > memory
    {
        v.fault("shm_gib", FaultCode::Conflict, "shared memory is part of memory_gib and cannot be larger")
            .with_got(shm)
            .with_allowed(format!("up to {memory}"));
    }
    if let Some(budget) = &spec.budget {
        v.positive("budget.amount", budget.amount, limits::BUDGET_AMOUNT_MAX);
    }
}

fn gpu_request(v: &mut Validator, gpu: &GpuRequest) {
    let is_share = gpu.fraction.is_some() || gpu.mig_profile.is_some();
    let is_described = gpu.models().next().is_some()
        || gpu.vendor.is_some()
        || gpu.memory_gib_min.is_some()
        || gpu.interconnect.is_some()
        || gpu.isolation.is_some();
    match gpu.count {
        None if is_described && !is_share => {
            v.fault(
                "gpu.count",
                FaultCode::Missing,
                "GPUs are described but not counted: say how many one replica needs",
            )
            .with_allowed(format!("0 to {}", limits::GPUS_PER_REPLICA_MAX));
        }
        Some(0) if is_described || is_share => {
            v.fault("gpu.count", FaultCode::Conflict, "no GPU is asked for, yet GPUs are described")
                .with_got(0)
                .with_allowed("1 or more, or leave the rest of gpu out");
        }
        Some(count) => {
            v.whole("gpu.count", u64::from(count), 0, u64::from(limits::GPUS_PER_REPLICA_MAX));
        }
        None => {}
    }
    if let Some(memory) = gpu.memory_gib_min {
        v.positive("gpu.memory_gib_min", memory, limits::GPU_MEMORY_GIB_MAX);
    }
    if let Some(model) = &gpu.model {
        gpu_model(v, gpu, "gpu.model", model);
    }
    gpu_fallbacks(v, gpu);
    gpu_share(v, gpu);
}

/// Models are told apart however they are spelled.
fn gpu_fallbacks(v: &mut Validator, gpu: &GpuRequest) {
    v.count("gpu.model_fallbacks", gpu.model_fallbacks.len(), limits::MODEL_FALLBACKS_MAX);
    let one = |model: &str| canonical_gpu_model(model).unwrap_or(model).to_ascii_lowercase();
    let mut seen: BTreeSet<String> = gpu.model.as_deref().map(one).into_iter().collect();
    for (index, model) in gpu.model_fallbacks.iter().enumerate().take(limits::MODEL_FALLBACKS_MAX) {
        let at = indexed("gpu.model_fallbacks", index);
        gpu_model(v, gpu, &at, model);
        if !seen.insert(one(model)) {
            v.fault(&at, FaultCode::Conflict, "this model is named twice").with_got(model);
        }
    }
}

fn gpu_model(v: &mut Validator, gpu: &GpuRequest, at: &str, model: &str) {
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'))
    };
    let is_model = |t: &str| t.starts_with(|c: char| c.is_ascii_alphanumeric()) && t.split(' ').all(is_word);
    // Which one may be meant is looked for only where it is none.
    let meant = if is_model(model) { None } else { nearest_gpu_model(model) };
    let allowed = ["a model name such as ", meant.unwrap_or("H100")].concat();
    if !v.form(at, model, limits::NAME_CHARS_MAX, &allowed, is_model) {
        return;
    }
    if let Some(wanted) = gpu.vendor
        && let Some(made_by) = canonical_gpu_model(model).and_then(vendor_of)
        && made_by != wanted
    {
        v.fault("gpu.vendor", FaultCode::Conflict, format!("{model} is made by {made_by}"))
            .with_got(wanted)
            .with_allowed(made_by.as_str());
    }
}

/// Shares of a GPU: a fraction, or a MIG slice.
fn gpu_share(v: &mut Validator, gpu: &GpuRequest) {
    if let Some(fraction) = gpu.fraction {
        v.positive("gpu.fraction", fraction, 1.0);
        if let Some(count @ 2..) = gpu.count {
            v.fault("gpu.fraction", FaultCode::Conflict, format!("a share of one GPU, but gpu.count is {count}"))
                .with_got(fraction)
                .with_allowed("gpu.count 1, or no fraction");
        }
        if gpu.mig_profile.is_some() {
            v.fault("gpu.mig_profile", FaultCode::Conflict, "a MIG slice and a fraction exclude each other")
                .with_allowed("one of mig_profile and fraction");
        }
        if fraction < 1.0 && gpu.isolation == Some(Isolation::Hardware) {
            v.fault("gpu.isolation", FaultCode::Conflict, "no hardware keeps the shares of a GPU apart")
                .with_got(Isolation::Hardware)
                .with_allowed("none, memory, or gpu.mig_profile or whole GPUs instead of gpu.fraction");
        }
    }
    if let Some(profile) = &gpu.mig_profile {
        v.form("gpu.mig_profile", profile, limits::NAME_CHARS_MAX, "a MIG profile such as 1g.10gb", is_mig_profile);
        if gpu.interconnect == Some(Interconnect::Nvlink) {
            v.fault("gpu.interconnect", FaultCode::Conflict, "MIG slices have no NVLink")
                .with_got(Interconnect::Nvlink)
                .with_allowed("any");
        }
    }
}

/// `<slices>g.<memory>gb`, with an optional attribute such as `+me`.
fn is_mig_profile(text: &str) -> bool {
    let (base, attribute) = text.split_once('+').map_or((text, None), |(base, rest)| (base, Some(rest)));
    let is_base = base.split_once("g.").is_some_and(|(slices, memory)| {
        let is_slices = matches!(slices, "1" | "2" | "3" | "4" | "7");
        let digits = memory.strip_suffix("gb").unwrap_or_default();
        is_slices
            && (1..=3).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit())
    });
    is_base && attribute.is_none_or(|a| matches!(a, "me" | "me.all" | "gfx"))
}

fn scale(v: &mut Validator, spec: &WorkloadSpec) {
    // A share or a slice that is not counted is one.
    let uncounted = |gpu: &GpuRequest| (gpu.fraction.is_some() || gpu.mig_profile.is_some()).then_some(1);
    let count = spec.gpu.as_ref().and_then(|gpu| gpu.count.or_else(|| uncounted(gpu)));
    if let Some(nodes) = spec.nodes
        && v.whole("nodes", u64::from(nodes), 1, u64::from(limits::NODES_PER_REPLICA_MAX))
        && let Some(count @ 1..) = count
        && nodes > count
    {
        v.fault("nodes", FaultCode::Conflict, format!("more nodes than the {count} GPUs of one replica"))
            .with_got(nodes)
            .with_allowed(format!("1 to {count}"));
    } else if let Some(nodes @ 1..=limits::NODES_PER_REPLICA_MAX) = spec.nodes
        && let Some(count @ 1..) = count
        && !count.is_multiple_of(nodes)
    {
        v.fault("nodes", FaultCode::Conflict, format!("the {count} GPUs of one replica are not a multiple of it"))
            .with_got(nodes)
            .with_allowed(divisors(count));
    }
    if let Some(replicas) = spec.replicas {
        v.whole("replicas", u64::from(replicas), 1, u64::from(limits::REPLICAS_MAX));
    }
    if let Some(rule) = &spec.autoscale {
        autoscale(v, rule, spec.replicas);
    }
}

/// The numbers of nodes that share so many GPUs evenly.
fn divisors(count: u32) -> String {
    let even = (1..=count.min(limits::NODES_PER_REPLICA_MAX)).filter(|n| count.is_multiple_of(*n));
    even.map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
}

fn autoscale(v: &mut Validator, rule: &Autoscale, replicas: Option<u32>) {
    let max_allowed = u64::from(limits::REPLICAS_MAX);
    let is_max = v.whole("autoscale.max", u64::from(rule.max), 1, max_allowed);
    if is_max && rule.min > rule.max {
        v.fault("autoscale.min", FaultCode::Conflict, "is over autoscale.max")
            .with_got(rule.min)
            .with_allowed(format!("0 to {}", rule.max));
    } else if is_max
        && let Some(replicas) = replicas
        && !(rule.min..=rule.max).contains(&replicas)
    {
        v.fault("replicas", FaultCode::Conflict, "is outside of the autoscale range")
            .with_got(replicas)
            .with_allowed(format!("{} to {}", rule.min, rule.max));
    }
    let Some(target) = rule.target else { return };
    match rule.metric {
        None => {
            v.fault("autoscale.metric", FaultCode::Missing, "a target needs the metric that it is for")
                .with_allowed(AutoscaleMetric::ALL.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(", "));
            v.positive("autoscale.target", target, limits::AUTOSCALE_TARGET_MAX);
        }
        Some(AutoscaleMetric::GpuUtilization | AutoscaleMetric::GpuMemoryUsed | AutoscaleMetric::ErrorRate) => {
            v.positive("autoscale.target", target, 100.0);
        }
        Some(
            AutoscaleMetric::GpuTemperature
            | AutoscaleMetric::GpuPower
            | AutoscaleMetric::NodeUnreachable
            | AutoscaleMetric::QueueDepth
            | AutoscaleMetric::LatencyP99,
        ) => {
            v.positive("autoscale.target", target, limits::AUTOSCALE_TARGET_MAX);
        }
    }
}

fn schedule(v: &mut Validator, spec: &WorkloadSpec) {
    if let Some(duration) = spec.max_duration_s {
        v.whole("max_duration_s", duration, 1, limits::DURATION_S_MAX);
    }
    if let Some(interval) = spec.checkpoint_interval_s {
        v.whole("checkpoint_interval_s", interval, 1, limits::DURATION_S_MAX);
    }
    if let (Some(not_before), Some(deadline)) = (spec.not_before, spec.deadline)
        && deadline <= not_before
    {
        v.fault("deadline", FaultCode::Conflict, "is not after not_before")
            .with_got(deadline)
            .with_allowed(format!("after {not_before}"));
    }
    v.gates("gates", &spec.gates);
    if let Some(max_restarts) = spec.max_restarts {
        v.whole("max_restarts", u64::from(max_restarts), 0, u64::from(limits::RESTARTS_MAX));
        if max_restarts > 0 && spec.restart == Some(RestartPolicy::Never) {
            v.fault("max_restarts", FaultCode::Conflict, "restart is never")
                .with_got(max_restarts)
                .with_allowed("0, or restart on_failure or always");
        }
    }
    if let Some(grace) = spec.grace_s {
        v.whole("grace_s", u64::from(grace), 0, u64::from(limits::GRACE_S_MAX));
    }
    match spec.on_partition {
        Some(OnPartition::StopAfter(after)) => {
            v.whole(
                "on_partition.stop_after",
                u64::from(after),
                u64::from(limits::STOP_AFTER_S_MIN),
                u64::from(limits::STOP_AFTER_S_MAX),
            );
        }
        Some(OnPartition::Keep) | None => {}
    }
}

fn place(v: &mut Validator, placement: &Placement) {
    if let Some(node) = &placement.node {
        v.node_ref("placement.node", node);
        if placement.exclude_nodes.contains(node) {
            v.fault("placement.exclude_nodes", FaultCode::Conflict, "excludes the node that placement.node asks for")
                .with_got(node);
        }
    }
    v.count("placement.exclude_nodes", placement.exclude_nodes.len(), limits::EXCLUDE_NODES_MAX);
    for (index, node) in placement.exclude_nodes.iter().enumerate().take(limits::EXCLUDE_NODES_MAX) {
        v.node_ref(&indexed("placement.exclude_nodes", index), node);
    }
    if let Some(zone) = &placement.zone {
        v.word("placement.zone", zone);
    }
    v.labels("placement.labels", &placement.labels);
    v.count("placement.tolerations", placement.tolerations.len(), limits::TOLERATIONS_MAX);
    for (index, borne) in placement.tolerations.iter().enumerate().take(limits::TOLERATIONS_MAX) {
        v.toleration(&indexed("placement.tolerations", index), borne);
    }
    if let Some(apart) = &placement.anti_affinity {
        if apart.labels.is_empty() {
            v.fault(
                "placement.anti_affinity.labels",
                FaultCode::Missing,
                "says from whom: without labels it is nobody",
            )
            .with_allowed("labels of other work, such as {\"app\": \"db\"}");
        }
        v.labels("placement.anti_affinity.labels", &apart.labels);
    }
}

fn files(v: &mut Validator, spec: &WorkloadSpec) {
    if let Some(dir) = &spec.working_dir {
        v.absolute_path("working_dir", dir);
    }
    volumes(v, &spec.volumes);
    secrets(v, &spec.secrets);
    v.count("outputs", spec.outputs.len(), limits::OUTPUTS_MAX);
    let mut outputs = BTreeSet::new();
    for (index, output) in spec.outputs.iter().enumerate().take(limits::OUTPUTS_MAX) {
        let at = indexed("outputs", index);
        if v.inner_path(&at, output) && !outputs.insert(canonical_path(output)) {
            v.fault(&at, FaultCode::Conflict, "is listed twice").with_got(output);
        }
    }
}

fn volumes(v: &mut Validator, volumes: &[Volume]) {
    v.count("volumes", volumes.len(), limits::VOLUMES_MAX);
    let mut targets = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate().take(limits::VOLUMES_MAX) {
        let at = indexed("volumes", index);
        let source = format!("{at}.source");
        if volume.source.starts_with('/') {
            v.absolute_path(&source, &volume.source);
        } else if let Some(name) = volume.source.strip_prefix("cache:") {
            v.word(&source, name);
        } else {
            v.word(&source, &volume.source);
        }
        let target = format!("{at}.target");
        if v.absolute_path(&target, &volume.target) {
            let canonical = canonical_path(&volume.target);
            if canonical == "/" {
                v.fault(&target, FaultCode::Malformed, "would hide the whole file system")
                    .with_got("/")
                    .with_allowed("a path below /");
            } else if !targets.insert(canonical) {
                v.fault(&target, FaultCode::Conflict, "two volumes have this target").with_got(&volume.target);
            }
        }
    }
}

fn secrets(v: &mut Validator, secrets: &[SecretRef]) {
    v.count("secrets", secrets.len(), limits::SECRETS_MAX);
    let mut names = BTreeSet::new();
    for (index, secret) in secrets.iter().enumerate().take(limits::SECRETS_MAX) {
        let at = indexed("secrets", index);
        v.secret_handle(&format!("{at}.handle"), &secret.handle);
        let target = format!("{at}.target");
        if v.word(&target, &secret.target) && !names.insert(&secret.target) {
            v.fault(&target, FaultCode::Conflict, "two secrets have this target").with_got(&secret.target);
        }
    }
}

/// What one replica of a *checked* specification takes.
pub(super) fn demand(spec: &WorkloadSpec) -> Demand {
    let gpu = spec.gpu.as_ref();
    let is_share = gpu.is_some_and(|g| g.fraction.is_some() || g.mig_profile.is_some());
    let gpus = gpu.and_then(|g| g.count).unwrap_or(u32::from(is_share));
    let models = gpu.into_iter().flat_map(GpuRequest::models);
    Demand {
        gpus,
        gpu_milli: share_milli(spec),
        mig_profile: gpu.and_then(|g| g.mig_profile.clone()),
        cpu_millis: spec.cpu_cores.map_or(limits::CPU_MILLIS_DEFAULT, |cores| scaled(cores, 1_000.0)),
        memory_mib: spec.memory_gib.map_or(limits::MEMORY_MIB_DEFAULT, |gib| scaled(gib, MIB_PER_GIB)),
        disk_mib: spec.disk_gib.map_or(0, |gib| scaled(gib, MIB_PER_GIB)),
        gpu_memory_mib_min: gpu
            .and_then(|g| g.memory_gib_min)
            .map_or(0, |gib| scaled(gib * f64::from(limits::GPU_MEMORY_OF_NOMINAL_PERMILLE) / 1_000.0, MIB_PER_GIB)),
        gpu_models: models.map(|m| canonical_gpu_model(m).unwrap_or(m).to_owned()).collect(),
        gpu_models_ranked: gpu.is_some_and(|g| g.model.is_some() && !g.model_fallbacks.is_empty()),
        gpu_vendor: gpu.and_then(|g| g.vendor),
        nvlink: gpus > 1 && gpu.and_then(|g| g.interconnect) == Some(Interconnect::Nvlink),
        capped: super::is_capped_share(spec),
    }
}

/// See [`super::share_milli`].
pub(super) fn share_milli(spec: &WorkloadSpec) -> u16 {
    let fraction = spec.gpu.as_ref().and_then(|gpu| gpu.fraction);
    // To the nearest, so that three thirds find room on one.
    let milli = fraction.map(|fraction| scaled((fraction * f64::from(GPU_MILLI)).round(), 1.0));
    milli.and_then(|milli| u16::try_from(milli).ok()).map_or(GPU_MILLI, |milli| milli.min(GPU_MILLI))
}

/// The share of one of its nodes.
pub(super) fn node_demand(spec: &WorkloadSpec, demand: &Demand) -> Demand {
    let gpus = demand.gpus / spec.nodes.unwrap_or(1).max(1);
    Demand { gpus, nvlink: demand.nvlink && gpus > 1, ..demand.clone() }
}

/// A checked size in smaller units, rounded up (half a MiB asked for is one MiB
/// taken), yet not over the noise of a float: 1.1 cores are 1,100 thousandths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is positive and below its limit, far under 2^53"
)]
fn scaled(value: f64, factor: f64) -> u64 {
    (value * factor - 1e-6).ceil().max(1.0) as u64
}
