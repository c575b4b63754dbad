//! The built-in catalogue: complete, consistent, and its names lead to its models.

#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them when it updates a golden text")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use expect_test::expect;

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
    expect![[r#"
        llama-3.1-8b-instruct    bf16    15.0 GiB
        llama-3.1-70b-instruct   bf16   131.5 GiB
        llama-3.1-405b-instruct  bf16   756.0 GiB
        llama-3.3-70b-instruct   bf16   131.5 GiB
        mistral-7b-instruct      bf16    13.5 GiB
        mixtral-8x7b-instruct    bf16    87.0 GiB
        mixtral-8x22b-instruct   bf16   261.9 GiB
        qwen2.5-7b-instruct      bf16    14.2 GiB
        qwen2.5-32b-instruct     bf16    60.5 GiB
        qwen2.5-72b-instruct     bf16   135.4 GiB
        qwen3-235b-a22b          bf16   437.7 GiB
        deepseek-r1               fp8   624.9 GiB
        deepseek-v3               fp8   624.9 GiB
        gemma-2-9b-it            bf16    17.2 GiB
        gemma-2-27b-it           bf16    50.7 GiB
        phi-4                    bf16    27.4 GiB
        gpt-oss-20b              int4     9.7 GiB
        gpt-oss-120b             int4    54.4 GiB
        whisper-large-v3         fp16     2.9 GiB
        stable-diffusion-xl      fp16     6.5 GiB
        flux.1-dev               bf16    22.4 GiB
        bge-large-en             fp16     0.6 GiB
    "#]]
    .assert_eq(&table);
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
        ("llama-guard 8b", None),
        ("qwen2.5-coder-7b", None),
        ("mixtral 7b", None),
        ("flux schnell", None),
        ("whisper small", None),
        ("falcon 40b", None),
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

#[test]
fn a_broken_catalogue_is_named() {
    let broken = include_str!("../../../catalog/models.toml").replace("server = \"vllm\"", "server = \"none\"");
    let error = Catalog::from_toml(&broken).unwrap_err().to_string();
    assert_eq!(error, "model \"llama-3.1-8b-instruct\" names the unknown server \"none\"");
    assert!(matches!(Catalog::from_toml("x = 1"), Err(CatalogError::Malformed(_))));
}
