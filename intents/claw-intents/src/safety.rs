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
    &["approvals"],
    &["audit"],
    &["auditing"],
    &["isolation"],
    &["sandbox"],
    &["sandboxing"],
    &["permissions"],
    &["authorization"],
    &["authentication"],
    &["policy"],
    &["policies"],
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
const REACH: usize = 4;

/// Why a request is unsafe, if it is.
pub(crate) fn objection(words: &Words<'_>, context: &Context) -> Option<String> {
    if let Some(found) = instruction(words, false) {
        return Some(format!("{found:?} asks to get round a safeguard"));
    }
    for token in &words.tokens {
        if let Kind::Quote(_) = token.kind {
            let flat = unquoted(&token.text);
            if let Some(found) = instruction(&Words::new(&flat), true) {
                return Some(format!(
                    "the quoted text carries an instruction to get round a safeguard: {found:?}"
                ));
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
    text.replace(
        ['"', '`', '\'', '>', '“', '”', '„', '«', '»', '‘', '’'],
        " ",
    )
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

/// A tenant that the words name and that is not the caller's.
fn other_tenant<'t>(words: &Words<'t>, own: &str) -> Option<&'t str> {
    (0..words.len()).find_map(|i| {
        if words.word(i) != "tenant" {
            return None;
        }
        let behind = words.raw(words.skip_symbol(i + 1, ':'));
        let behind = behind.strip_suffix("'s").unwrap_or(behind);
        let before = i.checked_sub(1).map_or("", |k| words.raw(k));
        let before_is_name = !before.is_empty() && words.filler(i - 1).is_none();
        let is_own = |name: &str| name.eq_ignore_ascii_case(own);
        if is_own(behind) || (before_is_name && is_own(before)) {
            return None;
        }
        let is_name = |name: &str| {
            !name.is_empty()
                && !matches!(
                    name.to_lowercase().as_str(),
                    "my" | "our" | "this" | "own" | "for" | "of"
                )
        };
        [behind, before]
            .into_iter()
            .find(|name| is_name(name) && (*name == behind || before_is_name))
    })
}
