//! How many machines, and whether a count of GPUs is each one's.

use serde_json::json;

use crate::draft::Draft;
use crate::items::Kind;

use super::{Per, multiply};

/// "2 nodes with 8 H100 each", "4 nodes x 8 H200", "16 H100s over 2 nodes".
pub(super) fn read(draft: &mut Draft<'_, '_, '_>, per: Per) {
    let items = draft.items;
    let mut per = per;
    for i in 0..items.len() {
        if !items.is(i, "noun.node") {
            continue;
        }
        let mut k = i;
        while k > 0
            && (items.any(k - 1, &["of", "vendor.nvidia", "det.the", "times"])
                || items.at(k - 1).is_some_and(|item| {
                    matches!(item.kind, Kind::Gpu { .. })
                        || matches!(item.text.as_str(), "different" | "separate" | "full" | "whole" | "big" | "gpu")
                }))
        {
            k -= 1;
        }
        if let Some((nodes, end)) = behind(draft, i) {
            draft.set("nodes", json!(nodes), i..end);
            continue;
        }
        let Some(at) = k.checked_sub(1) else {
            continue;
        };
        // "two 8xH100 nodes": the number right before the GPUs is each node's.
        if draft.is_used(at)
            && let Some(before) = at.checked_sub(1)
            && let Some(nodes) = items.count(before).filter(|n| *n > 0 && !draft.is_used(before))
            && matches!(items.at(i - 1).map(|n| &n.kind), Some(Kind::Gpu { .. }))
        {
            draft.set("nodes", json!(nodes), before..before + 1);
            per = Per::Node;
            continue;
        }
        let Some(nodes) = items.count(at).filter(|_| !draft.is_used(at)) else {
            continue;
        };
        // "on node 3" and "1 GPU on one node if possible" state no number of nodes.
        if nodes == 0 {
            continue;
        }
        draft.set("nodes", json!(nodes), at..i + 1);
        // "2 nodes x 8", "2 nodes with 8 H100", "2 nodes of 8": the count is each node's.
        if counts_each(draft, i) {
            per = Per::Node;
        }
    }
    if per == Per::Node {
        multiply(draft);
    }
}

/// "nodes: 2", "nodes=2", "nodes 2, 8 H100 per node": a number behind the noun, and the item behind it.
fn behind(draft: &Draft<'_, '_, '_>, i: usize) -> Option<(u32, usize)> {
    let items = draft.items;
    let free = |k: usize| items.count(k).filter(|n| *n > 0 && !draft.is_used(k));
    if !items.list[i].text.ends_with('s') {
        return None;
    }
    let signed = items.punct(i + 1, ':') || items.at(i + 1).is_some_and(|n| n.text == "=");
    if let Some(nodes) = free(i + 2).filter(|_| signed) {
        return Some((nodes, i + 3));
    }
    let bare = items.ends_clause(i + 2) && !items.punct(i + 2, ':');
    free(i + 1).filter(|_| bare).map(|nodes| (nodes, i + 2))
}

/// Whether the count of GPUs that stands behind a number of nodes is each node's.
fn counts_each(draft: &Draft<'_, '_, '_>, i: usize) -> bool {
    let items = draft.items;
    let mut next = i + 1;
    while items.any(next, &["with", "of", "times", "each"])
        || items.punct(next, '×')
        || items.punct(next, ',')
        || items.punct(next, '(')
    {
        next += 1;
    }
    let linked = next > i + 1 && items.any(next - 1, &["with", "of", "times", "each"])
        || items.punct(next.saturating_sub(1), '×');
    let count_at = draft.given_by(&draft.path("gpu.count")).map(|range| range.start);
    // "4 nodes with 8 GPUs in total"
    let total = count_at.is_some_and(|at| (at..at + 5).any(|k| items.is(k, "per.total")));
    linked && !total && count_at.is_some_and(|start| start >= next && start <= next + 1)
}
