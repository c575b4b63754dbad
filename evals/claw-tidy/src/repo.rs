//! The repository as the rules see it: paths and texts, read once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::scan::Source;

/// All text files below the root, without build output and without what git ignores.
#[derive(Debug, Clone, Default)]
pub struct Repo {
    /// Where the files were read from; empty for a sample.
    pub root: PathBuf,
    /// Text by path from the root (`/` between folders). Binary files stand here with an
    /// empty text: they exist, but have no words.
    pub files: BTreeMap<String, String>,
}

/// Folders that hold no work of ours.
const SKIPPED: [&str; 4] = [".git", "target", ".claw", "node_modules"];

/// Prost output: written by a generator, so rules about style do not hold there.
const GENERATED: &str = "/wire/";

impl Repo {
    /// Reads the checkout that the tests run in. Cargo says which at run time: where
    /// several share a build folder, the one compiled from may be another, or gone.
    pub fn load() -> io::Result<Self> {
        let compiled_from = env!("CARGO_MANIFEST_DIR");
        let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| compiled_from.into());
        Self::load_from(&Path::new(&here).join("../..").canonicalize()?)
    }

    /// Reads the tree below `root`.
    pub fn load_from(root: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if SKIPPED.contains(&name.as_ref()) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = fs::read(&path)?;
                    let relative = path.strip_prefix(root).unwrap_or(&path);
                    let relative = relative.to_string_lossy().replace('\\', "/");
                    files.insert(relative, String::from_utf8(text).unwrap_or_default());
                }
            }
        }
        let root = root.to_path_buf();
        Ok(Self { root, files })
    }

    /// A tree for the self-tests of the rules.
    pub fn sample(files: &[(&str, &str)]) -> Self {
        let owned = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { root: PathBuf::new(), files: owned.collect() }
    }

    /// The text of one file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether a file or folder stands at `path`.
    pub fn exists(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty() || self.files.contains_key(path) || !self.below(path).is_empty()
    }

    /// The files below a folder.
    pub fn below(&self, folder: &str) -> Vec<(&str, &str)> {
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        self.files
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect()
    }

    /// Files whose name ends with one of `extensions` (given with the dot).
    pub fn with_extension(&self, extensions: &[&str]) -> Vec<(&str, &str)> {
        let fits = |path: &str| extensions.iter().any(|end| path.ends_with(end));
        self.files.iter().filter(|(path, _)| fits(path)).map(|(path, text)| (path.as_str(), text.as_str())).collect()
    }

    /// Rust files written by hand.
    pub fn rust(&self) -> Vec<Source> {
        self.with_extension(&[".rs"])
            .into_iter()
            .filter(|(path, _)| !path.contains(GENERATED))
            .map(|(path, text)| Source::new(path, text))
            .collect()
    }
}

/// Which files hold test code only: integration tests, and files declared by
/// `#[cfg(test)] mod name;` (with everything below them).
pub fn test_only_files(sources: &[Source]) -> Vec<String> {
    let mut roots: Vec<String> = Vec::new();
    for source in sources {
        let folder = module_folder(&source.path);
        for name in source.test_modules() {
            roots.push(format!("{folder}/{name}.rs"));
            roots.push(format!("{folder}/{name}/"));
        }
    }
    let in_root =
        |path: &str| roots.iter().any(|root| path == root || (root.ends_with('/') && path.starts_with(root.as_str())));
    let is_test = |path: &str| path.contains("/tests/") && !path.contains("/src/");
    sources.iter().map(|source| source.path.clone()).filter(|path| is_test(path) || in_root(path)).collect()
}

/// The folder in which the modules that a file declares are looked for.
fn module_folder(path: &str) -> String {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    match name {
        "lib" | "main" | "mod" => folder.to_owned(),
        _ => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_read_without_build_output() {
        let repo = Repo::load().unwrap();
        assert!(repo.text("evals/claw-tidy/src/repo.rs").is_some());
        assert!(repo.exists("evals/claw-tidy") && repo.exists("evals/claw-tidy/"));
        assert!(!repo.exists("evals/claw-tid"));
        assert!(repo.files.keys().all(|path| !path.starts_with(".git/")));
    }

    #[test]
    fn test_only_files_follow_the_module_declarations() {
        let sources = [
            Source::new("x/c/src/lib.rs", "#[cfg(test)]\nmod props;\nmod real;"),
            Source::new("x/c/src/real.rs", "#[cfg(test)]\nmod tests;"),
            Source::new("x/c/src/props.rs", ""),
            Source::new("x/c/src/real/tests.rs", ""),
            Source::new("x/c/src/real/more.rs", ""),
            Source::new("x/c/tests/all.rs", ""),
        ];
        let expected = ["x/c/src/props.rs", "x/c/src/real/tests.rs", "x/c/tests/all.rs"];
        assert_eq!(test_only_files(&sources), expected);
    }
}
