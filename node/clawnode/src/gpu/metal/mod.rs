//! Apple's GPUs, through what macOS tells without root.
//!
//! `system_profiler` says which GPUs there are, `sysctl` how much memory the
//! machine has, `ioreg` which machine it is and how busy its GPU is. The memory
//! of Apple's own GPUs is the host's: what is reported as a GPU's memory is
//! shared with everything else that runs, and macOS gives a GPU about three
//! quarters of it at most. Temperature, power and clocks are not told without
//! root. The driver compiles for macOS alone, the parser everywhere. Nothing of
//! it has run on a Mac: untested on hardware.

#[cfg(target_os = "macos")]
mod driver;
pub mod profile;

#[cfg(target_os = "macos")]
pub use driver::MetalGpus;
