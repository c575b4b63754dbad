//! Verdicts: who leads, what is over, what policies and history change, and their words.

use claw_proto::time::Timestamp;
use claw_tools::diagnosis::FaultChange;

use crate::diagnose::analyze::fleet::{Change, NodeFault, bursts, common};
use crate::diagnose::analyze::{Analyzer, History, Verdict};
use crate::diagnose::code::{Action, Class, Code};
use crate::diagnose::insight::{Insight, Target};
use crate::diagnose::memory;
use crate::diagnose::observe::{Observation, Observer, Reported};
use crate::diagnose::policy::{Policy, all};
use crate::diagnose::rules::Rules;
use crate::diagnose::series::Sign;

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
fn what_is_over_leads_over_nothing_that_is_open() {
    let served = "nfs: server 192.0.2.10 not responding, still trying\nnfs: server 192.0.2.10 OK\n";
    let oom = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n";
    check(&(served.to_owned() + oom), "cuda_oom", Class::App, Action::FixApp);
    check(&(oom.to_owned() + served), "cuda_oom", Class::App, Action::FixApp);
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
fn a_policy_without_an_opinion_says_so_and_ours_chooses() {
    let by =
        |text: &str, name: &str| Analyzer::new(Rules::built_in(), Policy::named(name).unwrap()).judge(&observe(text));
    let amd = "amdgpu 0000:c1:00.0: amdgpu: device lost from bus!";
    // 106 is a note in the catalog; the plugin's "any other Xid" means critical ones.
    for text in [amd.to_owned(), xid(106, "pid=1, test message")] {
        let verdict = by(&text, "device-plugin");
        assert_eq!(verdict.action, by(&text, "claw").action, "{text}");
        assert_eq!((verdict.policy.as_str(), verdict.chosen_by.as_str()), ("device-plugin", "claw"));
        assert!(verdict.why.iter().any(|why| why.contains("ours chose")), "{:?}", verdict.why);
    }
    let own = by(&xid(79, "pid=1"), "device-plugin");
    assert_eq!((own.action, own.chosen_by.as_str()), (Action::DrainAndReset, "device-plugin"));
    assert!(!by(amd, "claw").others.iter().any(|(name, _)| name == "gpud"), "no opinion is no difference");
}

#[test]
fn an_unknown_number_calls_no_hands_under_any_policy() {
    let seen = observe(&xid(9_999, "pid=1, something new"));
    for policy in all() {
        for remediations in [0, 5] {
            let verdict = Analyzer::new(Rules::built_in(), policy).with_history(History { remediations }).judge(&seen);
            assert_eq!(verdict.action, Action::ContactSupport, "{}", policy.name);
            let swapped = verdict.chosen_by != policy.name;
            assert_eq!(swapped, verdict.why.iter().any(|why| why.contains("no table knows it")), "{:?}", verdict.why);
        }
    }
}

#[test]
fn what_is_over_on_one_device_excuses_no_other() {
    let hung = |bus: &str| format!("amdgpu 0000:{bus}:00.0: amdgpu: MES failed to respond to msg=REMOVE_QUEUE\n");
    let reset = |bus: &str| {
        format!(
            "amdgpu 0000:{bus}:00.0: amdgpu: GPU reset begin!\namdgpu 0000:{bus}:00.0: amdgpu: GPU reset(2) succeeded!\n"
        )
    };
    check(&(hung("c1") + &reset("c1")), "amdgpu_mes_timeout", Class::Driver, Action::RestartApp);
    for text in
        [hung("c1") + &hung("c3") + &reset("c1"), hung("c3") + &hung("c1") + &reset("c1"), hung("c3") + &reset("c1")]
    {
        check(&text, "amdgpu_mes_timeout", Class::Driver, Action::ResetGpu);
        let verdict = judge(&text);
        let leads = verdict.findings[verdict.root_index.unwrap()].unit.clone();
        assert_eq!(leads.unwrap().to_string(), "0000:c3:00", "{text}");
    }
    // A line without an address speaks of the only GPU there is, and of none of several.
    let wedged = "[drm] device wedged, but recovered through reset\n";
    check(&(hung("c1") + wedged), "amdgpu_mes_timeout", Class::Driver, Action::RestartApp);
    check(&(hung("c1") + &hung("c3") + wedged), "amdgpu_mes_timeout", Class::Driver, Action::ResetGpu);
    let power = |bus: &str, code| xid(code, "PSHC").replace("3b", bus);
    check(&(power("3b", 163) + &power("5d", 162)), "xid_163", Class::Power, Action::Ignore);
}

#[test]
fn what_was_well_before_a_fault_excuses_it_not() {
    let none = "[   10.000000] NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)\n";
    let lost = "[99999.000000] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.\n";
    check(&(none.to_owned() + lost), "xid_79", Class::Bus, Action::RebootNode);
    check(&(lost.to_owned() + none), "xid_79", Class::Bus, Action::Ignore);
    let reset = none.replace("to 0x0 (None)", "to 0x1 (GPU Reset Required)");
    check(&(reset.clone() + lost), "xid_79", Class::Bus, Action::RebootNode);
    check(&(lost.to_owned() + &reset), "xid_79", Class::Bus, Action::ResetGpu);
    // Messages printed into one line are of one moment.
    check(&(lost.trim_end().to_owned() + none), "xid_79", Class::Bus, Action::Ignore);
    let hung = "amdgpu 0000:c1:00.0: amdgpu: MES failed to respond to msg=REMOVE_QUEUE\n";
    let reset = "amdgpu 0000:c1:00.0: amdgpu: GPU reset(2) succeeded!\n";
    check(&(reset.to_owned() + hung), "amdgpu_mes_timeout", Class::Driver, Action::ResetGpu);
    check(&(hung.to_owned() + reset), "amdgpu_mes_timeout", Class::Driver, Action::RestartApp);
    check(&(hung.to_owned() + reset + hung), "amdgpu_mes_timeout", Class::Driver, Action::ResetGpu);
    check(&(xid(162, "PSHC re-engaged") + &xid(163, "PSHC disengaged")), "xid_163", Class::Power, Action::Ignore);
}

#[test]
fn a_fault_that_is_over_leads_over_none_that_is_not() {
    let none = xid(154, "GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)");
    let over = xid(79, "pid=1") + &none;
    check(&(over.clone() + &xid(48, "pid=1, DBE")), "xid_48", Class::Memory, Action::DrainAndReset);
    let other = xid(48, "pid=1, DBE").replace("3b", "5d");
    check(&(over.clone() + &other), "xid_48", Class::Memory, Action::DrainAndReset);
    check(&(other + &over), "xid_48", Class::Memory, Action::DrainAndReset);
    let program = xid(31, "pid=1, MMU Fault");
    check(&(program.clone() + &over), "xid_79", Class::Bus, Action::Ignore);
    check(&(over.clone() + &program), "xid_31", Class::App, Action::RestartApp);
    check(&(program.clone() + &over + &program), "xid_31", Class::App, Action::RestartApp);
    check(&(over.clone() + &program + &xid(79, "pid=1")), "xid_79", Class::Bus, Action::RebootNode);
    let ring = "amdgpu 0000:c1:00.0: amdgpu: ring sdma0 timeout, signaled seq=88, emitted seq=90\n";
    let reset = "amdgpu 0000:c1:00.0: amdgpu: GPU reset(2) succeeded!\n";
    let hung = "amdgpu 0000:c1:00.0: amdgpu: MES failed to respond to msg=REMOVE_QUEUE\n";
    check(&(ring.to_owned() + reset), "amdgpu_ring_timeout", Class::App, Action::RestartApp);
    check(&(ring.to_owned() + reset + hung), "amdgpu_mes_timeout", Class::Driver, Action::ResetGpu);
}

#[test]
fn what_names_no_device_excuses_where_there_is_but_one() {
    let of = |bus: &str, code: u32, rest: &str| format!("NVRM: Xid (PCI:{bus}): {code}, {rest}\n");
    let (a, b, bare) = ("0000:3b:00", "0000:5d:00", "....");
    let none = "GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)";
    let reboot = "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)";
    check(&(of(a, 79, "pid=1") + &of(bare, 154, none)), "xid_79", Class::Bus, Action::Ignore);
    check(&(of(a, 79, "pid=1") + &of(b, 79, "pid=1") + &of(bare, 154, none)), "xid_79", Class::Bus, Action::RebootNode);
    let power = of(a, 163, "PSHC disengaged") + &of(b, 163, "PSHC disengaged");
    let verdict = judge(&(power + &of(bare, 162, "PSHC re-engaged")));
    assert_eq!((verdict.root, verdict.units.len()), (Some(Code::Xid(163)), 2));
    let told = "XidCriticalError: Xid=79 on Device=some-mig-uuid; marking device as unhealthy.\n";
    check(&(told.to_owned() + &of(b, 154, none)), "xid_79", Class::Bus, Action::RebootNode);
    check(&(told.to_owned() + &of(bare, 154, none)), "xid_79", Class::Bus, Action::Ignore);
    let text = of(a, 154, reboot) + &of(bare, 154, none) + &of(a, 154, reboot);
    check(&text, "xid_154", Class::Driver, Action::RebootNode);
    let text = "amdgpu 0000:c1:00.0: amdgpu: MES failed to respond to msg=REMOVE_QUEUE
amdgpu 0000:c3:00.0: amdgpu: ring sdma0 timeout, signaled seq=88, emitted seq=90
[drm] device wedged, but recovered through reset";
    check(text, "amdgpu_mes_timeout", Class::Driver, Action::ResetGpu);
}

#[test]
fn all_codes_of_a_line_are_read() {
    let many = |code: &str, n: usize| format!("NVRM: Xid (PCI:0000:3b:00): {code}, pid=1, name=x ").repeat(n);
    for n in [31, 32, 40, 300] {
        let verdict = judge(&(many("31", n) + &many("79", 1)));
        let counts: Vec<u64> = verdict.findings.iter().map(|finding| finding.count).collect();
        assert_eq!((verdict.root, verdict.action), (Some(Code::Xid(79)), Action::RebootNode), "{n}");
        assert_eq!(counts, [n as u64, 1]);
    }
    let switch = |code: u32, n: usize| format!("SXid (PCI:0000:05:00.0): {code}, Non-fatal, Link 1 ").repeat(n);
    let verdict = judge(&format!("nvidia-nvswitch0: {}{}", switch(20_001, 40), switch(12_020, 1)));
    assert_eq!(verdict.findings.len(), 2);
    // A line that quotes them tells of none.
    let quoted = format!("runbook: \"{}{}\"", many("31", 40), many("79", 1));
    assert_eq!(judge(&quoted).findings.len(), 0);
}

#[test]
fn of_two_sightings_that_ask_for_the_same_the_surer_speaks() {
    let weak = "[rank3]: exitcode  : -9 (pid: 4242)\n";
    let sure = "Memory cgroup out of memory: Killed process 31337 (python) total-vm:100kB, anon-rss:90kB\n";
    let guess = judge(weak);
    assert!(guess.confidence <= 0.3 && guess.root == Some(Code::Named("host_oom".into())), "{guess:?}");
    for text in [weak.to_owned() + sure, sure.to_owned() + weak] {
        let verdict = judge(&text);
        assert_eq!((verdict.confidence, verdict.findings.len()), (0.9, 2), "{text}");
        assert!(!verdict.why.iter().any(|why| why.contains("kernel log")), "{:?}", verdict.why);
        assert_eq!(verdict.findings[verdict.root_index.unwrap()].unit, None, "{text}");
    }
}

#[test]
fn one_file_server_that_answers_again_excuses_no_other() {
    let gone = |server: &str| format!("nfs: server {server} not responding, still trying\n");
    let back = |server: &str| format!("nfs: server {server} OK\n");
    let (a, b) = ("192.0.2.10", "store-2.example.com");
    check(&(gone(a) + &gone(b) + &back(a) + &back(b)), "nfs_unresponsive", Class::Host, Action::Ignore);
    for text in [gone(a) + &gone(b) + &back(a), gone(b) + &gone(a) + &back(a)] {
        check(&text, "nfs_unresponsive", Class::Host, Action::ContactSupport);
        let verdict = judge(&text);
        let root = &verdict.findings[verdict.root_index.unwrap()];
        assert_eq!(root.unit.as_ref().unwrap().to_string(), format!("server {b}"));
    }
}

#[test]
fn a_kill_by_signal_9_is_a_guess_until_a_line_says_memory() {
    let killed = "container train exited with code 137\n";
    let alone = judge(killed);
    assert!(alone.confidence <= 0.3 && !alone.action.is_hardware(), "{alone:?}");
    assert!(alone.why.iter().any(|why| why.contains("kernel log")), "{:?}", alone.why);
    let evidence = "Memory cgroup out of memory: Killed process 31337 (python) total-vm:100kB, anon-rss:90kB\n";
    for text in [killed.to_owned() + evidence, evidence.to_owned() + killed] {
        let sure = judge(&text);
        assert_eq!((sure.root.unwrap().to_string().as_str(), sure.confidence), ("host_oom", 0.9), "{text}");
        assert!(!sure.why.iter().any(|why| why.contains("kernel log")), "{:?}", sure.why);
    }
}

#[test]
fn nothing_read_is_not_nothing_wrong() {
    let rules = Rules::built_in();
    let tell = |observation: &Observation, target: &Target| {
        Insight::new(rules, &Analyzer::new(rules, Policy::ours()).judge(observation), target).diagnosis
    };
    let target = Target { node: Some("node_1".into()), workload: Some("wl_1".into()) };
    let unread = tell(&observe(""), &target);
    assert!(unread.confidence <= 0.1 && unread.cause.contains("nothing was read"), "{unread:?}");
    assert_eq!(unread.blast_radius, "unknown");
    let calls: Vec<_> = unread.remedies.iter().filter_map(|remedy| remedy.call.as_ref()).collect();
    assert_eq!(
        calls.iter().map(|call| call.tool.as_str()).collect::<Vec<_>>(),
        ["workload_get", "workload_explain", "node_get"]
    );
    let healthy = tell(&observe("step=1 loss=2.0"), &target);
    assert!(healthy.confidence >= 0.9 && healthy.remedies.is_empty(), "{healthy:?}");
    let mut sampled = Observer::new(rules, "latest metrics");
    sampled.healthy(8);
    let sampled = sampled.finish();
    assert_eq!((sampled.records, tell(&sampled, &target).confidence), (8, 0.9));
}

#[test]
fn what_cannot_be_read_is_said_and_makes_unsure() {
    let rules = Rules::built_in();
    let tell = |observation: &Observation| {
        let verdict = Analyzer::new(rules, Policy::ours()).judge(observation);
        assert_eq!(verdict.root, None);
        let insight = Insight::new(rules, &verdict, &Target::default());
        (verdict.confidence, verdict.why.join("; "), insight.diagnosis.cause)
    };
    let utf16: String = xid(79, "pid=1").chars().flat_map(|c| [c, '\0']).collect();
    let packed = String::from_utf8_lossy(&[0x1f, 0x8b, 8, 0, 0xf7, 0xc2, 0x99, 0xaa, 0xe1, 0xff, 0x41]).into_owned();
    for (text, says) in [("\n   \n\t\n", ""), (utf16.as_str(), "is not text"), (packed.as_str(), "is not text")] {
        let seen = observe(text);
        let (confidence, why, cause) = tell(&seen);
        assert_eq!((seen.lines, confidence), (0, 0.1), "{text:?}: {why}");
        assert!(why.starts_with("nothing was read") && why.contains(says) && cause.contains("nothing was read"));
    }
    // A text with lines of something else, and a fault behind what is looked at.
    let healthy = "step=1 loss=2.0\n".repeat(8);
    let cut = format!("{}{}", "x".repeat(17 << 10), xid(79, "pid=1"));
    for (text, says) in [(healthy.clone() + &packed, "1 line of kern.log: not text"), (cut, "1 line of kern.log: cut")]
    {
        let (confidence, why, cause) = tell(&observe(&text));
        assert!(
            confidence <= 0.5 && why.contains(says) && cause.contains("not all could"),
            "{confidence} {why} {cause}"
        );
    }
    assert_eq!(tell(&observe(&healthy)), (0.9, String::new(), "nothing that needs a diagnosis".to_owned()));
    // Letters of another alphabet are text, and so is a name in an old encoding.
    let letters = "Lastverteilung f\u{fffd}r Knoten 7 begonnen\n\u{6d4b}\u{8bd5}\u{5b8c}\u{6210}\n";
    assert_eq!(tell(&observe(letters)), (0.9, String::new(), "nothing that needs a diagnosis".to_owned()));
}

#[test]
fn what_should_have_been_read_is_told_beside_a_root_too() {
    let mut observer = Observer::new(Rules::built_in(), "kern.log");
    observer.text(&xid(79, "pid=1"));
    (0..100).for_each(|n| observer.unread(format!("no numbers of GPU-{n}")));
    let seen = observer.finish();
    assert_eq!(seen.unread.len(), crate::diagnose::observe::NOTES);
    let verdict = Analyzer::new(Rules::built_in(), Policy::ours()).judge(&seen);
    assert_eq!((verdict.confidence, verdict.is_whole), (0.9, false));
    assert!(verdict.why.contains(&"no numbers of GPU-0".to_owned()), "{:?}", verdict.why);
}

#[test]
fn a_case_without_lines_is_answered_unsure() {
    let answer = |json: &str| crate::diagnose::cases::answer(json, 1, Policy::ours()).unwrap();
    let empty = answer(r#"{"id":"a","lines":[]}"#);
    assert_eq!((empty.root.as_str(), empty.confidence, empty.why.len()), ("none", 0.1, 1));
    let read = answer(r#"{"id":"a","lines":["step=1"]}"#);
    assert_eq!((read.root.as_str(), read.confidence, read.why.len()), ("none", 0.9, 0));
}

#[test]
fn a_source_that_ends_closes_what_it_left_open_and_lines_add_up() {
    let mut observer = Observer::new(Rules::built_in(), "rank0.log");
    observer
        .text("step=1\nTraceback (most recent call last):\n  File \"/srv/train.py\", line 7, in step\n    x = y[k]");
    observer.next_source("rank1.log");
    // The heading of the table stood in the other file, and so did the traceback.
    observer.text("KeyError\nstep=2");
    observer.next_source("kern.log");
    observer.text("\n[ 1.0] NVRM: Xid (PCI:0000:3b:00): 31, pid=1");
    let seen = observer.finish();
    assert_eq!(seen.lines, 7, "a blank one tells nothing");
    let told: Vec<_> =
        seen.findings.iter().map(|f| (f.code.to_string(), f.first.source.to_string(), f.first.line)).collect();
    assert_eq!(told, [("user_code".into(), "rank0.log".into(), 2), ("xid_31".into(), "kern.log".to_owned(), 2)]);
    assert_eq!(seen.findings[0].frame.as_deref(), Some("/srv/train.py:7 in step"));
}

#[test]
fn tracebacks_that_others_push_out_are_counted() {
    let mut observer = Observer::new(Rules::built_in(), "log");
    for rank in 0..100 {
        observer.line(&format!("[rank{rank}]: Traceback (most recent call last):"));
        observer.line(&format!("[rank{rank}]:   File \"/srv/train.py\", line 7, in step"));
    }
    let seen = observer.finish();
    assert_eq!(seen.findings.len(), 100);
    assert!(seen.findings.iter().all(|finding| finding.code.name() == Some("user_code") && finding.weak));
    let lines: std::collections::BTreeSet<u64> = seen.findings.iter().map(|finding| finding.first.line).collect();
    assert_eq!(lines, (0..100).map(|rank| 2 * rank + 1).collect());
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
    let change =
        Change { node: Some("b".into()), what: "driver 580 was installed".into(), at_s: -600.0, may_cause: true };
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

#[test]
fn what_series_kernels_and_changes_tell_fits_into_400_tokens_too() {
    let tokens = tiktoken_rs::o200k_base().unwrap();
    let rules = Rules::built_in();
    let uuid = |n: usize| format!("GPU-5d1f3a77-0000-1111-2222-{n:012x}");
    let changes = (0..5).map(|n| FaultChange {
        at: Timestamp::from_unix_ms(1_800_000_000_000 + n),
        what: "the GPU driver went from 550.54.15, 560.35.03 to 570.86.10, 575.51.02 ".repeat(4),
    });
    let changes: Vec<FaultChange> = changes.collect();
    for sign in Sign::ALL {
        let Some(code) = sign.code() else { continue };
        let mut observer = Observer::new(rules, "GPU events before its last start");
        for n in 0..8 {
            let rule = format!("series.{code}");
            let words = "59 samples with a thermal reason within 600 s, up to 94 °C; peers' median 1410 (41 min)";
            let (uuid, at_s, asks) = (uuid(n), 1.8e9 + n as f64, Some(sign.asks()));
            observer.event(&Reported { code: code.clone(), uuid: &uuid, at_s, rule: &rule, words, asks });
        }
        observer.next_source("kernel log of gpu-node-eu-west-1a-0042");
        observer.line("2026-11-29T05:14:41.870Z kernel: NVRM: Xid (PCI:0000:3b:00): 31, pid=1234567, name=python3, Ch 0000000f, intr 00000000");
        observer.unread("1234567 lines of the kernel log of gpu-node-eu-west-1a-0042 are lost".into());
        let analyzer = Analyzer::new(rules, Policy::ours()).with_history(History { remediations: 3 });
        let verdict = analyzer.judge(&observer.finish());
        let target = Target { node: Some("node_01jq3x5f9k8h7g6f5d4s3a2p1z".into()), workload: None };
        let words = Insight::new(rules, &verdict, &target).with_changes(changes.clone()).text();
        let n = tokens.encode_with_special_tokens(&words).len();
        assert!(n <= 400, "{code}: {n} tokens\n{words}");
        assert!(words.contains("changed before: "), "{words}");
    }
}
