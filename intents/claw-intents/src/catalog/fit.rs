//! Whether a model's weights fit the GPUs asked for.

use claw_proto::spec::Quantization;

use super::{Catalog, Model};

/// GPUs in the words of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuShape<'a> {
    /// GPU model; missing = any.
    pub model: Option<&'a str>,
    /// Memory per GPU that was stated, GiB.
    pub memory_gib: Option<f64>,
    /// How many.
    pub count: u32,
}

/// The verdict with its figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Size of the weights, GiB.
    pub weights_gib: f64,
    /// The precision that was judged.
    pub quantization: Quantization,
    /// Whether they fit.
    pub verdict: Verdict,
}

/// Whether the weights fit.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// They do.
    Fits {
        /// Memory of all the GPUs, GiB.
        memory_gib: f64,
    },
    /// They do not.
    DoesNotFit {
        /// Memory of all the GPUs, GiB.
        memory_gib: f64,
        /// So many of the same GPU would hold them.
        gpus_needed: u32,
    },
    /// The GPU exists with several sizes of memory, and only the larger hold them.
    DependsOnMemory {
        /// Sizes per GPU that hold them, GiB.
        fitting_gib: Vec<f64>,
        /// Sizes per GPU that do not, GiB.
        too_small_gib: Vec<f64>,
    },
    /// Neither a known GPU model nor a size of memory was given.
    Unknown,
}

/// Judges whether a model's weights fit, at a precision or else the published one.
///
/// Weights only: what the context of the conversations takes comes on top.
/// No GPU at all is [`Verdict::Unknown`]: host memory is not judged here.
pub fn catalog_fit(catalog: &Catalog, model: &Model, quantization: Option<Quantization>, shape: GpuShape<'_>) -> Fit {
    let weights_gib = model.weights_gib(quantization);
    let known = shape.model.and_then(|name| catalog.gpu(name));
    let sizes = match (shape.memory_gib, known) {
        (Some(stated), _) => vec![stated],
        (None, Some(gpu)) => gpu.memory_gib.clone(),
        (None, None) => Vec::new(),
    };
    let total = |per_gpu: f64| per_gpu * f64::from(shape.count);
    let (fitting, too_small): (Vec<f64>, Vec<f64>) = sizes.iter().partition(|gib| weights_gib <= total(**gib));
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    let smallest = sizes.iter().copied().fold(f64::INFINITY, f64::min);
    let verdict = if sizes.is_empty() || shape.count == 0 {
        Verdict::Unknown
    } else if fitting.is_empty() {
        Verdict::DoesNotFit { memory_gib: total(largest), gpus_needed: gpus_needed(weights_gib, largest) }
    } else if too_small.is_empty() {
        Verdict::Fits { memory_gib: total(smallest) }
    } else {
        Verdict::DependsOnMemory { fitting_gib: fitting, too_small_gib: too_small }
    };
    Fit { weights_gib, quantization: quantization.unwrap_or(model.published_quantization), verdict }
}

/// The least number of GPUs with so much memory each that holds the weights.
pub(crate) fn gpus_needed(weights_gib: f64, per_gpu_gib: f64) -> u32 {
    let mut count = 1_u32;
    while count < claw_proto::limits::GPUS_PER_REPLICA_MAX && per_gpu_gib * f64::from(count) < weights_gib {
        count += 1;
    }
    count
}
