//! `claw-gpu-probe`: one question about GPUs, one JSON document, and gone.

mod deadline;

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use claw_compute::cli::{self, Cli};
use claw_compute::report::{Document, ErrorCode};
use rustix::process::{Resource, Rlimit};

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let failed = ExitCode::from(ErrorCode::RuntimeFailed.exit_code());
    let Ok(output) = take_over_output() else { return failed };
    // A driver that crashes must not fill the disk with what its GPU mapped.
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, no_core);
    if deadline::start(command.timeout(), &output).is_err() {
        return failed;
    }
    let document = command.run();
    deadline::end();
    match write(output, &document) {
        Ok(()) => cli::exit_code(&document),
        Err(_) => failed,
    }
}

/// Keeps standard output for the document: what drivers print goes to standard error.
fn take_over_output() -> io::Result<File> {
    let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok(output.into())
}

fn write(mut output: File, document: &Document) -> io::Result<()> {
    let mut text = serde_json::to_vec(document)?;
    text.push(b'\n');
    output.write_all(&text)
}
