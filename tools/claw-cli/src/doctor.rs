//! `claw doctor`: what is missing on this machine, and how to mend it.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use claw_proto::time::Timestamp;
use claw_tools::cluster::ClusterStatus;
use claw_tools::refusal::ErrorCode;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::client::GatewayClient;
use crate::credentials::{Connection, KeySource};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;
use crate::render;
use crate::up::program;

/// Free space under which a gateway has no room to work, GiB.
const DISK_GIB_MIN: f64 = 2.0;
/// Open files that a busy gateway needs.
const OPEN_FILES_MIN: u64 = 4_096;
/// Difference between two clocks that makes times misleading, milliseconds.
const CLOCK_SKEW_MS_MAX: u64 = 2_000;
/// Bits of a file's mode that speak of others than its owner.
const OTHERS_BITS: u32 = 6;
/// Start of the year in which this program was made: a clock before it is not set.
const CLOCK_MIN_UNIX_MS: i64 = 1_735_689_600_000;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Ok,
    /// Works, with something missing.
    Warn,
    /// Does not work.
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    what: &'static str,
    status: Health,
    found: String,
    /// How to mend it; empty if there is nothing to mend.
    mend: String,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, status: Health::Ok, found: found.into(), mend: String::new() }
    }
    fn bad(what: &'static str, status: Health, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, status, found: found.into(), mend: mend.into() }
    }
}

/// Makes all checks; the exit code is that of a fault if one failed.
pub(crate) async fn run(connection: &Connection, screen: &Screen) -> Result<Exit, CliError> {
    let mut checks = gateway(connection).await;
    checks.extend([binary("claw-gateway"), binary("clawnode")]);
    checks.extend([engine(), cgroup(), disk(&connection.data_dir), open_files(), clock()]);
    let failed = checks.iter().any(|check| check.status == Health::Fail);
    let content = serde_json::to_value(&checks).map_err(std::io::Error::from)?;
    if screen.is_json() {
        screen.json(&content)?;
    } else {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let rows = content.as_array().into_iter().flatten();
        let body = rows.map(|row| ["status", "check", "found", "mend"].iter().map(|name| text(row, name)).collect());
        screen.print(&render::grid(&["", "check", "found", "how to mend it"], body.collect(), screen.style()))?;
    }
    Ok(if failed { Exit::Fault } else { Exit::Ok })
}

/// Is there a gateway, does it take the key, and what may the key do?
async fn gateway(connection: &Connection) -> Vec<Check> {
    let key = match connection.key() {
        Ok((_, KeySource::Given)) => Check::ok("key", "given directly"),
        Ok((_, KeySource::File(path))) => key_file(&path),
        Ok((_, KeySource::Nowhere { looked_at })) => Check::bad(
            "key",
            Health::Fail,
            format!("none; {} does not exist", looked_at.display()),
            "set CLAW_API_KEY, or give --key-file, or --data-dir of a gateway on this machine; `claw up` makes one",
        ),
        Err(error) => {
            Check::bad("key", Health::Fail, error.to_string(), "make the file readable for you, and for nobody else")
        }
    };
    let client = match connection.endpoint() {
        Ok(endpoint) => GatewayClient::connect_to(&endpoint).await,
        Err(error) => Err(error),
    };
    let mut checks = vec![key];
    match client {
        Ok(client) => {
            checks.push(Check::ok("gateway", format!("answers at {}", client.url())));
            checks.extend(status(&client).await);
            checks.push(role(&client).await);
            client.close().await;
        }
        Err(error @ (CliError::Unauthenticated { .. } | CliError::Forbidden { .. })) => {
            checks.push(Check::ok("gateway", format!("answers at {}", connection.url())));
            checks.push(Check::bad("role", Health::Fail, error.to_string(), error.hint()));
        }
        Err(error) => checks.push(Check::bad("gateway", Health::Fail, error.to_string(), error.hint())),
    }
    checks
}

fn key_file(path: &Path) -> Check {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).map_or(0, |meta| meta.permissions().mode() & 0o777);
    let found = format!("{} (mode {mode:o})", path.display());
    if mode.trailing_zeros() >= OTHERS_BITS {
        Check::ok("key", found)
    } else {
        Check::bad("key", Health::Warn, found, format!("others can read it: chmod 600 {}", path.display()))
    }
}

/// The journal and the clock of the gateway.
async fn status(client: &GatewayClient) -> Vec<Check> {
    let status = client.call("cluster_status", Map::new()).await;
    let status = status.ok().and_then(|reply| serde_json::from_value::<ClusterStatus>(reply.content).ok());
    let Some(status) = status else {
        return Vec::new();
    };
    let journal = if status.journal_writable {
        Check::ok("journal", "can be written")
    } else {
        Check::bad(
            "journal",
            Health::Fail,
            "cannot be written; reads go on",
            "make room on the gateway's disk; it goes on by itself",
        )
    };
    let skew_ms = now().ms_since(status.at).unsigned_abs();
    let skew = if skew_ms <= CLOCK_SKEW_MS_MAX {
        Check::ok("gateway clock", format!("{skew_ms} ms apart from this one"))
    } else {
        Check::bad(
            "gateway clock",
            Health::Warn,
            format!("{skew_ms} ms apart from this one"),
            "run a time service (chrony, systemd-timesyncd) on both machines",
        )
    };
    vec![journal, skew]
}

/// The role of the key, found by asking for what only a role may do. Nothing is changed: the
/// one that is no read is a plan about a workload that does not exist.
async fn role(client: &GatewayClient) -> Check {
    let forbidden = |result: &Result<_, CliError>| matches!(result, Err(CliError::Refused { refusal, .. }) if refusal.code == ErrorCode::Forbidden);
    let as_admin = client.call("api_key_list", Map::new()).await;
    if as_admin.is_ok() {
        return Check::ok("role", "admin");
    }
    if !forbidden(&as_admin) {
        return Check::bad("role", Health::Warn, "not known", "the gateway did not say what this key may do");
    }
    let probe = json!({ "workload": "claw-doctor", "mode": "plan" });
    let as_operator = client.call("workload_stop", probe.as_object().cloned().unwrap_or_default()).await;
    if forbidden(&as_operator) {
        return Check::bad(
            "role",
            Health::Warn,
            "viewer",
            "it can look and no more; ask an admin for a key of role operator to run work",
        );
    }
    Check::ok("role", "operator")
}

fn binary(name: &'static str) -> Check {
    match program(name) {
        Ok(path) => Check::ok(name, path.display().to_string()),
        Err(error) => Check::bad(name, Health::Warn, "not found", error.hint()),
    }
}

/// A container engine; needed for images only.
fn engine() -> Check {
    let mut places: Vec<PathBuf> = vec!["/var/run/docker.sock".into(), "/run/podman/podman.sock".into()];
    if let Some(host) = std::env::var_os("DOCKER_HOST").and_then(|host| host.into_string().ok())
        && let Some(path) = host.strip_prefix("unix://")
    {
        places.insert(0, path.into());
    }
    let is_socket = |path: &&PathBuf| fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    match places.iter().find(is_socket) {
        Some(path) => match UnixStream::connect(path) {
            Ok(_) => Check::ok("container engine", path.display().to_string()),
            Err(error) => Check::bad(
                "container engine",
                Health::Warn,
                format!("{}: {error}", path.display()),
                "let this user into the engine's group",
            ),
        },
        None => Check::bad(
            "container engine",
            Health::Warn,
            "no socket",
            "not needed for processes and simulation; for images install docker or podman",
        ),
    }
}

/// Limits of processes need a cgroup that may be written.
fn cgroup() -> Check {
    let root = Path::new("/sys/fs/cgroup");
    let version = if root.join("cgroup.controllers").exists() { "v2" } else { "v1" };
    let place = if version == "v2" { root.to_path_buf() } else { root.join("memory") };
    let writable = rustix::fs::access(&place, rustix::fs::Access::WRITE_OK).is_ok()
        && !rustix::fs::statvfs(&place).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    if writable {
        Check::ok("cgroup", format!("{version}, {} can be written", place.display()))
    } else {
        Check::bad(
            "cgroup",
            Health::Warn,
            format!("{version}, {} cannot be written", place.display()),
            "CPU and memory limits of processes are not enforced; run the node as root or in a delegated cgroup",
        )
    }
}

fn disk(data_dir: &Path) -> Check {
    let place = data_dir.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    let Ok(stat) = rustix::fs::statvfs(place) else {
        return Check::bad(
            "disk",
            Health::Warn,
            format!("{} cannot be looked at", place.display()),
            "check the path of --data-dir",
        );
    };
    let free_gib = stat.f_bavail as f64 * stat.f_frsize as f64 / (1024.0 * 1024.0 * 1024.0);
    let found = format!("{free_gib:.1} GiB free at {}", place.display());
    if free_gib >= DISK_GIB_MIN {
        Check::ok("disk", found)
    } else {
        Check::bad(
            "disk",
            Health::Fail,
            found,
            format!("make room: a gateway wants {DISK_GIB_MIN} GiB, or put --data-dir elsewhere"),
        )
    }
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.current {
        Some(most) if most < OPEN_FILES_MIN => Check::bad(
            "open files",
            Health::Warn,
            format!("at most {most}"),
            format!("ulimit -n {OPEN_FILES_MIN} (or LimitNOFILE= in the service) before starting a gateway"),
        ),
        Some(most) => Check::ok("open files", format!("at most {most}")),
        None => Check::ok("open files", "no limit"),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn clock() -> Check {
    let now = now();
    if now.unix_ms() >= CLOCK_MIN_UNIX_MS {
        Check::ok("clock", now.to_string())
    } else {
        Check::bad("clock", Health::Fail, now.to_string(), "set the clock: certificates are checked against it")
    }
}
