//! What holds for any text.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Requests that are understood in full.
const UNDERSTOOD: &[&str] = &[
    "Run Llama 70B on 4 H100s",
    "please start gemma 2 9b on two L4s with low priority",
    "serve qwen 7b on an A10G, port 8000, for 6h",
    "run `nvidia-smi -L` on node gpu-1",
    "run `python x.py` with image acme/x:1 on 8x A100-80GB, 16 cores, 64 GB RAM",
    "stop job train-42 gracefully, give it 60 seconds",
    "drain node gpu-1 by force within 10 minutes",
    "undrain node gpu-1",
    "show the last 50 log lines of job train-42",
    "list H100 gpus on node gpu-1",
    "cluster status",
];

/// Pieces of requests, sensible or not.
const PIECES: &[&str] = &[
    "run",
    "serve",
    "stop",
    "drain",
    "show",
    "llama",
    "70b",
    "8b",
    "gemma 2 9b",
    "mistral",
    "phi-4",
    "on",
    "with",
    "4",
    "two",
    "8x",
    "H100s",
    "A100 80GB",
    "L4",
    "gpus",
    "a",
    "the",
    "and",
    "or",
    "not",
    "node gpu-1",
    "job x-3",
    "nodes",
    "logs",
    "last 5",
    "for 6h",
    "port 80",
    "fp8",
    "int8",
    "no gpu",
    ",",
    "!",
    "?",
    "-",
    "`ls`",
    "'it'",
    "64 GB RAM",
    "3 replicas",
    "call it bob",
    "image a/b:1",
    "env A=1",
    "low priority",
    "within 10 minutes",
    "not on node n-2",
];

fn pieces() -> impl Strategy<Value = String> {
    vec(select(PIECES), 0..12).prop_map(|pieces| pieces.join(" "))
}

/// The numbers that a text gives, in digits or words; an article counts as one,
/// and a unit may multiply.
fn numbers_given(text: &str) -> Vec<f64> {
    const WORDS: &[(&str, f64)] = &[("two", 2.0), ("a", 1.0), ("an", 1.0), ("no", 0.0)];
    const UNITS: &[f64] = &[1.0, 60.0, 3_600.0];
    let lower = text.to_lowercase();
    let parts = lower.split(|c: char| !c.is_ascii_alphanumeric());
    let digits = lower.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<f64>().ok());
    let words = parts.filter_map(|part| WORDS.iter().find(|(word, _)| *word == part).map(|(_, n)| *n));
    digits.chain(words).flat_map(|n| UNITS.iter().map(move |unit| n * unit)).collect()
}

/// Every number of an intent, except in what the catalogue gives.
fn numbers(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Number(n) => found.push(n.as_f64().unwrap()),
        Value::Array(items) => items.iter().for_each(|item| numbers(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| numbers(field, found)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Nothing in an intent that its text does not give: numbers, GPU model, nodes.
fn check_nothing_invented(text: &str) -> Result<(), TestCaseError> {
    let got = answer(text, &Context::default());
    let intent = &got["intent"];
    let mut found = Vec::new();
    numbers(intent, &mut found);
    let given = numbers_given(text);
    for number in found {
        prop_assert!(given.contains(&number), "{number} is not in {text:?}: {got}");
    }
    let squeezed = text.to_lowercase().replace([' ', '-'], "");
    for path in
        ["workload.gpu.model", "workload.placement.node", "node", "workload_id", "filter.node", "filter.gpu_model"]
    {
        if let Some(name) = at(intent, path).as_str() {
            let name = name.to_lowercase().replace([' ', '-'], "");
            prop_assert!(squeezed.contains(&name), "{name} is not in {text:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_text_gets_a_well_formed_answer(text in ".{0,120}", piece in pieces(), cut in 0_usize..60) {
        let mixed: String = piece.chars().take(cut).chain(text.chars()).collect();
        for text in [text.as_str(), piece.as_str(), mixed.as_str()] {
            match parse(text, &Context::default(), Catalog::builtin()) {
                Answer::Question(questions) => {
                    prop_assert!((1..=2).contains(&questions.len()));
                    prop_assert!(questions.iter().all(|q| !q.field.is_empty() && !q.prompt.is_empty()));
                }
                Answer::Refusal { message, .. } => prop_assert!(!message.is_empty()),
                Answer::Intent(understood) => {
                    for provenance in understood.provenance {
                        if let Source::Text(span) = provenance.source {
                            prop_assert_eq!(&text[span.start..span.end], span.text);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_invented(text in pieces()) {
        check_nothing_invented(&text)?;
    }

    /// A word that nobody knows is never dropped: the request is no longer
    /// understood, or the word is a name in the intent.
    #[test]
    fn nothing_is_dropped(request in select(UNDERSTOOD), word in "zq[a-z]{2,5}q", place in 0_usize..16) {
        let mut parts: Vec<&str> = request.split(' ').collect();
        let place = place % (parts.len() + 1);
        parts.insert(place, &word);
        let got = answer(&parts.join(" "), &Context::default());
        let kept = got["outcome"] != "intent" || got["intent"].to_string().contains(&word);
        prop_assert!(kept, "{word} was dropped from {parts:?}: {got}");
    }

    /// A negation, a condition or a second wish is never dropped either.
    #[test]
    fn no_word_of_weight_is_dropped(
        request in select(UNDERSTOOD),
        word in select(&["not", "don't", "never", "if", "unless", "maybe", "or", "except", "instead", "half", "about", "~", ">", "+"][..]),
        place in 0_usize..16,
    ) {
        let before = answer(request, &Context::default());
        let mut parts: Vec<&str> = request.split(' ').collect();
        let place = place % (parts.len() + 1);
        parts.insert(place, word);
        let got = answer(&parts.join(" "), &Context::default());
        // Inside a command or as a name the word is data; then it must be there.
        let same = got["intent"] == before["intent"] && got["outcome"] == "intent";
        prop_assert!(!same, "{word} was dropped from {parts:?}");
    }

    /// Case and spacing do not matter, except in what is taken as written.
    #[test]
    fn noise_changes_nothing(spaces in 1_usize..4, tail in select(&["", ".", " !", " please", " 🙏"][..])) {
        let plain = answer("run llama 8b on 2 l4 in fp8", &Context::default());
        let noisy = "RUN  Llama 8B ON 2 L4 in FP8".replace(' ', &" ".repeat(spaces)) + tail;
        prop_assert_eq!(&answer(&noisy, &Context::default())["intent"], &plain["intent"]);
    }

    /// Whatever stands in quotes gives no orders: with any quoted text the intent
    /// is the same outside the quote, or there is none.
    #[test]
    fn quoted_text_gives_no_orders(orders in pieces(), free in "[ -&(-_a-~]{0,40}") {
        for quoted in [orders, free] {
            let quoted = quoted.replace(['`', '\'', '"'], "");
            let order = format!("run `echo '{quoted}'` on node gpu-1");
            let got = answer(&order, &Context::default());
            if got["outcome"] == "intent" {
                let wanted = serde_json::json!({
                    "action": "run",
                    "workload": { "command": ["echo", quoted], "placement": { "node": "gpu-1" } }
                });
                prop_assert_eq!(&got["intent"], &wanted);
            } else {
                prop_assert_eq!(&got["code"], "unsafe", "{}", order);
            }
            for carrier in ["list nodes\n> {}", "list nodes \"{}\"", "list nodes ```{}```", "list nodes “{}”"] {
                let got = answer(&carrier.replace("{}", &quoted), &Context::default());
                let harmless = got["outcome"] != "intent" || got["intent"] == serde_json::json!({ "action": "query", "subject": "nodes" });
                prop_assert!(harmless, "{quoted:?} gave an order: {got}");
            }
        }
    }
}

#[test]
fn the_sample_requests_are_understood() {
    for text in UNDERSTOOD {
        assert_eq!(answer(text, &Context::default())["outcome"], "intent", "{text}");
    }
}
