//! Tables: columns apart by spaces, no lines, so that both people and `awk` read them.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde_json::{Map, Value};

use super::style::{Style, Tone, tone_of};
use super::{detail, safe};

/// Columns of the rows of a list, in reading order. A row may have more; they are shown when
/// they were asked for by `fields`, and by `--json`.
const COLUMNS: [(&str, &[&str]); 19] = [
    (
        "nodes",
        &[
            "name",
            "link",
            "schedulable",
            "gpus",
            "gpus_free",
            "cpu_cores_free",
            "memory_gib_free",
            "workloads",
            "simulated",
            "labels",
            "node_id",
        ],
    ),
    ("gpus", &["node", "index", "model", "memory_gib", "health", "nvlink_island", "held_by", "simulated", "uuid"]),
    (
        "workloads",
        &[
            "name",
            "state",
            "reason",
            "what",
            "node",
            "gpus",
            "attempt",
            "exit_code",
            "since",
            "simulated",
            "workload_id",
        ],
    ),
    (
        "queue",
        &[
            "position",
            "turn",
            "name",
            "owner",
            "tenant",
            "priority",
            "reason",
            "what",
            "gpus",
            "nodes",
            "room_from",
            "since",
            "workload_id",
        ],
    ),
    ("moments", &["after_s", "event", "name", "nodes", "imagined", "workload_id"]),
    ("waiting", &["name", "why", "workload_id"]),
    ("leaves", &["name", "owner", "gpus", "node", "workload_id"]),
    ("others", &["node_rank", "node", "gpus", "node_id"]),
    ("operations", &["at", "tool", "state", "summary", "principal", "operation_id"]),
    ("approvals", &["summary", "state", "tier", "requested_by", "expires_at", "diff_hash", "approval_id"]),
    ("events", &["seq", "at", "kind", "text", "principal", "reason"]),
    ("keys", &["principal", "role", "kind", "created_at", "expires_at", "revoked", "key_id"]),
    (
        "attempts",
        &["attempt", "node_rank", "node", "state", "reason", "exit_code", "signal", "started_at", "ended_at", "detail"],
    ),
    ("rejected", &["reason", "count", "nodes", "detail"]),
    ("blockers", &["name", "owner", "gpus", "node", "workload_id"]),
    ("would_start_if", &["change", "verified", "call"]),
    ("problems", &["code", "message", "workloads"]),
    ("diff", &["subject", "field", "from", "to"]),
    ("drift", &["subject", "field", "from", "to"]),
];

/// Rows of one kind under their heads; `name` is the field that holds them.
pub(crate) fn rows(name: &str, rows: &[Map<String, Value>], style: Style) -> String {
    let known = COLUMNS.iter().find(|(list, _)| *list == name).map_or(&[][..], |(_, columns)| columns);
    let here = |column: &str| rows.iter().any(|row| row.get(column).is_some_and(|v| !v.is_null()));
    let mut columns: Vec<&str> = known.iter().copied().filter(|column| here(column)).collect();
    // Rows with few fields were asked for by `fields`, or are of a kind without an order.
    let asked = rows.iter().all(|row| row.len() <= 4) || columns.is_empty();
    if asked {
        for key in rows.iter().flat_map(Map::keys) {
            if !columns.contains(&key.as_str()) && here(key) {
                columns.push(key);
            }
        }
    }
    let body = rows
        .iter()
        .map(|row| columns.iter().map(|column| detail::inline(row.get(*column).unwrap_or(&Value::Null))).collect());
    grid(&columns, body.collect(), style)
}

/// A table of texts.
pub(crate) fn grid(heads: &[&str], body: Vec<Vec<String>>, style: Style) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match style.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let head = |text: &str| Cell::new(text.to_uppercase().replace('_', " ")).add_attribute(Attribute::Bold);
    table.set_header(heads.iter().map(|text| head(text)));
    for row in body {
        table.add_row(row.iter().map(|text| cell(text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

fn cell(text: &str) -> Cell {
    let cell = Cell::new(safe(text));
    match tone_of(text) {
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Warn => cell.fg(Color::DarkYellow),
        Tone::Bad => cell.fg(Color::DarkRed),
        Tone::Plain => cell,
    }
}
