//! Operations on secrets: values go in and never come out again, only to the
//! workloads that name them.

use std::collections::BTreeSet;
use std::fmt;

use claw_proto::closed_enum;
use claw_proto::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Role;

/// Longest value as text, characters: 64 KiB as base64.
const VALUE_CHARS_MAX: u32 = 87_384;

/// A value that must not be shown. Its `Debug` is redacted; it is written only
/// where a call's arguments are hashed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who seals it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl JsonSchema for SecretText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretText".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // What is `writeOnly` is never repeated in a refusal.
        schemars::json_schema!({
            "type": "string", "minLength": 1, "maxLength": VALUE_CHARS_MAX, "writeOnly": true
        })
    }
}

closed_enum! {
    /// How a value is written.
    SecretEncoding {
        /// As it is.
        Text = "text",
        /// As base64, for bytes.
        Base64 = "base64"
    }
}

mutation_params! {
    /// Store a secret, or replace its value.
    SecretSetParams {
        /// Handle, such as `hf-token` or `registry/prod`: up to three words divided by `/`.
        #[schemars(length(min = 1, max = 128))]
        handle: String,
        /// The value, at most 64 KiB. For an image's registry: `username:password`.
        value: SecretText,
        /// How it is written; `text` by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<SecretEncoding>,
        /// Principals besides you whose workloads may use it.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        #[schemars(length(max = 64))]
        used_by: BTreeSet<String>,
    }
}
mutation_params! {
    /// Delete a secret.
    SecretDeleteParams {
        /// Which.
        handle: String,
    }
}
read_params! {
    /// Which secrets.
    SecretListParams {
        /// Only handles that contain this.
        #[serde(skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
    }
}

/// Who may have a secret in a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessPolicy {
    /// Who stored it; only they and admins replace or delete it.
    pub owner: String,
    /// Others whose workloads may use it.
    pub used_by: BTreeSet<String>,
}

impl AccessPolicy {
    /// Workloads of this principal may use it.
    pub fn may_use(&self, principal: &str, role: Role) -> bool {
        role == Role::Admin || self.owner == principal || self.used_by.contains(principal)
    }

    /// This principal may replace and delete it.
    pub fn may_change(&self, principal: &str, role: Role) -> bool {
        role == Role::Admin || self.owner == principal
    }
}

output! {
    /// One secret; never its value.
    SecretView {
        /// Handle.
        handle: String,
        /// Who stored it.
        owner: String,
        /// Others whose workloads may use it.
        used_by: BTreeSet<String>,
        /// How often its value was set.
        version: u32,
        /// When its value was last set.
        set_at: Timestamp,
        /// Workloads that name it and have not ended.
        workloads: u32,
    }
}
output! {
    /// Secrets, by handle.
    SecretList {
        /// Rows, at most 200.
        secrets: Vec<SecretView>,
        /// How many match in all.
        total: u32,
        /// There are more.
        truncated: bool,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::registry::Call;

    #[test]
    fn a_value_is_not_repeated_whatever_is_wrong_with_it() {
        let long = "hunter2".repeat(20_000);
        let wrong = [
            json!({ "handle": "a", "value": long }),
            json!({ "handle": "a", "value": ["hunter2"] }),
            json!({ "handle": "a", "value": "hunter2", "valu": "hunter2" }),
            json!({ "value": "hunter2" }),
            json!("hunter2"),
            json!(["hunter2"]),
        ];
        for args in wrong {
            let refusal = Call::parse("secret_set", args).unwrap_err();
            let said = serde_json::to_string(&refusal).unwrap();
            assert!(!said.contains("hunter2"), "{said}");
        }
        let call = Call::parse("secret_set", json!({ "handle": "a", "value": "hunter2" })).unwrap();
        assert!(!format!("{call:?}").contains("hunter2"));
    }
}
