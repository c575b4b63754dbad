//! What follows the fleet live: log lines by SSE, events by WebSocket.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Path, State};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use claw_gateway::{Caller, access};
use claw_proto::ids::{Attempt, WorkloadId};
use claw_storage::{LogCursor, Stream as LogStreamKind};
use claw_tools::outcome::clip;
use claw_tools::registry;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rest::error_response;
use crate::control::{ControlPlane, LogRead};
use crate::ops::{OpsContext, events};

/// Lines read at a time.
const LINES_CHUNK: usize = 500;
/// Lines that may wait for a slow reader.
const LINES_WAITING_MAX: usize = 64;

pub(super) fn router() -> Router<OpsContext> {
    Router::new().route("/api/workloads/{id}/logs", get(logs)).route("/api/ws", get(updates))
}

/// All lines of the latest attempt, then new ones until it has ended.
async fn logs(State(ops): State<OpsContext>, Extension(caller): Extension<Caller>, Path(id): Path<String>) -> Response {
    let def = registry::find("workload_logs").expect("in the registry");
    if let Err(refusal) = access::authorize(def, &caller) {
        return error_response(refusal.into());
    }
    let workload = match ops.control.snapshot().resolve_workload(&id) {
        Ok(workload) => workload.clone(),
        Err(refusal) => return error_response(refusal.into()),
    };
    let (lines, receiver) = mpsc::channel::<Result<SseEvent, Infallible>>(LINES_WAITING_MAX);
    let (control, workload_id, attempt) = (ops.control.clone(), workload.workload_id, workload.attempt());
    // Ends with the reader: a send into a closed channel fails.
    tokio::spawn(async move { follow(&control, workload_id, attempt, &lines).await });
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

async fn follow(
    control: &ControlPlane,
    workload_id: WorkloadId,
    attempt: Attempt,
    lines: &mpsc::Sender<Result<SseEvent, Infallible>>,
) {
    let mut changed = control.logs().changed();
    let mut cluster = control.watch();
    let mut after: Vec<LogCursor> = Vec::new();
    loop {
        changed.mark_unchanged();
        let over =
            control.snapshot().workloads.get(workload_id).is_none_or(|w| w.state.is_final() || w.attempt() != attempt);
        let read = LogRead {
            workload_id: Some(workload_id),
            attempt: Some(attempt),
            limit: LINES_CHUNK,
            after: after.clone(),
            ..LogRead::default()
        };
        let Ok(page) = control.logs().read(read).await else { return };
        for entry in &page.entries {
            let stream = match entry.key.stream {
                LogStreamKind::Stdout => "stdout",
                LogStreamKind::Stderr => "stderr",
                LogStreamKind::System => "system",
            };
            let text = clip(&String::from_utf8_lossy(&entry.line.bytes), 4_000);
            let data = json!({ "stream": stream, "sequence": entry.line.seq, "at_ms": entry.line.at_ms, "text": text, "untrusted": true });
            if lines.send(Ok(SseEvent::default().event("line").data(data.to_string()))).await.is_err() {
                return;
            }
        }
        after = page.cursors;
        if page.truncated {
            continue;
        }
        if over {
            // Whether the reader is still there does not matter any more.
            drop(lines.send(Ok(SseEvent::default().event("end").data("{}"))).await);
            return;
        }
        tokio::select! {
            more = changed.changed() => if more.is_err() { return },
            more = cluster.changed() => if more.is_err() { return },
            () = lines.closed() => return,
            () = control.stopping().cancelled() => return,
        }
    }
}

/// `WS /api/ws`: every event after it is on disk.
async fn updates(
    State(ops): State<OpsContext>,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let def = registry::find("events_list").expect("in the registry");
    if let Err(refusal) = access::authorize(def, &caller) {
        return error_response(refusal.into());
    }
    let events = ops.control.events_live();
    let stopping = ops.control.stopping().clone();
    upgrade.on_upgrade(move |socket| push(socket, events, stopping))
}

async fn push(
    mut socket: WebSocket,
    mut events: tokio::sync::broadcast::Receiver<crate::control::Numbered>,
    stopping: CancellationToken,
) {
    loop {
        let update: Value = tokio::select! {
            () = stopping.cancelled() => return,
            event = events.recv() => match event {
                Ok(numbered) => live_update(&numbered),
                Err(RecvError::Lagged(missed)) => json!({ "type": "missed", "events": missed, "next": "GET events_list" }),
                Err(RecvError::Closed) => return,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        if socket.send(Message::text(update.to_string())).await.is_err() {
            return;
        }
    }
}

fn live_update(numbered: &(u64, claw_gateway::EventRecord)) -> Value {
    json!({ "type": "event", "event": events::row(numbered.0, &numbered.1) })
}
