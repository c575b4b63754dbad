//! An intent, its sentence, and the same intent.

use serde_json::Map;

use super::*;

/// Draws of values; the same seed gives the same intents.
struct Random(eval::Draws);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.below(n)
    }

    fn one<'v, T>(&mut self, values: &'v [T]) -> &'v T {
        &values[self.below(values.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Names, many of which are words of the lexicon.
    fn name(&mut self) -> String {
        const NAMES: &[&str] = &[
            "chat",
            "run",
            "stop",
            "gpu-1",
            "node-7",
            "h100-03",
            "llama-prod",
            "4",
            "no",
            "production",
            "logs",
            "a.b_c",
            "train-42",
            "two",
            "the",
            "canary",
            "x",
            "2x8",
            "phi-4",
            "slow",
            "market",
            "日本",
            "gpu",
            "Chat",
        ];
        (*self.one(NAMES)).to_owned()
    }

    fn text(&mut self) -> String {
        const TEXTS: &[&str] = &[
            "a",
            "",
            "--flag",
            "stop all jobs",
            "4 H100",
            "a \"b\" c",
            "back\\slash",
            "new\nline",
            "it's",
            "`x`",
            "$HOME",
            "http://h:80/p?q=1",
            "{\"k\":[1]}",
            "日本語",
            "> 5",
            "trailing\\",
            "a, b; c.",
        ];
        (*self.one(TEXTS)).to_owned()
    }

    fn size(&mut self) -> f64 {
        *self.one(&[0.5, 1.5, 7.25, 16.0, 64.0, 80.0, 1536.0, 0.1 + 0.2, 12_345.678, 1.0])
    }

    fn time(&mut self) -> u64 {
        *self.one(&[1, 45, 60, 90, 3_600, 5_400, 21_600, 86_400, 604_800, 1_234_567])
    }

    fn count(&mut self) -> usize {
        1 + self.below(64)
    }
}

/// Metrics; the last is of a node and has no threshold.
const METRICS: &[&str] = &[
    "gpu_temperature_celsius",
    "gpu_utilization_percent",
    "gpu_memory_used_percent",
    "gpu_power_watts",
    "queue_depth",
    "error_rate_percent",
    "latency_p99_ms",
    "node_unreachable",
];
const SYMPTOMS: &[&str] = &["slow", "pending", "crash", "oom", "error", "overheating", "unreachable", "idle"];

/// Sets a field in some of the intents.
fn maybe(random: &mut Random, map: &mut Map<String, Value>, key: &str, value: impl FnOnce(&mut Random) -> Value) {
    if random.chance(35) {
        let value = value(random);
        map.insert(key.to_owned(), value);
    }
}

fn gpu(random: &mut Random) -> Value {
    if random.chance(10) {
        return json!({ "count": 0 });
    }
    let mut gpu = Map::new();
    let known = random.one(Catalog::builtin().gpus());
    let shared = random.chance(25);
    if !shared || random.chance(30) {
        let n = if shared { 1 } else { random.count() };
        gpu.insert("count".into(), json!(n));
    }
    if random.chance(60) {
        gpu.insert("model".into(), json!(known.id));
        maybe(random, &mut gpu, "vendor", |_| json!(known.vendor.as_str()));
        maybe(random, &mut gpu, "memory_gib_min", |r| json!(r.one(&known.memory_gib)));
    } else {
        maybe(random, &mut gpu, "vendor", |r| json!(r.one(&["nvidia", "amd", "apple"])));
        maybe(random, &mut gpu, "memory_gib_min", |r| json!(r.size()));
    }
    if shared && random.chance(50) {
        gpu.insert("mig_profile".into(), json!(random.one(&["1g.10gb", "3g.40gb", "7g.80gb"])));
    } else if shared {
        gpu.insert("fraction".into(), json!(random.one(&[0.1, 0.25, 0.5, 1.0 / 3.0, 0.875, 1.0])));
    }
    if !shared {
        maybe(random, &mut gpu, "interconnect", |r| json!(r.one(&["nvlink", "any"])));
    }
    Value::Object(gpu)
}

fn autoscale(random: &mut Random) -> Value {
    let min = random.below(8);
    let mut rule = Map::new();
    rule.insert("min".into(), json!(min));
    rule.insert("max".into(), json!(min + random.count()));
    maybe(random, &mut rule, "metric", |r| json!(r.one(&METRICS[..METRICS.len() - 1])));
    maybe(random, &mut rule, "target", |r| json!(r.size()));
    Value::Object(rule)
}

fn budget(random: &mut Random) -> Value {
    let mut budget = Map::new();
    budget.insert("amount".into(), json!(random.size()));
    budget.insert("unit".into(), json!(random.one(&["usd", "molt"])));
    maybe(random, &mut budget, "per", |r| json!(r.one(&["gpu_hour", "hour", "total"])));
    Value::Object(budget)
}

fn placement(random: &mut Random) -> Value {
    let mut at = Map::new();
    maybe(random, &mut at, "node", |r| json!(r.name()));
    maybe(random, &mut at, "zone", |r| json!(r.name()));
    maybe(random, &mut at, "strategy", |r| json!(r.one(&["pack", "spread"])));
    maybe(random, &mut at, "labels", |r| json!({ r.name(): r.text(), "tier": "gold" }));
    maybe(random, &mut at, "exclude_nodes", |_| json!(["bad-1", "worse"]));
    Value::Object(at)
}

fn policies(random: &mut Random, map: &mut Map<String, Value>) {
    maybe(random, map, "priority", |r| json!(r.one(&["critical", "high", "normal", "low", "best_effort"])));
    maybe(random, map, "preemptible", |r| json!(r.chance(50)));
    maybe(random, map, "max_duration_s", |r| json!(r.time()));
    maybe(random, map, "not_before", |r| json!(r.one(&["2026-03-12T08:00:00Z", "2026-03-12T08:00:00.125Z"])));
    maybe(random, map, "deadline", |r| json!(r.one(&["2027-01-01T00:00:00Z", "2026-12-31T23:59:59Z"])));
    maybe(random, map, "restart", |r| json!(r.one(&["never", "on_failure", "always"])));
    if map.get("restart").is_none_or(|policy| policy != "never") {
        maybe(random, map, "max_restarts", |r| json!(r.count()));
    }
    if !map.contains_key("max_duration_s") {
        maybe(random, map, "checkpoint_interval_s", |r| json!(r.time()));
    }
    maybe(random, map, "tenant", |r| json!(r.name()));
    maybe(random, map, "market", |r| json!(r.one(&["never", "overflow", "only"])));
    maybe(random, map, "budget", budget);
}

/// Any workload that the grammar's own checks let pass.
fn workload(random: &mut Random) -> Map<String, Value> {
    let mut map = Map::new();
    maybe(random, &mut map, "name", |r| json!(r.name()));
    maybe(random, &mut map, "kind", |r| json!(r.one(&["inference", "training", "batch", "interactive", "service"])));
    maybe(random, &mut map, "quantization", |r| json!(r.one(&["fp32", "fp16", "bf16", "fp8", "int8", "int4"])));
    maybe(random, &mut map, "image", |r| json!(r.one(&["nginx", "nvcr.io/nvidia/pytorch:25.01-py3", "run/me:4"])));
    maybe(random, &mut map, "command", |r| json!([r.name(), r.text(), r.text()]));
    maybe(random, &mut map, "env", |r| json!({ "A": r.text(), "lower.key": r.text() }));
    maybe(random, &mut map, "working_dir", |_| json!("/a b"));
    maybe(random, &mut map, "user", |r| json!(r.one(&["1000:1000", "nobody"])));
    maybe(random, &mut map, "ports", |_| json!([8080, 4090, 443]));
    maybe(random, &mut map, "gpu", gpu);
    let gpus = map.get("gpu").and_then(|gpu| gpu["count"].as_u64()?.try_into().ok());
    maybe(random, &mut map, "nodes", |r| json!(1 + r.below(gpus.unwrap_or(8).clamp(1, 8))));
    maybe(random, &mut map, "cpu_cores", |r| json!(r.size()));
    maybe(random, &mut map, "memory_gib", |r| json!(r.size()));
    maybe(random, &mut map, "disk_gib", |r| json!(r.size()));
    maybe(random, &mut map, "shm_gib", |r| json!(r.size()));
    maybe(random, &mut map, "replicas", |r| json!(r.count()));
    maybe(random, &mut map, "autoscale", autoscale);
    maybe(random, &mut map, "placement", placement);
    map.retain(|_, value| *value != json!({}));
    maybe(random, &mut map, "volumes", |r| {
        json!([
            { "source": r.name(), "target": "/data", "read_only": r.chance(50) },
            { "source": "/host/path", "target": "/a b/c", "read_only": r.chance(50) },
        ])
    });
    policies(random, &mut map);
    // A model that fits whatever GPUs are asked for; any where none are.
    let small = map.contains_key("gpu");
    maybe(random, &mut map, "model", |r| {
        json!(if small { "bge-large-en" } else { r.one(Catalog::builtin().models()).id.as_str() })
    });
    map
}

/// A workload that has something to run.
fn program(random: &mut Random) -> Map<String, Value> {
    loop {
        let map = workload(random);
        if ["model", "image", "command", "kind"].iter().any(|key| map.contains_key(*key)) {
            return map;
        }
    }
}

fn rollout(random: &mut Random, map: &mut Map<String, Value>) {
    maybe(random, map, "strategy", |r| json!(r.one(&["rolling", "canary", "blue_green"])));
    if map.contains_key("strategy") {
        maybe(random, map, "canary_percent", |r| json!(r.one(&[5.0, 12.5, 100.0])));
    }
}

fn filter(random: &mut Random, alert: bool) -> Value {
    let mut map = Map::new();
    maybe(random, &mut map, "node", |r| json!(r.name()));
    maybe(random, &mut map, "workload_id", |r| json!(r.name()));
    maybe(random, &mut map, "deployment", |r| json!(r.name()));
    maybe(random, &mut map, "gpu_model", |r| json!(r.one(Catalog::builtin().gpus()).id));
    maybe(random, &mut map, "tenant", |r| json!(r.name()));
    if !alert {
        maybe(random, &mut map, "since_s", |r| json!(r.time()));
        maybe(random, &mut map, "text", |r| {
            json!(r.one(&["error 4", "CUDA out of memory", "a \"b\"", "stop", "it's"]))
        });
    }
    Value::Object(map)
}

fn query(random: &mut Random) -> Value {
    const SUBJECTS: &[&str] = &[
        "status",
        "nodes",
        "gpus",
        "workloads",
        "deployments",
        "logs",
        "metrics",
        "alerts",
        "costs",
        "events",
        "market",
        "audit",
    ];
    let subject = *random.one(SUBJECTS);
    let mut map = Map::new();
    let mut filter = filter(random, false);
    let states: &[&str] = match subject {
        "nodes" => &["idle", "ready", "draining", "drained", "offline", "unhealthy", "busy"],
        "gpus" => &["idle", "busy", "unhealthy", "offline"],
        "workloads" => &["running", "pending", "failed", "completed", "stopped", "paused"],
        "deployments" => &["running", "failed", "paused", "unhealthy"],
        _ => &[],
    };
    if !states.is_empty() && random.chance(40) {
        filter["state"] = json!(random.one(states));
    }
    if subject == "metrics" {
        filter["metric"] = json!(random.one(&["gpu_temperature_celsius", "error_rate_percent", "latency_p99_ms"]));
    }
    map.insert("action".into(), json!("query"));
    map.insert("subject".into(), json!(subject));
    map.insert("filter".into(), filter);
    maybe(random, &mut map, "limit", |r| json!(r.count()));
    Value::Object(map)
}

fn alert(random: &mut Random) -> Value {
    let metric = *random.one(METRICS);
    let mut map = Map::new();
    map.insert("action".into(), json!("alert"));
    map.insert("metric".into(), json!(metric));
    map.insert("filter".into(), filter(random, true));
    if metric != "node_unreachable" {
        map.insert("op".into(), json!(random.one(&[">", "<"])));
        map.insert("threshold".into(), json!(random.size()));
    }
    maybe(random, &mut map, "for_s", |r| json!(r.time()));
    Value::Object(map)
}

fn diagnose(random: &mut Random) -> Value {
    let kind = *random.one(&["cluster", "node", "gpu", "workload", "deployment"]);
    let mut target = Map::new();
    target.insert("kind".into(), json!(kind));
    if kind != "cluster" {
        target.insert("id".into(), json!(random.name()));
    }
    if kind == "gpu" {
        target.insert("index".into(), json!(random.below(8)));
    }
    let mut map = Map::new();
    map.insert("action".into(), json!("diagnose"));
    map.insert("target".into(), Value::Object(target));
    maybe(random, &mut map, "symptom", |r| json!(r.one(SYMPTOMS)));
    Value::Object(map)
}

fn launched(random: &mut Random) -> Value {
    let mut map = Map::new();
    map.insert("workload".into(), Value::Object(program(random)));
    if random.chance(50) {
        map.insert("action".into(), json!("run"));
        return Value::Object(map);
    }
    map.insert("action".into(), json!("deploy"));
    maybe(random, &mut map, "deployment", |r| json!(r.name()));
    maybe(random, &mut map, "environment", |r| json!(r.one(&["dev", "staging", "production"])));
    rollout(random, &mut map);
    Value::Object(map)
}

fn changed(random: &mut Random) -> Value {
    let mut map = Map::new();
    map.insert("action".into(), json!("update"));
    map.insert("deployment".into(), json!(random.name()));
    rollout(random, &mut map);
    // Another number of replicas alone is a scaling.
    let changes = loop {
        let changes = workload(random);
        if changes.keys().any(|key| key != "replicas" && key != "autoscale") {
            break changes;
        }
    };
    map.insert("changes".into(), Value::Object(changes));
    Value::Object(map)
}

fn controlled(random: &mut Random) -> Value {
    let name = random.name();
    let mut map = Map::new();
    match random.below(6) {
        0 => {
            map.insert("action".into(), json!("scale"));
            map.insert("deployment".into(), json!(name));
            if random.chance(50) {
                map.insert("replicas".into(), json!(random.below(50)));
            } else {
                map.insert("autoscale".into(), autoscale(random));
            }
        }
        1 | 2 => {
            map.insert("action".into(), json!("stop"));
            let key = if random.chance(50) { "workload_id" } else { "deployment" };
            map.insert(key.into(), json!(name));
            maybe(random, &mut map, "graceful", |r| json!(r.chance(50)));
            maybe(random, &mut map, "grace_s", |r| json!(r.time()));
        }
        3 => {
            map.insert("action".into(), json!("rollback"));
            map.insert("deployment".into(), json!(name));
            maybe(random, &mut map, "to_revision", |r| json!(r.count()));
        }
        4 => {
            map.insert("action".into(), json!("drain"));
            map.insert("node".into(), json!(name));
            maybe(random, &mut map, "force", |r| json!(r.chance(50)));
            maybe(random, &mut map, "deadline_s", |r| json!(r.time()));
        }
        _ => {
            map.insert("action".into(), json!("undrain"));
            map.insert("node".into(), json!(name));
        }
    }
    Value::Object(map)
}

fn traded(random: &mut Random) -> Value {
    let mut map = Map::new();
    map.insert("budget".into(), budget(random));
    maybe(random, &mut map, "duration_s", |r| json!(r.time()));
    if random.chance(50) {
        map.insert("action".into(), json!("bid"));
        map.insert("gpu".into(), gpu(random));
        maybe(random, &mut map, "workload", |r| json!({ "model": r.one(Catalog::builtin().models()).id }));
    } else {
        map.insert("action".into(), json!("offer"));
        map.insert("node".into(), json!(random.name()));
        maybe(random, &mut map, "gpu", gpu);
    }
    Value::Object(map)
}

/// Intents of each maker; launches alone are over a thousand specifications with the changes.
const PER_ACTION: u32 = 600;

/// Every kind of intent, each with any of its fields.
#[test]
fn an_intent_is_said_and_read_as_the_same_intent() {
    let makers = [launched, changed, controlled, diagnose, query, alert, traded];
    let mut random = Random(eval::Draws::new(5));
    let (mut said, mut failing) = (0, Vec::new());
    for maker in makers {
        for _ in 0..PER_ACTION {
            let value = maker(&mut random);
            let intent: Intent = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{value}: {e}"));
            if say(&intent, &Context::default(), Catalog::builtin()).is_some() {
                said += 1;
            } else {
                let sentence = crate::say::sentence(&intent).unwrap_or_default();
                failing.push(format!("{value}\n  {sentence}\n  {}", answer(&sentence, &Context::default())));
            }
        }
    }
    assert!(failing.is_empty(), "{} of {} are not said:\n{}", failing.len(), said + failing.len(), failing.join("\n"));
}

/// Whether something is named that could run.
fn is_whole(intent: &Intent) -> bool {
    match intent {
        Intent::Run { workload } | Intent::Deploy { workload, .. } => {
            workload.model.is_some()
                || workload.image.is_some()
                || workload.command.is_some()
                || workload.kind.is_some()
        }
        _ => true,
    }
}

/// What each case wants, and what the engine makes of it, can be said in the case's own context:
/// of each file so many intents that the engine made, and so many that the cases want.
#[test]
fn every_case_is_said_back() {
    const SAID: &[(&str, (u32, u32))] = &[("tuning", (5345, 5306)), ("validation", (388, 389)), ("public", (169, 169))];
    let mut failing = Vec::new();
    for (name, cases) in super::cases::case_files() {
        let (mut made, mut whole) = (0, 0);
        for case in cases {
            let understood = match parse(&case.text, &case.context, Catalog::builtin()) {
                Answer::Intent(understood) => Some(understood.intent),
                Answer::Question(_) | Answer::Refusal { .. } => None,
            };
            // A case names what it judges; what it leaves out may be what an intent cannot be without.
            let wanted = case.line.get("expect").and_then(|expect| serde_json::from_value(expect.clone()).ok());
            let wanted = wanted.filter(is_whole);
            for (intent, said) in [(understood, &mut made), (wanted, &mut whole)] {
                let Some(intent) = intent else { continue };
                if say(&intent, &case.context, Catalog::builtin()).is_some() {
                    *said += 1;
                } else {
                    let sentence = crate::say::sentence(&intent).unwrap_or_default();
                    let value = serde_json::to_value(&intent).unwrap();
                    failing.push(format!("{value}\n  {sentence}\n  {}", answer(&sentence, &case.context)));
                }
            }
        }
        let pinned = SAID.iter().find(|(file, _)| *file == name).map(|(_, said)| *said);
        assert_eq!(Some((made, whole)), pinned, "{name}: intents said back; not said:\n{}", failing.join("\n"));
    }
    assert!(failing.is_empty(), "{} are not said:\n{}", failing.len(), failing.join("\n"));
}

/// What has no words is not said in other words.
#[test]
fn what_cannot_be_said_is_not_said() {
    let unsayable = [
        json!({ "action": "drain", "node": "a\" and node \"b" }),
        json!({ "action": "run", "workload": { "model": "phi-4", "labels": { "a": "b" } } }),
        json!({ "action": "run", "workload": { "model": "no-such-model" } }),
        json!({ "action": "run", "workload": { "kind": "batch", "command": ["bypass the audit"] } }),
        json!({ "action": "run", "workload": { "model": "llama-3.1-405b-instruct", "gpu": { "count": 1, "model": "T4" } } }),
        json!({ "action": "stop", "workload_id": "a", "deployment": "b" }),
    ];
    for value in unsayable {
        let intent: Intent = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(say(&intent, &Context::default(), Catalog::builtin()), None, "{value}");
    }
    let drain: Intent = serde_json::from_value(json!({ "action": "drain", "node": "gone" })).unwrap();
    let context: Context = serde_json::from_value(json!({ "nodes": [{ "name": "gpu-1" }] })).unwrap();
    assert_eq!(say(&drain, &context, Catalog::builtin()), None, "there is no such node");
}
