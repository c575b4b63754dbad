//! What is followed live: log lines and events.

use std::time::Duration;

use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::message::{LogChunk, LogGap, LogKey, LogLine, LogStream};
use claw_proto::time::Timestamp;
use claw_tools::access::Role;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::desk::{Desk, desk};

impl Desk {
    /// A workload that waits, with lines as its node would send them.
    async fn wrote(&self, name: &str, lines: &[(u64, &str)], gap: Option<LogGap>) -> WorkloadId {
        let run = self.ok("workload_run", &json!({ "spec": { "name": name, "command": ["true"] } })).await;
        let workload_id: WorkloadId = run["workload_id"].as_str().unwrap().parse().unwrap();
        self.writes(workload_id, lines, gap).await;
        workload_id
    }

    async fn writes(&self, workload_id: WorkloadId, lines: &[(u64, &str)], gap: Option<LogGap>) {
        let line = |(sequence, text): &(u64, &str)| LogLine {
            sequence: *sequence,
            at: Timestamp::from_unix_ms(1_000 * i64::try_from(*sequence).unwrap()),
            bytes: text.as_bytes().to_vec(),
        };
        // It never started: its lines are of the attempt before the first.
        let key = LogKey { workload_id, attempt: Attempt(0), stream: LogStream::Stdout };
        let chunk = LogChunk { key, gap, lines: lines.iter().map(line).collect() };
        self.ops.control.logs().append(vec![chunk]).await.unwrap();
    }
}

fn texts(logs: &Value) -> Vec<&str> {
    logs["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_data_and_say_what_is_missing() {
    let desk = desk().await;
    let gap = LogGap { first_sequence: 3, n_lost: 2 };
    let id = desk.wrote("w", &[(1, "one"), (2, "two \u{1b}[31mred\u{7}")], None).await;
    desk.writes(id, &[(5, "five\tsix"), (6, "six")], Some(gap)).await;
    let all = desk.ok("workload_logs", &json!({ "workload": "w" })).await;
    assert_eq!(texts(&all), ["one", "two \u{fffd}[31mred\u{fffd}", "five    six", "six"]);
    assert_eq!((&all["untrusted"], &all["truncated"]), (&json!(true), &json!(false)));
    assert_eq!((&all["gaps"][0]["first_sequence"], &all["gaps"][0]["n_lost"]), (&json!(3), &json!(2)));
    let ask = async |mut args: Value| {
        args["workload"] = json!("w");
        desk.ok("workload_logs", &args).await
    };
    assert_eq!(texts(&ask(json!({ "tail": 1 })).await), ["six"]);
    assert_eq!(texts(&ask(json!({ "grep": "six" })).await), ["five    six", "six"]);
    assert_eq!(texts(&ask(json!({ "since": "1970-01-01T00:00:05Z" })).await), ["six"], "after, not at");
    assert!(texts(&ask(json!({ "streams": ["stderr"] })).await).is_empty());
    // A follower is answered as soon as there is a new line.
    let (followed, ()) = tokio::join!(
        ask(json!({ "since": "1970-01-01T00:00:06Z", "wait_s": 60 })),
        desk.writes(id, &[(7, "seven")], None)
    );
    assert_eq!(texts(&followed), ["seven"]);
    let long = "x".repeat(1_500);
    let many: Vec<(u64, &str)> = (8..58).map(|sequence| (sequence, long.as_str())).collect();
    desk.writes(id, &many, None).await;
    let cut = ask(json!({})).await;
    assert!(cut.to_string().len() <= 20_000, "{} bytes", cut.to_string().len());
    assert_eq!(
        (&cut["truncated"], &cut["lines"].as_array().unwrap().last().unwrap()["sequence"]),
        (&json!(true), &json!(57))
    );
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_lines_has_each_once_and_ends_with_the_workload() {
    let desk = desk().await;
    let id = desk.wrote("w", &[(1, "one"), (2, "two")], None).await;
    let (text, ()) = tokio::join!(desk.text("/api/workloads/w/logs"), async {
        desk.writes(id, &[(5, "five")], Some(LogGap { first_sequence: 3, n_lost: 2 })).await;
        desk.ok("workload_stop", &json!({ "workload": "w" })).await;
        desk.writes(id, &[(6, "late")], None).await;
    });
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events.iter().filter(|e| **e == "line").count(), 4, "{text}");
    assert_eq!((events.iter().filter(|e| **e == "gap").count(), events.last()), (1, Some(&"end")), "{text}");
    for word in ["one", "two", "five", "late"] {
        assert_eq!(text.matches(&format!("\"{word}\"")).count(), 1, "{word} in {text}");
    }
    desk.task.stop().await;
}

/// The next update, before a deadline; none if the stream has ended.
async fn next(
    socket: &mut (impl futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin),
) -> Option<Value> {
    loop {
        match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("nothing came") {
            Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_updates_have_every_event_once_until_the_key_is_revoked() {
    let desk = desk().await;
    let viewer = desk.key("looker", Role::Viewer).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = desk.router.clone();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut request = format!("ws://{address}/api/ws?after=0").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {viewer}").parse().unwrap());
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let before = desk.ops.control.snapshot().seq;
    for n in 1..=before {
        assert_eq!(next(&mut socket).await.unwrap()["event"]["seq"], n, "what was, first");
    }
    desk.ok("workload_run", &json!({ "spec": { "name": "w", "command": ["true"] } })).await;
    for n in before + 1..=desk.ops.control.snapshot().seq {
        let update = next(&mut socket).await.unwrap();
        assert_eq!((&update["type"], &update["event"]["seq"]), (&json!("event"), &json!(n)));
    }
    let keys = desk.ok("api_key_list", &json!({})).await;
    let key = keys["keys"].as_array().unwrap().iter().find(|k| k["principal"] == "looker").unwrap();
    let plan = desk.ok("api_key_revoke", &json!({ "key_id": key["key_id"], "mode": "plan" })).await["plan"].clone();
    let approval = json!({ "approval_id": plan["approval_id"], "decision": "approve", "diff_hash": plan["diff_hash"] });
    desk.ok("approval_decide", &approval).await;
    desk.ok("plan_apply", &json!({ "plan_id": plan["plan_id"] })).await;
    let mut last = Value::Null;
    while let Some(update) = next(&mut socket).await {
        last = update["event"]["kind"].clone();
    }
    assert_ne!(last, "ApiKeyRevoked", "a revoked key sees nothing more");
    server.abort();
    desk.task.stop().await;
}
