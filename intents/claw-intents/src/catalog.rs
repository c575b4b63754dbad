//! The model catalogue: models, GPUs and the servers that serve models.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use claw_proto::spec::{GpuVendor, Quantization};
use serde::Deserialize;

pub(crate) mod estimate;
pub(crate) mod fit;
pub(crate) mod resolve;

/// The catalogue that is part of this build.
const BUILTIN: &str = include_str!("../../catalog/models.toml");

/// Models, GPUs and servers, with the names by which a request knows them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    #[serde(rename = "model")]
    models: Vec<Model>,
    #[serde(rename = "gpu")]
    gpus: Vec<GpuModel>,
    #[serde(rename = "server")]
    servers: Vec<Server>,
    #[serde(skip)]
    names: Names,
}

/// Names, made ready to be looked up at each word of a request.
#[derive(Debug, Clone, PartialEq, Default)]
struct Names {
    /// GPUs by their squeezed names, in the catalogue's order.
    gpus: HashMap<String, Vec<usize>>,
    /// Names of families, in order.
    families: Vec<String>,
}

/// A GPU's name without spaces, dashes and underscores.
pub(crate) fn squeeze(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).collect()
}

/// A model of the catalogue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Catalogue id.
    pub id: String,
    /// Names of its family, lower case.
    pub family: Vec<String>,
    /// Words of which one must be said besides the family's name; empty = none.
    #[serde(default)]
    pub key: Vec<String>,
    /// Words that may be said besides.
    #[serde(default)]
    pub marks: Vec<String>,
    /// Further full names.
    #[serde(default)]
    pub names: Vec<String>,
    /// What it is for, where that tells it from others.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Chosen where the words fit several versions.
    #[serde(default)]
    pub preferred: bool,
    /// Parameters as published, billions.
    pub params_b: f64,
    /// Parameters that are active for one token, billions; missing = all.
    #[serde(default)]
    pub active_params_b: Option<f64>,
    /// Attention heads.
    #[serde(default)]
    pub heads: Option<u32>,
    /// Key-value heads.
    #[serde(default)]
    pub kv_heads: Option<u32>,
    /// Layers.
    #[serde(default)]
    pub layers: Option<u32>,
    /// Width of an attention head, values.
    #[serde(default)]
    pub head_dim: Option<u32>,
    /// Values that one token keeps in each layer, where it is not `2 × kv_heads × head_dim`.
    #[serde(default)]
    pub kv_width: Option<u32>,
    /// Longest context, tokens.
    #[serde(default)]
    pub context: Option<u32>,
    /// Precision of the published weights.
    pub published_quantization: Quantization,
    /// Where the weights are published (Hugging Face).
    pub repository: String,
    /// Id of the [`Server`] that serves it; missing = none known.
    #[serde(default)]
    pub server: Option<String>,
    /// What its license asks.
    pub license: String,
    /// Where the figures come from.
    pub source: String,
}

/// A GPU model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuModel {
    /// Its name in a specification.
    pub id: String,
    /// Who makes it.
    pub vendor: GpuVendor,
    /// Names in a request, lower case.
    pub names: Vec<String>,
    /// Memory sizes that exist, GiB, ascending.
    pub memory_gib: Vec<f64>,
    /// Where the figures come from.
    pub source: String,
}

/// How models are served.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its id.
    pub id: String,
    /// Container image.
    pub image: String,
    /// Start of the command; `{repository}` stands for the model's.
    pub command: Vec<String>,
    /// Whose GPUs the image runs on.
    pub vendors: Vec<GpuVendor>,
    /// Where this comes from.
    pub source: String,
}

/// Why a catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Not TOML, or not of a catalogue's form.
    #[error("the catalogue is not readable")]
    Malformed(#[from] toml::de::Error),
    /// An id occurs twice.
    #[error("the catalogue has {id:?} twice")]
    Twice {
        /// The id.
        id: String,
    },
    /// A model names a server that is not there.
    #[error("model {model:?} names the unknown server {server:?}")]
    UnknownServer {
        /// The model.
        model: String,
        /// The server.
        server: String,
    },
    /// A size is not a positive number, or a list that must not be empty is.
    #[error("{id:?} has no usable {field}")]
    Unusable {
        /// The entry.
        id: String,
        /// The field.
        field: &'static str,
    },
}

impl Catalog {
    /// The catalogue that is part of this build.
    pub fn builtin() -> &'static Self {
        static CATALOG: OnceLock<Catalog> = OnceLock::new();
        CATALOG
            .get_or_init(|| Self::from_toml(BUILTIN).expect("the built-in catalogue is read by a test of every build"))
    }

    /// Reads a catalogue and checks that it is consistent.
    pub fn from_toml(text: &str) -> Result<Self, CatalogError> {
        let mut catalog: Self = toml::from_str(text)?;
        catalog.names = Names::of(&catalog);
        let mut ids = BTreeSet::new();
        let all = catalog
            .models
            .iter()
            .map(|m| &m.id)
            .chain(catalog.gpus.iter().map(|g| &g.id))
            .chain(catalog.servers.iter().map(|s| &s.id));
        for id in all {
            if !ids.insert(id) {
                return Err(CatalogError::Twice { id: id.clone() });
            }
        }
        for model in &catalog.models {
            model.check(&catalog)?;
        }
        for gpu in &catalog.gpus {
            if gpu.memory_gib.is_empty() || gpu.memory_gib.iter().any(|gib| *gib <= 0.0) {
                return Err(unusable(&gpu.id, "memory_gib"));
            }
        }
        Ok(catalog)
    }

    /// Every model, in the catalogue's order.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// Every GPU model, in the catalogue's order.
    pub fn gpus(&self) -> &[GpuModel] {
        &self.gpus
    }

    /// The model with this id.
    pub fn model(&self, id: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.id == id)
    }

    /// The GPU models with this squeezed name, in the catalogue's order.
    pub(crate) fn gpus_called(&self, squeezed: &str) -> impl Iterator<Item = &GpuModel> {
        self.names.gpus.get(squeezed).into_iter().flatten().filter_map(|i| self.gpus.get(*i))
    }

    /// Names of families and further full names, in order.
    pub(crate) fn family_names(&self) -> &[String] {
        &self.names.families
    }

    /// The GPU model with this id or name, in any case.
    pub fn gpu(&self, name: &str) -> Option<&GpuModel> {
        self.gpus
            .iter()
            .find(|gpu| gpu.id.eq_ignore_ascii_case(name) || gpu.names.iter().any(|n| n.eq_ignore_ascii_case(name)))
    }

    /// The server of this model, if the catalogue knows one.
    pub fn server_of(&self, model: &Model) -> Option<&Server> {
        let id = model.server.as_ref()?;
        self.servers.iter().find(|server| server.id == *id)
    }
}

impl Names {
    fn of(catalog: &Catalog) -> Self {
        let mut names = Self::default();
        for (i, gpu) in catalog.gpus.iter().enumerate() {
            for name in &gpu.names {
                let known = names.gpus.entry(squeeze(name)).or_default();
                if known.last() != Some(&i) {
                    known.push(i);
                }
            }
        }
        names.families = catalog.models.iter().flat_map(|m| m.family.iter().cloned()).collect();
        names.families.sort_unstable();
        names.families.dedup();
        names
    }
}

impl Model {
    fn check(&self, catalog: &Catalog) -> Result<(), CatalogError> {
        if self.params_b.is_nan() || self.params_b <= 0.0 {
            return Err(unusable(&self.id, "params_b"));
        }
        if self.active_params_b.is_some_and(|b| b > self.params_b) {
            return Err(unusable(&self.id, "active_params_b"));
        }
        if self.family.is_empty() {
            return Err(unusable(&self.id, "family"));
        }
        match &self.server {
            Some(server) if catalog.server_of(self).is_none() => {
                Err(CatalogError::UnknownServer { model: self.id.clone(), server: server.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Size of the weights at a precision (the published one if none is given), GiB.
    pub fn weights_gib(&self, quantization: Option<Quantization>) -> f64 {
        let bits = bits_per_weight(quantization.unwrap_or(self.published_quantization));
        self.params_b * 1e9 * f64::from(bits) / 8.0 / f64::from(1_u32 << 30)
    }

    /// Whether the attention heads divide over so many GPUs, so that tensor
    /// parallelism works.
    pub fn divides_over(&self, gpus: u32) -> bool {
        let (Some(heads), Some(kv_heads)) = (self.heads, self.kv_heads) else {
            return gpus == 1;
        };
        gpus > 0 && heads.is_multiple_of(gpus) && (kv_heads.is_multiple_of(gpus) || gpus.is_multiple_of(kv_heads))
    }
}

/// Bits that one weight takes at a precision.
const fn bits_per_weight(quantization: Quantization) -> u32 {
    match quantization {
        Quantization::Fp32 => 32,
        Quantization::Fp16 | Quantization::Bf16 => 16,
        Quantization::Fp8 | Quantization::Int8 => 8,
        Quantization::Int4 => 4,
    }
}

fn unusable(id: &str, field: &'static str) -> CatalogError {
    CatalogError::Unusable { id: id.into(), field }
}
