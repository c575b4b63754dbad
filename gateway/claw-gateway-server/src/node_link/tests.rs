mod inside;
mod peer;
mod upgrade;

use claw_gateway::{Command, Operation};
use claw_proto::ids::{Attempt, NodeId, TokenId};
use claw_proto::message::{
    GatewayMessage, LogChunk, LogKey, LogLine, LogStream, NodeMessage, NodeWorkloadState, RefusalCode, StatusCause,
    StatusRecord, SystemMetrics,
};
use claw_proto::time::Timestamp;
use claw_security::pki::{CertRequest, CertificateAuthority, JoinToken};
use claw_tools::nodes::NodeLink;
use claw_tools::outcome::{Mode, Mutation};
use claw_tools::workloads::WorkloadState;

use tokio_util::sync::CancellationToken;

use super::links::NodeLinks;
use crate::control::LogRead;
use peer::{
    Connection, Ended, Machine, authority, capabilities, enroll, enroll_body, http, only_workload, operate, run_of,
    start, tls, token, until,
};

fn status(record: u64, key: &LogKey, state: NodeWorkloadState) -> StatusRecord {
    StatusRecord {
        record,
        workload_id: key.workload_id,
        attempt: key.attempt,
        state,
        cause: StatusCause::Progress,
        detail: String::new(),
        exit_code: None,
        signal: None,
        at: Timestamp::from_unix_ms(1_772_366_400_000),
        simulated: false,
        checkpoint: None,
    }
}

fn line(sequence: u64, text: &str) -> LogLine {
    LogLine { sequence, at: Timestamp::from_unix_ms(1_772_366_400_000), bytes: text.into() }
}

/// The whole way: token, certificate, registration, order, facts, log lines.
#[tokio::test]
async fn a_node_enrolls_is_told_what_to_run_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let authority = authority(folder.path());
    let control = running.control().clone();
    let node = enroll(&running, &authority, "gpu-1").await;
    assert_eq!(node.node_url, "wss://gw.test:7701/node");

    let (mut link, answer, set) = Connection::registered(&running, &authority, &node).await;
    let GatewayMessage::Registered { node_id, settings, version, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((node_id, version, settings.heartbeat_interval_ms), (node.node_id, 1, 100));
    let GatewayMessage::DesiredSet { generation: first, workloads, stop } = set else { panic!("{set:?}") };
    assert!(workloads.is_empty() && stop.is_empty());

    // Environment values are filled in on the way to the node; the journal and the state have the names only.
    operate(&control, run_of("job", &[("TOKEN", "s3cret")]), None).await;
    let GatewayMessage::StartWorkload { generation, workload } = link.next().await.unwrap() else { panic!() };
    assert!(generation > first);
    assert_eq!(workload.spec.env["TOKEN"], "s3cret");
    let state = control.snapshot();
    let stored = state.workloads.get(workload.workload_id).unwrap();
    assert_eq!(stored.spec.spec().env["TOKEN"], "");

    // Facts are acknowledged once they are durable; a hole is not.
    let key = LogKey { workload_id: workload.workload_id, attempt: workload.attempt, stream: LogStream::Stdout };
    let records = vec![status(5, &key, NodeWorkloadState::Starting)];
    link.send(NodeMessage::WorkloadStatus { records }).await;
    link.until("the first record is acknowledged", |l| l.acked == 5).await;
    let records = vec![status(7, &key, NodeWorkloadState::Stopping)];
    link.send(NodeMessage::WorkloadStatus { records }).await;
    let records = vec![status(5, &key, NodeWorkloadState::Starting), status(6, &key, NodeWorkloadState::Running)];
    link.send(NodeMessage::WorkloadStatus { records }).await;
    link.until("what came again is acknowledged up to where it is whole", |l| l.acked == 6).await;
    let state = control.snapshot();
    assert_eq!(state.workloads.get(key.workload_id).unwrap().state, WorkloadState::Running);

    // Log lines likewise; those of somebody else's attempt are taken away and not stored.
    let foreign = LogKey { attempt: Attempt(9), ..key };
    let chunks = vec![
        LogChunk { key, gap: None, lines: vec![line(1, "hello"), line(2, "world")] },
        LogChunk { key: foreign, gap: None, lines: vec![line(1, "forged")] },
    ];
    link.send(NodeMessage::Logs { chunks }).await;
    let GatewayMessage::LogsAck { acks } = link.next().await.unwrap() else { panic!() };
    assert_eq!(acks.into_iter().collect::<Vec<_>>(), [(key, 2), (foreign, 1)]);
    let read = LogRead { workload_id: Some(key.workload_id), limit: 10, ..LogRead::default() };
    let page = control.logs().read(read).await.unwrap();
    let lines: Vec<&[u8]> = page.entries.iter().map(|entry| entry.line.bytes.as_slice()).collect();
    assert_eq!(lines, [b"hello", b"world"]);

    link.until("an answer to a heartbeat is confirmed", |l| l.highest_confirmed > 0).await;
    operate(&control, Operation::WorkloadStop { workload: "job".into(), grace_s: Some(3) }, None).await;
    let GatewayMessage::StopWorkload { order, .. } = link.next().await.unwrap() else { panic!() };
    assert_eq!((order.workload_id, order.attempt, order.grace_s), (key.workload_id, key.attempt, 3));
    running.shutdown().await;
}

/// Who may do what on the node port, by what is shown at the handshake.
#[tokio::test]
async fn only_a_certified_node_gets_in_and_a_token_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let authority = authority(folder.path());
    let node = enroll(&running, &authority, "gpu-1").await;
    let addr = running.node_addr;
    let status_of = |opened: Result<Connection, u16>| opened.map(drop).unwrap_err();

    assert_eq!(status_of(Connection::open(addr, &authority, None).await), 401);

    let (now, hour) = (running.control().now(), std::time::Duration::from_hours(1));
    let foreign = CertificateAuthority::create("other", now, hour).unwrap();
    let request = CertRequest::generate().unwrap();
    let forged = foreign.sign_node(&request.csr_pem, &node.node_id.to_string(), now, hour).unwrap();
    assert_eq!(status_of(Connection::open(addr, &authority, Some((forged.der, &request.key))).await), 0);

    // The server's kind of certificate is for servers only.
    let server = authority.issue_server(&[], &[], now, hour).unwrap();
    assert_eq!(status_of(Connection::open(addr, &authority, Some((server.certificate.der, &server.key))).await), 0);

    // Rightly signed, but of a node that this fleet does not have.
    let request = CertRequest::generate().unwrap();
    let stranger = authority.sign_node(&request.csr_pem, "node_00000000000000000000000009", now, hour).unwrap();
    let mut link = Connection::open(addr, &authority, Some((stranger.der, &request.key))).await.unwrap();
    link.register((1, 1), Vec::new()).await;
    assert_refused(&mut link, RefusalCode::UnknownNode).await;

    // Nothing else is answered, with or without a certificate.
    for (method, path) in [("GET", "/"), ("GET", "/metrics"), ("POST", "/mcp"), ("GET", "/api/status")] {
        let stream = tls(addr, &authority, Some((node.certificate.clone(), &node.key))).await.unwrap();
        assert_eq!(http(stream, method, path, "").await.0, 404, "{method} {path}");
    }

    let (token_id, token) = token(running.control(), &authority).await;
    let request = CertRequest::generate().unwrap();
    let mut said = Vec::new();
    let broken = CertRequest { csr_pem: "nonsense".into(), key: CertRequest::generate().unwrap().key };
    let wrong = claw_security::pki::JoinToken::generate("tok_any", authority.ca_fingerprint()).unwrap();
    for body in [
        enroll_body(token_id, &wrong, &request, "gpu-2"),
        // Neither a bad request nor a bad name costs the token.
        enroll_body(token_id, &token, &broken, "gpu-2"),
        enroll_body(token_id, &token, &request, "Not A Name"),
        enroll_body(token_id, &token, &request, "gpu-1"),
        enroll_body(token_id, &token, &request, "gpu-2"),
        // Its answer may have been lost: the very same request gets it once more.
        enroll_body(token_id, &token, &request, "gpu-2"),
        enroll_body(token_id, &token, &CertRequest::generate().unwrap(), "gpu-2"),
        enroll_body(token_id, &token, &request, "gpu-3"),
        "{}".to_owned(),
    ] {
        let stream = tls(addr, &authority, None).await.unwrap();
        let (status, answer) = http(stream, "POST", "/enroll", &body).await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        said.push((status, answer["code"].as_str().unwrap_or("enrolled").to_owned()));
    }
    let expected = [
        (403, "TOKEN_INVALID"),
        (400, "INVALID_ARGUMENT"),
        (400, "INVALID_ARGUMENT"),
        (409, "INVALID_STATE"),
        (200, "enrolled"),
        (200, "enrolled"),
        (403, "TOKEN_INVALID"),
        (403, "TOKEN_INVALID"),
        (400, "INVALID_ARGUMENT"),
    ];
    assert_eq!(said, expected.map(|(status, code)| (status, code.to_owned())));
    running.shutdown().await;
}

/// A token that was used says nothing any more once its node was revoked, be it readmitted by another one.
#[tokio::test]
async fn a_used_token_certifies_nobody_after_a_revocation() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let (authority, addr) = (authority(folder.path()), running.node_addr);
    let leaked = (token(running.control(), &authority).await, CertRequest::generate().unwrap());
    let named = peer::token_for(running.control(), &authority, Some("gpu-1")).await;
    let again = (named, CertRequest::generate().unwrap());
    let ask = async |((token_id, token), request): &((TokenId, JoinToken), CertRequest)| {
        let stream = tls(addr, &authority, None).await.unwrap();
        http(stream, "POST", "/enroll", &enroll_body(*token_id, token, request, "gpu-1")).await.0
    };
    assert_eq!([ask(&leaked).await, ask(&leaked).await], [200, 200], "an answer that was lost is given again");
    let joined = running.control().snapshot();
    assert_eq!(joined.nodes.by_name("gpu-1").unwrap().labels["pool"], "a", "a token's labels are its node's");
    let revoke = Command::Operate {
        operation: Operation::NodeRevoke { node: "gpu-1".into() },
        mutation: Mutation { mode: Mode::Plan, request_id: None, reason: None, wait_s: 0 },
        args_hash: "revoke".into(),
        secret_hash: None,
    };
    peer::plan_and_apply(running.control(), revoke).await;
    assert_eq!(ask(&leaked).await, 403);
    assert_eq!(ask(&again).await, 200, "its machine comes back with a new token");
    assert_eq!(ask(&leaked).await, 403, "and nobody else with the old one");
    running.shutdown().await;
}

async fn assert_refused(link: &mut Connection, expected: RefusalCode) {
    match link.next().await {
        Ok(GatewayMessage::Refused { code, .. }) if code == expected => {}
        other => panic!("expected {expected}, got {other:?}"),
    }
    assert!(matches!(link.next().await, Err(Ended::Close(1_000))));
}

/// A peer that does not keep to the protocol is told why, and let go.
#[tokio::test]
async fn what_breaks_the_protocol_is_refused_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let authority = authority(folder.path());
    let node = enroll(&running, &authority, "gpu-1").await;

    let mut link = Connection::of(&running, &authority, &node).await;
    link.register((7, 9), Vec::new()).await;
    assert_refused(&mut link, RefusalCode::VersionMismatch).await;

    let mut link = Connection::of(&running, &authority, &node).await;
    link.send(NodeMessage::HeartbeatAck { nonce: 1 }).await;
    assert_refused(&mut link, RefusalCode::Protocol).await;

    let mut link = Connection::of(&running, &authority, &node).await;
    link.epoch_seen = 1_000;
    link.register((1, 1), Vec::new()).await;
    assert_refused(&mut link, RefusalCode::StaleGateway).await;

    let (mut link, ..) = Connection::registered(&running, &authority, &node).await;
    link.answers = false;
    link.send(NodeMessage::HeartbeatAck { nonce: 10_000 }).await;
    assert_refused(&mut link, RefusalCode::Protocol).await;

    // A newer connection of the same node ends the older; the older's end leaves the newer alone.
    let (mut older, ..) = Connection::registered(&running, &authority, &node).await;
    let (mut newer, ..) = Connection::registered(&running, &authority, &node).await;
    assert_refused(&mut older, RefusalCode::Replaced).await;
    newer
        .send(NodeMessage::CapabilitiesChanged {
            capabilities: claw_proto::topology::NodeCapabilities { cpu_millis: 1_000, ..capabilities() },
        })
        .await;
    until(running.control(), "changed capabilities", |cluster| {
        cluster.nodes.get(node.node_id).is_some_and(|n| n.capabilities.as_ref().is_some_and(|c| c.cpu_millis == 1_000))
    })
    .await;

    // Removed while connected: its link ends, and it does not come back.
    let remove = claw_gateway::Command::Operate {
        operation: Operation::NodeRemove { node: "gpu-1".into() },
        mutation: claw_tools::outcome::Mutation {
            mode: claw_tools::outcome::Mode::Plan,
            request_id: None,
            reason: None,
            wait_s: 0,
        },
        args_hash: "remove".into(),
        secret_hash: None,
    };
    peer::plan_and_apply(running.control(), remove).await;
    assert_refused(&mut newer, RefusalCode::UnknownNode).await;
    let mut link = Connection::of(&running, &authority, &node).await;
    link.register((1, 1), Vec::new()).await;
    assert_refused(&mut link, RefusalCode::UnknownNode).await;
    running.shutdown().await;
}

/// Silence is counted from the last answer to a heartbeat and from nothing else.
#[tokio::test]
async fn a_node_that_talks_but_does_not_answer_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &["node.heartbeat_timeout_ms=400"]).await;
    let authority = authority(folder.path());
    let control = running.control().clone();
    let node = enroll(&running, &authority, "gpu-1").await;
    let (mut link, ..) = Connection::registered(&running, &authority, &node).await;
    link.until("some answers were confirmed", |l| l.highest_confirmed >= 2).await;
    let online = control.snapshot();
    assert_eq!(online.nodes.get(node.node_id).unwrap().link, NodeLink::Online);
    link.answers = false;
    let stopped_answering = control.now();
    // It goes on sending metrics, which count for nothing.
    while let Ok(message) = link.any().await {
        if matches!(message, GatewayMessage::Heartbeat { .. }) {
            let (at, gpus, system) = (stopped_answering, Vec::new(), SystemMetrics::default());
            link.send(NodeMessage::Metrics { at, gpus, system, workloads: Vec::new() }).await;
        }
    }
    let state = until(&control, "unreachable", |cluster| {
        cluster.nodes.get(node.node_id).is_some_and(|n| n.link == NodeLink::Unreachable)
    })
    .await;
    let entry = state.nodes.get(node.node_id).unwrap();
    assert!(entry.last_heard <= stopped_answering.plus_ms(50), "{} after {stopped_answering}", entry.last_heard);
    assert!(control.metrics().get(node.node_id).is_some());

    // Back again, it is online; and it gets what it shall run.
    let (_link, ..) = Connection::registered(&running, &authority, &node).await;
    until(&control, "online", |cluster| cluster.nodes.get(node.node_id).is_some_and(|n| n.link == NodeLink::Online))
        .await;
    running.shutdown().await;
}

/// A stop in order loses nothing; the next gateway knows the node and what it shall run.
#[tokio::test]
async fn a_gateway_that_stops_and_starts_again_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let authority = authority(folder.path());
    let node = enroll(&running, &authority, "gpu-1").await;
    let (mut link, _, set) = Connection::registered(&running, &authority, &node).await;
    let GatewayMessage::DesiredSet { generation: before, .. } = set else { panic!("{set:?}") };
    operate(running.control(), run_of("job", &[("TOKEN", "s3cret")]), None).await;
    let GatewayMessage::StartWorkload { workload, .. } = link.next().await.unwrap() else { panic!() };
    let key = LogKey { workload_id: workload.workload_id, attempt: workload.attempt, stream: LogStream::Stdout };
    let chunks = vec![LogChunk { key, gap: None, lines: vec![line(1, "before the stop")] }];
    link.send(NodeMessage::Logs { chunks }).await;
    assert!(matches!(link.next().await, Ok(GatewayMessage::LogsAck { .. })));
    let stopping = tokio::spawn(running.shutdown());
    assert!(matches!(link.next().await, Err(Ended::Close(1_001))));
    drop(link);
    stopping.await.unwrap();

    let running = start(folder.path(), &[]).await;
    let (mut link, answer, set) = Connection::registered(&running, &authority, &node).await;
    let GatewayMessage::Registered { log_acks, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(log_acks.get(&key), Some(&1));
    let GatewayMessage::DesiredSet { generation, workloads, .. } = set else { panic!("{set:?}") };
    assert!(generation.epoch > before.epoch);
    assert_eq!(workloads, [workload]);
    assert_eq!(only_workload(&running.control().snapshot()), key.workload_id);

    // The node says it knows more than an order that it got: the full set settles it.
    link.send(NodeMessage::Error {
        code: claw_proto::message::NodeErrorCode::StaleGeneration,
        message: "an order came late".into(),
    })
    .await;
    let GatewayMessage::DesiredSet { generation: again, workloads, .. } = link.next().await.unwrap() else { panic!() };
    assert_eq!((again, workloads.len()), (generation, 1));
    running.shutdown().await;
}

/// A connection does not outlive the certificate that it was opened with.
#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]).await;
    let authority = authority(folder.path());
    let enrolled = enroll(&running, &authority, "gpu-1").await;
    let request = CertRequest::generate().unwrap();
    let brief = std::time::Duration::from_millis(2_500);
    let certificate =
        authority.sign_node(&request.csr_pem, &enrolled.node_id.to_string(), running.control().now(), brief).unwrap();
    let node = Machine { certificate: certificate.der, key: request.key, ..enrolled };
    let (mut link, ..) = Connection::registered(&running, &authority, &node).await;
    assert_refused(&mut link, RefusalCode::UnknownNode).await;
    assert!(running.control().now() >= certificate.not_after);
    running.shutdown().await;
}

/// A store that takes no lines keeps nobody from giving signs of life, and
/// nothing is acknowledged that is not stored.
#[tokio::test]
async fn a_full_log_store_cuts_nobody_off() {
    let folder = tempfile::tempdir().unwrap();
    let never = format!("logs.min_free_bytes={}", i64::MAX);
    let running = start(folder.path(), &[&never, "node.heartbeat_timeout_ms=1000"]).await;
    let authority = authority(folder.path());
    let control = running.control().clone();
    let node = enroll(&running, &authority, "gpu-1").await;
    let (mut link, ..) = Connection::registered(&running, &authority, &node).await;
    operate(&control, run_of("job", &[]), None).await;
    let GatewayMessage::StartWorkload { workload, .. } = link.next().await.unwrap() else { panic!() };
    let key = LogKey { workload_id: workload.workload_id, attempt: workload.attempt, stream: LogStream::Stdout };
    for sequence in 1..=50 {
        let chunks = vec![LogChunk { key, gap: None, lines: vec![line(sequence, "lost?")] }];
        link.send(NodeMessage::Logs { chunks }).await;
    }
    // Behind all those lines: facts get through, and heartbeats for longer than the timeout.
    let records = vec![status(1, &key, NodeWorkloadState::Running)];
    link.send(NodeMessage::WorkloadStatus { records }).await;
    let mut log_acks = 0;
    while link.acked < 1 || link.highest_confirmed < 15 {
        log_acks += usize::from(matches!(link.any().await, Ok(GatewayMessage::LogsAck { .. })));
    }
    assert_eq!(log_acks, 0);
    assert_eq!(control.snapshot().nodes.get(node.node_id).unwrap().link, NodeLink::Online);
    running.shutdown().await;
}

/// Silence counts from the last sign of life, not while the gateway itself holds
/// the connection up, and not in the first two timeouts of a gateway.
#[test]
fn silence_is_counted_fairly() {
    let at = |ms: i64| Timestamp::from_unix_ms(1_000_000 + ms);
    let (id, timeout_ms) = (NodeId::from_bits(1), 100);
    let links = NodeLinks::new(at(0));
    assert_eq!(links.silent(id, at(200), timeout_ms), None, "it may have been connected before");
    assert_eq!(links.silent(id, at(201), timeout_ms), Some(at(0)));

    let (orders, _kept) = tokio::sync::mpsc::channel(1);
    let link = links.connect(id, 2, orders, CancellationToken::new());
    links.heard(id, at(300));
    links.heard(id, at(250));
    assert_eq!(links.silent(id, at(400), timeout_ms), None);
    assert_eq!(links.silent(id, at(401), timeout_ms), Some(at(300)));

    links.held_up(&link, true, at(310));
    assert_eq!(links.silent(id, at(900), timeout_ms), None, "we hold it up");
    links.held_up(&link, false, at(900));
    assert_eq!(links.silent(id, at(1_000), timeout_ms), None, "what it sent meanwhile is read first");
    assert_eq!(links.silent(id, at(1_001), timeout_ms), Some(at(300)), "leases count from the sign of life");

    links.disconnect(&link);
    links.heard(id, at(1_100));
    assert_eq!(links.silent(id, at(1_201), timeout_ms), Some(at(1_100)), "connected or not");
    links.forget(id);
    assert_eq!(links.silent(id, at(2_000), timeout_ms), Some(at(0)));
}

/// Once a node is given up, no answer on that connection counts any more, so that
/// its lease never runs longer than the core was told.
#[test]
fn an_answer_after_a_node_was_given_up_counts_nowhere() {
    let at = |ms: i64| Timestamp::from_unix_ms(1_000_000 + ms);
    let (id, timeout_ms) = (NodeId::from_bits(1), 100);
    let links = NodeLinks::new(at(0));
    let connect = || links.connect(id, 2, tokio::sync::mpsc::channel(1).0, CancellationToken::new());
    let link = connect();
    assert!(links.answered(&link, at(300)));
    assert_eq!(links.give_up(id, at(400), timeout_ms), None);
    assert_eq!(links.give_up(id, at(401), timeout_ms), Some(at(300)));
    assert!(link.closing.is_cancelled());
    assert!(!links.answered(&link, at(402)));
    assert_eq!(links.silent(id, at(402), timeout_ms), Some(at(300)));
    assert!(links.answered(&connect(), at(500)), "a new connection begins anew");
}
