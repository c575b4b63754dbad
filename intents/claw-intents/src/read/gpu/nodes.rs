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
        // "nodes: 2", "nodes=2"
        let signed = items.punct(i + 1, ':') || items.at(i + 1).is_some_and(|n| n.text == "=");
        if signed
            && items.list[i].text.ends_with('s')
            && let Some(nodes) = items.count(i + 2).filter(|n| *n > 0 && !draft.is_used(i + 2))
        {
            draft.set("nodes", json!(nodes), i..i + 3);
            continue;
        }
        let Some(at) = k.checked_sub(1) else {
            continue;
        };
        let Some(nodes) = items.count(at).filter(|_| !draft.is_used(at)) else {
            continue;
        };
        // "on node 3" and "1 GPU on one node if possible" state no number of nodes.
        if nodes == 0 {
            continue;
        }
        draft.set("nodes", json!(nodes), at..i + 1);
        // "2 nodes x 8", "2 nodes with 8 H100", "2 nodes of 8": the count is each node's.
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
        if linked && count_at.is_some_and(|start| start >= next && start <= next + 1) {
            per = Per::Node;
        }
    }
    if per == Per::Node {
        multiply(draft);
    }
}
