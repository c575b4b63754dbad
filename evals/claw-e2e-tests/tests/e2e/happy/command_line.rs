//! The program `claw` against a running gateway.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::{Fleet, PROCESS_NODE};
use claw_e2e_tests::process::program;
use serde_json::Value;

use crate::support::on_fleet;

/// Runs `claw` with these arguments and a key.
async fn claw(url: &str, key: &str, args: &[&str]) -> Result<Output> {
    let mut command = tokio::process::Command::new(program("claw")?);
    command.args(args).env("CLAW_GATEWAY", url).env("CLAW_API_KEY", key).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(30), command.output()).await.context("claw hangs")?.context("claw")
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("exit {:?}\n{out}\n{err}", output.status.code())
}

struct Person {
    url: String,
    key: String,
}

impl Person {
    fn of(fleet: &Fleet) -> Result<Self> {
        Ok(Self { url: fleet.gateway.mcp_url.clone(), key: fleet.gateway.admin_key()? })
    }

    /// Standard output, if the exit code is this one.
    async fn gets(&self, code: i32, args: &[&str]) -> Result<String> {
        let output = claw(&self.url, &self.key, args).await?;
        ensure!(output.status.code() == Some(code), "claw {args:?} was to exit with {code}: {}", said(&output));
        Ok(String::from_utf8(output.stdout)?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_runs_shows_and_exits_as_it_says() -> Result<()> {
    on_fleet(90, &[], async |fleet| {
        fleet.add_node("box", PROCESS_NODE).await?;
        let person = Person::of(fleet)?;
        let run = ["workload", "run", "--name", "greeter", "--runtime", "process", "--wait-s", "20", "--json", "--"];
        let run = [&run[..], &["sh", "-c", "echo hello; exit 0"]].concat();
        let run: Value = serde_json::from_str(&person.gets(0, &run).await?)?;
        ensure!(run["effect"] == "accepted", "{run}");
        let wait: Value = serde_json::from_str(&person.gets(0, &["workload", "wait", "greeter", "--json"]).await?)?;
        ensure!(wait["reached"] == true && wait["workload"]["state"] == "completed", "{wait}");

        let table = person.gets(0, &["workload", "list"]).await?;
        ensure!(table.contains("greeter") && table.contains("completed"), "{table}");
        let detail: Value = serde_json::from_str(&person.gets(0, &["workload", "get", "greeter", "--json"]).await?)?;
        ensure!(detail["attempts"][0]["exit_code"] == 0, "{detail}");
        let logs = person.gets(0, &["workload", "logs", "greeter"]).await?;
        ensure!(logs.lines().any(|line| line.ends_with("hello")), "{logs}");
        let status = person.gets(0, &["cluster", "status"]).await?;
        ensure!(!status.is_empty());

        person.gets(2, &["workload", "get", "nobody"]).await?;
        person.gets(1, &["workload", "get", "greeter", "--no-such-flag"]).await?;
        let stranger = Person { url: person.url.clone(), key: "claw_wrong".into() };
        stranger.gets(3, &["workload", "list"]).await?;
        let nowhere = Person { url: "http://127.0.0.1:1/mcp".into(), key: person.key.clone() };
        nowhere.gets(4, &["workload", "list"]).await?;
        Ok(())
    })
    .await
}
