//! Each crate's manifest: shared lints, a folder of the crate's name, and real content.

use crate::Finding;
use crate::metadata::Workspace;
use crate::repo::Repo;
use crate::scan::Source;

/// Fewer lines of code than this is no crate.
const LEAST_CODE_LINES: usize = 20;

/// The top-level folders that hold crates.
const SIDES: [&str; 7] = ["proto", "tools", "prompts", "intents", "gateway", "node", "evals"];

/// Every crate shares the workspace's lints.
pub fn check_lints(repo: &Repo, workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        let path = format!("{}/Cargo.toml", krate.folder);
        let text = repo.text(&path).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        let table = lines.any(|line| line == "[lints]");
        if !(table && lines.next() == Some("workspace = true")) {
            findings.push(Finding::new(
                &path,
                0,
                "the crate does not share the workspace's lints",
                "add `[lints]` with `workspace = true` on the line below it",
            ));
        }
    }
    findings
}

/// Manifests that stand outside the workspace, and why: cargo-fuzz builds this one with a
/// nightly compiler and instruments all that it links.
const OUTSIDE: [&str; 1] = ["evals/claw-fuzz/fuzz"];

/// A crate stands at `<top-level folder>/<crate name>`.
pub fn check_folders(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        let wanted = |side: &str| krate.folder == format!("{side}/{}", krate.name);
        if !SIDES.into_iter().any(wanted) {
            findings.push(Finding::new(
                &format!("{}/Cargo.toml", krate.folder),
                0,
                format!("{} stands in the folder {}", krate.name, krate.folder),
                "a crate stands one level below a top-level folder, in a folder of its own name",
            ));
        }
    }
    findings
}

/// Every folder with a manifest is a member of the workspace: code outside is never built.
pub fn check_members(repo: &Repo, workspace: &Workspace) -> Vec<Finding> {
    let is_member = |folder: &str| workspace.crates.iter().any(|c| c.folder == folder);
    repo.files
        .keys()
        .filter_map(|path| path.strip_suffix("/Cargo.toml"))
        .filter(|folder| !is_member(folder) && !OUTSIDE.contains(folder))
        .map(|folder| {
            Finding::new(
                &format!("{folder}/Cargo.toml"),
                0,
                "the crate is no member of the workspace",
                "add it to `members` in the root Cargo.toml",
            )
        })
        .collect()
}

/// No crate is only a name.
pub fn check_content(sources: &[Source], workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        let prefix = format!("{}/", krate.folder);
        let own = sources.iter().filter(|s| s.path.starts_with(&prefix));
        let lines: usize = own.map(Source::code_lines).sum();
        if lines < LEAST_CODE_LINES {
            findings.push(Finding::new(
                &format!("{}/Cargo.toml", krate.folder),
                0,
                format!("{} holds {lines} lines of code", krate.name),
                "fill it, or take it out of the workspace until there is something to put in",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Crate;

    fn workspace(folder: &str) -> Workspace {
        let krate = Crate { name: "claw-x".to_owned(), folder: folder.to_owned(), has_bin: false, deps: Vec::new() };
        Workspace { crates: vec![krate] }
    }

    #[test]
    fn missing_lints_are_found() {
        let findings = |text: &str| {
            let repo = Repo::sample(&[("gateway/claw-x/Cargo.toml", text)]);
            check_lints(&repo, &workspace("gateway/claw-x")).len()
        };
        assert_eq!(findings("[package]\n"), 1);
        assert_eq!(findings("[lints]\nworkspace = false\n"), 1);
        assert_eq!(findings("[lints]\nworkspace = true\n"), 0);
    }

    #[test]
    fn odd_folders_and_strangers_are_found() {
        assert_eq!(check_folders(&workspace("gateway/claw-x")), []);
        for odd in ["gateway/x", "claw-x", "gateway/a/claw-x", "other/claw-x"] {
            assert_eq!(check_folders(&workspace(odd)).len(), 1, "{odd}");
        }
        let repo = Repo::sample(&[("gateway/claw-y/Cargo.toml", ""), ("Cargo.toml", "")]);
        let strangers = check_members(&repo, &workspace("gateway/claw-x"));
        assert_eq!(strangers[0].path, "gateway/claw-y/Cargo.toml");
        let outside = Repo::sample(&[("evals/claw-fuzz/fuzz/Cargo.toml", "")]);
        assert_eq!(check_members(&outside, &workspace("gateway/claw-x")), []);
    }

    #[test]
    fn an_empty_crate_is_found() {
        let members = workspace("gateway/claw-x");
        let hollow = "// a comment\n\n".repeat(50) + &"fn f() {}\n".repeat(19);
        let full = "fn f() {}\n".repeat(20);
        let count = |text: &str| {
            let source = Source::new("gateway/claw-x/src/lib.rs", text);
            check_content(&[source], &members).len()
        };
        assert_eq!((count(&hollow), count(&full)), (1, 0));
    }
}
