//! Verdicts: who leads, what is over, what policies and history change, and their words.

use crate::diagnose::analyze::fleet::{Change, NodeFault, bursts, common};
use crate::diagnose::analyze::{Analyzer, History, Verdict};
use crate::diagnose::code::{Action, Class, Code};
use crate::diagnose::insight::{Insight, Target};
use crate::diagnose::memory;
use crate::diagnose::observe::{Observation, Observer};
use crate::diagnose::policy::{Policy, all};
use crate::diagnose::rules::Rules;

fn observe(text: &str) -> Observation {
    let mut observer = Observer::new(Rules::built_in(), "kern.log");
    observer.text(text);
    observer.finish()
}

fn judge(text: &str) -> Verdict {
    Analyzer::new(Rules::built_in(), Policy::ours()).judge(&observe(text))
}

fn xid(code: u32, rest: &str) -> String {
    format!("[  100.000000] NVRM: Xid (PCI:0000:3b:00): {code}, {rest}\n")
}

#[track_caller]
fn check(text: &str, root: &str, class: Class, action: Action) {
    let verdict = judge(text);
    let told = verdict.root.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    assert_eq!((told.as_str(), verdict.class, verdict.action), (root, class, action), "{text}");
}

#[test]
fn the_earliest_cause_leads_and_what_follows_does_not() {
    let cleanup = xid(45, "pid=1, name=python3, Ch 00000001");
    check(&(cleanup.clone() + &xid(48, "pid=1, DBE")), "xid_48", Class::Memory, Action::DrainAndReset);
    check(&(cleanup.clone() + &xid(31, "pid=1, MMU Fault")), "xid_31", Class::App, Action::RestartApp);
    check(&(xid(119, "pid=1, Timeout") + &xid(79, "pid=1")), "xid_79", Class::Bus, Action::RebootNode);
    check(&cleanup, "xid_45", Class::App, Action::Ignore);
    let switch = "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12020, Fatal, Link 12 egress sequence ID error";
    check(&(xid(74, "NVLink: fatal error") + switch), "sxid_12020", Class::Fabric, Action::RebootNode);
    let down = "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up\n";
    check(&(down.to_owned() + &xid(79, "pid=1")), "xid_79", Class::Bus, Action::RebootNode);
}

#[test]
fn the_drivers_own_verdict_decides_for_its_gpu_and_the_last_one_counts() {
    let asks = |value: u32, word: &str| {
        xid(154, &format!("GPU recovery action changed from 0x0 (None) to 0x{value:x} ({word})"))
    };
    check(&(xid(31, "pid=1") + &asks(1, "GPU Reset Required")), "xid_154", Class::Driver, Action::ResetGpu);
    check(
        &(xid(79, "pid=1") + &asks(2, "Node Reboot Required") + &asks(0, "None")),
        "xid_79",
        Class::Bus,
        Action::Ignore,
    );
    check(&asks(0, "None"), "none", Class::None, Action::Ignore);
    let other = asks(2, "Node Reboot Required").replace("3b", "5d");
    check(&(xid(62, "pid=1") + &other), "xid_62", Class::Driver, Action::ResetGpu);
}

#[test]
fn what_is_over_asks_for_nothing() {
    let engaged = xid(163, "PSHC disengaged") + &xid(162, "PSHC re-engaged");
    check(&engaged, "none", Class::None, Action::Ignore);
    let served = "nfs: server 192.0.2.10 not responding, still trying\nnfs: server 192.0.2.10 OK";
    check(served, "nfs_unresponsive", Class::Host, Action::Ignore);
}

#[test]
fn an_nvlink5_error_is_resolved_by_unit_event_and_status() {
    let line = |code, rest: &str| xid(code, rest);
    check(&line(144, "SAW_MVB Fatal XC0 i0 Link 00 (0x00000001 0x00000010)"), "xid_144", Class::Link, Action::ResetGpu);
    check(
        &line(144, "SAW_MVB Nonfatal XC0 i0 Link 00 (0x00000001 0x00000020)"),
        "xid_144",
        Class::Link,
        Action::Ignore,
    );
    check(
        &line(149, "NETIR_BER_EVENT Nonfatal XC0 i0 Link 03 (0x00000226 0x00000001)"),
        "xid_149",
        Class::Link,
        Action::CheckLink,
    );
    check(
        &line(144, "SAW_MVB Fatal XC0 i0 Link 00 (0x00000001 0x40000000)"),
        "xid_144",
        Class::Link,
        Action::ContactSupport,
    );
    check(
        &line(145, "RLW_RXPIPE Fatal XC0 i0 Link 00 (0x000000c2 0x00000001)"),
        "xid_145",
        Class::Link,
        Action::ResetGpu,
    );
}

#[test]
fn one_ranks_own_fault_leads_over_the_peers_that_wait() {
    let waits = "[rank0]: [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2, OpType=ALLREDUCE) ran for 600012 milliseconds before timing out.\n";
    let trace = "[rank3]: Traceback (most recent call last):\n[rank3]:   File \"/srv/train.py\", line 7, in step\n[rank3]:     x = batch[key]\n[rank3]: KeyError: 'ids'\n";
    check(&(waits.to_owned() + trace), "user_code", Class::App, Action::FixApp);
    let frame = judge(&(waits.to_owned() + trace));
    let root = &frame.findings[frame.root_index.unwrap()];
    assert_eq!(root.frame.as_deref(), Some("/srv/train.py:7 in step"));
    check(waits, "nccl_timeout", Class::App, Action::RestartApp);
}

#[test]
fn out_of_memory_tells_its_numbers_and_a_fix() {
    let line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB is free. Process 77 has 30.00 GiB memory in use. Including non-PyTorch memory, this process has 47.00 GiB memory in use. Of the allocated memory 46.00 GiB is allocated by PyTorch, and 512.00 MiB is reserved by PyTorch but unallocated.";
    let told = memory::read(line).unwrap();
    assert_eq!(
        told.words(),
        "asked 2.00 GiB, free 1.20 GiB, allocated 46.00 GiB, reserved 512 MiB, other processes 30.00 GiB, total 79.15 GiB"
    );
    assert!(told.fix().starts_with("another process holds memory"), "{}", told.fix());
    let alone = "CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 512.00 MiB is free. 20.00 GiB is reserved by PyTorch but unallocated.";
    assert!(memory::read(alone).unwrap().fix().contains("expandable_segments"));
}

#[test]
fn policies_differ_and_the_answer_says_where() {
    let seen = observe(&xid(109, "pid=1, name=python3, CTX SWITCH TIMEOUT"));
    let by = |name: &str| Analyzer::new(Rules::built_in(), Policy::named(name).unwrap()).judge(&seen);
    assert_eq!(by("claw").action, Action::RestartApp);
    assert_eq!(by("device-plugin").action, Action::Ignore);
    assert_eq!(by("gpud").action, Action::RebootNode);
    assert_eq!(by("claw").others.len(), 3, "{:?}", by("claw").others);
    assert!(Policy::named("nobody").unwrap_err().known.contains(&"gcm".to_owned()));
}

#[test]
fn the_same_fault_after_two_remediations_is_for_hands() {
    let seen = observe(&xid(79, "pid=1"));
    for policy in all() {
        let verdict = Analyzer::new(Rules::built_in(), policy).with_history(History { remediations: 2 }).judge(&seen);
        let wanted = match policy.name.as_str() {
            "claw" | "gpud" => Action::Service,
            "nvsentinel" => Action::ContactSupport,
            _ => Action::DrainAndReset,
        };
        assert_eq!(verdict.action, wanted, "{}", policy.name);
    }
}

fn fault(node: &str, unit: &str, code: Code, at_s: f64) -> NodeFault {
    NodeFault { node: node.into(), rack: Some("r1".into()), unit: Some(unit.into()), code, at_s }
}

#[test]
fn faults_of_several_nodes_have_a_common_cause() {
    let brake = |node: &str, at| fault(node, "GPU-0", Code::Named("power_brake".into()), at);
    let rack = [brake("a", 0.0), brake("b", 20.0), brake("c", 60.0), brake("d", 4_000.0)];
    let groups = bursts(&rack);
    assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
    let change = Change { node: Some("b".into()), what: "driver 580 was installed".into(), at_s: -600.0 };
    let found = common(&groups[0], &[change]);
    assert_eq!((found.len(), found[0].class, found[0].action), (1, Class::Power, Action::Service));
    assert_eq!(found[0].change.as_deref(), Some("driver 580 was installed"));
    assert_eq!(common(&groups[1], &[]), []);
    let links: Vec<NodeFault> =
        (0..4).map(|gpu| fault("a", &format!("GPU-{gpu}"), Code::Xid(74), f64::from(gpu))).collect();
    let found = common(&bursts(&links)[0], &[]);
    assert_eq!((found.len(), found[0].class), (1, Class::Fabric));
}

#[test]
fn an_insight_fits_into_400_tokens_and_its_remedies_are_ordered_by_harm() {
    let tokens = tiktoken_rs::o200k_base().unwrap();
    let rules = Rules::built_in();
    for compiled in &rules.text {
        let text = compiled.rule.examples.join("\n").repeat(20);
        let verdict = judge(&text);
        let target = Target { node: Some("node_1".into()), workload: Some("wl_1".into()) };
        let insight = Insight::new(rules, &verdict, &target);
        let words = insight.text();
        let n = tokens.encode_with_special_tokens(&words).len();
        assert!(n <= 400, "{}: {n} tokens\n{words}", compiled.id);
        assert!(insight.diagnosis.remedies.is_sorted_by_key(|remedy| remedy.harm), "{words}");
    }
}
