//! The authority in use, and the one that replaces it.
//!
//! ```text
//!              begin                    switch                   drop_old
//!   steady ───────────► introducing ────────────► retiring ─────────────► steady
//!   ca.pem              ca.pem + ca.next.pem      ca.pem + ca.old.pem     ca.pem
//! ```
//!
//! | phase | server certificate by | node certificates by | nodes trust |
//! |---|---|---|---|
//! | steady | ca | ca | ca |
//! | introducing | ca | next | ca, next |
//! | retiring | ca (was next) | ca | ca, old |
//!
//! A node that has a certificate of the next authority has the next authority's
//! own certificate too, so the switch cannot lock it out. Each step is one
//! rename or one removal: a crash leaves a phase, never half of one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use claw_proto::time::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{CertificateAuthority, PkiError};
use crate::secret_file::{SecretFileError, read_private, write_private};

const ACTIVE: &str = "ca.pem";
const NEXT: &str = "ca.next.pem";
const OLD: &str = "ca.old.pem";
/// Number of the last rotation that began here.
const ROTATION: &str = "ca.rotation";

/// How far a replacement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloverPhase {
    /// One authority.
    Steady,
    /// Nodes get to know the next one.
    Introducing,
    /// The next one is in use; the old one is trusted until nobody needs it.
    Retiring,
}

#[derive(Debug)]
struct Held {
    active: Arc<CertificateAuthority>,
    next: Option<Arc<CertificateAuthority>>,
    old: Option<Arc<CertificateAuthority>>,
    rotation: u64,
}

/// The cluster's authorities.
#[derive(Debug)]
pub struct Authorities {
    folder: PathBuf,
    held: RwLock<Held>,
    version: AtomicU64,
}

impl Authorities {
    /// The authorities of this folder; on the first start a new one.
    ///
    /// # Errors
    /// As [`CertificateAuthority::load_or_create`]. A damaged file is an error and
    /// never a reason to make a new authority.
    pub fn load_or_create(
        folder: &Path,
        cluster_name: &str,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Self, PkiError> {
        let active = CertificateAuthority::load_or_create(folder, cluster_name, now, validity)?;
        let next = load_if_there(&folder.join(NEXT))?;
        // A copy that was made for a switch which did not come about.
        let old = load_if_there(&folder.join(OLD))?.filter(|old| old.ca_fingerprint() != active.ca_fingerprint());
        let rotation = match read_private(&folder.join(ROTATION)) {
            Ok(text) => String::from_utf8_lossy(&text).trim().parse().unwrap_or(0),
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error.into()),
        };
        let held = Held { active: Arc::new(active), next: next.map(Arc::new), old: old.map(Arc::new), rotation };
        Ok(Self { folder: folder.to_path_buf(), held: RwLock::new(held), version: AtomicU64::new(1) })
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs the gateway's own certificate.
    pub fn server(&self) -> Arc<CertificateAuthority> {
        Arc::clone(&self.read().active)
    }

    /// Signs certificates of nodes.
    pub fn issuer(&self) -> Arc<CertificateAuthority> {
        let held = self.read();
        Arc::clone(held.next.as_ref().unwrap_or(&held.active))
    }

    /// Whose certificates are accepted, and what nodes shall trust.
    pub fn trusted(&self) -> Vec<CertificateDer<'static>> {
        let held = self.read();
        let all = std::iter::once(&held.active).chain(&held.next).chain(&held.old);
        all.map(|authority| authority.cert_der().clone()).collect()
    }

    /// The same as PEM text.
    pub fn trusted_pem(&self) -> String {
        let held = self.read();
        let all = std::iter::once(&held.active).chain(&held.next).chain(&held.old);
        all.map(|authority| authority.cert_pem()).collect()
    }

    /// How far a replacement is.
    pub fn phase(&self) -> RolloverPhase {
        let held = self.read();
        if held.next.is_some() {
            RolloverPhase::Introducing
        } else if held.old.is_some() {
            RolloverPhase::Retiring
        } else {
            RolloverPhase::Steady
        }
    }

    /// Number of the last rotation that began.
    pub fn rotation(&self) -> u64 {
        self.read().rotation
    }

    /// Rises with each change of what is trusted or of who signs.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Begins rotation number `rotation`; once more does nothing.
    ///
    /// # Errors
    /// As [`CertificateAuthority::create`] and for files that cannot be written.
    pub fn begin(&self, rotation: u64, now: Timestamp, validity: Duration) -> Result<(), PkiError> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.next.is_none() {
            let next = CertificateAuthority::create(held.active.cluster_name(), now, validity)?;
            match next.save_as(&self.folder, NEXT) {
                Ok(()) => held.next = Some(Arc::new(next)),
                // Of a begin that crashed before its number was written.
                Err(PkiError::SecretFile(SecretFileError::AlreadyExists { .. })) => {
                    held.next = load_if_there(&self.folder.join(NEXT))?.map(Arc::new);
                }
                Err(error) => return Err(error),
            }
        }
        write_private(&self.folder.join(ROTATION), rotation.to_string().as_bytes())?;
        held.rotation = rotation;
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The next authority takes over; without a next one nothing happens.
    ///
    /// # Errors
    /// For files that cannot be written; the phase stays as it is then.
    pub fn switch(&self) -> Result<(), PkiError> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = held.next.clone() else { return Ok(()) };
        write_private(&self.folder.join(OLD), &read_private(&self.folder.join(ACTIVE))?)?;
        rename(&self.folder, NEXT, ACTIVE)?;
        held.old = Some(std::mem::replace(&mut held.active, next));
        held.next = None;
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Nobody needs the old authority any more.
    ///
    /// # Errors
    /// If its file cannot be removed; it stays trusted then.
    pub fn drop_old(&self) -> Result<(), PkiError> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        remove(&self.folder.join(OLD))?;
        held.old = None;
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

fn load_if_there(path: &Path) -> Result<Option<CertificateAuthority>, PkiError> {
    match CertificateAuthority::load_file(path) {
        Ok(authority) => Ok(Some(authority)),
        Err(PkiError::SecretFile(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn io_error(path: PathBuf, source: std::io::Error) -> PkiError {
    PkiError::AuthorityStep { path, source }
}

fn rename(folder: &Path, from: &str, to: &str) -> Result<(), PkiError> {
    let target = folder.join(to);
    std::fs::rename(folder.join(from), &target).map_err(|source| io_error(target, source))?;
    sync(folder)
}

fn remove(path: &Path) -> Result<(), PkiError> {
    match std::fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(io_error(path.to_path_buf(), source)),
    }
}

/// A rename counts once its folder is on disk.
fn sync(folder: &Path) -> Result<(), PkiError> {
    let file = std::fs::File::open(folder).map_err(|source| io_error(folder.to_path_buf(), source))?;
    file.sync_all().map_err(|source| io_error(folder.to_path_buf(), source))
}
