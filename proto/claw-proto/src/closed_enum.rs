//! One way to write a closed enum with a text form: JSON, schema, display and
//! the list of variants come from a single table.

/// Declares a closed enum whose variants have a text form.
#[macro_export]
macro_rules! closed_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, $crate::export::Serialize, $crate::export::Deserialize, $crate::export::JsonSchema)]
        #[serde(crate = "claw_proto::export::serde")]
        #[schemars(crate = "claw_proto::export::schemars", inline)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),* }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The text form, as in JSON.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),* } }
            /// The variant with this text form.
            pub fn from_text(text: &str) -> Option<Self> { match text { $($text => Some(Self::$variant),)* _ => None } }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
    };
}
