//! Slow work beside the machine: each job takes its object and brings it back.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant as Clock};

use claw_proto::message::{GpuEvent, GpuMetrics, LogKey, SystemMetrics};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::error;

use super::Agent;
use crate::clock;
use crate::gpu::{Fleet, GpuDetector, Sampling};
use crate::kernel_log::KernelLog;
use crate::logs::LogPump;
use crate::logs::pump::Polled;
use crate::node::{DurableChange, Input};
use crate::runtime::Key;
use crate::runtime::checkpoints::Found;
use crate::sampler::Sampler;
use crate::store::Store;

/// What the log pump is told before its next poll.
#[derive(Debug)]
pub(super) enum PumpCommand {
    Watch {
        key: Key,
        folder: PathBuf,
    },
    Over {
        key: Key,
    },
    /// Say when everything that an attempt wrote is sent.
    Drain {
        key: Key,
    },
    Forget {
        key: Key,
    },
    Resume {
        acks: BTreeMap<LogKey, u64>,
    },
    Acked {
        acks: BTreeMap<LogKey, u64>,
    },
    Pause,
    SetBytesMax {
        bytes_max: u64,
    },
}

fn obey(pump: &mut LogPump, command: PumpCommand) {
    match command {
        PumpCommand::Watch { key, folder } => pump.watch(key.0, key.1, &folder),
        PumpCommand::Over { key } => pump.over(key.0, key.1),
        PumpCommand::Drain { key } => pump.drain(key.0, key.1),
        PumpCommand::Forget { key } => pump.forget(key.0, key.1),
        PumpCommand::Resume { acks } => pump.resume(&acks),
        PumpCommand::Acked { acks } => pump.acked(&acks),
        PumpCommand::Pause => pump.pause(),
        PumpCommand::SetBytesMax { bytes_max } => pump.set_bytes_max(bytes_max),
    }
}

/// What measures the host and its GPUs.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) detector: GpuDetector,
    pub(super) sampler: Sampler,
    pub(super) started: Clock,
}

impl Probe {
    pub(super) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A job that is done.
pub(super) enum Job {
    Stored { store: Store, batch: Vec<(u64, DurableChange)>, result: io::Result<()> },
    Polled { pump: LogPump, polled: Polled, session: u64 },
    Seen { probe: Probe, fleet: Fleet, events: Vec<GpuEvent> },
    Listened { log: KernelLog },
    Measured { probe: Probe, gpus: Vec<GpuMetrics>, system: SystemMetrics },
    Looked { found: Vec<(Key, Found)> },
}

impl Agent {
    /// Writes everything that waits, as one batch.
    pub(super) fn start_write(&mut self) {
        let wait = self.store_retry_at.is_some_and(|at| at > Instant::now());
        if wait || self.unwritten.is_empty() {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        self.store_retry_at = None;
        let batch: Vec<(u64, DurableChange)> = self.unwritten.drain(..).collect();
        self.jobs.spawn_blocking(move || {
            let changes: Vec<DurableChange> = batch.iter().map(|(_, change)| change.clone()).collect();
            let result = store.append(&changes);
            Job::Stored { store, batch, result }
        });
    }

    pub(super) fn start_pump(&mut self) {
        let Some(mut pump) = self.pump.take() else { return };
        let commands = std::mem::take(&mut self.pump_commands);
        let session = self.session;
        self.jobs.spawn_blocking(move || {
            for command in commands {
                obey(&mut pump, command);
            }
            let polled = pump.poll();
            Job::Polled { pump, polled, session }
        });
    }

    pub(super) fn start_health(&mut self) {
        let Some(mut probe) = self.probe.take() else { return };
        self.jobs.spawn_blocking(move || {
            let fleet = probe.detector.detect(probe.uptime_ms());
            let events = probe.detector.events();
            Job::Seen { probe, fleet, events }
        });
    }

    pub(super) fn start_metrics(&mut self) {
        let Some(mut probe) = self.probe.take() else { return };
        let (held, owner_of) = self.gpu_holders();
        self.metrics_at = Instant::now() + Duration::from_millis(self.node.settings().metrics_interval_ms);
        self.jobs.spawn_blocking(move || {
            let gpus = probe.detector.measure(&Sampling { owner_of, ..Sampling::new(probe.uptime_ms(), held) });
            let system = probe.sampler.measure();
            Job::Measured { probe, gpus, system }
        });
    }

    pub(super) fn job_done(&mut self, job: Result<Job, JoinError>) {
        let now = clock::now();
        match job {
            Ok(Job::Stored { store, batch, result }) => {
                self.store = Some(store);
                match result {
                    Ok(()) => {
                        let through = batch.last().map_or(0, |(write, _)| *write);
                        self.feed(Input::Persisted { now, through });
                    }
                    Err(error) => {
                        for entry in batch.into_iter().rev() {
                            self.unwritten.push_front(entry);
                        }
                        self.storage_failed(&error);
                    }
                }
            }
            Ok(Job::Polled { pump, polled, session }) => {
                self.pump = Some(pump);
                let again = !polled.chunks.is_empty();
                // Read for an older connection: the new one reads it again from its acknowledgements.
                if session == self.session && again {
                    self.feed(Input::Logs { now, chunks: polled.chunks });
                }
                for key in polled.drained {
                    self.drained(key);
                }
                for key in polled.finished {
                    self.remove(key);
                }
                if again || !self.pump_commands.is_empty() {
                    self.start_pump();
                }
            }
            Ok(Job::Seen { probe, fleet, events }) => {
                self.probe = Some(probe);
                self.set_gpus(fleet);
                self.add_gpu_events(events);
            }
            Ok(Job::Listened { log }) => self.listened(log),
            Ok(Job::Measured { probe, gpus, system }) => {
                self.probe = Some(probe);
                let workloads = self.runtimes.values_mut().flat_map(|runtime| runtime.measure()).collect();
                self.feed(Input::Sample { now, gpus, system, workloads });
            }
            Ok(Job::Looked { found }) => self.looked(found),
            Err(error) => error!(%error, "a background job failed; restart the agent"),
        }
    }
}
