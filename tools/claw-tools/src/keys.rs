//! Operations on API keys.

use claw_proto::ids::KeyId;
use claw_proto::time::Timestamp;

use crate::access::{PrincipalKind, Role};

mutation_params! {
    /// Make a key. It is shown once.
    ApiKeyCreateParams {
        /// Principal that it speaks for.
        #[schemars(length(min = 1, max = 63))]
        principal: String,
        /// Role.
        role: Role,
        /// Who holds it; agent by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<PrincipalKind>,
        /// Valid for so many seconds; for ever if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 60, max = 315_360_000))]
        ttl_s: Option<u32>,
    }
}
mutation_params! {
    /// Revoke a key.
    ApiKeyRevokeParams {
        /// Which.
        key_id: KeyId,
    }
}
read_params! {
    /// Which keys.
    ApiKeyListParams {
        /// Revoked and expired ones too.
        all: bool,
    }
}
output! {
    /// One key; never its secret.
    ApiKeyView {
        /// Id.
        key_id: KeyId,
        /// Principal.
        principal: String,
        /// Role.
        role: Role,
        /// Who holds it.
        kind: PrincipalKind,
        /// When it was made.
        created_at: Timestamp,
        /// Not valid after.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
        /// Revoked.
        revoked: bool,
    }
}
output! {
    /// Keys.
    ApiKeyList {
        /// Rows.
        keys: Vec<ApiKeyView>,
        /// How many.
        total: u32,
    }
}
