//! Every role against every operation, through the real endpoints. The table is
//! made from the definitions: a new operation is in it by itself.

use anyhow::{Context as _, Result, ensure};
use claw_cli::GatewayClient;
use claw_cli::error::CliError;
use claw_e2e_tests::fleet::Fleet;
use claw_tools::access::Role;
use claw_tools::def::OpDef;
use claw_tools::refusal::ErrorCode;
use claw_tools::registry::OPERATIONS;
use serde_json::{Map, Value, json};

use crate::support::on_fleet;

/// The least arguments that fit a schema, about things that are not there.
fn least(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let mut object = Map::new();
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                object.insert(name.to_owned(), least(&schema["properties"][name]));
            }
            Value::Object(object)
        }
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(false),
        Some("array") => {
            let n = schema["minItems"].as_u64().unwrap_or(0);
            (0..n).map(|_| least(&schema["items"])).collect()
        }
        Some(_) | None => {
            let prefix = schema["pattern"].as_str().and_then(|p| p.strip_prefix('^')?.split_once('['));
            match prefix {
                Some((prefix, _)) => json!(format!("{prefix}{}", "0".repeat(26))),
                None => json!("x".repeat(schema["minLength"].as_u64().unwrap_or(1).try_into().unwrap_or(1))),
            }
        }
    }
}

/// A reading operation that waits is not waited for.
fn arguments(op: &OpDef) -> Value {
    let schema = (op.params_schema)();
    let mut args = least(&schema);
    if op.read_only && schema["properties"].get("wait_s").is_some() {
        args["wait_s"] = json!(0);
    }
    // Neither words nor a specification is a question of its own.
    if op.name == "workload_run" {
        args["spec"] = json!({ "command": ["true"] });
        args["mode"] = json!("plan");
    }
    args
}

/// Whether a role is let through to an operation, as the gateway answers.
async fn let_through(fleet: &Fleet, key: &str, op: &OpDef) -> Result<bool> {
    let client = GatewayClient::connect(&fleet.gateway.mcp_url, Some(key)).await?;
    let answer = client.call(op.name, arguments(op).as_object().cloned().unwrap_or_default()).await;
    client.close().await;
    let over_mcp = match answer {
        Ok(_) => true,
        Err(CliError::Refused { refusal, .. }) => {
            ensure!(refusal.code != ErrorCode::InvalidArgument, "{}: the arguments do not fit: {refusal:?}", op.name);
            ensure!(refusal.code != ErrorCode::UnknownTool, "{} is not known: {refusal:?}", op.name);
            refusal.code != ErrorCode::Forbidden
        }
        Err(other) => return Err(anyhow::Error::from(other).context(op.name)),
    };
    let url = format!("{}/api/ops/{}", fleet.gateway.http_url(), op.name);
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
    let reply = http.post(url).bearer_auth(key).json(&arguments(op)).send().await?;
    let status = reply.status();
    let said: Value = reply.json().await.with_context(|| format!("{} over REST: {status}", op.name))?;
    let over_rest = said["code"] != ErrorCode::Forbidden.as_str();
    ensure!(over_rest || status == 403, "{} over REST is forbidden with {status}", op.name);
    ensure!(over_mcp == over_rest, "{}: MCP lets through: {over_mcp}, REST: {over_rest} ({said})", op.name);
    Ok(over_mcp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_may_do_what_the_table_says_and_nothing_more() -> Result<()> {
    on_fleet(120, &[], async |fleet| {
        for role in Role::ALL.iter().copied() {
            let args = json!({ "principal": format!("a-{role}"), "role": role, "kind": "agent" });
            let (_, made) = fleet.admin.plan_and_apply("api_key_create", args, &fleet.admin).await?;
            let key = made["credential"]["secret"].as_str().context("no secret")?.to_owned();
            for op in OPERATIONS {
                let may = let_through(fleet, &key, op).await?;
                let wanted = role.allows(op.permission);
                ensure!(may == wanted, "{role} and {}: let through {may}, the table says {wanted}", op.name);
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_no_operation_is_reached() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
        for op in OPERATIONS {
            let url = format!("{}/api/ops/{}", fleet.gateway.http_url(), op.name);
            let status = http.post(url).json(&arguments(op)).send().await?.status();
            ensure!(status == 401, "{} over REST without a key: {status}", op.name);
            let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": op.name, "arguments": arguments(op) } });
            let request = http.post(&fleet.gateway.mcp_url).json(&call);
            let status = request.header("accept", "application/json, text/event-stream").send().await?.status();
            ensure!(status == 401, "{} over MCP without a key: {status}", op.name);
        }
        for key in [None, Some("clawkey_no_such_key")] {
            let connected = GatewayClient::connect(&fleet.gateway.mcp_url, key).await;
            ensure!(matches!(connected, Err(CliError::Unauthenticated { .. })), "{key:?}: {connected:?}");
        }
        Ok(())
    })
    .await
}

/// A key that is revoked while its holder is at work does nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_refused_at_once() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        let args = json!({ "principal": "leaver", "role": "operator", "kind": "agent" });
        let (_, made) = fleet.admin.plan_and_apply("api_key_create", args, &fleet.admin).await?;
        let key = made["credential"]["secret"].as_str().context("no secret")?;
        let client = GatewayClient::connect(&fleet.gateway.mcp_url, Some(key)).await?;
        client.call("cluster_status", Map::new()).await?;
        let args = json!({ "key_id": made["credential"]["id"] });
        fleet.admin.plan_and_apply("api_key_revoke", args, &fleet.admin).await?;
        let answer = client.call("cluster_status", Map::new()).await;
        ensure!(answer.is_err(), "a revoked key is still good: {answer:?}");
        let again = GatewayClient::connect(&fleet.gateway.mcp_url, Some(key)).await;
        ensure!(matches!(again, Err(CliError::Unauthenticated { .. })), "{again:?}");
        Ok(())
    })
    .await
}
