//! What the state holds only by handle, put into what a node is told: environment
//! values, secret files, the credentials of a registry.

use claw_proto::limits::SECRETS_BYTES_MAX;
use claw_proto::message::{DesiredWorkload, RegistryAuth, SecretBytes, SecretFile};
use zeroize::Zeroizing;

use super::NodePort;
use crate::control::SubmitError;

/// Why a workload cannot be told to its node.
#[derive(Debug)]
pub(super) enum FillError {
    /// Something that it names is not there any more, in words.
    Missing(String),
    /// The journal could not be read.
    Submit(SubmitError),
}

impl From<SubmitError> for FillError {
    fn from(error: SubmitError) -> Self {
        Self::Submit(error)
    }
}

/// The workload with everything filled in. One whose values are gone is not
/// started without them.
pub(super) async fn filled(
    port: &NodePort,
    mut workload: DesiredWorkload,
    env_handle: Option<String>,
) -> Result<DesiredWorkload, FillError> {
    if let Some(handle) = env_handle {
        let bytes = port.control.blob(&handle).await?;
        let bytes = bytes.ok_or_else(|| FillError::Missing("its environment values are erased".into()))?;
        workload.spec.env = serde_json::from_slice(&bytes).map_err(|error| {
            let fault = port.control.fault("environment values cannot be read", &error);
            FillError::Missing(format!("{} ({})", fault.message, fault.fault_id))
        })?;
    }
    let mut n_bytes = 0;
    for secret in workload.spec.secrets.clone() {
        let value = value_of(port, &secret.handle).await?;
        n_bytes += value.len();
        let value = SecretBytes::new(value.to_vec());
        workload.secrets.push(SecretFile { target: secret.target, value });
    }
    if n_bytes > SECRETS_BYTES_MAX {
        let message = format!("its secrets have {n_bytes} bytes, allowed are {SECRETS_BYTES_MAX}");
        return Err(FillError::Missing(message));
    }
    if let Some(handle) = workload.spec.pull_secret.clone() {
        workload.registry_auth = Some(credentials(&handle, &value_of(port, &handle).await?)?);
    }
    Ok(workload)
}

async fn value_of(port: &NodePort, handle: &str) -> Result<Zeroizing<Vec<u8>>, FillError> {
    let blob = port.control.snapshot().secrets.get(handle).map(|secret| secret.blob.clone());
    let gone = || FillError::Missing(format!("the secret {handle} was deleted"));
    let sealed = port.control.blob(&blob.ok_or_else(gone)?).await?.ok_or_else(gone)?;
    port.secrets.open(handle, &sealed).map_err(|error| FillError::Missing(format!("the secret {handle}: {error}")))
}

/// `username:password`; a registry's token goes as the password.
fn credentials(handle: &str, value: &[u8]) -> Result<RegistryAuth, FillError> {
    let text = std::str::from_utf8(value).ok().map(|text| text.trim_end_matches(['\r', '\n']));
    let (username, password) = text.and_then(|text| text.split_once(':')).ok_or_else(|| {
        FillError::Missing(format!("the secret {handle} is not username:password, as a registry needs it"))
    })?;
    Ok(RegistryAuth { username: username.to_owned(), password: SecretBytes::new(password.as_bytes().to_vec()) })
}
