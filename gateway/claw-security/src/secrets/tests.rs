use proptest::prelude::*;

use super::*;

fn store() -> (tempfile::TempDir, SecretStore) {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::load_or_create(&dir.path().join("secrets.key")).unwrap();
    (dir, SecretStore::new(&key))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, .. ProptestConfig::default() })]

    /// What was sealed opens for its handle, and for no other; no changed byte passes.
    #[test]
    fn a_sealed_value_opens_whole_or_not_at_all(value: Vec<u8>, handle in "[a-z]{1,8}", at: usize, bit in 0..8_u8) {
        let (_dir, store) = store();
        let sealed = store.seal(&handle, &value).unwrap();
        prop_assert_eq!(&*store.open(&handle, sealed.as_bytes()).unwrap(), &value);
        prop_assert_eq!(store.open("other-handle", sealed.as_bytes()).unwrap_err(), OpenError::Refused);
        let mut bytes = STANDARD.decode(&sealed).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(store.open(&handle, STANDARD.encode(&bytes).as_bytes()).is_err());
        bytes.truncate(at);
        prop_assert!(store.open(&handle, STANDARD.encode(&bytes).as_bytes()).is_err());
    }
}

#[test]
fn the_key_stays_and_another_one_opens_nothing() {
    let (dir, first) = store();
    let sealed = first.seal("a", b"value").unwrap();
    assert_ne!(sealed, first.seal("a", b"value").unwrap(), "equal values look different");
    let again = SecretStore::new(&SecretKey::load_or_create(&dir.path().join("secrets.key")).unwrap());
    assert_eq!(&**again.open("a", sealed.as_bytes()).unwrap(), b"value");
    let (_other_dir, other) = store();
    assert_eq!(other.open("a", sealed.as_bytes()).unwrap_err(), OpenError::Refused);
    assert_eq!(first.open("a", b"not base64!").unwrap_err(), OpenError::Form);
}

#[test]
fn a_damaged_key_is_told_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets.key");
    crate::secret_file::write_private(&path, b"short").unwrap();
    assert!(SecretKey::load_or_create(&path).is_err());
    assert_eq!(&*crate::secret_file::read_private(&path).unwrap(), b"short");
}
