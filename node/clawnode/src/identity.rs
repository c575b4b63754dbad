//! Who a node is: its data folder, its key and certificate, its lock.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claw_proto::ids::NodeId;
use claw_proto::limits::CERTIFICATE_BACKDATED_S;
use claw_proto::time::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files::{self, Durability};

/// Paths of a node's data folder.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// The folder at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a node keeps its data unless told otherwise.
    pub fn default_root() -> PathBuf {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|_| !rustix::process::getuid().is_root());
        home.map_or_else(|| PathBuf::from("/var/lib/clawnode"), |home| home.join(".local/share/clawnode"))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }
    /// One folder per attempt.
    pub fn workloads(&self) -> PathBuf {
        self.root.join("workloads")
    }
    /// What really ran here.
    pub fn execution_log(&self) -> PathBuf {
        self.root.join("execution.log")
    }
    /// Scripted faults of simulated GPUs.
    pub fn faults(&self) -> PathBuf {
        self.root.join("faults.toml")
    }
    /// When the agent was last seen alive.
    pub fn alive(&self) -> PathBuf {
        self.root.join("alive.json")
    }
    fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }
    fn key(&self) -> PathBuf {
        self.root.join("node.key")
    }
    fn certificate(&self) -> PathBuf {
        self.root.join("node.pem")
    }
    /// Key and certificate of a renewal, in one file: a crash leaves the old pair or the new one.
    fn renewed(&self) -> PathBuf {
        self.root.join("credentials.pem")
    }
    fn authority(&self) -> PathBuf {
        self.root.join("ca.pem")
    }

    /// Creates the folder. Others may pass through it (workloads of other users
    /// have their working folder below), and read nothing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(&self) -> io::Result<()> {
        files::create_passable(&self.root)
    }

    /// Takes the folder for one agent, as long as the file lives.
    ///
    /// # Errors
    /// [`IdentityError::Locked`] if another agent has it.
    pub fn lock(&self) -> Result<File, IdentityError> {
        let path = self.root.join("lock");
        let io_error = |source| IdentityError::Io { path: path.clone(), source };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io_error)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(IdentityError::Locked { path: self.root.clone() }),
            Err(error) => Err(io_error(error.into())),
        }
    }
}

/// Why a node does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody enrolled this folder.
    #[error("{path} belongs to no node yet: run `clawnode join <gateway> --token <token>`")]
    NotEnrolled {
        /// The data folder.
        path: PathBuf,
    },
    /// Another agent uses the folder.
    #[error("another agent is running on {path}")]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key is not one.
    #[error("{path} holds no certificate or key: {source}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// Key and certificates do not go together.
    #[error("the node's certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// What enrollment left in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The node's id.
    pub node_id: NodeId,
    /// Name that it enrolled under.
    pub name: String,
    /// Where the gateway takes nodes.
    pub node_url: String,
}

/// How long a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

/// Everything that enrollment yields.
#[derive(Debug)]
pub struct Credentials<'a> {
    /// Who the node is.
    pub identity: &'a Identity,
    /// Its private key.
    pub key_pem: &'a str,
    /// Its certificate.
    pub certificate_pem: &'a str,
    /// The cluster's authority.
    pub authority_pem: &'a str,
}

impl DataDir {
    /// Whether a node lives here.
    pub fn is_enrolled(&self) -> bool {
        self.identity().exists()
    }

    /// Keeps what enrollment yielded; `identity.json` last, so that a folder is
    /// enrolled wholly or not at all.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn store(&self, credentials: &Credentials<'_>) -> Result<(), IdentityError> {
        let files = [
            (self.key(), credentials.key_pem),
            (self.certificate(), credentials.certificate_pem),
            (self.authority(), credentials.authority_pem),
        ];
        for (path, text) in files {
            files::replace(&path, text.as_bytes(), Durability::Synced)
                .map_err(|source| IdentityError::Io { path, source })?;
        }
        let path = self.identity();
        files::replace_json(&path, credentials.identity, Durability::Synced)
            .map_err(|source| IdentityError::Io { path, source })
    }

    /// Reads who the node is.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(&self) -> Result<Identity, IdentityError> {
        let path = self.identity();
        let identity = files::read_json(&path).map_err(|source| IdentityError::Io { path, source })?;
        identity.ok_or_else(|| IdentityError::NotEnrolled { path: self.root.clone() })
    }

    /// TLS 1.3 to the cluster's authority only, with the node's own certificate.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn tls(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(&self.authority())? {
            roots.add(certificate)?;
        }
        let (key_path, chain_path) = self.pair();
        let key =
            PrivateKeyDer::from_pem_file(&key_path).map_err(|source| IdentityError::Pem { path: key_path, source })?;
        client_config(roots, read_certificates(&chain_path)?, key)
    }

    /// Where key and certificate stand.
    fn pair(&self) -> (PathBuf, PathBuf) {
        let renewed = self.renewed();
        if renewed.exists() { (renewed.clone(), renewed) } else { (self.key(), self.certificate()) }
    }

    /// Keeps a renewed certificate with its key, once they are known to go together.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] if they do not; [`IdentityError::Io`].
    pub fn store_renewed(&self, key_pem: &str, chain: &[CertificateDer<'static>]) -> Result<(), IdentityError> {
        let path = self.renewed();
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|source| IdentityError::Pem { path: path.clone(), source })?;
        client_config(RootCertStore::empty(), chain.to_vec(), key)?;
        let mut text = Zeroizing::new(key_pem.to_owned());
        for certificate in chain {
            text.push_str(&pem_of(certificate));
        }
        files::replace(&path, text.as_bytes(), Durability::Synced).map_err(|source| IdentityError::Io { path, source })
    }

    /// Keeps the authorities that the node shall trust from now on.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] if one of them is none; [`IdentityError::Io`].
    pub fn store_authorities(&self, authorities: &[CertificateDer<'static>]) -> Result<(), IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in authorities {
            roots.add(certificate.clone())?;
        }
        let text: String = authorities.iter().map(pem_of).collect();
        let path = self.authority();
        files::replace(&path, text.as_bytes(), Durability::Synced).map_err(|source| IdentityError::Io { path, source })
    }

    /// Keeps what a second enrollment of the same node yielded.
    ///
    /// # Errors
    /// As [`Self::store_renewed`] and [`Self::store_authorities`].
    pub fn store_again(&self, key_pem: &str, chain_pem: &str, authorities_pem: &str) -> Result<(), IdentityError> {
        let read = |pem: &str| -> Result<Vec<CertificateDer<'static>>, IdentityError> {
            let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            certificates.map_err(|source| IdentityError::Pem { path: self.renewed(), source })
        };
        self.store_authorities(&read(authorities_pem)?)?;
        self.store_renewed(key_pem, &read(chain_pem)?)
    }

    /// The authorities that the node trusts.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        read_certificates(&self.authority())
    }

    /// When the node got its certificate, and when that ends.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn validity(&self) -> Result<Validity, IdentityError> {
        let (_, path) = self.pair();
        let chain = read_certificates(&path)?;
        let leaf = chain.first().and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok());
        let Some((_, leaf)) = leaf else {
            return Err(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding).into());
        };
        let stated = leaf.validity();
        let ms = |seconds: i64| Timestamp::from_unix_ms(seconds.saturating_mul(1_000));
        let issued_at = ms(stated.not_before.timestamp().saturating_add(CERTIFICATE_BACKDATED_S));
        Ok(Validity { issued_at, not_after: ms(stated.not_after.timestamp()) })
    }
}

fn client_config(
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let encoded = STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let pem_error = |source| IdentityError::Pem { path: path.to_path_buf(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(pem_error)?;
    certificates.collect::<Result<Vec<_>, _>>().map_err(pem_error)
}
