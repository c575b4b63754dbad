//! Closed enums on the wire. The unspecified value and unknown values are refused.

use super::error::{Fault, FieldProblem};
use crate::message::{
    GpuEventKind, LogStream, NodeErrorCode, NodeWorkloadState, RefusalCode, StatusCause, TaskErrorCode, ThrottleReason,
};
use crate::spec::{
    AutoscaleMetric, BudgetPer, BudgetUnit, GpuVendor, Interconnect, MarketUse, PlacementStrategy, Priority,
    PullPolicy, Quantization, RestartPolicy, RuntimeKind, TopologyDomain, WorkloadKind,
};
use crate::topology::{FindingCode, GpuDriver, GpuHealth};
use crate::wire::node_v1 as wire;

/// A closed enum that has a form on the wire.
pub(super) trait WireEnum: Sized {
    fn encode(self) -> i32;
    fn decode(value: i32) -> Result<Self, Fault>;

    /// Presence is kept: absent is absent, and a present unspecified value is refused.
    fn decode_optional(value: Option<i32>, name: &str) -> Result<Option<Self>, Fault> {
        value.map(Self::decode).transpose().map_err(|fault| fault.at(name))
    }
}

/// Both directions from one list; the compiler checks that it is complete on both sides.
macro_rules! wire_enums {
    ($($name:ident { $($variant:ident)* })*) => {$(
        impl WireEnum for $name {
            fn encode(self) -> i32 {
                match self { $(Self::$variant => wire::$name::$variant as i32),* }
            }
            fn decode(value: i32) -> Result<Self, Fault> {
                match wire::$name::try_from(value) {
                    $(Ok(wire::$name::$variant) => Ok(Self::$variant),)*
                    Ok(wire::$name::Unspecified) => Err(Fault::new(FieldProblem::Unspecified)),
                    Err(_) => Err(Fault::new(FieldProblem::UnknownValue { value })),
                }
            }
        }
    )*};
}

wire_enums! {
    AutoscaleMetric { GpuTemperature GpuUtilization GpuMemoryUsed GpuPower NodeUnreachable QueueDepth ErrorRate LatencyP99 }
    BudgetPer { GpuHour Hour Total }
    BudgetUnit { Molt Usd }
    FindingCode {
        DriverAbsentLibrary DriverNotLoaded DriverVersionMismatch DriverHung DriverFailed GpuLost GpuNeedsReset
        GpuErrorEvent EngineUnavailable EngineLimited CertificateExpiring KernelLogUnreadable
    }
    GpuDriver { None Sim Nvml Rocm Metal Vulkan }
    GpuEventKind { Xid EccDoubleBit EccSingleBit PowerState Clock Lost }
    GpuHealth { Healthy Degraded Failed }
    GpuVendor { Nvidia Amd Apple Intel Other }
    Interconnect { Nvlink Any }
    LogStream { Stdout Stderr System }
    MarketUse { Never Overflow Only }
    NodeErrorCode { Unsupported StaleGeneration StorageUnavailable Internal }
    NodeWorkloadState { Pulling Starting Running Stopping Completed Failed Stopped Lost }
    PlacementStrategy { Pack Spread }
    Priority { Critical High Normal Low BestEffort }
    PullPolicy { Always IfMissing Never }
    Quantization { Fp32 Fp16 Bf16 Fp8 Int8 Int4 }
    RefusalCode { VersionMismatch UnknownNode StaleGateway Replaced Unavailable Protocol }
    RestartPolicy { Never OnFailure Always }
    RuntimeKind { Docker Process Sim }
    StatusCause {
        Progress Exited Signaled OutOfMemory StopRequested MaxDuration PartitionLease StartFailed Unsupported GpuMissing
        SupervisorGone AgentRestarted Superseded PullFailed ImageRefused GpuNotAttached VolumeRefused EngineFailed
    }
    TaskErrorCode { NotFound NotRunning Refused Unsupported TooLarge Timeout Internal }
    ThrottleReason {
        GpuIdle ApplicationsClocks SwPowerCap HwSlowdown SyncBoost SwThermal HwThermal HwPowerBrake DisplayClocks
    }
    TopologyDomain { Node Rack Zone }
    WorkloadKind { Inference Training Batch Interactive Service }
}
