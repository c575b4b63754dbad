//! Configuration of the container runtime, `[runtime.docker]`.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache::CacheConfig;
use super::policy::ImagesConfig;
use super::volumes::VolumesConfig;

/// Containers on a Docker or Podman engine of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// Whether workloads may run as containers; by default if the engine's
    /// socket is there and the node's GPUs are not simulated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Socket of the engine; by default Docker's, else Podman's usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Network of the containers: `bridge`, `none`, or a network that the engine has.
    pub network: String,
    /// Host address on which ports are published: loopback, or the mesh's.
    pub publish_address: String,
    /// Capabilities that containers keep; every other one is dropped.
    pub cap_add: Vec<String>,
    /// Whether the root of every container is read-only, whatever its specification says.
    pub read_only_root: bool,
    /// Most processes and threads of one container.
    pub pids_max: u32,
    /// Most open files of one process in a container; the engine's own limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files_max: Option<u32>,
    /// Size of `/tmp` in a container with a read-only root, MiB of memory.
    pub tmp_mib: u64,
    /// Folder for secret files; it must be on a tmpfs.
    pub secrets_dir: PathBuf,
    /// The engine's own copy of a container's output, MiB.
    pub engine_log_mib_max: u32,
    /// Most that is kept of one attempt's declared outputs, MiB.
    pub outputs_mib_max: u64,
    /// How long collected outputs are kept, seconds.
    pub outputs_keep_s: u64,
    /// Which images may run, and how much space they may take.
    pub images: ImagesConfig,
    /// The weights cache.
    pub cache: CacheConfig,
    /// What workloads may mount.
    pub volumes: VolumesConfig,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            enabled: None,
            socket: None,
            network: "bridge".to_owned(),
            publish_address: "127.0.0.1".to_owned(),
            cap_add: Vec::new(),
            read_only_root: false,
            pids_max: 32_768,
            open_files_max: None,
            tmp_mib: 256,
            secrets_dir: PathBuf::from("/run/clawnode/secrets"),
            engine_log_mib_max: 32,
            outputs_mib_max: 1_024,
            outputs_keep_s: 24 * 3_600,
            images: ImagesConfig::default(),
            cache: CacheConfig::default(),
            volumes: VolumesConfig::default(),
        }
    }
}

/// Sockets that an engine usually has.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

impl DockerConfig {
    /// The engine's socket: the configured one, else the first usual one that exists.
    pub fn socket(&self) -> PathBuf {
        let usual = || SOCKETS.iter().map(PathBuf::from).find(|path| path.exists());
        self.socket.clone().or_else(usual).unwrap_or_else(|| PathBuf::from(SOCKETS[0]))
    }

    /// Whether ports are published on one address. Engines take an empty text and `0.0.0.0` for
    /// every address of the host, and what a name means to them is not known here.
    pub fn publishes_on_one_address(&self) -> bool {
        let address = self.publish_address.parse::<IpAddr>();
        address.is_ok_and(|address| !address.to_canonical().is_unspecified())
    }

    /// Whether workloads may run as containers on a node whose GPUs are `simulated` or not.
    pub fn is_enabled(&self, simulated: bool) -> bool {
        self.enabled.unwrap_or_else(|| !simulated && self.socket().exists())
    }
}
