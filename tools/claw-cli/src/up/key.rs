//! The key for agents: an operator's, made once and kept in the data folder.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use claw_tools::outcome::{Outcome, PlanView};
use serde_json::{Map, json};

use super::Listening;
use crate::approve;
use crate::client::GatewayClient;
use crate::credentials::{Endpoint, OPERATOR_KEY_FILE, Secret};
use crate::error::CliError;
use crate::run::Session;

/// An operator's key and the file that holds it.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) secret: Secret,
    pub(super) path: PathBuf,
}

/// The key of the last time if the gateway still takes it, a new one otherwise.
pub(super) async fn operator(
    session: &Session<'_>,
    listening: &Listening,
    data_dir: &Path,
) -> Result<Operator, CliError> {
    let path = data_dir.join(OPERATOR_KEY_FILE);
    if let Ok(text) = fs::read_to_string(&path) {
        let secret = Secret::new(text.trim());
        if is_taken(&secret, listening).await? {
            return Ok(Operator { secret, path });
        }
    }
    let secret = make(session).await?;
    store(&path, &secret).map_err(|error| CliError::file(&path, error))?;
    Ok(Operator { secret, path })
}

async fn is_taken(secret: &Secret, listening: &Listening) -> Result<bool, CliError> {
    let endpoint =
        Endpoint { url: listening.mcp_url.clone(), key: Some(secret.clone()), ca_pem: listening.ca_pem.clone() };
    match GatewayClient::connect_to(&endpoint).await {
        Ok(client) => {
            client.close().await;
            Ok(true)
        }
        Err(CliError::Unauthenticated { .. } | CliError::Forbidden { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A key is tier 2: it is planned, and the person who typed `claw up` confirms exactly that
/// plan with the admin's key of this machine.
async fn make(session: &Session<'_>) -> Result<Secret, CliError> {
    let args =
        json!({ "principal": "agent", "role": "operator", "kind": "agent", "mode": "plan", "reason": "claw up" });
    let planned: Outcome = approve::ask(session, "api_key_create", args).await?;
    let missing = |what: &str| CliError::Protocol {
        url: session.client.url().to_owned(),
        why: format!("api_key_create answered without {what}"),
    };
    let plan: PlanView = planned.plan.ok_or_else(|| missing("a plan"))?;
    let mut common = Map::new();
    common.insert("reason".into(), "claw up: the key for agents of this machine".into());
    let applied = approve::apply(session, &plan, &common).await?;
    let applied: Outcome = serde_json::from_value(applied.content).map_err(|error| missing(&error.to_string()))?;
    let secret = applied.credential.and_then(|credential| credential.secret);
    secret.map(Secret::new).ok_or_else(|| missing("a key"))
}

/// Written beside and moved into place, readable for this user only.
fn store(path: &Path, secret: &Secret) -> io::Result<()> {
    let beside = path.with_extension("key.new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    writeln!(file, "{}", secret.expose())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
