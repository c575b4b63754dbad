//! One principal's way to the gateway, over MCP.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use claw_cli::GatewayClient;
use claw_cli::error::CliError;
use claw_tools::refusal::Refusal;
use serde_json::{Value, json};

use crate::wait::poll_until;

/// A principal with a key. Connects for each call: what matters here is that
/// the gateway may die at any time, not a few milliseconds.
#[derive(Debug, Clone)]
pub struct Session {
    url: String,
    key: String,
}

/// What came of a call.
#[derive(Debug)]
pub enum Answer {
    /// It was done, or read.
    Ok(Value),
    /// It was refused.
    Refused(Box<Refusal>),
    /// No answer: the gateway is away, or it went away meanwhile.
    Silence(String),
}

impl Session {
    /// A session of this key.
    pub fn new(url: &str, key: &str) -> Self {
        Self { url: url.to_owned(), key: key.to_owned() }
    }

    /// Makes one call.
    pub async fn ask(&self, tool: &str, args: Value) -> Answer {
        let client = match GatewayClient::connect(&self.url, Some(&self.key)).await {
            Ok(client) => client,
            Err(error) => return Answer::Silence(error.to_string()),
        };
        let object = args.as_object().cloned().unwrap_or_default();
        let answer = client.call(tool, object).await;
        client.close().await;
        match answer {
            Ok(reply) => Answer::Ok(reply.content),
            Err(CliError::Refused { refusal, .. }) => Answer::Refused(refusal),
            Err(error) => Answer::Silence(error.to_string()),
        }
    }

    /// Makes one call that has to succeed.
    pub async fn call(&self, tool: &str, args: Value) -> Result<Value> {
        match self.ask(tool, args.clone()).await {
            Answer::Ok(value) => Ok(value),
            Answer::Refused(refusal) => {
                Err(anyhow!("{tool} {args} was refused: {}", serde_json::to_string_pretty(&refusal)?))
            }
            Answer::Silence(why) => Err(anyhow!("{tool} {args}: {why}")),
        }
    }

    /// Makes one call that has to be refused.
    pub async fn refused(&self, tool: &str, args: Value) -> Result<Box<Refusal>> {
        match self.ask(tool, args.clone()).await {
            Answer::Refused(refusal) => Ok(refusal),
            Answer::Ok(value) => bail!("{tool} {args} was to be refused and answered {value}"),
            Answer::Silence(why) => bail!("{tool} {args}: {why}"),
        }
    }

    /// Makes one call again and again until there is an answer, as a client
    /// does after a broken connection; the `request_id` makes that safe.
    pub async fn insist(&self, tool: &str, args: Value, deadline: Duration) -> Result<Answer> {
        poll_until(&format!("{tool} is answered"), deadline, || async {
            match self.ask(tool, args.clone()).await {
                Answer::Silence(why) => Err(anyhow!(why)),
                answer => Ok(Some(answer)),
            }
        })
        .await
    }

    /// Plans, has `approver` approve where that is needed, and applies.
    pub async fn plan_and_apply(&self, tool: &str, args: Value, approver: &Self) -> Result<(Value, Value)> {
        let mut with_mode = args;
        with_mode["mode"] = json!("plan");
        let planned = self.call(tool, with_mode).await?;
        let plan = planned.get("plan").context("no plan in the answer")?.clone();
        if let Some(approval_id) = plan.get("approval_id").filter(|v| !v.is_null()) {
            let args = json!({ "approval_id": approval_id, "decision": "approve", "diff_hash": plan["diff_hash"] });
            approver.call("approval_decide", args).await?;
        }
        let applied = self.call("plan_apply", json!({ "plan_id": plan["plan_id"] })).await?;
        Ok((plan, applied))
    }

    /// Waits until a workload is in one of these states.
    pub async fn until(&self, workload: &str, states: &[&str], deadline: Duration) -> Result<Value> {
        poll_until(&format!("{workload} is {states:?}"), deadline, || async {
            let detail = self.call("workload_get", json!({ "workload": workload })).await?;
            let state = detail["workload"]["state"].as_str().unwrap_or_default().to_owned();
            if states.contains(&state.as_str()) {
                Ok(Some(detail))
            } else {
                Err(anyhow!("it is {state} ({})", detail["workload"]["reason"]))
            }
        })
        .await
    }

    /// What a workload itself wrote; the node's own notes about it are left out.
    pub async fn lines(&self, workload: &str) -> Result<Vec<String>> {
        let logs = self
            .call("workload_logs", json!({ "workload": workload, "tail": 1000, "streams": ["stdout", "stderr"] }))
            .await?;
        let lines = logs["lines"].as_array().cloned().unwrap_or_default();
        Ok(lines.iter().filter_map(|l| l["text"].as_str().map(str::to_owned)).collect())
    }
}
