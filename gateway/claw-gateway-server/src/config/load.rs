//! From files, environment and flags to a [`GatewayConfig`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::GatewayConfig;

/// What the name of every environment variable of a key begins with.
const ENV_PREFIX: &str = "CLAW_GATEWAY__";

/// How the text of a key is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it stands.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Switch,
    /// Texts with commas between them.
    List,
}

/// One key that can be set by environment and `--set`.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path in the file.
    pub path: &'static str,
    /// How its text is read.
    pub kind: Kind,
}

impl Key {
    /// Name of its environment variable.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

/// Every key, in the order of the file.
pub const KEYS: [Key; 32] = [
    key("data_dir", Kind::Text),
    key("cluster_name", Kind::Text),
    key("http.listen", Kind::Text),
    key("http.allowed_hosts", Kind::List),
    key("http.allowed_origins", Kind::List),
    key("http.tls.cert", Kind::Text),
    key("http.tls.key", Kind::Text),
    key("node.listen", Kind::Text),
    key("node.advertise", Kind::List),
    key("node.heartbeat_interval_ms", Kind::Number),
    key("node.heartbeat_timeout_ms", Kind::Number),
    key("node.certificate_ttl_s", Kind::Number),
    key("node.ca_rollover_grace_s", Kind::Number),
    key("node.enrollments_per_minute", Kind::Number),
    key("limits.requests_per_s", Kind::Number),
    key("limits.requests_burst", Kind::Number),
    key("limits.body_bytes", Kind::Number),
    key("approval.tier2_self_confirm", Kind::Switch),
    key("approval.tier3_self_confirm", Kind::Switch),
    key("workloads.default_stop_after_s", Kind::Number),
    key("workloads.reserve_after_s", Kind::Number),
    key("workloads.reservations_max", Kind::Number),
    key("workloads.fair_share_half_life_s", Kind::Number),
    key("preemption.min_run_s", Kind::Number),
    key("preemption.per_day_max", Kind::Number),
    key("logs.total_bytes", Kind::Number),
    key("logs.workload_bytes", Kind::Number),
    key("logs.max_age_s", Kind::Number),
    key("logs.min_free_bytes", Kind::Number),
    key("journal.reserve_bytes", Kind::Number),
    key("journal.snapshot_every", Kind::Number),
    key("journal.keep_events", Kind::Number),
];

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML of this form.
    #[error("{} is not a configuration: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// There is no such key.
    #[error("{source_name} sets {got:?}, which is no setting{}", match nearest { Some(name) => format!("; did you mean {name}?"), None => String::new() })]
    UnknownKey {
        /// Who sets it: `--set`, the environment.
        source_name: &'static str,
        /// As written.
        got: String,
        /// The nearest key.
        nearest: Option<String>,
    },
    /// The text of a key cannot be read.
    #[error("{path} is {got:?}, expected is {expected}")]
    Text {
        /// The key.
        path: String,
        /// What was given.
        got: String,
        /// What it should be.
        expected: &'static str,
    },
    /// `--set` without a `=`.
    #[error("--set {got:?} has no =; write --set KEY=VALUE")]
    NoValue {
        /// What was given.
        got: String,
    },
    /// A value that cannot be.
    #[error("{path} {problem}")]
    Value {
        /// The key.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// No data folder is named, and there is no home folder to put it in.
    #[error("no data folder: give --data-dir, or set HOME or XDG_DATA_HOME")]
    NoDataDir,
}

/// Where settings come from, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// `KEY=VALUE`, as given with `--set`.
    pub set: Vec<String>,
    /// Keys that a flag of their own has set.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// Reads all sources and checks what comes out.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key or the file.
    pub fn load(&self) -> Result<GatewayConfig, ConfigError> {
        let text = match &self.file {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?
            }
            None => String::new(),
        };
        self.load_over(&text)
    }

    /// [`Sources::load`] with the text of the file as given, whatever stands in the file.
    ///
    /// # Errors
    /// As [`Sources::load`].
    pub fn load_over(&self, file_text: &str) -> Result<GatewayConfig, ConfigError> {
        let mut table = read_text(self.file.as_deref().unwrap_or(Path::new("the file")), file_text)?;
        for (name, text) in &self.env {
            if name.starts_with(ENV_PREFIX) {
                let key = known_key("the environment", name, Key::env)?;
                put(&mut table, key, text)?;
            }
        }
        for pair in &self.set {
            let (name, text) = pair.split_once('=').ok_or_else(|| ConfigError::NoValue { got: pair.clone() })?;
            let key = known_key("--set", name.trim(), |key| key.path.to_owned())?;
            put(&mut table, key, text.trim())?;
        }
        for (path, text) in &self.flags {
            let key = known_key("a flag", path, |key| key.path.to_owned())?;
            put(&mut table, key, text)?;
        }
        let config: GatewayConfig =
            serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| ConfigError::Value {
                path: error.path().to_string(),
                problem: format!("cannot be used: {}", error.inner().message()),
            })?;
        config.check()?;
        Ok(config)
    }
}

/// Reads the file alone first: its errors then come with their lines.
fn read_text(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let problem = |error: toml::de::Error| ConfigError::File {
        path: path.to_owned(),
        problem: error.to_string().trim_end().to_owned(),
    };
    toml::from_str::<GatewayConfig>(text).map_err(problem)?;
    toml::from_str(text).map_err(problem)
}

fn known_key(source_name: &'static str, name: &str, spelled: impl Fn(&Key) -> String) -> Result<Key, ConfigError> {
    KEYS.iter().find(|key| spelled(key) == name).copied().ok_or_else(|| {
        let names: Vec<String> = KEYS.iter().map(spelled).collect();
        ConfigError::UnknownKey {
            source_name,
            got: name.chars().take(80).collect(),
            nearest: claw_tools::nearest::nearest(name, names.iter().map(String::as_str)),
        }
    })
}

fn put(table: &mut Table, key: Key, text: &str) -> Result<(), ConfigError> {
    let wrong =
        |expected| ConfigError::Text { path: key.path.to_owned(), got: text.chars().take(80).collect(), expected };
    let value = match key.kind {
        Kind::Text => Value::String(text.to_owned()),
        Kind::Number => Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?),
        Kind::Switch => Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
        Kind::List => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        ),
    };
    let mut at = table;
    let (parents, last) = match key.path.rsplit_once('.') {
        Some((parents, last)) => (parents, last),
        None => ("", key.path),
    };
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        let entry = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        at = match entry {
            Value::Table(inner) => inner,
            _ => return Err(wrong("in a table, and its parent is none")),
        };
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// The data folder when none is named: `clawbernetes` in `$XDG_DATA_HOME`, or in
/// `~/.local/share`. `variable` looks up the environment.
///
/// # Errors
/// [`ConfigError::NoDataDir`].
pub fn default_data_dir(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, ConfigError> {
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local").join("share")))
        .map(|share| share.join("clawbernetes"))
        .ok_or(ConfigError::NoDataDir)
}
