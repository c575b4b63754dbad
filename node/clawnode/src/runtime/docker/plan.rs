//! From a workload to what the engine is asked for: pure, so that the exact
//! request is a golden text in the tests.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use claw_proto::message::DesiredWorkload;

use super::config::DockerConfig;
use super::engine::EngineKind;
use crate::runtime::Key;

/// Label of the workload's id.
pub const LABEL_WORKLOAD: &str = "claw.workload";
/// Label of the attempt.
pub const LABEL_ATTEMPT: &str = "claw.attempt";
/// Label of the node's id: several nodes may share an engine.
pub const LABEL_NODE: &str = "claw.node";
/// Label of the GPUs that it holds, with commas between.
pub const LABEL_GPUS: &str = "claw.gpus";
/// Folder of the secret files inside a container.
pub const SECRETS_TARGET: &str = "/run/secrets";

/// CPU accounting period, microseconds.
const CPU_PERIOD_US: i64 = 100_000;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Name of an attempt's container.
pub fn container_name(key: Key) -> String {
    format!("claw-{}-{}", key.0, key.1.0)
}

/// Tells a part of a workload over several nodes that the others do not reach it: its network is the engine's own on
/// this host, or none. A network of another name may lead to other hosts.
pub fn cut_off(workload: &DesiredWorkload, network: &str) -> Option<String> {
    let ranks = workload.ranks.as_ref().filter(|ranks| ranks.n_nodes > 1)?;
    matches!(network, "bridge" | "none").then(|| {
        format!(
            "other nodes do not reach this part ({} of {}) but at ports that it publishes: its network is {network:?}; \
             ranks meet where every node has docker.network = \"host\"",
            ranks.node_rank + 1,
            ranks.n_nodes
        )
    })
}

/// What is attached to a container beside its specification.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attachments {
    /// Volumes and caches.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<DeviceMapping>,
    /// Devices that the engine looks up (CDI, NVIDIA).
    pub device_requests: Vec<DeviceRequest>,
    /// Groups that the devices belong to.
    pub groups: Vec<String>,
}

/// Everything that the request is made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Node's id.
    pub node_id: &'a str,
    /// What to run.
    pub workload: &'a DesiredWorkload,
    /// The image as the engine has it, by id or digest.
    pub image: &'a str,
    /// Which engine.
    pub engine: EngineKind,
    /// The node's rules.
    pub config: &'a DockerConfig,
    /// Host folder with the secret files, if there are any.
    pub secrets: Option<&'a str>,
    /// Ranks and other environment of the node; the workload's own wins.
    pub env: &'a BTreeMap<String, String>,
    /// Volumes, devices.
    pub attachments: Attachments,
}

impl Plan<'_> {
    /// The request.
    pub fn create_body(&self) -> ContainerCreateBody {
        let spec = &self.workload.spec;
        let exposed = self.publishes().then(|| spec.ports.iter().map(|port| format!("{port}/tcp")).collect());
        ContainerCreateBody {
            image: Some(self.image.to_owned()),
            // As in Kubernetes: `command` replaces the entry point and with it
            // the image's arguments, `args` replaces the arguments alone.
            entrypoint: spec.command.clone().filter(|command| !command.is_empty()),
            cmd: (!spec.args.is_empty()).then(|| spec.args.clone()),
            env: Some(self.env()),
            user: spec.user.clone(),
            working_dir: spec.working_dir.clone(),
            labels: Some(self.labels()),
            exposed_ports: exposed,
            stop_signal: Some("SIGTERM".to_owned()),
            tty: Some(false),
            open_stdin: Some(false),
            host_config: Some(self.host_config()),
            ..ContainerCreateBody::default()
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        let gpus: Vec<&str> = self.workload.gpus.iter().map(|gpu| gpu.0.as_str()).collect();
        HashMap::from([
            (LABEL_GPUS.to_owned(), gpus.join(",")),
            (LABEL_WORKLOAD.to_owned(), self.workload.workload_id.to_string()),
            (LABEL_ATTEMPT.to_owned(), self.workload.attempt.0.to_string()),
            (LABEL_NODE.to_owned(), self.node_id.to_owned()),
        ])
    }

    fn env(&self) -> Vec<String> {
        let mut env = self.env.clone();
        env.insert("CLAW_WORKLOAD_ID".to_owned(), self.workload.workload_id.to_string());
        env.insert("CLAW_ATTEMPT".to_owned(), self.workload.attempt.0.to_string());
        if !self.workload.gpus.is_empty() {
            let gpus: Vec<&str> = self.workload.gpus.iter().map(|gpu| gpu.0.as_str()).collect();
            env.insert("CLAW_GPU_UUIDS".to_owned(), gpus.join(","));
        }
        env.extend(self.workload.spec.env.clone());
        env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn is_read_only(&self) -> bool {
        self.config.read_only_root || self.workload.spec.read_only_root.unwrap_or(false)
    }

    /// Ports are published from a network of the container's own only.
    fn publishes(&self) -> bool {
        !self.workload.spec.ports.is_empty() && !matches!(self.config.network.as_str(), "none" | "host")
    }

    fn host_config(&self) -> HostConfig {
        let spec = &self.workload.spec;
        let memory = spec.memory_gib.map(|gib| whole(gib * GIB));
        let config = self.config;
        HostConfig {
            memory,
            // No swap beyond it: the limit is what the caller asked for.
            memory_swap: memory,
            cpu_period: spec.cpu_cores.map(|_| CPU_PERIOD_US),
            cpu_quota: spec.cpu_cores.map(|cores| whole(cores * CPU_PERIOD_US as f64)),
            pids_limit: Some(i64::from(config.pids_max)),
            shm_size: spec.shm_gib.map(|gib| whole(gib * GIB)),
            ulimits: self.ulimits(),
            network_mode: Some(config.network.clone()),
            port_bindings: self.publishes().then(|| self.port_bindings()),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
            log_config: Some(self.log_config()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: (!config.cap_add.is_empty()).then(|| config.cap_add.clone()),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            privileged: Some(false),
            readonly_rootfs: Some(self.is_read_only()),
            tmpfs: self.is_read_only().then(|| {
                let options = format!("rw,nosuid,nodev,mode=1777,size={}m", config.tmp_mib);
                HashMap::from([("/tmp".to_owned(), options)])
            }),
            mounts: Some(self.mounts()).filter(|mounts| !mounts.is_empty()),
            devices: Some(self.attachments.devices.clone()).filter(|devices| !devices.is_empty()),
            device_requests: Some(self.attachments.device_requests.clone()).filter(|requests| !requests.is_empty()),
            group_add: Some(self.attachments.groups.clone()).filter(|groups| !groups.is_empty()),
            ..HostConfig::default()
        }
    }

    fn ulimits(&self) -> Option<Vec<ResourcesUlimits>> {
        let limit = |name: &str, value: u32| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(i64::from(value)),
            hard: Some(i64::from(value)),
        };
        let files = limit("nofile", self.config.open_files_max?);
        // Podman that is given one limit takes its own default for the other,
        // which may be over what the host lets it set.
        let processes = (self.engine == EngineKind::Podman).then(|| limit("nproc", self.config.pids_max.min(16_384)));
        Some(std::iter::once(files).chain(processes).collect())
    }

    fn port_bindings(&self) -> HashMap<String, Option<Vec<PortBinding>>> {
        let binding =
            PortBinding { host_ip: Some(self.config.publish_address.clone()), host_port: Some(String::new()) };
        let ports = self.workload.spec.ports.iter();
        ports.map(|port| (format!("{port}/tcp"), Some(vec![binding.clone()]))).collect()
    }

    /// A format that the engine keeps over a restart and reads back with time
    /// and stream, bounded. Podman knows no number of files.
    fn log_config(&self) -> HostConfigLogConfig {
        let mib_max = self.config.engine_log_mib_max.max(2);
        let (kind, options) = match self.engine {
            EngineKind::Docker => {
                let options = [("max-size", format!("{}m", mib_max / 2)), ("max-file", "2".to_owned())];
                ("json-file", options.map(|(name, value)| (name.to_owned(), value)).into())
            }
            EngineKind::Podman => ("k8s-file", HashMap::from([("max-size".to_owned(), format!("{mib_max}m"))])),
        };
        HostConfigLogConfig { typ: Some(kind.to_owned()), config: Some(options) }
    }

    fn mounts(&self) -> Vec<Mount> {
        let secrets = self.secrets.map(|source| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.to_owned()),
            target: Some(SECRETS_TARGET.to_owned()),
            read_only: Some(true),
            ..Mount::default()
        });
        self.attachments.mounts.iter().cloned().chain(secrets).collect()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "positive and within range: the specification was validated; a cast saturates"
)]
fn whole(value: f64) -> i64 {
    value.ceil().max(1.0) as i64
}

#[cfg(test)]
mod tests;
