use proptest::prelude::*;

use super::*;

/// The form is a contract with the gateway, which writes it by code of its own.
const TOKEN: &str = "clawjoin.v1.HnRva18wMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwYQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fysrKysrKysrKysrKysrKysrKysrKysrKysrKysrKysoa_k8A";

#[test]
fn a_token_is_read_and_keeps_its_secret() {
    let token = JoinToken::parse(&format!("  {TOKEN}\n")).unwrap();
    assert_eq!(token.token_id, "tok_0000000000000000000000000a");
    assert_eq!((token.secret[31], token.fingerprint), (31, [0xca; 32]));
    assert_eq!(format!("{token:?}"), "JoinToken { token_id: \"tok_0000000000000000000000000a\", .. }");
}

#[test]
fn answers_of_a_server_are_read_or_refused() {
    let endpoint = Endpoint::parse("https://gw:1", "https").unwrap();
    let read = |text: &str| read_answer(&endpoint, text.as_bytes()).map(|(status, body)| (status, body.to_vec()));
    assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}x").unwrap(), (200, b"{}".to_vec()));
    assert_eq!(read("HTTP/1.1 403 No\r\n\r\nno").unwrap(), (403, b"no".to_vec()));
    for wrong in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        "x\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        assert!(read(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(refusal_text(br#"{"message":"token is used up"}"#), "token is used up");
    assert_eq!(refusal_text(b"plain\x1b[31m text"), "plain[31m text");
}

proptest! {
    #[test]
    fn a_changed_token_is_refused(at in 0..TOKEN.len(), to in "[A-Za-z0-9_-]") {
        let mut changed = TOKEN.to_owned();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != TOKEN);
        prop_assert!(JoinToken::parse(&changed).is_err());
    }

    #[test]
    fn parsing_never_panics(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(JoinToken::parse(&text).is_err());
        let endpoint = Endpoint { host: "gw".into(), port: 1, path: String::new() };
        let _ = read_answer(&endpoint, &bytes);
    }
}
