//! The node's certificate: asked for anew in good time, and whenever the
//! authority changes.
//!
//! A renewed certificate is used from the next connection on, so the node
//! connects anew as soon as it has one; records and log lines wait on disk
//! meanwhile as in any other pause.

use claw_proto::message::{GatewayMessage, NodeMessage};
use claw_proto::time::Timestamp;
use claw_proto::topology::{FindingCode, NodeFinding};
use rustls_pki_types::CertificateDer;
use tokio::time::{Duration, Instant};
use tracing::{debug, error, info, warn};
use zeroize::Zeroizing;

use super::Agent;
use super::boot::ENROLL_AGAIN;
use super::health::Finder;
use crate::clock;
use crate::identity::{DataDir, IdentityError, Validity};
use crate::link::TlsCell;
use crate::node::Input;

/// A request without an answer is made again after.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// A refused request is made again after at most.
const REFUSED_PAUSE: Duration = Duration::from_mins(1);

/// What is known of the node's certificate.
pub(super) struct Renewal {
    data_dir: DataDir,
    tls: TlsCell,
    authorities: Vec<CertificateDer<'static>>,
    validity: Validity,
    renew_at: Timestamp,
    /// Key of the request under way, and until when its answer is waited for.
    pending: Option<(Zeroizing<String>, Instant)>,
    not_before: Option<Instant>,
    /// The authority changes: do not wait for the time.
    is_wanted: bool,
    /// There is a new one; the connection is still of the old one.
    is_unused: bool,
    is_expiring: bool,
}

impl Renewal {
    pub(super) fn new(data_dir: DataDir, tls: TlsCell) -> Result<Self, IdentityError> {
        let (authorities, validity) = (data_dir.authorities()?, data_dir.validity()?);
        let renew_at = due(validity);
        Ok(Self {
            data_dir,
            tls,
            authorities,
            validity,
            renew_at,
            pending: None,
            not_before: None,
            is_wanted: false,
            is_unused: false,
            is_expiring: false,
        })
    }

    /// No answer to an older connection's request comes any more.
    pub(super) fn reconnected(&mut self) {
        self.pending = None;
    }

    /// A refused request is made again after: a while, but not over the certificate's end.
    fn refused_pause(&self) -> Duration {
        let life_ms = self.validity.not_after.ms_since(self.validity.issued_at).unsigned_abs();
        REFUSED_PAUSE.min(Duration::from_millis(life_ms / 20))
    }

    /// Makes a key and the request that proves it.
    fn request(&mut self) -> Result<Vec<u8>, rcgen::Error> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let csr_der = rcgen::CertificateParams::default().serialize_request(&pair)?.der().to_vec();
        self.pending = Some((Zeroizing::new(pair.serialize_pem()), Instant::now() + ANSWER_DEADLINE));
        Ok(csr_der)
    }

    fn take_renewed(&mut self, chain: &[CertificateDer<'static>]) -> Result<bool, IdentityError> {
        let Some((key_pem, _)) = self.pending.take() else { return Ok(false) };
        self.data_dir.store_renewed(&key_pem, chain)?;
        self.validity = self.data_dir.validity()?;
        self.renew_at = due(self.validity);
        self.tls.set(self.data_dir.tls()?);
        (self.is_wanted, self.is_unused) = (false, true);
        Ok(true)
    }

    fn take_authorities(&mut self, authorities: Vec<CertificateDer<'static>>) -> Result<bool, IdentityError> {
        if authorities == self.authorities {
            return Ok(false);
        }
        self.data_dir.store_authorities(&authorities)?;
        self.authorities = authorities;
        self.tls.set(self.data_dir.tls()?);
        Ok(true)
    }
}

/// At two thirds of its life, up to a tenth of it earlier, so that a fleet that
/// enrolled at once does not come at once.
fn due(validity: Validity) -> Timestamp {
    let life_ms = validity.not_after.ms_since(validity.issued_at).max(0);
    let mut random = [0; 8];
    if let Err(error) = getrandom::fill(&mut random) {
        debug!(%error, "no randomness for the jitter");
    }
    let jitter_ms = i64::try_from(u64::from_le_bytes(random) % (life_ms.unsigned_abs() / 10 + 1)).unwrap_or(0);
    validity.issued_at.plus_ms(life_ms / 3 * 2 - jitter_ms)
}

impl Agent {
    /// An answer about certificates, or news of the authorities.
    pub(super) fn certificate_message(&mut self, message: GatewayMessage) {
        match message {
            GatewayMessage::TrustBundle { cas_der, renew } => {
                let authorities: Vec<CertificateDer<'static>> = cas_der.into_iter().map(CertificateDer::from).collect();
                let n = authorities.len();
                match self.renewal.take_authorities(authorities) {
                    Ok(true) => info!(n, "the certificate authorities changed"),
                    Ok(false) => {}
                    // Without trust in the new authority its certificate would be of no use.
                    Err(error) => return error!(%error, "the new certificate authorities could not be kept"),
                }
                self.renewal.is_wanted |= renew;
                self.renew_if_due();
            }
            GatewayMessage::CertificateRenewed { chain_der } => {
                let chain: Vec<CertificateDer<'static>> = chain_der.into_iter().map(CertificateDer::from).collect();
                match self.renewal.take_renewed(&chain) {
                    Ok(true) => info!(not_after = %self.renewal.validity.not_after, "certificate renewed"),
                    Ok(false) => debug!("a certificate that was not asked for is ignored"),
                    Err(error) => error!(%error, "the renewed certificate could not be kept; the old one goes on"),
                }
                self.use_renewed();
            }
            GatewayMessage::CertificateRefused { message } => {
                warn!(message, "the gateway renews no certificate for this node");
                self.renewal.pending = None;
                self.renewal.not_before = Some(Instant::now() + self.renewal.refused_pause());
            }
            other => debug!(?other, "nothing to do"),
        }
    }

    /// Asks for a new certificate when it is time, and says so when time runs out.
    pub(super) fn renew_if_due(&mut self) {
        self.use_renewed();
        self.watch_expiry();
        let (now, at) = (clock::now().wall, Instant::now());
        let renewal = &mut self.renewal;
        let is_due = renewal.is_wanted || now >= renewal.renew_at;
        let waits = renewal.pending.as_ref().is_some_and(|(_, deadline)| at < *deadline)
            || renewal.not_before.is_some_and(|then| at < then);
        if !is_due || waits || !self.node.is_registered() {
            return;
        }
        match renewal.request() {
            Ok(csr_der) => {
                let message = Box::new(NodeMessage::RenewCertificate { csr_der });
                self.feed(Input::Say { now: clock::now(), message });
            }
            Err(error) => {
                error!(%error, "no request for a new certificate could be made");
                renewal.not_before = Some(at + renewal.refused_pause());
            }
        }
    }

    /// Connects anew with the new certificate; tasks under way are let end first.
    fn use_renewed(&mut self) {
        if self.renewal.is_unused && self.tasks.is_empty() {
            self.renewal.is_unused = false;
            if let Some(connection) = self.connection.take() {
                connection.close();
            }
        }
    }

    fn watch_expiry(&mut self) {
        let Validity { issued_at, not_after } = self.renewal.validity;
        let left_ms = not_after.ms_since(clock::now().wall);
        let is_expiring = left_ms < not_after.ms_since(issued_at) / 6;
        if is_expiring == self.renewal.is_expiring {
            return;
        }
        self.renewal.is_expiring = is_expiring;
        let detail = if left_ms > 0 {
            format!("it ends at {not_after} and was not renewed; after that the machine has to enroll again")
        } else {
            format!("it ended at {not_after}: {ENROLL_AGAIN}")
        };
        if is_expiring {
            warn!(detail, "the node's certificate");
        }
        let finding = NodeFinding { code: FindingCode::CertificateExpiring, subject: "certificate".into(), detail };
        self.findings.set(Finder::Certificate, is_expiring.then_some(finding).into_iter().collect());
        let same = self.capabilities.clone();
        self.set_capabilities(same);
    }
}
