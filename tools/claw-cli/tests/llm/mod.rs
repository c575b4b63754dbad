//! `claw intent parse --llm` over a scripted endpoint: what goes to which stream, and the key to none.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::{err, out};

const KEY: &str = "sk-cli-7731-never-shown";
const CASES: &str = r#"{"id":"a","category":"x","text":"squelch train-7","context":{"workloads":[{"id":"train-7"}]},"outcome":"intent","expect":{}}
{"id":"b","category":"x","text":"run phi-4 on four A100 behind the bastion","context":{},"outcome":"intent","expect":{}}
{"id":"c","category":"x","text":"stop train-9","context":{},"outcome":"intent","expect":{}}
"#;

/// An endpoint that always says the same.
struct Endpoint {
    url: String,
    keys: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Endpoint {
    fn start(says: Value) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let keys: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}/v1", listener.local_addr().expect("its address"));
        let seen = Arc::clone(&keys);
        let answer = move |headers: HeaderMap| {
            let key = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            seen.lock().expect("no panic").push(key);
            let content = says.to_string();
            async move { Json(json!({ "choices": [{ "message": { "content": content } }] })) }
        };
        let app = axum::Router::new().fallback(answer);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            axum::serve(listener, app).await.expect("it serves");
        });
        Self { url, keys, _runtime: runtime }
    }
}

fn claw(words: &[&str], variables: &[(&str, &str)], input: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases");
    std::fs::write(&cases, input).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_claw"));
    command.args(["intent", "parse"]).args(words).env_clear().env("HOME", "/nonexistent");
    command.envs(variables.iter().copied()).stdin(std::fs::File::open(&cases).expect("the cases"));
    let output = command.output().expect("claw ends");
    for text in [out(&output), err(&output)] {
        assert!(!text.contains(KEY), "the key is shown: {text}");
    }
    output
}

#[test]
fn without_settings_it_says_what_to_set() {
    for words in [&["--jsonl", "--llm"][..], &["squelch train-7", "--llm", "--llm-url", "http://127.0.0.1:1/v1"]] {
        let output = claw(words, &[], CASES);
        assert_eq!((output.status.code(), &*out(&output)), (Some(1), ""));
        for name in ["--llm-url", "--llm-model", "CLAW_LLM_URL", "CLAW_LLM_MODEL", "CLAW_LLM_KEY_FILE"] {
            assert!(err(&output).contains(name), "{}", err(&output));
        }
    }
    let variables = [("CLAW_LLM_URL", "http://llm.example/v1"), ("CLAW_LLM_MODEL", "m"), ("CLAW_LLM_KEY", KEY)];
    let output = claw(&["--jsonl", "--llm"], &variables, CASES);
    assert_eq!((output.status.code(), &*out(&output)), (Some(1), ""));
    assert!(err(&output).contains("plain HTTP"), "{}", err(&output));
}

#[test]
fn cases_are_answered_in_the_same_form_and_the_model_is_named_as_the_source() {
    let endpoint =
        Endpoint::start(json!({ "outcome": "intent", "intent": { "action": "stop", "workload_id": "train-7" } }));
    let folder = tempfile::tempdir().expect("a folder");
    let transcript = folder.path().join("said.jsonl");
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{KEY}\n")).expect("a file");
    let variables = [("CLAW_LLM_URL", &*endpoint.url), ("CLAW_LLM_MODEL", "small-1")];
    let words = ["--jsonl", "--llm", "--llm-key-file", key.to_str().expect("a path"), "--llm-transcript"];
    let words = [&words[..], &[transcript.to_str().expect("a path")]].concat();
    let output = claw(&words, &variables, CASES);
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let plain = claw(&["--jsonl"], &[], CASES);
    let plain: Vec<Value> = out(&plain).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(plain[0]["outcome"], "question");
    assert_eq!(lines[0]["intent"], json!({ "action": "stop", "workload_id": "train-7" }));
    assert_eq!(lines[0]["provenance"][0], json!({ "field": "action", "source": { "kind": "model" } }));
    // What it says of the others does not pass: the grammar's answers stand, and it is told beside them.
    assert_eq!(lines[1..], plain[1..]);
    assert!(err(&output).starts_with("b: llm_rejected: "), "{}", err(&output));
    assert_eq!(err(&output).lines().count(), 1);
    let said = std::fs::read_to_string(&transcript).expect("a transcript");
    assert!(!said.contains(KEY) && said.lines().count() == 3, "{said}");
    let keys = endpoint.keys.lock().expect("no panic");
    assert!(keys.len() == 4 && keys.iter().all(|key| *key == format!("Bearer {KEY}")), "{keys:?}");
}

#[test]
fn one_request_is_parsed_here_and_an_endpoint_that_is_away_is_told() {
    let run = json!({ "action": "run", "workload": { "model": "deepseek-r1", "gpu": { "count": 8 } } });
    let endpoint = Endpoint::start(json!({ "outcome": "intent", "intent": run }));
    let variables = [("CLAW_LLM_URL", &*endpoint.url), ("CLAW_LLM_MODEL", "small-1"), ("CLAW_LLM_KEY", KEY)];
    let text = "run that deapsek r1 thing on 8 H200";
    let output = claw(&[text, "--llm", "--json"], &variables, "");
    let answer: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(answer["intent"]["workload"], json!({ "model": "deepseek-r1", "gpu": { "count": 8, "model": "H200" } }));
    let provenance = answer["provenance"].as_array().expect("a list");
    assert!(provenance.contains(&json!({ "field": "workload.model", "source": "model" })), "{answer}");
    assert_eq!(err(&output), "");
    let people = out(&claw(&[text, "--llm"], &variables, ""));
    assert!(people.contains("workload.model") && people.contains("a language model proposes it"), "{people}");
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v1", closed.local_addr().expect("its address"));
    drop(closed);
    let variables = [("CLAW_LLM_URL", &*url), ("CLAW_LLM_MODEL", "small-1"), ("CLAW_LLM_KEY", KEY)];
    let output = claw(&["--jsonl", "--llm"], &variables, CASES);
    assert!(output.status.success() && out(&output).lines().count() == 3);
    assert!(
        err(&output).starts_with("a: llm_unreachable: ") && err(&output).contains("check the URL"),
        "{}",
        err(&output)
    );
}
