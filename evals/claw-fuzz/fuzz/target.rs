//! One target of claw-fuzz under libFuzzer; which one says the name of the program.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| claw_fuzz::run(env!("CARGO_BIN_NAME"), data));
