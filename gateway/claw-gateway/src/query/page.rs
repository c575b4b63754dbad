//! Pages, fields and cursors of lists.

use claw_tools::refusal::{ErrorCode, Refusal};
use serde::Serialize;
use serde_json::{Map, Value};

/// Rows of a page unless asked otherwise.
const LIMIT_DEFAULT: usize = 20;

/// One page of a list.
pub(super) struct Page {
    pub(super) rows: Vec<Value>,
    pub(super) total: u32,
    pub(super) truncated: bool,
    pub(super) next_cursor: Option<String>,
}

/// What the caller asked of a list.
pub(super) struct Asked<'a> {
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<&'a str>,
    pub(super) fields: &'a [String],
    /// Always kept, whatever the fields.
    pub(super) id_field: &'static str,
    pub(super) revision: u64,
}

/// Cuts the page after the cursor out of rows that are ordered by their key.
/// A cursor is the key of the last row and the revision it was read at; rows
/// that came later have later keys, so nothing is skipped or repeated.
pub(super) fn page<T: Serialize>(rows: Vec<(String, T)>, asked: &Asked<'_>) -> Result<Page, Refusal> {
    let total = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let after = asked.cursor.map(parse_cursor).transpose()?;
    let limit = asked.limit.map_or(LIMIT_DEFAULT, |l| l as usize).clamp(1, 100);
    let mut rest: Vec<(String, T)> =
        rows.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|a| key.as_str() > a.as_str())).collect();
    let truncated = rest.len() > limit;
    rest.truncate(limit);
    let next_cursor = if truncated { rest.last().map(|(key, _)| format!("{}:{key}", asked.revision)) } else { None };
    let mut out = Vec::with_capacity(rest.len());
    for (_, row) in rest {
        out.push(project(serde_json::to_value(row).unwrap_or(Value::Null), asked.fields, asked.id_field)?);
    }
    Ok(Page { rows: out, total, truncated, next_cursor })
}

fn parse_cursor(cursor: &str) -> Result<String, Refusal> {
    match cursor.split_once(':') {
        Some((revision, key)) if revision.parse::<u64>().is_ok() => Ok(key.to_owned()),
        _ => Err(Refusal::new(ErrorCode::InvalidArgument, "this is not a next_cursor of an earlier answer")
            .with_field("cursor", cursor)),
    }
}

fn project(row: Value, fields: &[String], id_field: &str) -> Result<Value, Refusal> {
    if fields.is_empty() {
        return Ok(row);
    }
    let Value::Object(map) = row else {
        return Ok(row);
    };
    if let Some(unknown) = fields.iter().find(|f| !map.contains_key(*f)) {
        // Optional fields are absent where they are empty; only what no row could have is wrong.
        let optional = ["node", "nodes", "exit_code", "held_by", "shares", "slice", "nvlink_island"];
        if !optional.contains(&unknown.as_str()) {
            let known: Vec<String> = map.keys().cloned().collect();
            return Err(Refusal::new(ErrorCode::InvalidArgument, format!("rows have no field {unknown:?}"))
                .with_field("fields", unknown.clone())
                .with_nearest(claw_tools::nearest::nearest(unknown, known.iter().map(String::as_str)))
                .with_allowed(known));
        }
    }
    let kept: Map<String, Value> = map.into_iter().filter(|(k, _)| k == id_field || fields.contains(k)).collect();
    Ok(Value::Object(kept))
}
