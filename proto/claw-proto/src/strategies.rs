//! Arbitrary values for the properties of validation and codec.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::limits;
use crate::spec::{
    AntiAffinity, Autoscale, AutoscaleMetric, Budget, BudgetPer, BudgetUnit, GpuRequest, GpuVendor, Interconnect,
    Isolation, MarketUse, OnPartition, Placement, PlacementStrategy, Priority, PullPolicy, Quantization, RestartPolicy,
    RuntimeKind, SecretRef, TopologyDomain, Volume, WorkloadKind, WorkloadSpec,
};
use crate::time::Timestamp;

pub(crate) mod messages;

/// Where the parts of a specification come from: right ones or any.
struct Parts {
    name: BoxedStrategy<String>,
    word: BoxedStrategy<String>,
    path: BoxedStrategy<String>,
    program_text: BoxedStrategy<String>,
    env_key: BoxedStrategy<String>,
    size: BoxedStrategy<f64>,
    count: BoxedStrategy<u32>,
    port: BoxedStrategy<u16>,
}

fn right_parts() -> Parts {
    Parts {
        name: "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".boxed(),
        word: "[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?".boxed(),
        path: "(/[a-z0-9._-]{1,8}){1,4}"
            .prop_filter("no parent step", |p| p.split('/').all(|s| s != ".." && s != "."))
            .boxed(),
        program_text: "[ -~äß漢\\n\\t]{1,40}".prop_filter("not blank", |t| !t.trim().is_empty()).boxed(),
        env_key: "[A-Z_][A-Z0-9_]{0,20}".boxed(),
        size: (0.001..4_000.0_f64).boxed(),
        count: (1..=1_000_u32).boxed(),
        port: (1..=u16::MAX).boxed(),
    }
}

fn any_parts() -> Parts {
    let text = prop_oneof![
        ".{0,80}",
        "[a-z./:@ -]{0,20}",
        Just("../..".to_owned()),
        Just("\u{202e}x\u{7}".to_owned()),
        Just("a".repeat(2_000)),
    ]
    .boxed();
    let size = prop_oneof![any::<f64>(), -1.0..2.0_f64, Just(f64::NAN), Just(f64::INFINITY)];
    Parts {
        name: text.clone(),
        word: text.clone(),
        path: text.clone(),
        program_text: text.clone(),
        env_key: text,
        size: size.boxed(),
        count: prop_oneof![any::<u32>(), 0..4_u32].boxed(),
        port: (0..4_u16).boxed(),
    }
}

/// A specification that keeps every rule.
pub(crate) fn valid_spec() -> BoxedStrategy<WorkloadSpec> {
    spec(&right_parts()).prop_map(mended).boxed()
}

/// Any specification, mostly a wrong one.
pub(crate) fn any_spec() -> BoxedStrategy<WorkloadSpec> {
    spec(&any_parts())
}

/// Removes the contradictions that right parts can still make.
fn mended(mut spec: WorkloadSpec) -> WorkloadSpec {
    if spec.model.is_none() && spec.image.is_none() && spec.command.is_none() {
        spec.command = Some(vec!["true".to_owned()]);
    }
    if spec.image.is_none() || spec.runtime == Some(RuntimeKind::Process) {
        (spec.pull, spec.pull_secret) = (None, None);
    }
    if spec.runtime == Some(RuntimeKind::Process) {
        spec.image = None;
        spec.read_only_root = None;
        spec.command.get_or_insert_with(|| vec!["true".to_owned()]);
    }
    spec.shm_gib = spec.shm_gib.map(|shm| shm.min(spec.memory_gib.unwrap_or(shm)));
    if let Some(gpu) = &mut spec.gpu {
        gpu.count = Some(gpu.count.unwrap_or(1));
        gpu.mig_profile = gpu.mig_profile.take().filter(|_| gpu.fraction.is_none());
        if gpu.fraction.is_some() {
            gpu.count = None;
            gpu.isolation = gpu.isolation.filter(|isolation| *isolation != Isolation::Hardware);
        }
        let mut seen = BTreeSet::from_iter(gpu.model.clone().map(|model| model.to_ascii_lowercase()));
        gpu.model_fallbacks.retain(|model| seen.insert(model.to_ascii_lowercase()));
        if gpu.mig_profile.is_some() {
            gpu.interconnect = None;
        }
        gpu.vendor = None;
        // The largest number of nodes up to the drawn one that shares the GPUs evenly.
        let even = |nodes: u32, count: u32| (1..=nodes.min(count)).rev().find(|n| count.is_multiple_of(*n));
        let count = gpu.count.unwrap_or(1);
        spec.nodes = spec.nodes.map(|nodes| even(nodes, count).unwrap_or(nodes));
    }
    if let Some(rule) = &mut spec.autoscale {
        rule.max = rule.max.max(rule.min);
        spec.replicas = spec.replicas.map(|replicas| replicas.clamp(rule.min.max(1), rule.max));
        rule.metric = rule.metric.or(Some(AutoscaleMetric::QueueDepth));
        rule.target = rule.target.map(|target| target.min(100.0));
    }
    if let (Some(not_before), Some(deadline)) = (spec.not_before, spec.deadline) {
        spec.deadline = Some(deadline.max(not_before.plus_ms(1)));
    }
    if spec.restart == Some(RestartPolicy::Never) {
        spec.max_restarts = None;
    }
    if let Some(placement) = &mut spec.placement {
        let node = placement.node.clone();
        placement.exclude_nodes.retain(|excluded| Some(excluded) != node.as_ref());
    }
    let mut targets = std::collections::BTreeSet::new();
    spec.volumes.retain(|volume| targets.insert(volume.target.clone()));
    spec.secrets.retain(|secret| targets.insert(secret.target.clone()));
    spec.outputs.retain(|output| targets.insert(output.clone()));
    spec.gates.retain(|gate| targets.insert(gate.clone()));
    let mut ports = std::collections::BTreeSet::new();
    spec.ports.retain(|port| ports.insert(*port));
    spec
}

fn spec(parts: &Parts) -> BoxedStrategy<WorkloadSpec> {
    (program(parts), resources(parts), schedule(parts), surroundings(parts))
        .prop_map(|(program, size, times, around)| WorkloadSpec {
            nodes: size.nodes,
            cpu_cores: size.cpu_cores,
            memory_gib: size.memory_gib,
            disk_gib: size.disk_gib,
            shm_gib: size.shm_gib,
            replicas: size.replicas,
            autoscale: size.autoscale,
            gpu: size.gpu,
            priority: times.priority,
            preemptible: times.preemptible,
            max_duration_s: times.max_duration_s,
            not_before: times.not_before,
            gates: times.gates,
            deadline: times.deadline,
            restart: times.restart,
            max_restarts: times.max_restarts,
            checkpoint_interval_s: times.checkpoint_interval_s,
            grace_s: times.grace_s,
            on_partition: times.on_partition,
            placement: around.placement,
            tenant: around.tenant,
            volumes: around.volumes,
            market: around.market,
            budget: around.budget,
            secrets: around.secrets,
            labels: around.labels,
            outputs: around.outputs,
            ..program
        })
        .boxed()
}

/// The fields that say what runs.
fn program(parts: &Parts) -> impl Strategy<Value = WorkloadSpec> + use<> {
    let text = &parts.program_text;
    let what = (
        of(parts.name.clone()),
        of(select(WorkloadKind::ALL)),
        of(parts.name.clone()),
        of(select(Quantization::ALL)),
        of(parts.name.clone()),
    );
    let argv =
        (of(vec(text.clone(), 1..4)), vec(text.clone(), 0..3), btree_map(parts.env_key.clone(), text.clone(), 0..4));
    // A name may begin with a digit, a user's may not.
    let as_user = |name: String| {
        if name.starts_with(|c: char| c.is_ascii_digit()) { "7:7".to_owned() } else { name }
    };
    let inside = (
        vec(parts.port.clone(), 0..4),
        of(parts.path.clone()),
        of(parts.name.clone().prop_map(as_user)),
        of(select(RuntimeKind::ALL)),
        (of(select(PullPolicy::ALL)), of(parts.name.clone()), of(any::<bool>())),
    );
    (what, argv, inside).prop_map(|(what, (command, args, env), inside)| {
        let (name, kind, model, quantization, image) = what;
        let (ports, working_dir, user, runtime, (pull, pull_secret, read_only_root)) = inside;
        WorkloadSpec {
            name,
            kind,
            model,
            quantization,
            image,
            command,
            args,
            env,
            ports,
            working_dir,
            user,
            pull,
            pull_secret,
            read_only_root,
            runtime,
            ..WorkloadSpec::default()
        }
    })
}

/// The fields that say how much it takes.
fn resources(parts: &Parts) -> impl Strategy<Value = WorkloadSpec> + use<> {
    let size = || of(parts.size.clone());
    let count = || of(parts.count.clone());
    let all = (count(), size(), size(), size(), size(), count(), of(autoscale(parts)), of(gpu(parts)));
    all.prop_map(|(nodes, cpu_cores, memory_gib, disk_gib, shm_gib, replicas, autoscale, gpu)| WorkloadSpec {
        gpu,
        nodes,
        cpu_cores,
        memory_gib,
        disk_gib,
        shm_gib,
        replicas,
        autoscale,
        ..WorkloadSpec::default()
    })
}

/// The fields that say when it runs and how it ends.
fn schedule(parts: &Parts) -> impl Strategy<Value = WorkloadSpec> + use<> {
    let seconds = || of(1..=limits::DURATION_S_MAX);
    let times = (seconds(), of(instant()), of(instant()), seconds());
    let order = (of(select(Priority::ALL)), of(any::<bool>()));
    let again = (of(select(RestartPolicy::ALL)), of(parts.count.clone()));
    let end = (of(0..=limits::GRACE_S_MAX), of(on_partition()));
    let gates = vec(parts.name.clone(), 0..3);
    (times, order, again, end, gates).prop_map(|(times, order, again, (grace_s, on_partition), gates)| {
        let (max_duration_s, not_before, deadline, checkpoint_interval_s) = times;
        let ((priority, preemptible), (restart, max_restarts)) = (order, again);
        WorkloadSpec {
            priority,
            preemptible,
            max_duration_s,
            not_before,
            gates,
            deadline,
            restart,
            max_restarts,
            checkpoint_interval_s,
            grace_s,
            on_partition,
            ..WorkloadSpec::default()
        }
    })
}

/// The fields that say where it runs, with what around it, and for whom.
fn surroundings(parts: &Parts) -> impl Strategy<Value = WorkloadSpec> + use<> {
    let place = (of(placement(parts)), of(parts.name.clone()), labels(parts));
    let money = (of(select(MarketUse::ALL)), of(budget(parts)));
    let files = (vec(volume(parts), 0..3), vec(secret(parts), 0..3), vec(parts.path.clone(), 0..3));
    (place, money, files).prop_map(|(place, (market, budget), (volumes, secrets, outputs))| {
        let (placement, tenant, labels) = place;
        WorkloadSpec { placement, tenant, volumes, market, budget, secrets, labels, outputs, ..WorkloadSpec::default() }
    })
}

fn instant() -> impl Strategy<Value = Timestamp> {
    (-62_000_000_000_000..250_000_000_000_000_i64).prop_map(Timestamp::from_unix_ms)
}

fn gpu(parts: &Parts) -> impl Strategy<Value = GpuRequest> + use<> {
    let share = prop_oneof![3 => Just(None), 1 => of(0.01..=1.0_f64)];
    let others = (vec(parts.word.clone(), 0..3), of(select(Isolation::ALL)));
    let mig = prop_oneof![3 => Just(None), 1 => Just(Some("1g.10gb".to_owned()))];
    let model = of(parts.word.clone());
    let memory = of(parts.size.clone());
    let what = (of(parts.count.clone()), model, of(select(GpuVendor::ALL)), memory);
    (what, of(select(Interconnect::ALL)), share, mig, others).prop_map(
        |(
            (count, model, vendor, memory_gib_min),
            interconnect,
            fraction,
            mig_profile,
            (model_fallbacks, isolation),
        )| {
            GpuRequest {
                count,
                model,
                model_fallbacks,
                vendor,
                memory_gib_min,
                interconnect,
                fraction,
                mig_profile,
                isolation,
            }
        },
    )
}

fn autoscale(parts: &Parts) -> impl Strategy<Value = Autoscale> + use<> {
    let target = of(parts.size.clone());
    (parts.count.clone(), parts.count.clone(), of(select(AutoscaleMetric::ALL)), target)
        .prop_map(|(min, max, metric, target)| Autoscale { min, max, metric, target })
}

fn labels(parts: &Parts) -> impl Strategy<Value = BTreeMap<String, String>> + use<> {
    btree_map(parts.word.clone(), parts.name.clone(), 0..3)
}

fn placement(parts: &Parts) -> impl Strategy<Value = Placement> + use<> {
    let excluded = vec(parts.word.clone(), 0..3);
    let zone = of(parts.word.clone());
    let borne = vec(parts.word.clone(), 0..3);
    let whole = (of(parts.word.clone()), excluded, zone, labels(parts), of(select(PlacementStrategy::ALL)));
    (whole, borne, of(anti_affinity(parts))).prop_map(
        |((node, exclude_nodes, zone, labels, strategy), tolerations, anti_affinity)| Placement {
            node,
            exclude_nodes,
            zone,
            labels,
            strategy,
            tolerations,
            anti_affinity,
        },
    )
}

fn anti_affinity(parts: &Parts) -> impl Strategy<Value = AntiAffinity> + use<> {
    let labels = btree_map(parts.word.clone(), parts.name.clone(), 1..3);
    (labels, of(select(TopologyDomain::ALL))).prop_map(|(labels, within)| AntiAffinity { labels, within })
}

fn volume(parts: &Parts) -> impl Strategy<Value = Volume> + use<> {
    (parts.word.clone(), parts.path.clone(), any::<bool>()).prop_map(|(source, target, read_only)| Volume {
        source,
        target,
        read_only,
    })
}

fn secret(parts: &Parts) -> impl Strategy<Value = SecretRef> + use<> {
    (parts.word.clone(), parts.word.clone()).prop_map(|(handle, target)| SecretRef { handle, target })
}

fn budget(parts: &Parts) -> impl Strategy<Value = Budget> + use<> {
    (parts.size.clone(), select(BudgetUnit::ALL), of(select(BudgetPer::ALL))).prop_map(|(amount, unit, per)| Budget {
        amount,
        unit,
        per,
    })
}

fn on_partition() -> impl Strategy<Value = OnPartition> {
    prop_oneof![
        Just(OnPartition::Keep),
        (limits::STOP_AFTER_S_MIN..=limits::STOP_AFTER_S_MAX).prop_map(OnPartition::StopAfter),
    ]
}
