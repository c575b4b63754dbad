//! After the trouble: everything is healed, comes to its end, and is compared
//! with what really happened.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::oracle;
use claw_e2e_tests::wait::poll_until;
use serde_json::{Value, json};

use super::jobs::{Job, Kind};
use super::{Chaos, NODES};
use crate::support::{PATIENCE, judged, say, spans_of, text};

/// How long all work may take to come to its end once everything is healed.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
/// Ends that somebody knows of; in a healed world nothing stays lost.
const OVER: &[&str] = &["completed", "failed", "stopped"];

impl Chaos {
    /// Every accepted request has exactly one workload, and nothing else is there.
    pub(super) async fn all_there_once(&self) -> Result<()> {
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        let mut cursor: Option<Value> = None;
        loop {
            let mut args = json!({ "fields": ["name"], "limit": 100 });
            if let Some(cursor) = cursor {
                args["cursor"] = cursor;
            }
            let page = self.agent.call("workload_list", args).await?;
            for row in page["workloads"].as_array().into_iter().flatten() {
                *names.entry(text(row, "/name").to_owned()).or_default() += 1;
            }
            cursor = page.get("next_cursor").filter(|cursor| !cursor.is_null()).cloned();
            if cursor.is_none() {
                break;
            }
        }
        for job in &self.jobs {
            ensure!(names.get(&job.name) == Some(&1), "{}: {:?} workloads", job.name, names.get(&job.name));
        }
        ensure!(names.len() == self.jobs.len(), "{} workloads of {} requests", names.len(), self.jobs.len());
        Ok(())
    }

    /// Whatever the gateway calls over ended on its node as it says.
    pub(super) async fn what_is_over_agrees(&self) -> Result<()> {
        for job in &self.jobs {
            let detail = self.agent.call("workload_get", json!({ "workload": job.name })).await?;
            // What is lost may be found again, what runs may just have ended.
            if OVER.contains(&text(&detail, "/workload/state")) {
                let of_job = spans_of(&self.fleet, &detail)?;
                oracle::agrees(&detail, &of_job).with_context(|| format!("{detail:#}\n{of_job:?}"))?;
            }
        }
        Ok(())
    }

    /// Heals everything, and ends what would never end by itself.
    pub(super) async fn settle(&mut self) -> Result<()> {
        for n in 0..NODES {
            self.heal(n).await?;
            self.undrain(n).await?;
            let name = self.fleet.nodes[n].name.clone();
            self.fleet.until_node(&name, "online", PATIENCE).await?;
        }
        for job in &mut self.jobs {
            if matches!(job.kind, Kind::Long(_)) && !job.was_stopped {
                self.agent.until(&job.name, &["running"], SETTLED_WITHIN).await?;
                let args = json!({ "workload": job.name, "grace_s": 1 });
                self.agent.call("workload_stop", args).await?;
                job.was_stopped = true;
            }
        }
        for job in &self.jobs {
            self.agent.until(&job.name, OVER, SETTLED_WITHIN).await?;
        }
        Ok(())
    }

    pub(super) async fn verdict(&self) -> Result<()> {
        self.all_there_once().await?;
        let spans = judged(&self.fleet)?;
        let mut story: BTreeMap<String, usize> = BTreeMap::new();
        for job in &self.jobs {
            let detail = self.agent.call("workload_get", json!({ "workload": job.name })).await?;
            let id = text(&detail, "/workload/workload_id").parse().context("workload_id")?;
            let of_job = spans.get(&id).cloned().unwrap_or_default();
            let judge = || -> Result<()> {
                oracle::agrees(&detail, &of_job)?;
                ended_as_it_should(job, &detail)
            };
            judge().with_context(|| format!("{job:?}\n{detail:#}\n{of_job:?}"))?;
            for attempt in detail["attempts"].as_array().into_iter().flatten() {
                let number = attempt["attempt"].as_u64().context("attempt")?;
                *story.entry(format!("{} ({})", text(attempt, "/state"), text(attempt, "/reason"))).or_default() += 1;
                let whole = number == detail["workload"]["attempt"] && text(&detail, "/workload/state") == "completed";
                self.lines_whole(job, number, whole).await.with_context(|| format!("{detail:#}"))?;
            }
            let again = self.agent.call("workload_run", job.args.clone()).await?;
            ensure!(again == job.receipt, "{}: the receipt changed: {} {again}", job.name, job.receipt);
        }
        let known: usize = self.jobs.len();
        say(&format!("{known} workloads; their attempts: {story:?}"));
        ensure!(spans.len() <= known, "{} workloads were executed, {known} were asked for", spans.len());
        Ok(())
    }

    /// The lines of one attempt: from the first on, in order, each once, as many
    /// as the program wrote by its own account.
    async fn lines_whole(&self, job: &Job, attempt: u64, whole: bool) -> Result<()> {
        let written = job.lines_written(attempt);
        let args = json!({ "workload": job.name, "attempt": attempt, "streams": ["stdout"], "tail": 1000 });
        poll_until(&format!("{} attempt {attempt} has its {written} lines", job.name), PATIENCE, || async {
            let logs = self.agent.call("workload_logs", args.clone()).await?;
            ensure!(logs["gaps"] == json!([]), "lines were lost: {}", logs["gaps"]);
            let lines: Vec<&str> =
                logs["lines"].as_array().into_iter().flatten().map(|line| text(line, "/text")).collect();
            for (n, line) in (1..).zip(&lines) {
                ensure!(*line == format!("line {n}"), "line {n} is {line:?} of {lines:?}");
            }
            // It may have been killed between the line and its account of it.
            let fits = lines.len() == written || (!whole && lines.len() == written + 1);
            ensure!(fits, "{} lines arrived, {written} were written", lines.len());
            Ok(Some(()))
        })
        .await?;
        if let (true, Kind::Fine(n) | Kind::SecondTry(n)) = (whole, job.kind) {
            ensure!(written == n, "{} completed with {written} of {n} lines", job.name);
        }
        Ok(())
    }
}

/// The end that the program and the requests allow.
fn ended_as_it_should(job: &Job, detail: &Value) -> Result<()> {
    let (state, code) = (text(detail, "/workload/state"), detail["workload"]["exit_code"].as_i64());
    let own = match job.kind {
        Kind::Fine(_) => (state, code) == ("completed", Some(0)),
        Kind::Fails(_) => (state, code) == ("failed", Some(3)),
        Kind::SecondTry(_) => {
            (state, code) == ("completed", Some(0)) && detail["workload"]["attempt"].as_u64() >= Some(2)
        }
        Kind::Long(_) => false,
    };
    let fine =
        own || (job.was_stopped && state == "stopped") || (job.was_stopped && state == "failed" && code == Some(5));
    ensure!(fine, "it ended as {state} with {code:?}");
    Ok(())
}
