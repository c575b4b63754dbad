use super::*;
use crate::metadata::Crate;

fn problems(findings: &[Finding]) -> Vec<(usize, &str)> {
    let each = findings.iter();
    each.map(|f| (f.line, f.problem.as_str())).collect()
}

#[test]
fn missing_documents_and_long_screens_are_found() {
    let long = "x\n".repeat(SCREEN_LINES + 1);
    let repo = Repo::sample(&[("node/README.md", &long), ("README.md", &long)]);
    let findings = check_required(&repo);
    assert_eq!(findings.len(), REQUIRED.len() - 1);
    assert!(findings.iter().any(|f| f.path == "node/README.md" && f.line == 61));
}

#[test]
fn dead_links_are_found() {
    let guide = "# Guide\n\n## Join a node\n[up](../README.md) [here](#join-a-node) [gone](#leave)\n```\n[code](nowhere.md)\n```\n`[span](nowhere.md)` [web](https://example.org/x) [dead](gone.md)\n[deep](../README.md#map) [folder](../docs)\n";
    let repo = Repo::sample(&[("docs/guide.md", guide), ("README.md", "# Map\n")]);
    let findings = check_links(&repo);
    let expected = [(4, "the link `#leave` leads nowhere"), (8, "the link `gone.md` leads nowhere")];
    assert_eq!(problems(&findings), expected);
}

#[test]
fn paths_that_do_not_exist_are_found() {
    let text = "See `gateway/a.rs` and `gateway/b.rs`, `gateway/*/x`, `cargo gateway/c`.\n| x | module | `gateway/later` | `T` | not yet |\n";
    let repo = Repo::sample(&[("ARCHITECTURE.md", text), ("gateway/a.rs", "")]);
    let findings = check_paths(&repo);
    assert_eq!(problems(&findings), [(1, "`gateway/b.rs` does not exist")]);
}

#[test]
fn promises_without_a_test_are_found() {
    let readme = "| promise | test |\n|---|---|\n| a | `works` |\n| b | `runs`, `gone` |\n| c | trust us |\n| d | `helper` |\n\ntext\n";
    let repo = Repo::sample(&[(README, readme)]);
    let code = "#[test]\nfn works() {}\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn runs() {}\n#[cfg(test)]\nfn helper() {}\n";
    let findings = check_promises(&repo, &[Source::new("a.rs", code)]);
    let expected = [
        (4, "the promise names the test `gone`, which does not exist"),
        (5, "the promise names no test"),
        (6, "the promise names the test `helper`, which does not exist"),
    ];
    assert_eq!(problems(&findings), expected);
    assert_eq!(check_promises(&Repo::default(), &[]).len(), 1);
}

#[test]
fn crates_missing_on_the_map_are_found() {
    let crates = ["gateway/claw-a", "node/claw-b"].map(|folder| Crate {
        name: folder.split('/').next_back().unwrap().to_owned(),
        folder: folder.to_owned(),
        has_bin: false,
        deps: Vec::new(),
    });
    let map = "| `gateway/claw-a` | x |\nL4 processes  claw-b\n";
    let repo = Repo::sample(&[(MAP, map)]);
    let findings = check_map(&repo, &Workspace { crates: crates.into() });
    let expected = [(0, "claw-a is not in the drawing of the layers"), (0, "node/claw-b has no row in the code map")];
    assert_eq!(problems(&findings), expected);
}

#[test]
fn commands_that_do_not_exist_are_found() {
    let registry = "    NodeDrain = \"node_drain\", \"Drain\", x;\n    Undo = \"undo\", \"Undo\", x;\n    A = \"api_key_create\", x;\n";
    let guide = "`claw node drain x` `claw node drian x`\n```\n./dev claw up\nclaw api key-create --role x   # note\nclaw fly\n```\n`claw undo OP` `claw ARGS` `claw --help` claw nothing\n";
    let code = "/// Say `claw node drain` or `claw node fly`.\nlet s = \"`claw no matter`\";\n";
    let repo = Repo::sample(&[(REGISTRY, registry), ("guide.md", guide), ("x.rs", code)]);
    let findings = check_commands(&repo);
    let expected = [
        (1, "`claw node drian x` is no command"),
        (5, "`claw fly` is no command"),
        (1, "`claw node fly` is no command"),
    ];
    assert_eq!(problems(&findings), expected);
}
