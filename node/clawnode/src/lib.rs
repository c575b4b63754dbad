//! # clawnode: the hands of the fleet
//!
//! The agent that runs on every machine. [`node`] decides: a pure state
//! machine without clock, files or network, so the simulator runs the same
//! code in virtual time. The rest is the shell around it, which performs what
//! the machine asks for.

pub mod clock;
pub mod config;
pub mod endpoint;
pub mod enroll;
pub mod files;
pub mod gpu;
pub mod identity;
pub mod kernel_log;
pub mod link;
pub mod logs;
pub mod node;
pub mod platform;
pub mod runtime;
pub mod sampler;
pub mod shell;
pub mod store;

pub use config::NodeConfig;
pub use gpu::GpuDetector;
pub use node::Node;
