//! The key that values are sealed with.

use std::path::Path;

use crate::secret::Secret;
use crate::secret_file::{SecretFileError, read_private, write_private};

/// 256 bits in a private file of the data folder.
#[derive(Debug)]
pub struct SecretKey(Secret);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The operating system gave no randomness.
    #[error(transparent)]
    Randomness(#[from] crate::secret::RandomnessError),
    /// The file does not hold a key. It is not replaced: values were sealed with what was there.
    #[error("{path} does not hold a key of 32 bytes; put the right one back")]
    Length {
        /// Which file.
        path: String,
    },
}

impl SecretKey {
    /// Reads the key, or makes it where there is none.
    ///
    /// # Errors
    /// [`SecretKeyError`].
    pub fn load_or_create(path: &Path) -> Result<Self, SecretKeyError> {
        match read_private(path) {
            Ok(bytes) => Secret::from_slice(&bytes)
                .map(Self)
                .ok_or_else(|| SecretKeyError::Length { path: path.display().to_string() }),
            Err(error) if error.is_not_found() => {
                let key = Secret::generate()?;
                write_private(path, key.expose())?;
                Ok(Self(key))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}
