//! `/metrics` for Prometheus, text format 0.0.4.

use std::fmt::Write as _;

use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use claw_gateway::{Caller, access, query};
use claw_tools::registry;
use claw_tools::workloads::WorkloadState;

use super::rest::error_response;
use crate::ops::{BUCKETS_MS, OpsContext};

pub(super) async fn prometheus(State(ops): State<OpsContext>, Extension(caller): Extension<Caller>) -> Response {
    let def = registry::find("cluster_status").expect("in the registry");
    if let Err(refusal) = access::authorize(def, &caller) {
        return error_response(refusal.into());
    }
    let cluster = ops.control.snapshot();
    let status = query::status(&cluster, ops.control.now(), ops.control.journal_writable());
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, rows: &[(String, f64)]| {
        let mut add = || -> std::fmt::Result {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge")?;
            rows.iter().try_for_each(|(labels, value)| writeln!(text, "{name}{labels} {value}"))
        };
        add().expect("writing to a string succeeds");
    };
    let by = |label: &str, value: &str| format!("{{{label}=\"{value}\"}}");
    let n = &status.nodes;
    let offline = n.total - n.online - n.unreachable;
    gauge(
        "claw_nodes",
        "Nodes by link state.",
        &[
            (by("link", "online"), f64::from(n.online)),
            (by("link", "unreachable"), f64::from(n.unreachable)),
            (by("link", "enrolled"), f64::from(offline)),
        ],
    );
    let g = &status.gpus;
    gauge(
        "claw_gpus",
        "GPUs by use; free counts only what can be given now.",
        &[
            (by("use", "free"), f64::from(g.free)),
            (by("use", "held"), f64::from(g.held)),
            (by("use", "unhealthy"), f64::from(g.unhealthy)),
        ],
    );
    gauge("claw_gpus_total", "All GPUs.", &[(String::new(), f64::from(g.total))]);
    let workloads: Vec<_> =
        WorkloadState::ALL.iter().map(|s| (by("state", s.as_str()), f64::from(cluster.workloads.count(*s)))).collect();
    gauge("claw_workloads", "Workloads in memory by state.", &workloads);
    gauge("claw_journal_seq", "Number of the last durable event.", &[(String::new(), cluster.seq as f64)]);
    gauge(
        "claw_journal_writable",
        "1 if the journal can be written.",
        &[(String::new(), f64::from(u8::from(status.journal_writable)))],
    );
    gauge("claw_problems", "Problems that cluster_status lists.", &[(String::new(), status.problems.len() as f64)]);
    counters(&mut text, &ops).expect("writing to a string succeeds");
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Calls and how long changes took, since this process started.
fn counters(text: &mut String, ops: &OpsContext) -> std::fmt::Result {
    writeln!(text, "# HELP claw_calls_total Calls by operation and ending.\n# TYPE claw_calls_total counter")?;
    for ((tool, ending), n) in ops.tally.calls() {
        writeln!(text, "claw_calls_total{{tool=\"{tool}\",ending=\"{ending}\"}} {n}")?;
    }
    let name = "claw_submit_seconds";
    let submits = ops.tally.submits();
    writeln!(text, "# HELP {name} From a caller's change to the disk.\n# TYPE {name} histogram")?;
    let mut below = 0;
    for (bound_ms, n) in BUCKETS_MS.iter().zip(submits.buckets) {
        below += n;
        writeln!(text, "{name}_bucket{{le=\"{}\"}} {below}", *bound_ms as f64 / 1000.0)?;
    }
    writeln!(
        text,
        "{name}_bucket{{le=\"+Inf\"}} {}\n{name}_sum {}\n{name}_count {}",
        submits.count, submits.sum_s, submits.count
    )
}
