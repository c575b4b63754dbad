//! The specification of a workload on the wire: every field, with its presence.

use std::collections::BTreeMap;

use super::enums::WireEnum;
use super::error::{At as _, Fault, FieldProblem};
use super::parts::{
    at_most, bytes_at_most, chars, chars_optional, decode_labels, each, finite, finite_optional, required, short,
};
use crate::limits;
use crate::spec::{
    AntiAffinity, Autoscale, AutoscaleMetric, Budget, BudgetPer, BudgetUnit, GpuRequest, GpuVendor, Interconnect,
    Isolation, MarketUse, OnPartition, Placement, PlacementStrategy, Priority, PullPolicy, Quantization, RestartPolicy,
    RuntimeKind, SecretRef, TopologyDomain, Volume, WorkloadKind, WorkloadSpec,
};
use crate::time::Timestamp;
use crate::wire::node_v1 as wire;
use crate::wire::node_v1::on_partition::Rule;

fn encode_optional<E: WireEnum + Copy>(value: Option<E>) -> Option<i32> {
    value.map(WireEnum::encode)
}

pub(super) fn encode_spec(spec: &WorkloadSpec) -> wire::WorkloadSpec {
    wire::WorkloadSpec {
        name: spec.name.clone(),
        kind: encode_optional(spec.kind),
        model: spec.model.clone(),
        quantization: encode_optional(spec.quantization),
        image: spec.image.clone(),
        command: spec.command.clone().map(|arguments| wire::Argv { arguments }),
        args: spec.args.clone(),
        env: spec.env.clone(),
        ports: spec.ports.iter().map(|port| u32::from(*port)).collect(),
        gpu: spec.gpu.as_ref().map(encode_gpu),
        nodes: spec.nodes,
        cpu_cores: spec.cpu_cores,
        memory_gib: spec.memory_gib,
        disk_gib: spec.disk_gib,
        shm_gib: spec.shm_gib,
        replicas: spec.replicas,
        autoscale: spec.autoscale.as_ref().map(encode_autoscale),
        priority: encode_optional(spec.priority),
        preemptible: spec.preemptible,
        max_duration_s: spec.max_duration_s,
        not_before_unix_ms: spec.not_before.map(Timestamp::unix_ms),
        gates: spec.gates.clone(),
        deadline_unix_ms: spec.deadline.map(Timestamp::unix_ms),
        restart: encode_optional(spec.restart),
        max_restarts: spec.max_restarts,
        placement: spec.placement.as_ref().map(encode_placement),
        tenant: spec.tenant.clone(),
        checkpoint_interval_s: spec.checkpoint_interval_s,
        volumes: spec.volumes.iter().map(encode_volume).collect(),
        market: encode_optional(spec.market),
        budget: spec.budget.as_ref().map(encode_budget),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        secrets: spec.secrets.iter().map(encode_secret).collect(),
        grace_s: spec.grace_s,
        labels: spec.labels.clone(),
        on_partition: spec.on_partition.map(encode_on_partition),
        outputs: spec.outputs.clone(),
        runtime: encode_optional(spec.runtime),
        pull: encode_optional(spec.pull),
        pull_secret: spec.pull_secret.clone(),
        read_only_root: spec.read_only_root,
    }
}

pub(super) fn decode_spec(spec: wire::WorkloadSpec) -> Result<WorkloadSpec, Fault> {
    let (name_max, path_max) = (limits::NAME_CHARS_MAX, limits::PATH_BYTES_MAX);
    let secrets_max = limits::SECRETS_MAX;
    let decode_output = |path| short(path, path_max);
    Ok(WorkloadSpec {
        name: chars_optional(spec.name, "name", name_max)?,
        kind: WorkloadKind::decode_optional(spec.kind, "kind")?,
        model: chars_optional(spec.model, "model", limits::MODEL_CHARS_MAX)?,
        quantization: Quantization::decode_optional(spec.quantization, "quantization")?,
        image: chars_optional(spec.image, "image", limits::IMAGE_CHARS_MAX)?,
        command: spec.command.map(|c| decode_argv(c.arguments, "command")).transpose()?,
        args: decode_argv(spec.args, "args")?,
        env: decode_env(spec.env)?,
        ports: each(spec.ports, "ports", limits::PORTS_MAX, decode_port)?,
        gpu: spec.gpu.map(|gpu| decode_gpu(gpu).at("gpu")).transpose()?,
        nodes: spec.nodes,
        cpu_cores: finite_optional(spec.cpu_cores, "cpu_cores")?,
        memory_gib: finite_optional(spec.memory_gib, "memory_gib")?,
        disk_gib: finite_optional(spec.disk_gib, "disk_gib")?,
        shm_gib: finite_optional(spec.shm_gib, "shm_gib")?,
        replicas: spec.replicas,
        autoscale: spec.autoscale.map(|a| decode_autoscale(a).at("autoscale")).transpose()?,
        priority: Priority::decode_optional(spec.priority, "priority")?,
        preemptible: spec.preemptible,
        max_duration_s: spec.max_duration_s,
        not_before: spec.not_before_unix_ms.map(Timestamp::from_unix_ms),
        gates: each(spec.gates, "gates", limits::GATES_MAX, |gate| short(gate, name_max))?,
        deadline: spec.deadline_unix_ms.map(Timestamp::from_unix_ms),
        restart: RestartPolicy::decode_optional(spec.restart, "restart")?,
        max_restarts: spec.max_restarts,
        placement: spec.placement.map(|p| decode_placement(p).at("placement")).transpose()?,
        tenant: chars_optional(spec.tenant, "tenant", name_max)?,
        checkpoint_interval_s: spec.checkpoint_interval_s,
        volumes: each(spec.volumes, "volumes", limits::VOLUMES_MAX, decode_volume)?,
        market: MarketUse::decode_optional(spec.market, "market")?,
        budget: spec.budget.map(|budget| decode_budget(budget).at("budget")).transpose()?,
        working_dir: chars_optional(spec.working_dir, "working_dir", path_max)?,
        user: chars_optional(spec.user, "user", name_max)?,
        secrets: each(spec.secrets, "secrets", secrets_max, decode_secret)?,
        grace_s: spec.grace_s,
        labels: decode_labels(spec.labels, "labels")?,
        on_partition: (spec.on_partition).map(|rule| decode_on_partition(rule).at("on_partition")).transpose()?,
        outputs: each(spec.outputs, "outputs", limits::OUTPUTS_MAX, decode_output)?,
        runtime: RuntimeKind::decode_optional(spec.runtime, "runtime")?,
        pull: PullPolicy::decode_optional(spec.pull, "pull")?,
        pull_secret: chars_optional(spec.pull_secret, "pull_secret", limits::MODEL_CHARS_MAX)?,
        read_only_root: spec.read_only_root,
    })
}

pub(super) fn decode_argv(argv: Vec<String>, name: &str) -> Result<Vec<String>, Fault> {
    bytes_at_most(argv.iter().map(String::len).sum(), name, limits::COMMAND_BYTES_MAX)?;
    at_most(argv.len(), name, limits::COMMAND_ARGS_MAX)?;
    for (index, argument) in argv.iter().enumerate() {
        let at = format_args!("{name}[{index}]").to_string();
        bytes_at_most(argument.len(), &at, limits::COMMAND_ARG_BYTES_MAX)?;
    }
    Ok(argv)
}

fn decode_env(env: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Fault> {
    at_most(env.len(), "env", limits::ENV_VARS_MAX)?;
    let n_bytes = env.iter().map(|(key, value)| key.len() + value.len()).sum();
    bytes_at_most(n_bytes, "env", limits::ENV_BYTES_MAX)?;
    for (key, value) in &env {
        bytes_at_most(key.len(), "env", limits::ENV_KEY_CHARS_MAX)?;
        let at = format!("env[\"{}\"]", key.escape_debug());
        bytes_at_most(value.len(), &at, limits::ENV_VALUE_BYTES_MAX)?;
    }
    Ok(env)
}

pub(super) fn decode_port(port: u32) -> Result<u16, Fault> {
    match u16::try_from(port) {
        Ok(port @ 1..) => Ok(port),
        Ok(0) | Err(_) => {
            Err(Fault::new(FieldProblem::OutOfRange { value: u64::from(port), min: 1, max: u64::from(u16::MAX) }))
        }
    }
}

fn encode_gpu(gpu: &GpuRequest) -> wire::GpuRequest {
    wire::GpuRequest {
        count: gpu.count,
        model: gpu.model.clone(),
        vendor: encode_optional(gpu.vendor),
        memory_gib_min: gpu.memory_gib_min,
        interconnect: encode_optional(gpu.interconnect),
        fraction: gpu.fraction,
        mig_profile: gpu.mig_profile.clone(),
        model_fallbacks: gpu.model_fallbacks.clone(),
        isolation: gpu.isolation.map(|isolation| encode_isolation(isolation).into()),
        memory_capped: gpu.isolation == Some(Isolation::Memory),
    }
}

/// Memory is told beside it, see `memory_capped`.
const fn encode_isolation(isolation: Isolation) -> wire::Isolation {
    match isolation {
        Isolation::None | Isolation::Memory => wire::Isolation::None,
        Isolation::Hardware => wire::Isolation::Hardware,
    }
}

fn decode_isolation(value: Option<i32>, memory_capped: bool) -> Result<Option<Isolation>, Fault> {
    let Some(value) = value else { return Ok(None) };
    match wire::Isolation::try_from(value) {
        Ok(wire::Isolation::None) if memory_capped => Ok(Some(Isolation::Memory)),
        Ok(wire::Isolation::None) => Ok(Some(Isolation::None)),
        Ok(wire::Isolation::Hardware) => Ok(Some(Isolation::Hardware)),
        Ok(wire::Isolation::Unspecified) => Err(Fault::new(FieldProblem::Unspecified)),
        Err(_) => Err(Fault::new(FieldProblem::UnknownValue { value })),
    }
}

fn decode_gpu(gpu: wire::GpuRequest) -> Result<GpuRequest, Fault> {
    Ok(GpuRequest {
        count: gpu.count,
        model: chars_optional(gpu.model, "model", limits::NAME_CHARS_MAX)?,
        vendor: GpuVendor::decode_optional(gpu.vendor, "vendor")?,
        memory_gib_min: finite_optional(gpu.memory_gib_min, "memory_gib_min")?,
        interconnect: Interconnect::decode_optional(gpu.interconnect, "interconnect")?,
        fraction: finite_optional(gpu.fraction, "fraction")?,
        mig_profile: chars_optional(gpu.mig_profile, "mig_profile", limits::NAME_CHARS_MAX)?,
        model_fallbacks: each(gpu.model_fallbacks, "model_fallbacks", limits::MODEL_FALLBACKS_MAX, |model| {
            short(model, limits::NAME_CHARS_MAX)
        })?,
        isolation: decode_isolation(gpu.isolation, gpu.memory_capped).at("isolation")?,
    })
}

fn encode_autoscale(rule: &Autoscale) -> wire::Autoscale {
    wire::Autoscale { min: rule.min, max: rule.max, metric: encode_optional(rule.metric), target: rule.target }
}

fn decode_autoscale(rule: wire::Autoscale) -> Result<Autoscale, Fault> {
    Ok(Autoscale {
        min: rule.min,
        max: rule.max,
        metric: AutoscaleMetric::decode_optional(rule.metric, "metric")?,
        target: finite_optional(rule.target, "target")?,
    })
}

fn encode_placement(placement: &Placement) -> wire::Placement {
    wire::Placement {
        node: placement.node.clone(),
        exclude_nodes: placement.exclude_nodes.clone(),
        zone: placement.zone.clone(),
        labels: placement.labels.clone(),
        strategy: encode_optional(placement.strategy),
        tolerations: placement.tolerations.clone(),
        anti_affinity: placement.anti_affinity.as_ref().map(encode_anti_affinity),
    }
}

fn encode_anti_affinity(apart: &AntiAffinity) -> wire::AntiAffinity {
    wire::AntiAffinity { labels: apart.labels.clone(), within: encode_optional(apart.within) }
}

fn decode_anti_affinity(apart: wire::AntiAffinity) -> Result<AntiAffinity, Fault> {
    Ok(AntiAffinity {
        labels: decode_labels(apart.labels, "labels")?,
        within: TopologyDomain::decode_optional(apart.within, "within")?,
    })
}

fn decode_placement(placement: wire::Placement) -> Result<Placement, Fault> {
    let (name_max, excluded_max) = (limits::NAME_CHARS_MAX, limits::EXCLUDE_NODES_MAX);
    let decode_node = |node| short(node, name_max);
    let decode_borne = |borne| short(borne, name_max + limits::LABEL_VALUE_CHARS_MAX);
    Ok(Placement {
        node: chars_optional(placement.node, "node", name_max)?,
        exclude_nodes: each(placement.exclude_nodes, "exclude_nodes", excluded_max, decode_node)?,
        zone: chars_optional(placement.zone, "zone", name_max)?,
        labels: decode_labels(placement.labels, "labels")?,
        strategy: PlacementStrategy::decode_optional(placement.strategy, "strategy")?,
        tolerations: each(placement.tolerations, "tolerations", limits::TOLERATIONS_MAX, decode_borne)?,
        anti_affinity: placement.anti_affinity.map(decode_anti_affinity).transpose().at("anti_affinity")?,
    })
}

fn encode_volume(volume: &Volume) -> wire::Volume {
    wire::Volume { source: volume.source.clone(), target: volume.target.clone(), read_only: volume.read_only }
}

fn decode_volume(volume: wire::Volume) -> Result<Volume, Fault> {
    Ok(Volume {
        source: chars(volume.source, "source", limits::PATH_BYTES_MAX)?,
        target: chars(volume.target, "target", limits::PATH_BYTES_MAX)?,
        read_only: volume.read_only,
    })
}

fn encode_budget(budget: &Budget) -> wire::Budget {
    wire::Budget { amount: budget.amount, unit: budget.unit.encode(), per: encode_optional(budget.per) }
}

fn decode_budget(budget: wire::Budget) -> Result<Budget, Fault> {
    Ok(Budget {
        amount: finite(budget.amount, "amount")?,
        unit: BudgetUnit::decode(budget.unit).at("unit")?,
        per: BudgetPer::decode_optional(budget.per, "per")?,
    })
}

fn encode_secret(secret: &SecretRef) -> wire::SecretRef {
    wire::SecretRef { handle: secret.handle.clone(), target: secret.target.clone() }
}

fn decode_secret(secret: wire::SecretRef) -> Result<SecretRef, Fault> {
    Ok(SecretRef {
        handle: chars(secret.handle, "handle", limits::MODEL_CHARS_MAX)?,
        target: chars(secret.target, "target", limits::NAME_CHARS_MAX)?,
    })
}

pub(super) fn encode_on_partition(rule: OnPartition) -> wire::OnPartition {
    let rule = match rule {
        OnPartition::Keep => Rule::Keep(wire::Keep {}),
        OnPartition::StopAfter(after_s) => Rule::StopAfterS(after_s),
    };
    wire::OnPartition { rule: Some(rule) }
}

pub(super) fn decode_on_partition(rule: wire::OnPartition) -> Result<OnPartition, Fault> {
    match required(rule.rule, "rule")? {
        Rule::Keep(wire::Keep {}) => Ok(OnPartition::Keep),
        Rule::StopAfterS(after_s) => Ok(OnPartition::StopAfter(after_s)),
    }
}
