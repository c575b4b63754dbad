//! What a node has.

use super::enums::WireEnum;
use super::error::{At as _, Fault};
use super::parts::{
    chars, chars_optional, decode_detail, decode_gpu, decode_labels, each, encode_detail, required, short,
};
use super::versions::is_gpu_of_version_1;
use crate::limits;
use crate::spec::{GpuVendor, RuntimeKind};
use crate::topology::{
    EngineInfo, FindingCode, GpuDriver, GpuHealth, GpuInfo, MigSlice, NicInfo, NodeCapabilities, NodeFinding,
};
use crate::wire::node_v1 as wire;

pub(super) fn encode_capabilities(has: &NodeCapabilities) -> wire::NodeCapabilities {
    let (gpus, newer_gpus): (Vec<_>, Vec<_>) = has.gpus.iter().partition(|gpu| is_gpu_of_version_1(gpu));
    wire::NodeCapabilities {
        hostname: has.hostname.clone(),
        os: has.os.clone(),
        arch: has.arch.clone(),
        agent_version: has.agent_version.clone(),
        cpu_millis: has.cpu_millis,
        memory_mib: has.memory_mib,
        disk_mib: has.disk_mib,
        gpu_driver: has.gpu_driver.encode(),
        gpus: gpus.into_iter().map(encode_gpu_info).collect(),
        runtimes: has.runtimes.iter().map(|runtime| runtime.encode()).collect(),
        simulated: has.simulated,
        labels: has.labels.clone(),
        findings: has.findings.iter().map(encode_finding).collect(),
        engine: has.engine.as_ref().map(encode_engine),
        nics: has.nics.iter().map(encode_nic).collect(),
        newer_gpus: newer_gpus.into_iter().map(encode_gpu_info).collect(),
        boot_id: has.boot_id.clone(),
    }
}

pub(super) fn decode_capabilities(has: Option<wire::NodeCapabilities>) -> Result<NodeCapabilities, Fault> {
    let has = required(has, "capabilities")?;
    let text_max = limits::NODE_TEXT_CHARS_MAX;
    let decode = || {
        let mut gpus = each(has.gpus, "gpus", limits::GPUS_PER_NODE_MAX, decode_gpu_info)?;
        let n_more_max = limits::GPUS_PER_NODE_MAX.saturating_sub(gpus.len());
        gpus.extend(each(has.newer_gpus, "newer_gpus", n_more_max, decode_gpu_info)?);
        // In the order in which they are sent: a damaged frame can have one in the other list.
        gpus.sort_by_key(|gpu| !is_gpu_of_version_1(gpu));
        Ok(NodeCapabilities {
            hostname: chars(has.hostname, "hostname", text_max)?,
            os: chars(has.os, "os", text_max)?,
            arch: chars(has.arch, "arch", text_max)?,
            agent_version: chars(has.agent_version, "agent_version", text_max)?,
            cpu_millis: has.cpu_millis,
            memory_mib: has.memory_mib,
            disk_mib: has.disk_mib,
            gpu_driver: GpuDriver::decode(has.gpu_driver).at("gpu_driver")?,
            gpus,
            runtimes: each(has.runtimes, "runtimes", limits::RUNTIMES_PER_NODE_MAX, RuntimeKind::decode)?,
            simulated: has.simulated,
            labels: decode_labels(has.labels, "labels")?,
            findings: each(has.findings, "findings", limits::FINDINGS_PER_NODE_MAX, decode_finding)?,
            engine: has.engine.map(|engine| decode_engine(engine).at("engine")).transpose()?,
            nics: each(has.nics, "nics", limits::NICS_PER_NODE_MAX, decode_nic)?,
            boot_id: chars_optional(has.boot_id, "boot_id", text_max)?,
        })
    };
    decode().at("capabilities")
}

fn encode_gpu_info(gpu: &GpuInfo) -> wire::GpuInfo {
    wire::GpuInfo {
        uuid: gpu.uuid.0.clone(),
        index: gpu.index,
        vendor: gpu.vendor.encode(),
        model: gpu.model.clone(),
        memory_mib: gpu.memory_mib,
        pci_address: gpu.pci_address.clone(),
        nvlink_island: gpu.nvlink_island,
        numa_node: gpu.numa_node,
        health: gpu.health.encode(),
        health_reason: gpu.health_reason.as_deref().map(encode_detail),
        mig: gpu.mig.as_ref().map(|m| wire::MigSlice { parent: m.parent.0.clone(), profile: m.profile.clone() }),
        driver: gpu.driver.map(WireEnum::encode),
        compute_capability: gpu.compute_capability.clone(),
        driver_version: gpu.driver_version.clone(),
        cdi_device: gpu.cdi_device.clone(),
        nics: gpu.nics.clone(),
        caps_shares: gpu.caps_shares,
    }
}

fn decode_gpu_info(gpu: wire::GpuInfo) -> Result<GpuInfo, Fault> {
    let text_max = limits::NODE_TEXT_CHARS_MAX;
    let decode_reason = |reason| decode_detail(reason, "health_reason");
    Ok(GpuInfo {
        uuid: decode_gpu(gpu.uuid).at("uuid")?,
        index: gpu.index,
        vendor: GpuVendor::decode(gpu.vendor).at("vendor")?,
        model: chars(gpu.model, "model", limits::NAME_CHARS_MAX)?,
        memory_mib: gpu.memory_mib,
        pci_address: chars_optional(gpu.pci_address, "pci_address", text_max)?,
        nvlink_island: gpu.nvlink_island,
        numa_node: gpu.numa_node,
        health: GpuHealth::decode(gpu.health).at("health")?,
        health_reason: gpu.health_reason.map(decode_reason).transpose()?,
        mig: gpu.mig.map(|mig| decode_mig(mig).at("mig")).transpose()?,
        driver: GpuDriver::decode_optional(gpu.driver, "driver")?,
        compute_capability: chars_optional(gpu.compute_capability, "compute_capability", text_max)?,
        driver_version: chars_optional(gpu.driver_version, "driver_version", text_max)?,
        cdi_device: chars_optional(gpu.cdi_device, "cdi_device", text_max)?,
        nics: each(gpu.nics, "nics", limits::NICS_PER_NODE_MAX, |nic| short(nic, text_max))?,
        caps_shares: gpu.caps_shares,
    })
}

fn decode_mig(mig: wire::MigSlice) -> Result<MigSlice, Fault> {
    Ok(MigSlice {
        parent: decode_gpu(mig.parent).at("parent")?,
        profile: chars(mig.profile, "profile", limits::NAME_CHARS_MAX)?,
    })
}

fn encode_finding(finding: &NodeFinding) -> wire::NodeFinding {
    wire::NodeFinding {
        code: finding.code.encode(),
        subject: finding.subject.clone(),
        detail: encode_detail(&finding.detail),
    }
}

fn decode_finding(finding: wire::NodeFinding) -> Result<NodeFinding, Fault> {
    Ok(NodeFinding {
        code: FindingCode::decode(finding.code).at("code")?,
        subject: chars(finding.subject, "subject", limits::NODE_TEXT_CHARS_MAX)?,
        detail: decode_detail(finding.detail, "detail")?,
    })
}

fn encode_engine(engine: &EngineInfo) -> wire::EngineInfo {
    wire::EngineInfo {
        name: engine.name.clone(),
        version: engine.version.clone(),
        api_version: engine.api_version.clone(),
        cdi: engine.cdi,
    }
}

fn decode_engine(engine: wire::EngineInfo) -> Result<EngineInfo, Fault> {
    let text_max = limits::NODE_TEXT_CHARS_MAX;
    Ok(EngineInfo {
        name: chars(engine.name, "name", text_max)?,
        version: chars(engine.version, "version", text_max)?,
        api_version: chars(engine.api_version, "api_version", text_max)?,
        cdi: engine.cdi,
    })
}

fn encode_nic(nic: &NicInfo) -> wire::NicInfo {
    wire::NicInfo {
        name: nic.name.clone(),
        numa_node: nic.numa_node,
        pci_address: nic.pci_address.clone(),
        speed_mbps: nic.speed_mbps,
        rdma: nic.rdma,
    }
}

fn decode_nic(nic: wire::NicInfo) -> Result<NicInfo, Fault> {
    let text_max = limits::NODE_TEXT_CHARS_MAX;
    Ok(NicInfo {
        name: chars(nic.name, "name", text_max)?,
        numa_node: nic.numa_node,
        pci_address: chars_optional(nic.pci_address, "pci_address", text_max)?,
        speed_mbps: nic.speed_mbps,
        rdma: nic.rdma,
    })
}
