use std::collections::BTreeMap;
use std::fmt::Write as _;

use claw_proto::time::Timestamp;
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::SecretHash;

const NOW: Timestamp = Timestamp::from_unix_ms(1_772_366_400_000);
const KEY_ID: &str = "key_0000000000000000000000000a";

fn stored(key: &ApiKey) -> StoredKey {
    StoredKey {
        hash: key.hash(),
        role: Role::Operator,
        kind: PrincipalKind::Agent,
        principal: "deploy-bot".to_owned(),
        revoked: false,
        expires_at: None,
    }
}

fn authenticator(key: &ApiKey, stored: StoredKey) -> Authenticator {
    Authenticator::new(BTreeMap::from([(key.key_id().to_owned(), stored)]))
}

fn bearer(text: &str) -> Vec<u8> {
    format!("Bearer {text}").into_bytes()
}

#[test]
fn the_holder_of_a_key_is_its_principal() {
    let key = ApiKey::generate(KEY_ID).unwrap();
    let authenticator = authenticator(&key, stored(&key));
    let expected = AuthContext {
        principal: "deploy-bot".to_owned(),
        key_id: KEY_ID.to_owned(),
        role: Role::Operator,
        kind: PrincipalKind::Agent,
    };
    for header in [bearer(&key.to_text()), format!("bearer   {} ", key.to_text().as_str()).into_bytes()] {
        assert_eq!(authenticator.authenticate(&header, NOW), Ok(expected.clone()));
    }
}

#[test]
fn unknown_and_wrong_keys_get_the_same_answer() {
    let key = ApiKey::generate(KEY_ID).unwrap();
    let mut revoked = stored(&key);
    revoked.revoked = true;
    let authenticator = authenticator(&key, revoked);
    let wrong = ApiKey::generate(KEY_ID).unwrap();
    let unknown = ApiKey::generate("key_other").unwrap();

    let answers = [&wrong, &unknown].map(|key| authenticator.authenticate(&bearer(&key.to_text()), NOW).unwrap_err());
    // Not even that the key was revoked is told to who does not hold it.
    assert_eq!(answers, [AuthError::Invalid, AuthError::Invalid]);
}

#[test]
fn a_stored_hash_of_zeros_lets_nobody_in() {
    let key = ApiKey::generate(KEY_ID).unwrap();
    let mut zeros = stored(&key);
    zeros.hash = SecretHash::from_bytes([0; 32]);
    let authenticator = authenticator(&key, zeros);
    assert_eq!(authenticator.authenticate(&bearer(&key.to_text()), NOW), Err(AuthError::Invalid));
}

#[test]
fn revoked_and_expired_keys_are_told_to_their_holder() {
    let key = ApiKey::generate(KEY_ID).unwrap();
    let header = bearer(&key.to_text());
    let mut revoked = stored(&key);
    revoked.revoked = true;
    assert_eq!(
        authenticator(&key, revoked).authenticate(&header, NOW),
        Err(AuthError::Revoked { key_id: KEY_ID.to_owned() })
    );

    let mut expiring = stored(&key);
    expiring.expires_at = Some(NOW);
    let authenticator = authenticator(&key, expiring);
    assert!(authenticator.authenticate(&header, NOW.plus_ms(-1)).is_ok());
    assert_eq!(
        authenticator.authenticate(&header, NOW),
        Err(AuthError::Expired { key_id: KEY_ID.to_owned(), at: NOW })
    );
}

#[test]
fn what_is_not_an_api_key_is_refused_with_the_remedy() {
    let key = ApiKey::generate(KEY_ID).unwrap();
    let authenticator = authenticator(&key, stored(&key));
    let text = key.to_text();
    let mut answers = String::new();
    let mut note = |name: &str, header: &[u8]| {
        let answer = authenticator.authenticate(header, NOW).unwrap_err();
        writeln!(answers, "{name}: {answer}").unwrap();
    };
    note("nothing", b"");
    note("another scheme", format!("Basic {}", text.as_str()).as_bytes());
    note("no scheme", text.as_bytes());
    note("two keys", format!("Bearer {0},{0}", text.as_str()).as_bytes());
    note("no UTF-8", b"Bearer \xff\xfe");
    note("endless", &vec![b'A'; 100_000]);
    note("another product's", b"Bearer sk-0123456789abcdef");
    expect![[r#"
        nothing: no credentials; send the header Authorization: Bearer <api key>
        another scheme: the credentials are not an API key; send the header Authorization: Bearer clawkey_…
        no scheme: the credentials are not an API key; send the header Authorization: Bearer clawkey_…
        two keys: the credentials are not an API key; send the header Authorization: Bearer clawkey_…
        no UTF-8: the credentials are not an API key; send the header Authorization: Bearer clawkey_…
        endless: the credentials are not an API key; send the header Authorization: Bearer clawkey_…
        another product's: the credentials are not an API key; send the header Authorization: Bearer clawkey_…
    "#]]
    .assert_eq(&answers);
}

#[test]
fn roles_and_permissions_are_this_table() {
    let mut table = String::new();
    for permission in Permission::ALL.iter().copied() {
        write!(table, "{:15}", permission.as_str()).unwrap();
        for role in Role::ALL.iter().copied() {
            let mark = if RbacPolicy::allows(role, permission) { role.as_str() } else { "-" };
            write!(table, " {mark:8}").unwrap();
        }
        table.truncate(table.trim_end().len());
        table.push('\n');
    }
    expect![[r#"
        read            viewer   operator admin
        logs            viewer   operator admin
        events_read     viewer   operator admin
        workload_write  -        operator admin
        workload_exec   -        operator admin
        node_write      -        operator admin
        node_admin      -        -        admin
        secret_write    -        operator admin
        quota_admin     -        -        admin
        access_admin    -        -        admin
        approve         -        -        admin
    "#]]
    .assert_eq(&table);
}

#[test]
fn a_context_has_the_permissions_of_its_role() {
    for role in Role::ALL.iter().copied() {
        let context =
            AuthContext { principal: String::new(), key_id: String::new(), role, kind: PrincipalKind::Person };
        for permission in Permission::ALL.iter().copied() {
            assert_eq!(context.allows(permission), RbacPolicy::allows(role, permission));
        }
    }
}

#[test]
fn a_key_never_shows_its_secret() {
    let key = ApiKey::generate(KEY_ID).unwrap();
    assert_eq!(format!("{key:?}"), r#"ApiKey { key_id: "key_0000000000000000000000000a", secret: [redacted] }"#);
    let text = key.to_text();
    let damaged = ApiKey::parse(&text[..text.len() - 1]).unwrap_err();
    let secret = &text[text.len() - 43..];
    for shown in [format!("{key:#?}"), format!("{damaged:?} {damaged}")] {
        assert!(!shown.contains(&secret[..8]), "{shown}");
    }
}

#[test]
fn a_key_id_is_an_identifier() {
    for bad in ["", "Key", "key-1", "key 1", "é", &"k".repeat(65)] {
        assert!(matches!(ApiKey::generate(bad), Err(ApiKeyError::KeyId { .. })), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn text_form_roundtrips(key_id in "[a-z0-9_]{1,64}") {
        let key = ApiKey::generate(&key_id).unwrap();
        let text = key.to_text();
        let parsed = ApiKey::parse(&text).unwrap();
        prop_assert_eq!(parsed.key_id(), key_id);
        prop_assert!(parsed.verify(&key.hash()));
        prop_assert_eq!(&parsed.to_text(), &text);
    }

    #[test]
    fn any_other_text_is_refused(place: prop::sample::Index, other in "[ -~]") {
        let key = ApiKey::generate(KEY_ID).unwrap();
        let authenticator = authenticator(&key, stored(&key));
        let text = key.to_text();
        let place = place.index(text.len());
        let mut flipped = text.to_string();
        flipped.replace_range(place..=place, &other);
        prop_assume!(flipped != text.as_str());
        // A blank at the end is trimmed, and the rest is then one character short.
        prop_assert!(authenticator.authenticate(&bearer(&flipped), NOW).is_err());
    }

    #[test]
    fn parsing_never_panics(text in "(clawkey_)?[a-z0-9_é]{0,70}[A-Za-z0-9_é-]{0,60}", header: Vec<u8>) {
        if let Ok(key) = ApiKey::parse(&text) {
            prop_assert!(*key.to_text() == text);
        }
        prop_assert!(Authenticator::default().authenticate(&header, NOW).is_err());
    }
}
