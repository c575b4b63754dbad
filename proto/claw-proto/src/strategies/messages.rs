//! Arbitrary messages of both directions.

mod newer;

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::{labels, on_partition, right_parts, valid_spec};
use crate::ids::{Attempt, Generation, GpuUuid, NodeId, WorkloadId};
use crate::message::{
    DesiredWorkload, Envelope, GatewayMessage, GpuMetrics, LogChunk, LogGap, LogKey, LogLine, LogStream, MeshPeer,
    NodeErrorCode, NodeMessage, NodeSettings, NodeWorkloadState, RefusalCode, RunningReport, StatusCause, StatusRecord,
    StopOrder, SystemMetrics,
};
use crate::spec::{GpuVendor, RuntimeKind};
use crate::time::Timestamp;
use crate::topology::{GpuDriver, GpuHealth, GpuInfo, NodeCapabilities};

fn workload() -> impl Strategy<Value = (WorkloadId, Attempt)> {
    (any::<u128>(), any::<u32>()).prop_map(|(id, n)| (WorkloadId::from_bits(id), Attempt(n)))
}

fn generation() -> impl Strategy<Value = Generation> {
    (any::<u64>(), any::<u64>()).prop_map(|(epoch, n)| Generation { epoch, n })
}

fn gpu_uuids() -> impl Strategy<Value = Vec<GpuUuid>> {
    vec("GPU-[0-9a-f]{8}".prop_map(GpuUuid), 0..9)
}

fn log_key() -> impl Strategy<Value = LogKey> {
    (workload(), select(LogStream::ALL)).prop_map(|((workload_id, attempt), stream)| LogKey {
        workload_id,
        attempt,
        stream,
    })
}

fn finite_f32() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("finite", |value| value.is_finite())
}

fn gpu_info() -> impl Strategy<Value = GpuInfo> {
    let identity = ("GPU-[0-9a-f]{8}".prop_map(GpuUuid), any::<u32>(), select(GpuVendor::ALL), "[A-Z0-9 ]{0,12}");
    let place = (of("[0-9a-f:.]{7,16}"), of(any::<u32>()), of(any::<u32>()));
    let health = (select(GpuHealth::ALL), of(".{0,20}"));
    (identity, any::<u64>(), place, health, newer::gpu_more()).prop_map(
        |(identity, memory_mib, place, health, more)| {
            let (uuid, index, vendor, model) = identity;
            let (pci_address, nvlink_island, numa_node) = place;
            let (health, health_reason) = health;
            let known = GpuInfo {
                uuid,
                index,
                vendor,
                model,
                memory_mib,
                pci_address,
                nvlink_island,
                numa_node,
                health,
                health_reason,
                mig: None,
                driver: None,
                compute_capability: None,
                driver_version: None,
                cdi_device: None,
                nics: Vec::new(),
                caps_shares: false,
            };
            newer::with_details(known, more)
        },
    )
}

fn capabilities() -> impl Strategy<Value = NodeCapabilities> {
    let texts = (".{0,20}", ".{0,20}", "[a-z0-9_]{0,8}", "[0-9.]{0,8}");
    let sizes = (any::<u64>(), any::<u64>(), any::<u64>());
    let runtimes = vec(select(RuntimeKind::ALL), 0..4);
    let gpus = (select(GpuDriver::ALL), vec(gpu_info(), 0..9));
    (texts, sizes, gpus, runtimes, any::<bool>(), labels(&right_parts()), newer::around()).prop_map(
        |(texts, sizes, (gpu_driver, mut gpus), runtimes, simulated, labels, (findings, engine, nics, boot_id))| {
            let (hostname, os, arch, agent_version) = texts;
            let (cpu_millis, memory_mib, disk_mib) = sizes;
            // Those that version 1 does not know follow the others on the wire.
            gpus.sort_by_key(|gpu| gpu.mig.is_some() || matches!(gpu.vendor, GpuVendor::Intel | GpuVendor::Other));
            NodeCapabilities {
                hostname,
                os,
                arch,
                agent_version,
                cpu_millis,
                memory_mib,
                disk_mib,
                gpu_driver,
                gpus,
                runtimes,
                simulated,
                labels,
                findings,
                engine,
                nics,
                boot_id,
            }
        },
    )
}

fn running() -> impl Strategy<Value = RunningReport> {
    (workload(), select(NodeWorkloadState::ALL), gpu_uuids())
        .prop_map(|((workload_id, attempt), state, gpus)| RunningReport { workload_id, attempt, state, gpus })
}

fn record() -> impl Strategy<Value = StatusRecord> {
    let state = (select(NodeWorkloadState::ALL), select(StatusCause::ALL), ".{0,40}");
    let end = (of(any::<i32>()), of(any::<i32>()));
    (1..=u64::MAX, workload(), state, end, any::<i64>(), any::<bool>(), of(newer::checkpoint())).prop_map(
        |(record, (workload_id, attempt), (state, cause, detail), (exit_code, signal), at, simulated, checkpoint)| {
            let at = Timestamp::from_unix_ms(at);
            StatusRecord {
                record,
                workload_id,
                attempt,
                state,
                cause,
                detail,
                exit_code,
                signal,
                at,
                simulated,
                checkpoint,
            }
        },
    )
}

fn chunk() -> impl Strategy<Value = LogChunk> {
    let gap = (any::<u64>(), any::<u64>()).prop_map(|(first_sequence, n_lost)| LogGap { first_sequence, n_lost });
    let line = (1..=u64::MAX, any::<i64>(), vec(any::<u8>(), 0..40)).prop_map(|(sequence, at, bytes)| LogLine {
        sequence,
        at: Timestamp::from_unix_ms(at),
        bytes,
    });
    (log_key(), of(gap), vec(line, 0..5)).prop_map(|(key, gap, lines)| LogChunk { key, gap, lines })
}

fn metrics() -> impl Strategy<Value = NodeMessage> {
    let gpu = (
        "GPU-[0-9a-f]{8}",
        [finite_f32(), finite_f32(), finite_f32()],
        [any::<u64>(), any::<u64>()],
        any::<bool>(),
        of(newer::details()),
    )
        .prop_map(|(uuid, [utilization_percent, temperature_celsius, power_watts], memory, simulated, details)| {
            GpuMetrics {
                uuid: GpuUuid(uuid),
                utilization_percent,
                memory_used_mib: memory[0],
                memory_total_mib: memory[1],
                temperature_celsius,
                power_watts,
                simulated,
                details: details.map(Box::new),
            }
        });
    let system = (finite_f32(), finite_f32(), any::<[u64; 4]>()).prop_map(|(cpu_percent, load_average_1m, sizes)| {
        SystemMetrics {
            cpu_percent,
            memory_used_mib: sizes[0],
            memory_total_mib: sizes[1],
            disk_used_mib: sizes[2],
            disk_total_mib: sizes[3],
            load_average_1m,
        }
    });
    (any::<i64>(), vec(gpu, 0..9), system, vec(newer::workload_metrics(), 0..3)).prop_map(
        |(at, gpus, system, workloads)| {
            let at = Timestamp::from_unix_ms(at);
            NodeMessage::Metrics { at, gpus, system, workloads }
        },
    )
}

fn versions() -> impl Strategy<Value = (u32, u32)> {
    (1..1_000_u32, 0..1_000_u32).prop_map(|(min, more)| (min, min + more))
}

/// Any message of a node.
pub(crate) fn node_message() -> impl Strategy<Value = NodeMessage> {
    let register = ("[a-z0-9-]{1,20}", capabilities(), vec(running(), 0..4), any::<u128>(), versions(), any::<i64>())
        .prop_map(|(name, capabilities, running, store_id, versions, clock)| NodeMessage::Register {
            name,
            capabilities,
            running,
            store_id,
            versions,
            clock: Timestamp::from_unix_ms(clock),
        });
    prop_oneof![
        register,
        vec(record(), 0..6).prop_map(|records| NodeMessage::WorkloadStatus { records }),
        metrics(),
        vec(chunk(), 0..4).prop_map(|chunks| NodeMessage::Logs { chunks }),
        any::<u64>().prop_map(|nonce| NodeMessage::HeartbeatAck { nonce }),
        capabilities().prop_map(|capabilities| NodeMessage::CapabilitiesChanged { capabilities }),
        (select(NodeErrorCode::ALL), ".{0,40}").prop_map(|(code, message)| NodeMessage::Error { code, message }),
        newer::node_message(),
    ]
}

/// Any workload that a node shall have.
pub(crate) fn desired() -> impl Strategy<Value = DesiredWorkload> {
    let life = (select(RuntimeKind::ALL), on_partition(), any::<u32>(), of(any::<u64>()));
    (workload(), valid_spec(), gpu_uuids(), life, newer::hidden()).prop_map(
        |((workload_id, attempt), spec, gpus, life, (secrets, registry_auth, ranks, checkpoint_last))| {
            let (runtime, on_partition, grace_s, max_duration_s) = life;
            DesiredWorkload {
                workload_id,
                attempt,
                spec,
                gpus,
                runtime,
                on_partition,
                grace_s,
                max_duration_s,
                secrets,
                registry_auth,
                ranks,
                checkpoint_last,
            }
        },
    )
}

/// Any order to stop.
pub(crate) fn stop_order() -> impl Strategy<Value = StopOrder> {
    (workload(), any::<u32>(), select(StatusCause::ALL))
        .prop_map(|((workload_id, attempt), grace_s, cause)| StopOrder { workload_id, attempt, grace_s, cause })
}

fn settings() -> impl Strategy<Value = NodeSettings> {
    (1..=u64::MAX, 1..=u64::MAX, any::<u64>()).prop_map(
        |(metrics_interval_ms, heartbeat_interval_ms, log_buffer_bytes)| NodeSettings {
            metrics_interval_ms,
            heartbeat_interval_ms,
            log_buffer_bytes,
        },
    )
}

fn peer() -> impl Strategy<Value = MeshPeer> {
    (any::<u128>(), "[A-Za-z0-9+/]{43}=", "[a-z0-9.]{1,20}:[0-9]{1,5}", vec("[0-9a-f.:/]{1,20}", 0..3)).prop_map(
        |(id, public_key, endpoint, allowed_ips)| MeshPeer {
            node_id: NodeId::from_bits(id),
            public_key,
            endpoint,
            allowed_ips,
        },
    )
}

/// Any message of a gateway.
pub(crate) fn gateway_message() -> impl Strategy<Value = GatewayMessage> {
    let acks = || btree_map(log_key(), any::<u64>(), 0..4);
    let set = (generation(), vec(desired(), 0..3), vec(stop_order(), 0..3));
    prop_oneof![
        (any::<u128>(), settings(), 1..=u32::MAX, acks()).prop_map(|(id, settings, version, log_acks)| {
            GatewayMessage::Registered { node_id: NodeId::from_bits(id), settings, version, log_acks }
        }),
        set.prop_map(|(generation, workloads, stop)| GatewayMessage::DesiredSet { generation, workloads, stop }),
        (generation(), desired())
            .prop_map(|(generation, workload)| { GatewayMessage::StartWorkload { generation, workload } }),
        (generation(), stop_order()).prop_map(|(generation, order)| GatewayMessage::StopWorkload { generation, order }),
        settings().prop_map(|settings| GatewayMessage::UpdateConfig { settings }),
        (any::<u64>(), any::<u64>()).prop_map(|(nonce, confirmed)| GatewayMessage::Heartbeat { nonce, confirmed }),
        acks().prop_map(|acks| GatewayMessage::LogsAck { acks }),
        vec(peer(), 0..4).prop_map(|peers| GatewayMessage::MeshPeers { peers }),
        Just(GatewayMessage::Ack),
        (select(RefusalCode::ALL), ".{0,40}", versions())
            .prop_map(|(code, message, versions)| { GatewayMessage::Refused { code, message, versions } }),
        newer::gateway_message(),
    ]
}

/// An envelope around such a message.
pub(crate) fn envelope<M: std::fmt::Debug>(body: impl Strategy<Value = M>) -> impl Strategy<Value = Envelope<M>> {
    (1..=u32::MAX, any::<[u64; 3]>(), generation(), body).prop_map(
        |(version, [epoch, sequence, ack], generation, body)| Envelope {
            version,
            epoch,
            sequence,
            ack,
            generation,
            body,
        },
    )
}
