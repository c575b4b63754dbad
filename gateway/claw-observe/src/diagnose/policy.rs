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

    /// What it does about a root.
    pub fn choose(&self, asked: &Asked<'_>) -> Choice {
        let (first, is_own, why) = self.first(asked);
        let spent = self.remediations.is_some_and(|most| asked.remediations >= most);
        let action = match self.then {
            Some(then) if spent && is_own && first.is_hardware() => then,
            _ => first,
        };
        Choice { action, is_own, why }
    }

    /// Before it is asked how often that was done already.
    fn first(&self, asked: &Asked<'_>) -> (Action, bool, Option<String>) {
        let ours = |why: String| (asked.ours, false, Some(why));
        if self.name == Self::ours().name {
            return (asked.ours, true, None);
        }
        let Code::Xid(number) = asked.root else {
            return ours(format!("{} speaks of Xids only; ours chose", self.name));
        };
        if self.ignore.contains(number) {
            return (Action::Ignore, true, None);
        }
        if let Some(own) = self.own.get(&number.to_string()) {
            return (*own, true, None);
        }
        // A number that no table knows calls no hands, whoever's list is short.
        if !asked.known {
            let said = self.other.map_or(String::new(), |other| format!(" ({other} for any other number)"));
            return ours(format!(
                "{} does not list {}{said}; no table knows it, and ours chose",
                self.name, asked.root
            ));
        }
        match self.other {
            Some(other) if asked.severe => (other, true, None),
            Some(_) => ours(format!("{} has no opinion of its own on {}; ours chose", self.name, asked.root)),
            None => (asked.ours, true, None),
        }
    }
}

/// What a policy is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The code of the cause.
    pub root: &'a Code,
    /// What ours does about it.
    pub ours: Action,
    /// Is it more than a note?
    pub severe: bool,
    /// Does any table know the code?
    pub known: bool,
    /// Resets and reboots for it on the same unit so far, within [`Policy::within_days`].
    pub remediations: u32,
}

/// What a policy does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The action.
    pub action: Action,
    /// The policy chose it; without an opinion of its own, ours did.
    pub is_own: bool,
    /// Why ours did.
    pub why: Option<String>,
}
