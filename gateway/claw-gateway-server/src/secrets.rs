//! The admin's key of a new fleet.

use std::path::{Path, PathBuf};

use claw_gateway::{Caller, Command};
use claw_proto::ids::KeyId;
use claw_security::auth::{ApiKey, ApiKeyError};
use claw_security::secret_file::{SecretFileError, write_private};
use claw_tools::access::Role;

use crate::control::{ControlPlane, SubmitError};

/// File in the data folder that holds the admin's key: one line, mode 0600.
pub(crate) const ADMIN_KEY_FILE: &str = "admin.key";
/// Principal that the first key speaks for.
const ADMIN: &str = "admin";

/// Why the fleet has no admin.
#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] ApiKeyError),
    /// The key could not be written.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The key could not be made known.
    #[error("the admin's key could not be journaled: {0}")]
    Submit(#[from] SubmitError),
}

/// Makes the admin's key if the fleet has none; the file that it stands in.
///
/// The file is written first: a crash between the two leaves a file with a key
/// that nobody knows, and the next start replaces it. The other way round it
/// would leave a fleet that nobody can get into.
///
/// # Errors
/// [`AdminKeyError`].
pub(crate) async fn ensure_admin_key(
    control: &ControlPlane,
    data_dir: &Path,
) -> Result<Option<PathBuf>, AdminKeyError> {
    let has_admin = control.snapshot().keys.values().any(|key| key.role == Role::Admin && !key.revoked);
    if has_admin {
        return Ok(None);
    }
    let key_id = KeyId::next(&mut control.ids());
    let key = ApiKey::generate(&key_id.to_string())?;
    let path = data_dir.join(ADMIN_KEY_FILE);
    let mut line = key.to_text();
    line.push('\n');
    write_private(&path, line.as_bytes())?;
    let command = Command::Bootstrap { key_id, secret_hash: key.hash().to_string(), principal: ADMIN.into() };
    control.submit(command, Caller::system(control.now())).await?;
    tracing::info!(path = %path.display(), "admin key written");
    Ok(Some(path))
}
