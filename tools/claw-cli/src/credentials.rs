//! Which gateway, which key, which data folder: from flags, the environment and files.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// The MCP endpoint of a gateway that was started with its defaults.
pub const GATEWAY_DEFAULT: &str = "http://127.0.0.1:7700/mcp";
/// Key of the first admin, made by the gateway at its first start.
pub const ADMIN_KEY_FILE: &str = "admin.key";
/// Key for agents, made by `claw up`.
pub const OPERATOR_KEY_FILE: &str = "operator.key";
/// Where the gateway of `claw up` listens, as long as it runs.
pub const URL_FILE: &str = "mcp.url";

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where to connect, and with what.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// URL of the MCP endpoint.
    pub url: String,
    /// API key.
    pub key: Option<Secret>,
    /// The authorities that sign the gateway's certificate, PEM; those of the system if absent.
    pub ca_pem: Option<String>,
}

/// What was said about the connection on the command line or in the environment.
#[derive(Debug, Clone)]
pub struct Connection {
    /// URL of the MCP endpoint, if one was named.
    pub gateway: Option<String>,
    /// Key, given directly.
    pub key: Option<Secret>,
    /// File that holds the key.
    pub key_file: Option<PathBuf>,
    /// File with the gateway's authority.
    pub ca_file: Option<PathBuf>,
    /// Folder of a gateway on this machine.
    pub data_dir: PathBuf,
}

/// Where a key came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `--key` or `CLAW_API_KEY`.
    Given,
    /// A file.
    File(PathBuf),
    /// There is none.
    Nowhere {
        /// The file that was looked for.
        looked_at: PathBuf,
    },
}

impl Connection {
    /// The URL: the named one, else that of a gateway which `claw up` runs on the data folder,
    /// else the default.
    pub fn url(&self) -> String {
        let here = || fs::read_to_string(self.data_dir.join(URL_FILE)).ok();
        let named = self.gateway.clone().or_else(here);
        named.map_or_else(|| GATEWAY_DEFAULT.to_owned(), |url| url.trim().to_owned())
    }

    /// The key, and where it came from: given directly, else the named file, else the data folder.
    pub fn key(&self) -> Result<(Option<Secret>, KeySource), CliError> {
        if let Some(key) = &self.key {
            return Ok((Some(key.clone()), KeySource::Given));
        }
        if let Some(path) = &self.key_file {
            let text = fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
            return Ok((Some(Secret::new(text.trim())), KeySource::File(path.clone())));
        }
        let path = self.data_dir.join(ADMIN_KEY_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Ok((Some(Secret::new(text.trim())), KeySource::File(path))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((None, KeySource::Nowhere { looked_at: path })),
            Err(error) => Err(CliError::file(path, error)),
        }
    }

    /// The authority that signed the gateway's certificate, if one was named.
    pub fn ca_pem(&self) -> Result<Option<String>, CliError> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        fs::read_to_string(path).map(Some).map_err(|error| CliError::file(path, error))
    }

    /// Everything that a connection needs.
    pub fn endpoint(&self) -> Result<Endpoint, CliError> {
        let (key, _) = self.key()?;
        let url = self.url();
        let ca_pem = self.ca_pem()?;
        Ok(Endpoint { url, key, ca_pem })
    }
}

/// `${XDG_DATA_HOME:-~/.local/share}/clawbernetes`.
pub fn default_data_dir(xdg_data_home: Option<&Path>, home: Option<&Path>) -> PathBuf {
    let share = match (xdg_data_home, home) {
        (Some(share), _) if share.is_absolute() => share.to_path_buf(),
        (_, Some(home)) => home.join(".local/share"),
        (_, None) => PathBuf::from("."),
    };
    share.join("clawbernetes")
}
