use super::*;

fn names(text: &str) -> Vec<(String, usize)> {
    let source = Source::new("a.rs", text);
    let functions = source.functions();
    functions.iter().map(|f| (f.name.clone(), f.lines())).collect()
}

#[test]
fn masking_keeps_length_lines_and_code() {
    let text =
        "let a = \"fn b() {\"; // fn c() {\nlet d = '{'; /* { /* } */ { */ let e = r#\"}\"}\"#;\nlet é = b\"\\\"}\";";
    let masked = mask(text);
    assert_eq!(masked.len(), text.len());
    assert_eq!(masked.lines().count(), text.lines().count());
    assert!(!masked.contains(['{', '}', '"', '\'']), "{masked}");
    for kept in ["let a =", "let d =", "let e =", "let é ="] {
        assert!(masked.contains(kept), "{kept} is gone from {masked}");
    }
}

#[test]
fn lifetimes_are_no_character_literals() {
    let text = "fn f<'a>(x: &'a str) -> &'static str { let q = '\\''; let u = '\\u{7d}'; let c = '→'; x }";
    let masked = mask(text);
    assert!(masked.contains("<'a>"), "{masked}");
    assert!(masked.contains("&'static str {"), "{masked}");
    assert_eq!(names(text), [("f".to_owned(), 1)]);
}

#[test]
fn raw_identifiers_are_no_raw_strings() {
    assert_eq!(mask("let r#type = bar\"x\";"), "let r#type = bar   ;");
    assert_eq!(mask("br\"}\" cr##\"\"#\"##;"), "b     c         ;");
}

#[test]
fn functions_are_measured_from_fn_to_the_closing_brace() {
    let text = "trait T { fn declared(&self, x: [u8; 3]); }\ntype P = fn(u8) -> u8;\nfn outer(\n    x: [u8; 2],\n) -> String {\n    fn inner() {}\n    format!(\"}} }}\")\n}\n";
    let expected = [("outer".to_owned(), 6), ("inner".to_owned(), 1)];
    assert_eq!(names(text), expected);
}

#[test]
fn the_innermost_function_is_found() {
    let source = Source::new("a.rs", "fn outer() {\n fn poll() { here(); }\n there();\n}");
    let name_at = |needle: &str| {
        let offset = source.code.find(needle).unwrap();
        source.enclosing_function(offset).unwrap().name
    };
    assert_eq!(name_at("here"), "poll");
    assert_eq!(name_at("there"), "outer");
}

#[test]
fn test_parts_are_told_from_the_rest() {
    let text = "fn a() {}\n#[cfg(test)]\nuse x::y;\nfn b() {}\n#[cfg(test)]\nmod tests {\n fn c() {}\n}\n#[cfg(test)]\nmod props;\n";
    let source = Source::new("a.rs", text);
    let spans = source.test_spans();
    let inside = |needle: &str| {
        let offset = text.find(needle).unwrap();
        spans.iter().any(|span| span.contains(&offset))
    };
    assert!(inside("use x::y") && inside("fn c") && inside("mod props"));
    assert!(!inside("fn a") && !inside("fn b"));
    assert_eq!(source.test_modules(), ["props"]);
}

#[test]
fn words_are_whole() {
    assert_eq!(words("brand rand rand_core ::rand;", "rand"), [6, 23]);
}
