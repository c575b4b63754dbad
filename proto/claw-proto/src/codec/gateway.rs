//! Messages of gateways.

use super::Read;
use super::enums::WireEnum as _;
use super::error::{At as _, Fault, FieldProblem};
use super::parts::{
    bytes_at_most, chars, decode_bits, decode_detail, decode_generation, decode_gpus, decode_log_acks, decode_versions,
    each, encode_bits, encode_detail, encode_generation, encode_gpus, encode_log_acks, required, short,
};
use super::spec::{decode_on_partition, decode_port, decode_spec, encode_on_partition, encode_spec};
use super::tasks::{decode_certificates, decode_exec, decode_read_output, encode_read_output};
use crate::ids::{Attempt, NodeId, WorkloadId};
use crate::limits;
use crate::message::{
    DesiredWorkload, GatewayMessage, MeshPeer, NodeSettings, RankAssignment, RefusalCode, RegistryAuth, SecretBytes,
    SecretFile, StatusCause, StopOrder, TaskId,
};
use crate::spec::RuntimeKind;
use crate::wire::node_v1 as wire;
use crate::wire::node_v1::envelope::Body;

pub(super) fn encode(message: &GatewayMessage) -> Body {
    match message {
        GatewayMessage::Registered { node_id, settings, version, log_acks } => Body::Registered(wire::Registered {
            node_id: encode_bits(node_id.bits()),
            settings: Some(encode_settings(settings)),
            version: *version,
            log_acks: encode_log_acks(log_acks),
        }),
        GatewayMessage::DesiredSet { generation, workloads, stop } => Body::DesiredSet(wire::DesiredSet {
            generation: Some(encode_generation(*generation)),
            workloads: workloads.iter().map(encode_desired).collect(),
            stop: stop.iter().map(encode_stop).collect(),
        }),
        GatewayMessage::StartWorkload { generation, workload } => Body::StartWorkload(wire::StartWorkload {
            generation: Some(encode_generation(*generation)),
            workload: Some(encode_desired(workload)),
        }),
        GatewayMessage::StopWorkload { generation, order } => Body::StopWorkload(wire::StopWorkload {
            generation: Some(encode_generation(*generation)),
            order: Some(encode_stop(order)),
        }),
        GatewayMessage::UpdateConfig { settings } => {
            Body::UpdateConfig(wire::UpdateConfig { settings: Some(encode_settings(settings)) })
        }
        GatewayMessage::Heartbeat { nonce, confirmed } => {
            Body::Heartbeat(wire::Heartbeat { nonce: *nonce, confirmed: *confirmed })
        }
        GatewayMessage::LogsAck { acks } => Body::LogsAck(wire::LogsAck { acks: encode_log_acks(acks) }),
        GatewayMessage::MeshPeers { peers } => {
            Body::MeshPeers(wire::MeshPeers { peers: peers.iter().map(encode_peer).collect() })
        }
        GatewayMessage::Ack => Body::Acknowledged(wire::Ack {}),
        GatewayMessage::CertificateRenewed { chain_der } => {
            Body::CertificateRenewed(wire::CertificateRenewed { chain_der: chain_der.clone() })
        }
        GatewayMessage::CertificateRefused { message } => {
            Body::CertificateRefused(wire::CertificateRefused { message: encode_detail(message) })
        }
        GatewayMessage::TrustBundle { cas_der, renew } => {
            Body::TrustBundle(wire::TrustBundle { cas_der: cas_der.clone(), renew: *renew })
        }
        GatewayMessage::Exec { task, workload_id, attempt, command, timeout_ms, output_bytes_max } => {
            Body::Exec(wire::Exec {
                task: task.0,
                workload_id: encode_bits(workload_id.bits()),
                attempt: attempt.0,
                command: command.clone(),
                timeout_ms: *timeout_ms,
                output_bytes_max: *output_bytes_max,
            })
        }
        GatewayMessage::ReadOutput { task, workload_id, attempt, path, offset, bytes_max } => {
            encode_read_output((*task, *workload_id, *attempt), path, *offset, *bytes_max)
        }
        GatewayMessage::CheckpointNotice { workload_id, attempt, grace_s } => {
            Body::CheckpointNotice(wire::CheckpointNotice {
                workload_id: encode_bits(workload_id.bits()),
                attempt: attempt.0,
                grace_s: *grace_s,
            })
        }
        GatewayMessage::CancelTask { task } => Body::CancelTask(wire::CancelTask { task: task.0 }),
        GatewayMessage::Refused { code, message, versions } => Body::Refused(wire::Refused {
            code: code.encode(),
            message: encode_detail(message),
            version_min: versions.0,
            version_max: versions.1,
        }),
    }
}

pub(super) fn decode(body: Body) -> Result<Read<GatewayMessage>, Fault> {
    let message = match body {
        Body::Registered(registered) => decode_registered(registered).at("registered")?,
        Body::DesiredSet(set) => decode_set(set).at("desired_set")?,
        Body::StartWorkload(start) => decode_start(start).at("start_workload")?,
        Body::StopWorkload(stop) => decode_stop_workload(stop).at("stop_workload")?,
        Body::UpdateConfig(wire::UpdateConfig { settings }) => {
            GatewayMessage::UpdateConfig { settings: decode_settings(settings).at("update_config")? }
        }
        Body::Heartbeat(wire::Heartbeat { nonce, confirmed }) => GatewayMessage::Heartbeat { nonce, confirmed },
        Body::LogsAck(wire::LogsAck { acks }) => {
            GatewayMessage::LogsAck { acks: decode_log_acks(acks, "acks").at("logs_ack")? }
        }
        Body::MeshPeers(wire::MeshPeers { peers }) => {
            GatewayMessage::MeshPeers { peers: each(peers, "peers", usize::MAX, decode_peer).at("mesh_peers")? }
        }
        Body::Acknowledged(wire::Ack {}) => GatewayMessage::Ack,
        Body::Refused(refused) => decode_refused(refused).at("refused")?,
        Body::CertificateRenewed(wire::CertificateRenewed { chain_der }) => GatewayMessage::CertificateRenewed {
            chain_der: decode_certificates(chain_der, "chain_der").at("certificate_renewed")?,
        },
        Body::CertificateRefused(wire::CertificateRefused { message }) => {
            GatewayMessage::CertificateRefused { message: decode_detail(message, "certificate_refused.message")? }
        }
        Body::TrustBundle(wire::TrustBundle { cas_der, renew }) => {
            let cas_der = decode_certificates(cas_der, "cas_der").at("trust_bundle")?;
            GatewayMessage::TrustBundle { cas_der, renew }
        }
        Body::Exec(exec) => decode_exec(exec).at("exec")?,
        Body::ReadOutput(read) => decode_read_output(read).at("read_output")?,
        Body::CancelTask(wire::CancelTask { task }) => GatewayMessage::CancelTask { task: TaskId(task) },
        Body::CheckpointNotice(notice) => GatewayMessage::CheckpointNotice {
            workload_id: WorkloadId::from_bits(decode_bits(&notice.workload_id, "checkpoint_notice.workload_id")?),
            attempt: Attempt(notice.attempt),
            grace_s: notice.grace_s,
        },
        Body::Register(_) => return Ok(Read::WrongDirection("register")),
        Body::WorkloadStatus(_) => return Ok(Read::WrongDirection("workload_status")),
        Body::Metrics(_) => return Ok(Read::WrongDirection("metrics")),
        Body::Logs(_) => return Ok(Read::WrongDirection("logs")),
        Body::HeartbeatAck(_) => return Ok(Read::WrongDirection("heartbeat_ack")),
        Body::CapabilitiesChanged(_) => return Ok(Read::WrongDirection("capabilities_changed")),
        Body::Error(_) => return Ok(Read::WrongDirection("error")),
        Body::GpuEvents(_) => return Ok(Read::WrongDirection("gpu_events")),
        Body::KernelLog(_) => return Ok(Read::WrongDirection("kernel_log")),
        Body::RenewCertificate(_) => return Ok(Read::WrongDirection("renew_certificate")),
        Body::ExecDone(_) => return Ok(Read::WrongDirection("exec_done")),
        Body::OutputRead(_) => return Ok(Read::WrongDirection("output_read")),
        Body::TaskFailed(_) => return Ok(Read::WrongDirection("task_failed")),
    };
    Ok(Read::Message(message))
}

fn decode_registered(registered: wire::Registered) -> Result<GatewayMessage, Fault> {
    if registered.version == 0 {
        return Err(Fault::new(FieldProblem::Missing).at("version"));
    }
    Ok(GatewayMessage::Registered {
        node_id: NodeId::from_bits(decode_bits(&registered.node_id, "node_id")?),
        settings: decode_settings(registered.settings)?,
        version: registered.version,
        log_acks: decode_log_acks(registered.log_acks, "log_acks")?,
    })
}

fn encode_settings(settings: &NodeSettings) -> wire::NodeSettings {
    wire::NodeSettings {
        metrics_interval_ms: settings.metrics_interval_ms,
        heartbeat_interval_ms: settings.heartbeat_interval_ms,
        log_buffer_bytes: settings.log_buffer_bytes,
    }
}

fn decode_settings(settings: Option<wire::NodeSettings>) -> Result<NodeSettings, Fault> {
    let settings = required(settings, "settings")?;
    // An interval of nothing would be a busy loop.
    let interval = |value: u64, name: &str| match value {
        0 => Err(Fault::new(FieldProblem::OutOfRange { value, min: 1, max: u64::MAX }).at(name)),
        1.. => Ok(value),
    };
    let decode = || {
        Ok(NodeSettings {
            metrics_interval_ms: interval(settings.metrics_interval_ms, "metrics_interval_ms")?,
            heartbeat_interval_ms: interval(settings.heartbeat_interval_ms, "heartbeat_interval_ms")?,
            log_buffer_bytes: settings.log_buffer_bytes,
        })
    };
    decode().at("settings")
}

fn decode_set(set: wire::DesiredSet) -> Result<GatewayMessage, Fault> {
    let workloads_max = limits::WORKLOADS_PER_NODE_MAX;
    Ok(GatewayMessage::DesiredSet {
        generation: decode_generation(set.generation)?,
        workloads: each(set.workloads, "workloads", workloads_max, decode_desired)?,
        stop: each(set.stop, "stop", usize::MAX, decode_stop)?,
    })
}

fn decode_start(start: wire::StartWorkload) -> Result<GatewayMessage, Fault> {
    Ok(GatewayMessage::StartWorkload {
        generation: decode_generation(start.generation)?,
        workload: decode_desired(required(start.workload, "workload")?).at("workload")?,
    })
}

fn decode_stop_workload(stop: wire::StopWorkload) -> Result<GatewayMessage, Fault> {
    Ok(GatewayMessage::StopWorkload {
        generation: decode_generation(stop.generation)?,
        order: decode_stop(required(stop.order, "order")?).at("order")?,
    })
}

pub(super) fn encode_desired(desired: &DesiredWorkload) -> wire::DesiredWorkload {
    wire::DesiredWorkload {
        workload_id: encode_bits(desired.workload_id.bits()),
        attempt: desired.attempt.0,
        spec: Some(encode_spec(&desired.spec)),
        gpus: encode_gpus(&desired.gpus),
        runtime: desired.runtime.encode(),
        on_partition: Some(encode_on_partition(desired.on_partition)),
        grace_s: desired.grace_s,
        max_duration_s: desired.max_duration_s,
        secrets: desired.secrets.iter().map(encode_secret_file).collect(),
        registry_auth: desired.registry_auth.as_ref().map(|auth| wire::RegistryAuth {
            username: auth.username.clone(),
            password: auth.password.expose().to_vec(),
        }),
        ranks: desired.ranks.as_ref().map(encode_ranks),
        checkpoint_last: desired.checkpoint_last.clone(),
    }
}

fn encode_secret_file(secret: &SecretFile) -> wire::SecretFile {
    wire::SecretFile { target: secret.target.clone(), value: secret.value.expose().to_vec() }
}

fn encode_ranks(ranks: &RankAssignment) -> wire::RankAssignment {
    wire::RankAssignment {
        node_rank: ranks.node_rank,
        n_nodes: ranks.n_nodes,
        first_rank: ranks.first_rank,
        world_size: ranks.world_size,
        master_address: ranks.master_address.clone(),
        master_port: u32::from(ranks.master_port),
    }
}

fn decode_desired(desired: wire::DesiredWorkload) -> Result<DesiredWorkload, Fault> {
    Ok(DesiredWorkload {
        workload_id: WorkloadId::from_bits(decode_bits(&desired.workload_id, "workload_id")?),
        attempt: Attempt(desired.attempt),
        spec: decode_spec(required(desired.spec, "spec")?).at("spec")?,
        gpus: decode_gpus(desired.gpus)?,
        runtime: RuntimeKind::decode(desired.runtime).at("runtime")?,
        on_partition: decode_on_partition(required(desired.on_partition, "on_partition")?).at("on_partition")?,
        grace_s: desired.grace_s,
        max_duration_s: desired.max_duration_s,
        secrets: decode_secret_files(desired.secrets)?,
        registry_auth: desired.registry_auth.map(|auth| decode_auth(auth).at("registry_auth")).transpose()?,
        ranks: desired.ranks.map(|ranks| decode_ranks(ranks).at("ranks")).transpose()?,
        checkpoint_last: desired
            .checkpoint_last
            .map(|label| chars(label, "checkpoint_last", limits::CHECKPOINT_LABEL_CHARS_MAX))
            .transpose()?,
    })
}

fn decode_secret_files(secrets: Vec<wire::SecretFile>) -> Result<Vec<SecretFile>, Fault> {
    bytes_at_most(secrets.iter().map(|s| s.value.len()).sum(), "secrets", limits::SECRETS_BYTES_MAX)?;
    let decode_file = |file: wire::SecretFile| {
        bytes_at_most(file.value.len(), "value", limits::SECRET_BYTES_MAX)?;
        let target = chars(file.target, "target", limits::NAME_CHARS_MAX)?;
        Ok(SecretFile { target, value: SecretBytes::new(file.value) })
    };
    each(secrets, "secrets", limits::SECRETS_MAX, decode_file)
}

fn decode_auth(auth: wire::RegistryAuth) -> Result<RegistryAuth, Fault> {
    bytes_at_most(auth.password.len(), "password", limits::SECRET_BYTES_MAX)?;
    Ok(RegistryAuth {
        username: chars(auth.username, "username", limits::NODE_TEXT_CHARS_MAX)?,
        password: SecretBytes::new(auth.password),
    })
}

fn decode_ranks(ranks: wire::RankAssignment) -> Result<RankAssignment, Fault> {
    Ok(RankAssignment {
        node_rank: ranks.node_rank,
        n_nodes: ranks.n_nodes,
        first_rank: ranks.first_rank,
        world_size: ranks.world_size,
        master_address: chars(ranks.master_address, "master_address", limits::NODE_TEXT_CHARS_MAX)?,
        master_port: decode_port(ranks.master_port).at("master_port")?,
    })
}

pub(super) fn encode_stop(order: &StopOrder) -> wire::StopOrder {
    wire::StopOrder {
        workload_id: encode_bits(order.workload_id.bits()),
        attempt: order.attempt.0,
        grace_s: order.grace_s,
        cause: order.cause.encode(),
    }
}

fn decode_stop(order: wire::StopOrder) -> Result<StopOrder, Fault> {
    Ok(StopOrder {
        workload_id: WorkloadId::from_bits(decode_bits(&order.workload_id, "workload_id")?),
        attempt: Attempt(order.attempt),
        grace_s: order.grace_s,
        cause: StatusCause::decode(order.cause).at("cause")?,
    })
}

fn encode_peer(peer: &MeshPeer) -> wire::MeshPeer {
    wire::MeshPeer {
        node_id: encode_bits(peer.node_id.bits()),
        public_key: peer.public_key.clone(),
        endpoint: peer.endpoint.clone(),
        allowed_ips: peer.allowed_ips.clone(),
    }
}

fn decode_peer(peer: wire::MeshPeer) -> Result<MeshPeer, Fault> {
    let text_max = limits::NODE_TEXT_CHARS_MAX;
    let decode_ip = |ip| short(ip, text_max);
    Ok(MeshPeer {
        node_id: NodeId::from_bits(decode_bits(&peer.node_id, "node_id")?),
        public_key: chars(peer.public_key, "public_key", text_max)?,
        endpoint: chars(peer.endpoint, "endpoint", text_max)?,
        allowed_ips: each(peer.allowed_ips, "allowed_ips", usize::MAX, decode_ip)?,
    })
}

fn decode_refused(refused: wire::Refused) -> Result<GatewayMessage, Fault> {
    Ok(GatewayMessage::Refused {
        code: RefusalCode::decode(refused.code).at("code")?,
        message: decode_detail(refused.message, "message")?,
        versions: decode_versions(refused.version_min, refused.version_max)?,
    })
}
