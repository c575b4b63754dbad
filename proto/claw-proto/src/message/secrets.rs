//! Values that only the program that needs them may see.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes of a secret: wiped when dropped, never shown, never written by serde.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one who hands them to the program.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A secret as a file inside the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// File name under the secrets folder.
    pub target: String,
    /// Its content.
    pub value: SecretBytes,
}

/// What a registry asks for before it hands out an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// Account.
    pub username: String,
    /// Password or token.
    pub password: SecretBytes,
}
