//! The process that NVIDIA's library is loaded into: `clawnode gpu-driver`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, Read as _, Write};
use std::os::fd::AsFd as _;

use rustix::process::{Pid, Resource, Rlimit};

use super::super::{GpuDriver as _, Sampling, Seen};
use super::NvmlGpus;
use super::isolated::{LINE_BYTES_MAX, Reply, Request};
use crate::platform;

/// Answers on standard output what is asked on standard input, until that ends. The
/// process dies with the thread of `parent` that started it, also while a call hangs.
///
/// # Errors
/// What the system says; a line that is no request.
pub fn run(parent: i32) -> io::Result<()> {
    platform::die_with_parent()?;
    // It may have died before that was asked for.
    if rustix::process::getppid() != Pid::from_raw(parent) {
        return Err(io::Error::other(format!("process {parent} is not what started this")));
    }
    // A library that crashes again and again must not fill the disk.
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, no_core)?;
    let answers = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // A library that prints must not write between the lines.
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    serve(io::stdin().lock(), answers)
}

fn serve(mut asks: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    let mut driver: Option<NvmlGpus> = None;
    let mut told = None;
    while let Some(request) = receive(&mut asks)? {
        let reply = match (request, &mut driver) {
            (Request::Begin { options, memory }, driver) => {
                told = Some(memory.clone());
                *driver = Some(NvmlGpus::with_memory(options, memory));
                continue;
            }
            (Request::Detect { uptime_ms }, Some(driver)) => {
                let Seen { gpus, findings } = driver.detect(uptime_ms);
                let memory = Some(driver.memory()).filter(|memory| told.as_ref() != Some(memory));
                if memory.is_some() {
                    told.clone_from(&memory);
                }
                Reply::Seen { gpus, findings, events: driver.events(), memory, absent: driver.is_absent() }
            }
            (Request::Measure, Some(driver)) => {
                Reply::Measured { gpus: driver.measure(&Sampling::new(0, BTreeSet::new())) }
            }
            (Request::Detect { .. } | Request::Measure, None) => return Err(io::Error::other("nothing has begun")),
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        answers.write_all(&line)?;
    }
    // Closing the library may hang; the kernel closes what is open.
    std::mem::forget(driver);
    Ok(())
}

/// The next request; nothing at the end.
fn receive(asks: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = Vec::new();
    asks.take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let told = |error| io::Error::other(format!("a line that is no request of an agent: {error}"));
    serde_json::from_slice(&line).map(Some).map_err(told)
}
