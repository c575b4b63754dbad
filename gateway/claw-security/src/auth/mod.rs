//! # claw-auth: who is behind a request, and what that one may do
//!
//! A request carries `Authorization: Bearer <api key>`. [`Authenticator`] turns it
//! into an [`AuthContext`] from a snapshot of the stored keys; [`RbacPolicy`]
//! answers whether the context's role has a permission. Roles, permissions and
//! their table are the contract's (`claw_tools::access`), not defined again here.
//!
//! Invariants:
//! - Of a key only the hash is stored, and only the key's maker ever saw it.
//! - Every check does exactly one hash and one comparison in constant time,
//!   whatever was sent; unknown and wrong keys get the same answer.

mod api_key;
mod authenticator;

use claw_tools::access::{Permission, PrincipalKind, Role};

pub use api_key::{ApiKey, ApiKeyError};
pub use authenticator::{AuthError, Authenticator, HEADER_BYTES_MAX, StoredKey};

/// The one who makes a request, as far as authentication goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthContext {
    /// Whom the key was made for; stands on every event that the request causes.
    pub principal: String,
    /// The key's id, its public half.
    pub key_id: String,
    /// What the key may do.
    pub role: Role,
    /// A person or a program; decides whose confirmation counts.
    pub kind: PrincipalKind,
}

impl AuthContext {
    /// Whether this caller has the permission.
    pub fn allows(&self, permission: Permission) -> bool {
        RbacPolicy::allows(self.role, permission)
    }
}

/// Which role has which permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RbacPolicy;

impl RbacPolicy {
    /// Whether `role` has `permission`, by the one table of the contract.
    pub const fn allows(role: Role, permission: Permission) -> bool {
        role.allows(permission)
    }
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect-test writes raw strings with hashes")]
mod tests;
