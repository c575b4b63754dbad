use std::fmt::Write as _;

use expect_test::expect;
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Connects to somebody who answers every request with these bytes, and tells how that ends.
async fn against(answer: &'static str) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // The body is shorter than the buffer; it ends with the last brace.
            while !request.ends_with(b"}") {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let url = format!("http://{address}/mcp");
    let result = tokio::select! {
        result = GatewayClient::connect(&url, Some("key")) => result,
        () = peer => unreachable!("the peer never ends"),
    };
    let error = result.expect_err("it is no gateway");
    format!("{:?} {}", error.exit(), error).replace(&url, "URL")
}

#[tokio::test]
async fn who_is_no_gateway_is_told_apart() {
    let answers = [
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nWWW-Authenticate: Bearer error=\"insufficient_scope\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhost",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<p/>",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        "gibberish",
    ];
    let mut text = String::new();
    for answer in answers {
        let first = answer.lines().next().unwrap_or_default();
        writeln!(text, "{first}\n    {}", against(answer).await).unwrap();
    }
    expect![[r#"
        HTTP/1.1 401 Unauthorized
            Denied the gateway at URL does not take this key
        HTTP/1.1 401 Unauthorized
            Denied the gateway at URL does not take this key
        HTTP/1.1 403 Forbidden
            Denied this key may not use URL
        HTTP/1.1 403 Forbidden
            Denied this key may not use URL
        HTTP/1.1 503 Service Unavailable
            Unreachable the gateway at URL does not answer: HTTP 503
        HTTP/1.1 429 Too Many Requests
            Refused the gateway at URL takes no more calls of this key for the moment
        HTTP/1.1 302 Found
            Fault the answer of URL cannot be used: unexpected server response: HTTP 302 Found: 
        HTTP/1.1 200 OK
            Fault the answer of URL cannot be used: Unexpected content type: Some("text/html")
        HTTP/1.1 200 OK
            Fault the answer of URL cannot be used: unexpected server response: could not parse JSON response as ServerJsonRpcMessage: unrecognized JSON-RPC message: {}
        gibberish
            Unreachable the gateway at URL does not answer: invalid HTTP version parsed
    "#]].assert_eq(&text);
}

#[tokio::test]
async fn nobody_there() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    let error = GatewayClient::connect(&url, None).await.expect_err("nobody listens");
    assert!(matches!(error, CliError::Unreachable { .. }), "{error:?}");
    let error = GatewayClient::connect("not a url", None).await.expect_err("no URL");
    assert!(matches!(error, CliError::Setting { .. }), "{error:?}");
}

#[test]
fn errors_of_a_tool_are_refusals_or_faults() {
    let of = |content: Value| reply("URL", CallToolResult::structured_error(content));
    let refusal = json!({ "code": "NOT_FOUND", "message": "no", "retryable": false });
    assert!(matches!(of(refusal.clone()), Err(CliError::Refused { content, .. }) if content == refusal));
    let fault = json!({ "fault_id": claw_proto::ids::FaultId::from_bits(1), "message": "no", "retryable": true });
    assert!(matches!(of(fault.clone()), Err(CliError::Fault { content, .. }) if content == fault));
    assert!(matches!(of(json!({ "code": "LATER_CODE" })), Err(CliError::Protocol { .. })));
    // A peer without structured content: the text is the same JSON.
    let text = CallToolResult::error(vec![ContentBlock::text(refusal.to_string())]);
    assert!(matches!(reply("URL", text), Err(CliError::Refused { .. })));
    let good = CallToolResult::structured(json!({ "total": 1 }));
    assert_eq!(reply("URL", good).unwrap().content, json!({ "total": 1 }));
}
