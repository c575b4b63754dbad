//! The node's configuration: one TOML file, then the environment.
//!
//! `clawnode join` writes `config.toml` into the data folder; `clawnode run`
//! reads it. Every value has a default, unknown keys are refused. A variable of
//! [`ENVIRONMENT`] overrides the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use claw_proto::validation::{ValidationError, Validator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::RUNS_WORK;
use crate::runtime::docker::config::DockerConfig;

/// Environment variables that override the file, and the key that each sets.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("CLAWNODE_NAME", "name"),
    ("CLAWNODE_GATEWAY_URL", "gateway_url"),
    ("CLAWNODE_GPU", "gpu"),
    ("CLAWNODE_GPU_CAPS_SHARES", "gpu_caps_shares"),
    ("CLAWNODE_GPU_NVML_LIBRARY", "gpu_nvml_library"),
    ("CLAWNODE_GPU_ROCM_TOOLS", "gpu_rocm_tools"),
    ("CLAWNODE_GPU_VULKAN_PROBE", "gpu_vulkan_probe"),
    ("CLAWNODE_GPU_VULKAN_SOFTWARE", "gpu_vulkan_software"),
    ("CLAWNODE_RUNTIME_PROCESS_ENABLED", "runtime.process.enabled"),
    ("CLAWNODE_RUNTIME_PROCESS_USER", "runtime.process.user"),
    ("CLAWNODE_RUNTIME_PROCESS_CGROUPS", "runtime.process.cgroups"),
    ("CLAWNODE_RUNTIME_DOCKER_ENABLED", "runtime.docker.enabled"),
    ("CLAWNODE_RUNTIME_DOCKER_SOCKET", "runtime.docker.socket"),
    ("CLAWNODE_RUNTIME_SIM_ENABLED", "runtime.sim.enabled"),
    ("CLAWNODE_KERNEL_LOG_ENABLED", "kernel_log.enabled"),
    ("CLAWNODE_KERNEL_LOG_PATH", "kernel_log.path"),
    ("CLAWNODE_LINK_RECONNECT_MAX_MS", "link.reconnect_max_ms"),
];

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("config {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not the TOML that it should be.
    #[error("config: {0}")]
    Toml(#[from] toml::de::Error),
    /// It cannot be written as TOML.
    #[error("config: {0}")]
    Write(#[from] toml::ser::Error),
    /// A `key=value` does not name a key.
    #[error("{got:?} is not key=value with a dotted key, such as runtime.process.enabled=true")]
    Setting {
        /// What was given.
        got: String,
    },
    /// A value is out of its bounds.
    #[error("config: {0}")]
    Invalid(#[from] ValidationError),
    /// Two values do not go together.
    #[error("config: link.reconnect_min_ms {min} is over link.reconnect_max_ms {max}, or zero")]
    Reconnect {
        /// Least delay.
        min: u64,
        /// Most delay.
        max: u64,
    },
    /// Ports would be published on every address of the host, or on none.
    #[error(
        "config: runtime.docker.publish_address {got:?} is not one address; allowed: an IP address of this host, such as 127.0.0.1 (loopback) or the mesh's, not one that means all of them (0.0.0.0, ::)"
    )]
    PublishAddress {
        /// What was given.
        got: String,
    },
}

/// Configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Name that the node is listed under; the host's name if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Gateway's node port, `wss://host:port/node`; as told at enrollment if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_url: Option<String>,
    /// GPU drivers: `auto` (the default), `none`, `sim:<model>x<count>` such as `sim:h100x8`, or
    /// some of `nvml`, `rocm`, `metal` (on macOS) and `vulkan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Whether who has a share of a GPU is held to the share's memory, by version 2 of control groups (`dmem`: Linux
    /// 6.14 or later, amdgpu, xe or NVIDIA's driver 615 or later, an agent that is root). By default where it can be
    /// and no host processes may run: a program that is root on the host can lift its limit. With `true` also beside
    /// those, if they have control groups. Simulated GPUs say that they do it only with `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_caps_shares: Option<bool>,
    /// NVIDIA's management library (`libnvidia-ml.so.1`); found by the system's loader if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_nvml_library: Option<PathBuf>,
    /// Folder that has AMD's `amd-smi` and `rocm-smi`; those of `PATH` and `/opt/rocm/bin` if
    /// absent. A folder without them leaves sysfs alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_rocm_tools: Option<PathBuf>,
    /// The program that looks at Vulkan's devices (`claw-gpu-probe`); beside the agent's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_vulkan_probe: Option<PathBuf>,
    /// Whether Vulkan devices that the host's processors work for count as GPUs: for tests. The node is
    /// then a simulated one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gpu_vulkan_software: bool,
    /// Labels of the node, for placement.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What may execute workloads.
    pub runtime: RuntimeConfig,
    /// What the kernel says.
    pub kernel_log: KernelLogConfig,
    /// Connection to the gateway.
    pub link: LinkConfig,
}

/// What may execute workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Host processes.
    pub process: ProcessConfig,
    /// The simulator.
    pub sim: SimConfig,
    /// Containers.
    pub docker: DockerConfig,
}

/// Host processes, without isolation: a workload can do what its user can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// Whether workloads may run as host processes.
    pub enabled: bool,
    /// User (name, uid or uid:gid) of a workload that names none; the agent's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether CPU, memory and process limits are set by control groups where permitted.
    pub cgroups: bool,
    /// Most processes and threads of one workload, with control groups.
    pub pids_max: u32,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { enabled: false, user: None, cgroups: true, pids_max: 32_768 }
    }
}

/// The simulator: nothing really runs, and every answer says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Whether workloads may be simulated; by default only with simulated GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long fetching takes, milliseconds.
    pub pull_ms: u64,
    /// How long starting takes, milliseconds.
    pub start_ms: u64,
    /// How long a stop takes, milliseconds; never longer than the grace.
    pub stop_ms: u64,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self { enabled: None, pull_ms: 400, start_ms: 200, stop_ms: 100 }
    }
}

/// What the kernel says: lines that may tell of a fault go to the gateway, for `diagnose`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KernelLogConfig {
    /// Whether it is read; by default on Linux, unless the GPUs are simulated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where it is: `/dev/kmsg` if absent, or a pipe or a file with such records. Where one is named it is read,
    /// even with simulated GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// Connection to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// First delay before a new connection, milliseconds; it doubles with each failure.
    pub reconnect_min_ms: u64,
    /// Longest delay before a new connection, milliseconds.
    pub reconnect_max_ms: u64,
    /// Longest time for connecting and the handshakes, milliseconds.
    pub connect_timeout_ms: u64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self { reconnect_min_ms: 200, reconnect_max_ms: 10_000, connect_timeout_ms: 10_000 }
    }
}

impl NodeConfig {
    /// Reads a file (an absent one is empty) and the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path: path.to_path_buf(), source }),
        };
        Self::from_toml(&text, environment)
    }

    /// [`NodeConfig::load`] with the text of the file as given.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_toml(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table: toml::Table = text.parse()?;
        for (variable, value) in environment {
            if let Some((_, key)) = ENVIRONMENT.iter().find(|(name, _)| *name == variable) {
                set(&mut table, key, &value);
            }
        }
        Self::from_table(table)
    }

    /// A configuration from `key=value` settings alone, such as `gpu=sim:h100x8`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_settings<'a>(settings: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let mut table = toml::Table::new();
        for setting in settings {
            let wrong = || ConfigError::Setting { got: setting.to_owned() };
            let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
            if key.is_empty() || key.split('.').any(str::is_empty) {
                return Err(wrong());
            }
            set(&mut table, key, value);
        }
        Self::from_table(table)
    }

    fn from_table(table: toml::Table) -> Result<Self, ConfigError> {
        let config: Self = table.try_into()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let mut validator = Validator::new();
        if let Some(name) = &self.name {
            validator.node_name("name", name);
        }
        validator.labels("labels", &self.labels);
        validator.finish()?;
        let LinkConfig { reconnect_min_ms: min, reconnect_max_ms: max, .. } = self.link;
        if min == 0 || min > max {
            return Err(ConfigError::Reconnect { min, max });
        }
        let docker = &self.runtime.docker;
        if !docker.publishes_on_one_address() {
            return Err(ConfigError::PublishAddress { got: docker.publish_address.clone() });
        }
        Ok(())
    }

    /// As a TOML file.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string_pretty(self)?)
    }

    /// The GPU drivers' names.
    pub fn gpu(&self) -> &str {
        self.gpu.as_deref().unwrap_or("auto")
    }

    /// Whether shares of GPUs are held to their memory, where they can be.
    pub fn caps_shares(&self) -> bool {
        let process = &self.runtime.process;
        let is_simulated = self.gpu().starts_with("sim:");
        let can_be = is_simulated || !process.enabled || process.cgroups;
        can_be && self.gpu_caps_shares.unwrap_or(!is_simulated && !process.enabled)
    }

    /// Whether workloads may run as containers.
    pub fn runs_containers(&self) -> bool {
        self.runtime.docker.is_enabled(self.gpu().starts_with("sim:"))
    }

    /// Whether the kernel's log is read.
    pub fn reads_kernel_log(&self) -> bool {
        let KernelLogConfig { enabled, path } = &self.kernel_log;
        enabled.unwrap_or_else(|| path.is_some() || RUNS_WORK && !self.gpu().starts_with("sim:"))
    }

    /// Whether workloads may be simulated.
    pub fn simulates(&self) -> bool {
        self.runtime.sim.enabled.unwrap_or_else(|| self.gpu().starts_with("sim:"))
    }
}

/// Sets a dotted key; a value that is not TOML by itself is a text. Labels may
/// have dots in their own names, so everything behind `labels.` is one key.
fn set(table: &mut toml::Table, key: &str, value: &str) {
    let parsed =
        toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut table| table.remove("value"));
    let (value, mut table) = (parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())), table);
    let mut path: Vec<&str> = match key.strip_prefix("labels.") {
        Some(label) => vec!["labels", label],
        None => key.split('.').collect(),
    };
    let Some(last) = path.pop() else { return };
    for part in path {
        let entry = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if !entry.is_table() {
            *entry = toml::Value::Table(toml::Table::new());
        }
        match entry {
            toml::Value::Table(inner) => table = inner,
            // Made a table just above.
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_) => return,
        }
    }
    table.insert(last.to_owned(), value);
}

#[cfg(test)]
mod tests;
