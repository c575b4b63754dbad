use super::*;
use crate::metadata::Dep;

fn krate(folder: &str, deps: &[&str]) -> Crate {
    let name = folder.rsplit('/').next().unwrap().to_owned();
    let deps = deps.iter().map(|dep| Dep { name: (*dep).to_owned(), kind: DepKind::Normal });
    Crate { name, folder: folder.to_owned(), has_bin: folder.ends_with("clawnode"), deps: deps.collect() }
}

fn problems(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|f| f.problem.as_str()).collect()
}

#[test]
fn arrows_up_level_or_from_unknown_crates_are_found() {
    let repo = Repo::sample(&[("proto/claw-proto/Cargo.toml", "[dependencies]\nclaw-tools.workspace = true\n")]);
    let crates = vec![
        krate("proto/claw-proto", &["claw-tools", "serde"]),
        krate("tools/claw-tools", &["claw-proto"]),
        krate("gateway/claw-gateway", &["claw-intents"]),
        krate("intents/claw-intents", &[]),
        krate("gateway/claw-storage-duckdb", &["claw-storage"]),
        krate("gateway/claw-new", &[]),
    ];
    let findings = check_layers(&repo, &Workspace { crates });
    let expected = [
        "claw-proto (layer 0) depends on claw-tools (layer 1)",
        "claw-gateway (layer 2) depends on claw-intents (layer 2)",
        "claw-new has no layer",
    ];
    assert_eq!(problems(&findings), expected);
    assert_eq!(findings[0].line, 2);
}

#[test]
fn the_two_sides_meet_in_the_middle_only() {
    let crates = vec![
        krate("gateway/claw-gateway-server", &["claw-tools", "molt-core"]),
        krate("tools/claw-tools", &["clawnode"]),
        krate("node/clawnode", &[]),
        krate("node/molt-core", &[]),
        krate("node/molt-agent", &["claw-storage"]),
        krate("gateway/claw-storage", &[]),
    ];
    let findings = check_sides(&Repo::default(), &Workspace { crates });
    let expected = [
        "claw-gateway-server reaches clawnode, which is below node/",
        "molt-agent reaches claw-storage, which is below gateway/",
    ];
    assert_eq!(problems(&findings), expected);
}

#[test]
fn a_runtime_deep_below_a_pure_crate_is_found_with_its_chain() {
    let crates = vec![krate("gateway/claw-gateway", &[]), krate("node/clawnode", &[])];
    let mut resolved = Resolved::default();
    for (from, to) in [("claw-gateway", "helper"), ("helper", "tokio"), ("clawnode", "tokio")] {
        let links = resolved.links.entry(from.to_owned()).or_default();
        links.insert(to.to_owned());
    }
    let findings = check_pure_graph(&Workspace { crates }, &resolved);
    let expected = ["a pure crate links tokio: claw-gateway -> helper -> tokio"];
    assert_eq!(problems(&findings), expected);
}

#[test]
fn a_gpu_runtime_below_the_agent_is_found_with_its_chain() {
    let crates = vec![krate("node/clawnode", &[]), krate("node/claw-compute", &[]), krate("tools/claw-cli", &[])];
    let mut resolved = Resolved::default();
    for (from, to) in [("clawnode", "claw-compute"), ("claw-compute", "ash"), ("claw-cli", "serde")] {
        resolved.links.entry(from.to_owned()).or_default().insert(to.to_owned());
    }
    let findings = check_by_feature(&Workspace { crates }, &resolved);
    let expected = [
        "clawnode links ash by default: clawnode -> claw-compute -> ash",
        "claw-compute links ash by default: claw-compute -> ash",
    ];
    assert_eq!(problems(&findings), expected);
}

#[test]
fn heavy_packages_outside_their_fence_are_found() {
    let crates = vec![
        krate("node/clawnode", &["bollard", "solana-client"]),
        krate("gateway/claw-gateway-server", &["rmcp", "libp2p-core"]),
    ];
    let findings = check_fences(&Repo::default(), &Workspace { crates });
    let expected = ["clawnode names solana-client", "claw-gateway-server names libp2p-core"];
    assert_eq!(problems(&findings), expected);
}

#[test]
fn second_tls_stacks_and_unsorted_json_are_found() {
    let mut resolved = Resolved::default();
    let on = [String::from("preserve_order")].into();
    resolved.features.insert("serde_json".to_owned(), on);
    let lock = "[[package]]\nname = \"native-tls\"\n[[package]]\nname = \"native-tls-x\"\n";
    let findings = check_packages(lock, &resolved);
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert_eq!(findings[0].line, 2);
}

#[test]
fn a_library_that_no_program_links_is_found() {
    let crates = vec![
        krate("node/clawnode", &["claw-proto"]),
        krate("proto/claw-proto", &[]),
        krate("gateway/claw-observe", &[]),
        krate("evals/claw-sim", &[]),
    ];
    let findings = check_reachable(&Workspace { crates });
    assert_eq!(problems(&findings), ["no program links claw-observe"]);
}

#[test]
fn layer_names_are_unique() {
    let mut names: Vec<_> = LAYERS.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), LAYERS.len());
}
