//! Every limit of the protocol and of a specification, with the relations
//! between them asserted at compile time.

/// Protocol version that this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// Oldest protocol version that this build understands.
pub const PROTOCOL_VERSION_MIN: u32 = 1;

/// Largest frame on the node link, bytes.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest number of log lines in one `Logs` message.
pub const LOG_LINES_PER_MESSAGE_MAX: usize = 1_000;
/// Longest log line; a longer one is cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// Largest payload of one `Logs` message, bytes.
pub const LOG_BYTES_PER_MESSAGE_MAX: usize = 1024 * 1024;
/// Most workloads on one node.
pub const WORKLOADS_PER_NODE_MAX: usize = 1_024;
/// Most GPUs on one node.
pub const GPUS_PER_NODE_MAX: usize = 256;
/// Status records that a node keeps until acknowledged.
pub const STATUS_OUTBOX_RECORDS_MAX: usize = 100_000;

/// Largest tool argument object, bytes.
pub const ARGUMENT_BYTES_MAX: usize = 256 * 1024;
/// Longest name of a workload, node, deployment or label key.
pub const NAME_CHARS_MAX: usize = 63;
/// Longest label value.
pub const LABEL_VALUE_CHARS_MAX: usize = 255;
/// Most labels on one object.
pub const LABELS_MAX: usize = 64;
/// Most environment variables of one workload.
pub const ENV_VARS_MAX: usize = 256;
/// Longest environment value, bytes.
pub const ENV_VALUE_BYTES_MAX: usize = 32 * 1024;
/// Most arguments of one command.
pub const COMMAND_ARGS_MAX: usize = 256;
/// Longest argument, bytes.
pub const COMMAND_ARG_BYTES_MAX: usize = 32 * 1024;
/// Most published ports.
pub const PORTS_MAX: usize = 64;
/// Most volumes.
pub const VOLUMES_MAX: usize = 64;
/// Most GPUs of one replica.
pub const GPUS_PER_REPLICA_MAX: u32 = 1_024;
/// Longest request in words, characters.
pub const REQUEST_TEXT_CHARS_MAX: usize = 8_000;
/// Longest `request_id`.
pub const REQUEST_ID_CHARS_MAX: usize = 128;
/// Longest `reason`.
pub const REASON_CHARS_MAX: usize = 500;
/// Longest `wait_s` that one call may hold.
pub const WAIT_S_MAX: u32 = 300;

/// How often the gateway sends a heartbeat, milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 2_000;
/// Without an answer for this long a node counts as unreachable, milliseconds.
pub const HEARTBEAT_TIMEOUT_MS: u64 = 10_000;
/// How often a node reports metrics unless told otherwise, milliseconds.
pub const METRICS_INTERVAL_MS: u64 = 10_000;
/// Default grace between TERM and KILL, seconds.
pub const GRACE_S_DEFAULT: u32 = 10;
/// Longest grace between TERM and KILL, seconds.
pub const GRACE_S_MAX: u32 = 3_600;
/// What a cut-off node's workload gets by default before it stops itself, seconds.
pub const STOP_AFTER_S_DEFAULT: u32 = 120;
/// Longest `stop_after`, seconds (one week).
pub const STOP_AFTER_S_MAX: u32 = 604_800;
/// Margin that the gateway adds to a partition lease before it starts a copy
/// elsewhere: covers the clock drift of [`LEASE_DRIFT_PERMILLE`] and the kill itself.
pub const LEASE_MARGIN_MS: u64 = 2_000;
/// Clock-rate drift between gateway and node that a lease tolerates, per mille.
pub const LEASE_DRIFT_PERMILLE: u64 = 10;

const _: () = assert!(HEARTBEAT_INTERVAL_MS * 3 <= HEARTBEAT_TIMEOUT_MS);
const _: () = assert!(LOG_LINE_BYTES_MAX < LOG_BYTES_PER_MESSAGE_MAX);
const _: () = assert!(LOG_BYTES_PER_MESSAGE_MAX * 2 < FRAME_BYTES_MAX);
const _: () = assert!(ARGUMENT_BYTES_MAX * 2 < FRAME_BYTES_MAX);
const _: () = assert!(PROTOCOL_VERSION_MIN <= PROTOCOL_VERSION);
