//! The certificate authority: one key and one self-signed certificate per cluster.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use claw_proto::limits::CERTIFICATE_BACKDATED_S;
use claw_proto::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::certificate::{is_node_id, node_uri, serial_hex, timestamp};
use super::request::proven_key;
use super::{Certificate, PkiError, PrivateKey};
use crate::digest::Fingerprint;
use crate::secret::fill_random;
use crate::secret_file::{SecretFileError, create_private, ensure_private_folder, read_private};
use crate::text::excerpt;

/// A name that every server certificate carries. A node reaches the gateway by
/// whatever address its network gives it (a load balancer, a tunnel), which the
/// gateway cannot know; since only the gateway gets server certificates from this
/// authority, a node may ask for this name instead of the address.
pub const GATEWAY_SERVER_NAME: &str = "gateway.claw.internal";

/// The authority's file: certificate and key in one, so that a crash cannot leave
/// one without the other.
const FILE_NAME: &str = "ca.pem";
/// Common name of every authority; the organization is the cluster's name.
const COMMON_NAME: &str = "Clawbernetes CA";
const CLUSTER_NAME_CHARS_MAX: usize = 64;
/// 9999-12-31T23:59:59Z, the last second that a certificate can state.
const LAST_SECOND: i64 = 253_402_300_799;

/// The cluster's certificate authority, with its key.
pub struct CertificateAuthority {
    cluster_name: String,
    cert_der: CertificateDer<'static>,
    fingerprint: Fingerprint,
    not_before: Timestamp,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster_name, cert_der: _, fingerprint, not_before, not_after, issuer: _ } = self;
        f.debug_struct("CertificateAuthority")
            .field("cluster_name", cluster_name)
            .field("fingerprint", fingerprint)
            .field("not_before", not_before)
            .field("not_after", not_after)
            .finish_non_exhaustive()
    }
}

/// A server certificate and its key.
#[derive(Debug)]
pub struct IssuedServer {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key. There is no need to store it: a new pair costs nothing.
    pub key: PrivateKey,
}

impl CertificateAuthority {
    /// Makes a new authority (ECDSA P-256, may sign end certificates only).
    ///
    /// # Errors
    /// [`PkiError::ClusterName`], [`PkiError::Validity`], [`PkiError::Generate`].
    pub fn create(cluster_name: &str, now: Timestamp, validity: Duration) -> Result<Self, PkiError> {
        let chars = cluster_name.chars().count();
        if chars == 0 || chars > CLUSTER_NAME_CHARS_MAX || cluster_name.chars().any(char::is_control) {
            return Err(PkiError::ClusterName { got: excerpt(cluster_name) });
        }
        let span = Span::new(now, validity)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = span.params()?;
        params.distinguished_name.push(DnType::OrganizationName, cluster_name);
        params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert_der = CertificateDer::from(params.self_signed(&key)?);
        // Read back like any stored one: a new authority and a loaded one are the same.
        Self::assemble(cert_der, key).map_err(|problem| PkiError::AuthorityFile { path: FILE_NAME.into(), problem })
    }

    /// Reads the authority from its folder.
    ///
    /// # Errors
    /// [`PkiError::SecretFile`] if the file is missing or others can read it;
    /// [`PkiError::AuthorityFile`] if it does not hold an authority with its key.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        Self::load_file(&folder.join(FILE_NAME))
    }

    /// Reads the authority from its file.
    pub(super) fn load_file(path: &Path) -> Result<Self, PkiError> {
        let bytes = read_private(path)?;
        Self::from_pem(&bytes).map_err(|problem| PkiError::AuthorityFile { path: path.to_path_buf(), problem })
    }

    /// Writes the authority into its folder (mode 0700, created if missing), as
    /// one file of mode 0600. Never replaces an authority: every node's trust
    /// hangs on it.
    ///
    /// # Errors
    /// [`PkiError::SecretFile`], also if there is an authority already.
    pub fn save(&self, folder: &Path) -> Result<(), PkiError> {
        self.save_as(folder, FILE_NAME)
    }

    /// The same under another name.
    pub(super) fn save_as(&self, folder: &Path, name: &str) -> Result<(), PkiError> {
        ensure_private_folder(folder)?;
        let key_pem = Zeroizing::new(self.issuer.key().serialize_pem());
        let cert_pem = self.cert_pem();
        let mut text = Zeroizing::new(String::with_capacity(cert_pem.len() + key_pem.len()));
        text.push_str(&cert_pem);
        text.push_str(&key_pem);
        Ok(create_private(&folder.join(name), text.as_bytes())?)
    }

    /// The authority of this folder; on the first start a new one, saved before
    /// it is returned. Of two first starts at once, both get the same authority.
    ///
    /// # Errors
    /// As [`Self::load`], [`Self::create`] and [`Self::save`]. A damaged or exposed
    /// file is an error and never a reason to make a new authority.
    pub fn load_or_create(
        folder: &Path,
        cluster_name: &str,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Self, PkiError> {
        match Self::load(folder) {
            Err(PkiError::SecretFile(error)) if error.is_not_found() => {}
            loaded => return loaded,
        }
        let created = Self::create(cluster_name, now, validity)?;
        match created.save(folder) {
            Ok(()) => Ok(created),
            Err(PkiError::SecretFile(SecretFileError::AlreadyExists { .. })) => Self::load(folder),
            Err(error) => Err(error),
        }
    }

    /// Issues a certificate for the gateway's own port, with a fresh key. Besides
    /// the given names it carries [`GATEWAY_SERVER_NAME`].
    ///
    /// # Errors
    /// [`PkiError::DnsName`], [`PkiError::Validity`], [`PkiError::AuthorityNotValid`].
    pub fn issue_server(
        &self,
        dns_names: &[String],
        ips: &[IpAddr],
        now: Timestamp,
        validity: Duration,
    ) -> Result<IssuedServer, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut names = vec![SanType::DnsName(GATEWAY_SERVER_NAME.try_into()?)];
        for name in dns_names {
            let refuse = || PkiError::DnsName { got: excerpt(name) };
            DnsName::try_from(name.as_str()).map_err(|_| refuse())?;
            names.push(SanType::DnsName(name.as_str().try_into().map_err(|_| refuse())?));
        }
        names.extend(ips.iter().copied().map(SanType::IpAddress));
        let profile = Profile { common_name: GATEWAY_SERVER_NAME, names, usage: ExtendedKeyUsagePurpose::ServerAuth };
        let certificate = self.issue(profile, &key, now, validity)?;
        Ok(IssuedServer { certificate, key: PrivateKey::of(&key) })
    }

    /// Certifies the key of a node's request, for clients only, under the name
    /// `node_id` and the URI `claw://node/<node_id>`. Whatever names, usages and
    /// times the request asks for are ignored.
    ///
    /// # Errors
    /// The `Request…` variants of [`PkiError`] and [`PkiError::KeyNotAccepted`] if
    /// the request is not acceptable; [`PkiError::NodeId`]; [`PkiError::Validity`];
    /// [`PkiError::AuthorityNotValid`].
    pub fn sign_node(
        &self,
        csr_pem: &str,
        node_id: &str,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Certificate, PkiError> {
        if !is_node_id(node_id) {
            return Err(PkiError::NodeId { got: excerpt(node_id) });
        }
        let key = proven_key(csr_pem)?;
        let profile = Profile {
            common_name: node_id,
            names: vec![SanType::URI(node_uri(node_id).try_into()?)],
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        };
        self.issue(profile, &key, now, validity)
    }

    /// The same for a request in DER, as it comes over a node's own link.
    ///
    /// # Errors
    /// As [`Self::sign_node`].
    pub fn renew_node(
        &self,
        csr_der: &[u8],
        node_id: &str,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Certificate, PkiError> {
        self.sign_node(&pem_block("CERTIFICATE REQUEST", csr_der), node_id, now, validity)
    }

    /// The cluster's name, as the certificate states it.
    pub fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    /// The authority's certificate.
    pub fn cert_der(&self) -> &CertificateDer<'static> {
        &self.cert_der
    }

    /// The authority's certificate as PEM text. Public.
    pub fn cert_pem(&self) -> String {
        pem_of(&self.cert_der)
    }

    /// SHA-256 of the certificate's DER: what join tokens pin.
    pub fn ca_fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether this authority signed the certificate.
    pub fn has_signed(&self, certificate: &CertificateDer<'_>) -> bool {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        let own = x509_parser::parse_x509_certificate(&self.cert_der);
        let (Ok((_, certificate)), Ok((_, own))) = (parsed, own) else { return false };
        certificate.verify_signature(Some(own.public_key())).is_ok()
    }

    /// When the authority was made, in whole seconds.
    pub fn created_at(&self) -> Timestamp {
        self.not_before.plus_ms(CERTIFICATE_BACKDATED_S * 1_000)
    }

    /// When the authority, and with it every certificate it signed, ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    fn issue(
        &self,
        profile: Profile<'_>,
        key: &impl PublicKeyData,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Certificate, PkiError> {
        if now < self.not_before || now >= self.not_after {
            let (not_before, not_after) = (self.not_before, self.not_after);
            return Err(PkiError::AuthorityNotValid { not_before, not_after, now });
        }
        let span = Span::new(now, validity)?.within(self.not_before, self.not_after);
        let mut params = span.params()?;
        let serial = params.serial_number.as_ref().map_or_else(String::new, |serial| serial_hex(serial.as_ref()));
        params.distinguished_name.push(DnType::CommonName, profile.common_name);
        params.subject_alt_names = profile.names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![profile.usage];
        params.use_authority_key_identifier_extension = true;
        let issued = params.signed_by(key, &self.issuer)?;
        Ok(Certificate::from_issued(issued, serial, span.not_after()))
    }

    fn from_pem(bytes: &[u8]) -> Result<Self, &'static str> {
        let cert_der = CertificateDer::from_pem_slice(bytes).map_err(|_| "it has no PEM block CERTIFICATE")?;
        let key_der = PrivatePkcs8KeyDer::from_pem_slice(bytes).map_err(|_| "it has no PEM block PRIVATE KEY")?;
        let key_der = Zeroizing::new(key_der.secret_pkcs8_der().to_vec());
        let key = KeyPair::try_from(key_der.as_slice()).map_err(|_| "its key is not a PKCS #8 key")?;
        Self::assemble(cert_der, key)
    }

    /// Joins certificate and key after checking that they are an authority of ours.
    fn assemble(cert_der: CertificateDer<'static>, key: KeyPair) -> Result<Self, &'static str> {
        let (_, certificate) =
            x509_parser::parse_x509_certificate(&cert_der).map_err(|_| "its certificate is not X.509")?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            return Err("its key is not that of its certificate");
        }
        certificate.verify_signature(None).map_err(|_| "its certificate is not signed by its own key")?;
        check_authority(&certificate)?;
        let organization = certificate.subject().iter_organization().next().and_then(|name| name.as_str().ok());
        let cluster_name = organization.ok_or("its certificate does not name the cluster")?.to_owned();
        let (not_before, not_after) =
            (timestamp(certificate.validity().not_before), timestamp(certificate.validity().not_after));
        let issuer =
            Issuer::from_ca_cert_der(&cert_der, key).map_err(|_| "its certificate cannot serve as an issuer")?;
        let fingerprint = Fingerprint::of(&cert_der);
        Ok(Self { cluster_name, cert_der, fingerprint, not_before, not_after, issuer })
    }
}

fn check_authority(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    let constraints = certificate.basic_constraints().map_err(|_| "its basic constraints are malformed")?;
    match constraints {
        Some(constraints) if constraints.value.ca && constraints.value.path_len_constraint == Some(0) => {}
        Some(_) | None => {
            return Err("its certificate is not an authority for end certificates only");
        }
    }
    let usage = certificate.key_usage().map_err(|_| "its key usage is malformed")?;
    match usage {
        Some(usage) if usage.value.key_cert_sign() => Ok(()),
        Some(_) | None => Err("its certificate may not sign certificates"),
    }
}

/// What tells one kind of end certificate from another.
struct Profile<'a> {
    common_name: &'a str,
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
}

/// A certificate's validity, in whole seconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Span {
    first_second: i64,
    last_second: i64,
}

impl Span {
    /// From a little before `now` until `validity` after it.
    fn new(now: Timestamp, validity: Duration) -> Result<Self, PkiError> {
        let refuse = || PkiError::Validity { now, validity_ms: validity.as_millis() };
        let validity_ms = i64::try_from(validity.as_millis()).map_err(|_| refuse())?;
        let now_s = now.unix_ms().div_euclid(1_000);
        let last_second = now.plus_ms(validity_ms).unix_ms().div_euclid(1_000);
        if now_s < CERTIFICATE_BACKDATED_S || last_second <= now_s || last_second > LAST_SECOND {
            return Err(refuse());
        }
        Ok(Self { first_second: now_s - CERTIFICATE_BACKDATED_S, last_second })
    }

    /// The part of this span that lies within the authority's own.
    fn within(self, not_before: Timestamp, not_after: Timestamp) -> Self {
        Self {
            first_second: self.first_second.max(not_before.unix_ms().div_euclid(1_000)),
            last_second: self.last_second.min(not_after.unix_ms().div_euclid(1_000)),
        }
    }

    fn not_after(self) -> Timestamp {
        Timestamp::from_unix_ms(self.last_second * 1_000)
    }

    /// Parameters of a certificate that is valid for this span, with a fresh
    /// serial number, without a name.
    fn params(self) -> Result<CertificateParams, PkiError> {
        let epoch = date_time_ymd(1970, 1, 1);
        let mut params = CertificateParams::default();
        params.not_before = epoch + Duration::from_secs(self.first_second.unsigned_abs());
        params.not_after = epoch + Duration::from_secs(self.last_second.unsigned_abs());
        params.serial_number = Some(fresh_serial()?);
        params.distinguished_name = DistinguishedName::new();
        Ok(params)
    }
}

/// A serial number of 128 bits, 126 of them random. The first two are fixed, so
/// that it is positive and always has the same length: one number, one text.
fn fresh_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A certificate as PEM text.
fn pem_of(der: &CertificateDer<'_>) -> String {
    pem_block("CERTIFICATE", der)
}

fn pem_block(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;

    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}
