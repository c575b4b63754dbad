//! What is tidied up after events: logs of ended attempts and forgotten workloads.

use std::time::Duration;

use claw_gateway::Event;
use tokio::sync::broadcast::error::RecvError;

use super::ControlPlane;

/// How often log retention runs.
const RETAIN_INTERVAL: Duration = Duration::from_mins(5);

/// Runs until the gateway stops. Missing events is harmless: an unsealed log
/// costs time at the next start, an unforgotten one goes by retention.
pub async fn keep_house(control: ControlPlane) {
    let mut events = control.events_live();
    let mut retain = tokio::time::interval(RETAIN_INTERVAL);
    loop {
        tokio::select! {
            _ = retain.tick() => control.logs().retain(control.now()).await,
            event = events.recv() => match event {
                Ok(synced) => {
                    for (_, record) in synced.iter() {
                        tidy(&control, &record.event).await;
                    }
                }
                Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "messages of events passed unseen by the log keeper"),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

async fn tidy(control: &ControlPlane, event: &Event) {
    match event {
        Event::WorkloadEnded { workload_id, .. } => {
            if let Some(attempt) = control.snapshot().workloads.get(*workload_id).map(|w| w.attempt()) {
                control.logs().seal(*workload_id, attempt).await;
            }
        }
        Event::HistoryPruned { workloads, .. } => {
            for workload_id in workloads {
                control.logs().forget(*workload_id).await;
            }
        }
        Event::NodeRemoved { node_id } => {
            control.metrics().forget(*node_id);
            control.kernels().forget(*node_id);
        }
        _ => {}
    }
}
