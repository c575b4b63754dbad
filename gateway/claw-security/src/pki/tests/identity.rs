//! Who a certificate makes its bearer, and when it no longer does.

use rcgen::ExtendedKeyUsagePurpose as Usage;

use super::*;

/// A certificate of any form, as only a bug of ours could make it.
fn forged(common_name: &str, uris: &[&str], usages: &[Usage], is_ca: IsCa) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = usages.to_vec();
    params.is_ca = is_ca;
    CertificateDer::from(params.self_signed(&key).unwrap())
}

/// TLS checks who signed a certificate; this checks that it is of the one form
/// that makes its bearer a node.
#[test]
fn certificates_of_another_form_are_nobody() {
    let (id, own, client) = ("node_a", ["claw://node/node_a"], [Usage::ClientAuth]);
    let leaf = || IsCa::NoCa;
    let good = forged(id, &own, &client, leaf());
    assert_eq!(peer_node_id(std::slice::from_ref(&good)).unwrap().node_id, id);

    let authority = authority();
    let server = authority.issue_server(&[], &[], NOW, HOUR).unwrap();
    let both = [Usage::ClientAuth, Usage::ServerAuth];
    let any = [Usage::ClientAuth, Usage::Any];
    let signer = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut answers = String::new();
    let mut note = |name: &str, certs: &[CertificateDer<'_>]| {
        writeln!(answers, "{name}: {}", peer_node_id(certs).unwrap_err()).unwrap();
    };
    note("none", &[]);
    note("garbage", &[CertificateDer::from(vec![0x30, 0x03, 0, 0, 0])]);
    note("bytes after it", &[CertificateDer::from([good.as_ref(), &[0]].concat())]);
    note("the authority", &[authority.cert_der().clone()]);
    note("the server", &[server.certificate.der, good]);
    note("no usage", &[forged(id, &own, &[], leaf())]);
    note("client and server", &[forged(id, &own, &both, leaf())]);
    note("client and any", &[forged(id, &own, &any, leaf())]);
    note("signer", &[forged(id, &own, &client, signer)]);
    note("no name", &[forged(id, &[], &client, leaf())]);
    note("two names", &[forged(id, &[own[0], "claw://node/node_b"], &client, leaf())]);
    note("other scheme", &[forged(id, &["http://node/node_a"], &client, leaf())]);
    note("path in id", &[forged(id, &["claw://node/node_a/x"], &client, leaf())]);
    note("other common name", &[forged("node_b", &own, &client, leaf())]);
    expect![[r#"
        none: the connection has no client certificate
        garbage: the certificate is not a node's: it is not an X.509 certificate
        bytes after it: the certificate is not a node's: bytes follow the certificate
        the authority: the certificate is not a node's: it is a certificate authority
        the server: the certificate is not a node's: it is not for clients only
        no usage: the certificate is not a node's: it is not for clients only
        client and server: the certificate is not a node's: it is not for clients only
        client and any: the certificate is not a node's: it is not for clients only
        signer: the certificate is not a node's: it is a certificate authority
        no name: the certificate is not a node's: it does not have exactly one alternative name, a URI
        two names: the certificate is not a node's: it does not have exactly one alternative name, a URI
        other scheme: the certificate is not a node's: its URI is not that of a node
        path in id: the certificate is not a node's: its URI is not that of a node
        other common name: the certificate is not a node's: its common name and its URI name different nodes
    "#]]
    .assert_eq(&answers);
}

#[test]
fn a_revocation_hits_by_serial_and_by_node() {
    let identity = NodeIdentity {
        node_id: NODE.to_owned(),
        serial_hex: "4a0b".to_owned(),
        issued_at: NOW,
        not_after: NOW,
        fingerprint: Fingerprint::of(b""),
    };
    let check = |change: fn(&mut RevocationList)| {
        let mut list = RevocationList::new();
        change(&mut list);
        list.check(&identity).map_err(|error| error.to_string())
    };
    let refused = Err("certificate 4a0b of node_0000000000000000000000000a is revoked".to_owned());
    assert_eq!(check(|_| ()), Ok(()));
    assert_eq!(check(|list| list.revoke_serial("4a0c")), Ok(()));
    assert_eq!(check(|list| list.revoke_serial("4a0b")), refused);
    assert_eq!(check(|list| list.revoke_serial("00:4A:0B")), refused, "as other tools print it");
    assert_eq!(check(|list| list.revoke_node(NODE)), refused);
    assert_eq!(check(|list| list.revoke_node("node_other")), Ok(()));
}
