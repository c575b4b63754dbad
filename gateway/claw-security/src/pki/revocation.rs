//! Which certificates no longer count although they are still valid.

use std::collections::BTreeSet;

use super::{NodeIdentity, PkiError};

/// The revoked certificates and nodes. A value: the caller builds it from its
/// own state and hands it to whoever checks a connection.
///
/// There is no CRL file and no OCSP: the gateway is the only one who verifies
/// node certificates, and it knows this list first-hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationList {
    serials: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

impl RevocationList {
    /// A list that revokes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Revokes one certificate by its serial number in hex.
    pub fn revoke_serial(&mut self, serial_hex: &str) {
        self.serials.insert(canonical(serial_hex));
    }

    /// Revokes every certificate of a node, also those that are not known here.
    pub fn revoke_node(&mut self, node_id: &str) {
        self.nodes.insert(node_id.to_owned());
    }

    /// Whether this serial number was revoked.
    pub fn is_revoked(&self, serial_hex: &str) -> bool {
        self.serials.contains(&canonical(serial_hex))
    }

    /// Whether every certificate of this node was revoked.
    pub fn is_node_revoked(&self, node_id: &str) -> bool {
        self.nodes.contains(node_id)
    }

    /// Passes an identity that is revoked neither by serial number nor by node.
    ///
    /// # Errors
    /// [`PkiError::Revoked`].
    pub fn check(&self, identity: &NodeIdentity) -> Result<(), PkiError> {
        if self.is_revoked(&identity.serial_hex) || self.is_node_revoked(&identity.node_id) {
            return Err(PkiError::Revoked {
                node_id: identity.node_id.clone(),
                serial_hex: identity.serial_hex.clone(),
            });
        }
        Ok(())
    }
}

/// Other tools print serial numbers in capitals, with colons or leading zeros;
/// a revocation typed from their output must still hit.
fn canonical(serial_hex: &str) -> String {
    let digits: String = serial_hex.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    digits.trim_start_matches('0').to_owned()
}
