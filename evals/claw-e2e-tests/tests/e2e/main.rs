//! End-to-end tests: a real gateway, real nodes, wires that are really cut, and
//! clients that others wrote. Every test is bounded in time and waits for
//! conditions, never for time to pass.

mod chaos;
mod constraints;
mod containers;
mod contentions;
mod crash_points;
mod disk_full;
mod happy;
mod packaging;
mod partition;
mod peers;
mod rotation;
mod scheduling;
mod security;
mod support;
