#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::ids::{Attempt, Generation, WorkloadId};
use crate::message::{LogChunk, LogKey, LogLine, LogStream, NodeErrorCode};
use crate::strategies::messages::{desired, envelope, gateway_message, node_message, stop_order};
use crate::time::Timestamp;

mod samples;

proptest! {
    #[test]
    fn node_messages_roundtrip(sent in envelope(node_message())) {
        prop_assert_eq!(decode_node(&encode_node(&sent)).unwrap(), sent);
    }

    #[test]
    fn gateway_messages_roundtrip(sent in envelope(gateway_message())) {
        prop_assert_eq!(decode_gateway(&encode_gateway(&sent)).unwrap(), sent);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_node(&bytes);
        let _ = decode_gateway(&bytes);
    }

    /// What a damaged frame is read as, is at least a message that can be sent again.
    #[test]
    fn damaged_frames_are_refused_or_read_as_a_message(
        of_node in envelope(node_message()),
        of_gateway in envelope(gateway_message()),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8_u8), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        for mut frame in [encode_node(&of_node), encode_gateway(&of_gateway)] {
            for (place, bit) in &flips {
                let place = place.index(frame.len());
                frame[place] ^= 1 << bit;
            }
            frame.truncate(cut.index(frame.len() * 4));
            if let Ok(read) = decode_node(&frame) {
                prop_assert_eq!(decode_node(&encode_node(&read)), Ok(read));
            }
            if let Ok(read) = decode_gateway(&frame) {
                prop_assert_eq!(decode_gateway(&encode_gateway(&read)), Ok(read));
            }
        }
    }

    /// However large the set, each frame fits, and together they say all of it, in order.
    #[test]
    fn a_desired_set_of_any_size_fits_its_frames(
        few in proptest::collection::vec(desired(), 0..4),
        stop in proptest::collection::vec(stop_order(), 0..4),
        value_bytes in 0..limits::ENV_VALUE_BYTES_MAX,
        copies in 1..120_usize,
    ) {
        let mut workloads: Vec<_> = std::iter::repeat_n(few, copies).flatten().collect();
        for workload in &mut workloads {
            workload.spec.env = [("BIG".to_owned(), "x".repeat(value_bytes))].into();
        }
        let n_bytes: usize = workloads.len() * value_bytes;
        let generation = Generation { epoch: 1, n: 2 };
        let sent = desired_set_messages(generation, workloads.clone(), stop.clone());
        prop_assert!(n_bytes < limits::FRAME_BYTES_MAX || sent.len() > 1);
        prop_assert!(n_bytes > limits::FRAME_BYTES_MAX / 4 || sent.len() == 1);
        let (mut wanted, mut ended) = (Vec::new(), Vec::new());
        for (place, message) in sent.into_iter().enumerate() {
            match decode_gateway(&encode_gateway(&samples::envelope(message))).unwrap().body {
                GatewayMessage::DesiredSet { generation: of, workloads, stop } if place == 0 => {
                    prop_assert_eq!(of, generation);
                    wanted.extend(workloads);
                    ended.extend(stop);
                }
                GatewayMessage::StartWorkload { generation: of, workload } => {
                    prop_assert_eq!(of, generation);
                    wanted.push(workload);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(wanted, workloads);
        prop_assert_eq!(ended, stop);
    }

    #[test]
    fn negotiation_is_the_newest_common_version_and_both_sides_agree(
        ours in (1..9_u32, 0..9_u32), theirs in (1..9_u32, 0..9_u32),
    ) {
        let (here, there) = (negotiate(ours, theirs), negotiate(theirs, ours));
        let speaks = |range: (u32, u32), version: &u32| (range.0..=range.1).contains(version);
        let newest = (1..=9).rev().find(|version| speaks(ours, version) && speaks(theirs, version));
        prop_assert_eq!(here.ok(), newest);
        prop_assert_eq!(there.ok(), newest);
        if let (Err(here), Err(there)) = (here, there) && ours.0 <= ours.1 && theirs.0 <= theirs.1 {
            prop_assert_ne!(here.upgrade, there.upgrade);
        }
    }
}

#[test]
fn a_version_mismatch_names_both_ranges_and_who_has_to_upgrade() {
    let check = |ours, theirs, expected: Expect| {
        expected.assert_eq(&negotiate(ours, theirs).unwrap_err().to_string());
    };
    check(
        (1, 2),
        (3, 4),
        expect![
            "no common protocol version: this side speaks versions 1 to 2, the peer versions 3 to 4; upgrade this side"
        ],
    );
    check(
        (3, 3),
        (1, 2),
        expect!["no common protocol version: this side speaks version 3, the peer versions 1 to 2; upgrade the peer"],
    );
    check(
        (1, 1),
        (9, 2),
        expect!["no common protocol version: this side speaks version 1, the peer versions 9 to 2; upgrade the peer"],
    );
}

/// Frames of each version as they were recorded. Lines are only ever added.
const FRAMES_V1: &str = include_str!("../../fixtures/frames_v1.txt");
const FRAMES_V2: &str = include_str!("../../fixtures/frames_v2.txt");
const FRAMES_V3: &str = include_str!("../../fixtures/frames_v3.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Every sample is recorded, and its record is read as the sample still.
fn assert_recorded(
    file: (&str, &str),
    envelope_version: u32,
    of_nodes: Vec<(&'static str, NodeMessage)>,
    of_gateways: Vec<(&'static str, GatewayMessage)>,
) {
    let recorded: BTreeMap<&str, Vec<u8>> = (file.1.lines())
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, frame)| (name, unhex(frame)))
        .collect();
    let mut missing = String::new();
    for (name, message) in of_nodes {
        let sample = Envelope { version: envelope_version, ..samples::envelope(message) };
        match recorded.get(name) {
            Some(frame) => assert_eq!(decode_node(frame).unwrap(), sample, "{name}"),
            None => writeln!(missing, "{name} {}", hex(&encode_node(&sample))).unwrap(),
        }
    }
    for (name, message) in of_gateways {
        let sample = Envelope { version: envelope_version, ..samples::envelope(message) };
        match recorded.get(name) {
            Some(frame) => assert_eq!(decode_gateway(frame).unwrap(), sample, "{name}"),
            None => writeln!(missing, "{name} {}", hex(&encode_gateway(&sample))).unwrap(),
        }
    }
    assert!(missing.is_empty(), "add to fixtures/{}:\n{missing}", file.0);
}

#[test]
fn recorded_frames_of_version_1_are_still_read() {
    assert_recorded(("frames_v1.txt", FRAMES_V1), 1, samples::of_nodes(), samples::of_gateways());
}

#[test]
fn recorded_frames_of_version_2_are_still_read() {
    let of_nodes = samples::version_2::of_nodes();
    assert_recorded(("frames_v2.txt", FRAMES_V2), 2, of_nodes, samples::version_2::of_gateways());
}

#[test]
fn recorded_frames_of_version_3_are_still_read() {
    let of_nodes = samples::version_3::of_nodes();
    assert_recorded(("frames_v3.txt", FRAMES_V3), 3, of_nodes, samples::version_3::of_gateways());
}

/// A peer of version 2 is told of no checkpoint; what it gets of the record is a state again.
#[test]
fn an_older_peer_hears_nothing_of_checkpoints() {
    for (_, message) in samples::version_3::of_nodes() {
        assert_eq!(for_version(message.clone(), 3), Some(message.clone()));
        let Some(NodeMessage::WorkloadStatus { records }) = for_version(message, 2) else { panic!("another message") };
        assert!(records.iter().all(|record| record.checkpoint.is_none()));
    }
    let task =
        GatewayMessage::CheckpointNotice { workload_id: WorkloadId::from_bits(1), attempt: Attempt(1), grace_s: 1 };
    let problem = check_version(&task, 2).unwrap_err().to_string();
    expect!["checkpoint_notice needs protocol version 3; upgrade the node's agent"].assert_eq(&problem);
    assert!(check_version(&task, 3).is_ok());
}

proptest! {
    /// What a new node sends to an old gateway has no body and no value that an old decoder
    /// refuses: here, numbers beyond those of version 1.
    #[test]
    fn an_old_gateway_gets_only_what_it_knows(message in node_message()) {
        let Some(message) = for_version(message, 1) else { return Ok(()) };
        let frame = encode_node(&samples::envelope(message));
        let envelope = wire::Envelope::decode(frame.as_slice()).unwrap();
        let vendors = |has: Option<wire::NodeCapabilities>| has.unwrap_or_default().gpus.into_iter().map(|g| g.vendor);
        match envelope.body.unwrap() {
            Body::Register(register) => prop_assert!(vendors(register.capabilities).all(|v| (1..=3).contains(&v))),
            Body::CapabilitiesChanged(changed) => prop_assert!(vendors(changed.capabilities).all(|v| (1..=3).contains(&v))),
            Body::WorkloadStatus(status) => prop_assert!(status.records.iter().all(|r| (1..=13).contains(&r.cause))),
            Body::Metrics(_) | Body::Logs(_) | Body::HeartbeatAck(_) | Body::Error(_) => {}
            newer => prop_assert!(false, "{newer:?}"),
        }
    }

    /// Nothing of version 2 is on a connection of version 1: a decoder that does not know its
    /// fields reads all of the frame.
    #[test]
    fn an_old_gateway_gets_no_field_that_it_does_not_know(message in node_message()) {
        let Some(message) = for_version(message, 1) else { return Ok(()) };
        if let NodeMessage::Register { capabilities, .. } | NodeMessage::CapabilitiesChanged { capabilities } = &message {
            prop_assert!(capabilities.findings.is_empty() && capabilities.nics.is_empty());
            prop_assert!(capabilities.engine.is_none());
            for gpu in &capabilities.gpus {
                prop_assert!(gpu.mig.is_none() && gpu.driver.is_none() && gpu.cdi_device.is_none());
                prop_assert!(gpu.compute_capability.is_none() && gpu.driver_version.is_none() && gpu.nics.is_empty());
            }
        }
        if let NodeMessage::Metrics { gpus, workloads, .. } = &message {
            prop_assert!(workloads.is_empty() && gpus.iter().all(|gpu| gpu.details.is_none()));
        }
        prop_assert_eq!(for_version(message.clone(), 1), Some(message));
    }

    /// A registration comes before both sides know what they speak: an old gateway takes it, and
    /// sees no GPU that it would refuse or take for a whole one; a new one sees them all.
    #[test]
    fn any_registration_is_taken_by_an_old_gateway(message in node_message()) {
        let NodeMessage::Register { capabilities, .. } = &message else { return Ok(()) };
        let frame = encode_node(&samples::envelope(message.clone()));
        let Some(Body::Register(register)) = wire::Envelope::decode(frame.as_slice()).unwrap().body else { panic!() };
        let has = register.capabilities.unwrap();
        prop_assert_eq!(has.gpus.len() + has.newer_gpus.len(), capabilities.gpus.len());
        prop_assert!(has.gpus.iter().all(|gpu| (1..=3).contains(&gpu.vendor) && gpu.mig.is_none()));
        prop_assert_eq!(decode_node(&frame).unwrap().body, message);
    }

    /// What the gateway may send to an old node says the same without what version 2 added.
    #[test]
    fn an_old_node_gets_no_order_that_it_would_half_follow(message in gateway_message()) {
        if check_version(&message, 1).is_err() {
            let needs = if matches!(message, GatewayMessage::CheckpointNotice { .. }) { 3 } else { 2 };
            prop_assert!(check_version(&message, needs).is_ok());
            return Ok(());
        }
        let workloads = match &message {
            GatewayMessage::StartWorkload { workload, .. } => std::slice::from_ref(workload),
            GatewayMessage::DesiredSet { workloads, .. } => workloads.as_slice(),
            _ => &[],
        };
        for workload in workloads {
            let spec = &workload.spec;
            prop_assert!(workload.secrets.is_empty() && workload.registry_auth.is_none());
            prop_assert!(spec.pull.is_none() && spec.pull_secret.is_none() && spec.read_only_root.is_none());
            prop_assert!(workload.ranks.as_ref().is_none_or(|ranks| ranks.n_nodes <= 1));
        }
    }
}

#[test]
fn an_order_beyond_the_nodes_version_names_what_it_lacks() {
    let task = crate::message::TaskId(1);
    let problem = check_version(&GatewayMessage::CancelTask { task }, 1).unwrap_err().to_string();
    expect!["cancel_task needs protocol version 2; upgrade the node's agent"].assert_eq(&problem);
}

fn wire_frame(body: Body) -> Vec<u8> {
    let generation = Some(wire::Generation { epoch: 1, n: 1 });
    wire::Envelope { version: 1, generation, body: Some(body), ..Default::default() }.encode_to_vec()
}

fn problem_of_node(body: Body) -> String {
    decode_node(&wire_frame(body)).unwrap_err().to_string()
}

fn problem_of_gateway(body: Body) -> String {
    decode_gateway(&wire_frame(body)).unwrap_err().to_string()
}

fn problem_of_gpu(gpu: wire::GpuInfo) -> String {
    let (gpu_driver, gpus) = (wire::GpuDriver::Sim.into(), vec![gpu]);
    let capabilities = Some(wire::NodeCapabilities { gpu_driver, gpus, ..Default::default() });
    problem_of_node(Body::CapabilitiesChanged(wire::CapabilitiesChanged { capabilities }))
}

fn problem_of_start(spoil: fn(&mut wire::DesiredWorkload)) -> String {
    let rule = Some(wire::on_partition::Rule::StopAfterS(5));
    let mut workload = wire::DesiredWorkload {
        workload_id: vec![0; 16],
        runtime: wire::RuntimeKind::Sim.into(),
        spec: Some(wire::WorkloadSpec::default()),
        on_partition: Some(wire::OnPartition { rule }),
        ..Default::default()
    };
    spoil(&mut workload);
    let (generation, workload) = (Some(wire::Generation::default()), Some(workload));
    problem_of_gateway(Body::StartWorkload(wire::StartWorkload { generation, workload }))
}

#[test]
fn what_a_peer_must_not_leave_out_or_make_up_is_named() {
    let uuid = || "GPU-1".to_owned();
    let settings = Some(wire::NodeSettings::default());
    let problems = [
        problem_of_node(Body::Register(wire::Register::default())),
        problem_of_gpu(wire::GpuInfo::default()),
        problem_of_gpu(wire::GpuInfo { uuid: uuid(), ..Default::default() }),
        problem_of_gpu(wire::GpuInfo { uuid: uuid(), vendor: 99, ..Default::default() }),
        problem_of_node(Body::Error(wire::Error::default())),
        problem_of_node(Body::Heartbeat(wire::Heartbeat::default())),
        problem_of_gateway(Body::Logs(wire::Logs::default())),
        problem_of_gateway(Body::UpdateConfig(wire::UpdateConfig { settings })),
        problem_of_start(|w| w.workload_id = vec![0; 15]),
        problem_of_start(|w| w.spec = None),
        problem_of_start(|w| w.on_partition = Some(wire::OnPartition::default())),
        problem_of_start(|w| w.runtime = 0),
        problem_of_start(|w| w.gpus = vec!["GPU-1".to_owned(), String::new()]),
        problem_of_start(|w| w.spec.get_or_insert_default().ports = vec![80, 65_536]),
        problem_of_start(|w| w.spec.get_or_insert_default().priority = Some(0)),
        problem_of_start(|w| w.spec.get_or_insert_default().cpu_cores = Some(f64::NAN)),
        decode_node(&[]).unwrap_err().to_string(),
        decode_node(&[0xff; 9]).unwrap_err().to_string(),
    ];
    expect![[r#"
        field register.capabilities is missing
        field capabilities_changed.capabilities.gpus[0].uuid is empty
        field capabilities_changed.capabilities.gpus[0].vendor is unspecified
        field capabilities_changed.capabilities.gpus[0].vendor has the unknown value 99
        field error.code is unspecified
        message heartbeat runs in the wrong direction
        message logs runs in the wrong direction
        field update_config.settings.metrics_interval_ms is 0, not 1 to 18446744073709551615
        field start_workload.workload.workload_id has 15 bytes instead of 16
        field start_workload.workload.spec is missing
        field start_workload.workload.on_partition.rule is missing
        field start_workload.workload.runtime is unspecified
        field start_workload.workload.gpus[1] is empty
        field start_workload.workload.spec.ports[1] is 65536, not 1 to 65535
        field start_workload.workload.spec.priority is unspecified
        field start_workload.workload.spec.cpu_cores is not a finite number
        field body is missing
        frame is not a message of the protocol"#]]
    .assert_eq(&problems.join("\n"));
}

#[test]
fn a_message_of_a_later_version_is_told_by_its_field() {
    // Field 30 (of a node) and field 100 (of a gateway), length-delimited and empty.
    let of_node = [[0x08, 2].as_slice(), &[0xf2, 0x01, 0]].concat();
    let of_gateway = [[0x08, 2].as_slice(), &[0xa2, 0x06, 0]].concat();
    assert_eq!(decode_node(&of_node), Err(CodecError::UnknownMessage { field: 30 }));
    assert_eq!(decode_gateway(&of_gateway), Err(CodecError::UnknownMessage { field: 100 }));
}

fn log_frame(n_chunks: usize, n_lines: usize, line_bytes: usize) -> Vec<u8> {
    let key = LogKey { workload_id: WorkloadId::from_bits(1), attempt: Attempt(1), stream: LogStream::Stdout };
    let line = |sequence| LogLine { sequence, at: Timestamp::default(), bytes: vec![b'x'; line_bytes] };
    let lines: Vec<LogLine> = (1..).map(line).take(n_lines).collect();
    let chunk = LogChunk { key, gap: None, lines };
    encode_node(&samples::envelope(NodeMessage::Logs { chunks: vec![chunk; n_chunks] }))
}

#[test]
fn every_limit_of_a_frame_is_held_and_reached() {
    let line_max = limits::LOG_LINE_BYTES_MAX;
    let lines_max = limits::LOG_LINES_PER_MESSAGE_MAX;
    for allowed in [
        (lines_max, 1, 1),
        (1, lines_max, 1),
        (lines_max, 0, 0),
        (1, limits::LOG_BYTES_PER_MESSAGE_MAX / line_max, line_max),
    ] {
        decode_node(&log_frame(allowed.0, allowed.1, allowed.2)).unwrap();
    }
    let problems = [
        log_frame(1, lines_max + 1, 0),
        log_frame(2, lines_max / 2 + 1, 0),
        log_frame(lines_max + 1, 0, 0),
        log_frame(1, 1, line_max + 1),
        log_frame(1, limits::LOG_BYTES_PER_MESSAGE_MAX / line_max + 1, line_max),
        vec![0; limits::FRAME_BYTES_MAX + 1],
        wire_frame(Body::Metrics(wire::Metrics { gpus: vec![wire::GpuMetrics::default(); 257], ..Default::default() })),
        wire_frame(Body::Register(wire::Register {
            running: vec![wire::RunningReport::default(); 1_025],
            ..Default::default()
        })),
    ]
    .map(|frame| decode_node(&frame).unwrap_err().to_string());
    expect![[r#"
        field logs.chunks.lines has 1001 entries, over the limit of 1000
        field logs.chunks.lines has 1002 entries, over the limit of 1000
        field logs.chunks has 1001 entries, over the limit of 1000
        field logs.chunks[0].lines[0].bytes has a length of 16385, over the limit of 16384
        field logs.chunks has a length of 1064960, over the limit of 1048576
        frame of 4194305 bytes is over the limit of 4194304
        field metrics.gpus has 257 entries, over the limit of 256
        field register.running has 1025 entries, over the limit of 1024"#]]
    .assert_eq(&problems.join("\n"));
}

/// Two bytes on the wire, hundreds in memory: refused before it is built.
#[test]
fn a_frame_full_of_empty_parts_is_refused_by_its_count() {
    let n_parts = 1_900_000;
    let workloads = [0x12, 0x00].repeat(n_parts);
    let mut frame = Vec::new();
    prost::encoding::encode_key(65, prost::encoding::WireType::LengthDelimited, &mut frame);
    prost::encoding::encode_varint(workloads.len() as u64, &mut frame);
    frame.extend(workloads);
    let problem = FieldProblem::TooMany { count: n_parts, max: limits::WORKLOADS_PER_NODE_MAX };
    let path = "desired_set.workloads".to_owned();
    let refused = Err(CodecError::Field { path, problem });
    assert_eq!(decode_gateway(&frame), refused);
    // An unknown group, which the decoder skips, hides nothing: field 200, with a number, a text
    // and another group in it.
    let group = [0xc3, 0x0c, 0x08, 0x01, 0x12, 0x01, b'x', 0x1b, 0x1c, 0xc4, 0x0c];
    assert_eq!(decode_gateway(&[group.as_slice(), &frame].concat()), refused);
}

#[test]
fn a_detail_that_is_too_long_is_cut_and_still_arrives() {
    let code = NodeErrorCode::Internal;
    let sent = samples::envelope(NodeMessage::Error { code, message: "漢".repeat(5_000) });
    let NodeMessage::Error { message, .. } = decode_node(&encode_node(&sent)).unwrap().body else {
        panic!("another message")
    };
    assert!(message.len() <= limits::DETAIL_BYTES_MAX && message.len() > limits::DETAIL_BYTES_MAX - 6);
    assert!(message.starts_with("漢漢") && message.ends_with("漢…"));
    assert_eq!(sent.generation, Generation { epoch: 3, n: 41 });
}
