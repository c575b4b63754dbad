//! Log lines on their way to the gateway: on disk until acknowledged.
//!
//! The runtime side writes numbered lines into segment files ([`segment`]);
//! the agent reads them from wherever the gateway's acknowledgements stand
//! ([`pump`]) and deletes what is acknowledged. Both may be killed at any time.
//! What had to be dropped shows as a jump of the number: an explicit gap.

pub mod lines;
pub mod pump;
pub mod segment;
#[cfg(test)]
mod tests;

pub use pump::LogPump;
pub use segment::{SegmentReader, SegmentWriter};
