//! Which tools an endpoint lists, and the three that reach all others.

use std::borrow::Cow;
use std::sync::Arc;

use claw_tools::def::{OpDef, Toolset};
use claw_tools::nearest::nearest;
use claw_tools::outcome::clip;
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::registry::{self, OPERATIONS};
use claw_tools::schema::advertised;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// Finds operations.
pub(super) const SEARCH: &str = "tool_search";
/// Shows one.
pub(super) const DESCRIBE: &str = "tool_describe";
/// Calls one.
pub(super) const CALL: &str = "tool_call";

/// What an endpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `/mcp`: the core set.
    Core,
    /// `/mcp/x/<toolset>`.
    Toolset(Toolset),
    /// `/mcp/readonly`: reads and nothing else, whatever the key may do.
    ReadOnly,
}

impl Scope {
    /// Every endpoint.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Core, Self::ReadOnly];
        all.extend(Toolset::ALL.iter().copied().map(Self::Toolset));
        all
    }

    /// Where it is served.
    pub fn path(self) -> String {
        match self {
            Self::Core => "/mcp".into(),
            Self::Toolset(toolset) => format!("/mcp/x/{toolset}"),
            Self::ReadOnly => "/mcp/readonly".into(),
        }
    }

    fn lists(self, op: &OpDef) -> bool {
        match self {
            Self::Core => op.core,
            Self::Toolset(toolset) => op.toolset == toolset,
            Self::ReadOnly => op.read_only,
        }
    }

    /// Whether an operation may be called here at all.
    pub(super) fn permits(self, op: &OpDef) -> Result<(), Refusal> {
        if self == Self::ReadOnly && !op.read_only {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                format!("{} changes something; this endpoint only reads", op.name),
            )
            .with_allowed(["/mcp".to_owned()]));
        }
        Ok(())
    }

    /// The tools that are listed here, always in the same order.
    pub(crate) fn tools(self) -> Vec<Tool> {
        let mut tools: Vec<Tool> = OPERATIONS.iter().filter(|op| self.lists(op)).map(to_tool).collect();
        tools.extend([search_tool(), describe_tool(), call_tool(self == Self::ReadOnly)]);
        tools
    }
}

fn object(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(map) => Arc::new(map),
        _ => Arc::new(JsonObject::new()),
    }
}

fn to_tool(op: &OpDef) -> Tool {
    let mut annotations = ToolAnnotations::default();
    annotations.read_only_hint = Some(op.read_only);
    annotations.open_world_hint = Some(false);
    if !op.read_only {
        annotations.destructive_hint = Some(op.destructive);
        annotations.idempotent_hint = Some(op.idempotent);
    }
    Tool::new(op.name, op.doc, object((op.params_schema)()))
        .with_title(op.title)
        .with_raw_output_schema(object((op.output_schema)()))
        .with_annotations(annotations)
}

/// One of the three tools that reach all operations.
fn helper<P: JsonSchema>(name: &'static str, title: &str, doc: &'static str, read_only: bool) -> Tool {
    let mut annotations = ToolAnnotations::default();
    annotations.read_only_hint = Some(read_only);
    annotations.open_world_hint = Some(false);
    if !read_only {
        annotations.destructive_hint = Some(true);
        annotations.idempotent_hint = Some(false);
    }
    let schema = object(advertised::<P>());
    Tool::new(Cow::Borrowed(name), Cow::Borrowed(doc), schema).with_title(title).with_annotations(annotations)
}

/// Arguments of `tool_search`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    /// What it should do, in a few words.
    #[schemars(length(max = 200))]
    pub(super) query: String,
    /// Most operations that are shown, 8 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 50))]
    pub(super) limit: Option<u32>,
}

/// Arguments of `tool_describe`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Describe {
    /// Name of the operation.
    #[schemars(length(max = 100))]
    pub(super) name: String,
}

/// Arguments of `tool_call`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Inner {
    /// Name of the operation.
    #[schemars(length(max = 100))]
    pub(super) name: String,
    /// Its arguments.
    #[serde(default)]
    pub(super) args: JsonObject,
}

fn search_tool() -> Tool {
    helper::<Search>(
        SEARCH,
        "Find an operation",
        "Find operations by what they do; also those that are not listed here. Next: tool_describe.",
        true,
    )
}

fn describe_tool() -> Tool {
    helper::<Describe>(
        DESCRIBE,
        "Describe an operation",
        "The schema, permission, tier and undo of one operation. Next: tool_call.",
        true,
    )
}

fn call_tool(read_only: bool) -> Tool {
    helper::<Inner>(
        CALL,
        "Call an operation",
        "Call any operation by name with its arguments, under the same checks as if it were listed.",
        read_only,
    )
}

/// The refusal for a name that is neither an operation nor one of the three.
pub(super) fn unknown(name: &str) -> Refusal {
    let refusal = registry::unknown_tool(name);
    if refusal.did_you_mean.is_some() {
        return refusal;
    }
    refusal.with_nearest(nearest(name, [SEARCH, DESCRIBE, CALL]))
}

/// Ranks operations by the words of a query.
pub(super) fn search(scope: Scope, query: &str, limit: usize) -> Value {
    let words: Vec<String> =
        query.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() > 1).map(str::to_owned).collect();
    let score = |op: &OpDef| {
        let (name, text) = (op.name.replace('_', " "), format!("{} {}", op.title, op.doc).to_lowercase());
        words
            .iter()
            .map(|w| usize::from(name.contains(w.as_str())) * 5 + usize::from(text.contains(w.as_str())))
            .sum::<usize>()
    };
    let mut found: Vec<(usize, &OpDef)> = OPERATIONS
        .iter()
        .filter(|op| scope.permits(op).is_ok())
        .map(|op| (score(op), op))
        .filter(|(s, _)| *s > 0)
        .collect();
    found.sort_by_key(|(score, op)| (std::cmp::Reverse(*score), op.name));
    let rows: Vec<Value> = found
        .iter()
        .take(limit)
        .map(|(_, op)| json!({ "name": op.name, "title": op.title, "doc": op.doc, "toolset": op.toolset }))
        .collect();
    json!({ "query": clip(query, 100), "total": found.len(), "operations": rows })
}

/// One operation, whole, if it may be called here; or one of the three.
pub(super) fn describe(scope: Scope, name: &str) -> Result<Value, Refusal> {
    if let Some(tool) =
        scope.tools().into_iter().find(|tool| tool.name == name && [SEARCH, DESCRIBE, CALL].contains(&name))
    {
        return Ok(
            json!({ "name": name, "title": tool.title, "doc": tool.description, "input_schema": tool.input_schema }),
        );
    }
    let op = registry::find(name).ok_or_else(|| unknown(name))?;
    scope.permits(op)?;
    Ok(json!({
        "name": op.name,
        "title": op.title,
        "doc": op.doc,
        "permission": op.permission,
        "tier": op.tier,
        "undo": op.undo,
        "read_only": op.read_only,
        "destructive": op.destructive,
        "toolset": op.toolset,
        "input_schema": (op.params_schema)(),
        "output_schema": (op.output_schema)(),
    }))
}
