//! Published policies that disagree about the same codes, and ours.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::code::{Action, Code};

/// What a policy does with Xids.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name on the command line.
    pub name: String,
    /// What it is, in words.
    pub about: String,
    /// Xids that it passes over.
    #[serde(default)]
    pub ignore: Vec<u32>,
    /// Its action for every other critical Xid; none: as the catalog says.
    #[serde(default)]
    pub other: Option<Action>,
    /// Xids with an action of their own.
    #[serde(default)]
    pub own: BTreeMap<String, Action>,
    /// After so many remediations of a unit or node within `within_days`, `then`.
    #[serde(default)]
    pub remediations: Option<u32>,
    /// Days over which remediations count; none: for ever.
    #[serde(default)]
    pub within_days: Option<u32>,
    /// What follows then.
    #[serde(default)]
    pub then: Option<Action>,
    /// Where it is written, with date.
    pub source: String,
}

#[derive(Deserialize)]
struct File {
    policy: Vec<Policy>,
}

/// No policy of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no policy is called {name:?}; there are {}", known.join(", "))]
pub struct Unknown {
    /// What was asked for.
    pub name: String,
    /// What there is.
    pub known: Vec<String>,
}

/// All policies, ours first.
pub fn all() -> &'static [Policy] {
    static POLICIES: LazyLock<Vec<Policy>> = LazyLock::new(|| {
        let file: File =
            toml::from_str(include_str!("../../rules/policies.toml")).expect("the built-in policies parse");
        file.policy
    });
    &POLICIES
}

impl Policy {
    /// Ours: the catalog, the driver's own verdict, and never hardware for a program's fault.
    pub fn ours() -> &'static Self {
        all().first().expect("the built-in policies are not empty")
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// [`Unknown`] with the names there are.
    pub fn named(name: &str) -> Result<&'static Self, Unknown> {
        let known = || all().iter().map(|policy| policy.name.clone()).collect();
        all().iter().find(|policy| policy.name == name).ok_or_else(|| Unknown { name: name.to_owned(), known: known() })
    }

    /// What it does about a root for which ours says `ours`, after `remediations` on the same unit.
    pub fn action(&self, root: &Code, ours: Action, severe: bool, remediations: u32) -> Action {
        let Code::Xid(number) = root else { return ours };
        let first = if self.ignore.contains(number) {
            Action::Ignore
        } else if let Some(own) = self.own.get(&number.to_string()) {
            *own
        } else if severe {
            self.other.unwrap_or(ours)
        } else {
            ours
        };
        let spent = self.remediations.is_some_and(|most| remediations >= most);
        match self.then {
            Some(then) if spent && first.is_hardware() => then,
            _ => first,
        }
    }
}
