//! # claw-compute: GPU kernels in a process of their own
//!
//! A broken GPU driver panics, aborts or hangs whoever calls it. So it is called by
//! the program `claw-gpu-probe` alone: it lists what the Vulkan loader sees, runs
//! kernels (CubeCL) on a device and compares them with the CPU, and answers with one
//! JSON document. A fault kills the probe, never the agent that asked it.
//!
//! Without features this crate is the [`report`] alone: what the agent reads, without
//! a GPU library in it. The feature `vulkan` adds the program with everything that it
//! links; `cuda` and `hip` add those runtimes to it.
//!
//! Vulkan is tested on lavapipe (the CPU as a Vulkan device); `cuda` and `hip` only
//! compile: all three are untested on hardware.

pub mod report;

#[cfg(feature = "vulkan")]
pub mod check;
#[cfg(feature = "vulkan")]
pub mod cli;
#[cfg(feature = "vulkan")]
pub mod device;
#[cfg(feature = "vulkan")]
mod kernels;
#[cfg(feature = "vulkan")]
mod libraries;
#[cfg(feature = "vulkan")]
pub mod tensor;
#[cfg(feature = "vulkan")]
pub mod vulkan;
