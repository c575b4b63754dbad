//! What nodes send of their kernel's log is what the rules can read.

use claw_proto::message::kernel::may_tell;
use serde_json::Value;

use super::tables::shared;
use crate::diagnose::cases;
use crate::diagnose::envelope;
use crate::diagnose::observe::Observer;
use crate::diagnose::policy::Policy;
use crate::diagnose::rules::{Input, Rules};

/// The codes of a text.
fn codes(text: &str) -> Vec<String> {
    let mut observer = Observer::new(Rules::built_in(), "kernel log");
    observer.text(text);
    observer.finish().findings.iter().map(|finding| finding.code.to_string()).collect()
}

/// The lines of a text that a node would send.
fn sent(text: &str) -> String {
    text.lines().filter(|line| may_tell(&envelope::open(line).message)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_node_sends_every_line_that_a_rule_of_the_kernel_reads() {
    let rules = Rules::built_in();
    let (mut n, mut lost) = (0, Vec::new());
    for compiled in &rules.text {
        for example in &compiled.rule.examples {
            let of_kernel = |line: &str| envelope::open(line).tag.as_deref() == Some("kernel");
            if compiled.rule.input == Input::Kernel || example.lines().any(of_kernel) {
                n += 1;
                if codes(&sent(example)) != codes(example) {
                    lost.push(format!("{}: {example:?}", compiled.id));
                }
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
    assert!(n > 50, "{n} examples");
}

#[test]
fn cases_of_the_kernel_give_the_same_answer_of_what_a_node_sends() {
    let mut n = 0;
    for corpus in ["public.jsonl", "synthetic.jsonl"].iter().filter_map(|name| shared(name)) {
        for json in corpus.lines().filter(|line| !line.trim().is_empty()) {
            let case: Value = serde_json::from_str(json).unwrap();
            if case["stream"] != "kernel" {
                continue;
            }
            n += 1;
            let lines: Vec<&str> =
                case["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
            let all = lines.join("\n");
            let answer = |text: &str| {
                let told = cases::judge(String::new(), text.lines(), Policy::ours());
                (told.root, told.class, told.action)
            };
            assert_eq!(answer(&sent(&all)), answer(&all), "{}", case["id"]);
        }
    }
    println!("{n} cases of kernel logs");
}

#[test]
fn what_says_nothing_is_not_sent() {
    for line in [
        "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
        "audit: type=1400 audit(1.2:3): apparmor=\"STATUS\" operation=\"profile_load\"",
        "IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready",
        "device veth1a2b entered promiscuous mode",
        "docker0: port 1(veth1a2b) entered blocking state",
        "systemd[1]: Started Session 3 of user root.",
    ] {
        assert!(!may_tell(line), "{line}");
    }
}
