//! Error codes and their pages: a caller that is refused can always read on.

use crate::Finding;
use crate::repo::Repo;
use crate::scan::{Source, skip_blanks};

/// Where the closed enum of codes stands.
pub const ENUM_FILE: &str = "tools/claw-tools/src/refusal.rs";
/// Its name.
const ENUM_NAME: &str = "ErrorCode";
/// Where the pages stand.
pub const PAGES: &str = "tools/errors";
/// What every page tells, as its headings.
const HEADINGS: [&str; 3] = ["## What it means", "## Common causes", "## What to do next"];

/// The codes as they go over the wire, with the lines of their variants: the texts behind
/// the `=` in `closed_enum! { ErrorCode { Variant = "CODE", .. } }`.
pub fn codes(source: &Source) -> Vec<(String, usize)> {
    let Some(body) = enum_body(source) else {
        return Vec::new();
    };
    let assigned = |(at, _): (usize, &str)| {
        let at = body.start + at;
        let rest = source.text[at + 1..].trim_start().strip_prefix('"')?;
        let code = rest.split('"').next()?;
        Some((code.to_owned(), source.line_of(at)))
    };
    let code = &source.code[body.clone()];
    code.match_indices('=').filter_map(assigned).collect()
}

fn enum_body(source: &Source) -> Option<std::ops::Range<usize>> {
    let code = &source.code;
    let opens = |at: &usize| {
        let after = skip_blanks(code.as_bytes(), at + ENUM_NAME.len());
        code.as_bytes().get(after) == Some(&b'{')
    };
    let head = source.code_words(ENUM_NAME).into_iter().find(opens)?;
    let open = head + code[head..].find('{')?;
    let close = open + code[open..].find('}')?;
    Some(open + 1..close)
}

/// Every code has a page, every page a code, and every page says the three things.
pub fn check_error_pages(repo: &Repo) -> Vec<Finding> {
    let text = repo.text(ENUM_FILE).unwrap_or_default();
    let codes = codes(&Source::new(ENUM_FILE, text));
    if codes.is_empty() {
        let problem = format!("no variant of {ENUM_NAME} was found");
        return vec![Finding::new(ENUM_FILE, 0, problem, "the enum stands in this file")];
    }
    let page = |code: &str| format!("{PAGES}/{code}.md");
    let mut findings = Vec::new();
    for (code, line) in &codes {
        match repo.text(&page(code)) {
            None => findings.push(Finding::new(
                ENUM_FILE,
                *line,
                format!("{code} has no page"),
                format!("write {}", page(code)),
            )),
            Some(text) => findings.extend(check_page(&page(code), code, text)),
        }
    }
    for (path, _) in repo.below(PAGES) {
        if !codes.iter().any(|(code, _)| page(code) == path) {
            findings.push(Finding::new(
                path,
                0,
                "the page's code is not in the enum",
                format!("delete the page, or add the code to {ENUM_FILE}"),
            ));
        }
    }
    findings
}

/// Where the core refuses fields of a specification that it does not honor.
pub const REFUSED_FIELDS: &str = "gateway/claw-gateway/src/step/honored.rs";
/// Where each of them is explained.
pub const GAPS: &str = "gateway/docs/gaps.md";

/// Every field that the core refuses as not built stands in the list of gaps: the first
/// texts of the calls `not("field", ..)`.
pub fn check_gaps(repo: &Repo) -> Vec<Finding> {
    let source = Source::new(REFUSED_FIELDS, repo.text(REFUSED_FIELDS).unwrap_or_default());
    let gaps = repo.text(GAPS).unwrap_or_default();
    let mut fields = 0;
    let mut findings = Vec::new();
    for at in source.code_words("not") {
        let call = source.text[at + "not".len()..].strip_prefix('(');
        let text = call.and_then(|rest| rest.trim_start().strip_prefix('"'));
        let Some(field) = text.and_then(|rest| rest.split('"').next()) else {
            continue;
        };
        fields += 1;
        if !gaps.contains(&format!("`{field}`")) {
            let problem = format!("`{field}` is refused and not in the list of gaps");
            let fix = format!("add it to {GAPS}");
            findings.push(Finding::new(REFUSED_FIELDS, source.line_of(at), problem, fix));
        }
    }
    if fields == 0 {
        let problem = "no refused field was found";
        let fix = "tell this rule where the core refuses what it does not honor";
        findings.push(Finding::new(REFUSED_FIELDS, 0, problem, fix));
    }
    findings
}

fn check_page(path: &str, code: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with(&format!("# {code}\n")) {
        let problem = "the page does not begin with its code";
        findings.push(Finding::new(path, 1, problem, format!("begin with `# {code}`")));
    }
    for heading in HEADINGS {
        if !text.lines().any(|line| line == heading) {
            let problem = format!("the page lacks `{heading}`");
            findings.push(Finding::new(path, 0, problem, "add it, with at least one line below"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENUM: &str = "fn f() -> ErrorCode;\nclosed_enum! {\n    /// Codes, e.g. `Other = {`.\n    ErrorCode {\n        /// No room = full.\n        NoCapacity = \"NO_CAPACITY\",\n        StalePlan = \"STALE_PLAN\",\n        Forbidden = \"FORBIDDEN\"\n    }\n}\n";
    const GOOD: &str = "# STALE_PLAN\n\n## What it means\nx\n## Common causes\nx\n## What to do next\nx\n";

    #[test]
    fn codes_are_read_from_the_enum() {
        let found = codes(&Source::new(ENUM_FILE, ENUM));
        let expected = [("NO_CAPACITY", 6), ("STALE_PLAN", 7), ("FORBIDDEN", 8)];
        let expected = expected.map(|(code, line)| (code.to_owned(), line));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_refused_field_outside_the_list_of_gaps_is_found() {
        let code = "fn f() {\n not(\n \"nodes\",\n x,\n );\n not(\"gpu.fraction\", y);\n let not = 3;\n}\n";
        let repo = Repo::sample(&[(REFUSED_FIELDS, code), (GAPS, "| `nodes` above 1 |")]);
        let findings = check_gaps(&repo);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].line, 6);
        assert_eq!(check_gaps(&Repo::default()).len(), 1);
    }

    #[test]
    fn missing_stray_and_thin_pages_are_found() {
        let repo = Repo::sample(&[
            (ENUM_FILE, ENUM),
            ("tools/errors/STALE_PLAN.md", GOOD),
            ("tools/errors/FORBIDDEN.md", "# OTHER\n## What it means\n"),
            ("tools/errors/GONE.md", GOOD),
        ]);
        let findings = check_error_pages(&repo);
        let found: Vec<_> = findings.iter().map(|f| f.problem.as_str()).collect();
        let expected = [
            "NO_CAPACITY has no page",
            "the page does not begin with its code",
            "the page lacks `## Common causes`",
            "the page lacks `## What to do next`",
            "the page's code is not in the enum",
        ];
        assert_eq!(found, expected);
        assert_eq!(check_error_pages(&Repo::default()).len(), 1);
    }
}
