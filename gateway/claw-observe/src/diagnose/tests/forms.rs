//! The same message in other forms, and sentences that only speak of it.

use crate::diagnose::cases;
use crate::diagnose::policy::Policy;

fn root(text: &str) -> String {
    cases::judge("a".into(), text.lines(), Policy::ours()).root
}

/// Messages with what they are.
const SAID: [(&str, &str); 4] = [
    ("NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python3, Ch 00000008", "xid_31"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "cuda_oom"),
    ("OSError: [Errno 28] No space left on device: '/scratch/step_900'", "disk_full"),
    ("amdgpu 0000:c1:00.0: amdgpu: [gfxhub0] no-retry page fault (src_id:0 ring:24 vmid:8)", "amdgpu_page_fault"),
];

#[test]
fn log_collectors_wrap_the_message_in_fields_of_their_own() {
    for (message, code) in SAID {
        for field in ["message", "log", "body", "data", "textPayload"] {
            let line = serde_json::json!({ "severity": "ERROR", "insertId": "a1", field: message });
            assert_eq!(root(&line.to_string()), code, "{line}");
        }
        let line = serde_json::json!({ "severity": "ERROR", "jsonPayload": { "message": message } });
        assert_eq!(root(&line.to_string()), code, "{line}");
        let chat = serde_json::json!({ "role": "user", "data": message });
        assert_eq!(root(&chat.to_string()), "none", "{chat}");
    }
}

#[test]
fn a_pods_name_before_each_line_keeps_a_traceback_whole() {
    let lines = [
        "Traceback (most recent call last):",
        "  File \"/workspace/train.py\", line 12, in <module>",
        "    cfg = load(path)",
        "KeyError: 'optimizer'",
    ];
    let of = |pod: &str| lines.map(|line| format!("[pod/{pod}/trainer] {line}")).join("\n");
    assert_eq!(root(&of("train-0")), "user_code");
    let answer = cases::judge("a".into(), of("train-0").lines(), Policy::ours());
    assert_eq!(answer.rules, ["user.exception"]);
    // Two pods write into each other.
    let (one, other) = (of("train-0"), of("train-1"));
    let mixed: Vec<&str> = one.lines().zip(other.lines()).flat_map(|(one, other)| [one, other]).collect();
    let answer = cases::judge("a".into(), mixed.into_iter(), Policy::ours());
    assert_eq!((answer.root.as_str(), answer.rules), ("user_code", vec!["user.exception".to_owned()]));
}

#[test]
fn a_class_of_a_module_of_errors_is_an_exception_whatever_its_name() {
    assert_eq!(root("compiler.runtime.errors.OutOfResources: out of resource: registers"), "user_code");
    assert_eq!(root("cloud.core.exceptions.Forbidden: 403 POST /upload"), "user_code");
    assert_eq!(root("see cloud.core.exceptions.Forbidden for details"), "none");
}

#[test]
fn what_follows_from_something_else_leads_only_alone() {
    let aborted = "terminate called after throwing an instance of 'std::runtime_error'\n";
    assert_eq!(root(aborted), "user_code");
    for (cause, code) in [
        ("[rank3]: RuntimeError: CUDA error: device-side assert triggered\n", "cuda_device_assert"),
        ("node1:9:19 [0] NCCL WARN NET/OFI Request 7 completed with error. RC: 21\n", "nccl_net_error"),
    ] {
        assert_eq!(root(&(cause.to_owned() + aborted)), code);
        assert_eq!(root(&(aborted.to_owned() + cause)), code);
    }
}

#[test]
fn a_host_of_the_name_example_is_no_example() {
    let line = "gpu-7.example.com kernel: NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python3";
    assert_eq!(root(line), "xid_31");
    assert_eq!(root("An example: NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python3"), "none");
}

#[test]
fn what_introduces_a_fault_does_not_hide_it() {
    for text in [
        "Training failed with the following error: CUDA out of memory. Tried to allocate 2.00 GiB",
        "FAILED tests/test_step.py::test_step - torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    ] {
        assert_eq!(root(text), "cuda_oom", "{text}");
    }
}

#[test]
fn sentences_about_faults_are_none() {
    for text in [
        "The code 48 indicates an uncorrectable ECC error on the device",
        "In that case you will see Failed to initialize NVML: Unknown Error in the container",
        "We have had \"uncorrectable ECC error encountered\" on this node before the card was replaced",
        "For Error 802: system not yet initialized, the service has to be installed",
        "Lower the share of memory to avoid CUDA out of memory errors",
        "torch.cuda.OutOfMemoryError is raised when the pool is empty",
        "INFO checkpoint saved; no CUDA out of memory in the last 1000 steps",
        "tests/test_parse.py::test_line[NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus] PASSED",
        "NCCL watchdog timeout set to 600000 ms",
        "How to solve CUDA out of memory on one card",
    ] {
        assert_eq!(root(text), "none", "{text}");
    }
}
