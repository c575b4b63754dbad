//! Certificate requests: made by whoever needs a certificate, judged by the authority.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SubjectPublicKeyInfo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::PkiError;

/// Longest certificate request accepted; ours have about 400 bytes.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// A private key in memory: PKCS #8, wiped when dropped, never printed.
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// Takes the key out of a key pair.
    pub(super) fn of(pair: &KeyPair) -> Self {
        Self(Zeroizing::new(pair.serialize_der()))
    }

    /// The key for rustls. The copy is rustls' to keep.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.to_vec()).into()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}

/// A fresh key and the request to certify it.
#[derive(Debug)]
pub struct CertRequest {
    /// The request as PEM text. It names nobody: who the certificate is for is
    /// the authority's decision.
    pub csr_pem: String,
    /// The key that the request is about.
    pub key: PrivateKey,
}

impl CertRequest {
    /// Makes an ECDSA P-256 key and a request for it.
    ///
    /// # Errors
    /// [`PkiError::Generate`] if the operating system gives no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr_pem = params.serialize_request(&pair)?.pem()?;
        Ok(Self { csr_pem, key: PrivateKey::of(&pair) })
    }
}

/// The public key of a request whose sender proved to hold the private one.
/// Everything else that the request says is dropped here.
pub(super) fn proven_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, PkiError> {
    if csr_pem.len() > CSR_BYTES_MAX {
        return Err(PkiError::RequestTooLarge { bytes: csr_pem.len(), max_bytes: CSR_BYTES_MAX });
    }
    let malformed = |problem| PkiError::RequestMalformed { problem };
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|_| malformed("no PEM block CERTIFICATE REQUEST"))?;
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| malformed("not a PKCS #10 structure"))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow the request"));
    }
    if wants_authority(&request) {
        return Err(PkiError::RequestWantsAuthority);
    }
    let key = accepted_key(&request)?;
    request.verify_signature().map_err(|_| PkiError::RequestSignature)?;
    Ok(key)
}

/// Whether any attribute (not only the first) asks to be an authority or to sign.
fn wants_authority(request: &X509CertificationRequest<'_>) -> bool {
    request
        .certification_request_info
        .iter_attributes()
        .filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(wanted) => Some(&wanted.extensions),
            ParsedCriAttribute::ChallengePassword(_) | ParsedCriAttribute::UnsupportedAttribute => None,
        })
        .flatten()
        .any(|extension| match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => constraints.ca,
            ParsedExtension::KeyUsage(usage) => usage.key_cert_sign() || usage.crl_sign(),
            _ => false,
        })
}

/// The request's key, if it is of a kind we certify. RSA is refused whole: our
/// nodes never make such keys, and "2048 bits or more, with a sane exponent" is a
/// check that nobody needs to get right then.
fn accepted_key(request: &X509CertificationRequest<'_>) -> Result<SubjectPublicKeyInfo, PkiError> {
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _};

    let spki = &request.certification_request_info.subject_pki;
    let refuse = || PkiError::KeyNotAccepted { algorithm_oid: spki.algorithm.algorithm.to_id_string() };
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| refuse())?;
    // The length is checked too, since the signature's algorithm and not the
    // key's decides how the signature is verified: a key may not be certified
    // as something else than what it signed as.
    let (point, first, signature_prefix) = if *key.algorithm() == PKCS_ECDSA_P256_SHA256 {
        (65, Some(4), "1.2.840.10045.4.3.")
    } else if *key.algorithm() == PKCS_ECDSA_P384_SHA384 {
        (97, Some(4), "1.2.840.10045.4.3.")
    } else if *key.algorithm() == PKCS_ED25519 {
        (32, None, "1.3.101.112")
    } else {
        return Err(refuse());
    };
    let bytes = key.der_bytes();
    let shape_fits = bytes.len() == point && first.is_none_or(|first| bytes.first() == Some(&first));
    if !shape_fits || !request.signature_algorithm.algorithm.to_id_string().starts_with(signature_prefix) {
        return Err(PkiError::RequestMalformed { problem: "its key does not fit its algorithm" });
    }
    Ok(key)
}
