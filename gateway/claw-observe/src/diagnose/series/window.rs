//! What is kept of the samples of one GPU: the newest as they came, older ones thinned, in a stated number of bytes.

use std::collections::VecDeque;

use claw_proto::message::{GpuMetrics, ThrottleReason};
use claw_proto::time::Timestamp;

use super::{Sample, bits};

/// Newest samples, kept as they came: half an hour at one in ten seconds.
pub const FRESH: usize = 180;
/// Older samples that are kept, one for each [`THINNED_MS`]: four hours.
pub const THINNED: usize = 120;
/// Milliseconds that one old sample stands for.
pub const THINNED_MS: i64 = 120_000;
/// Bytes that the window of one GPU takes at most.
pub const WINDOW_BYTES: usize = (FRESH + THINNED) * size_of::<Kept>() + size_of::<Window>();
/// Samples for which room is made at a time.
const ROOM: usize = 20;
/// A clock that was set back by more than this begins a window anew.
const SET_BACK_MS: i64 = 60_000;

const _: () = assert!(size_of::<Kept>() == 48);
const _: () = assert!(FRESH.is_multiple_of(ROOM) && THINNED.is_multiple_of(ROOM));

/// One sample; a number that was not told has no bit in `told`.
#[derive(Clone, Copy, Debug)]
struct Kept {
    at_ms: i64,
    ecc_corrected: u64,
    nvlink_errors: u64,
    utilization_percent: f32,
    power_watts: f32,
    memory_used_mib: u32,
    own_memory_mib: u32,
    clock_mhz: u16,
    temperature_celsius: i16,
    reasons: u8,
    pcie_generation: u8,
    pcie_width: u8,
    told: u8,
}

/// Bits of `told`.
mod told {
    pub(super) const ECC: u8 = 1;
    pub(super) const NVLINK: u8 = 2;
    pub(super) const OWN: u8 = 4;
    pub(super) const REMAP_PENDING: u8 = 8;
    pub(super) const POWER: u8 = 16;
    pub(super) const TEMPERATURE: u8 = 32;
}

/// The window of one GPU.
///
/// The newest [`FRESH`] samples are kept as they came. What grows older is thinned to one for each
/// [`THINNED_MS`], of which [`THINNED`] are kept; the oldest go. It takes [`WINDOW_BYTES`] at most.
/// An old sample says the mildest of those that it stands for, so that what held only now and then
/// is not taken for what held all the time.
#[derive(Clone, Debug, Default)]
pub struct Window {
    fresh: VecDeque<Kept>,
    thinned: VecDeque<Kept>,
    memory_total_mib: u64,
    simulated: bool,
}

impl Window {
    /// Adds a sample. One that is not newer than the last is left out; a clock that was set back begins anew.
    pub fn push(&mut self, at: Timestamp, gpu: &GpuMetrics) {
        let kept = Kept::of(at, gpu);
        if let Some(last) = self.fresh.back() {
            if kept.at_ms <= last.at_ms - SET_BACK_MS {
                self.fresh.clear();
                self.thinned.clear();
            } else if kept.at_ms <= last.at_ms {
                return;
            }
        }
        self.memory_total_mib = gpu.memory_total_mib;
        self.simulated = gpu.simulated;
        if self.fresh.len() == FRESH
            && let Some(old) = self.fresh.pop_front()
        {
            let span = |kept: &Kept| kept.at_ms.div_euclid(THINNED_MS);
            match self.thinned.back_mut().filter(|last| span(last) == span(&old)) {
                Some(last) => *last = last.and(&old),
                None => append(&mut self.thinned, old, THINNED),
            }
        }
        append(&mut self.fresh, kept, FRESH);
    }

    /// Memory of the GPU, MiB, as the last sample told it.
    pub fn memory_total_mib(&self) -> u64 {
        self.memory_total_mib
    }

    /// Did a simulated driver tell the last sample?
    pub fn simulated(&self) -> bool {
        self.simulated
    }

    /// Samples from `since` on, oldest first, and of them what came after the last silence of more than `gap_ms`:
    /// what was not measured in between is not known.
    pub fn samples(&self, since: Timestamp, gap_ms: i64) -> Vec<Sample> {
        let newest_first = self.fresh.iter().rev().chain(self.thinned.iter().rev());
        let mut next = None;
        let unbroken = newest_first.take_while(|kept| {
            let after = next.replace(kept.at_ms);
            kept.at_ms >= since.unix_ms() && after.is_none_or(|after: i64| after - kept.at_ms <= gap_ms)
        });
        let mut samples: Vec<Sample> = unbroken.map(Kept::sample).collect();
        samples.reverse();
        samples
    }

    /// When the last sample was taken.
    pub fn last(&self) -> Option<Timestamp> {
        self.fresh.back().map(|kept| Timestamp::from_unix_ms(kept.at_ms))
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        (self.fresh.capacity() + self.thinned.capacity()) * size_of::<Kept>() + size_of::<Self>()
    }
}

/// Appends; the oldest goes where there is no room. Room is made piece by piece, so that nothing is held in reserve.
fn append(samples: &mut VecDeque<Kept>, kept: Kept, most: usize) {
    if samples.len() >= most {
        samples.pop_front();
    } else if samples.len() == samples.capacity() {
        samples.reserve_exact(ROOM);
    }
    samples.push_back(kept);
}

impl Kept {
    fn of(at: Timestamp, gpu: &GpuMetrics) -> Self {
        let mut kept = Self {
            at_ms: at.unix_ms(),
            ecc_corrected: 0,
            nvlink_errors: 0,
            utilization_percent: gpu.utilization_percent,
            power_watts: gpu.power_watts,
            memory_used_mib: narrow(gpu.memory_used_mib),
            own_memory_mib: 0,
            clock_mhz: 0,
            #[expect(clippy::cast_possible_truncation, reason = "degrees; a cast of a float is cut to what fits")]
            temperature_celsius: gpu.temperature_celsius as i16,
            reasons: 0,
            pcie_generation: 0,
            pcie_width: 0,
            told: 0,
        };
        // A driver that does not tell them sends zeros.
        kept.tell(told::POWER, gpu.power_watts > 0.0);
        kept.tell(told::TEMPERATURE, gpu.temperature_celsius > 0.0);
        let Some(details) = gpu.details.as_deref() else { return kept };
        kept.tell(told::ECC, details.ecc_corrected_total.is_some());
        kept.ecc_corrected = details.ecc_corrected_total.unwrap_or(0);
        kept.tell(told::NVLINK, details.nvlink_errors_total.is_some());
        kept.nvlink_errors = details.nvlink_errors_total.unwrap_or(0);
        kept.tell(told::REMAP_PENDING, details.remapped_rows.is_some_and(|rows| rows.pending));
        kept.tell(told::OWN, !details.processes.is_empty());
        let own = details.processes.iter().filter(|process| process.workload_id.is_some());
        kept.own_memory_mib = narrow(own.map(|process| process.memory_used_mib).fold(0, u64::saturating_add));
        kept.clock_mhz = details.sm_clock_mhz.and_then(|mhz| u16::try_from(mhz).ok()).unwrap_or(0);
        kept.pcie_generation = details.pcie_generation.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
        kept.pcie_width = details.pcie_width.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
        kept.reasons = details.throttle_reasons.iter().fold(0, |all, reason| all | bit(*reason));
        kept
    }

    /// One sample for this and a later one: counters and memory as they stand now, of everything else the mildest.
    fn and(&self, later: &Self) -> Self {
        Self {
            utilization_percent: self.utilization_percent.max(later.utilization_percent),
            power_watts: self.power_watts.max(later.power_watts),
            clock_mhz: self.clock_mhz.max(later.clock_mhz),
            temperature_celsius: self.temperature_celsius.min(later.temperature_celsius),
            reasons: self.reasons & later.reasons,
            pcie_generation: self.pcie_generation.max(later.pcie_generation),
            pcie_width: self.pcie_width.max(later.pcie_width),
            ..*later
        }
    }

    fn tell(&mut self, bit: u8, is_told: bool) {
        self.told |= if is_told { bit } else { 0 };
    }

    fn sample(&self) -> Sample {
        let is_told = |bit: u8| self.told & bit != 0;
        let some = |n: u32| (n != 0).then_some(n);
        Sample {
            at_s: self.at_ms as f64 / 1e3,
            utilization_percent: f64::from(self.utilization_percent),
            memory_used_mib: f64::from(self.memory_used_mib),
            own_memory_mib: is_told(told::OWN).then_some(f64::from(self.own_memory_mib)),
            power_watts: is_told(told::POWER).then_some(f64::from(self.power_watts)),
            temperature_celsius: is_told(told::TEMPERATURE).then_some(f64::from(self.temperature_celsius)),
            clock_mhz: some(self.clock_mhz.into()).map(f64::from),
            reasons: self.reasons.into(),
            pcie_generation: some(self.pcie_generation.into()),
            pcie_width: some(self.pcie_width.into()),
            nvlink_errors: is_told(told::NVLINK).then_some(self.nvlink_errors),
            port_downs: None,
            ecc_corrected: is_told(told::ECC).then_some(self.ecc_corrected),
            remap_pending: is_told(told::REMAP_PENDING),
            steps: None,
            step_own_s: None,
            step_data_s: None,
        }
    }
}

/// NVML's bit of a reason; what is no fault and no cap has none here.
fn bit(reason: ThrottleReason) -> u8 {
    let bit = match reason {
        ThrottleReason::SwPowerCap => bits::POWER_CAP,
        ThrottleReason::HwSlowdown => bits::SLOWDOWN,
        ThrottleReason::SwThermal => bits::SW_THERMAL,
        ThrottleReason::HwThermal => bits::HW_THERMAL,
        ThrottleReason::HwPowerBrake => bits::BRAKE,
        ThrottleReason::GpuIdle
        | ThrottleReason::ApplicationsClocks
        | ThrottleReason::SyncBoost
        | ThrottleReason::DisplayClocks => 0,
    };
    u8::try_from(bit).unwrap_or(0)
}

fn narrow(mib: u64) -> u32 {
    u32::try_from(mib).unwrap_or(u32::MAX)
}
