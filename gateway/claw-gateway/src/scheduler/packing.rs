//! Packing GPUs online: which machine takes a request, so that what is left can
//! still be used by what is likely to come.
//!
//! A small ordinal model of its own: machines and requests are numbers, models of
//! GPUs are bits. [`Packer`] keeps, for each class of equal requests, the best
//! machine; a placement changes one machine, and each class looks at that one
//! again when it is next asked. The policies of the literature stand beside ours
//! ([`Policy`]), so that they can be measured on the same footing ([`replay`]).
//!
//! Source of the problem, the typical-pod table and FGD: Weng et al., "Beware of
//! Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
//! Descent", USENIX ATC 2023.

mod fragmentation;
mod machine;
mod manner;
mod packer;
mod policy;
pub mod replay;
mod scan;
mod score;
#[cfg(test)]
mod tests;
mod typical;

pub(crate) use machine::{GPU_BITS, KIND_BITS};
pub use machine::{GPU_MILLI, GPUS_MAX, Kind, Machine, ModelSet, Request};
pub use manner::{Manner, Serve, Shed, rehearsed};
pub use packer::{Packer, Place};
pub use policy::Policy;
pub use scan::Scan;
pub(crate) use score::{lost, price_of, worth};
pub use typical::Typical;
