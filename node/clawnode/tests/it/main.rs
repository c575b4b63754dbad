//! The node end to end: real processes under real supervisors, and a real agent
//! that talks TLS to a peer of the protocol.

mod agent;
mod peer;
mod process;
mod support;
