//! One test a rule of the judge.

use super::*;

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("{value}") };
    object
}

/// The verdict on an intent for a case that expects one.
fn intent(expect: Value, got: Value) -> CaseVerdict {
    let case = object(json!({ "id": "c", "outcome": "intent", "expect": expect }));
    judge(&case, Some(&object(json!({ "id": "c", "outcome": "intent", "intent": got }))))
}

fn exact(expect: Value, got: Value) -> bool {
    intent(expect, got).reasons.is_empty()
}

fn question(field: &str, answer: Value) -> bool {
    let case = object(json!({ "id": "c", "outcome": "question", "question": { "field": field } }));
    judge(&case, Some(&object(answer))).reasons.is_empty()
}

#[test]
fn only_what_is_given_is_judged() {
    assert!(exact(json!({ "a": 1 }), json!({ "a": 1, "b": 2 })));
    let verdict = intent(json!({ "a": 1, "b": { "c": 2, "d": 3 } }), json!({ "a": 1, "b": { "c": 5 } }));
    assert_eq!((verdict.right, verdict.wrong, verdict.missed, verdict.invented), (1, 1, 2, 0));
    assert_eq!(verdict.reasons, ["b.c = 5, wanted 2", "b.d = missing, wanted 3"]);
}

#[test]
fn numbers_are_equal_within_a_millionth() {
    assert!(exact(json!({ "a": 1 }), json!({ "a": 1.000_000_5 })));
    assert!(!exact(json!({ "a": 1 }), json!({ "a": 1.000_002 })));
    assert!(!exact(json!({ "a": 1 }), json!({ "a": "1" })));
    assert!(!exact(json!({ "a": 1 }), json!({ "a": true })));
}

#[test]
fn strings_are_compared_without_case_but_what_runs_exactly() {
    assert!(exact(json!({ "a": "H100" }), json!({ "a": "h100" })));
    assert!(exact(json!({ "a": "Straße" }), json!({ "a": "STRASSE" })));
    for field in ["image", "command", "env"] {
        let named = |text: &str| json!({ "workload": { field: { "X": text } } });
        assert!(!exact(named("A"), named("a")), "{field}");
        assert!(exact(named("A"), named("A")), "{field}");
    }
    assert!(exact(json!({ "env": { "X": "1" } }), json!({ "env": { "X": 1 } })));
    assert!(exact(json!({ "env": { "X": "True" } }), json!({ "env": { "X": true } })));
}

#[test]
fn times_are_points_in_time() {
    let at = |text: &str| json!({ "deadline": text });
    assert!(exact(at("2026-03-12T08:00:00Z"), at("2026-03-12T09:00:00+01:00")));
    assert!(exact(at("2026-03-12T08:00:00Z"), at("2026-03-12t08:00z")));
    assert!(!exact(at("2026-03-12T08:00:00Z"), at("2026-03-12T08:00:01Z")));
    assert!(!exact(at("2026-03-12T08:00:00Z"), at("tomorrow")));
    assert!(exact(at("soon"), at("soon")));
}

#[test]
fn a_list_is_one_leaf_and_some_have_no_order() {
    assert!(exact(json!({ "ports": [80, 443] }), json!({ "ports": [443, 80] })));
    assert!(exact(json!({ "exclude_nodes": ["a", "b"] }), json!({ "exclude_nodes": ["b", "a"] })));
    assert!(!exact(json!({ "command": ["a", "b"] }), json!({ "command": ["b", "a"] })));
    assert!(!exact(json!({ "ports": [80] }), json!({ "ports": [80, 443] })));
    assert_eq!(intent(json!({ "ports": [80, 443] }), json!({ "ports": [80] })).missed, 1);
}

#[test]
fn a_list_of_objects_is_walked_and_its_length_counts() {
    let volumes = json!({ "volumes": [{ "source": "a", "target": "/a" }] });
    assert!(exact(volumes.clone(), json!({ "volumes": [{ "source": "a", "target": "/a", "read_only": false }] })));
    let verdict = intent(volumes, json!({ "volumes": [{ "source": "a", "target": "/a" }, {}] }));
    assert_eq!((verdict.right, verdict.missed), (2, 1));
    assert_eq!(verdict.reasons, ["volumes.# = 2, wanted 1"]);
}

#[test]
fn null_is_missing() {
    assert!(!exact(json!({ "a": null }), json!({ "a": null })));
    let verdict = intent(json!({ "a": 1 }), json!({ "a": null }));
    assert_eq!((verdict.wrong, verdict.missed), (0, 1));
}

#[test]
fn what_must_be_absent_is_an_invention() {
    let case = object(json!({ "outcome": "intent", "expect": {}, "absent": ["workload.gpu.count", "nodes"] }));
    let got = |intent: Value| judge(&case, Some(&object(json!({ "outcome": "intent", "intent": intent }))));
    let verdict = got(json!({ "workload": { "gpu": { "count": 4 } }, "nodes": null }));
    assert_eq!((verdict.invented, verdict.wrong), (1, 2), "{verdict:?}");
    assert_eq!(got(json!({})).reasons, Vec::<String>::new());
}

#[test]
fn another_outcome_misses_every_field() {
    let case = object(json!({ "outcome": "intent", "expect": { "a": 1, "b": 2 } }));
    let verdict = judge(&case, Some(&object(json!({ "outcome": "question", "intent": { "a": 1 } }))));
    assert_eq!((verdict.right, verdict.wrong, verdict.missed), (0, 0, 2));
    assert_eq!(judge(&case, None).reasons, ["no answer"]);
}

#[test]
fn a_question_may_ask_for_the_parent_or_a_part() {
    let asks = |fields: &[&str]| {
        let questions: Vec<Value> = fields.iter().map(|f| json!({ "field": f })).collect();
        question("workload.gpu", json!({ "outcome": "question", "questions": questions }))
    };
    assert!(asks(&["workload.gpu"]) && asks(&["workload"]) && asks(&["workload.gpu.count"]));
    assert!(asks(&["node", "workload.gpu"]));
    assert!(!asks(&["workload.gpus"]) && !asks(&["work"]) && !asks(&[]));
    assert!(!question("a", json!({ "outcome": "question", "questions": "a" })));
    assert!(!question("a", json!({ "outcome": "question" })));
}

#[test]
fn a_refusal_has_the_right_code() {
    let case = object(json!({ "outcome": "refusal", "refusal": "unsafe" }));
    let with = |code: Value| judge(&case, Some(&object(json!({ "outcome": "refusal", "code": code })))).reasons;
    assert_eq!(with(json!("unsafe")), Vec::<String>::new());
    assert_eq!(with(json!("empty")), ["refusal empty, wanted unsafe"]);
    assert_eq!(with(Value::Null).len(), 1);
}

#[test]
fn answers_are_counted_by_category_and_as_a_whole() {
    let line = |line: Value| (line["id"].as_str().unwrap().to_owned(), object(line));
    let cases = [
        line(json!({ "id": "a", "category": "x", "outcome": "intent", "expect": { "n": 1 } })),
        line(json!({ "id": "b", "category": "y", "outcome": "refusal", "refusal": "empty" })),
        line(json!({ "id": "c", "category": "y", "outcome": "question", "question": { "field": "n" } })),
    ];
    let answers: BTreeMap<_, _> = [
        line(json!({ "id": "a", "outcome": "intent", "intent": { "n": 1 } })),
        line(json!({ "id": "b", "outcome": "intent", "intent": {} })),
        line(json!({ "id": "z", "outcome": "refusal", "code": "empty" })),
    ]
    .into();
    let report = score(&cases, &answers);
    assert_eq!((report.all.cases, report.all.exact, report.wrong_outcomes), (3, 1, 1));
    assert_eq!((report.unanswered, report.unknown_answers), (1, 1));
    assert_eq!((report.categories["x"].exact, report.categories["y"].exact), (1, 0));
    let failing: Vec<&str> = report.failing.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(failing, ["b", "c"]);
}

#[test]
fn a_file_of_cases_is_refused_where_it_cannot_be_judged() {
    let good = r#"{"id":"a","category":"c","text":"t","outcome":"intent"}"#;
    assert_eq!(cases(good).unwrap().len(), 1);
    let bad = [
        (r#"{"id":"b","category":"c","text":"t"}"#, "line 3: the outcome is none of intent, question, refusal"),
        (r#"{"id":"b","category":"c","text":"t","outcome":"maybe"}"#, "line 3: the outcome is none of"),
        (r#"{"id":"b","category":"c","text":"t","outcome":"question"}"#, "line 3: no question.field"),
        (r#"{"id":"b","category":"c","text":"t","outcome":"question","question":{}}"#, "line 3: no question.field"),
        (r#"{"id":"b","category":"c","text":"t","outcome":"refusal"}"#, "line 3: no refusal code"),
        (r#"{"id":"b","category":"c","text":"t","outcome":"refusal","refusal":"no"}"#, "line 3: no refusal code"),
        (r#"{"id":"b","category":"c","outcome":"intent"}"#, "line 3: no text"),
        (r#"{"id":"b","text":"t","outcome":"intent"}"#, "line 3: no category"),
        (r#"{"category":"c","text":"t","outcome":"intent"}"#, "line 3: no id"),
        (r#"{"id":"a","category":"c","text":"t","outcome":"intent"}"#, "line 3: the id \"a\" occurs twice"),
        ("[]", "line 3: not an object"),
        ("{", "line 3: EOF"),
    ];
    for (line, why) in bad {
        let error = cases(&format!("{good}\n\n{line}\n")).unwrap_err().to_string();
        assert!(error.starts_with(why), "{line}: {error}");
    }
    let error = lines(r#"{"id":"a","outcome":"perhaps"}"#).unwrap_err().to_string();
    assert!(error.starts_with("line 1: the outcome"), "answers too: {error}");
}
