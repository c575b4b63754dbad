//! What is learned of events, in what bounds.

use claw_proto::topology::{GpuDriver, GpuInfo};
use claw_tools::nodes::{NodeLink, Schedulable};
use std::sync::Arc;

use super::*;

fn has(boot: &str, driver: &str, gpus: u32) -> Arc<NodeCapabilities> {
    let gpu = |index: u32| GpuInfo {
        driver_version: Some(driver.to_owned()),
        ..GpuInfo::new(
            claw_proto::ids::GpuUuid(format!("GPU-{index}")),
            index,
            claw_proto::spec::GpuVendor::Nvidia,
            "H100",
            81_559,
        )
    };
    Arc::new(NodeCapabilities {
        hostname: "gpu-01".into(),
        os: "Linux 6.8".into(),
        arch: "x86_64".into(),
        agent_version: "0.1.0".into(),
        cpu_millis: 1,
        memory_mib: 1,
        disk_mib: 1,
        gpu_driver: GpuDriver::Nvml,
        gpus: (0..gpus).map(gpu).collect(),
        runtimes: Vec::new(),
        simulated: false,
        labels: BTreeMap::new(),
        findings: Vec::new(),
        engine: None,
        nics: Vec::new(),
        boot_id: Some(boot.to_owned()).filter(|boot| !boot.is_empty()),
    })
}

fn learn(desk: &ChangeDesk, seq: u64, event: Event) {
    let at = Timestamp::from_unix_ms(i64::try_from(seq).unwrap() * 1_000);
    let record = EventRecord { at, principal: "system".into(), reason: String::new(), operation_id: None, event };
    desk.learn(seq, &record, |id| format!("name of {id}"));
}

fn reported(node_id: NodeId, capabilities: Arc<NodeCapabilities>) -> Event {
    Event::NodeCapabilitiesReported { node_id, capabilities, store_id: String::new() }
}

fn words(desk: &ChangeDesk, node: NodeId) -> Vec<String> {
    desk.of_node(node).into_iter().map(|change| change.what).collect()
}

#[test]
fn what_a_node_reports_differently_is_a_change() {
    let (desk, node) = (ChangeDesk::default(), NodeId::from_bits(1));
    learn(&desk, 1, reported(node, has("a", "550.54", 8)));
    assert!(words(&desk, node).is_empty(), "the first report changes nothing that is known");
    learn(&desk, 2, reported(node, has("b", "550.54", 8)));
    learn(&desk, 3, reported(node, has("b", "560.35", 7)));
    // An agent that does not tell of its boot has not been started anew.
    learn(&desk, 4, reported(node, has("", "560.35", 7)));
    assert_eq!(
        words(&desk, node),
        ["the machine was started anew", "the GPU driver went from 550.54 to 560.35", "1 GPU(s) gone, such as GPU-7"]
    );
    assert_eq!(desk.starts(node), [Start { at: Timestamp::from_unix_ms(2_000), boot_id: "b".into() }]);
    // What was read once is not read again.
    learn(&desk, 2, reported(node, has("c", "570", 8)));
    assert_eq!((words(&desk, node).len(), desk.seq()), (3, 4));
}

#[test]
fn changes_are_bounded_and_go_with_their_node() {
    let (desk, node) = (ChangeDesk::default(), NodeId::from_bits(1));
    for seq in 1..=200 {
        let to = if seq % 2 == 0 { Schedulable::Cordoned } else { Schedulable::Active };
        learn(&desk, seq, Event::NodeSchedulableChanged { node_id: node, to });
        learn(&desk, 200 + seq, Event::GatewayStarted { epoch: seq });
    }
    for boot in 0..100 {
        learn(&desk, 500 + boot, reported(node, has(&boot.to_string(), "550", 1)));
    }
    let own = desk.of_node(node);
    assert_eq!((own.len(), desk.of_fleet().len()), (CHANGES_MAX, CHANGES_MAX));
    assert!(own.iter().all(|change| change.may_cause), "what no fault comes from went first");
    assert_eq!(desk.starts(node).len(), STARTS_MAX);
    learn(&desk, 900, Event::NodeLinkChanged { node_id: node, link: NodeLink::Online, last_heard: own[0].at });
    learn(&desk, 901, Event::NodeRemoved { node_id: node });
    assert!(desk.of_node(node).is_empty() && desk.missing(node).is_empty());
}

#[test]
fn a_gpu_is_missing_until_it_is_back_or_another_is_in_its_place() {
    let (desk, node) = (ChangeDesk::default(), NodeId::from_bits(1));
    let at = |n: u32| Some(format!("0000:{:02x}:00.0", 0x10 + n));
    let with = |gpus: &[(&str, Option<String>)]| {
        let mut has = NodeCapabilities::clone(&has("a", "550", u32::try_from(gpus.len()).unwrap()));
        for (gpu, (uuid, address)) in has.gpus.iter_mut().zip(gpus) {
            (gpu.uuid, gpu.pci_address) = (GpuUuid((*uuid).to_owned()), address.clone());
        }
        reported(node, Arc::new(has))
    };
    let missing = || desk.missing(node).into_iter().map(|gpu| gpu.uuid.0).collect::<Vec<_>>();
    learn(&desk, 1, with(&[("A", at(0)), ("B", at(1)), ("C", None)]));
    assert!(missing().is_empty());
    learn(&desk, 2, with(&[("A", at(0))]));
    assert_eq!(missing(), ["B", "C"]);
    // It stays missing while others come and go; one that is back is not.
    learn(&desk, 3, with(&[("A", at(0)), ("C", None)]));
    assert_eq!(missing(), ["B"]);
    learn(&desk, 4, with(&[("A", at(0)), ("C", None), ("D", at(1))]));
    assert!(missing().is_empty(), "another is in its place");
    learn(&desk, 5, with(&[("A", at(0)), ("D", at(1)), ("E", None)]));
    assert!(missing().is_empty(), "as many as before, and nothing tells where they are");
}
