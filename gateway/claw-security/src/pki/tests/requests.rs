//! Which requests are certified, and what of them.

use super::*;

#[test]
fn requests_that_are_not_acceptable_are_refused_with_a_reason() {
    let good = CertRequest::generate().unwrap().csr_pem;
    let constraint = |is_ca| request(|params| params.is_ca = is_ca);
    let usage = |usage| request(|params| params.key_usages = vec![usage]);
    // A second request attribute, where a careless reader looks at the first only.
    let hidden = {
        let wanted = Attribute { oid: EXTENSION_REQUEST, values: hidden_authority_extension() };
        let mut params = CertificateParams::default();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let pair = KeyPair::generate().unwrap();
        params.serialize_request_with_attributes(&pair, vec![wanted]).unwrap().pem().unwrap()
    };
    let authority = authority();
    let mut answers = String::new();
    for (name, csr) in [
        ("empty", String::new()),
        ("a certificate", authority.cert_pem()),
        ("cut", good[..good.len() / 2].to_owned()),
        ("huge", "A".repeat(CSR_BYTES_MAX + 1)),
        ("authority", constraint(IsCa::Ca(BasicConstraints::Unconstrained))),
        ("authority, path 0", constraint(IsCa::Ca(BasicConstraints::Constrained(0)))),
        ("may sign", usage(KeyUsagePurpose::KeyCertSign)),
        ("authority, hidden", hidden),
        ("RSA 2048", include_str!("../testdata/rsa2048.csr.pem").to_owned()),
        ("P-521", include_str!("../testdata/p521.csr.pem").to_owned()),
    ] {
        let error = authority.sign_node(&csr, NODE, NOW, HOUR).unwrap_err();
        writeln!(answers, "{name}: {error}").unwrap();
    }
    expect![[r#"
        empty: the certificate request is malformed: no PEM block CERTIFICATE REQUEST
        a certificate: the certificate request is malformed: no PEM block CERTIFICATE REQUEST
        cut: the certificate request is malformed: no PEM block CERTIFICATE REQUEST
        huge: the certificate request has 16385 bytes, more than 16384
        authority: the certificate request asks for a certificate authority
        authority, path 0: the certificate request asks for a certificate authority
        may sign: the certificate request asks for a certificate authority
        authority, hidden: the certificate request asks for a certificate authority
        RSA 2048: the key of the certificate request is not ECDSA P-256, ECDSA P-384 or Ed25519 (its algorithm is 1.2.840.113549.1.1.1)
        P-521: the key of the certificate request is not ECDSA P-256, ECDSA P-384 or Ed25519 (its algorithm is 1.2.840.10045.2.1)
    "#]].assert_eq(&answers);
}

/// `SET { Extensions { BasicConstraints { cA TRUE } } }`, by hand.
fn hidden_authority_extension() -> Vec<u8> {
    let basic_constraints = [0x06, 0x03, 0x55, 0x1d, 0x13, 0x04, 0x05, 0x30, 0x03, 0x01, 0x01, 0xff];
    let mut wrapped = basic_constraints.to_vec();
    for tag in [0x30, 0x30, 0x31] {
        wrapped.insert(0, u8::try_from(wrapped.len()).unwrap());
        wrapped.insert(0, tag);
    }
    wrapped
}

/// The signature's algorithm does not say what the key is: a P-384 key may sign
/// with SHA-256, and must be certified as the P-384 key it is.
#[test]
fn the_certified_key_is_the_requests_key() {
    let p384 = include_str!("../testdata/p384_sha256.csr.pem");
    for csr in [p384.to_owned(), CertRequest::generate().unwrap().csr_pem, ed25519_request()] {
        let issued = authority().sign_node(&csr, NODE, NOW, HOUR).unwrap();
        assert_eq!(parse(&issued.der).public_key().raw, spki_of_request(&csr));
    }
}

fn ed25519_request() -> String {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap()
}

fn request_der(csr_pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject as _;
    rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes()).unwrap().to_vec()
}

fn spki_of_request(csr_pem: &str) -> Vec<u8> {
    let der = request_der(csr_pem);
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&der).unwrap();
    request.certification_request_info.subject_pki.raw.to_vec()
}

fn request_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
}

#[test]
fn node_ids_that_could_mean_something_else_are_refused() {
    let csr = CertRequest::generate().unwrap().csr_pem;
    let authority = authority();
    for bad in [
        "",
        "node_",
        "wl_0",
        "node_a/../node_b",
        "node_A",
        "node_a,CN=x",
        "node_\n",
        &format!("node_{}", "a".repeat(60)),
    ] {
        let error = authority.sign_node(&csr, bad, NOW, HOUR).unwrap_err();
        assert!(matches!(error, PkiError::NodeId { .. }), "{bad:?}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens to a request on its way, no other key gets certified.
    #[test]
    fn an_altered_request_certifies_no_other_key(at: prop::sample::Index, other: u8) {
        let csr = CertRequest::generate().unwrap().csr_pem;
        let mut der = request_der(&csr);
        let at = at.index(der.len());
        der[at] = other;
        if let Ok(key) = request::proven_key(&request_pem(&der)) {
            prop_assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&key), spki_of_request(&csr));
        }
    }

    #[test]
    fn parsers_never_panic(der: Vec<u8>, text: String) {
        let _ = request::proven_key(&text);
        let _ = request::proven_key(&request_pem(&der));
        prop_assert!(peer_node_id(&[CertificateDer::from(der)]).is_err());
    }
}
