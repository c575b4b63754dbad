//! Events of the driver, waited for on a thread of their own: the wait cannot
//! hold up a detection or a measurement, nor they the wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
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

use super::super::xid::{self, Severity};
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

/// Xids that mark a GPU and found the queue full, the latest of each code. So many GPUs and codes
/// there are, so many at most.
type Marks = Arc<Mutex<BTreeMap<(GpuUuid, u32), Reported>>>;

/// Where events are told. A storm of small ones fills the queue; what marks a GPU is kept beside it.
#[derive(Debug)]
struct Reporting {
    queue: SyncSender<Reported>,
    marks: Marks,
}

/// Where they are taken.
#[derive(Debug)]
struct Inbox {
    queue: Receiver<Reported>,
    marks: Marks,
}

fn queue() -> (Reporting, Inbox) {
    let (sender, receiver) = sync_channel(GPU_EVENTS_PER_MESSAGE_MAX);
    let marks = Marks::default();
    (Reporting { queue: sender, marks: Arc::clone(&marks) }, Inbox { queue: receiver, marks })
}

impl Reporting {
    fn tell(&self, event: Reported) {
        match self.queue.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(event)) => self.crowded_out(event),
            Err(TrySendError::Disconnected(event)) => debug!(?event, "nobody wants GPU events any more"),
        }
    }

    fn crowded_out(&self, event: Reported) {
        let is_mark = |code: &u32| event.kind == GpuEventKind::Xid && marks_a_gpu(*code);
        if let Some(code) = event.code.filter(is_mark) {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            marks.insert((event.uuid.clone(), code), event);
        } else {
            warn!(?event, "too many GPU events; this one is dropped");
        }
    }
}

fn marks_a_gpu(code: u32) -> bool {
    xid::judge(code).severity > Severity::Noted
}

impl Inbox {
    fn take(&self) -> Vec<Reported> {
        let mut all: Vec<Reported> = self.queue.try_iter().collect();
        // They came while the queue was full: after what is in it.
        let marks = std::mem::take(&mut *self.marks.lock().unwrap_or_else(PoisonError::into_inner));
        all.extend(marks.into_values());
        all
    }
}

/// The thread that waits.
#[derive(Debug)]
pub(super) struct Watch {
    inbox: Inbox,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to wait for events of these GPUs.
    pub(super) fn start(nvml: Arc<Nvml>, gpus: Vec<(u32, GpuUuid)>) -> Self {
        let (reporting, inbox) = queue();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || watch(&nvml, &gpus, &reporting, &stopped);
        let thread = std::thread::Builder::new().name("gpu-nvml-events".to_owned()).spawn(work);
        if let Err(error) = &thread {
            warn!(%error, "no thread for GPU events: Xids are not seen");
        }
        Self { inbox, stop, thread: thread.ok() }
    }

    /// What was reported since the last call.
    pub(super) fn take(&self) -> Vec<Reported> {
        self.inbox.take()
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

fn watch(nvml: &Nvml, gpus: &[(u32, GpuUuid)], reporting: &Reporting, stop: &AtomicBool) {
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

fn report(event: &EventData<'_>, devices: &[(Device<'_>, GpuUuid)], reporting: &Reporting) {
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
    reporting.tell(Reported { uuid, kind, code, at: clock::wall() });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_small_events_hides_no_xid_that_marks_a_gpu() {
        let (reporting, inbox) = queue();
        let event = |gpu: &str, kind, code| Reported { uuid: GpuUuid(gpu.into()), kind, code, at: clock::wall() };
        for _ in 0..2 * GPU_EVENTS_PER_MESSAGE_MAX {
            reporting.tell(event("GPU-a", GpuEventKind::EccSingleBit, None));
        }
        for (gpu, code) in [("GPU-a", 95), ("GPU-a", 31), ("GPU-b", 74), ("GPU-a", 95)] {
            reporting.tell(event(gpu, GpuEventKind::Xid, Some(code)));
        }
        let all = inbox.take();
        assert_eq!(all.len(), GPU_EVENTS_PER_MESSAGE_MAX + 2, "both are bounded");
        let rest = all[GPU_EVENTS_PER_MESSAGE_MAX..].iter().map(|one| (one.uuid.0.as_str(), one.code));
        assert_eq!(rest.collect::<Vec<_>>(), [("GPU-a", Some(95)), ("GPU-b", Some(74))]);
        assert_eq!(inbox.take(), [], "each is taken once");
        reporting.tell(event("GPU-a", GpuEventKind::Xid, Some(31)));
        assert_eq!(inbox.take()[0].code, Some(31), "the queue takes all again");
    }
}
