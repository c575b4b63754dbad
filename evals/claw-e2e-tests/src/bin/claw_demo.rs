//! `./dev demo`: the main job of the system, shown step by step on real processes.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    claw_e2e_tests::demo::run().await
}
