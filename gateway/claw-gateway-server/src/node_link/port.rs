//! The node port: `/enroll` for machines with a token, `/node` for nodes with a
//! certificate, nothing else.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use claw_proto::ids::NodeId;
use claw_proto::limits::FRAME_BYTES_MAX;
use claw_security::pki::{PkiError, peer_node_id};
use claw_tools::refusal::{ErrorCode, Refusal};

use super::session::{self, NodePeer};
use super::{NodePort, SharedPort};
use crate::enroll;
use crate::serve::Peer;

/// Name of the protocol in the WebSocket handshake.
const SUBPROTOCOL: &str = "claw.node.v1";
/// Memory that each connection holds for what it reads, bytes: a frame with the
/// numbers of eight GPUs fits. Larger ones are read in several goes.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What the port answers.
pub(crate) fn router(port: SharedPort) -> Router {
    let enroll = post(enroll::enroll).layer(DefaultBodyLimit::max(enroll::BODY_BYTES_MAX));
    Router::new().route("/enroll", enroll).route("/node", get(node)).with_state(port)
}

async fn node(
    State(port): State<SharedPort>,
    Extension(peer): Extension<Peer>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let node = match node_peer(&port, &peer) {
        Ok(node) => node,
        Err((status, message)) => {
            tracing::info!(addr = %peer.addr, message, "connection to the node port refused");
            let refusal = Refusal::new(ErrorCode::Unauthenticated, message);
            return (status, Json(refusal)).into_response();
        }
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    // Held while the session runs, so that a stop waits for it.
    let tracked = port.sessions.token();
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX);
    upgrade.on_upgrade(move |socket| async move {
        session::run(socket, Arc::clone(&port), node).await;
        drop((tracked, peer));
    })
}

/// TLS has verified the certificate against our authority; here it has to be a
/// node's, and still good.
fn node_peer(port: &NodePort, peer: &Peer) -> Result<NodePeer, (StatusCode, String)> {
    let identity = peer_node_id(&peer.certificates).map_err(|error| match error {
        PkiError::NoPeerCertificate => {
            (StatusCode::UNAUTHORIZED, "this needs a node's certificate; enroll with clawnode join".to_owned())
        }
        other => (StatusCode::FORBIDDEN, other.to_string()),
    })?;
    if identity.not_after <= port.control.now() {
        let message = format!("the certificate ended at {}", identity.not_after);
        return Err((StatusCode::FORBIDDEN, message));
    }
    let node_id: NodeId = identity
        .node_id
        .parse()
        .map_err(|error: claw_proto::ids::IdError| (StatusCode::FORBIDDEN, error.to_string()))?;
    let issuer = port.enrollment.authorities.issuer();
    let is_current = peer.certificates.first().is_some_and(|leaf| issuer.has_signed(leaf));
    let signed_by = is_current.then(|| issuer.ca_fingerprint());
    Ok(NodePeer { node_id, issued_at: identity.issued_at, not_after: identity.not_after, signed_by })
}
