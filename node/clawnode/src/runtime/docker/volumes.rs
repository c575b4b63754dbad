//! What is mounted into a container: named volumes, the weights cache, and folders
//! of the host below roots that the node's configuration lists. Nothing else.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, VolumeCreateRequest};
use claw_proto::spec::Volume;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache::{Cache, CacheError};

/// Named volumes of workloads begin with it at the engine.
const PREFIX: &str = "claw-";
/// Label of named volumes.
const LABEL: &str = "claw.volume";
/// Nothing may be mounted at, over or below these.
const RESERVED: [&str; 5] = ["/proc", "/sys", "/dev", "/run/secrets", "/.dockerenv"];

/// A folder of the host that workloads may mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostRoot {
    /// Absolute path.
    pub path: PathBuf,
    /// Whether workloads may write below it.
    #[serde(default)]
    pub rw: bool,
}

/// Volumes, `[runtime.docker.volumes]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VolumesConfig {
    /// Folders of the host below which workloads may mount; none by default.
    pub roots: Vec<HostRoot>,
}

/// Why a volume is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The host path is not below a root.
    #[error("host path {path} is not below a folder that this node allows (runtime.docker.volumes.roots: {allowed})")]
    NotAllowed {
        /// As the workload names it.
        path: String,
        /// The roots.
        allowed: String,
    },
    /// The root is read-only.
    #[error("host path {path} may be mounted read-only alone: root {root} is not rw")]
    ReadOnly {
        /// As the workload names it.
        path: String,
        /// The root that it is below.
        root: String,
    },
    /// The host path cannot be looked at.
    #[error("host path {path}: {source}")]
    Host {
        /// As the workload names it.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It would hide something of the container's own.
    #[error("volume {source_name} cannot be mounted at {target}: {why}")]
    Target {
        /// Which volume.
        source_name: String,
        /// Where it was to go.
        target: String,
        /// Why not.
        why: &'static str,
    },
    /// The weights cache refuses.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The engine has a volume of that name which is not a workload's.
    #[error("volume {name} of the engine was not made for workloads; use another name")]
    Foreign {
        /// Name at the engine.
        name: String,
    },
    /// The engine failed.
    #[error("volume {name}: the engine says {said}")]
    Engine {
        /// Name at the engine.
        name: String,
        /// What it says.
        said: String,
    },
}

/// Mounts of a workload, and the volumes that must be there before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumePlan {
    /// Mounts, in the order of the specification.
    pub mounts: Vec<Mount>,
    /// Names of volumes at the engine.
    pub named: Vec<String>,
}

/// Plans the mounts. A cache is taken for `user`, the attempt: to read, or to fill it.
///
/// # Errors
/// [`VolumeError`]; a cache may then be taken already and is given back with the attempt.
pub fn plan(volumes: &[Volume], config: &VolumesConfig, cache: &Cache, user: &str) -> Result<VolumePlan, VolumeError> {
    let mut plan = VolumePlan::default();
    let targets: Vec<&str> = volumes.iter().map(|volume| volume.target.as_str()).collect();
    for (n, volume) in volumes.iter().enumerate() {
        check_target(volume, &targets[..n])?;
        let bind = |source: PathBuf, read_only| bind_mount(source, volume, read_only);
        let mount = if volume.source.starts_with('/') {
            bind(host_path(volume, config)?, volume.read_only)
        } else if let Some(name) = volume.source.strip_prefix("cache:") {
            let folder = if volume.read_only { cache.read(name, user)? } else { cache.fill(name, user)? };
            bind(folder, volume.read_only)
        } else {
            let name = format!("{PREFIX}{}", volume.source);
            plan.named.push(name.clone());
            Mount {
                typ: Some(MountType::VOLUME),
                source: Some(name),
                target: Some(volume.target.clone()),
                read_only: Some(volume.read_only),
                ..Mount::default()
            }
        };
        plan.mounts.push(mount);
    }
    plan.named.sort();
    plan.named.dedup();
    Ok(plan)
}

fn bind_mount(source: PathBuf, volume: &Volume, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(volume.target.clone()),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            // What is mounted below a read-only folder would be writable.
            non_recursive: read_only.then_some(true),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

fn check_target(volume: &Volume, earlier: &[&str]) -> Result<(), VolumeError> {
    let wrong = |why| VolumeError::Target { source_name: volume.source.clone(), target: volume.target.clone(), why };
    let target = Path::new(&volume.target);
    let is_plain = target.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !target.is_absolute() || !is_plain || target.parent().is_none() {
        return Err(wrong("a target is an absolute path without .. and not the root"));
    }
    if RESERVED.iter().any(|reserved| target.starts_with(reserved) || Path::new(reserved).starts_with(target)) {
        return Err(wrong("that place is the engine's"));
    }
    if earlier.iter().any(|earlier| Path::new(earlier) == target) {
        return Err(wrong("another volume is mounted there"));
    }
    Ok(())
}

/// The host path with its links resolved, so that none leads out of the root.
fn host_path(volume: &Volume, config: &VolumesConfig) -> Result<PathBuf, VolumeError> {
    let path = || volume.source.clone();
    let not_allowed = || {
        let shown: Vec<String> = config
            .roots
            .iter()
            .map(|root| format!("{}{}", root.path.display(), if root.rw { " rw" } else { "" }))
            .collect();
        let allowed = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
        VolumeError::NotAllowed { path: path(), allowed }
    };
    // Whether something outside exists is nobody's business.
    if !config.roots.iter().any(|root| Path::new(&volume.source).starts_with(&root.path)) {
        return Err(not_allowed());
    }
    let resolved = Path::new(&volume.source).canonicalize();
    let resolved = resolved.map_err(|source| VolumeError::Host { path: path(), source })?;
    let below = |root: &&HostRoot| {
        let real = root.path.canonicalize();
        real.is_ok_and(|real| real.parent().is_some() && resolved.starts_with(real))
    };
    let mut roots: Vec<&HostRoot> = config.roots.iter().filter(below).collect();
    // The nearest root says what is allowed.
    roots.sort_by_key(|root| std::cmp::Reverse(root.path.components().count()));
    let root = roots.first().ok_or_else(not_allowed)?;
    if !volume.read_only && !root.rw {
        return Err(VolumeError::ReadOnly { path: path(), root: root.path.display().to_string() });
    }
    Ok(resolved)
}

/// Makes the named volumes that are not there, with a label; one without it is
/// somebody else's.
///
/// # Errors
/// [`VolumeError::Foreign`], [`VolumeError::Engine`].
pub async fn ensure(docker: &Docker, names: &[String]) -> Result<(), VolumeError> {
    for name in names {
        let failed = |error: Error| VolumeError::Engine { name: name.clone(), said: error.to_string() };
        match docker.inspect_volume(name).await {
            Ok(found) if found.labels.contains_key(LABEL) => continue,
            Ok(_) => return Err(VolumeError::Foreign { name: name.clone() }),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let labels = HashMap::from([(LABEL.to_owned(), name[PREFIX.len()..].to_owned())]);
        let request =
            VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..VolumeCreateRequest::default() };
        docker.create_volume(request).await.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cache::CacheConfig;
    use super::*;

    fn volume(source: &str, target: &str, read_only: bool) -> Volume {
        Volume { source: source.into(), target: target.into(), read_only }
    }

    #[test]
    fn host_paths_stay_below_their_roots() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("data/models")).unwrap();
        std::fs::create_dir_all(base.join("data/out")).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("data/escape")).unwrap();
        std::os::unix::fs::symlink("models", base.join("data/same")).unwrap();
        let roots =
            vec![HostRoot { path: base.join("data"), rw: false }, HostRoot { path: base.join("data/out"), rw: true }];
        let cache = Cache::open(base.join("cache"), CacheConfig::default()).unwrap();
        let told = |source: &str, target: &str, read_only| {
            let volumes = [volume(&source.replace('~', base.to_str().unwrap()), target, read_only)];
            let config = VolumesConfig { roots: roots.clone() };
            let told = match plan(&volumes, &config, &cache, "wl") {
                Ok(plan) => plan.mounts[0].source.clone().unwrap(),
                Err(error) => error.to_string(),
            };
            told.replace(base.to_str().unwrap(), "~")
        };
        let lines = [
            told("~/data/models", "/m", true),
            told("~/data/same", "/m", true),
            told("~/data/models", "/m", false),
            told("~/data/out", "/o", false),
            told("~/data/escape/passwd", "/m", true),
            told("~/data/../cache", "/m", true),
            told("~/data/none", "/m", true),
            told("/etc", "/m", true),
            told("weights", "/m", false),
            told("weights", "/run", false),
            told("weights", "/proc/self", false),
            told("cache:llama", "/m", true),
        ];
        expect_test::expect![[r"
            ~/data/models
            ~/data/models
            host path ~/data/models may be mounted read-only alone: root ~/data is not rw
            ~/data/out
            host path ~/data/escape/passwd is not below a folder that this node allows (runtime.docker.volumes.roots: ~/data, ~/data/out rw)
            host path ~/data/../cache is not below a folder that this node allows (runtime.docker.volumes.roots: ~/data, ~/data/out rw)
            host path ~/data/none: No such file or directory (os error 2)
            host path /etc is not below a folder that this node allows (runtime.docker.volumes.roots: ~/data, ~/data/out rw)
            claw-weights
            volume weights cannot be mounted at /run: that place is the engine's
            volume weights cannot be mounted at /proc/self: that place is the engine's
            cache llama is empty on this node; it has: none"]]
        .assert_eq(&lines.join("\n"));
    }

    proptest! {
        /// V1: whatever a workload names, a bind mount's source is below a root.
        #[test]
        fn nothing_outside_is_mounted(parts in prop::collection::vec("a|b|\\.\\.|\\.|out|link", 0..6)) {
            let folder = tempfile::tempdir().unwrap();
            let base = folder.path().canonicalize().unwrap();
            std::fs::create_dir_all(base.join("root/a/b")).unwrap();
            std::fs::create_dir_all(base.join("out/a")).unwrap();
            std::os::unix::fs::symlink("../out", base.join("root/link")).unwrap();
            std::os::unix::fs::symlink("../..", base.join("root/a/out")).unwrap();
            let cache = Cache::open(base.join("cache"), CacheConfig::default()).unwrap();
            let config = VolumesConfig { roots: vec![HostRoot { path: base.join("root"), rw: true }] };
            let source = base.join("root").join(parts.join("/")).display().to_string();
            if let Ok(plan) = plan(&[volume(&source, "/m", false)], &config, &cache, "wl") {
                let mounted = PathBuf::from(plan.mounts[0].source.clone().unwrap());
                prop_assert!(mounted.starts_with(base.join("root")) && mounted.canonicalize().unwrap() == mounted, "V1");
            }
        }
    }
}
