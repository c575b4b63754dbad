#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::strategies::{any_spec, valid_spec};

/// Whether a fault's path leads somewhere in the schema of the specification.
fn leads_somewhere(schema: &Value, path: &str) -> bool {
    let root = schema;
    let mut here = vec![schema];
    let mut rest = path;
    while !rest.is_empty() {
        let (step, key, after): (_, Option<&str>, _) = if let Some(inner) = rest.strip_prefix("[\"") {
            // A map's key is quoted and escaped; it ends at the first bare quote.
            let mut end = 0;
            let bytes = inner.as_bytes();
            while bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            ("additionalProperties", None, inner[end + 1..].strip_prefix(']').unwrap())
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (index, after) = inner.split_once(']').unwrap();
            index.parse::<usize>().unwrap();
            ("items", None, after)
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            ("properties", Some(&name[..end]), &name[end..])
        };
        here = here
            .into_iter()
            .flat_map(|schema| alternatives(root, schema))
            .filter_map(|schema| match key {
                Some(key) => schema.get(step)?.get(key),
                None => schema.get(step),
            })
            .collect();
        rest = after;
    }
    !here.is_empty()
}

/// A schema with all that it refers to or offers as alternatives.
fn alternatives<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let mut all = vec![schema];
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        all.extend(alternatives(root, target));
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        let options = schema.get(choice).and_then(Value::as_array);
        all.extend(options.into_iter().flatten().flat_map(|option| alternatives(root, option)));
    }
    all
}

proptest! {
    #[test]
    fn a_valid_spec_is_accepted_and_parses_to_itself(spec in valid_spec()) {
        let valid = ValidSpec::parse(spec.clone()).unwrap();
        prop_assert_eq!(valid.spec(), &spec);
        prop_assert_eq!(&ValidSpec::parse(valid.clone().into_spec()).unwrap(), &valid);
        prop_assert!(valid.demand().cpu_millis > 0 && valid.demand().memory_mib > 0);
        prop_assert!(valid.demand().gpus > 1 || !valid.demand().nvlink);
    }

    #[test]
    fn json_form_roundtrips_and_keeps_the_demand(spec in valid_spec()) {
        let valid = ValidSpec::parse(spec.clone()).unwrap();
        let text = serde_json::to_string(&valid).unwrap();
        prop_assert_eq!(&text, &serde_json::to_string(&spec).unwrap());
        prop_assert_eq!(serde_json::from_str::<ValidSpec>(&text).unwrap(), valid);
    }

    #[test]
    fn any_spec_is_parsed_or_refused_with_paths_in_order_that_exist(spec in any_spec()) {
        let schema = schemars::schema_for!(WorkloadSpec).to_value();
        prop_assert!(!leads_somewhere(&schema, "gpu.number") && !leads_somewhere(&schema, "gpu[0]"));
        if let Err(error) = ValidSpec::parse(spec) {
            prop_assert!(!error.faults.is_empty());
            prop_assert!(error.faults.is_sorted_by_key(|fault| &fault.path));
            for fault in &error.faults {
                prop_assert!(leads_somewhere(&schema, &fault.path), "{}", fault.path);
                prop_assert!(!fault.to_string().contains(char::is_control), "{:?}", fault);
            }
        }
    }

    #[test]
    fn what_may_be_secret_is_never_repeated(key in ".{0,10}", tail in ".{0,10}") {
        let secret = format!("hunter2\u{0}{tail}");
        let spec = WorkloadSpec {
            command: Some(vec![secret.clone()]),
            args: vec![secret.clone()],
            env: [(format!("K{key}"), secret.clone())].into(),
            secrets: vec![crate::spec::SecretRef { handle: secret, target: "key".to_owned() }],
            ..WorkloadSpec::default()
        };
        let error = ValidSpec::parse(spec).unwrap_err();
        let told = format!("{error} {error:?}");
        prop_assert!(!told.contains("hunter2"), "{}", told);
    }

    #[test]
    fn nearest_model_of_a_known_one_is_itself(index in 0..KNOWN_GPU_MODELS.len(), text in ".{0,80}") {
        let known = KNOWN_GPU_MODELS[index];
        prop_assert_eq!(nearest_gpu_model(known), Some(known));
        prop_assert_eq!(canonical_gpu_model(&known.to_lowercase()), Some(known));
        let _ = nearest_gpu_model(&text);
    }
}

/// What becomes of a specification: its demand, or its faults.
fn verdict(spec: &Value) -> String {
    match serde_json::from_value(spec.clone()).map(ValidSpec::parse) {
        Ok(Ok(valid)) => format!("{:?}", valid.demand()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("not a specification: {error}"),
    }
}

fn check(spec: Value, expected: Expect) {
    expected.assert_eq(&verdict(&spec));
}

/// A specification in which every field that can be wrong is.
fn wrong_everywhere() -> Value {
    json!({
        "name": "Llama_Chat",
        "model": "../etc/passwd",
        "image": "vllm/VLLM:latest",
        "command": [],
        "args": ["--key\u{1b}[31m"],
        "env": { "1BAD": "x", "GOOD": "line\nline", "NUL": "a\u{0}b" },
        "ports": [8000, 0, 8000],
        "gpu": { "count": 4, "model": "H 100!", "memory_gib_min": 0.0, "fraction": 1.5, "mig_profile": "9g.80gb", "interconnect": "nvlink" },
        "nodes": 5,
        "cpu_cores": -1.0, "memory_gib": 8.0, "disk_gib": 1e300, "shm_gib": 16.0,
        "replicas": 0,
        "autoscale": { "min": 4, "max": 2, "target": 70.0 },
        "max_duration_s": 0, "checkpoint_interval_s": 0,
        "not_before": "2026-03-10T14:00:00Z", "deadline": "2026-03-10T13:00:00Z",
        "restart": "never", "max_restarts": 3,
        "placement": { "node": "h100-07", "exclude_nodes": ["h100-07", "node_123"], "zone": "eu west", "labels": { "-k": "v" }, "tolerations": ["x y", "a=b", "taint/gpu", "x-"], "anti_affinity": { "within": "rack" } },
        "tenant": "ten_1",
        "volumes": [{ "source": "data", "target": "/data" }, { "source": "/etc/../root", "target": "/data/./" }, { "source": "x", "target": "/" }],
        "budget": { "amount": 0.0, "unit": "usd" },
        "working_dir": "work", "user": "root; rm",
        "secrets": [{ "handle": "hf token", "target": "../hf" }],
        "grace_s": 86400, "labels": { "team": "a\u{202e}b" },
        "on_partition": { "stop_after": 1 },
        "outputs": ["out/../../etc", "out", "./out/"],
        "runtime": "process"
    })
}

#[test]
fn all_faults_are_told_at_once_with_what_is_allowed() {
    check(
        wrong_everywhere(),
        expect![[r#"
            49 invalid values
            - args[0]: has control characters; allowed: text; of the control characters only tab and line ends
            - autoscale.metric: a target needs the metric that it is for; allowed: gpu_temperature_celsius, gpu_utilization_percent, gpu_memory_used_percent, gpu_power_watts, node_unreachable, queue_depth, error_rate_percent, latency_p99_ms
            - autoscale.min: is over autoscale.max (got 4); allowed: 0 to 2
            - budget.amount: is out of range (got 0.0); allowed: over 0, up to 1000000000000
            - checkpoint_interval_s: is out of range (got 0); allowed: 1 to 315360000
            - command: is an empty list; allowed: the program, then its arguments
            - cpu_cores: is out of range (got -1.0); allowed: over 0, up to 16384
            - deadline: is not after not_before (got 2026-03-10T13:00:00.000Z); allowed: after 2026-03-10T14:00:00.000Z
            - disk_gib: is out of range (got 1e300); allowed: over 0, up to 4194304
            - env["1BAD"]: does not have the right form (got 1BAD); allowed: a key of A-Z a-z 0-9 _, not beginning with a digit
            - env["NUL"]: has control characters; allowed: text; of the control characters only tab and line ends
            - gpu.fraction: is out of range (got 1.5); allowed: over 0, up to 1
            - gpu.fraction: a share of one GPU, but gpu.count is 4 (got 1.5); allowed: gpu.count 1, or no fraction
            - gpu.interconnect: MIG slices have no NVLink (got nvlink); allowed: any
            - gpu.memory_gib_min: is out of range (got 0.0); allowed: over 0, up to 4096
            - gpu.mig_profile: a MIG slice and a fraction exclude each other; allowed: one of mig_profile and fraction
            - gpu.mig_profile: does not have the right form (got 9g.80gb); allowed: a MIG profile such as 1g.10gb
            - gpu.model: does not have the right form (got H 100!); allowed: a model name such as H100
            - grace_s: is out of range (got 86400); allowed: 0 to 3600
            - image: does not have the right form (got vllm/VLLM:latest); allowed: [registry[:port]/]name[:tag][@sha256:digest] with a lower-case name, such as vllm/vllm-openai:v0.6.3
            - labels["team"]: has control or hidden characters (got a\u{202e}b); allowed: printable text
            - max_duration_s: is out of range (got 0); allowed: 1 to 315360000
            - max_restarts: restart is never (got 3); allowed: 0, or restart on_failure or always
            - model: does not have the right form (got ../etc/passwd); allowed: a catalogue id such as llama-3.1-70b-instruct
            - name: does not have the right form (got Llama_Chat); allowed: 1-63 of a-z 0-9 -, with a letter or digit at both ends, such as llama-chat
            - nodes: more nodes than the 4 GPUs of one replica (got 5); allowed: 1 to 4
            - on_partition.stop_after: is out of range (got 1); allowed: 3 to 604800
            - outputs[0]: does not have the right form (got out/../../etc); allowed: a path without ..
            - outputs[2]: is listed twice (got ./out/)
            - placement.anti_affinity.labels: says from whom: without labels it is nobody; allowed: labels of other work, such as {"app": "db"}
            - placement.exclude_nodes: excludes the node that placement.node asks for (got h100-07)
            - placement.exclude_nodes[1]: does not have the right form (got node_123); allowed: a node's name, or its id: node_ and 26 characters
            - placement.labels["-k"]: does not have the right form (got -k); allowed: a key of 1-63 of A-Z a-z 0-9 - _ . /, with a letter or digit at both ends
            - placement.tolerations[0]: does not have the right form (got x y); allowed: a taint's key, or key=value: a node's label taint/<key> is its taint <key>
            - placement.tolerations[3]: does not have the right form (got x-); allowed: a taint's key, or key=value: a node's label taint/<key> is its taint <key>
            - placement.zone: does not have the right form (got eu west); allowed: 1-63 of A-Z a-z 0-9 - _ ., not beginning with a dot or dash
            - ports[1]: is out of range (got 0); allowed: 1 to 65535
            - ports[2]: is listed twice (got 8000)
            - replicas: is out of range (got 0); allowed: 1 to 10000
            - runtime: a host process does not run an image (got process); allowed: docker, or leave image out
            - secrets[0].handle: is not a handle of a secret; allowed: a handle of A-Z a-z 0-9 - _ . : /
            - secrets[0].target: does not have the right form (got ../hf); allowed: 1-63 of A-Z a-z 0-9 - _ ., not beginning with a dot or dash
            - shm_gib: shared memory is part of memory_gib and cannot be larger (got 16); allowed: up to 8
            - tenant: does not have the right form (got ten_1); allowed: a tenant's name (1-63 of a-z 0-9 -), or its id: ten_ and 26 characters
            - user: does not have the right form (got root; rm); allowed: a user name, a uid, or uid:gid, such as 1000:1000
            - volumes[1].source: does not have the right form (got /etc/../root); allowed: an absolute path without ..
            - volumes[1].target: two volumes have this target (got /data/./)
            - volumes[2].target: would hide the whole file system (got /); allowed: a path below /
            - working_dir: does not have the right form (got work); allowed: an absolute path without .."#]],
    );
}

#[test]
fn what_is_missing_or_contradicts_is_named() {
    check(json!({}), expect!["invalid value: command: nothing to run: give a command, an image or a model"]);
    check(
        json!({ "command": ["true"], "gpu": { "model": "H100" } }),
        expect![
            "invalid value: gpu.count: GPUs are described but not counted: say how many one replica needs; allowed: 0 to 1024"
        ],
    );
    check(
        json!({ "command": ["true"], "gpu": { "count": 0, "vendor": "amd" } }),
        expect![
            "invalid value: gpu.count: no GPU is asked for, yet GPUs are described (got 0); allowed: 1 or more, or leave the rest of gpu out"
        ],
    );
    check(
        json!({ "command": ["true"], "gpu": { "count": 1, "model": "h100", "vendor": "amd" } }),
        expect!["invalid value: gpu.vendor: h100 is made by nvidia (got amd); allowed: nvidia"],
    );
    check(
        json!({ "command": ["true"], "gpu": { "count": 2, "fraction": 0.5 } }),
        expect![
            "invalid value: gpu.fraction: a share of one GPU, but gpu.count is 2 (got 0.5); allowed: gpu.count 1, or no fraction"
        ],
    );
    check(
        json!({ "model": "phi-4", "runtime": "process" }),
        expect!["invalid value: command: runtime process needs a command"],
    );
    check(
        json!({ "command": ["true"], "replicas": 9, "autoscale": { "min": 1, "max": 4 } }),
        expect!["invalid value: replicas: is outside of the autoscale range (got 9); allowed: 1 to 4"],
    );
    check(
        json!({ "command": ["true"], "gpus": 4 }),
        expect![
            "not a specification: unknown field `gpus`, expected one of `name`, `kind`, `model`, `quantization`, `image`, `command`, `args`, `env`, `ports`, `gpu`, `nodes`, `cpu_cores`, `memory_gib`, `disk_gib`, `shm_gib`, `replicas`, `autoscale`, `priority`, `preemptible`, `max_duration_s`, `not_before`, `gates`, `deadline`, `restart`, `max_restarts`, `placement`, `tenant`, `checkpoint_interval_s`, `volumes`, `market`, `budget`, `working_dir`, `user`, `secrets`, `grace_s`, `labels`, `on_partition`, `outputs`, `pull`, `pull_secret`, `read_only_root`, `runtime`"
        ],
    );
}

#[test]
fn a_share_has_its_part_of_what_the_driver_leaves_and_a_slice_its_part_of_seven() {
    let demand = |gpu: serde_json::Value| {
        let spec = serde_json::from_value(json!({ "command": ["true"], "gpu": gpu })).unwrap();
        ValidSpec::parse(spec).unwrap().demand().clone()
    };
    let half = demand(json!({ "fraction": 0.5 }));
    assert!(half.is_share());
    assert_eq!((half.gpu_milli_total(), half.memory_mib_of(81_559), half.memory_mib_of(4_096)), (500, 39_556, 1_920));
    let whole = demand(json!({ "fraction": 1.0 }));
    assert!(!whole.is_share());
    assert_eq!((whole.gpu_milli_total(), whole.memory_mib_of(81_559)), (1_000, 81_559));
    assert_eq!(demand(json!({ "fraction": 0.0004 })).gpu_milli, 1, "the least is a thousandth");
    assert_eq!(demand(json!({ "fraction": 1.0 / 3.0 })).gpu_milli, 333, "three thirds are one");
    for part in [json!({ "fraction": 0.5 }), json!({ "mig_profile": "1g.10gb" })] {
        let spec = serde_json::from_value(json!({ "command": ["true"], "gpu": part, "nodes": 2 })).unwrap();
        let told = ValidSpec::parse(spec).unwrap_err().to_string();
        assert!(told.contains("more nodes than the 1 GPUs of one replica"), "{told}");
    }
    let slices = demand(json!({ "mig_profile": "3g.40gb", "count": 2 }));
    assert_eq!((slices.gpus, slices.is_share(), slices.gpu_milli_total()), (2, false, 856));
    assert_eq!(
        (mig_profile_milli("7g.80gb"), mig_profile_milli("cpx/nps4"), mig_profile_milli("8g.1gb")),
        (Some(1_000), None, None)
    );
}

#[test]
fn demand_has_stated_defaults_and_rounds_up() {
    check(
        json!({ "command": ["true"] }),
        expect![
            "Demand { gpus: 0, gpu_milli: 1000, mig_profile: None, cpu_millis: 1000, memory_mib: 1024, disk_mib: 0, gpu_memory_mib_min: 0, gpu_models: [], gpu_models_ranked: false, gpu_vendor: None, nvlink: false, capped: false }"
        ],
    );
    check(
        json!({ "command": ["true"], "gpu": {} }),
        expect![
            "Demand { gpus: 0, gpu_milli: 1000, mig_profile: None, cpu_millis: 1000, memory_mib: 1024, disk_mib: 0, gpu_memory_mib_min: 0, gpu_models: [], gpu_models_ranked: false, gpu_vendor: None, nvlink: false, capped: false }"
        ],
    );
    check(
        json!({ "model": "llama-3.1-70b-instruct", "gpu": { "count": 4, "model": "rtx 4090", "memory_gib_min": 24.0, "interconnect": "nvlink" } }),
        expect![[
            r#"Demand { gpus: 4, gpu_milli: 1000, mig_profile: None, cpu_millis: 1000, memory_mib: 1024, disk_mib: 0, gpu_memory_mib_min: 22856, gpu_models: ["RTX4090"], gpu_models_ranked: false, gpu_vendor: None, nvlink: true, capped: false }"#
        ]],
    );
    check(
        json!({ "image": "registry.example.com:5000/a/b:v1", "gpu": { "fraction": 0.25, "interconnect": "nvlink" } }),
        expect![
            "Demand { gpus: 1, gpu_milli: 250, mig_profile: None, cpu_millis: 1000, memory_mib: 1024, disk_mib: 0, gpu_memory_mib_min: 0, gpu_models: [], gpu_models_ranked: false, gpu_vendor: None, nvlink: false, capped: false }"
        ],
    );
    check(
        json!({ "command": ["sh", "-c", "a\nb"], "cpu_cores": 1.1, "memory_gib": 0.0001, "disk_gib": 1.5, "gpu": { "count": 2, "model": "X9000" } }),
        expect![[
            r#"Demand { gpus: 2, gpu_milli: 1000, mig_profile: None, cpu_millis: 1100, memory_mib: 1, disk_mib: 1536, gpu_memory_mib_min: 0, gpu_models: ["X9000"], gpu_models_ranked: false, gpu_vendor: None, nvlink: false, capped: false }"#
        ]],
    );
}

#[test]
fn every_gpu_sold_by_a_size_meets_a_demand_of_it() {
    // Nominal GiB asked for, and MiB that the driver reports.
    let reported = [
        (80.0, 81_559),
        (48.0, 46_068),
        (24.0, 23_034),
        (24.0, 23_028),
        (16.0, 15_360),
        (40.0, 40_536),
        (192.0, 196_592),
    ];
    for (nominal_gib, reported_mib) in reported {
        let spec = json!({ "command": ["true"], "gpu": { "count": 1, "memory_gib_min": nominal_gib } });
        let valid: ValidSpec = serde_json::from_value(spec).unwrap();
        assert!(valid.demand().gpu_memory_mib_min <= reported_mib, "{nominal_gib}");
        assert!(valid.demand().gpu_memory_mib_min > 40_536 || nominal_gib <= 48.0);
    }
}

/// Each text with what a check says of it.
fn verdicts(check: fn(&mut Validator, &str, &str) -> bool, texts: &[&str]) -> String {
    let verdict = |text: &str| check(&mut Validator::new(), "at", text);
    let line = |text: &&str| format!("{} {text}", if verdict(text) { "ok" } else { "no" });
    texts.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn forms_of_images() {
    let digest = format!("vllm/vllm-openai@sha256:{}", "0a".repeat(32));
    let right = "ubuntu vllm/vllm-openai:v0.6.3 localhost:5000/a__b:1 nvcr.io/nvidia/pytorch:24.10-py3";
    let wrong = "Ubuntu a: a//b -a a@sha256:12 host:0/a a:b:c a..b/c";
    let images: Vec<&str> = right.split(' ').chain([digest.as_str()]).chain(wrong.split(' ')).collect();
    expect![[r#"
        ok ubuntu
        ok vllm/vllm-openai:v0.6.3
        ok localhost:5000/a__b:1
        ok nvcr.io/nvidia/pytorch:24.10-py3
        ok vllm/vllm-openai@sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a
        no Ubuntu
        no a:
        no a//b
        no -a
        no a@sha256:12
        no host:0/a
        no a:b:c
        no a..b/c"#]]
    .assert_eq(&verdicts(Validator::image, &images));
}

#[test]
fn forms_of_users_and_references() {
    let users = ["root", "1000", "1000:1000", "_apt", "4294967296", "1000:root", "Root", "+1"];
    expect![[r#"
        ok root
        ok 1000
        ok 1000:1000
        ok _apt
        no 4294967296
        no 1000:root
        no Root
        no +1"#]]
    .assert_eq(&verdicts(Validator::user, &users));
    let id = "node_00000000000000000000000007";
    let nodes = ["h100-07", "gpu01.rack3.example.com", id, "node_7", ".x", ""];
    expect![[r#"
        ok h100-07
        ok gpu01.rack3.example.com
        ok node_00000000000000000000000007
        no node_7
        no .x
        no "#]]
    .assert_eq(&verdicts(Validator::node_ref, &nodes));
}

#[test]
fn defaults_of_priority_restart_grace_and_partition() {
    let valid = |more: Value| {
        let mut spec = json!({ "command": ["true"] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value::<ValidSpec>(spec).unwrap()
    };
    let seen = |v: &ValidSpec| (v.restart(), v.max_restarts());
    let plain = valid(json!({}));
    assert_eq!((plain.priority(), plain.grace_s()), (Priority::Normal, 10));
    assert_eq!(plain.on_partition(), OnPartition::StopAfter(limits::STOP_AFTER_S_DEFAULT));
    assert_eq!(seen(&plain), (RestartPolicy::Never, 0));
    assert_eq!(seen(&valid(json!({ "restart": "on_failure" }))), (RestartPolicy::OnFailure, 3));
    assert_eq!(seen(&valid(json!({ "restart": "always" }))), (RestartPolicy::Always, u32::MAX));
    assert_eq!(seen(&valid(json!({ "max_restarts": 5 }))), (RestartPolicy::OnFailure, 5));
    assert_eq!(seen(&valid(json!({ "max_restarts": 0 }))), (RestartPolicy::Never, 0));
}
