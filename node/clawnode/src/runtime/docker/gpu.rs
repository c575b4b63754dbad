//! GPUs for a container: what the engine is asked for, and whether it did it.
//!
//! Engines may take a request for GPUs and do nothing (Podman 4.3 does), so what
//! a container really sees is looked at from outside, through the `root` of its
//! process in `/proc`, before it counts as running.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bollard::models::{DeviceMapping, DeviceRequest};
use claw_proto::spec::GpuVendor;
use claw_proto::topology::{GpuDriver, GpuInfo};
use serde::{Deserialize, Serialize};

use super::cdi;
use super::engine::{Engine, EngineKind};

/// Device nodes that every container has.
const USUAL: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];

/// Why GPUs cannot be attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The node does not have it.
    #[error("gpu {uuid} is not on this node any more")]
    Gone {
        /// Which one.
        uuid: String,
    },
    /// The engine takes the request and does nothing, or cannot.
    #[error("{engine} {version} cannot attach gpu {uuid} ({vendor}): {why}")]
    Engine {
        /// Name of the engine.
        engine: &'static str,
        /// Its version.
        version: String,
        /// Which GPU.
        uuid: String,
        /// Its vendor.
        vendor: GpuVendor,
        /// What is missing.
        why: &'static str,
    },
    /// The kernel has no device node for it.
    #[error("gpu {uuid} ({vendor}) has no device node below {below}")]
    NoNode {
        /// Which GPU.
        uuid: String,
        /// Its vendor.
        vendor: GpuVendor,
        /// Where one was looked for.
        below: PathBuf,
    },
}

/// What a container must see; nothing if it has no GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExpectedDevices {
    /// Device nodes by their path inside.
    pub nodes: Vec<String>,
    /// Number of `/dev/nvidia<n>`, with `/dev/nvidiactl`.
    pub n_nvidia: u32,
    /// Number of device nodes beside those that every container has.
    pub n_unusual: u32,
}

impl ExpectedDevices {
    /// Whether nothing is to be looked at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What attaches GPUs to a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GpuPlan {
    /// Device nodes that are passed on.
    pub devices: Vec<DeviceMapping>,
    /// Devices that the engine looks up.
    pub requests: Vec<DeviceRequest>,
    /// Groups that own the device nodes, so that a container's user may open them.
    pub groups: Vec<String>,
    /// What must be seen inside afterwards.
    pub expected: ExpectedDevices,
}

/// Where the host keeps what a plan is made from; other folders in tests.
#[derive(Debug, Clone)]
pub struct HostFolders {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// Folders with CDI specifications.
    pub cdi: Vec<PathBuf>,
}

impl Default for HostFolders {
    fn default() -> Self {
        let cdi = ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).into();
        Self { sys: "/sys".into(), dev: "/dev".into(), proc: "/proc".into(), cdi }
    }
}

impl HostFolders {
    /// Those of this host, with the CDI specifications that an engine reads.
    pub fn of(engine: &Engine) -> Self {
        let usual = Self::default();
        let cdi = if engine.cdi_folders.is_empty() { usual.cdi } else { engine.cdi_folders.clone() };
        Self { cdi, ..usual }
    }
}

/// Plans how GPUs come into a container: by their CDI names if those are surely theirs and the
/// engine knows CDI; else NVIDIA's by the engine's own request, the others by their
/// device nodes. Simulated GPUs are not attached.
///
/// # Errors
/// [`GpuError`], before anything was started.
pub fn plan(gpus: &[GpuInfo], engine: &Engine, host: &HostFolders) -> Result<GpuPlan, GpuError> {
    let mut plan = GpuPlan::default();
    let real = gpus.iter().filter(|gpu| gpu.driver != Some(GpuDriver::Sim));
    let name = |gpu: &GpuInfo| if engine.cdi { cdi_name(gpu, host) } else { None };
    let named: Vec<(&GpuInfo, Option<String>)> = real.map(|gpu| (gpu, name(gpu))).collect();
    // NVIDIA's come in one way: both bring the driver's libraries.
    let is_nvidia = |gpu: &GpuInfo| gpu.vendor == GpuVendor::Nvidia;
    let is_one_unnamed = named.iter().any(|(gpu, name)| is_nvidia(gpu) && name.is_none());
    let (mut by_cdi, mut nvidia, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (gpu, name) in named {
        match name.filter(|_| !(is_one_unnamed && is_nvidia(gpu))) {
            Some(name) => by_cdi.push((gpu, name)),
            None if is_nvidia(gpu) => nvidia.push(gpu),
            None => others.push(gpu),
        }
    }
    plan_cdi(&mut plan, &by_cdi, host);
    if let Some(first) = nvidia.first() {
        plan_nvidia(&mut plan, engine, first, &nvidia, host)?;
    }
    for gpu in others {
        plan_nodes(&mut plan, engine, gpu, host)?;
    }
    plan.devices.sort_by(|a, b| a.path_in_container.cmp(&b.path_in_container));
    plan.devices.dedup();
    plan.groups.sort();
    plan.groups.dedup();
    plan.expected.nodes.sort();
    plan.expected.nodes.dedup();
    Ok(plan)
}

/// The name by which a GPU is attached by CDI, if a specification of this host has one that is
/// surely its own. `amd-ctk` and `nvidia-ctk` number the GPUs when they write it, and the numbers
/// move when one is lost or added: a name counts with this GPU's device node under it.
fn cdi_name(gpu: &GpuInfo, host: &HostFolders) -> Option<String> {
    let name = gpu.cdi_device.as_deref()?;
    match gpu.vendor {
        GpuVendor::Nvidia => nvidia_cdi_name(gpu, name, host),
        GpuVendor::Amd => {
            let node = render_node(gpu, host).ok()?;
            let own = format!("/dev/{}", node.strip_prefix(&host.dev).ok()?.display());
            cdi::device_nodes(&host.cdi, name)?.contains(&own).then(|| name.to_owned())
        }
        GpuVendor::Intel | GpuVendor::Apple | GpuVendor::Other => Some(name.to_owned()),
    }
}

/// `nvidia-ctk` can name GPUs by their UUIDs too, and that is told apart without a device node.
fn nvidia_cdi_name(gpu: &GpuInfo, by_number: &str, host: &HostFolders) -> Option<String> {
    let own = nvidia_node(gpu, host);
    let (kind, _) = by_number.split_once('=')?;
    let by_uuid = format!("{kind}={}", gpu.uuid.0);
    // Device nodes are numbered anew at each start of the driver, so this may be of another time.
    let is_own = |nodes: &Vec<String>| own.as_ref().is_none_or(|own| nodes.contains(own));
    if cdi::device_nodes(&host.cdi, &by_uuid).as_ref().is_some_and(is_own) {
        return Some(by_uuid);
    }
    let nodes = cdi::device_nodes(&host.cdi, by_number)?;
    nodes.contains(own.as_ref()?).then(|| by_number.to_owned())
}

/// The device node of an NVIDIA GPU. Its number is none of the management library's: the kernel
/// driver tells it, by the PCI address.
fn nvidia_node(gpu: &GpuInfo, host: &HostFolders) -> Option<String> {
    let address = gpu.pci_address.as_deref()?.to_ascii_lowercase();
    let path = host.proc.join("driver/nvidia/gpus").join(address).join("information");
    let text = fs::read_to_string(path).ok()?;
    let minor = text.lines().find_map(|line| line.strip_prefix("Device Minor:"))?;
    let minor: u32 = minor.trim().parse().ok()?;
    Some(format!("/dev/nvidia{minor}"))
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn plan_cdi(plan: &mut GpuPlan, named: &[(&GpuInfo, String)], host: &HostFolders) {
    if named.is_empty() {
        return;
    }
    let gpus: Vec<&GpuInfo> = named.iter().map(|(gpu, _)| *gpu).collect();
    let names: Vec<String> = named.iter().map(|(_, name)| name.clone()).collect();
    for name in &names {
        plan.expected.nodes.extend(cdi::device_nodes(&host.cdi, name).unwrap_or_default());
    }
    if names.iter().any(|name| name.starts_with("nvidia.com/")) {
        plan.expected.n_nvidia += count(boards(&gpus));
    }
    // Without the specification at hand: one device node for each, at least.
    plan.expected.n_unusual += count(names.len()).max(count(plan.expected.nodes.len()));
    let request = DeviceRequest { driver: Some("cdi".to_owned()), device_ids: Some(names), ..DeviceRequest::default() };
    plan.requests.push(request);
}

/// Slices of one GPU share its device node.
fn boards(gpus: &[&GpuInfo]) -> usize {
    let board = |gpu: &&GpuInfo| gpu.mig.as_ref().map_or_else(|| gpu.uuid.clone(), |slice| slice.parent.clone());
    let boards: std::collections::BTreeSet<_> =
        gpus.iter().filter(|gpu| gpu.vendor == GpuVendor::Nvidia).map(board).collect();
    boards.len()
}

fn plan_nvidia(
    plan: &mut GpuPlan,
    engine: &Engine,
    first: &GpuInfo,
    gpus: &[&GpuInfo],
    host: &HostFolders,
) -> Result<(), GpuError> {
    if engine.kind == EngineKind::Podman {
        let why = if engine.cdi {
            "it attaches NVIDIA's GPUs by CDI only, and no specification on this node has a name that is surely each one's; make it anew with nvidia-ctk cdi generate"
        } else {
            "before version 5 it takes requests for GPUs and does nothing; use Podman 5 or Docker"
        };
        return Err(refused(engine, first, why));
    }
    let capabilities = ["gpu", "compute", "utility"].map(ToOwned::to_owned).into();
    plan.requests.push(DeviceRequest {
        driver: Some("nvidia".to_owned()),
        device_ids: Some(gpus.iter().map(|gpu| gpu.uuid.0.clone()).collect()),
        capabilities: Some(vec![capabilities]),
        ..DeviceRequest::default()
    });
    plan.expected.n_nvidia += count(boards(gpus));
    plan.expected.nodes.extend(gpus.iter().filter_map(|gpu| nvidia_node(gpu, host)));
    Ok(())
}

fn refused(engine: &Engine, gpu: &GpuInfo, why: &'static str) -> GpuError {
    GpuError::Engine {
        engine: engine.name(),
        version: engine.version.clone(),
        uuid: gpu.uuid.0.clone(),
        vendor: gpu.vendor,
        why,
    }
}

/// AMD's and Intel's GPUs are device nodes and nothing else; every engine passes those on.
fn plan_nodes(plan: &mut GpuPlan, engine: &Engine, gpu: &GpuInfo, host: &HostFolders) -> Result<(), GpuError> {
    let nodes = match gpu.vendor {
        GpuVendor::Amd => vec![host.dev.join("kfd"), render_node(gpu, host)?],
        GpuVendor::Intel => vec![render_node(gpu, host)?],
        GpuVendor::Nvidia | GpuVendor::Apple | GpuVendor::Other => {
            return Err(refused(engine, gpu, "containers get GPUs of NVIDIA, AMD and Intel, or by CDI"));
        }
    };
    for node in nodes {
        let missing = || GpuError::NoNode { uuid: gpu.uuid.0.clone(), vendor: gpu.vendor, below: node.clone() };
        let metadata = fs::metadata(&node).map_err(|_| missing())?;
        let inside = format!("/dev/{}", node.strip_prefix(&host.dev).unwrap_or(&node).display());
        plan.devices.push(DeviceMapping {
            path_on_host: Some(node.to_string_lossy().into_owned()),
            path_in_container: Some(inside.clone()),
            cgroup_permissions: Some("rw".to_owned()),
        });
        if metadata.gid() != 0 {
            plan.groups.push(metadata.gid().to_string());
        }
        plan.expected.nodes.push(inside);
    }
    Ok(())
}

/// The render node of a GPU, by its PCI address.
fn render_node(gpu: &GpuInfo, host: &HostFolders) -> Result<PathBuf, GpuError> {
    let address = gpu.pci_address.as_deref().unwrap_or("none").to_ascii_lowercase();
    let below = host.sys.join("bus/pci/devices").join(address).join("drm");
    let names = fs::read_dir(&below).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
    let mut render: Vec<String> =
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("renderD")).collect();
    render.sort();
    match render.first() {
        Some(name) => Ok(host.dev.join("dri").join(name)),
        None => Err(GpuError::NoNode { uuid: gpu.uuid.0.clone(), vendor: gpu.vendor, below }),
    }
}

/// Whether an engine's words are about GPUs that it cannot attach.
pub fn is_about_gpus(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["could not select device driver", "cdi device", "unresolvable cdi", "nvidia-container-cli", "/dev/kfd", "/dev/dri"]
        .iter()
        .any(|words| said.contains(words))
}

/// Looks from outside at the device nodes of a container whose first process is `pid`.
///
/// # Errors
/// What is missing, for people.
pub fn check(pid: i32, expected: &ExpectedDevices) -> Result<(), String> {
    check_at(&PathBuf::from(format!("/proc/{pid}/root")), expected)
}

fn check_at(root: &Path, expected: &ExpectedDevices) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    let found = device_nodes(&root.join("dev"), 0);
    // Podman passes it on by another path: what counts is what it is called inside.
    let missing: Vec<&str> = expected
        .nodes
        .iter()
        .map(String::as_str)
        .filter(|node| !found.iter().any(|found| node.strip_prefix("/dev/") == Some(found)))
        .collect();
    if !missing.is_empty() {
        return Err(format!("the container does not have {}", missing.join(", ")));
    }
    let is_nvidia = |name: &&String| name.strip_prefix("nvidia").is_some_and(|n| n.parse::<u32>().is_ok());
    let n_nvidia = found.iter().filter(is_nvidia).count();
    if expected.n_nvidia > 0 && !found.iter().any(|name| name == "nvidiactl") {
        return Err("the container does not have /dev/nvidiactl".to_owned());
    }
    if count(n_nvidia) < expected.n_nvidia {
        return Err(format!("the container has {n_nvidia} of {} NVIDIA device nodes", expected.n_nvidia));
    }
    let n_unusual = found.iter().filter(|name| !USUAL.contains(&name.as_str()) && !name.starts_with("pts/")).count();
    if count(n_unusual) < expected.n_unusual {
        return Err(format!("the container has {n_unusual} of {} device nodes that it was to get", expected.n_unusual));
    }
    Ok(())
}

/// Names of the device nodes below a folder, without following links out of it.
fn device_nodes(folder: &Path, depth: usize) -> Vec<String> {
    let mut nodes = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let (Ok(kind), name) = (entry.file_type(), entry.file_name().to_string_lossy().into_owned()) else { continue };
        if kind.is_char_device() || kind.is_block_device() {
            nodes.push(name);
        } else if kind.is_dir() && depth < 3 {
            nodes.extend(device_nodes(&entry.path(), depth + 1).into_iter().map(|below| format!("{name}/{below}")));
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use claw_proto::ids::GpuUuid;

    use super::*;

    fn gpu(uuid: &str, vendor: GpuVendor, cdi_device: Option<&str>) -> GpuInfo {
        GpuInfo {
            pci_address: Some("0000:C1:00.0".into()),
            cdi_device: cdi_device.map(ToOwned::to_owned),
            ..GpuInfo::new(GpuUuid(uuid.into()), 0, vendor, "X", 1)
        }
    }

    fn engine(kind: EngineKind, version: &str, cdi: bool) -> Engine {
        Engine { kind, version: version.into(), api: (1, 41), cdi, cdi_folders: Vec::new() }
    }

    #[test]
    fn each_engine_is_asked_in_its_way_or_refused() {
        let nowhere = || PathBuf::from("/nowhere");
        let host = HostFolders { sys: nowhere(), dev: "/dev".into(), proc: nowhere(), cdi: Vec::new() };
        let told = |gpus: &[GpuInfo], engine: &Engine| match plan(gpus, engine, &host) {
            Ok(plan) => {
                let asked = plan.requests.iter().map(|request| {
                    format!(
                        "{} {:?}",
                        request.driver.as_deref().unwrap_or("-"),
                        request.device_ids.clone().unwrap_or_default()
                    )
                });
                format!("{} | {:?}", asked.collect::<Vec<_>>().join(" + "), plan.expected)
            }
            Err(error) => error.to_string(),
        };
        let nvidia = [
            gpu("GPU-a", GpuVendor::Nvidia, Some("nvidia.com/gpu=0")),
            gpu("GPU-b", GpuVendor::Nvidia, Some("nvidia.com/gpu=1")),
        ];
        let old = engine(EngineKind::Docker, "20.10.24", false);
        let new = engine(EngineKind::Docker, "26.1.5", true);
        let old_podman = engine(EngineKind::Podman, "4.3.1", false);
        let new_podman = engine(EngineKind::Podman, "5.4.2", true);
        let lines = [
            told(&nvidia, &old),
            told(&nvidia, &new),
            told(&nvidia, &old_podman),
            told(&[gpu("GPU-c", GpuVendor::Nvidia, None)], &new_podman),
            told(&[gpu("GPU-d", GpuVendor::Amd, None)], &old),
            told(&[gpu("GPU-e", GpuVendor::Other, None)], &new),
        ];
        expect_test::expect![[r#"
            nvidia ["GPU-a", "GPU-b"] | ExpectedDevices { nodes: [], n_nvidia: 2, n_unusual: 0 }
            nvidia ["GPU-a", "GPU-b"] | ExpectedDevices { nodes: [], n_nvidia: 2, n_unusual: 0 }
            podman 4.3.1 cannot attach gpu GPU-a (nvidia): before version 5 it takes requests for GPUs and does nothing; use Podman 5 or Docker
            podman 5.4.2 cannot attach gpu GPU-c (nvidia): it attaches NVIDIA's GPUs by CDI only, and no specification on this node has a name that is surely each one's; make it anew with nvidia-ctk cdi generate
            gpu GPU-d (amd) has no device node below /nowhere/bus/pci/devices/0000:c1:00.0/drm
            docker 26.1.5 cannot attach gpu GPU-e (other): containers get GPUs of NVIDIA, AMD and Intel, or by CDI"#]]
        .assert_eq(&lines.join("\n"));
    }

    /// `amd-ctk` numbers GPUs when it writes its specification: a number counts only
    /// as long as it still is this GPU's. Device nodes do as well.
    #[test]
    fn an_amd_gpu_comes_by_a_name_that_is_its_own_or_by_its_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let [sys, dev, cdi] = ["sys", "dev", "cdi"].map(|name| folder.path().join(name));
        let drm = sys.join("bus/pci/devices/0000:c1:00.0/drm");
        for path in [&drm.join("renderD129"), &drm.join("card1"), &dev.join("dri"), &cdi] {
            fs::create_dir_all(path).unwrap();
        }
        for node in ["kfd", "dri/renderD129"] {
            fs::write(dev.join(node), "").unwrap();
        }
        let host = HostFolders { sys, dev, proc: "/nowhere".into(), cdi: vec![cdi.clone()] };
        let new = engine(EngineKind::Docker, "28.3.0", true);
        let gpus = [gpu("GPU-f", GpuVendor::Amd, Some("amd.com/gpu=1"))];
        let specification = |render: &str| {
            let nodes =
                format!(r#"[{{"path":"/dev/dri/card1"}},{{"path":"/dev/dri/{render}"}},{{"path":"/dev/kfd"}}]"#);
            let device = format!(r#"{{"name":"1","containerEdits":{{"deviceNodes":{nodes}}}}}"#);
            let text = format!(r#"{{"cdiVersion":"0.6.0","kind":"amd.com/gpu","devices":[{device}]}}"#);
            fs::write(cdi.join("amd.json"), text).unwrap();
        };
        let by_nodes = ["/dev/dri/renderD129", "/dev/kfd"];
        let without = plan(&gpus, &new, &host).unwrap();
        assert_eq!((without.requests.len(), without.expected.nodes.as_slice()), (0, &by_nodes.map(String::from)[..]));
        specification("renderD128");
        assert_eq!(plan(&gpus, &new, &host).unwrap(), without, "the number is another GPU's now");
        specification("renderD129");
        let by_name = plan(&gpus, &new, &host).unwrap();
        assert_eq!(by_name.requests[0].device_ids.as_deref(), Some(&["amd.com/gpu=1".to_owned()][..]));
        assert_eq!((by_name.devices.len(), by_name.expected.nodes.len()), (0, 3));
    }

    /// Two GPUs had the numbers 0 and 1; the first is lost, and the management library counts from 0 again.
    #[test]
    fn an_nvidia_gpu_comes_by_a_name_that_is_its_own_or_by_its_uuid() {
        let folder = tempfile::tempdir().unwrap();
        let [proc, cdi] = ["proc", "cdi"].map(|name| folder.path().join(name));
        let known = proc.join("driver/nvidia/gpus/0000:c1:00.0");
        for path in [&known, &cdi] {
            fs::create_dir_all(path).unwrap();
        }
        let told = "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-b\nDevice Minor: \t 1\nGPU Excluded:\t No\n";
        fs::write(known.join("information"), told).unwrap();
        let engine = |kind| Engine { cdi_folders: vec![cdi.clone()], ..engine(kind, "28.3.0", true) };
        let host = HostFolders { proc, ..HostFolders::of(&engine(EngineKind::Docker)) };
        let specification = |devices: &[(&str, u32)]| {
            let device = |(name, minor): &(&str, u32)| {
                format!("- containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia{minor}\n  name: \"{name}\"\n")
            };
            let devices: Vec<String> = devices.iter().map(device).collect();
            let text = format!("devices:\n{}kind: nvidia.com/gpu\n", devices.concat());
            fs::write(cdi.join("nvidia.yaml"), text).unwrap();
        };
        let planned = |kind, number: u32, host: &HostFolders| {
            let gpus = [gpu("GPU-b", GpuVendor::Nvidia, Some(&format!("nvidia.com/gpu={number}")))];
            let plan = plan(&gpus, &engine(kind), host).map_err(|error| error.to_string())?;
            let request = plan.requests[0].clone();
            assert_eq!(plan.expected.n_nvidia, 1);
            let (driver, names) = (request.driver.unwrap(), request.device_ids.unwrap().concat());
            Ok::<_, String>(format!("{driver} {names} {}", plan.expected.nodes.concat()))
        };
        let by = |driver: &str, name: &str| Ok::<_, String>(format!("{driver} {name} /dev/nvidia1"));
        specification(&[("0", 0), ("1", 1), ("all", 0)]);
        assert_eq!(planned(EngineKind::Docker, 0, &host), by("nvidia", "GPU-b"), "the number is another GPU's");
        let refused = planned(EngineKind::Podman, 0, &host).unwrap_err();
        assert!(refused.contains("no specification on this node has a name that is surely each one's"), "{refused}");
        assert_eq!(planned(EngineKind::Podman, 1, &host), by("cdi", "nvidia.com/gpu=1"), "the number is its own");
        specification(&[("0", 0), ("1", 1), ("GPU-b", 1)]);
        assert_eq!(planned(EngineKind::Docker, 0, &host), by("cdi", "nvidia.com/gpu=GPU-b"));
        specification(&[("0", 1), ("GPU-b", 0)]);
        assert_eq!(planned(EngineKind::Docker, 0, &host), by("cdi", "nvidia.com/gpu=0"), "the UUID's node is old");
        // Where the driver does not tell device nodes, the UUID alone is sure.
        let silent = HostFolders { proc: "/nowhere".into(), ..host.clone() };
        assert_eq!(planned(EngineKind::Podman, 0, &silent).unwrap(), "cdi nvidia.com/gpu=GPU-b /dev/nvidia0");
        specification(&[("0", 0)]);
        assert_eq!(planned(EngineKind::Docker, 0, &silent).unwrap(), "nvidia GPU-b ");
    }

    #[test]
    fn a_container_without_its_gpus_is_noticed() {
        let own = i32::try_from(std::process::id()).unwrap();
        let expected = |nodes: &[&str]| ExpectedDevices {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            ..ExpectedDevices::default()
        };
        assert_eq!(check(own, &ExpectedDevices::default()), Ok(()));
        assert_eq!(check(own, &expected(&["/dev/null"])), Ok(()));
        let missing = check(own, &expected(&["/dev/null", "/dev/vgpu7"]));
        assert_eq!(missing, Err("the container does not have /dev/vgpu7".to_owned()));
        let nvidia = ExpectedDevices { n_nvidia: 1, ..ExpectedDevices::default() };
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(check_at(empty.path(), &nvidia), Err("the container does not have /dev/nvidiactl".to_owned()));
        assert!(is_about_gpus("could not select device driver \"cdi\" with capabilities: []"));
        assert!(!is_about_gpus("no such image"));
    }
}
