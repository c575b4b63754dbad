//! Saying it back: an intent as one English sentence that the engine reads as
//! the same intent, so that a person approves what the machine understood.
//!
//! Names, images and other free text stand in quotes, so that none of their
//! words is read as an order or a field. Nothing is taken on trust: what the
//! engine does not read back as the same intent is not said at all.

use crate::answer::{Answer, Comparison, Environment, Intent, QueryFilter, Rollout, Symptom, Target, TargetKind};
use crate::catalog::Catalog;
use crate::context::Context;

mod words;
mod workload;

use words::{list, metric, number, quoted, quoted_any, seconds};

/// The sentence for an intent, judged against what the engine may look up.
///
/// None where the intent has a field that no words of the grammar say, such as
/// a name with a quotation mark in it, or one that this context contradicts.
pub(crate) fn say(intent: &Intent, context: &Context, catalog: &Catalog) -> Option<String> {
    let sentence = sentence(intent)?;
    match crate::parse(&sentence, context, catalog) {
        Answer::Intent(understood) if understood.intent == *intent => Some(sentence),
        Answer::Intent(_) | Answer::Question(_) | Answer::Refusal { .. } => None,
    }
}

/// The sentence, before it is tried.
pub(crate) fn sentence(intent: &Intent) -> Option<String> {
    let clauses = match intent {
        Intent::Run { workload } => workload::launched("Run", workload),
        Intent::Deploy { workload, deployment, strategy, canary_percent, environment } => {
            let mut clauses = workload::launched("Deploy", workload);
            clauses.extend(deployment.as_deref().map(|name| format!("as deployment {}", quoted(name))));
            clauses.extend(environment.map(|e| environment_words(e).to_owned()));
            clauses.extend(rollout(*strategy, *canary_percent));
            clauses
        }
        Intent::Update { deployment, changes, strategy, canary_percent } => {
            let mut clauses = vec![format!("Update deployment {}", quoted(deployment))];
            clauses.extend(rollout(*strategy, *canary_percent));
            clauses.extend(workload::clauses(changes));
            clauses
        }
        Intent::Scale { .. }
        | Intent::Stop { .. }
        | Intent::Rollback { .. }
        | Intent::Drain { .. }
        | Intent::Undrain { .. } => control(intent)?,
        Intent::Diagnose { target, symptom } => diagnosis(target, *symptom)?,
        Intent::Query { subject, filter, limit } => {
            let mut clauses = vec![format!("Show the {}", words::subject(*subject))];
            clauses.extend(filters(filter));
            clauses.extend(limit.map(|n| format!("limit {n}")));
            clauses
        }
        Intent::Alert { metric: watched, op, threshold, for_s, filter } => {
            let mut first = format!("Alert me when {}", metric(*watched));
            if let (Some(op), Some(threshold)) = (op, threshold) {
                let side = if *op == Comparison::Above { "above" } else { "below" };
                first = format!("{first} is {side} {}", number(*threshold));
            }
            let mut clauses = vec![first];
            clauses.extend(for_s.map(|s| format!("for {}", seconds(s))));
            clauses.extend(filters(filter));
            clauses
        }
        Intent::Bid { gpu, duration_s, budget, workload } => {
            let mut clauses = vec![format!("Bid {}", words::money(budget))];
            clauses.extend(gpu.as_ref().map(workload::gpus).unwrap_or_default());
            clauses.extend(workload.as_ref().and_then(|w| w.model.as_ref()).map(|model| format!("for {model}")));
            clauses.extend(duration_s.map(|s| format!("for {}", seconds(s))));
            clauses
        }
        Intent::Offer { node, gpu, budget, duration_s } => {
            let mut clauses = vec![format!("Offer node {} at {}", quoted(node), words::money(budget))];
            clauses.extend(gpu.as_ref().map(workload::gpus).unwrap_or_default());
            clauses.extend(duration_s.map(|s| format!("for {}", seconds(s))));
            clauses
        }
    };
    Some(format!("{}.", list(&clauses)))
}

/// Orders to things that are there.
fn control(intent: &Intent) -> Option<Vec<String>> {
    Some(match intent {
        Intent::Scale { deployment, replicas, autoscale } => match (replicas, autoscale) {
            (Some(n), None) => vec![format!("Scale deployment {} to {n} replicas", quoted(deployment))],
            (None, Some(rule)) => {
                vec![format!("Scale deployment {}, {}", quoted(deployment), workload::autoscale(rule))]
            }
            _ => return None,
        },
        Intent::Stop { workload_id, deployment, graceful, grace_s } => {
            let thing = match (workload_id, deployment) {
                (Some(id), None) => format!("job {}", quoted(id)),
                (None, Some(name)) => format!("deployment {}", quoted(name)),
                _ => return None,
            };
            let mut clauses = vec![format!("Stop {thing}")];
            clauses.extend(graceful.map(|yes| if yes { "gracefully" } else { "without grace" }.to_owned()));
            clauses.extend(grace_s.map(|s| format!("with a grace period of {}", seconds(s))));
            clauses
        }
        Intent::Rollback { deployment, to_revision } => {
            let to = to_revision.map_or_else(String::new, |n| format!(" to revision {n}"));
            vec![format!("Roll back deployment {}{to}", quoted(deployment))]
        }
        Intent::Drain { node, force, deadline_s } => {
            let mut clauses = vec![format!("Drain node {}", quoted(node))];
            clauses.extend(force.map(|yes| if yes { "by force" } else { "without force" }.to_owned()));
            clauses.extend(deadline_s.map(|s| format!("within {}", seconds(s))));
            clauses
        }
        Intent::Undrain { node } => vec![format!("Undrain node {}", quoted(node))],
        _ => return None,
    })
}

fn environment_words(environment: Environment) -> &'static str {
    match environment {
        Environment::Dev => "in the dev environment",
        Environment::Staging => "in the staging environment",
        Environment::Production => "in the production environment",
    }
}

/// How a revision replaces the old one.
fn rollout(strategy: Option<Rollout>, canary_percent: Option<f64>) -> Vec<String> {
    let strategy = strategy.map(|strategy| match strategy {
        Rollout::Rolling => "with a rolling update",
        Rollout::Canary => "as a canary",
        Rollout::BlueGreen => "blue-green",
    });
    let share = canary_percent.map(|n| format!("{}% of the traffic", number(n)));
    strategy.map(str::to_owned).into_iter().chain(share).collect()
}

fn diagnosis(target: &Target, symptom: Option<Symptom>) -> Option<Vec<String>> {
    let named = |noun: &str| target.id.as_ref().map(|id| format!("Diagnose {noun} {}", quoted(id)));
    let first = match target.kind {
        TargetKind::Cluster => "Diagnose the cluster".to_owned(),
        TargetKind::Node => named("node")?,
        TargetKind::Workload => named("job")?,
        TargetKind::Deployment => named("deployment")?,
        TargetKind::Gpu => named(&format!("GPU {} on node", target.index?))?,
    };
    let seen = symptom.map(|symptom| match symptom {
        Symptom::Slow => "it is slow",
        Symptom::Pending => "it is pending",
        Symptom::Crash => "it is crashing",
        Symptom::Oom => "it runs out of memory",
        Symptom::Error => "it has errors",
        Symptom::Overheating => "it is overheating",
        Symptom::Unreachable => "it is unreachable",
        Symptom::Idle => "it is idle",
    });
    Some(std::iter::once(first).chain(seen.map(str::to_owned)).collect())
}

fn filters(filter: &QueryFilter) -> Vec<String> {
    let QueryFilter { node, workload_id, deployment, gpu_model, state, metric: read, since_s, tenant, text } = filter;
    let named = |noun: &str, name: &Option<String>| name.as_ref().map(|name| format!("of {noun} {}", quoted(name)));
    [
        state.as_ref().map(|state| format!("that are {state}")),
        named("node", node),
        named("job", workload_id),
        named("deployment", deployment),
        gpu_model.as_ref().map(|model| format!("on {model}")),
        read.map(|read| format!("of the {}", metric(read))),
        since_s.map(|s| format!("in the last {}", seconds(s))),
        named("tenant", tenant),
        text.as_ref().map(|text| format!("containing {}", quoted_any(text))),
    ]
    .into_iter()
    .flatten()
    .collect()
}
