//! Keys and enrollment tokens. Secrets come in as hashes only.

use std::collections::BTreeMap;

use claw_proto::ids::{KeyId, TokenId};
use claw_proto::validation::Validator;
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::def::UndoClass;
use claw_tools::outcome::{Credential, EffectKind, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use serde_json::json;

use super::Performed;
use crate::event::{Event, Goal, Inverse};
use crate::step::work::Work;

fn hash_given(secret_hash: Option<&str>) -> Result<String, Refusal> {
    secret_hash
        .map(str::to_owned)
        .ok_or_else(|| Refusal::new(ErrorCode::InvalidState, "the gateway made no secret for this credential"))
}

pub(super) fn token(
    work: &mut Work<'_>,
    name: Option<&str>,
    labels: &BTreeMap<String, String>,
    ttl_s: u32,
    secret_hash: Option<&str>,
) -> Result<Performed, Refusal> {
    let mut validator = Validator::new();
    if let Some(name) = name {
        validator.name("name", name);
    }
    validator.labels("labels", labels);
    validator.finish().map_err(|e| {
        Refusal::new(ErrorCode::InvalidArgument, e.to_string()).with_field("name", name.unwrap_or_default())
    })?;
    let token_id = TokenId::next(&mut work.ids);
    let expires_at = work.now().plus_ms(i64::from(ttl_s) * 1000);
    work.emit(Event::NodeTokenCreated {
        token_id,
        secret_hash: hash_given(secret_hash)?,
        name: name.map(str::to_owned),
        labels: labels.clone(),
        expires_at,
    });
    let mut outcome = Outcome::new(
        EffectKind::Accepted,
        format!("enrollment token for one node named {}, valid until {expires_at}", name.unwrap_or("anything")),
    );
    outcome.credential = Some(Credential {
        id: token_id.to_string(),
        secret: None,
        usage: "on the machine: clawnode join <node url> --token <secret>".into(),
    });
    Ok(Performed {
        outcome,
        inverse: Inverse::RevokeToken { token_id },
        undo: UndoClass::Compensating,
        not_restored: "a node that has used it stays enrolled",
        goal: Goal::Immediate,
        undoes: None,
    })
}

pub(super) fn key(
    work: &mut Work<'_>,
    principal: &str,
    role: Role,
    kind: PrincipalKind,
    ttl_s: Option<u32>,
    secret_hash: Option<&str>,
) -> Result<Performed, Refusal> {
    let mut validator = Validator::new();
    validator.name("principal", principal);
    validator
        .finish()
        .map_err(|e| Refusal::new(ErrorCode::InvalidArgument, e.to_string()).with_field("principal", principal))?;
    if principal == "system" {
        return Err(Refusal::new(ErrorCode::InvalidArgument, "the principal system is the gateway itself")
            .with_field("principal", principal));
    }
    let key_id = KeyId::next(&mut work.ids);
    let expires_at = ttl_s.map(|s| work.now().plus_ms(i64::from(s) * 1000));
    work.emit(Event::ApiKeyCreated {
        key_id,
        subject: principal.to_owned(),
        role,
        kind,
        secret_hash: hash_given(secret_hash)?,
        expires_at,
    });
    let mut outcome = Outcome::new(EffectKind::Accepted, format!("{role} key for {principal} ({kind})"));
    outcome.credential =
        Some(Credential { id: key_id.to_string(), secret: None, usage: "Authorization: Bearer <secret>".into() });
    Ok(Performed {
        outcome,
        inverse: Inverse::RevokeKey { key_id },
        undo: UndoClass::Compensating,
        not_restored: "what was done with the key",
        goal: Goal::Immediate,
        undoes: None,
    })
}

pub(super) fn revoke_key(work: &mut Work<'_>, key_id: KeyId) -> Result<Performed, Refusal> {
    let key = work.state.keys.get(&key_id).cloned().ok_or_else(|| {
        Refusal::new(ErrorCode::NotFound, format!("no key {key_id}"))
            .with_field("key_id", key_id.to_string())
            .with_next("api_key_list", json!({}))
    })?;
    let impossible = |outcome| Performed {
        outcome,
        inverse: Inverse::Impossible { why: "a revoked key stays revoked; make a new one".into() },
        undo: UndoClass::None,
        not_restored: "the key",
        goal: Goal::Immediate,
        undoes: None,
    };
    if key.revoked {
        return Ok(impossible(Outcome::new(EffectKind::NoChange, format!("{key_id} is revoked already"))));
    }
    let others = work.state.keys.values().any(|k| {
        k.key_id != key_id && k.role == Role::Admin && !k.revoked && k.expires_at.is_none_or(|t| t > work.now())
    });
    if key.role == Role::Admin && !others {
        return Err(Refusal::new(ErrorCode::InvalidState, "this is the last admin key; make another one first")
            .with_field("key_id", key_id.to_string())
            .with_next(
                "api_key_create",
                json!({ "principal": key.principal, "role": "admin", "kind": "person", "mode": "plan" }),
            ));
    }
    work.emit(Event::ApiKeyRevoked { key_id });
    Ok(impossible(Outcome::new(EffectKind::Accepted, format!("revoke {key_id} of {} ({})", key.principal, key.role))))
}

/// A new certificate authority takes over once every node has a certificate of it.
pub(super) fn rotate_authority(work: &mut Work<'_>) -> Result<Performed, Refusal> {
    let ca = work.state.ca;
    if ca.requested > ca.finished {
        let message =
            format!("rotation {} of the certificate authority is under way; wait until it is over", ca.requested);
        return Err(Refusal::new(ErrorCode::InvalidState, message).with_next("cluster_status", json!({})).retryable());
    }
    let rotation = ca.requested + 1;
    work.emit(Event::CaRotationRequested { rotation });
    let summary = format!("replace the certificate authority (rotation {rotation}): every node gets a new certificate");
    Ok(Performed {
        outcome: Outcome::new(EffectKind::Accepted, summary),
        inverse: Inverse::Impossible { why: "a rotation goes on to its end; the next one replaces it again".into() },
        undo: UndoClass::None,
        not_restored: "the former authority",
        goal: Goal::Immediate,
        undoes: None,
    })
}
