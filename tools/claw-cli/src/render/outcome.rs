//! What became of a change: effect, what is known, plan, place, assumptions, what next.

use claw_proto::ids::WorkloadId;
use claw_tools::access::Tier;
use claw_tools::outcome::{Assumption, Change, Credential, Outcome, PlanView};
use claw_tools::workloads::PlacementReport;
use serde_json::{Map, Value};

use super::page::Page;
use super::style::{Style, Tone, tone_of};
use super::{detail, inside, next_calls, safe, table};

/// Columns of the names of facts.
const FACT_WIDTH: usize = 10;

/// The whole answer of a change.
pub(super) fn outcome(outcome: &Outcome, style: Style) -> String {
    let mut page = Page::new(style);
    let effect = outcome.effect.as_str();
    let simulated = if outcome.simulated { style.toned(Tone::Warn, " [simulated]") } else { String::new() };
    page.line(&format!(
        "{}: {}{simulated}",
        style.toned(tone_of(effect), &effect.replace('_', " ")),
        safe(&outcome.summary)
    ));
    facts(outcome, &mut page, style);
    if let Some(made) = &outcome.credential {
        credential(made, &mut page);
    }
    if let Some(command) = &outcome.exec {
        inside::exec(command, &mut page, style);
    }
    if let Some(view) = &outcome.plan {
        page.line("");
        page.block(&plan(view, style), 0);
    }
    assumptions(&outcome.assumptions, &mut page, style);
    if let Some(Value::Object(spec)) = outcome.spec.as_ref().and_then(|spec| serde_json::to_value(spec).ok()) {
        page.section("Specification");
        page.block(&detail::fields(&spec, style), 1);
    }
    if let Some(report) = &outcome.placement {
        placement(report, &mut page, style);
    }
    next_calls(&outcome.next, &mut page);
    page.finish()
}

/// The handles, and what was observed.
fn facts(outcome: &Outcome, page: &mut Page, style: Style) {
    let mut fact = |name: &str, value: Option<String>| page.pair(name, FACT_WIDTH, &value.unwrap_or_default());
    fact("workload", outcome.workload_id.map(|id| id.to_string()));
    fact("node", outcome.node_id.map(|id| id.to_string()));
    fact("operation", outcome.operation_id.map(|id| id.to_string()));
    let observed = outcome.observed.as_ref().map(|seen| {
        let state = style.toned(tone_of(&seen.state), &safe(&seen.state));
        format!("{state} since {}", detail::short_time(&seen.at.to_string()))
    });
    fact("observed", observed);
    let twin = outcome.possible_duplicate_of;
    fact("looks like", twin.map(|id| format!("{id}, which did the same a moment ago")));
}

fn credential(made: &Credential, page: &mut Page) {
    page.section("Credential (shown only now)");
    page.pair("id", FACT_WIDTH, &safe(&made.id));
    let secret = made.secret.as_deref();
    page.pair("secret", FACT_WIDTH, &safe(secret.unwrap_or("shown when it was made, and not again")));
    page.pair("use", FACT_WIDTH, &safe(&made.usage));
}

/// A plan: what would change, who is hit, how it is taken back, and its hash.
pub(crate) fn plan(plan: &PlanView, style: Style) -> String {
    let tier = match plan.tier {
        Tier::Read => "reads",
        Tier::Reversible => "reversible",
        Tier::Disruptive => "disruptive",
        Tier::Irreversible => "irreversible or fleet-wide",
    };
    let mut page = Page::new(style);
    page.section(&format!("Plan {} · {} · tier {} ({tier})", plan.plan_id, safe(&plan.tool), plan.tier));
    if plan.diff.is_empty() {
        page.line("  nothing would change");
    } else {
        page.block(&changes(&plan.diff, style), 1);
    }
    let list = |ids: &[WorkloadId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !plan.evicts.is_empty() {
        page.pair("evicts", FACT_WIDTH, &style.toned(Tone::Bad, &list(&plan.evicts)));
    }
    let lost = match plan.not_restored.as_str() {
        "" => String::new(),
        lost => format!("; not restored: {}", safe(lost)),
    };
    page.pair("undo", FACT_WIDTH, &format!("{}{lost}", plan.undo));
    let approval = plan.approval_id.map(|id| format!("{id} (needed before it is applied)"));
    page.pair("approval", FACT_WIDTH, &approval.unwrap_or_default());
    page.pair("expires", FACT_WIDTH, &detail::short_time(&plan.expires_at.to_string()));
    page.pair("hash", FACT_WIDTH, &style.heading(&safe(&plan.diff_hash)));
    page.finish()
}

fn changes(diff: &[Change], style: Style) -> String {
    let side = |text: &str| {
        if text.is_empty() { "–".to_owned() } else { text.to_owned() }
    };
    let row = |c: &Change| vec![c.subject.clone(), c.field.clone(), side(&c.from), "→".to_owned(), side(&c.to)];
    table::grid(&["subject", "field", "from", "", "to"], diff.iter().map(row).collect(), style)
}

fn assumptions(list: &[Assumption], page: &mut Page, style: Style) {
    if list.is_empty() {
        return;
    }
    let row = |a: &Assumption| vec![a.field.clone(), detail::inline(&a.value), a.why.clone()];
    page.section("Assumed");
    page.block(&table::grid(&["field", "value", "why"], list.iter().map(row).collect(), style), 1);
}

/// Why here, and why not elsewhere.
fn placement(report: &PlacementReport, page: &mut Page, style: Style) {
    page.section("Placement");
    page.line(&format!("  {}", safe(&report.summary)));
    if let Some(chosen) = &report.chosen {
        if !report.summary.contains(&chosen.why) {
            page.line(&format!("  on {}: {}", safe(&chosen.node), safe(&chosen.why)));
        }
        let gpus: Vec<String> = chosen.gpus.iter().map(ToString::to_string).collect();
        let island = chosen.nvlink_island.map(|n| format!(" in NVLink island {n}"));
        if !gpus.is_empty() {
            page.line(&format!("  GPUs{}: {}", island.unwrap_or_default(), safe(&gpus.join(", "))));
        }
    }
    if let Some(other) = &report.runner_up {
        page.line(&format!("  next best {}: {}", safe(&other.node), safe(&other.why_not)));
    }
    let row = |row| serde_json::to_value(row).ok()?.as_object().cloned();
    let rows: Vec<Map<String, Value>> = report.rejected.iter().filter_map(row).collect();
    if !rows.is_empty() {
        page.block(&table::rows("rejected", &rows, style), 1);
    }
}
