//! A gateway that runs, and how it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use claw_gateway::{Caller, Command};
use claw_tools::refusal::ErrorCode;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::Opened;
use crate::control::{self, ControlPlane, ControlTask, EffectQueue, SubmitError};
use crate::node_link::{self, SharedPort};
use crate::serve::{self, Port, Serves, Tls};

/// How often the core is told that time has passed.
const TICK: Duration = Duration::from_secs(1);
/// How long an idle HTTP connection stays open: longer than clients keep theirs,
/// so that none of them sends into a closing one.
const HTTP_IDLE: Duration = Duration::from_mins(2);
/// The same of the node port, where nobody has a reason to wait.
const NODE_HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Connections of the HTTP port at the same time.
const HTTP_CONNECTIONS_MAX: usize = 8_192;
/// The same of the node port: one for each node of the largest fleet that is
/// measured, and room for those that connect anew.
const NODE_CONNECTIONS_MAX: usize = 16_384;
/// How long links may take to close.
const LINKS_DEADLINE: Duration = Duration::from_secs(5);

/// What a gateway is made of.
pub(super) struct Parts {
    pub(super) control: ControlPlane,
    pub(super) effects: EffectQueue,
    pub(super) task: ControlTask,
    pub(super) port: SharedPort,
    pub(super) faces: Serves,
    pub(super) http_tls: Tls,
    pub(super) opened: Opened,
}

/// A running gateway. Dropping it ends its tasks at once; [`Running::shutdown`]
/// is the way to stop.
pub struct Running {
    /// Address of MCP and REST.
    pub http_addr: SocketAddr,
    /// Address of the node port.
    pub node_addr: SocketAddr,
    http_scheme: &'static str,
    control: ControlPlane,
    task: ControlTask,
    port: SharedPort,
    faces: JoinSet<()>,
    stop_faces: CancellationToken,
    rest: JoinSet<()>,
    stop_rest: CancellationToken,
    core_over: CancellationToken,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("http_addr", &self.http_addr)
            .field("node_addr", &self.node_addr)
            .finish_non_exhaustive()
    }
}

pub(super) fn begin(parts: Parts) -> Running {
    let Parts { control, effects, task, port, faces: serves, http_tls, opened } = parts;
    let http_scheme = match &http_tls {
        Tls::Plain => "http",
        Tls::Fixed(_) | Tls::Own(_) => "https",
    };
    let (stop_faces, stop_rest) = (CancellationToken::new(), CancellationToken::new());
    let core_over = CancellationToken::new();
    let mut faces = JoinSet::new();
    let http = Port {
        listener: opened.http,
        serves,
        tls: http_tls,
        connections_max: HTTP_CONNECTIONS_MAX,
        head_deadline: HTTP_IDLE,
    };
    faces.spawn(serve::serve(http, stop_faces.clone()));
    let mut rest = JoinSet::new();
    let nodes = Port {
        listener: opened.node,
        serves: Serves { direct: None, router: node_link::router(Arc::clone(&port)) },
        tls: Tls::Own(Box::new(opened.node_tls)),
        connections_max: NODE_CONNECTIONS_MAX,
        head_deadline: NODE_HEAD_DEADLINE,
    };
    rest.spawn(serve::serve(nodes, stop_rest.clone()));
    rest.spawn(node_link::perform(Arc::clone(&port), effects, stop_rest.clone()));
    rest.spawn(node_link::keep_certificates(Arc::clone(&port), stop_rest.clone()));
    rest.spawn(node_link::watch_silence(Arc::clone(&port), stop_rest.clone()));
    let house = control::keep_house(control.clone()).with_cancellation_token_owned(stop_rest.clone());
    rest.spawn(async move { house.await.unwrap_or(()) });
    let changes = control::keep_changes(control.clone()).with_cancellation_token_owned(stop_rest.clone());
    rest.spawn(async move { changes.await.unwrap_or(()) });
    rest.spawn(tick(control.clone(), stop_rest.clone(), core_over.clone()));
    Running {
        http_addr: opened.http_addr,
        node_addr: opened.node_addr,
        http_scheme,
        control,
        task,
        port,
        faces,
        stop_faces,
        rest,
        stop_rest,
        core_over,
    }
}

impl Running {
    /// The one line that says where the gateway is.
    pub fn ready_line(&self) -> String {
        format!("claw-gateway ready mcp={}://{}/mcp node=https://{}", self.http_scheme, self.http_addr, self.node_addr)
    }

    /// The handle to its core.
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// The connections of nodes.
    #[cfg(test)]
    pub(crate) fn links(&self) -> Arc<crate::node_link::NodeLinks> {
        Arc::clone(&self.port.links)
    }

    /// Returns when the core has ended by itself, which no restart of ours can mend.
    pub async fn core_over(&self) {
        self.core_over.cancelled().await;
    }

    /// Stops: nobody new is let in, requests under way end, links close with a
    /// close frame, what is queued is decided and written, a snapshot is taken.
    pub async fn shutdown(mut self) {
        tracing::info!("stopping");
        self.control.stopping().cancel();
        self.stop_faces.cancel();
        while self.faces.join_next().await.is_some() {}
        self.port.stop.cancel();
        self.stop_rest.cancel();
        self.port.sessions.close();
        let closed = tokio::time::timeout(LINKS_DEADLINE, self.port.sessions.wait()).await;
        if closed.is_err() {
            tracing::warn!(open = self.port.sessions.len(), "links did not close in time");
        }
        while self.rest.join_next().await.is_some() {}
        drop((self.port, self.control));
        self.task.stop().await;
        tracing::info!("stopped");
    }
}

/// Time passes for the core.
async fn tick(control: ControlPlane, stop: CancellationToken, core_over: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        match control.submit(Command::Tick, Caller::system(control.now())).await {
            Ok(_) => {}
            Err(SubmitError::Refused(refusal)) if refusal.code == ErrorCode::ShuttingDown => {
                tracing::error!("the core has ended");
                core_over.cancel();
                return;
            }
            // Said by the core already; the next tick tries again.
            Err(error) => tracing::debug!(%error, "tick"),
        }
    }
}
