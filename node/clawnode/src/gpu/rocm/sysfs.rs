//! What the kernel's amdgpu driver tells of each GPU in sysfs: the base of this
//! driver, since it needs no program and no library.
//!
//! Source: the kernel's amdgpu documentation (driver-misc, thermal, RAS, xgmi) and
//! `Documentation/ABI` for PCI and hwmon. A GPU may be partitioned (MI300): then
//! the driver makes further DRM cards, which are no PCI devices (`amdgpu_xcp`) and
//! are no GPUs here; see [`super::kfd`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::merge::pci_address;
use super::serial::Serial;

/// PCI vendor of AMD.
pub(super) const PCI_VENDOR: &str = "0x1002";
/// PCI classes of GPUs: display controllers, and processing accelerators.
const PCI_CLASSES: [&str; 2] = ["0x03", "0x12"];
/// The kernel's driver.
const DRIVER: &str = "amdgpu";
/// Longest file that is read, bytes: a file of sysfs is one page.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// One GPU as a PCI device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    /// PCI address in the kernel's spelling.
    pub(super) address: String,
    /// Folder of the device.
    pub(super) device: PathBuf,
    /// PCI device id.
    pub(super) device_id: u16,
    /// PCI revision.
    pub(super) revision: u8,
    /// Its own number, if it has one.
    pub(super) serial: Option<Serial>,
    /// What its board calls itself (boards with a FRU chip only).
    pub(super) product_name: Option<String>,
    /// Its own memory, bytes; none if the driver does not say.
    pub(super) vram_bytes: Option<u64>,
    /// Number of `renderD<n>`.
    pub(super) render_minor: Option<u32>,
    /// XGMI hive that it belongs to.
    pub(super) hive: Option<u64>,
    /// Modes of partitioning, such as `CPX` and `NPS4`.
    pub(super) partition: [Option<String>; 2],
}

/// The text of a file without its end; nothing if the kernel has no such file or
/// no such number for this GPU.
///
/// # Errors
/// What the system says of a file that is there and cannot be read.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    use std::io::Read as _;

    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&text).trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absence(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::InvalidInput];
    let numbers = [rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::NOSYS, rustix::io::Errno::NODATA];
    kinds.contains(&error.kind()) || numbers.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The text of a file of which only the content matters.
pub(super) fn text(path: &Path) -> Option<String> {
    read(path).ok().flatten()
}

/// A decimal number in a file.
pub(super) fn number(path: &Path) -> Option<u64> {
    text(path)?.split_whitespace().next()?.parse().ok()
}

fn hex(path: &Path) -> Option<u64> {
    u64::from_str_radix(text(path)?.strip_prefix("0x")?, 16).ok()
}

/// A line `KEY=value` of a device's `uevent`.
fn uevent(device: &Path, key: &str) -> Option<String> {
    let lines = text(&device.join("uevent"))?;
    lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
}

/// Every GPU that amdgpu drives, by PCI address.
pub(super) fn cards(sysfs: &Path) -> BTreeMap<String, Card> {
    let Ok(entries) = std::fs::read_dir(sysfs.join("class/drm")) else { return BTreeMap::new() };
    let is_card = |name: &str| {
        // Not a connector (card0-DP-1), nor a render node.
        name.strip_prefix("card").is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(|name| is_card(name));
    let cards = names.filter_map(|name| card(&sysfs.join("class/drm").join(name).join("device")));
    cards.map(|card| (card.address.clone(), card)).collect()
}

fn card(link: &Path) -> Option<Card> {
    let device = link.canonicalize().ok()?;
    let address = pci_address(device.file_name()?.to_str()?)?;
    if uevent(&device, "DRIVER").as_deref() != Some(DRIVER)
        || text(&device.join("vendor")).as_deref() != Some(PCI_VENDOR)
    {
        return None;
    }
    let device_id = hex(&device.join("device")).and_then(|id| u16::try_from(id).ok())?;
    let revision = hex(&device.join("revision")).and_then(|revision| u8::try_from(revision).ok());
    let mode = |file: &str| text(&device.join(file)).map(|mode| mode.chars().take(8).collect());
    Some(Card {
        device_id,
        revision: revision.unwrap_or(0),
        serial: text(&device.join("unique_id")).and_then(|text| Serial::from_hex(&text)),
        product_name: text(&device.join("product_name")),
        vram_bytes: number(&device.join("mem_info_vram_total")),
        render_minor: render_minor(&device),
        hive: number(&device.join("xgmi_hive_info/xgmi_hive_id")).filter(|hive| *hive != 0),
        partition: [mode("current_compute_partition"), mode("current_memory_partition")],
        address,
        device,
    })
}

fn render_minor(device: &Path) -> Option<u32> {
    let entries = std::fs::read_dir(device.join("drm")).ok()?;
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("renderD")?.parse().ok()).min()
}

/// A GPU of AMD on the bus that no driver has.
pub(super) fn without_driver(sysfs: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(sysfs.join("bus/pci/devices")) else { return Vec::new() };
    let is_idle = |device: &Path| {
        let class = text(&device.join("class")).unwrap_or_default();
        text(&device.join("vendor")).as_deref() == Some(PCI_VENDOR)
            && PCI_CLASSES.iter().any(|prefix| class.starts_with(prefix))
            && uevent(device, "DRIVER").is_none()
            && !device.join("driver").exists()
    };
    let addresses = entries.filter_map(Result::ok).filter(|entry| is_idle(&entry.path()));
    let mut addresses: Vec<String> = addresses.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    addresses.sort();
    addresses
}

/// Whether the kernel's driver is loaded.
pub(super) fn is_loaded(sysfs: &Path) -> bool {
    sysfs.join("module").join(DRIVER).is_dir()
}

/// Version of the kernel's driver; the kernel's own where the driver is part of it.
pub(super) fn driver_version(sysfs: &Path) -> String {
    let of_module = text(&sysfs.join("module").join(DRIVER).join("version"));
    let of_kernel = || format!("kernel {}", rustix::system::uname().release().to_string_lossy());
    of_module.unwrap_or_else(of_kernel)
}

/// Counts of errors of all blocks that have RAS (`ras/<block>_err_count`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Errors {
    /// Corrected, since the driver was loaded.
    pub(super) corrected: u64,
    /// Not corrected.
    pub(super) uncorrected: u64,
}

/// Sums the errors of all blocks; nothing if no block tells any.
pub(super) fn errors(device: &Path) -> Option<Errors> {
    let blocks = std::fs::read_dir(device.join("ras")).ok()?;
    let files = blocks.filter_map(|entry| Some(entry.ok()?.path()));
    let files = files.filter(|path| path.to_str().is_some_and(|path| path.ends_with("_err_count")));
    let counts: Vec<Errors> = files.filter_map(|path| errors_of(&text(&path)?)).collect();
    let sum = |sum: Errors, one: &Errors| Errors {
        corrected: sum.corrected.saturating_add(one.corrected),
        uncorrected: sum.uncorrected.saturating_add(one.uncorrected),
    };
    (!counts.is_empty()).then(|| counts.iter().fold(Errors::default(), sum))
}

/// Lines `ue: <n>` and `ce: <n>`; newer kernels have `de: <n>` (deferred) too.
pub(super) fn errors_of(text: &str) -> Option<Errors> {
    let count = |key: &str| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim().strip_prefix(':'));
        value.and_then(|value| value.trim().parse().ok())
    };
    match (count("ue"), count("ce")) {
        (None, None) => None,
        (uncorrected, corrected) => {
            Some(Errors { corrected: corrected.unwrap_or(0), uncorrected: uncorrected.unwrap_or(0) })
        }
    }
}

/// The clock that is in force in a table of `pp_dpm_sclk` or `pp_dpm_mclk`, MHz:
/// its line ends with a star (`1: 2100Mhz *`, in deep sleep `S: 19Mhz *`).
pub(super) fn clock_of(table: &str) -> Option<u32> {
    let line = table.lines().find(|line| line.trim_end().ends_with('*'))?;
    let clock = line.split_once(':')?.1.trim_start();
    let digits = clock.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Generation of PCIe from the speed of a link, such as `16.0 GT/s PCIe`.
pub(super) fn generation_of(speed: &str) -> Option<u32> {
    let speed: f32 = speed.split_whitespace().next()?.parse().ok()?;
    let speeds = [2.5, 5.0, 8.0, 16.0, 32.0, 64.0];
    (1..).zip(speeds).find(|(_, of_generation)| (speed - of_generation).abs() < 0.1).map(|(generation, _)| generation)
}

/// The hwmon folder of a device.
pub(super) fn hwmon(device: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(device.join("hwmon")).ok()?;
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    folders.into_iter().next()
}
