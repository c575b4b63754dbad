//! Hashes of arguments stand in the journal for ever; arguments can hold values
//! that are easy to guess. Keyed with a secret of this gateway that is not in
//! the journal, a hash still tells equal from other and nothing more.

use std::path::Path;

use claw_gateway::Command;
use claw_security::secret_file::{SecretFileError, read_private, write_private};
use claw_security::to_hex;
use sha2::{Digest as _, Sha256};

/// File of the key in the data folder.
const KEY_FILE: &str = "args.key";
const KEY_BYTES: usize = 32;

/// The key.
#[derive(Clone)]
pub(super) struct Seal([u8; KEY_BYTES]);

impl Seal {
    /// Reads the key, or makes it at the first start. A lost key costs that
    /// retries across the loss are taken for other arguments, nothing else.
    pub(super) fn load_or_create(data_dir: &Path) -> Result<Self, SecretFileError> {
        let path = data_dir.join(KEY_FILE);
        match read_private(&path) {
            Ok(bytes) => {
                if let Ok(key) = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
                    return Ok(Self(key));
                }
                tracing::warn!(path = %path.display(), "the key of argument hashes has a wrong length and is made anew");
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).expect("the operating system's random source is there once the system is up");
        write_private(&path, &key)?;
        Ok(Self(key))
    }

    /// Keys the hash that a command carries.
    pub(super) fn seal(&self, command: &mut Command) {
        match command {
            Command::Operate { args_hash, .. }
            | Command::PlanApply { args_hash, .. }
            | Command::ApprovalDecide { args_hash, .. } => *args_hash = self.keyed(args_hash),
            Command::GatewayStarted { .. }
            | Command::CaRotated { .. }
            | Command::Bootstrap { .. }
            | Command::NodeEnroll { .. }
            | Command::NodeRegister { .. }
            | Command::NodeCapabilities { .. }
            | Command::NodeStatus { .. }
            | Command::ExecEnded { .. }
            | Command::NodesSilent { .. }
            | Command::Tick => {}
        }
    }

    /// Nested, so that nothing can be appended to what was hashed.
    fn keyed(&self, text: &str) -> String {
        let inner = Sha256::new().chain_update(self.0).chain_update(text).finalize();
        let outer = Sha256::new().chain_update(self.0).chain_update(inner).finalize();
        to_hex(&outer)
    }
}
