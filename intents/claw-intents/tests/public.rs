//! The public cases, where they are at hand.

use std::collections::BTreeMap;
use std::path::Path;

use claw_intents::{Catalog, eval};

#[test]
fn public_cases_hold() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let path = Path::new(&here).join("../../../shared/intents/public.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("CLAW_SHARED").is_none(), "no {}, and the shared data are here", path.display());
        println!("SKIPPED: the public intent cases are not here ({})", path.display());
        return;
    };
    let cases = eval::cases(&text).unwrap();
    let answers: BTreeMap<_, _> =
        cases.iter().map(|case| (case.id.clone(), eval::answer(case, Catalog::builtin()))).collect();
    let report = eval::score(&eval::lines(&text).unwrap(), &answers);
    assert!(
        report.all.rate() >= 0.97 && report.all.inventions == 0 && report.wrong_outcomes <= 2,
        "{}",
        report.table()
    );
}
