//! A real small model on this machine: a smoke test of the wire, skipped loudly where it is not
//! installed (`evals/scripts/llm-peer` installs it).

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use claw_intents::{Answer, Catalog, Context, eval};
use claw_llm::{FailureCode, Llm, Settings};

/// The model's program; it ends with the test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            say(&format!("the model's program does not end: {error}"));
        }
    }
}

fn say(text: &str) {
    // Straight to the file, so that a test's capture does not hide it.
    let mut err = std::io::stderr().lock();
    writeln!(err, "==> {text}").expect("standard error");
}

fn start(folder: &Path) -> (Peer, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smoke/serve.mjs");
    let child = Command::new("node").arg(script).arg(folder).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("node is there");
    let mut line = String::new();
    let out = child.stdout.take().expect("its standard output");
    let peer = Peer(child);
    BufReader::new(out).read_line(&mut line).expect("it says where it listens");
    (peer, line.trim().to_owned())
}

#[tokio::test]
async fn a_small_local_model_is_asked_over_the_real_wire() {
    let Some(folder) = std::env::var_os("CLAW_LLM_PEER").map(PathBuf::from) else {
        say("SKIP: CLAW_LLM_PEER is not set; no real model is asked (evals/scripts/llm-peer installs one)");
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (_peer, url) = start(&folder);
    let mut settings = Settings::new(url, "smollm2-135m");
    settings.limits.call = Duration::from_mins(4);
    settings.limits.all = Duration::from_mins(5);
    let llm = Llm::new(settings).expect("settings");
    let context: Context = serde_json::from_str(r#"{"deployments":[{"name":"chat"}]}"#).expect("a context");
    for text in ["put chat to sleep", "run phi-4 on four A100 behind the bastion"] {
        let parsed = llm.parse(text, &context, Catalog::builtin()).await;
        say(&format!("{text}: {:?} after {} calls", parsed.failure, parsed.transcript.calls));
        say(parsed.transcript.line().trim());
        eval::check(text, &parsed.answer).expect("a well-formed answer");
        let code = parsed.failure.as_ref().map(|failure| failure.code);
        // Whatever it says, it is heard and judged: no failure of the wire.
        assert!(matches!(code, None | Some(FailureCode::Rejected | FailureCode::Asked)), "{:?}", parsed.failure);
        assert!(!parsed.transcript.rounds.is_empty());
        if let Answer::Intent(understood) = &parsed.answer {
            let intent = serde_json::to_value(&understood.intent).expect("JSON");
            let count = intent.pointer("/workload/gpu/count");
            assert!(count.is_none_or(|n| n.as_u64() == Some(4)), "{intent}");
        }
    }
}
