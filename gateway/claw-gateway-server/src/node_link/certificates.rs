//! Certificates of connected nodes: renewal over the link, and how a new
//! authority takes the place of the old one.
//!
//! A node asks for a new certificate well before its own ends, and at once when
//! it is told that the authority changes. That it has the new one is believed
//! only when it connects with it. When every node has, the new authority signs
//! the gateway's own certificate too, and the old one is forgotten.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claw_gateway::{Caller, Cluster, Command};
use claw_proto::ids::NodeId;
use claw_proto::message::GatewayMessage;
use claw_proto::time::Timestamp;
use claw_security::Fingerprint;
use claw_security::pki::{Authorities, PkiError, RolloverPhase};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

use super::SharedPort;
use super::links::{Link, Order};
use crate::config::NodePortConfig;

/// Certificates that one node may get by renewal; each costs a signature.
const RENEWALS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// How often it is looked whether the next step is due.
const STEP: Duration = Duration::from_millis(500);

/// Who has a certificate of which authority.
pub(crate) struct CertificateKeeper {
    authorities: Arc<Authorities>,
    authority_ttl: Duration,
    /// How long nodes that are not there are waited for.
    grace_ms: i64,
    /// Longest life of a node's certificate.
    certificate_ms: i64,
    renewals: DefaultKeyedRateLimiter<NodeId>,
    /// Which authority had signed the certificate that a node last connected with.
    signed_by: Mutex<BTreeMap<NodeId, Fingerprint>>,
}

impl std::fmt::Debug for CertificateKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateKeeper").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}

impl CertificateKeeper {
    pub(crate) fn new(authorities: Arc<Authorities>, authority_ttl: Duration, node: &NodePortConfig) -> Self {
        let ms = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
        Self {
            authorities,
            authority_ttl,
            grace_ms: ms(node.ca_rollover_grace_s),
            certificate_ms: ms(node.certificate_ttl_s),
            renewals: RateLimiter::keyed(Quota::per_minute(RENEWALS_PER_MINUTE)),
            signed_by: Mutex::default(),
        }
    }

    fn signed_by(&self) -> MutexGuard<'_, BTreeMap<NodeId, Fingerprint>> {
        self.signed_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node is registered, with a certificate of this authority, if it was that of the day.
    pub(super) fn connected(&self, link: &Arc<Link>, signed_by: Option<Fingerprint>) {
        if let Some(authority) = signed_by {
            self.signed_by().insert(link.node_id, authority);
        }
        let is_current = signed_by == Some(self.authorities.issuer().ca_fingerprint());
        link.order(Order::Say(Box::new(self.bundle(!is_current))));
    }

    fn bundle(&self, renew: bool) -> GatewayMessage {
        let cas_der = self.authorities.trusted().iter().map(|certificate| certificate.to_vec()).collect();
        GatewayMessage::TrustBundle { cas_der, renew }
    }

    /// Every node that can still come back has a certificate of the new authority.
    fn all_current(&self, cluster: &Cluster) -> bool {
        let issuer = self.authorities.issuer().ca_fingerprint();
        let signed_by = self.signed_by();
        let is_current = |id: &NodeId| signed_by.get(id) == Some(&issuer);
        cluster.nodes.iter().filter(|node| !node.is_revoked()).all(|node| is_current(&node.node_id))
    }
}

/// Makes a new certificate for the node behind a link and sends it.
pub(super) fn renew(port: &SharedPort, link: &Arc<Link>, csr_der: Vec<u8>) {
    let (port, link) = (Arc::clone(port), Arc::clone(link));
    // Signing takes a moment of CPU; frames go on meanwhile.
    tokio::task::spawn_blocking(move || {
        let cluster = port.control.snapshot();
        let is_welcome = cluster.nodes.get(link.node_id).is_some_and(|node| !node.is_revoked());
        if !is_welcome {
            let message = "the node is not in the fleet, or its certificates are revoked".to_owned();
            link.order(Order::Say(Box::new(GatewayMessage::CertificateRefused { message })));
            return;
        }
        if port.certificates.renewals.check_key(&link.node_id).is_err() {
            let message = format!("more than {RENEWALS_PER_MINUTE} requests for a certificate in a minute");
            link.order(Order::Say(Box::new(GatewayMessage::CertificateRefused { message })));
            return;
        }
        let enrollment = &port.enrollment;
        let (now, ttl) = (port.control.now(), enrollment.certificate_ttl);
        let issuer = enrollment.authorities.issuer();
        match issuer.renew_node(&csr_der, &link.node_id.to_string(), now, ttl) {
            Ok(certificate) => {
                tracing::info!(node_id = %link.node_id, not_after = %certificate.not_after, "certificate renewed");
                let chain_der = vec![certificate.der.to_vec()];
                link.order(Order::Say(Box::new(GatewayMessage::CertificateRenewed { chain_der })));
            }
            Err(error) => {
                tracing::warn!(node_id = %link.node_id, %error, "certificate not renewed");
                link.order(Order::Say(Box::new(GatewayMessage::CertificateRefused { message: error.to_string() })));
            }
        }
    });
}

/// Takes the steps of a replacement as they come due, until `stop`.
pub(crate) async fn keep(port: SharedPort, stop: CancellationToken) {
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = steps.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = step(&port).await {
            tracing::error!(%error, "replacing the certificate authority does not go on; it is tried again");
        }
    }
}

async fn step(port: &SharedPort) -> Result<(), PkiError> {
    let keeper = &port.certificates;
    let authorities = &keeper.authorities;
    let cluster = port.control.snapshot();
    let now = port.control.now();
    // Certificates of the old authority are all older than the new authority.
    let new_for_ms = now.ms_since(authorities.issuer().created_at());
    match authorities.phase() {
        // While one is introduced already, a crash came before its number was on disk.
        RolloverPhase::Steady | RolloverPhase::Introducing if cluster.ca.requested > authorities.rotation() => {
            begin(port, &cluster, now)?;
        }
        RolloverPhase::Steady if cluster.ca.requested > cluster.ca.finished => {
            let told = Command::CaRotated { rotation: cluster.ca.requested };
            if let Err(error) = port.control.submit(told, Caller::system(now)).await {
                tracing::debug!(%error, "the end of the rotation could not be noted; it is tried again");
            }
        }
        RolloverPhase::Introducing => {
            let is_overdue = new_for_ms >= keeper.grace_ms;
            if is_overdue || (keeper.all_current(&cluster) && !has_open_tokens(&cluster, now)) {
                authorities.switch()?;
                tracing::info!(is_overdue, "the new certificate authority is in use");
            }
        }
        RolloverPhase::Retiring => {
            let is_over = new_for_ms >= keeper.certificate_ms.max(keeper.grace_ms);
            if is_over || keeper.all_current(&cluster) {
                authorities.drop_old()?;
                tracing::info!(is_over, "the old certificate authority is dropped");
                port.links.say_to_all(&keeper.bundle(false));
            }
        }
        RolloverPhase::Steady => {}
    }
    Ok(())
}

fn begin(port: &SharedPort, cluster: &Cluster, now: Timestamp) -> Result<(), PkiError> {
    let keeper = &port.certificates;
    keeper.authorities.begin(cluster.ca.requested, now, keeper.authority_ttl)?;
    tracing::info!(rotation = cluster.ca.requested, "a new certificate authority is introduced to the nodes");
    port.links.say_to_all(&keeper.bundle(true));
    Ok(())
}

/// A token pins the authority of the day when it was made: whoever holds one may use it first.
fn has_open_tokens(cluster: &Cluster, now: Timestamp) -> bool {
    cluster.tokens.values().any(|token| token.used_by.is_none() && !token.revoked && token.expires_at > now)
}
