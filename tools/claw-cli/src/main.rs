//! The program `claw`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use claw_cli::exit::Exit;
use tracing_subscriber::EnvFilter;

// The gateway's own (ADR 0008): `claw bench sched --core` measures what its core costs. It is linked as `malloc`.
use mimalloc as _;

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // What the transport meets comes back as an error and is told in words.
    let filter =
        EnvFilter::try_from_env("CLAW_LOG").unwrap_or_else(|_| EnvFilter::new("warn,rmcp=off,async_openai=off"));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|text| !text.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && !no_color)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(claw_cli::run(std::env::args_os()));
            // A read of standard input that nobody waits for must not hold the program.
            runtime.shutdown_background();
            exit.into()
        }
        Err(error) => {
            tracing::error!(%error, "the asynchronous runtime cannot be started");
            Exit::Fault.into()
        }
    }
}
