//! NVIDIA's GPUs, through the management library (NVML).
//!
//! The library is loaded at run time, into a process of its own ([`isolated`]); a
//! host without it is a host without NVIDIA GPUs. What goes wrong is never an error of
//! the node: it is a finding and the health of the GPUs that are known, which keep
//! their identity.
//! Tested against a stub library only: untested on hardware.

mod events;
mod faults;
mod identity;
pub mod isolated;
mod measure;
pub mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use claw_proto::ids::GpuUuid;
use claw_proto::message::{GpuEvent, GpuEventKind, GpuMetrics};
use claw_proto::topology::{FindingCode, GpuDriver as GpuDriverKind, GpuHealth, GpuInfo, NodeFinding};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use super::xid::{self, Recovery, Severity};
use super::{GpuDriver, Sampling, Seen, merge, topology};
use crate::clock;
use events::{Reported, Watch};
use faults::{Fault, SUBJECT};
use identity::Known;

/// PCI vendor of NVIDIA, and the class of display and 3D controllers.
const PCI_VENDOR: &str = "0x10de";
const PCI_CLASS_DISPLAY: &str = "0x03";

/// How the driver works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmlOptions {
    /// The library; found by the loader if absent.
    pub library: Option<PathBuf>,
    /// Where sysfs is mounted.
    pub sysfs_root: PathBuf,
    /// Whether an absent library is worth a finding even without an NVIDIA GPU on the bus.
    pub wanted: bool,
    /// A library that cannot be used is tried again after, milliseconds.
    pub retry_ms: u64,
    /// What the GPUs are is read again after, milliseconds.
    pub rescan_ms: u64,
    /// With a GPU that is lost or has to be reset, the library is opened anew after, milliseconds:
    /// it finds GPUs at its start only, and an open library keeps a GPU from being reset.
    pub reopen_ms: u64,
    /// A mark that an Xid left goes so long after it, if the driver asks for no recovery action, milliseconds.
    pub forgive_ms: u64,
}

impl NvmlOptions {
    /// The options for a normal host.
    pub fn new(library: Option<PathBuf>, sysfs_root: PathBuf, wanted: bool) -> Self {
        Self { library, sysfs_root, wanted, retry_ms: 10_000, rescan_ms: 15_000, reopen_ms: 60_000, forgive_ms: 60_000 }
    }
}

/// The library, opened.
#[derive(Debug)]
struct Session {
    nvml: Arc<Nvml>,
    watch: Option<Watch>,
    driver_version: Option<String>,
    opened_at_ms: u64,
    scanned_at_ms: Option<u64>,
}

/// The worst Xid of a GPU, and the uptime when one came last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    code: u32,
    at_ms: u64,
}

/// What has to outlive the process that the library is loaded into.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// The GPUs, by the library's index.
    known: BTreeMap<u32, Known>,
    marks: BTreeMap<GpuUuid, Mark>,
    /// GPUs whose loss was told.
    lost: BTreeSet<GpuUuid>,
}

/// What one look found, by index.
#[derive(Debug, Default)]
struct Look {
    gpus: Vec<GpuInfo>,
    findings: Vec<NodeFinding>,
    any_out: bool,
}

/// The driver.
#[derive(Debug)]
pub struct NvmlGpus {
    options: NvmlOptions,
    session: Option<Session>,
    /// Closed, but its thread still waits in the library.
    closing: Option<(Session, u64)>,
    /// What was told last; told again while the library is being opened anew.
    last: Seen,
    outage: Option<Fault>,
    retry_at_ms: u64,
    known: BTreeMap<u32, Known>,
    marks: BTreeMap<GpuUuid, Mark>,
    lost: BTreeSet<GpuUuid>,
    events: Vec<GpuEvent>,
}

impl NvmlGpus {
    /// A driver that opens the library when it is first asked, and goes on from what another knew.
    pub(crate) fn with_memory(options: NvmlOptions, Memory { known, marks, lost }: Memory) -> Self {
        Self {
            options,
            session: None,
            closing: None,
            last: Seen::default(),
            outage: None,
            retry_at_ms: 0,
            known,
            marks,
            lost,
            events: Vec::new(),
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory { known: self.known.clone(), marks: self.marks.clone(), lost: self.lost.clone() }
    }

    /// Whether there is no library, and no GPU was ever seen through one.
    pub(crate) fn is_absent(&self) -> bool {
        let absent = |fault: &Fault| fault.code == FindingCode::DriverAbsentLibrary;
        self.session.is_none() && self.known.is_empty() && self.outage.as_ref().is_some_and(absent)
    }

    fn open(&mut self, now_ms: u64) {
        if let Some((session, since_ms)) = &self.closing {
            let waits = session.watch.as_ref().is_some_and(|watch| !watch.is_over());
            // A thread that never comes back is left behind.
            if waits && now_ms < since_ms.saturating_add(self.options.retry_ms) {
                return;
            }
        }
        self.closing = None;
        self.retry_at_ms = now_ms.saturating_add(self.options.retry_ms);
        let opened = match &self.options.library {
            Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
            None => Nvml::init(),
        };
        match opened {
            Ok(nvml) => {
                let driver_version = nvml.sys_driver_version().ok();
                info!(driver_version, "NVML is open");
                let nvml = Arc::new(nvml);
                self.outage = None;
                self.session =
                    Some(Session { nvml, watch: None, driver_version, opened_at_ms: now_ms, scanned_at_ms: None });
            }
            Err(error) => self.outage = Some(faults::of_driver(&error)),
        }
    }

    /// Lets go of the library; it is closed when its thread has let go of it too.
    fn close(&mut self, now_ms: u64) {
        if let Some(session) = self.session.take() {
            if let Some(watch) = &session.watch {
                watch.ask_to_stop();
            }
            self.closing = Some((session, now_ms));
        }
    }

    /// The GPUs that are known, as bad as the outage makes them.
    fn out(&self) -> Seen {
        let Some(fault) = &self.outage else { return self.last.clone() };
        let mut gpus = self.known_gpus();
        for gpu in &mut gpus {
            merge::at_least(gpu, fault.health, &fault.reason);
        }
        let absent = fault.code == FindingCode::DriverAbsentLibrary && gpus.is_empty();
        let tell = !absent || self.options.wanted || has_hardware(&self.options);
        let findings = if tell { vec![fault.finding(SUBJECT)] } else { Vec::new() };
        Seen { gpus, findings }
    }

    fn known_gpus(&self) -> Vec<GpuInfo> {
        self.known.values().flat_map(|known| std::iter::once(&known.gpu).chain(&known.slices)).cloned().collect()
    }

    /// Reads what the GPUs are, if that is due or something has changed.
    fn rescan(&mut self, now_ms: u64) -> Result<(), NvmlError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let count = session.nvml.device_count()?;
        let same = |index: u32| {
            let uuid = session.nvml.device_by_index(index).and_then(|device| device.uuid());
            // What does not answer is looked at in the check of its health.
            uuid.map_or(true, |uuid| self.known.get(&index).is_some_and(|known| known.gpu.uuid.0 == uuid))
        };
        let due = session.scanned_at_ms.is_none_or(|at_ms| now_ms >= at_ms.saturating_add(self.options.rescan_ms));
        if !due && (0..count).all(same) {
            return Ok(());
        }
        session.scanned_at_ms = Some(now_ms);
        let nics = topology::nic_places(&self.options.sysfs_root);
        let (mut found, mut complete) = (BTreeMap::new(), true);
        for index in 0..count {
            let version = session.driver_version.as_deref();
            let identified = session
                .nvml
                .device_by_index(index)
                .and_then(|device| identity::identify(&device, index, version, &self.options.sysfs_root, &nics));
            match (identified, self.known.get(&index)) {
                (Ok(known), _) => {
                    found.insert(index, known);
                }
                (Err(_), Some(known)) => {
                    found.insert(index, known.clone());
                    complete = false;
                }
                (Err(error), None) => {
                    debug!(index, %error, "a GPU that does not say who it is");
                    complete = false;
                }
            }
        }
        if complete || self.known.is_empty() {
            identity::connect(&session.nvml, &mut found);
        } else {
            // A GPU that does not answer has no links now; that does not move the others.
            identity::keep_connections(&self.known, &mut found);
        }
        // What is in the list no more stays known, as gone: the detector remembers it.
        let uuids = |known: &BTreeMap<u32, Known>| known.values().map(|one| one.gpu.uuid.clone()).collect::<Vec<_>>();
        let changed = uuids(&found) != uuids(&self.known);
        self.known = found;
        if changed || session.watch.is_none() {
            let gpus = self.known.iter().map(|(index, one)| (*index, one.gpu.uuid.clone())).collect();
            session.watch = Some(Watch::start(Arc::clone(&session.nvml), gpus));
        }
        Ok(())
    }

    /// Takes in what the driver reported.
    fn take_reports(&mut self, now_ms: u64) {
        let reports = self.session.as_ref().and_then(|session| session.watch.as_ref()).map(Watch::take);
        for Reported { uuid, kind, code, at } in reports.unwrap_or_default() {
            let detail = match (kind, code) {
                (GpuEventKind::Xid, Some(code)) => {
                    let verdict = xid::judge(code);
                    let worse = |mark: &&Mark| xid::judge(mark.code).severity > verdict.severity;
                    let code = self.marks.get(&uuid).filter(worse).map_or(code, |mark| mark.code);
                    self.marks.insert(uuid.clone(), Mark { code, at_ms: now_ms });
                    verdict.meaning.to_owned()
                }
                (GpuEventKind::EccDoubleBit, _) => "a memory error that was not corrected".to_owned(),
                (GpuEventKind::EccSingleBit, _) => "a memory error that was corrected".to_owned(),
                (GpuEventKind::Xid | GpuEventKind::PowerState | GpuEventKind::Clock | GpuEventKind::Lost, _) => {
                    String::new()
                }
            };
            self.events.push(GpuEvent { uuid, kind, code, detail, at, simulated: false });
        }
    }

    /// How each GPU is now.
    fn look(&mut self, now_ms: u64) -> Result<Look, NvmlError> {
        let Some(nvml) = self.session.as_ref().map(|session| Arc::clone(&session.nvml)) else {
            return Ok(Look::default());
        };
        let mut look = Look::default();
        for index in 0..nvml.device_count()? {
            let Some(known) = self.known.get(&index).cloned() else {
                let fault = nvml.device_by_index(index).and_then(|device| alive(&device)).err();
                let fault = fault.as_ref().and_then(faults::of_gpu);
                look.any_out |= fault.is_some();
                look.findings.extend(fault.map(|fault| fault.finding(&format!("{SUBJECT} GPU {index}"))));
                continue;
            };
            let faults = self.faults_of(&nvml, index, &known.gpu.uuid, now_ms)?;
            let (gpu, slices) = (known.gpu, known.slices);
            look.any_out |= faults.iter().any(|fault| fault.health == GpuHealth::Failed);
            look.findings.extend(faults.iter().map(|fault| fault.finding(&gpu.uuid.0)));
            for mut one in std::iter::once(gpu).chain(slices) {
                for fault in &faults {
                    merge::at_least(&mut one, fault.health, &fault.reason);
                }
                look.gpus.push(one);
            }
        }
        Ok(look)
    }

    /// What is wrong with one GPU, the gravest first.
    fn faults_of(&mut self, nvml: &Nvml, index: u32, uuid: &GpuUuid, now_ms: u64) -> Result<Vec<Fault>, NvmlError> {
        let mut faults = Vec::new();
        let device = nvml.device_by_index(index);
        let answer = device.as_ref().map_err(clone_of).and_then(alive);
        if let Err(error) = &answer {
            if faults::is_of_driver(error) {
                return Err(clone_of(error));
            }
            faults.extend(faults::of_gpu(error));
        }
        let lost = faults.iter().any(|fault| fault.code == FindingCode::GpuLost);
        if lost && self.lost.insert(uuid.clone()) {
            let detail = "it has fallen off the bus or does not answer".to_owned();
            let (kind, at) = (GpuEventKind::Lost, clock::wall());
            self.events.push(GpuEvent { uuid: uuid.clone(), kind, code: None, detail, at, simulated: false });
        } else if !lost {
            self.lost.remove(uuid);
        }
        if let (Ok(device), Ok(())) = (&device, &answer) {
            faults.extend(self.own_verdict(device, uuid, now_ms));
        }
        if let Some(Mark { code, .. }) = self.marks.get(uuid)
            && let verdict = xid::judge(*code)
            && verdict.severity > Severity::Noted
        {
            let reason = format!("Xid {code}: {}", verdict.meaning);
            faults.push(Fault { code: FindingCode::GpuErrorEvent, health: verdict.severity.health(), reason });
        }
        faults.sort_by_key(|fault| std::cmp::Reverse(fault.health));
        Ok(faults)
    }

    /// What the driver itself wants done with a GPU. If that is nothing, an old mark goes.
    fn own_verdict(&mut self, device: &Device<'_>, uuid: &GpuUuid, now_ms: u64) -> Vec<Fault> {
        let mut faults = Vec::new();
        let fault = |code, health, reason: &str| Fault { code, health, reason: reason.to_owned() };
        match measure::recovery_action(device).and_then(Recovery::from_number) {
            None => {}
            Some(Recovery::None) => {
                let forgive_ms = self.options.forgive_ms;
                if self.marks.get(uuid).is_some_and(|mark| now_ms >= mark.at_ms.saturating_add(forgive_ms)) {
                    self.marks.remove(uuid);
                }
            }
            Some(Recovery::Needed(what)) => {
                faults.push(fault(FindingCode::GpuNeedsReset, GpuHealth::Failed, &format!("the driver says: {what}")));
            }
            Some(Recovery::Drain(what)) => {
                faults.push(fault(
                    FindingCode::GpuNeedsReset,
                    GpuHealth::Degraded,
                    &format!("the driver says: {what}"),
                ));
            }
        }
        if measure::remapped_rows(device).is_some_and(|rows| rows.failed) {
            let reason = "memory rows could not be remapped; run a field diagnostic, it may have to be replaced";
            faults.push(fault(FindingCode::GpuErrorEvent, GpuHealth::Degraded, reason));
        }
        faults
    }
}

/// Whether a GPU answers a question that reaches the hardware.
fn alive(device: &Device<'_>) -> Result<(), NvmlError> {
    match device.temperature(TemperatureSensor::Gpu) {
        Err(error) if faults::of_gpu(&error).is_some() || faults::is_of_driver(&error) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The wrapper's errors cannot be cloned; those that matter here carry nothing.
fn clone_of(error: &NvmlError) -> NvmlError {
    match error {
        NvmlError::GpuLost => NvmlError::GpuLost,
        NvmlError::ResetRequired => NvmlError::ResetRequired,
        NvmlError::NoPermission => NvmlError::NoPermission,
        NvmlError::OperatingSystem => NvmlError::OperatingSystem,
        NvmlError::InsufficientPower => NvmlError::InsufficientPower,
        NvmlError::IrqIssue => NvmlError::IrqIssue,
        NvmlError::DriverNotLoaded => NvmlError::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => NvmlError::LibRmVersionMismatch,
        NvmlError::Uninitialized => NvmlError::Uninitialized,
        _ => NvmlError::Unknown,
    }
}

/// Whether the bus has an NVIDIA GPU, driver or not.
fn has_hardware(options: &NvmlOptions) -> bool {
    let Ok(devices) = std::fs::read_dir(options.sysfs_root.join("bus/pci/devices")) else { return false };
    devices.filter_map(Result::ok).any(|device| {
        let is = |file: &str, prefix: &str| {
            std::fs::read_to_string(device.path().join(file)).is_ok_and(|text| text.starts_with(prefix))
        };
        is("vendor", PCI_VENDOR) && is("class", PCI_CLASS_DISPLAY)
    })
}

impl GpuDriver for NvmlGpus {
    fn kind(&self) -> GpuDriverKind {
        GpuDriverKind::Nvml
    }

    fn detect(&mut self, uptime_ms: u64) -> Seen {
        if self.session.is_none() && uptime_ms >= self.retry_at_ms {
            self.open(uptime_ms);
        }
        if self.session.is_none() {
            return self.out();
        }
        self.take_reports(uptime_ms);
        match self.rescan(uptime_ms).and_then(|()| self.look(uptime_ms)) {
            Ok(Look { gpus, findings, any_out }) => {
                let opened_at_ms = self.session.as_ref().map_or(uptime_ms, |session| session.opened_at_ms);
                if any_out && uptime_ms >= opened_at_ms.saturating_add(self.options.reopen_ms) {
                    self.close(uptime_ms);
                    self.retry_at_ms = uptime_ms;
                }
                self.last = Seen { gpus, findings };
                self.last.clone()
            }
            Err(error) => {
                self.outage = Some(faults::of_driver(&error));
                self.close(uptime_ms);
                self.retry_at_ms = uptime_ms.saturating_add(self.options.retry_ms);
                self.out()
            }
        }
    }

    fn measure(&mut self, sampling: &Sampling) -> Vec<GpuMetrics> {
        let Some(session) = &self.session else { return Vec::new() };
        let one = |(index, known): (&u32, &Known)| {
            let device = session.nvml.device_by_index(*index).ok()?;
            match measure::measure(&device, &known.gpu.uuid, &sampling.owner_of) {
                Ok(metrics) => Some(metrics),
                Err(error) => {
                    debug!(index, %error, "a GPU that cannot be measured");
                    None
                }
            }
        };
        self.known.iter().filter_map(one).collect()
    }

    fn events(&mut self) -> Vec<GpuEvent> {
        std::mem::take(&mut self.events)
    }
}
