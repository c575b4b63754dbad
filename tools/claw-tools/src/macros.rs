//! Macros that keep an operation's definition in one place.

/// Declares the parameters of a mutating operation: the given fields and the
/// four that every mutation takes.
macro_rules! mutation_params {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $ty,)*
            /// `plan` shows what would happen and stores it; `apply` does it (default).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub mode: Option<$crate::outcome::Mode>,
            /// Your key for this intention: a retry with the same key and arguments has one effect.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(min = 1, max = 128))]
            pub request_id: Option<String>,
            /// Why, for the audit.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(max = 500))]
            pub reason: Option<String>,
            /// Wait up to so many seconds for the observed result.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(max = 300))]
            pub wait_s: Option<u32>,
        }
        impl $name {
            /// The four common fields.
            pub fn mutation(&self) -> $crate::outcome::Mutation {
                $crate::outcome::Mutation {
                    mode: self.mode.unwrap_or($crate::outcome::Mode::Apply),
                    request_id: self.request_id.clone(),
                    reason: self.reason.clone(),
                    wait_s: self.wait_s.unwrap_or(0),
                }
            }
        }
    };
}

/// Declares a struct of read parameters, all optional.
macro_rules! read_params {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
    };
}

/// Declares an output struct.
macro_rules! output {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
    };
}
