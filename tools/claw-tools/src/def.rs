//! The definition of one operation.

use claw_proto::closed_enum;
use serde_json::Value;

use crate::access::{Permission, Tier};

closed_enum! {
    /// Groups of operations, each an MCP endpoint of its own.
    Toolset { Fleet = "fleet", Workloads = "workloads", Observe = "observe", Security = "security", Admin = "admin" }
}

closed_enum! {
    /// How an operation is undone.
    UndoClass {
        /// The inverse restores all.
        Exact = "exact",
        /// The inverse restores what it can and says what not.
        Compensating = "compensating",
        /// Cannot be undone.
        None = "none"
    }
}

/// One operation, as every face sees it.
#[derive(Debug, Clone, Copy)]
pub struct OpDef {
    /// `noun_verb`, at most 40 characters.
    pub name: &'static str,
    /// Short title for lists.
    pub title: &'static str,
    /// When to use it (first sentence) and what it answers.
    pub doc: &'static str,
    /// Needed permission.
    pub permission: Permission,
    /// Least tier; the effect can raise it.
    pub tier: Tier,
    /// Changes nothing.
    pub read_only: bool,
    /// May end or remove something.
    pub destructive: bool,
    /// The same call again changes nothing more.
    pub idempotent: bool,
    /// Group.
    pub toolset: Toolset,
    /// Listed at `/mcp` itself.
    pub core: bool,
    /// How it is undone.
    pub undo: UndoClass,
    /// Schema of the parameters, as advertised.
    pub params_schema: fn() -> Value,
    /// Schema of the output, as advertised.
    pub output_schema: fn() -> Value,
}

impl OpDef {
    /// `claw <noun> <verb>`: the first word, and the others joined by dashes.
    pub fn cli_path(&self) -> (String, Option<String>) {
        match self.name.split_once('_') {
            None => (self.name.to_owned(), None),
            Some((noun, verb)) => (noun.to_owned(), Some(verb.replace('_', "-"))),
        }
    }
}
