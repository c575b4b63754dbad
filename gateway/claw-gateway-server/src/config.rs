//! The gateway's settings: [`GatewayConfig`].
//!
//! One TOML file, every key of it optional. Above the file stand environment
//! variables (`CLAW_GATEWAY__` and the path of the key, `.` as `__`), above those
//! `--set`, above those the flags of the command line; [`KEYS`] is the one table
//! of what can be set so. Secrets are not settings: they stand in private files
//! of the data folder.

mod example;
mod load;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use claw_gateway::policy::Policy;
use claw_gateway::preemption::PreemptionPolicy;
use claw_proto::limits;
use claw_storage::LogLimits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use example::{example, schema};
pub use load::{ConfigError, KEYS, Key, Kind, Sources, default_data_dir};

/// What certificates of nodes are good for unless told otherwise: 30 days.
const CERTIFICATE_TTL_S: u64 = 30 * 24 * 3_600;
/// Nodes look once a second whether theirs is to be renewed.
const CERTIFICATE_TTL_S_MIN: u64 = 6;
/// Shortest interval that a node accepts, milliseconds.
const INTERVAL_MS_MIN: u64 = 100;

/// All settings of a gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Folder of everything that the gateway keeps; by default `clawbernetes` in `$XDG_DATA_HOME` or `~/.local/share`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Name of the cluster, written into its certificate authority at the first start.
    pub cluster_name: String,
    /// MCP, REST and health.
    pub http: HttpConfig,
    /// The port that nodes connect to.
    pub node: NodePortConfig,
    /// What a caller may use.
    pub limits: LimitsConfig,
    /// Who confirms disruptive operations.
    pub approval: ApprovalConfig,
    /// Whom more important work may stop.
    pub preemption: PreemptionConfig,
    /// Defaults of workloads.
    pub workloads: WorkloadsConfig,
    /// What is kept of workload logs.
    pub logs: LogsConfig,
    /// The event journal.
    pub journal: JournalConfig,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            cluster_name: "clawbernetes".into(),
            http: HttpConfig::default(),
            node: NodePortConfig::default(),
            limits: LimitsConfig::default(),
            approval: ApprovalConfig::default(),
            preemption: PreemptionConfig::default(),
            workloads: WorkloadsConfig::default(),
            logs: LogsConfig::default(),
            journal: JournalConfig::default(),
        }
    }
}

/// MCP, REST and health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to listen on; port 0 picks a free one. Any other than loopback needs `http.tls`.
    pub listen: SocketAddr,
    /// Values of the Host header that are accepted besides the loopback names.
    pub allowed_hosts: Vec<String>,
    /// Values of the Origin header that are accepted; none by default, so that no web page can call the gateway.
    pub allowed_origins: Vec<String>,
    /// Certificate and key; plain HTTP without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            tls: None,
        }
    }
}

/// Certificate and key of the HTTP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// File with the certificate chain, PEM; read at start.
    pub cert: PathBuf,
    /// File with the private key, PEM, readable by the gateway's user alone; read at start.
    pub key: PathBuf,
}

/// The port that nodes connect to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodePortConfig {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Names or addresses, with or without a port, by which nodes reach this port; they stand in its certificate. The first is what joining nodes are told.
    pub advertise: Vec<String>,
    /// How often a node is asked for a sign of life, milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Without an answer for so long a node counts as unreachable, milliseconds; at least three intervals.
    pub heartbeat_timeout_ms: u64,
    /// How long a node's certificate is good for, seconds; its connection ends with it.
    pub certificate_ttl_s: u64,
    /// While the certificate authority is replaced, how long nodes that are not there are waited for, seconds; after that they have to enroll again.
    pub ca_rollover_grace_s: u64,
    /// Enrollment attempts of one address, per minute.
    pub enrollments_per_minute: u32,
}

impl Default for NodePortConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7701)),
            advertise: Vec::new(),
            heartbeat_interval_ms: limits::HEARTBEAT_INTERVAL_MS,
            heartbeat_timeout_ms: limits::HEARTBEAT_TIMEOUT_MS,
            certificate_ttl_s: CERTIFICATE_TTL_S,
            ca_rollover_grace_s: 7 * 24 * 3_600,
            enrollments_per_minute: 120,
        }
    }
}

/// What a caller may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Requests of one principal, per second on average.
    pub requests_per_s: u32,
    /// Requests that one principal may send at once.
    pub requests_burst: u32,
    /// Largest body of a request, bytes.
    pub body_bytes: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { requests_per_s: 50, requests_burst: 200, body_bytes: 1024 * 1024 }
    }
}

/// Who confirms disruptive operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalConfig {
    /// A person may confirm their own tier 2 plan by typing its hash; otherwise another person has to.
    pub tier2_self_confirm: bool,
    /// For an installation of one person: they may confirm their own tier 3 plan in the same way.
    pub tier3_self_confirm: bool,
}

impl Default for ApprovalConfig {
    fn default() -> Self {
        let policy = Policy::default();
        Self { tier2_self_confirm: policy.tier2_self_confirm, tier3_self_confirm: policy.tier3_self_confirm }
    }
}

/// Whom more important work may stop. Only what is `preemptible` is ever stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreemptionConfig {
    /// Nobody is stopped for others that ran for less, seconds.
    pub min_run_s: u32,
    /// Nobody is stopped for others more often within 24 hours.
    pub per_day_max: u32,
}

impl Default for PreemptionConfig {
    fn default() -> Self {
        Self { min_run_s: 60, per_day_max: 3 }
    }
}

/// Defaults of workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkloadsConfig {
    /// A workload that does not say stops by itself when its node is cut off for so long, seconds.
    pub default_stop_after_s: u32,
    /// A workload that has waited so long for room keeps what becomes free where it fits, if it
    /// is known when that is, seconds.
    pub reserve_after_s: u32,
    /// So many of those keep what becomes free at a time; 0 for none.
    pub reservations_max: u32,
    /// After so long half of what a tenant has had is forgotten when fair share decides, seconds.
    pub fair_share_half_life_s: u32,
}

impl Default for WorkloadsConfig {
    fn default() -> Self {
        let (default_stop_after_s, fair_share_half_life_s) = (limits::STOP_AFTER_S_DEFAULT, 24 * 60 * 60);
        Self { default_stop_after_s, reserve_after_s: 600, reservations_max: 4, fair_share_half_life_s }
    }
}

/// What is kept of workload logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogsConfig {
    /// Logs of all workloads, bytes; the oldest go first.
    pub total_bytes: u64,
    /// Logs of one workload, bytes; the oldest go first.
    pub workload_bytes: u64,
    /// Age at which lines go, seconds.
    pub max_age_s: u64,
    /// Disk space that logs leave free, bytes: the journal comes first.
    pub min_free_bytes: u64,
}

impl Default for LogsConfig {
    fn default() -> Self {
        let limits = LogLimits::default();
        Self {
            total_bytes: limits.total_bytes_max,
            workload_bytes: limits.workload_bytes_max,
            max_age_s: 14 * 24 * 3_600,
            min_free_bytes: limits.free_bytes_min,
        }
    }
}

/// The event journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Disk space that the journal keeps for itself against a full disk, bytes.
    pub reserve_bytes: u64,
    /// Events after which the state is written as a whole, for a quick start, in a second
    /// without commands; at ten times as many in any case. More where the state is larger
    /// than they are.
    pub snapshot_every: u64,
    /// Newest events that stay in the database when older ones move to the archive.
    pub keep_events: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { reserve_bytes: 4 * 1024 * 1024, snapshot_every: 10_000, keep_events: 100_000 }
    }
}

impl GatewayConfig {
    /// The core's settings.
    pub fn policy(&self) -> Policy {
        Policy {
            tier2_self_confirm: self.approval.tier2_self_confirm,
            tier3_self_confirm: self.approval.tier3_self_confirm,
            default_stop_after_s: self.workloads.default_stop_after_s,
            heartbeat_interval_ms: self.node.heartbeat_interval_ms,
            reserve_after_ms: i64::from(self.workloads.reserve_after_s) * 1_000,
            reservations_max: self.workloads.reservations_max as usize,
            fair_share_half_life_s: self.workloads.fair_share_half_life_s,
            preemption: PreemptionPolicy {
                min_run_ms: i64::from(self.preemption.min_run_s) * 1_000,
                per_day_max: self.preemption.per_day_max as usize,
                ..PreemptionPolicy::default()
            },
            ..Policy::default()
        }
    }

    /// The log store's settings.
    pub fn log_limits(&self) -> LogLimits {
        LogLimits {
            total_bytes_max: self.logs.total_bytes,
            workload_bytes_max: self.logs.workload_bytes,
            age_ms_max: Some(self.logs.max_age_s.saturating_mul(1_000)),
            free_bytes_min: self.logs.min_free_bytes,
            ..LogLimits::default()
        }
    }

    /// What cannot work, whichever way it was set.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the first key at fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        let node = &self.node;
        require(
            node.heartbeat_interval_ms >= INTERVAL_MS_MIN,
            "node.heartbeat_interval_ms",
            "is under 100, the shortest interval that nodes accept",
        )?;
        require(
            node.heartbeat_timeout_ms >= node.heartbeat_interval_ms.saturating_mul(3),
            "node.heartbeat_timeout_ms",
            "is under three times node.heartbeat_interval_ms",
        )?;
        require(
            (CERTIFICATE_TTL_S_MIN..=365 * 24 * 3_600).contains(&node.certificate_ttl_s),
            "node.certificate_ttl_s",
            "is not between six seconds and a year",
        )?;
        require(node.enrollments_per_minute > 0, "node.enrollments_per_minute", "is 0, so no node could join")?;
        require(
            self.limits.requests_per_s > 0 && self.limits.requests_burst > 0,
            "limits.requests_per_s",
            "is 0 (or limits.requests_burst is), so nobody could call",
        )?;
        require(
            self.limits.body_bytes >= limits::ARGUMENT_BYTES_MAX,
            "limits.body_bytes",
            "is under 262144, the largest arguments of an operation",
        )?;
        require(
            (limits::STOP_AFTER_S_MIN..=limits::STOP_AFTER_S_MAX).contains(&self.workloads.default_stop_after_s),
            "workloads.default_stop_after_s",
            "is not between 3 seconds and a week",
        )?;
        require(
            self.workloads.default_stop_after_s >= self.policy().stop_after_s_min(),
            "workloads.default_stop_after_s",
            "is under five times node.heartbeat_interval_ms: it would run out on a connected node",
        )?;
        require(self.journal.snapshot_every > 0, "journal.snapshot_every", "is 0")?;
        require(
            self.http.listen.ip().is_loopback() || self.http.tls.is_some(),
            "http.listen",
            "is not a loopback address, and http.tls gives no certificate: keys would go over the network in the clear",
        )
    }
}

fn require(holds: bool, path: &'static str, problem: &'static str) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Value { path: path.to_owned(), problem: problem.to_owned() })
}
