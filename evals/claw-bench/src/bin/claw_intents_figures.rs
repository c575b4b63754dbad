//! `claw-intents-figures CASES [ROUNDS]`: speed and memory of the intent engine, one line of JSON.
//! Nothing else runs in this process, and the system's allocator keeps what it is given.

use std::io::Write as _;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().context("usage: claw-intents-figures CASES [ROUNDS]")?;
    let rounds = args.next().map_or(Ok(20), |text| text.parse()).context("ROUNDS is a number")?;
    let cases = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let figure = claw_bench::intents::figure(&cases, rounds)?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&figure)?)?;
    Ok(())
}
