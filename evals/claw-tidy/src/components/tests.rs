use super::*;

const TSV: &str = "component\tkey_types\thome\tissue\nclaw-pki\tCertificate, CertRequest\tgateway/claw-security/src/pki\tA1\nclaw-x\tEngine, GPU kernels\tnode/claw-x\tlater\n";
const HEAD: &str = "# A\n\n| component | kind | place | key types | state |\n|---|---|---|---|---|\n";
const GOOD_X: &str = "| claw-x | crate | `node/claw-x` | `Engine` | not yet |\n";
const PKI: &str = "//! # claw-pki: certificates\npub struct Certificate;\n";

fn problems(rows: &str, pki: &str) -> Vec<String> {
    let document = format!("{HEAD}{rows}\nafter\n");
    let file = "gateway/claw-security/src/pki/mod.rs";
    let repo = Repo::sample(&[(LIST, TSV), (DOCUMENT, &document), (file, pki)]);
    let sources = [Source::new(file, pki)];
    let findings = check_components(&repo, &sources);
    findings.into_iter().map(|f| f.problem).collect()
}

fn row(types: &str, state: &str) -> String {
    format!("| claw-pki | module | `gateway/claw-security/src/pki` | {types} | {state} |\n{GOOD_X}")
}

#[test]
fn a_true_table_passes() {
    let partly = row("`Certificate`", "partly: no CertRequest");
    assert_eq!(problems(&partly, PKI), [""; 0]);
    let both = format!("{PKI}output! {{\n  /// Doc.\n  CertRequest {{ }}\n}}");
    assert_eq!(problems(&row("`Certificate`, `CertRequest`", "built"), &both), [""; 0]);
}

#[test]
fn a_forgotten_a_double_and_a_foreign_row_are_found() {
    let twice = format!("{GOOD_X}{GOOD_X}| claw-z | crate | `node/claw-z` | | not yet |\n");
    let expected = [
        "claw-pki has 0 rows in the table",
        "claw-x has 2 rows in the table",
        "claw-z is not in evals/claw-tidy/components.tsv",
    ];
    assert_eq!(problems(&twice, PKI), expected);
}

#[test]
fn a_type_that_is_claimed_but_absent_is_found() {
    let expected = ["claw-pki: no type CertRequest is declared at gateway/claw-security/src/pki"];
    assert_eq!(problems(&row("`Certificate`, `CertRequest`", "built"), PKI), expected);
    let in_tests = format!("{PKI}#[cfg(test)]\nmod tests {{ struct CertRequest; }}");
    assert_eq!(problems(&row("`Certificate`, `CertRequest`", "built"), &in_tests), expected);
}

#[test]
fn a_type_that_is_there_but_denied_is_found() {
    let expected = ["claw-pki is `not yet`, but Certificate is declared there"];
    assert_eq!(problems(&row("`Certificate`, `CertRequest`", "not yet"), PKI), expected);
    let expected = ["claw-pki: Certificate is called missing, but is there"];
    let partly = row("", "partly: no Certificate, no CertRequest");
    assert_eq!(problems(&partly, PKI), expected);
}

#[test]
fn silence_about_a_key_type_is_found() {
    let expected = ["claw-pki: the row does not speak of CertRequest"];
    assert_eq!(problems(&row("`Certificate`", "built"), PKI), expected);
}

#[test]
fn a_wrong_place_kind_state_or_title_is_found() {
    let moved = row("", "built").replace("src/pki", "src/keys");
    assert!(problems(&moved, PKI)[0].contains("by the founding list"));
    let odd = row("`Certificate`", "mostly built");
    assert_eq!(problems(&odd, PKI), ["the state of claw-pki is in no known form"]);
    let kind = row("`Certificate`", "partly: no CertRequest").replace("module", "crate");
    assert_eq!(problems(&kind, PKI), ["claw-pki is a module, by its place"]);
    let untitled = "pub struct Certificate;\n";
    let found = problems(&row("`Certificate`", "partly: no CertRequest"), untitled);
    assert!(found[0].contains("begins with the component's name"), "{found:?}");
}
