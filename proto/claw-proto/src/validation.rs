//! # claw-validation: parse, don't validate
//!
//! A [`WorkloadSpec`] is what somebody wishes; a [`ValidSpec`] is what the core
//! accepts, and [`ValidSpec::parse`] is the only way from one to the other. A
//! refusal names *every* fault with its path, so that a caller mends all of them
//! in one go. Whether the fleet can honor a valid specification is not decided
//! here: that depends on the state of the cluster.
//!
//! [`Validator`] collects the faults and is open to other inputs with the same
//! kinds of values: names, labels, node references, texts.
//!
//! Paths are dotted; `[0]` selects from a list and `["KEY"]` from a map:
//! `gpu.count`, `volumes[0].target`, `env["HF_HOME"]`. Values that may be secret
//! (environment, arguments) are never repeated in a fault.

mod checks;
mod gpu_models;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::closed_enum;
use crate::limits;
use crate::spec::{GpuVendor, Isolation, OnPartition, Priority, RestartPolicy, WorkloadSpec};
use crate::topology::GpuInfo;

pub use checks::is_unprintable;
pub use gpu_models::{KNOWN_GPU_MODELS, canonical_gpu_model, nearest_gpu_model};

closed_enum! {
    /// What is wrong with a value.
    FaultCode {
        /// It must be given.
        Missing = "missing",
        /// It is outside of its range, or not a finite number.
        OutOfRange = "out_of_range",
        /// It does not have the right form.
        Malformed = "malformed",
        /// It contradicts another value.
        Conflict = "conflict",
        /// There is too much of it.
        TooLong = "too_long",
        /// It names something that does not exist.
        Unknown = "unknown"
    }
}

/// One fault of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecFault {
    /// Where, such as `gpu.count`.
    pub path: String,
    /// What kind of fault.
    pub code: FaultCode,
    /// What is wrong, for people and models; says how to mend it.
    pub message: String,
    /// What was given, cut and with control characters escaped; absent where it may be secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// What would be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
}

impl fmt::Display for SpecFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        if let Some(got) = &self.got {
            write!(f, " (got {got})")?;
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        Ok(())
    }
}

/// Why an input was refused: all of its faults, in order of path. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidationError {
    /// The faults.
    pub faults: Vec<SpecFault>,
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.as_slice() {
            [one] => write!(f, "invalid value: {one}"),
            many => {
                write!(f, "{} invalid values", many.len())?;
                many.iter().try_for_each(|fault| write!(f, "\n- {fault}"))
            }
        }
    }
}

impl std::error::Error for ValidationError {}

/// Collects faults with their paths; [`Validator::finish`] tells the verdict.
#[derive(Debug, Clone, Default)]
pub struct Validator {
    faults: Vec<SpecFault>,
}

impl Validator {
    /// A validator without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a fault; the result is there to add `got` and `allowed`.
    pub fn fault(&mut self, path: &str, code: FaultCode, message: impl Into<String>) -> &mut SpecFault {
        self.faults.push(SpecFault { path: path.to_owned(), code, message: message.into(), got: None, allowed: None });
        let last = self.faults.len() - 1;
        &mut self.faults[last]
    }

    /// The faults so far.
    pub fn faults(&self) -> &[SpecFault] {
        &self.faults
    }

    /// No fault so far.
    pub fn is_ok(&self) -> bool {
        self.faults.is_empty()
    }

    /// The verdict: all faults in order of path, if there are any.
    pub fn finish(mut self) -> Result<(), ValidationError> {
        if self.faults.is_empty() {
            return Ok(());
        }
        self.faults.sort_by(|a, b| a.path.cmp(&b.path));
        Err(ValidationError { faults: self.faults })
    }
}

impl SpecFault {
    /// Adds what was given: cut to 64 characters, control characters escaped.
    pub fn with_got(&mut self, got: impl fmt::Display) -> &mut Self {
        self.got = Some(checks::shown(&got.to_string()));
        self
    }

    /// Adds what would be allowed.
    pub fn with_allowed(&mut self, allowed: impl Into<String>) -> &mut Self {
        self.allowed = Some(allowed.into());
        self
    }
}

/// What one replica takes from the node (or nodes) that it runs on.
///
/// Unstated values have defaults: one core ([`limits::CPU_MILLIS_DEFAULT`]),
/// 1024 MiB ([`limits::MEMORY_MIB_DEFAULT`]), no disk, no GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// GPUs in all; one if it takes a share or a slice.
    pub gpus: u32,
    /// How much of each GPU it takes, thousandths: less than [`GPU_MILLI`] is a share that
    /// others can have the rest of.
    pub gpu_milli: u16,
    /// The MIG profile of the slice that it takes in place of a GPU, such as 1g.10gb.
    pub mig_profile: Option<String>,
    /// CPU, thousandths of a core.
    pub cpu_millis: u64,
    /// Host memory, MiB.
    pub memory_mib: u64,
    /// Scratch disk, MiB.
    pub disk_mib: u64,
    /// Least memory of each GPU as its driver reports it, MiB; 0 = any. This is
    /// [`limits::GPU_MEMORY_OF_NOMINAL_PERMILLE`] of the nominal size asked for, so
    /// that "80" is met by every GPU sold as 80 GB. Of a share it is the share's part
    /// ([`Demand::memory_mib_of`]).
    pub gpu_memory_mib_min: u64,
    /// GPU models that do, none for any; known ones in their canonical spelling ([`KNOWN_GPU_MODELS`]).
    pub gpu_models: Vec<String>,
    /// An earlier one of several models is taken where it can be; else they are equal.
    pub gpu_models_ranked: bool,
    /// GPU vendor.
    pub gpu_vendor: Option<GpuVendor>,
    /// The GPUs must reach each other by NVLink (or xGMI); never set for a single GPU.
    pub nvlink: bool,
    /// It is a share, and every program that shares its GPU must be held to its memory.
    pub capped: bool,
}

/// A whole GPU, thousandths.
pub const GPU_MILLI: u16 = 1_000;
/// Compute slices that MIG cuts a GPU into at most (NVIDIA MIG User Guide: A100, H100, H200, B200).
const MIG_SLICES: u16 = 7;

/// How much of its GPU a MIG slice is, thousandths, by the compute slices of its profile: 142
/// for 1g.10gb, rounded down so that what fits one GPU is at most one. Nothing for what is not such a profile (partitions of other vendors).
pub fn mig_profile_milli(profile: &str) -> Option<u16> {
    let (slices, memory) = profile.split_once("g.")?;
    let n: u16 = slices.parse().ok().filter(|n| (1..=MIG_SLICES).contains(n))?;
    memory.contains("gb").then_some(n * GPU_MILLI / MIG_SLICES)
}

/// How much of its GPU a *checked* specification takes, thousandths; [`GPU_MILLI`] if it takes
/// whole ones, slices, or none.
pub fn share_milli(spec: &WorkloadSpec) -> u16 {
    rules::share_milli(spec)
}

/// A *checked* specification asks for a share of a GPU, and for its memory to be kept apart.
pub fn is_capped_share(spec: &WorkloadSpec) -> bool {
    let isolation = spec.gpu.as_ref().and_then(|gpu| gpu.isolation);
    share_milli(spec) < GPU_MILLI && isolation == Some(Isolation::Memory)
}

/// Memory that so many thousandths of a GPU have, MiB: all of a whole one; of a shared one a
/// part of what the driver leaves, see [`limits::GPU_RESERVE_PERCENT`].
pub fn share_memory_mib(milli: u16, gpu_memory_mib: u64) -> u64 {
    if milli >= GPU_MILLI {
        return gpu_memory_mib;
    }
    let reserve = (gpu_memory_mib * limits::GPU_RESERVE_PERCENT / 100).max(limits::GPU_RESERVE_MIB_MIN);
    gpu_memory_mib.saturating_sub(reserve) * u64::from(milli) / u64::from(GPU_MILLI)
}

/// GPUs of a model do for who wants one of these; none is any.
pub fn takes_model(wanted: &[String], model: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(model))
}

impl Demand {
    /// GPUs of this model do.
    pub fn takes_model(&self, model: &str) -> bool {
        takes_model(&self.gpu_models, model)
    }

    /// The models that do, in words.
    pub fn models_in_words(&self) -> String {
        let between = if self.gpu_models_ranked { ", else " } else { " or " };
        if self.gpu_models.is_empty() { "any".to_owned() } else { self.gpu_models.join(between) }
    }

    /// It takes a part of one GPU, by time, and others can have the rest.
    pub const fn is_share(&self) -> bool {
        self.gpus > 0 && self.gpu_milli < GPU_MILLI
    }

    /// It may have a share of this GPU, as far as programs have to be held to their memory.
    pub const fn takes_caps_of(&self, gpu: &GpuInfo) -> bool {
        !self.capped || gpu.caps_shares
    }

    /// What it takes of all its GPUs, thousandths of one; a slice counts as
    /// [`mig_profile_milli`] of its profile.
    pub fn gpu_milli_total(&self) -> u64 {
        let of_slice = self.mig_profile.as_deref().and_then(mig_profile_milli);
        u64::from(self.gpus) * u64::from(of_slice.unwrap_or(self.gpu_milli))
    }

    /// Memory that it has of a GPU of so much, MiB: see [`share_memory_mib`].
    pub fn memory_mib_of(&self, gpu_memory_mib: u64) -> u64 {
        share_memory_mib(self.gpu_milli, gpu_memory_mib)
    }
}

/// A specification that keeps every rule, and what it demands. Its JSON form is
/// that of the specification; reading it back goes through [`ValidSpec::parse`].
#[derive(Debug, Clone, PartialEq)]
pub struct ValidSpec {
    spec: Arc<WorkloadSpec>,
    demand: Demand,
    node_demand: Demand,
}

impl ValidSpec {
    /// Checks every rule and derives the demand.
    ///
    /// # Errors
    /// All faults of the specification, in order of path.
    pub fn parse(spec: WorkloadSpec) -> Result<Self, ValidationError> {
        let mut validator = Validator::new();
        rules::check(&mut validator, &spec);
        validator.finish()?;
        let demand = rules::demand(&spec);
        let node_demand = rules::node_demand(&spec, &demand);
        Ok(Self { spec: Arc::new(spec), demand, node_demand })
    }

    /// The specification as it was given.
    pub fn spec(&self) -> &WorkloadSpec {
        &self.spec
    }

    /// The specification as it was given, by value.
    pub fn into_spec(self) -> WorkloadSpec {
        Arc::unwrap_or_clone(self.spec)
    }

    /// The specification as it was given, shared.
    pub fn shared(&self) -> Arc<WorkloadSpec> {
        Arc::clone(&self.spec)
    }

    /// What one replica takes.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// What one node of a replica takes: its share of the GPUs, and cores, memory
    /// and disk as stated (they are for each node, like a container's limits).
    pub fn node_demand(&self) -> &Demand {
        &self.node_demand
    }

    /// How many nodes one replica spans; 1 unless stated.
    pub fn nodes(&self) -> u32 {
        self.spec.nodes.unwrap_or(1)
    }

    /// Order in the queue; `normal` unless stated.
    pub fn priority(&self) -> Priority {
        self.spec.priority.unwrap_or(Priority::Normal)
    }

    /// What a cut-off node does; stops after [`limits::STOP_AFTER_S_DEFAULT`] unless stated.
    pub fn on_partition(&self) -> OnPartition {
        self.spec.on_partition.unwrap_or_default()
    }

    /// Between TERM and KILL, seconds; [`limits::GRACE_S_DEFAULT`] unless stated.
    pub fn grace_s(&self) -> u32 {
        self.spec.grace_s.unwrap_or(limits::GRACE_S_DEFAULT)
    }

    /// When it is started again. Unless stated: `on_failure` if `max_restarts`
    /// is stated and not 0, else `never` (a restart is never a surprise).
    pub fn restart(&self) -> RestartPolicy {
        match (self.spec.restart, self.spec.max_restarts) {
            (Some(policy), _) => policy,
            (None, Some(1..)) => RestartPolicy::OnFailure,
            (None, Some(0) | None) => RestartPolicy::Never,
        }
    }

    /// Most restarts. Unless stated: [`limits::RESTARTS_ON_FAILURE_DEFAULT`] for
    /// `on_failure`, `u32::MAX` (no limit) for `always`, 0 for `never`.
    pub fn max_restarts(&self) -> u32 {
        match self.restart() {
            RestartPolicy::Never => 0,
            RestartPolicy::OnFailure => self.spec.max_restarts.unwrap_or(limits::RESTARTS_ON_FAILURE_DEFAULT),
            RestartPolicy::Always => self.spec.max_restarts.unwrap_or(u32::MAX),
        }
    }
}

impl Serialize for ValidSpec {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.spec.serialize(s)
    }
}

impl<'de> Deserialize<'de> for ValidSpec {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(WorkloadSpec::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

impl TryFrom<WorkloadSpec> for ValidSpec {
    type Error = ValidationError;
    fn try_from(spec: WorkloadSpec) -> Result<Self, ValidationError> {
        Self::parse(spec)
    }
}
