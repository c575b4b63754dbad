//! Which crate may know which: the layers of ARCHITECTURE.md and the fences around heavy
//! packages.

use crate::Finding;
use crate::metadata::{Crate, DepKind, Resolved, Workspace};
use crate::repo::Repo;

/// The layer of each crate, those to come included. Arrows point down or stay level.
const LAYERS: [(&str, u8); 27] = [
    ("claw-proto", 0),
    ("molt-core", 0),
    ("claw-tools", 1),
    ("claw-prompts", 1),
    ("claw-gateway", 2),
    ("claw-observe", 2),
    ("molt-market", 2),
    ("claw-intents", 2),
    ("claw-security", 3),
    ("claw-storage", 3),
    ("claw-storage-duckdb", 3),
    ("claw-llm", 3),
    ("molt-p2p", 3),
    ("molt-token", 3),
    ("claw-compute", 3),
    ("claw-gateway-server", 4),
    ("clawnode", 4),
    ("molt-agent", 4),
    ("claw-cli", 4),
    ("claw-sim", 5),
    ("claw-tidy", 5),
    ("claw-evals", 5),
    ("claw-e2e-tests", 5),
    ("molt-integration-tests", 5),
    ("molt-testchain", 5),
    ("claw-bench", 5),
    ("claw-fuzz", 5),
];

/// Edges inside one layer, each of them wanted.
const LEVEL_EDGES: [(&str, &str); 3] = [
    ("claw-storage-duckdb", "claw-storage"),
    ("molt-integration-tests", "molt-testchain"),
    ("claw-bench", "claw-e2e-tests"),
];

/// The one crate below `node/` that the gateway may know: a leaf of pure values.
const SHARED_LEAF: &str = "molt-core";

/// What the pure layers (0 to 2) must not link, directly or through others.
const IMPURE: [&str; 9] =
    ["tokio", "reqwest", "axum", "hyper", "bollard", "rusqlite", "rmcp", "async-openai", "tokio-tungstenite"];

/// Packages that cost much or link foreign code, and the crates that may name them.
/// A `*` at the end stands for any rest.
const FENCED: [(&str, &[&str]); 10] = [
    ("duckdb", &["claw-storage-duckdb"]),
    ("libp2p*", &["molt-p2p"]),
    ("solana-*", &["molt-token"]),
    ("cubecl*", &["claw-compute"]),
    ("wgpu*", &["claw-compute"]),
    ("ash", &["claw-compute"]),
    ("bollard*", &["clawnode"]),
    ("nvml-wrapper*", &["clawnode"]),
    ("async-openai", &["claw-llm"]),
    ("rmcp", &["claw-gateway-server", "claw-cli", "claw-e2e-tests", "claw-evals", "claw-bench"]),
];

/// What only a feature of its crate may bring: no build without that feature links it, so
/// that it is unified into nobody and a plain build of the workspace stays quick.
const BY_FEATURE_ONLY: [&str; 4] = ["cubecl", "wgpu", "ash", "naga"];

/// Second TLS stacks: one crypto provider (ring) is enough.
const BANNED: [&str; 3] = ["aws-lc-rs", "openssl-sys", "native-tls"];

fn layer(name: &str) -> Option<u8> {
    let entry = LAYERS.iter().find(|(known, _)| *known == name);
    entry.map(|(_, layer)| *layer)
}

fn manifest(krate: &Crate) -> String {
    format!("{}/Cargo.toml", krate.folder)
}

/// The line of a dependency in a crate's manifest.
fn line_in_manifest(repo: &Repo, krate: &Crate, dep: &str) -> usize {
    let text = repo.text(&manifest(krate)).unwrap_or_default();
    let names_it = |line: &str| {
        let rest = line.strip_prefix(dep).unwrap_or_default();
        rest.starts_with(['.', ' ', '='])
    };
    text.lines().position(names_it).map_or(0, |index| index + 1)
}

/// Every crate has a layer, and its dependencies lie in the same layer or below.
pub fn check_layers(repo: &Repo, workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        let Some(own) = layer(&krate.name) else {
            findings.push(Finding::new(
                &manifest(krate),
                0,
                format!("{} has no layer", krate.name),
                "put it into LAYERS of claw-tidy and into ARCHITECTURE.md",
            ));
            continue;
        };
        for dep in krate.deps_of(&[DepKind::Normal, DepKind::Build]) {
            let Some(other) = layer(dep) else { continue };
            let level_and_listed = LEVEL_EDGES.contains(&(krate.name.as_str(), dep));
            if other < own || (other == own && level_and_listed) {
                continue;
            }
            findings.push(Finding::new(
                &manifest(krate),
                line_in_manifest(repo, krate, dep),
                format!("{} (layer {own}) depends on {dep} (layer {other})", krate.name),
                "move the shared type down a layer; a wanted edge inside one layer goes into LEVEL_EDGES with an ADR",
            ));
        }
    }
    findings
}

/// `gateway/` and `node/` meet in `claw-proto` only.
pub fn check_sides(repo: &Repo, workspace: &Workspace) -> Vec<Finding> {
    let side = |krate: &Crate| krate.folder.split('/').next().map(str::to_owned);
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        let forbidden = match side(krate).as_deref() {
            Some("gateway") => "node",
            Some("node") => "gateway",
            _ => continue,
        };
        let declared = krate.deps_of(&[DepKind::Dev]).into_iter();
        let linked = workspace.linked_crates(&krate.name).into_iter();
        for dep in linked.chain(declared) {
            let on_other_side = workspace.get(dep).is_some_and(|other| side(other).as_deref() == Some(forbidden));
            if on_other_side && dep != SHARED_LEAF {
                findings.push(Finding::new(
                    &manifest(krate),
                    line_in_manifest(repo, krate, dep),
                    format!("{} reaches {dep}, which is below {forbidden}/", krate.name),
                    "put what both sides need into claw-proto",
                ));
            }
        }
    }
    findings
}

/// The pure layers link no runtime, no network and no database.
pub fn check_pure_graph(workspace: &Workspace, resolved: &Resolved) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        if layer(&krate.name).is_none_or(|layer| layer > 2) {
            continue;
        }
        for package in IMPURE {
            if let Some(chain) = resolved.chain(&krate.name, package) {
                findings.push(Finding::new(
                    &manifest(krate),
                    0,
                    format!("a pure crate links {package}: {}", chain.join(" -> ")),
                    "turn the feature off that brings it, or move the code to layer 3",
                ));
            }
        }
    }
    findings
}

/// Heavy packages are named by their one crate only.
pub fn check_fences(repo: &Repo, workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        for dep in krate.deps_of(&[DepKind::Normal, DepKind::Dev, DepKind::Build]) {
            let fence = FENCED.iter().find(|(pattern, _)| matches(pattern, dep));
            let Some((_, allowed)) = fence else { continue };
            if !allowed.contains(&krate.name.as_str()) {
                findings.push(Finding::new(
                    &manifest(krate),
                    line_in_manifest(repo, krate, dep),
                    format!("{} names {dep}", krate.name),
                    format!("only {} may", allowed.join(", ")),
                ));
            }
        }
    }
    findings
}

/// No crate links a GPU runtime by its default features: not the agent, and not the crate
/// whose feature brings it.
pub fn check_by_feature(workspace: &Workspace, resolved: &Resolved) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        for package in BY_FEATURE_ONLY {
            let Some(chain) = resolved.chain(&krate.name, package) else { continue };
            findings.push(Finding::new(
                &manifest(krate),
                0,
                format!("{} links {package} by default: {}", krate.name, chain.join(" -> ")),
                "make the dependency optional behind a feature that is no default, and depend on the crate without it",
            ));
        }
    }
    findings
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// No second TLS stack is linked or locked, and JSON objects stay sorted.
pub fn check_packages(lock: &str, resolved: &Resolved) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in lock.lines().enumerate() {
        let named = |package: &&&str| line == format!("name = \"{package}\"");
        if let Some(package) = BANNED.iter().find(named) {
            findings.push(Finding::new(
                "Cargo.lock",
                index + 1,
                format!("{package} is in the lock file"),
                format!("`cargo tree -i {package} --target all` shows who brings it; turn that feature off"),
            ));
        }
    }
    let sorted_maps_lost =
        resolved.features.get("serde_json").is_some_and(|features| features.contains("preserve_order"));
    if sorted_maps_lost {
        findings.push(Finding::new(
            "Cargo.toml",
            0,
            "serde_json/preserve_order is on: JSON objects are no longer sorted, so hashes and goldens change",
            "`cargo tree -e features -i serde_json` shows who turns it on",
        ));
    }
    findings
}

/// Every library below the judges is linked into a program: code that no program runs is
/// decoration.
pub fn check_reachable(workspace: &Workspace) -> Vec<Finding> {
    let programs = workspace.crates.iter().filter(|krate| krate.has_bin);
    let mut linked = std::collections::BTreeSet::new();
    for program in programs {
        linked.extend(workspace.linked_crates(&program.name));
        linked.insert(&program.name);
    }
    let is_judge = |krate: &Crate| layer(&krate.name) == Some(5);
    workspace
        .crates
        .iter()
        .filter(|krate| !is_judge(krate) && !linked.contains(krate.name.as_str()))
        .map(|krate| {
            Finding::new(
                &manifest(krate),
                0,
                format!("no program links {}", krate.name),
                "use it from a process of layer 4, or leave it out until one does",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
