//! The page of every error code, as a resource.

use claw_tools::refusal::ErrorCode;
use rmcp::model::Resource;

/// What the address of every page begins with.
const SCHEME: &str = "claw://errors/";

macro_rules! pages {
    ($($code:literal)*) => {
        const PAGES: &[(&str, &str)] = &[$(
            ($code, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/errors/", $code, ".md")))
        ),*];
    };
}

pages! {
    "AMBIGUOUS"
    "APPROVAL_DENIED"
    "APPROVAL_NOT_YOURS"
    "APPROVAL_REQUIRED"
    "CURSOR_EXPIRED"
    "FORBIDDEN"
    "IDEMPOTENCY_CONFLICT"
    "INTENT_QUESTION"
    "INTENT_REFUSED"
    "INVALID_ARGUMENT"
    "INVALID_STATE"
    "JOURNAL_UNAVAILABLE"
    "NOT_BUILT"
    "NOT_FOUND"
    "PLAN_APPLIED"
    "PLAN_EXPIRED"
    "PLAN_REQUIRED"
    "RATE_LIMITED"
    "SHUTTING_DOWN"
    "SPEC_INVALID"
    "STALE_PLAN"
    "TOKEN_INVALID"
    "TOO_LARGE"
    "UNAUTHENTICATED"
    "UNDO_CONFLICT"
    "UNDO_IMPOSSIBLE"
    "UNKNOWN_TOOL"
}

/// Every page, in the order of the codes.
pub(super) fn list() -> Vec<Resource> {
    let resource = |code: &ErrorCode| {
        Resource::new(format!("{SCHEME}{code}"), code.as_str())
            .with_description(format!("What {code} means and what to do"))
            .with_mime_type("text/markdown")
    };
    ErrorCode::ALL.iter().map(resource).collect()
}

/// The page at this address.
pub(super) fn read(uri: &str) -> Option<&'static str> {
    let code = uri.strip_prefix(SCHEME)?;
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, page)| *page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_page_and_nothing_else_has() {
        for resource in list() {
            let page = read(&resource.uri).unwrap_or_default();
            assert!(page.starts_with(&format!("# {}", resource.name)), "{}", resource.uri);
        }
        assert_eq!(PAGES.len(), ErrorCode::ALL.len());
        for uri in ["claw://errors/", "claw://errors/../README", "NOT_FOUND", "file:///etc/passwd"] {
            assert_eq!(read(uri), None, "{uri}");
        }
    }
}
