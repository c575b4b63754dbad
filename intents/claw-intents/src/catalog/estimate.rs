//! What serving a model takes: weights, the context of the conversations, and
//! the runtime; and which GPUs would do.

use claw_proto::spec::Quantization;
use serde::Serialize;

use super::{Catalog, GpuModel, Model};

/// Share of a GPU's memory that a server takes by default (vLLM's `gpu_memory_utilization`).
pub const USABLE_SHARE: f64 = 0.9;
/// Memory that the runtime takes on each GPU besides weights and context, GiB: the
/// driver's context, the collective library, the largest activations.
pub const RUNTIME_GIB: f64 = 1.5;
/// GPUs of one replica that are tried.
const COUNTS: &[u32] = &[1, 2, 4, 8, 16, 32];
/// Most proposals.
const PROPOSALS_MAX: usize = 6;

/// The conversations that are held at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Tokens of context of each.
    pub context_tokens: u32,
    /// How many at once.
    pub sequences: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self { context_tokens: 8_192, sequences: 8 }
    }
}

/// What serving takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Weights, GiB.
    pub weights_gib: f64,
    /// Keys and values of the context, GiB; 0 for a model that keeps none.
    pub context_gib: f64,
    /// The runtime on all GPUs, GiB.
    pub runtime_gib: f64,
    /// All of it, GiB.
    pub needed_gib: f64,
    /// Memory of the GPUs that a server may take, GiB.
    pub usable_gib: f64,
    /// Whether it fits.
    pub fits: bool,
    /// Whether the attention heads divide over so many GPUs.
    pub divides: bool,
}

/// GPUs that would serve a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposal {
    /// GPU model.
    pub gpu: String,
    /// Memory of each, GiB.
    pub memory_gib: f64,
    /// How many.
    pub count: u32,
    /// What it takes there.
    pub estimate: Estimate,
}

impl Model {
    /// Memory that one token of context keeps, bytes, at 16 bits a value; none if it is not known.
    pub fn context_bytes_per_token(&self) -> Option<f64> {
        let layers = f64::from(self.layers?);
        let width = match (self.kv_width, self.kv_heads, self.head_dim) {
            (Some(width), _, _) => f64::from(width),
            (None, Some(heads), Some(dim)) => 2.0 * f64::from(heads) * f64::from(dim),
            _ => return None,
        };
        Some(layers * width * 2.0)
    }

    /// What serving takes on so many GPUs with so much memory each, GiB.
    pub fn estimate(&self, quantization: Option<Quantization>, load: Load, memory_gib: f64, count: u32) -> Estimate {
        let tokens = f64::from(load.context_tokens) * f64::from(load.sequences);
        let weights_gib = self.weights_gib(quantization);
        let context_gib = self.context_bytes_per_token().unwrap_or(0.0) * tokens / f64::from(1_u32 << 30);
        let runtime_gib = RUNTIME_GIB * f64::from(count);
        let needed_gib = weights_gib + context_gib + runtime_gib;
        let usable_gib = USABLE_SHARE * memory_gib * f64::from(count);
        let divides = self.divides_over(count);
        Estimate {
            weights_gib,
            context_gib,
            runtime_gib,
            needed_gib,
            usable_gib,
            fits: needed_gib <= usable_gib,
            divides,
        }
    }
}

impl Catalog {
    /// The shapes of GPUs that would serve a model, the least memory first.
    pub fn proposals(&self, model: &Model, quantization: Option<Quantization>, load: Load) -> Vec<Proposal> {
        let mut found: Vec<Proposal> =
            self.gpus().iter().filter_map(|gpu| smallest(gpu, model, quantization, load)).collect();
        found.sort_by(|a, b| {
            let total = |p: &Proposal| p.memory_gib * f64::from(p.count);
            total(a).total_cmp(&total(b)).then(a.count.cmp(&b.count))
        });
        found.truncate(PROPOSALS_MAX);
        found
    }
}

/// The fewest GPUs of a model that would do.
fn smallest(gpu: &GpuModel, model: &Model, quantization: Option<Quantization>, load: Load) -> Option<Proposal> {
    let shapes = COUNTS.iter().flat_map(|count| gpu.memory_gib.iter().map(move |gib| (*count, *gib)));
    shapes
        .map(|(count, memory_gib)| Proposal {
            gpu: gpu.id.clone(),
            memory_gib,
            count,
            estimate: model.estimate(quantization, load, memory_gib, count),
        })
        .filter(|p| p.estimate.fits && p.estimate.divides)
        .min_by(|a, b| (a.memory_gib * f64::from(a.count)).total_cmp(&(b.memory_gib * f64::from(b.count))))
}
