//! Requests that ask to get round approval, audit, isolation or tenancy.
//!
//! They are refused whatever else they say. In the user's own words a negation
//! ("do not skip the approval") takes the edge off; in quoted text such an
//! instruction has no business at all.

use crate::context::Context;
use crate::text::{Kind, Words};

/// Words for getting round something.
const ROUND: &[&[&str]] = &[
    &["skip"],
    &["nothing"],
    &["pretend"],
    &["fake"],
    &["forge"],
    &["hide"],
    &["wipe"],
    &["erase"],
    &["delete"],
    &["clear"],
    &["tamper"],
    &["falsify"],
    &["sneak"],
    &["dodge"],
    &["outside"],
    &["forget"],
    &["remove"],
    &["drop"],
    &["keep"],
    &["around"],
    &["past"],
    &["ohne"],
    &["umgehe"],
    &["deaktiviere"],
    &["sin"],
    &["sans"],
    &["desactiva"],
    &["désactive"],
    &["contourne"],
    &["evita"],
    &["kill"],
    &["stop"],
    &["pause"],
    &["mute"],
    &["silence"],
    &["escape"],
    &["escalate"],
    &["elevate"],
    &["don't", "log"],
    &["don't", "write"],
    &["don't", "record"],
    &["don't", "put"],
    &["don't", "mention"],
    &["not", "log"],
    &["not", "write"],
    &["not", "record"],
    &["never", "log"],
    &["not", "ask"],
    &["don't", "ask"],
    &["don't", "wait"],
    &["not", "wait"],
    &["shut", "off"],
    &["break", "out", "of"],
    &["skipping"],
    &["bypass"],
    &["bypassing"],
    &["circumvent"],
    &["disable"],
    &["disabling"],
    &["ignore"],
    &["ignoring"],
    &["override"],
    &["evade"],
    &["avoid"],
    &["suppress"],
    &["without"],
    &["no"],
    &["turn", "off"],
    &["switch", "off"],
    &["get", "around"],
    &["get", "round"],
    &["work", "around"],
];
/// What may not be got round.
const GUARDS: &[&[&str]] = &[
    &["approval"],
    &["approval", "step"],
    &["genehmigung"],
    &["freigabe"],
    &["aprobación"],
    &["approbation"],
    &["auditoría"],
    &["approver"],
    &["approvers"],
    &["guardrail"],
    &["safeguards"],
    &["safeguard"],
    &["access", "control"],
    &["access", "controls"],
    &["rbac"],
    &["quota", "check"],
    &["safety", "checks"],
    &["security", "checks"],
    &["tenant", "boundary"],
    &["tenant", "boundaries"],
    &["sign-off"],
    &["signoff"],
    &["privileges"],
    &["approvals"],
    &["audit"],
    &["auditing"],
    &["isolation"],
    &["sandbox"],
    &["sandboxing"],
    &["permissions"],
    &["authorization"],
    &["authentication"],
    &["policies"],
    &["the", "policy"],
    &["security", "policy"],
    &["guardrails"],
    &["tenancy"],
    &["instructions"],
];
/// Phrases that are unsafe by themselves.
const PLAIN: &[&[&str]] = &[
    &["grant", "admin"],
    &["grant", "me", "admin"],
    &["make", "me", "admin"],
    &["make", "me", "an", "admin"],
    &["other", "tenant"],
    &["other", "tenant's"],
    &["other", "tenants"],
    &["another", "tenant"],
    &["another", "tenant's"],
    &["all", "tenants"],
];
/// Words that turn an order round.
const NEGATIONS: &[&str] = &["don't", "dont", "not", "never"];
/// A guard counts within so many words behind the word for getting round it.
const REACH: usize = 7;

/// Why a request is unsafe, if it is.
pub(crate) fn objection(words: &Words<'_>, context: &Context) -> Option<String> {
    if let Some(found) = instruction(words, false) {
        return Some(format!("{found:?} asks to get round a safeguard"));
    }
    for token in &words.tokens {
        if let Kind::Quote(_) = token.kind {
            let flat = unquoted(&token.text);
            if let Some(found) = instruction(&Words::new(&flat), true) {
                return Some(format!("the quoted text carries an instruction to get round a safeguard: {found:?}"));
            }
        }
    }
    let own = context.tenant.as_deref()?;
    let other = other_tenant(words, own)?;
    Some(format!("{other:?} is another tenant than your own"))
}

/// Quoted text without the marks of further quotes: quoting once more must not
/// hide an instruction.
fn unquoted(text: &str) -> String {
    text.replace(['"', '`', '\'', '>', '“', '”', '„', '«', '»', '‘', '’'], " ")
}

/// An unsafe instruction in some words.
fn instruction(words: &Words<'_>, quoted: bool) -> Option<String> {
    for i in 0..words.len() {
        if let Some(next) = words.any(i, PLAIN) {
            return Some(words.span(i..next).text);
        }
        let Some(start) = words.any(i, ROUND) else {
            continue;
        };
        let negated = (i.saturating_sub(2)..i).any(|k| NEGATIONS.contains(&words.word(k)));
        if negated && !quoted {
            continue;
        }
        let guard = (start..start + REACH)
            .take_while(|k| !words.is_symbol(*k, '.') && !words.is_symbol(*k, ','))
            .find_map(|k| words.any(k, GUARDS));
        if let Some(next) = guard {
            return Some(words.span(i..next).text);
        }
    }
    None
}

/// Words beside "tenant" that are no tenant's name.
const NO_NAMES: &[&str] = &[
    "my",
    "our",
    "this",
    "own",
    "for",
    "of",
    "per",
    "each",
    "id",
    "quota",
    "status",
    "usage",
    "logs",
    "nodes",
    "jobs",
    "workloads",
    "costs",
];

/// A tenant that the words name and that is not the caller's.
fn other_tenant<'t>(words: &Words<'t>, own: &str) -> Option<&'t str> {
    (0..words.len()).filter(|i| words.word(*i) == "tenant").find_map(|i| {
        let behind = words.raw(words.skip_symbol(i + 1, ':'));
        let behind = behind.strip_suffix("'s").unwrap_or(behind);
        // "the X tenant" names one; "a tenant" and "list tenant" do not.
        let named_before = i >= 2 && matches!(words.word(i - 2), "the" | "a" | "our" | "their");
        let before = if named_before { words.raw(i - 1) } else { "" };
        let names: Vec<&str> = [behind, before]
            .into_iter()
            .filter(|name| !name.is_empty())
            .filter(|name| !NO_NAMES.contains(&name.to_lowercase().as_str()))
            .collect();
        let is_own = names.iter().any(|name| name.eq_ignore_ascii_case(own));
        names.first().copied().filter(|_| !is_own)
    })
}
