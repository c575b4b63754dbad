//! What `cargo metadata` says, cut down to what the rules need.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Why a dependency is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DepKind {
    /// Linked into the crate.
    Normal,
    /// For its tests only.
    Dev,
    /// For its build script.
    Build,
}

/// One dependency as a manifest declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dep {
    /// Package name (not a rename).
    pub name: String,
    /// Normal, dev or build.
    pub kind: DepKind,
}

/// One crate of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crate {
    /// Package name.
    pub name: String,
    /// Folder from the root of the repository, with `/`.
    pub folder: String,
    /// Whether it builds a program.
    pub has_bin: bool,
    /// Declared dependencies.
    pub deps: Vec<Dep>,
}

impl Crate {
    /// Names of the dependencies of the given kinds.
    pub fn deps_of(&self, kinds: &[DepKind]) -> Vec<&str> {
        let fits = |dep: &&Dep| kinds.contains(&dep.kind);
        self.deps.iter().filter(fits).map(|dep| dep.name.as_str()).collect()
    }
}

/// The workspace's crates, and the resolved packages they link.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// Crates by name.
    pub crates: Vec<Crate>,
}

impl Workspace {
    /// The crate called `name`.
    pub fn get(&self, name: &str) -> Option<&Crate> {
        self.crates.iter().find(|krate| krate.name == name)
    }

    /// The crates of the workspace that `name` links, directly or through others.
    pub fn linked_crates(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![name];
        while let Some(next) = open.pop() {
            let Some(krate) = self.get(next) else {
                continue;
            };
            for dep in krate.deps_of(&[DepKind::Normal, DepKind::Build]) {
                if self.get(dep).is_some() && seen.insert(dep) {
                    open.push(dep);
                }
            }
        }
        seen
    }
}

/// Packages after resolution: who links whom, with which features.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// Normal dependencies by package name (versions of one package are joined).
    pub links: BTreeMap<String, BTreeSet<String>>,
    /// Features that are on, by package name.
    pub features: BTreeMap<String, BTreeSet<String>>,
}

impl Resolved {
    /// A shortest chain of normal dependencies from `from` to `to`, both included.
    pub fn chain(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut open = std::collections::VecDeque::from([from]);
        while let Some(next) = open.pop_front() {
            if next == to {
                let mut chain = vec![to.to_owned()];
                let mut here = to;
                while let Some(previous) = came_from.get(here).filter(|_| here != from) {
                    chain.push((*previous).to_owned());
                    here = previous;
                }
                chain.reverse();
                return Some(chain);
            }
            for dep in self.links.get(next).into_iter().flatten() {
                if dep != from && !came_from.contains_key(dep.as_str()) {
                    came_from.insert(dep, next);
                    open.push_back(dep);
                }
            }
        }
        None
    }
}

/// Cargo's word for the platform it runs on: asking about this one only needs no sources
/// that a build here never downloads.
const HOST: &str = "host-tuple";

/// Runs `cargo metadata` in `root`, offline and with the committed lock file.
///
/// With `resolve` the answer holds the resolved graph for this machine's platform; without
/// it only the crates of the workspace, which needs no downloaded source at all.
pub fn cargo_metadata(root: &Path, resolve: bool) -> Result<Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root);
    command.args(["metadata", "--format-version", "1", "--offline", "--locked"]);
    if resolve {
        command.args(["--filter-platform", HOST]);
    } else {
        command.arg("--no-deps");
    }
    let output = command.output().map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// Reads the workspace's crates out of the answer of [`cargo_metadata`].
pub fn workspace(metadata: &Value) -> Workspace {
    let root = text(metadata, "workspace_root");
    let members: BTreeSet<&str> = list(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    let crates = list(metadata, "packages")
        .iter()
        .filter(|package| members.contains(text(package, "id")))
        .map(|package| read_crate(package, root))
        .collect();
    Workspace { crates }
}

fn read_crate(package: &Value, root: &str) -> Crate {
    let manifest = text(package, "manifest_path");
    let folder = manifest
        .strip_prefix(root)
        .and_then(|path| path.strip_suffix("Cargo.toml"))
        .unwrap_or(manifest)
        .trim_matches('/');
    let is_bin = |target: &Value| list(target, "kind").iter().any(|kind| kind == "bin");
    Crate {
        name: text(package, "name").to_owned(),
        folder: folder.to_owned(),
        has_bin: list(package, "targets").iter().any(is_bin),
        deps: list(package, "dependencies").iter().map(read_dep).collect(),
    }
}

fn read_dep(dep: &Value) -> Dep {
    let kind = match text(dep, "kind") {
        "dev" => DepKind::Dev,
        "build" => DepKind::Build,
        _ => DepKind::Normal,
    };
    let name = text(dep, "name").to_owned();
    Dep { name, kind }
}

/// Reads the resolved graph out of the answer of [`cargo_metadata`].
pub fn resolved(metadata: &Value) -> Resolved {
    let names: BTreeMap<&str, &str> =
        list(metadata, "packages").iter().map(|package| (text(package, "id"), text(package, "name"))).collect();
    let name_of = |id: &str| names.get(id).copied().unwrap_or_default().to_owned();
    let mut resolved = Resolved::default();
    for node in list(&metadata["resolve"], "nodes") {
        let name = name_of(text(node, "id"));
        let links = list(node, "deps").iter().filter(|dep| is_normal(dep));
        let links = links.map(|dep| name_of(text(dep, "pkg")));
        resolved.links.entry(name.clone()).or_default().extend(links);
        let features = list(node, "features").iter().filter_map(Value::as_str);
        let features = features.map(str::to_owned);
        resolved.features.entry(name).or_default().extend(features);
    }
    resolved
}

fn is_normal(dep: &Value) -> bool {
    list(dep, "dep_kinds").iter().any(|kind| kind["kind"].is_null())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let metadata = serde_json::json!({
            "workspace_root": "/r",
            "workspace_members": ["a#1"],
            "packages": [
                {"id": "a#1", "name": "a", "manifest_path": "/r/proto/a/Cargo.toml",
                 "targets": [{"kind": ["lib"]}, {"kind": ["bin"]}],
                 "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]},
                {"id": "b#1", "name": "b"}, {"id": "c#1", "name": "c"},
            ],
            "resolve": {"nodes": [
                {"id": "a#1", "features": [], "deps": [
                    {"pkg": "b#1", "dep_kinds": [{"kind": null}]},
                    {"pkg": "c#1", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "b#1", "features": ["x"], "deps": []},
            ]},
        });
        let workspace = workspace(&metadata);
        let a = workspace.get("a").unwrap();
        assert_eq!((a.folder.as_str(), a.has_bin), ("proto/a", true));
        assert_eq!(a.deps_of(&[DepKind::Normal]), ["b"]);
        assert_eq!(a.deps_of(&[DepKind::Dev]), ["c"]);
        let resolved = resolved(&metadata);
        assert_eq!(resolved.chain("a", "b").unwrap(), ["a", "b"]);
        assert_eq!(resolved.chain("a", "c"), None);
        assert!(resolved.features["b"].contains("x"));
    }
}
