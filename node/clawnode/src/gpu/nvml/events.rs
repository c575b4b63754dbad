//! Events of the driver, waited for on a thread of their own: the wait cannot
//! hold up a detection or a measurement, nor they the wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use claw_proto::ids::GpuUuid;
use claw_proto::limits::GPU_EVENTS_PER_MESSAGE_MAX;
use claw_proto::message::GpuEventKind;
use claw_proto::time::Timestamp;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::event::EventData;
use nvml_wrapper::{Device, EventSet, Nvml};
use tracing::{debug, warn};

use crate::clock;

/// One wait, milliseconds; so long the end of the thread may take.
const WAIT_MS: u32 = 250;
/// After a failed wait, milliseconds: it may fail at once, for ever.
const PAUSE_MS: u64 = 1_000;
/// Code of an Xid that the driver does not name.
const XID_UNNAMED: u32 = 999;

/// Something that the driver reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) uuid: GpuUuid,
    pub(super) kind: GpuEventKind,
    pub(super) code: Option<u32>,
    pub(super) at: Timestamp,
}

/// The thread that waits.
#[derive(Debug)]
pub(super) struct Watch {
    reported: Receiver<Reported>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to wait for events of these GPUs.
    pub(super) fn start(nvml: Arc<Nvml>, gpus: Vec<(u32, GpuUuid)>) -> Self {
        let (reporting, reported) = sync_channel(GPU_EVENTS_PER_MESSAGE_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || watch(&nvml, &gpus, &reporting, &stopped);
        let thread = std::thread::Builder::new().name("gpu-nvml-events".to_owned()).spawn(work);
        if let Err(error) = &thread {
            warn!(%error, "no thread for GPU events: Xids are not seen");
        }
        Self { reported, stop, thread: thread.ok() }
    }

    /// What was reported since the last call.
    pub(super) fn take(&self) -> Vec<Reported> {
        self.reported.try_iter().collect()
    }

    pub(super) fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

fn watch(nvml: &Nvml, gpus: &[(u32, GpuUuid)], reporting: &SyncSender<Reported>, stop: &AtomicBool) {
    let devices: Vec<(Device<'_>, GpuUuid)> =
        gpus.iter().filter_map(|(index, uuid)| Some((nvml.device_by_index(*index).ok()?, uuid.clone()))).collect();
    let Some(set) = register(nvml, &devices) else { return };
    while !stop.load(Ordering::Acquire) {
        match set.wait(WAIT_MS) {
            Ok(event) => report(&event, &devices, reporting),
            Err(NvmlError::Timeout) => {}
            Err(error) => {
                debug!(%error, "waiting for GPU events failed");
                std::thread::park_timeout(Duration::from_millis(PAUSE_MS));
            }
        }
    }
}

/// A set with the events of every GPU that has any. A failed registration
/// consumes the set, so it is made anew without that GPU.
fn register<'nvml>(nvml: &'nvml Nvml, devices: &[(Device<'nvml>, GpuUuid)]) -> Option<EventSet<'nvml>> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR | EventTypes::SINGLE_BIT_ECC_ERROR;
    let mut candidates: Vec<Candidate<'nvml, '_>> = devices
        .iter()
        .filter_map(|(device, uuid)| Some((device, uuid, device.supported_event_types().ok()? & wanted)))
        .filter(|(_, _, types)| !types.is_empty())
        .collect();
    while !candidates.is_empty() {
        match register_all(nvml, &candidates) {
            Ok(set) => return Some(set),
            Err(Refused::Set(error)) => {
                debug!(%error, "the driver has no events");
                return None;
            }
            Err(Refused::Gpu(n, error)) => {
                warn!(uuid = %candidates[n].1, %error, "events of this GPU cannot be had");
                candidates.remove(n);
            }
        }
    }
    None
}

/// What cannot be had events of.
enum Refused {
    Set(NvmlError),
    Gpu(usize, NvmlError),
}

type Candidate<'nvml, 'a> = (&'a Device<'nvml>, &'a GpuUuid, EventTypes);

fn register_all<'nvml>(nvml: &'nvml Nvml, candidates: &[Candidate<'nvml, '_>]) -> Result<EventSet<'nvml>, Refused> {
    let set = nvml.create_event_set().map_err(Refused::Set)?;
    candidates.iter().enumerate().try_fold(set, |set, (n, (device, _, types))| {
        device.register_events(*types, set).map_err(|error| Refused::Gpu(n, error.error))
    })
}

fn report(event: &EventData<'_>, devices: &[(Device<'_>, GpuUuid)], reporting: &SyncSender<Reported>) {
    let Some(uuid) = who(&event.device, devices) else {
        warn!(?event, "an event of an unknown GPU");
        return;
    };
    let types = event.event_type;
    let (kind, code) = if types.contains(EventTypes::CRITICAL_XID_ERROR) {
        let code = match event.event_data {
            Some(XidError::Value(code)) => u32::try_from(code).unwrap_or(XID_UNNAMED),
            Some(XidError::Unknown) | None => XID_UNNAMED,
        };
        (GpuEventKind::Xid, Some(code))
    } else if types.contains(EventTypes::DOUBLE_BIT_ECC_ERROR) {
        (GpuEventKind::EccDoubleBit, None)
    } else if types.contains(EventTypes::SINGLE_BIT_ECC_ERROR) {
        (GpuEventKind::EccSingleBit, None)
    } else {
        return;
    };
    match reporting.try_send(Reported { uuid, kind, code, at: clock::wall() }) {
        Ok(()) => {}
        Err(TrySendError::Full(event)) => warn!(?event, "too many GPU events; this one is dropped"),
        Err(TrySendError::Disconnected(event)) => debug!(?event, "nobody wants GPU events any more"),
    }
}

/// Which GPU an event is about. By handle: a GPU that is lost may not tell its UUID any more.
fn who(device: &Device<'_>, devices: &[(Device<'_>, GpuUuid)]) -> Option<GpuUuid> {
    let same = |other: &Device<'_>| {
        #[expect(unsafe_code, reason = "the wrapper has no other way to compare two handles")]
        // SAFETY: the handles are compared as addresses only, never followed nor kept.
        unsafe {
            device.handle() == other.handle()
        }
    };
    let known = devices.iter().find(|(other, _)| same(other)).map(|(_, uuid)| uuid.clone());
    known.or_else(|| device.uuid().ok().map(GpuUuid))
}
