//! Every limit of the protocol and of a specification, with the relations
//! between them asserted at compile time.

/// Protocol version that this build speaks.
pub const PROTOCOL_VERSION: u32 = 3;
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
/// Most status records of one message; the outbox goes out in several.
pub const STATUS_RECORDS_PER_MESSAGE_MAX: usize = 512;
/// Longest detail for people in a message (longer ones are cut when sent), bytes.
pub const DETAIL_BYTES_MAX: usize = 4 * 1024;
/// Longest other text of a node about itself (host name, system, address), characters.
pub const NODE_TEXT_CHARS_MAX: usize = 255;
/// Longest name that a program gives a checkpoint; a longer one is cut by the node.
pub const CHECKPOINT_LABEL_CHARS_MAX: usize = 255;
/// Checkpoints of one attempt are told no closer together, milliseconds; the newest counts.
pub const CHECKPOINT_INTERVAL_MS_MIN: u64 = 1_000;
/// Longest UUID of a GPU.
pub const GPU_UUID_CHARS_MAX: usize = 128;
/// Most runtimes of one node.
pub const RUNTIMES_PER_NODE_MAX: usize = 16;

/// Most processes that are told of one GPU.
pub const PROCESSES_PER_GPU_MAX: usize = 64;
/// Most events of one `GpuEvents` message.
pub const GPU_EVENTS_PER_MESSAGE_MAX: usize = 256;
/// Longest line of a node's kernel; a longer one is cut, bytes.
pub const KERNEL_LINE_BYTES_MAX: usize = 1_024;
/// Most lines of one `KernelLog` message.
pub const KERNEL_LINES_PER_MESSAGE_MAX: usize = 64;
/// Lines that a node sends at a time; one that sends fewer has no more to send.
pub const KERNEL_LINES_AT_A_TIME: usize = 32;
/// Lines of its kernel that are held of a node, there and at the gateway.
pub const KERNEL_TAIL_LINES_MAX: usize = 256;
/// Their bytes.
pub const KERNEL_TAIL_BYTES_MAX: usize = 64 * 1024;
/// Most findings of one node.
pub const FINDINGS_PER_NODE_MAX: usize = 64;
/// Most network interfaces of one node.
pub const NICS_PER_NODE_MAX: usize = 128;
/// Longest certificate, or request for one, bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// The cluster's authority lets validity begin so long before it issues, seconds: nodes' clocks are not exact.
pub const CERTIFICATE_BACKDATED_S: i64 = 300;
/// Most certificates of one chain or trust bundle.
pub const CERTIFICATES_MAX: usize = 8;
/// Largest value of a secret, bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// All secrets of one workload, bytes.
pub const SECRETS_BYTES_MAX: usize = 256 * 1024;
/// Most output bytes of one task, each stream, and of one piece of a file.
pub const TASK_BYTES_MAX: usize = 1024 * 1024;
/// Longest time of one task, milliseconds.
pub const TASK_TIMEOUT_MS_MAX: u64 = 300_000;
/// Most entries of a folder in one answer.
pub const OUTPUT_ENTRIES_MAX: usize = 1_000;

/// Largest tool argument object, bytes.
pub const ARGUMENT_BYTES_MAX: usize = 256 * 1024;
/// Longest name of a workload, node, deployment or label key.
pub const NAME_CHARS_MAX: usize = 63;
/// GPU models that a workload falls back to.
pub const MODEL_FALLBACKS_MAX: usize = 8;
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
/// Longest environment key.
pub const ENV_KEY_CHARS_MAX: usize = 128;
/// Environment of one workload in all (keys and values), bytes.
pub const ENV_BYTES_MAX: usize = 128 * 1024;
/// `command` (or `args`) of one workload in all, bytes.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// Longest path inside a workload, bytes.
pub const PATH_BYTES_MAX: usize = 1_024;
/// Longest image reference.
pub const IMAGE_CHARS_MAX: usize = 512;
/// Longest model id, and longest secret handle.
pub const MODEL_CHARS_MAX: usize = 128;
/// Most secrets of one workload.
pub const SECRETS_MAX: usize = 64;
/// Most output paths of one workload.
pub const OUTPUTS_MAX: usize = 64;
/// Most gates of one workload.
pub const GATES_MAX: usize = 8;
/// Most taints that one placement bears.
pub const TOLERATIONS_MAX: usize = 64;
/// Most nodes that one placement excludes.
pub const EXCLUDE_NODES_MAX: usize = 256;
/// Most nodes that one replica spans.
pub const NODES_PER_REPLICA_MAX: u32 = 1_024;
/// Most replicas of one workload.
pub const REPLICAS_MAX: u32 = 10_000;
/// Most CPU cores of one replica.
pub const CPU_CORES_MAX: f64 = 16_384.0;
/// Most host (or shared) memory of one replica, GiB.
pub const MEMORY_GIB_MAX: f64 = 262_144.0;
/// Most scratch disk of one replica, GiB.
pub const DISK_GIB_MAX: f64 = 4_194_304.0;
/// Most memory of one GPU that may be asked for, GiB.
pub const GPU_MEMORY_GIB_MAX: f64 = 4_096.0;
/// What a driver reports of a GPU's nominal memory, at least, per mille: an "80 GB" H100 shows
/// 81,559 MiB and a "48 GB" L40S 46,068 MiB (ECC and reserved memory take up to 1/16).
pub const GPU_MEMORY_OF_NOMINAL_PERMILLE: u32 = 930;
/// Memory of a shared GPU that its driver and the contexts of programs take, percent: shares
/// are parts of the rest.
pub const GPU_RESERVE_PERCENT: u64 = 3;
/// The same, at least, MiB.
pub const GPU_RESERVE_MIB_MIN: u64 = 256;
/// Longest duration in a specification, seconds (ten years).
pub const DURATION_S_MAX: u64 = 315_360_000;
/// Largest amount of a budget, in its unit.
pub const BUDGET_AMOUNT_MAX: f64 = 1e12;
/// Largest target of an autoscale rule, in the unit of its metric.
pub const AUTOSCALE_TARGET_MAX: f64 = 1e9;
/// Most restarts that may be asked for.
pub const RESTARTS_MAX: u32 = 1_000_000;
/// Restarts of `on_failure` when none are stated.
pub const RESTARTS_ON_FAILURE_DEFAULT: u32 = 3;
/// CPU of one replica when none is stated, thousandths of a core.
pub const CPU_MILLIS_DEFAULT: u64 = 1_000;
/// Host memory of one replica when none is stated, MiB.
pub const MEMORY_MIB_DEFAULT: u64 = 1_024;
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
/// Shortest `stop_after`, seconds: a lease must outlive the time between two heartbeats.
pub const STOP_AFTER_S_MIN: u32 = 3;
/// Longest `stop_after`, seconds (one week).
pub const STOP_AFTER_S_MAX: u32 = 604_800;
/// Margin that the gateway adds to a partition lease before it starts a copy
/// elsewhere: covers the clock drift of [`LEASE_DRIFT_PERMILLE`] and the kill itself.
pub const LEASE_MARGIN_MS: u64 = 2_000;
/// Clock-rate drift between gateway and node that a lease tolerates, per mille.
pub const LEASE_DRIFT_PERMILLE: u64 = 10;

const _: () = assert!(HEARTBEAT_INTERVAL_MS * 3 <= HEARTBEAT_TIMEOUT_MS);
const _: () = assert!(LOG_LINE_BYTES_MAX < LOG_BYTES_PER_MESSAGE_MAX);
const _: () = assert!(STATUS_RECORDS_PER_MESSAGE_MAX * (DETAIL_BYTES_MAX + 256) < FRAME_BYTES_MAX);
const _: () = assert!(STATUS_RECORDS_PER_MESSAGE_MAX <= STATUS_OUTBOX_RECORDS_MAX);
const _: () = assert!(LOG_BYTES_PER_MESSAGE_MAX * 2 < FRAME_BYTES_MAX);
const _: () = assert!(ARGUMENT_BYTES_MAX * 2 < FRAME_BYTES_MAX);
const _: () = assert!(TASK_BYTES_MAX * 3 < FRAME_BYTES_MAX);
const _: () = assert!(SECRETS_BYTES_MAX + (ENV_BYTES_MAX + 2 * COMMAND_BYTES_MAX) * 2 < FRAME_BYTES_MAX / 2);
const _: () = assert!((ENV_BYTES_MAX + 2 * COMMAND_BYTES_MAX) * 2 < FRAME_BYTES_MAX);
const _: () = assert!(ENV_VALUE_BYTES_MAX < ENV_BYTES_MAX && COMMAND_ARG_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(KERNEL_LINE_BYTES_MAX < KERNEL_TAIL_BYTES_MAX);
const _: () = assert!(KERNEL_LINES_PER_MESSAGE_MAX <= KERNEL_TAIL_LINES_MAX);
const _: () = assert!(KERNEL_LINES_AT_A_TIME <= KERNEL_LINES_PER_MESSAGE_MAX);
const _: () = assert!(STOP_AFTER_S_MIN as u64 * 1_000 > HEARTBEAT_INTERVAL_MS);
const _: () = assert!(STOP_AFTER_S_MIN <= STOP_AFTER_S_DEFAULT && STOP_AFTER_S_DEFAULT <= STOP_AFTER_S_MAX);
const _: () = assert!(GRACE_S_DEFAULT <= GRACE_S_MAX);
const _: () = assert!(PROTOCOL_VERSION_MIN <= PROTOCOL_VERSION);
