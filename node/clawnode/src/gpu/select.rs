//! From the config value `gpu` to drivers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use claw_proto::topology::GpuDriver as GpuDriverKind;

use super::none::NoGpus;
#[cfg(not(target_os = "macos"))]
use super::nvml::{
    NvmlOptions,
    isolated::{IsolatedGpus, IsolatedOptions},
};
use super::rocm::{RocmGpus, RocmOptions, ToolOptions};
use super::sim::{SimFleet, SimGpus, SimSpecError};
use super::vulkan::{VulkanGpus, VulkanOptions};
use super::worker::{MakeDriver, Patience};

/// The running program, also if its file was replaced since it was started.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// What the drivers are made from.
#[derive(Debug, Clone)]
pub struct GpuOptions {
    /// The config value `gpu`: `auto`, `none`, `sim:<model>x<count>`, or drivers with commas between.
    pub gpu: String,
    /// The node's name; UUIDs of simulated GPUs come from it.
    pub node_name: String,
    /// Faults of simulated GPUs, if that file exists.
    pub faults: PathBuf,
    /// NVIDIA's management library; found by the loader if absent.
    pub nvml_library: Option<PathBuf>,
    /// The program `clawnode`, for a process that NVIDIA's library is loaded into; without it there is no such
    /// driver.
    pub nvml_program: Option<PathBuf>,
    /// How amd-smi and rocm-smi are used.
    pub rocm_tools: ToolOptions,
    /// How Vulkan's driver works.
    pub vulkan: VulkanOptions,
    /// Where sysfs is mounted.
    pub sysfs_root: PathBuf,
    /// How long drivers are waited for.
    pub patience: Patience,
}

impl GpuOptions {
    /// The options for a config value, everything else as on a normal host.
    pub fn new(gpu: &str, node_name: &str, faults: PathBuf) -> Self {
        Self {
            gpu: gpu.to_owned(),
            node_name: node_name.to_owned(),
            faults,
            nvml_library: None,
            nvml_program: None,
            rocm_tools: ToolOptions::default(),
            vulkan: VulkanOptions::default(),
            sysfs_root: PathBuf::from("/sys"),
            patience: Patience::default(),
        }
    }
}

/// Why the configured drivers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuConfigError {
    /// No driver of this name is built.
    #[error(
        "gpu {got:?} is not a driver: use \"auto\", \"none\", \"sim:<model>x<count>\" such as sim:h100x8, or some of {known}"
    )]
    Unknown {
        /// What was given.
        got: String,
        /// The names of drivers.
        known: &'static str,
    },
    /// A driver of this name is not in this build, or lacks what it runs in.
    #[error(
        "the gpu driver {got} cannot be had here (nvml needs the program clawnode and is not for macOS, metal is for macOS alone)"
    )]
    NotHere {
        /// Which.
        got: GpuDriverKind,
    },
    /// A driver is named twice.
    #[error("gpu names {got} twice")]
    Twice {
        /// Which.
        got: GpuDriverKind,
    },
    /// The simulated GPUs cannot be made.
    #[error(transparent)]
    Sim(#[from] SimSpecError),
}

/// Drivers of real GPUs, as the config names them.
const KNOWN: &str = "nvml, rocm, vulkan, and metal on macOS";

/// Drivers that `auto` tries, the ones that win first.
const AUTO: &[GpuDriverKind] = &[GpuDriverKind::Nvml, GpuDriverKind::Rocm, GpuDriverKind::Metal, GpuDriverKind::Vulkan];

/// The drivers of a configuration, the ones that win first.
pub(super) fn drivers(options: GpuOptions) -> Result<Vec<(GpuDriverKind, MakeDriver)>, GpuConfigError> {
    let text = options.gpu.clone();
    if text == "none" {
        return Ok(vec![(GpuDriverKind::None, Arc::new(|_| Box::new(NoGpus)))]);
    }
    if let Some(fleet) = text.strip_prefix("sim:") {
        let fleet: SimFleet = fleet.parse()?;
        let (node_name, faults) = (options.node_name, options.faults);
        let make: MakeDriver = Arc::new(move |_| Box::new(SimGpus::new(fleet, &node_name, faults.clone())));
        return Ok(vec![(GpuDriverKind::Sim, make)]);
    }
    let auto = text == "auto";
    let kinds = if auto { AUTO.to_vec() } else { named(&text)? };
    let mut drivers = Vec::new();
    for kind in kinds {
        match make(kind, &options, auto) {
            Some(make) => drivers.push((kind, make)),
            None if auto => {}
            None => return Err(GpuConfigError::NotHere { got: kind }),
        }
    }
    Ok(drivers)
}

fn named(text: &str) -> Result<Vec<GpuDriverKind>, GpuConfigError> {
    let mut kinds = BTreeSet::new();
    for name in text.split(',').map(str::trim) {
        let kind = GpuDriverKind::from_text(name).filter(|kind| AUTO.contains(kind));
        let kind = kind.ok_or_else(|| GpuConfigError::Unknown { got: text.to_owned(), known: KNOWN })?;
        if !kinds.insert(kind) {
            return Err(GpuConfigError::Twice { got: kind });
        }
    }
    Ok(AUTO.iter().copied().filter(|kind| kinds.contains(kind)).collect())
}

/// The driver of a kind. With `auto`, one that finds nothing of its vendor stays silent about it.
fn make(kind: GpuDriverKind, options: &GpuOptions, auto: bool) -> Option<MakeDriver> {
    match kind {
        GpuDriverKind::None | GpuDriverKind::Sim => None,
        #[cfg(target_os = "macos")]
        GpuDriverKind::Nvml => None,
        #[cfg(not(target_os = "macos"))]
        GpuDriverKind::Nvml => {
            // The process stands in another folder; a bare name is the loader's to find.
            let is_path = |library: &PathBuf| library.components().count() > 1;
            let absolute =
                |path: PathBuf| if is_path(&path) { std::path::absolute(&path).unwrap_or(path) } else { path };
            let library = options.nvml_library.clone().map(absolute);
            let nvml = NvmlOptions::new(library, options.sysfs_root.clone(), !auto);
            let isolated = IsolatedOptions::new(options.nvml_program.clone()?, nvml);
            Some(Arc::new(move |leash| Box::new(IsolatedGpus::new(isolated.clone(), Arc::clone(leash)))))
        }
        GpuDriverKind::Rocm => {
            let rocm = RocmOptions::new(options.sysfs_root.clone(), options.rocm_tools.clone(), !auto);
            Some(Arc::new(move |_| Box::new(RocmGpus::new(rocm.clone()))))
        }
        #[cfg(target_os = "macos")]
        GpuDriverKind::Metal => Some(Arc::new(|_| Box::new(super::metal::MetalGpus::new()))),
        #[cfg(not(target_os = "macos"))]
        GpuDriverKind::Metal => None,
        // There the system's own driver sees every GPU, and no address joins what both see.
        GpuDriverKind::Vulkan if auto && cfg!(target_os = "macos") => None,
        GpuDriverKind::Vulkan => {
            let (vulkan, patience) = (&options.vulkan, options.patience);
            let vulkan = VulkanOptions {
                wanted: !auto || vulkan.probe.is_some(),
                sysfs_root: options.sysfs_root.clone(),
                // Less than the detector waits for it: a slow probe is no driver that hangs.
                first_wait_ms: vulkan.first_wait_ms.min(patience.first_ms / 5 * 4),
                wait_ms: vulkan.wait_ms.min(patience.answer_ms / 5 * 4),
                ..vulkan.clone()
            };
            Some(Arc::new(move |_| Box::new(VulkanGpus::new(vulkan.clone()))))
        }
    }
}
