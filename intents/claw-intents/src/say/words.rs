//! Numbers, times, money and quotes, each in the form that is read as the same value.

use claw_proto::spec::{AutoscaleMetric, Budget, BudgetPer, BudgetUnit};
use serde::Serialize;

use crate::answer::QuerySubject;

/// Clauses as one sentence without its end.
pub(super) fn list(clauses: &[String]) -> String {
    clauses.join(", ")
}

/// A name in quotation marks, so that it is nothing but a name.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// Any text in marks that it does not contain itself.
pub(super) fn quoted_any(text: &str) -> String {
    [('"', '"'), ('“', '”'), ('«', '»'), ('`', '`')]
        .into_iter()
        .find(|(open, close)| !text.contains([*open, *close]))
        .map_or_else(|| quoted(text), |(open, close)| format!("{open}{text}{close}"))
}

/// JSON without a quotation mark inside of its strings: each string is one quote of the sentence.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    let text = serde_json::to_string(value).ok()?;
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('"')) => out.push_str("\\u0022"),
            ('\\', Some('\\')) => out.push_str("\\u005c"),
            ('\\', Some(next)) => out.extend(['\\', next]),
            (c, _) => out.push(c),
        }
    }
    Some(out)
}

/// A number in digits; of all decimals the shortest that is the same number.
pub(super) fn number(n: f64) -> String {
    format!("{n}")
}

/// A time in the largest unit that leaves no rest.
pub(super) fn seconds(s: u64) -> String {
    let (n, unit) = [(86_400, "day"), (3_600, "hour"), (60, "minute")]
        .into_iter()
        .find(|(per, _)| s > 0 && s.is_multiple_of(*per))
        .map_or((s, "second"), |(per, unit)| (s / per, unit));
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

/// A sum of money and what it is per.
pub(super) fn money(budget: &Budget) -> String {
    let unit = match budget.unit {
        BudgetUnit::Molt => "MOLT",
        BudgetUnit::Usd => "USD",
    };
    let per = match budget.per {
        None => "",
        Some(BudgetPer::GpuHour) => " per GPU hour",
        Some(BudgetPer::Hour) => " per hour",
        Some(BudgetPer::Total) => " in total",
    };
    format!("{} {unit}{per}", number(budget.amount))
}

/// A metric by its name.
pub(super) const fn metric(metric: AutoscaleMetric) -> &'static str {
    match metric {
        AutoscaleMetric::GpuTemperature => "GPU temperature",
        AutoscaleMetric::GpuUtilization => "GPU utilization",
        AutoscaleMetric::GpuMemoryUsed => "GPU memory usage",
        AutoscaleMetric::GpuPower => "GPU power draw",
        AutoscaleMetric::NodeUnreachable => "a node is unreachable",
        AutoscaleMetric::QueueDepth => "queue depth",
        AutoscaleMetric::ErrorRate => "error rate",
        AutoscaleMetric::LatencyP99 => "p99 latency",
    }
}

/// What is read, by its name.
pub(super) const fn subject(subject: QuerySubject) -> &'static str {
    match subject {
        QuerySubject::Status => "status",
        QuerySubject::Nodes => "nodes",
        QuerySubject::Gpus => "GPUs",
        QuerySubject::Workloads => "workloads",
        QuerySubject::Deployments => "deployments",
        QuerySubject::Logs => "logs",
        QuerySubject::Metrics => "metrics",
        QuerySubject::Alerts => "alerts",
        QuerySubject::Costs => "costs",
        QuerySubject::Events => "events",
        QuerySubject::Market => "market offers",
        QuerySubject::Audit => "audit log",
    }
}
