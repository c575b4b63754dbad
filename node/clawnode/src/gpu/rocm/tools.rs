//! `amd-smi` and `rocm-smi`, asked on a thread of their own.
//!
//! They are slow (an interpreter, seconds with many GPUs) and may hang with the
//! driver; what sysfs tells never waits for them. The thread keeps what they
//! said last, and a finding about what they did not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use claw_proto::topology::{FindingCode, NodeFinding};
use serde_json::Value;
use tracing::{debug, warn};

use super::super::loose;
use super::super::program::{self, Limits, ProgramError, Runner};
use super::amd_smi::{self, Facts, Reading};
use super::rocm_smi;

/// Where ROCm's own packages put the tools.
const FOLDER_ROCM: &str = "/opt/rocm/bin";
/// Most output of a tool that is read, bytes.
const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How the tools are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOptions {
    /// The folder that has them; those of `PATH` and ROCm's own if absent.
    pub folder: Option<PathBuf>,
    /// Longest run of a tool, milliseconds.
    pub deadline_ms: u64,
    /// The first look at the GPUs waits so long for their names, milliseconds.
    pub first_wait_ms: u64,
    /// What the GPUs are is asked again after, milliseconds.
    pub facts_ms: u64,
    /// How they are is asked again after, milliseconds.
    pub readings_ms: u64,
}

impl Default for ToolOptions {
    fn default() -> Self {
        Self { folder: None, deadline_ms: 20_000, first_wait_ms: 3_000, facts_ms: 600_000, readings_ms: 60_000 }
    }
}

impl ToolOptions {
    fn find(&self, name: &str) -> Option<PathBuf> {
        if let Some(folder) = &self.folder {
            return program::find([folder.as_path()], name);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&path).chain([PathBuf::from(FOLDER_ROCM)]).collect();
        program::find(folders.iter().map(PathBuf::as_path), name)
    }
}

/// What the tools have said.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// What each GPU is.
    pub(super) facts: Vec<Facts>,
    /// How each is, by PCI address, and when that was.
    pub(super) readings: BTreeMap<String, Reading>,
    read_at: Option<Instant>,
    /// Version of ROCm.
    pub(super) rocm_version: Option<String>,
    /// What went wrong with a tool.
    pub(super) findings: Vec<NodeFinding>,
    /// They were asked at least once.
    asked: bool,
}

#[derive(Debug, Default)]
struct Shared {
    told: Mutex<Told>,
    changed: Condvar,
    stop: AtomicBool,
    again: AtomicBool,
}

/// The thread that asks.
#[derive(Debug)]
pub(super) struct Tools {
    options: ToolOptions,
    shared: Arc<Shared>,
    thread: Option<std::thread::Thread>,
}

impl Tools {
    /// Nothing is asked before [`Tools::start`].
    pub(super) fn new(options: ToolOptions) -> Self {
        Self { options, shared: Arc::default(), thread: None }
    }

    /// Begins to ask, or asks anew what the GPUs are. The first time it waits for
    /// an answer, a moment.
    pub(super) fn start(&mut self) {
        if let Some(thread) = &self.thread {
            self.shared.again.store(true, Ordering::Release);
            thread.unpark();
            return;
        }
        let (options, shared) = (self.options.clone(), Arc::clone(&self.shared));
        let asking = move || Asking::new(options).work(&shared);
        match std::thread::Builder::new().name("gpu-rocm-tools".to_owned()).spawn(asking) {
            Ok(handle) => self.thread = Some(handle.thread().clone()),
            Err(error) => {
                warn!(%error, "no thread for amd-smi and rocm-smi: only sysfs is read");
                return;
            }
        }
        let told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = Duration::from_millis(self.options.first_wait_ms);
        if let Err(error) = self.shared.changed.wait_timeout_while(told, wait, |told| !told.asked) {
            debug!(%error, "the thread that asks amd-smi panicked");
        }
    }

    /// What they have said up to now; readings only as long as they are fresh.
    pub(super) fn told(&self) -> Told {
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = Duration::from_millis(self.options.readings_ms.saturating_mul(3));
        if told.read_at.is_none_or(|at| at.elapsed() > fresh) {
            told.readings.clear();
        }
        told
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// Which tool, and what is wrong with it.
#[derive(Debug)]
struct Failed {
    tool: &'static str,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Program(ProgramError),
    Words(String),
}

impl Failed {
    fn finding(&self) -> NodeFinding {
        let (code, detail) = match &self.why {
            Why::Program(error @ (ProgramError::Hung { .. } | ProgramError::Undead)) => {
                (FindingCode::DriverHung, error.to_string())
            }
            Why::Program(error) => (FindingCode::DriverFailed, error.to_string()),
            Why::Words(words) => (FindingCode::DriverFailed, words.clone()),
        };
        let detail = format!("{detail}; what sysfs tells goes on");
        NodeFinding { code, subject: format!("rocm {}", self.tool), detail }
    }
}

/// The thread's own.
struct Asking {
    options: ToolOptions,
    runner: Runner,
    /// PCI address of each number of amd-smi, once that is known.
    addresses: BTreeMap<u64, String>,
    /// amd-smi, if it is there and says what can be understood.
    amd_smi: Option<PathBuf>,
}

impl Asking {
    fn new(options: ToolOptions) -> Self {
        Self { options, runner: Runner::default(), addresses: BTreeMap::new(), amd_smi: None }
    }

    fn work(mut self, shared: &Shared) {
        let mut facts_due = Instant::now();
        while !shared.stop.load(Ordering::Acquire) {
            let again = shared.again.swap(false, Ordering::AcqRel);
            if again || Instant::now() >= facts_due {
                let told = self.ask_facts();
                facts_due = Instant::now() + Duration::from_millis(self.options.facts_ms);
                let mut now = shared.told.lock().unwrap_or_else(PoisonError::into_inner);
                let (readings, read_at) = (std::mem::take(&mut now.readings), now.read_at);
                *now = Told { readings, read_at, ..told };
                shared.changed.notify_all();
            }
            if shared.stop.load(Ordering::Acquire) {
                break;
            }
            self.read(shared);
            std::thread::park_timeout(Duration::from_millis(self.options.readings_ms));
        }
    }

    /// What each GPU is, from the first tool that says it.
    fn ask_facts(&mut self) -> Told {
        let mut told = Told { asked: true, ..Told::default() };
        (self.amd_smi, self.addresses) = (None, BTreeMap::new());
        if let Some(amd_smi) = self.options.find("amd-smi") {
            match self.facts_of_amd_smi(&amd_smi) {
                Ok(facts) => {
                    let addressed = facts.iter().filter_map(|(n, facts)| Some((*n, facts.address.clone()?)));
                    self.addresses = addressed.collect();
                    told.facts = facts.into_values().collect();
                    let version = self.json("amd-smi", &amd_smi, &["version", "--json"]).ok();
                    told.rocm_version = version.as_ref().and_then(amd_smi::rocm_version);
                    self.amd_smi = Some(amd_smi);
                    return told;
                }
                Err(failed) => told.findings.push(failed.finding()),
            }
        }
        if let Some(rocm_smi) = self.options.find("rocm-smi") {
            let arguments = ["--showproductname", "--showuniqueid", "--showbus", "--json"];
            let facts = self.json("rocm-smi", &rocm_smi, &arguments);
            match facts.and_then(|output| known("rocm-smi", rocm_smi::facts(&output))) {
                Ok(facts) => told.facts = facts.into_values().collect(),
                Err(failed) => told.findings.push(failed.finding()),
            }
        }
        told
    }

    fn facts_of_amd_smi(&mut self, amd_smi: &Path) -> Result<BTreeMap<u64, Facts>, Failed> {
        let output = self.json("amd-smi", amd_smi, &["list", "--json"])?;
        let mut facts = known("amd-smi", amd_smi::list(&output))?;
        let output = self.json("amd-smi", amd_smi, &["static", "--asic", "--bus", "--json"])?;
        for (n, more) in known("amd-smi", amd_smi::facts(&output))? {
            let listed = facts.remove(&n).unwrap_or_default();
            facts.insert(n, listed.or(more));
        }
        Ok(facts)
    }

    /// How each GPU is. Only MI300 and newer have `--throttle`, and only from ROCm 6.3 on.
    fn read(&mut self, shared: &Shared) {
        let Some(amd_smi) = self.amd_smi.clone() else { return };
        let all = self.json("amd-smi", &amd_smi, &["metric", "--power", "--ecc", "--throttle", "--json"]);
        let output = match all {
            Err(Failed { why: Why::Words(_), .. }) => {
                self.json("amd-smi", &amd_smi, &["metric", "--power", "--ecc", "--json"])
            }
            all => all,
        };
        let readings = output.and_then(|output| known("amd-smi", amd_smi::readings(&output)));
        let mut told = shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        match readings {
            Ok(readings) => {
                let address = |n: &u64| self.addresses.get(n).cloned();
                told.readings = readings.into_iter().filter_map(|(n, one)| Some((address(&n)?, one))).collect();
                (told.read_at, told.findings) = (Some(Instant::now()), Vec::new());
            }
            Err(failed) => told.findings = vec![failed.finding()],
        }
    }

    fn json(&mut self, tool: &'static str, program: &Path, arguments: &[&str]) -> Result<Value, Failed> {
        let limits = Limits { deadline_ms: self.options.deadline_ms, bytes_max: OUTPUT_BYTES_MAX };
        let said =
            self.runner.run(program, arguments, limits).map_err(|error| Failed { tool, why: Why::Program(error) })?;
        loose::first(&said.output).ok_or_else(|| {
            let words = if said.complaint.is_empty() { program::one_line(&said.output) } else { said.complaint };
            let code = said.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
            let words = format!("{} printed no JSON (exit {code}): {words}", arguments.join(" "));
            Failed { tool, why: Why::Words(words) }
        })
    }
}

/// What was understood of an output.
fn known<T>(tool: &'static str, understood: Option<T>) -> Result<T, Failed> {
    understood.ok_or_else(|| Failed { tool, why: Why::Words("its output has an unknown form".to_owned()) })
}
