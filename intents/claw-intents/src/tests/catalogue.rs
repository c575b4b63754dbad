//! The built-in catalogue: complete, consistent, and its names lead to its models.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::*;

fn one(words: &str) -> Option<&'static str> {
    match Catalog::builtin().resolve(words) {
        Resolution::One { model, .. } => Some(model.id.as_str()),
        Resolution::Several(_) | Resolution::NoSuch(_) | Resolution::Unknown => None,
    }
}

#[test]
fn weights_at_the_published_precision() {
    let mut table = String::new();
    for model in Catalog::builtin().models() {
        let gib = model.weights_gib(None);
        let precision = model.published_quantization.as_str();
        writeln!(table, "{:<24}{precision:>5}{gib:>8.1} GiB", model.id).unwrap();
    }
    expect_test::expect_file!["weights.txt"].assert_eq(&table);
}

/// The figures that the documents name.
#[test]
fn the_catalogue_is_as_large_as_it_is_said_to_be() {
    const CHANGELOG: &str = include_str!("../../../../CHANGELOG.md");
    let (models, gpus) = (Catalog::builtin().models().len(), Catalog::builtin().gpus().len());
    let said = format!("The catalogue has {models} models and {gpus} GPUs");
    assert!(CHANGELOG.contains(&said), "{said:?} is not in the changelog");
}

#[test]
fn every_model_is_found_by_its_id_and_its_repository() {
    for model in Catalog::builtin().models() {
        assert_eq!(one(&model.id), Some(&*model.id));
        assert_eq!(one(&model.repository), Some(&*model.repository).map(|_| &*model.id));
        assert!(model.source.starts_with("https://") && !model.license.is_empty());
    }
}

#[test]
fn names_lead_to_models_or_to_none() {
    let cases = [
        ("Llama 70B", Some("llama-3.1-70b-instruct")),
        ("llama 3.3 70 b", Some("llama-3.3-70b-instruct")),
        ("Llama3.1-405B", Some("llama-3.1-405b-instruct")),
        ("Qwen3 235B A22B", Some("qwen3-235b-a22b")),
        ("gpt oss 20b", Some("gpt-oss-20b")),
        ("Stable Diffusion XL", Some("stable-diffusion-xl")),
        ("sdxl", Some("stable-diffusion-xl")),
        ("phi4", Some("phi-4")),
        ("FLUX.1", Some("flux.1-dev")),
        ("whisper large v3", Some("whisper-large-v3")),
        ("deepseek-r1", Some("deepseek-r1")),
        ("llama", None),
        ("llama 3 8b", None),
        ("qwen 32b", Some("qwen2.5-32b-instruct")),
        ("qwen3 32b", Some("qwen3-32b")),
        ("gemma 27b", Some("gemma-2-27b-it")),
        ("gemma 3 27b", Some("gemma-3-27b-it")),
        ("llama-guard 8b", None),
        ("mixtral 7b", None),
        ("flux schnell", Some("flux.1-schnell")),
        ("whisper small", None),
        ("falcon 40b", Some("falcon-40b-instruct")),
        ("llama-prod", None),
        ("qwen-chat", None),
        ("", None),
    ];
    for (words, id) in cases {
        assert_eq!(one(words), id, "{words:?}");
    }
}

#[test]
fn no_name_is_that_of_two_things() {
    let catalog = Catalog::builtin();
    let gpus: Vec<&String> = catalog.gpus().iter().flat_map(|gpu| &gpu.names).collect();
    let models: Vec<&String> = catalog.models().iter().flat_map(|m| &m.names).collect();
    let families: BTreeSet<&String> = catalog.models().iter().flat_map(|m| &m.family).collect();
    let all: Vec<&String> = gpus.into_iter().chain(models).chain(families).collect();
    let different: BTreeSet<&String> = all.iter().copied().collect();
    assert_eq!(different.len(), all.len());
    assert!(all.iter().all(|name| name.to_lowercase() == **name));
}

#[test]
fn fit_is_judged_on_the_weights() {
    let catalog = Catalog::builtin();
    let judge = |id: &str, gpu: &str, memory_gib: Option<f64>, count: u32| {
        let shape = GpuShape { model: Some(gpu), memory_gib, count };
        catalog_fit(catalog, catalog.model(id).unwrap(), None, shape).verdict
    };
    assert_eq!(judge("llama-3.1-70b-instruct", "H100", None, 4), Verdict::Fits { memory_gib: 320.0 });
    assert_eq!(
        judge("llama-3.1-405b-instruct", "H100", None, 8),
        Verdict::DoesNotFit { memory_gib: 640.0, gpus_needed: 10 }
    );
    assert_eq!(
        judge("llama-3.1-70b-instruct", "A100", None, 2),
        Verdict::DependsOnMemory { fitting_gib: vec![80.0], too_small_gib: vec![40.0] }
    );
    assert_eq!(judge("llama-3.1-70b-instruct", "A100", Some(80.0), 2), Verdict::Fits { memory_gib: 160.0 });
    assert_eq!(judge("phi-4", "K80", None, 2), Verdict::Unknown);
    assert_eq!(judge("phi-4", "H100", None, 0), Verdict::Unknown);
}

/// Sizes of published checkpoints, bytes (the model's index of safetensors on Hugging Face).
const PUBLISHED: &[(&str, f64)] = &[
    ("llama-3.1-8b-instruct", 16_060_522_496.0),
    ("llama-3.1-70b-instruct", 141_107_412_992.0),
    ("llama-3.1-405b-instruct", 811_706_777_600.0),
    ("llama-3.3-70b-instruct", 141_107_412_992.0),
    ("llama-3.2-1b-instruct", 2_471_628_800.0),
    ("llama-3.2-3b-instruct", 6_425_499_648.0),
    ("mistral-7b-instruct", 14_496_047_104.0),
    ("mixtral-8x7b-instruct", 93_405_585_408.0),
    ("mixtral-8x22b-instruct", 281_241_268_224.0),
    ("mistral-nemo-instruct", 24_495_564_800.0),
    ("qwen2.5-0.5b-instruct", 988_065_536.0),
    ("qwen2.5-1.5b-instruct", 3_087_428_608.0),
    ("qwen2.5-3b-instruct", 6_171_877_376.0),
    ("qwen2.5-7b-instruct", 15_231_233_024.0),
    ("qwen2.5-14b-instruct", 29_540_067_328.0),
    ("qwen2.5-32b-instruct", 65_527_752_704.0),
    ("qwen2.5-72b-instruct", 145_412_407_296.0),
    ("gemma-2-2b-it", 5_228_683_776.0),
    ("gemma-2-9b-it", 18_483_411_968.0),
    ("gemma-2-27b-it", 54_454_256_640.0),
    ("phi-4", 29_319_014_400.0),
    ("phi-3.5-mini-instruct", 7_642_159_104.0),
];

#[test]
fn weights_agree_with_published_checkpoints() {
    assert!(PUBLISHED.len() >= 20);
    for (id, bytes) in PUBLISHED {
        let published = bytes / f64::from(1_u32 << 30);
        let ours = Catalog::builtin().model(id).unwrap().weights_gib(None);
        assert!((ours / published - 1.0).abs() < 0.01, "{id}: {ours:.2} GiB, published {published:.2}");
    }
}

/// What one token keeps, bytes: layers × 2 × kv heads × width × 2.
#[test]
fn context_agrees_with_the_architecture() {
    for (id, bytes) in [
        ("llama-3.1-8b-instruct", 131_072.0),
        ("llama-3.1-70b-instruct", 327_680.0),
        ("llama-3.1-405b-instruct", 516_096.0),
        ("qwen2.5-7b-instruct", 57_344.0),
        ("deepseek-v3", 70_272.0),
    ] {
        assert_eq!(Catalog::builtin().model(id).unwrap().context_bytes_per_token(), Some(bytes), "{id}");
    }
}

#[test]
fn proposals_fit_and_the_smallest_leads() {
    let catalog = Catalog::builtin();
    assert!(catalog.models().len() >= 60);
    for model in catalog.models() {
        let proposals = catalog.proposals(model, None, Load::default());
        assert!(proposals.iter().all(|p| p.estimate.fits && p.estimate.divides), "{}", model.id);
        let totals: Vec<f64> = proposals.iter().map(|p| p.memory_gib * f64::from(p.count)).collect();
        assert!(totals.is_sorted(), "{}: {totals:?}", model.id);
    }
    let first = &catalog.proposals(catalog.model("llama-3.1-70b-instruct").unwrap(), None, Load::default())[0];
    assert!(first.memory_gib * f64::from(first.count) <= 192.0, "{first:?}");
}

#[test]
fn a_broken_catalogue_is_named() {
    let broken = include_str!("../../../catalog/models.toml").replace("server = \"vllm\"", "server = \"none\"");
    let error = Catalog::from_toml(&broken).unwrap_err().to_string();
    assert_eq!(error, "model \"llama-3.1-8b-instruct\" names the unknown server \"none\"");
    assert!(matches!(Catalog::from_toml("x = 1"), Err(CatalogError::Malformed(_))));
}
