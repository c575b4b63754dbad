//! What a peer of an older protocol version gets.
//!
//! A sender speaks the version that both sides agreed on. A body or an enum
//! value that the peer does not know would be refused as a whole: what a node
//! has to say is put in its words or left out, and an order that it could only
//! half follow is not given to it. Only a registration, which comes before both
//! sides know what they speak, has fields that an old gateway skips.

use crate::message::{DesiredWorkload, GatewayMessage, NodeMessage, StatusCause, StatusRecord};
use crate::spec::GpuVendor;
use crate::topology::{GpuInfo, NodeCapabilities};

/// First version with most of what this module is about.
const V2: u32 = 2;
/// First version with checkpoints.
const V3: u32 = 3;

/// A message asks for what the connection's protocol version does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} needs protocol version {needs}; upgrade the node's agent")]
pub struct NotInVersion {
    /// Message, or field of a workload.
    pub field: &'static str,
    /// First version that has it.
    pub needs: u32,
}

/// A node's message in the words of `version`; nothing if that version has no words for it.
pub fn for_version(message: NodeMessage, version: u32) -> Option<NodeMessage> {
    if version >= V3 {
        return Some(message);
    }
    let message = without_checkpoints(message);
    if version >= V2 {
        return Some(message);
    }
    Some(match message {
        NodeMessage::Register { name, capabilities, running, store_id, versions, clock } => {
            NodeMessage::Register { name, capabilities: in_version_1(capabilities), running, store_id, versions, clock }
        }
        NodeMessage::CapabilitiesChanged { capabilities } => {
            NodeMessage::CapabilitiesChanged { capabilities: in_version_1(capabilities) }
        }
        NodeMessage::WorkloadStatus { records } => {
            NodeMessage::WorkloadStatus { records: records.into_iter().map(in_old_words).collect() }
        }
        NodeMessage::Metrics { at, mut gpus, system, workloads: _ } => {
            for gpu in &mut gpus {
                gpu.details = None;
            }
            NodeMessage::Metrics { at, gpus, system, workloads: Vec::new() }
        }
        message @ (NodeMessage::Logs { .. } | NodeMessage::HeartbeatAck { .. } | NodeMessage::Error { .. }) => message,
        NodeMessage::GpuEvents { .. }
        | NodeMessage::KernelLog(_)
        | NodeMessage::RenewCertificate { .. }
        | NodeMessage::ExecDone { .. }
        | NodeMessage::OutputRead { .. }
        | NodeMessage::TaskFailed { .. } => return None,
    })
}

/// A gateway may send this message on a connection of `version`.
///
/// # Errors
/// [`NotInVersion`] with the first field that the version lacks.
pub fn check_version(message: &GatewayMessage, version: u32) -> Result<(), NotInVersion> {
    if version >= V3 {
        return Ok(());
    }
    if let GatewayMessage::CheckpointNotice { .. } = message {
        return Err(NotInVersion { field: "checkpoint_notice", needs: V3 });
    }
    if version >= V2 {
        return Ok(());
    }
    let field = match message {
        GatewayMessage::DesiredSet { workloads, .. } => workloads.iter().find_map(newer_field),
        GatewayMessage::StartWorkload { workload, .. } => newer_field(workload),
        GatewayMessage::CertificateRenewed { .. } => Some("certificate_renewed"),
        GatewayMessage::CertificateRefused { .. } => Some("certificate_refused"),
        GatewayMessage::TrustBundle { .. } => Some("trust_bundle"),
        GatewayMessage::Exec { .. } => Some("exec"),
        GatewayMessage::ReadOutput { .. } => Some("read_output"),
        GatewayMessage::CancelTask { .. } => Some("cancel_task"),
        GatewayMessage::Registered { .. }
        | GatewayMessage::StopWorkload { .. }
        | GatewayMessage::UpdateConfig { .. }
        | GatewayMessage::Heartbeat { .. }
        | GatewayMessage::LogsAck { .. }
        | GatewayMessage::MeshPeers { .. }
        | GatewayMessage::CheckpointNotice { .. }
        | GatewayMessage::Ack
        | GatewayMessage::Refused { .. } => None,
    };
    field.map_or(Ok(()), |field| Err(NotInVersion { field, needs: V2 }))
}

/// What of a workload a node of version 1 would leave out without knowing it.
fn newer_field(workload: &DesiredWorkload) -> Option<&'static str> {
    let spec = &workload.spec;
    let vendor = spec.gpu.as_ref().and_then(|gpu| gpu.vendor);
    let fields = [
        ("spec.pull", spec.pull.is_some()),
        ("spec.pull_secret", spec.pull_secret.is_some() || workload.registry_auth.is_some()),
        ("spec.read_only_root", spec.read_only_root.is_some()),
        ("spec.secrets", !workload.secrets.is_empty()),
        ("spec.gpu.vendor", vendor.is_some_and(|vendor| !is_of_version_1(vendor))),
        ("spec.nodes", workload.ranks.as_ref().is_some_and(|ranks| ranks.n_nodes > 1)),
    ];
    fields.into_iter().find_map(|(field, is_set)| is_set.then_some(field))
}

const fn is_of_version_1(vendor: GpuVendor) -> bool {
    match vendor {
        GpuVendor::Nvidia | GpuVendor::Amd | GpuVendor::Apple => true,
        GpuVendor::Intel | GpuVendor::Other => false,
    }
}

/// A gateway of version 1 knows the vendor, and would not take a slice for a whole GPU.
pub(super) fn is_gpu_of_version_1(gpu: &GpuInfo) -> bool {
    gpu.mig.is_none() && is_of_version_1(gpu.vendor)
}

/// A GPU that the gateway does not know is one that it cannot give away.
fn in_version_1(capabilities: NodeCapabilities) -> NodeCapabilities {
    let old = |gpu: GpuInfo| GpuInfo {
        mig: None,
        driver: None,
        compute_capability: None,
        driver_version: None,
        cdi_device: None,
        nics: Vec::new(),
        caps_shares: false,
        ..gpu
    };
    NodeCapabilities {
        gpus: capabilities.gpus.into_iter().filter(is_gpu_of_version_1).map(old).collect(),
        findings: Vec::new(),
        engine: None,
        nics: Vec::new(),
        boot_id: None,
        ..capabilities
    }
}

/// An older gateway takes the record for a repetition of the state.
fn without_checkpoints(message: NodeMessage) -> NodeMessage {
    match message {
        NodeMessage::WorkloadStatus { records } => NodeMessage::WorkloadStatus {
            records: records.into_iter().map(|record| StatusRecord { checkpoint: None, ..record }).collect(),
        },
        other => other,
    }
}

fn in_old_words(record: StatusRecord) -> StatusRecord {
    let cause = match record.cause {
        StatusCause::PullFailed | StatusCause::EngineFailed => StatusCause::StartFailed,
        StatusCause::ImageRefused | StatusCause::VolumeRefused => StatusCause::Unsupported,
        StatusCause::GpuNotAttached => StatusCause::GpuMissing,
        cause @ (StatusCause::Progress
        | StatusCause::Exited
        | StatusCause::Signaled
        | StatusCause::OutOfMemory
        | StatusCause::StopRequested
        | StatusCause::MaxDuration
        | StatusCause::PartitionLease
        | StatusCause::StartFailed
        | StatusCause::Unsupported
        | StatusCause::GpuMissing
        | StatusCause::SupervisorGone
        | StatusCause::AgentRestarted
        | StatusCause::Superseded) => cause,
    };
    StatusRecord { cause, ..record }
}
