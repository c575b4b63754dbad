//! The program `claw-gateway`.

use std::process::ExitCode;

// Deciding and answering make and drop many small values, on many threads. It is linked as `malloc`.
use mimalloc as _;

#[tokio::main]
async fn main() -> ExitCode {
    // One crypto provider for the whole process; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Box::pin(claw_gateway_server::cli::main(std::env::args_os())).await
}
