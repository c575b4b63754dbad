//! What follows the fleet live: log lines by SSE, events by WebSocket. A stream ends
//! when its reader goes, the gateway stops, or the key that opened it counts no more.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Path, Query, State};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use claw_gateway::{Caller, Cluster, access};
use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::message::LogStream;
use claw_storage::{LogCursor, LogPage};
use claw_tools::events::EventRow;
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::registry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::rest::error_response;
use crate::control::{ControlPlane, LogRead};
use crate::ops::{OpsContext, events, logs as lines};

/// Lines read at a time.
const LINES_CHUNK: usize = 500;
/// Events read at a time.
const EVENTS_CHUNK: usize = 500;
/// How long lines are awaited that come after the end of their workload.
const LATE_LINES: Duration = Duration::from_secs(2);
/// A reader that takes nothing for so long is let go.
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// Shows both ends that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One message of `WS /api/ws`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LiveUpdate {
    /// Something happened, and is on disk.
    Event {
        /// It.
        event: EventRow,
    },
}

pub(super) fn router() -> Router<OpsContext> {
    Router::new().route("/api/workloads/{id}/logs", get(logs)).route("/api/ws", get(updates))
}

fn may(caller: &Caller, tool: &str) -> Result<(), Refusal> {
    access::authorize(registry::find(tool).expect("a stream shows what an operation of the registry shows"), caller)
}

/// The key that opened a stream still counts.
fn still_counts(control: &ControlPlane, caller: &Caller) -> bool {
    let cluster = control.snapshot();
    let key = caller.key_id.and_then(|id| cluster.keys.get(&id));
    key.is_some_and(|key| !key.revoked && key.expires_at.is_none_or(|at| at > control.now()))
}

/// `GET /api/workloads/{id}/logs`: all lines of the latest attempt, then new ones until it has ended.
async fn logs(State(ops): State<OpsContext>, Extension(caller): Extension<Caller>, Path(id): Path<String>) -> Response {
    let workload =
        may(&caller, "workload_logs").and_then(|()| ops.control.snapshot().resolve_workload(&id).map(Arc::clone));
    let workload = match workload {
        Ok(workload) => workload,
        Err(refusal) => return error_response(refusal.into()),
    };
    let follower = Follower {
        changed: ops.control.logs().changed(),
        cluster: ops.control.watch(),
        control: ops.control,
        caller,
        workload_id: workload.workload_id,
        attempt: workload.attempt(),
        after: Vec::new(),
        gaps_told: BTreeMap::new(),
        waiting: VecDeque::new(),
        ends_at: None,
        is_over: false,
    };
    let stream = futures_util::stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// Reads on where it stopped, as fast as its reader takes lines.
struct Follower {
    control: ControlPlane,
    caller: Caller,
    changed: watch::Receiver<u64>,
    cluster: watch::Receiver<Arc<Cluster>>,
    workload_id: WorkloadId,
    attempt: Attempt,
    after: Vec<LogCursor>,
    /// Last missing line that was told, per stream.
    gaps_told: BTreeMap<LogStream, u64>,
    waiting: VecDeque<SseEvent>,
    /// Set when the attempt was seen to have ended.
    ends_at: Option<Instant>,
    is_over: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.is_over || !still_counts(&self.control, &self.caller) {
                return None;
            }
            self.changed.mark_unchanged();
            // Looked at before the lines are read: no line of the attempt comes before its end is seen.
            let is_running = self.is_running();
            let page = self.control.logs().read(self.query()).await.ok()?;
            let more = page.truncated;
            self.take(page);
            if more || !self.waiting.is_empty() {
                continue;
            }
            if !is_running {
                let ends_at = *self.ends_at.get_or_insert_with(|| Instant::now() + LATE_LINES);
                if tokio::time::timeout_at(ends_at, self.changed.changed()).await.is_ok_and(|more| more.is_ok()) {
                    continue;
                }
                self.is_over = true;
                return Some(SseEvent::default().event("end").data("{}"));
            }
            tokio::select! {
                more = self.changed.changed() => more.ok()?,
                more = self.cluster.changed() => more.ok()?,
                () = self.control.stopping().cancelled() => return None,
            }
        }
    }

    fn is_running(&self) -> bool {
        let cluster = self.control.snapshot();
        let workload = cluster.workloads.get(self.workload_id);
        workload.is_some_and(|w| !w.state.is_final() && w.attempt() == self.attempt)
    }

    fn query(&self) -> LogRead {
        LogRead {
            workload_id: Some(self.workload_id),
            attempt: Some(self.attempt),
            limit: LINES_CHUNK,
            after: self.after.clone(),
            ..LogRead::default()
        }
    }

    fn take(&mut self, page: LogPage) {
        let event = |name: &str, data: Value| SseEvent::default().event(name).data(data.to_string());
        for gap in page.gaps.iter().map(lines::gap_view) {
            let told = self.gaps_told.entry(gap.stream).or_insert(0);
            let last = gap.first_sequence.saturating_add(gap.n_lost.saturating_sub(1));
            if last > *told {
                *told = last;
                self.waiting.push_back(event("gap", json!(gap)));
            }
        }
        for line in page.entries.iter().map(lines::line_view) {
            let mut data = json!(line);
            data["untrusted"] = true.into();
            self.waiting.push_back(event("line", data));
        }
        self.after = page.cursors;
    }
}

/// Where a reader of events wants to begin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// Events after this number; from now on if absent.
    after: Option<u64>,
}

/// `WS /api/ws?after=N`: every event once, in order, after it is on disk.
async fn updates(
    State(ops): State<OpsContext>,
    Extension(caller): Extension<Caller>,
    begin: Result<Query<Begin>, QueryRejection>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if let Err(refusal) = may(&caller, "events_list") {
        return error_response(refusal.into());
    }
    let after = match begin {
        Ok(Query(begin)) => begin.after,
        Err(error) => {
            let refusal = Refusal::new(ErrorCode::InvalidArgument, error.body_text()).with_field("after", "");
            return error_response(refusal.into());
        }
    };
    upgrade.on_upgrade(move |socket| async move {
        let mut pusher = Pusher { seen: after.unwrap_or_else(|| ops.control.snapshot().seq), ops, caller, socket };
        // Ends when nobody reads any more; there is nobody to tell.
        drop(pusher.run().await);
    })
}

/// Nobody reads any more, or nobody may.
struct Gone;

struct Pusher {
    ops: OpsContext,
    caller: Caller,
    socket: WebSocket,
    /// Number of the last event that was sent or is not wanted.
    seen: u64,
}

impl Pusher {
    async fn run(&mut self) -> Result<(), Gone> {
        let control = self.ops.control.clone();
        // Subscribed before the journal is read: nothing falls between the two.
        let mut live = control.events_live();
        loop {
            self.catch_up().await?;
            tokio::select! {
                () = control.stopping().cancelled() => return Err(Gone),
                event = live.recv() => match event {
                    Ok(synced) => {
                        for (seq, record) in synced.iter() {
                            // Sent already, or some in between were missed: the journal has them all.
                            if *seq == self.seen + 1 {
                                self.send(events::row(*seq, record)).await?;
                            }
                        }
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return Err(Gone),
                },
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
                    Some(Ok(_)) => {}
                },
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), Gone> {
        while self.seen < self.ops.control.snapshot().seq {
            let chunk = self.ops.control.events(self.seen, EVENTS_CHUNK).await.map_err(|_| Gone)?;
            if chunk.is_empty() {
                return Ok(());
            }
            for (seq, record) in chunk {
                self.send(events::row(seq, &record)).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, event: EventRow) -> Result<(), Gone> {
        if !still_counts(&self.ops.control, &self.caller) {
            return Err(Gone);
        }
        self.seen = event.seq;
        let text = serde_json::to_string(&LiveUpdate::Event { event }).expect("events are plain data");
        tokio::select! {
            sent = tokio::time::timeout(SEND_DEADLINE, self.socket.send(Message::text(text))) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Gone),
            },
            () = self.ops.control.stopping().cancelled() => Err(Gone),
        }
    }
}
