use proptest::prelude::*;

use super::*;

const TOKEN_ID: &str = "tok_0000000000000000000000000a";

fn token() -> JoinToken {
    JoinToken::generate(TOKEN_ID, Fingerprint::of(b"authority")).unwrap()
}

/// The form is a contract with the node, which reads it by code of its own.
#[test]
fn text_form_is_fixed() {
    let secret = Secret::from_slice(&std::array::from_fn::<u8, 32, _>(|n| u8::try_from(n).unwrap())).unwrap();
    let token =
        JoinToken { token_id: TOKEN_ID.to_owned(), secret, ca_fingerprint: Fingerprint::from_bytes([0xca; 32]) };
    expect_test::expect!["clawjoin.v1.HnRva18wMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwYQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fysrKysrKysrKysrKysrKysrKysrKysrKysrKysrKysoa_k8A"].assert_eq(&token.to_text());
    assert_eq!(
        token.hash_secret().to_string(),
        "sha256:630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd"
    );
}

#[test]
fn only_the_stored_secret_verifies() {
    let (token, other) = (token(), token());
    assert!(token.verify(Some(&token.hash_secret())));
    assert!(!token.verify(Some(&other.hash_secret())));
    assert!(!token.verify(None));
}

#[test]
fn a_token_never_shows_its_secret() {
    let token = JoinToken::generate(TOKEN_ID, Fingerprint::from_bytes([0xca; 32])).unwrap();
    let fingerprint = Fingerprint::from_bytes([0xca; 32]);
    assert_eq!(
        format!("{token:?}"),
        format!("JoinToken {{ token_id: {TOKEN_ID:?}, secret: [redacted], ca_fingerprint: {fingerprint} }}")
    );
}

#[test]
fn a_token_id_is_an_identifier() {
    for bad in ["", "Tok", "tok-1", "é", &"t".repeat(65)] {
        let made = JoinToken::generate(bad, Fingerprint::of(b""));
        assert!(matches!(made, Err(JoinTokenError::TokenId { .. })), "{bad:?}");
    }
}

#[test]
fn what_is_wrong_with_a_text_is_said_without_the_text() {
    let text = token().to_text();
    let refused = |text: &str| JoinToken::parse(text).unwrap_err();
    assert_eq!(refused(""), JoinTokenError::NotToken);
    assert_eq!(refused("clawjoin.v2.AAAA"), JoinTokenError::NotToken);
    assert_eq!(refused(&"clawjoin.v1.".repeat(1_000)), JoinTokenError::NotToken);
    assert_eq!(refused("clawjoin.v1."), JoinTokenError::Damaged);
    for end in "clawjoin.v1.".len()..text.len() {
        assert_eq!(refused(&text[..end]), JoinTokenError::Damaged, "cut at {end}");
    }
    assert_eq!(refused(&format!("{}A", text.as_str())), JoinTokenError::Damaged);
}

proptest! {
    #[test]
    fn text_form_roundtrips(token_id in "[a-z0-9_]{1,64}", fingerprint: [u8; 32], blank in "[ \n\r\t]{0,3}") {
        let token = JoinToken::generate(&token_id, Fingerprint::from_bytes(fingerprint)).unwrap();
        let text = token.to_text();
        let parsed = JoinToken::parse(&format!("{blank}{}{blank}", text.as_str())).unwrap();
        prop_assert_eq!(parsed.token_id(), token_id);
        prop_assert_eq!(parsed.ca_fingerprint(), Fingerprint::from_bytes(fingerprint));
        prop_assert!(parsed.verify(Some(&token.hash_secret())));
        prop_assert_eq!(&parsed.to_text(), &text);
    }

    #[test]
    fn any_flipped_character_is_refused(place: prop::sample::Index, other in "[ -~]") {
        let text = token().to_text();
        let place = place.index(text.len());
        let mut flipped = text.to_string();
        flipped.replace_range(place..=place, &other);
        prop_assume!(flipped != text.as_str());
        prop_assert!(JoinToken::parse(&flipped).is_err());
    }

    #[test]
    fn parsing_never_panics(text in "(clawjoin\\.v1\\.)?[A-Za-z0-9_é-]{0,200}", payload: Vec<u8>) {
        if let Ok(token) = JoinToken::parse(&text) {
            prop_assert!(*token.to_text() == text);
        }
        // With a right checksum the parser behind it is reached.
        let mut payload = payload;
        let sum = checksum(&payload);
        payload.extend_from_slice(&sum);
        if let Some(token) = JoinToken::from_payload(&payload) {
            prop_assert!(is_identifier(token.token_id()));
        }
    }
}
