use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use expect_test::expect;
use proptest::prelude::*;
use rcgen::{
    Attribute, BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::Fingerprint;

mod identity;
mod requests;

const NOW: Timestamp = Timestamp::from_unix_ms(1_772_366_400_000);
const HOUR: Duration = Duration::from_hours(1);
const YEAR: Duration = Duration::from_hours(24 * 365);
const NODE: &str = "node_0000000000000000000000000a";
/// An OID that is `extensionRequest` of PKCS #9.
const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113_549, 1, 9, 14];

fn authority() -> CertificateAuthority {
    CertificateAuthority::create("lab", NOW, YEAR).unwrap()
}

/// A request that rcgen makes from any parameters, with a P-256 key.
fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    X509Certificate::from_der(der).unwrap().1
}

/// Everything that a certificate says, save key, serial number and signature.
fn describe(der: &CertificateDer<'_>) -> String {
    let certificate = parse(der);
    let mut text = String::new();
    let validity = certificate.validity();
    let (from, to) = (certificate::timestamp(validity.not_before), certificate::timestamp(validity.not_after));
    writeln!(text, "subject  {}\nissuer   {}", certificate.subject(), certificate.issuer()).unwrap();
    writeln!(text, "valid    {from} to {to}").unwrap();
    for extension in certificate.extensions() {
        use x509_parser::extensions::ParsedExtension as P;
        let critical = if extension.critical { " (critical)" } else { "" };
        let value = match extension.parsed_extension() {
            P::SubjectAlternativeName(names) => format!("names {:?}", names.general_names),
            P::KeyUsage(usage) => format!("usage {usage}"),
            P::ExtendedKeyUsage(usage) => {
                format!(
                    "client {} server {} any {} other {:?}",
                    usage.client_auth, usage.server_auth, usage.any, usage.other
                )
            }
            P::BasicConstraints(c) => {
                format!("authority {} path {:?}", c.ca, c.path_len_constraint)
            }
            P::AuthorityKeyIdentifier(_) => "authority's key id".to_owned(),
            P::SubjectKeyIdentifier(_) => "key id".to_owned(),
            other => format!("unexpected {other:?}"),
        };
        writeln!(text, "         {value}{critical}").unwrap();
    }
    text
}

#[test]
fn an_authority_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("pki");
    let first = CertificateAuthority::load_or_create(&folder, "lab", NOW, YEAR).unwrap();
    let second = CertificateAuthority::load_or_create(&folder, "other", NOW.plus_ms(1), HOUR).unwrap();

    assert_eq!(second.ca_fingerprint(), first.ca_fingerprint());
    assert_eq!(second.cluster_name(), "lab");
    assert_eq!(second.not_after(), first.not_after());
    assert_eq!(second.cert_pem(), first.cert_pem());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&folder), mode(&folder.join("ca.pem"))), (0o700, 0o600));

    // What either signs, the certificate of the other verifies.
    let signed = second.sign_node(&CertRequest::generate().unwrap().csr_pem, NODE, NOW, HOUR).unwrap();
    let root = parse(first.cert_der());
    parse(&signed.der).verify_signature(Some(root.public_key())).unwrap();

    let error = authority().save(&folder).unwrap_err();
    assert!(matches!(error, PkiError::SecretFile(SecretFileError::AlreadyExists { .. })), "{error}");
}

#[test]
fn first_starts_at_once_get_the_same_authority() {
    let folder = tempfile::tempdir().unwrap();
    let path = &folder.path().join("pki");
    let fingerprints: std::collections::BTreeSet<Fingerprint> = std::thread::scope(|scope| {
        let start = || CertificateAuthority::load_or_create(path, "lab", NOW, YEAR).unwrap().ca_fingerprint();
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert_eq!(fingerprints.len(), 1);
}

#[test]
fn a_damaged_authority_is_an_error_and_never_a_new_one() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pki");
    let path = folder.join("ca.pem");
    authority().save(&folder).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let key_at = good.find("-----BEGIN PRIVATE KEY-----").unwrap();
    let (cert, key) = good.split_at(key_at);
    let other = parent.path().join("other");
    authority().save(&other).unwrap();
    let other_pem = fs::read_to_string(other.join("ca.pem")).unwrap();
    let other_key = &other_pem[other_pem.find("-----BEGIN PRIVATE KEY-----").unwrap()..];
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().self_signed(&leaf_key).unwrap();

    let mut answers = String::new();
    for (name, content) in [
        ("empty", String::new()),
        ("certificate only", cert.to_owned()),
        ("key only", key.to_owned()),
        ("another's key", format!("{cert}{other_key}")),
        ("no authority", format!("{}{}", leaf.pem(), leaf_key.serialize_pem())),
    ] {
        fs::write(&path, content).unwrap();
        let error = CertificateAuthority::load_or_create(&folder, "lab", NOW, YEAR).unwrap_err().to_string();
        writeln!(answers, "{name}: {}", error.replace(&path.display().to_string(), "ca.pem")).unwrap();
    }
    fs::write(&path, &good).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = CertificateAuthority::load_or_create(&folder, "lab", NOW, YEAR).unwrap_err().to_string();
    writeln!(answers, "readable: {}", error.replace(&path.display().to_string(), "ca.pem")).unwrap();
    expect![[r#"
        empty: ca.pem does not hold the certificate authority: it has no PEM block CERTIFICATE
        certificate only: ca.pem does not hold the certificate authority: it has no PEM block PRIVATE KEY
        key only: ca.pem does not hold the certificate authority: it has no PEM block CERTIFICATE
        another's key: ca.pem does not hold the certificate authority: its key is not that of its certificate
        no authority: ca.pem does not hold the certificate authority: its certificate is not an authority for end certificates only
        readable: ca.pem has mode 0644, so others can reach the secret in it; run: chmod 600 ca.pem
    "#]].assert_eq(&answers);
}

#[test]
fn certificates_say_exactly_this() {
    let authority = authority();
    let asks_for_everything = request(|params| {
        params.distinguished_name.push(DnType::CommonName, "node_other");
        params.subject_alt_names = vec![
            SanType::URI("claw://node/node_other".try_into().unwrap()),
            SanType::DnsName(GATEWAY_SERVER_NAME.try_into().unwrap()),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    });
    let node = authority.sign_node(&asks_for_everything, NODE, NOW, HOUR).unwrap();
    let server = authority
        .issue_server(&["gw.example".to_owned()], &["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()], NOW, HOUR)
        .unwrap();
    let told = format!(
        "authority\n{}\nnode\n{}\nserver\n{}",
        describe(authority.cert_der()),
        describe(&node.der),
        describe(&server.certificate.der)
    );
    expect![[r#"
        authority
        subject  O=lab, CN=Clawbernetes CA
        issuer   O=lab, CN=Clawbernetes CA
        valid    2026-03-01T11:55:00.000Z to 2027-03-01T12:00:00.000Z
                 usage Key Cert Sign, CRL Sign (critical)
                 key id
                 authority true path Some(0) (critical)

        node
        subject  CN=node_0000000000000000000000000a
        issuer   O=lab, CN=Clawbernetes CA
        valid    2026-03-01T11:55:00.000Z to 2026-03-01T13:00:00.000Z
                 authority's key id
                 names [URI("claw://node/node_0000000000000000000000000a")]
                 usage Digital Signature (critical)
                 client true server false any false other []
                 key id
                 authority false path None (critical)

        server
        subject  CN=gateway.claw.internal
        issuer   O=lab, CN=Clawbernetes CA
        valid    2026-03-01T11:55:00.000Z to 2026-03-01T13:00:00.000Z
                 authority's key id
                 names [DNSName("gateway.claw.internal"), DNSName("gw.example"), IPAddress([127, 0, 0, 1]), IPAddress([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]
                 usage Digital Signature (critical)
                 client false server true any false other []
                 key id
                 authority false path None (critical)
    "#]].assert_eq(&told);
}

#[test]
fn a_node_is_identified_by_what_the_gateway_decided() {
    let authority = authority();
    let issued = authority.sign_node(&CertRequest::generate().unwrap().csr_pem, NODE, NOW, HOUR).unwrap();
    let identity = peer_node_id(&[issued.der.clone(), authority.cert_der().clone()]).unwrap();
    let expected = NodeIdentity {
        node_id: NODE.to_owned(),
        serial_hex: issued.serial_hex.clone(),
        issued_at: NOW,
        not_after: NOW.plus_ms(3_600_000),
        fingerprint: issued.fingerprint,
    };
    assert_eq!(identity, expected);
    assert_eq!(issued.not_after, expected.not_after);
    assert_eq!(issued.fingerprint, Fingerprint::of(&issued.der));
    assert!(issued.serial_hex.len() == 32 && !issued.serial_hex.starts_with('0'), "{}", issued.serial_hex);
}

#[test]
fn server_and_cluster_names_are_checked() {
    let authority = authority();
    for bad in ["", "a b", "-x.example", "x..example", "é.example", "*.example"] {
        let error = authority.issue_server(&[bad.to_owned()], &[], NOW, HOUR).unwrap_err();
        assert!(matches!(error, PkiError::DnsName { .. }), "{bad:?}: {error}");
    }
    for bad in ["", "a\nb", &"n".repeat(65)] {
        let error = CertificateAuthority::create(bad, NOW, HOUR).unwrap_err();
        assert!(matches!(error, PkiError::ClusterName { .. }), "{bad:?}: {error}");
    }
}

#[test]
fn no_certificate_outlives_the_authority() {
    let authority = authority();
    let csr = CertRequest::generate().unwrap().csr_pem;
    let end = authority.not_after();
    let issued = authority.sign_node(&csr, NODE, end.plus_ms(-1_000), YEAR).unwrap();
    assert_eq!(issued.not_after, end);
    for now in [end, NOW.plus_ms(-3_600_000)] {
        let error = authority.sign_node(&csr, NODE, now, HOUR).unwrap_err();
        assert!(matches!(error, PkiError::AuthorityNotValid { .. }), "{error}");
    }
}

#[test]
fn keys_never_show_themselves() {
    let authority = authority();
    let request = CertRequest::generate().unwrap();
    let server = authority.issue_server(&[], &[], NOW, HOUR).unwrap();
    assert_eq!(format!("{:?}", request.key), "PrivateKey([redacted])");
    for shown in [format!("{request:?}"), format!("{server:?}")] {
        assert!(shown.contains("key: PrivateKey([redacted])"), "{shown}");
    }
    assert_eq!(
        format!("{authority:?}"),
        format!(
            "CertificateAuthority {{ cluster_name: \"lab\", fingerprint: {}, \
             not_before: 2026-03-01T11:55:00.000Z, not_after: 2027-03-01T12:00:00.000Z, .. }}",
            authority.ca_fingerprint()
        )
    );
}

proptest! {
    /// Any times give a certificate or an error; the certificate states them.
    #[test]
    fn any_time_is_stated_or_refused(now_ms in prop_oneof![any::<i64>(), 0..260_000_000_000_000_i64], seconds in prop_oneof![any::<u64>(), 0..10_000_000_000_u64]) {
        let now = Timestamp::from_unix_ms(now_ms);
        match CertificateAuthority::create("lab", now, Duration::from_secs(seconds)) {
            Ok(authority) => {
                let end = now.plus_ms(i64::try_from(seconds).unwrap() * 1_000).unix_ms();
                prop_assert_eq!(authority.not_after().unix_ms(), end.div_euclid(1_000) * 1_000);
            }
            Err(error) => prop_assert!(matches!(error, PkiError::Validity { .. }), "{}", error),
        }
    }
}
