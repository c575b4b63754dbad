//! The two shell scripts stay small, and CI runs what a person runs.

use crate::Finding;
use crate::repo::Repo;

/// `dev` is one screen.
pub const DEV_LINES: usize = 80;

/// What `.ci/run` must call: the same commands that a person has.
const CI_CALLS: [&str; 3] = ["./dev lint", "./dev test", "./dev demo"];

/// The words that `dev` understands.
const DEV_WORDS: [&str; 8] = ["demo", "test", "lint", "bench", "fuzz", "soak", "claw", "help"];

/// Finds a `dev` that outgrew its screen or lost a word, and a `.ci/run` of its own mind.
pub fn check_scripts(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    let dev = repo.text("dev").unwrap_or_default();
    let lines = dev.lines().count();
    if lines == 0 || lines > DEV_LINES {
        let problem = format!("dev has {lines} lines, between 1 and {DEV_LINES} are wanted");
        let fix = "what a test or a Rust program can do does not belong into the script";
        findings.push(Finding::new("dev", 0, problem, fix));
    }
    for word in DEV_WORDS {
        let arm = |line: &str| {
            let head = line.trim_start().split(')').next().unwrap_or_default();
            line.contains(')') && head.split('|').any(|part| part.trim() == word)
        };
        if !dev.lines().any(arm) {
            let problem = format!("dev does not know `{word}`");
            findings.push(Finding::new("dev", 0, problem, "give it a `case` arm"));
        }
    }
    let ci = repo.text(".ci/run").unwrap_or_default();
    for call in CI_CALLS {
        if !ci.contains(call) {
            let problem = format!(".ci/run does not call `{call}`");
            findings.push(Finding::new(".ci/run", 0, problem, "CI is what one runs by hand"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_words_and_calls_are_found() {
        let dev = "case $1 in\n  demo) x;;\n  test|lint) x;;\n  bench) ;;\n  fuzz) ;;\n  soak) ;;\n  claw) ;;\n  help|*) ;;\nesac\n";
        let ci = "./dev lint\n./dev test\n./dev demo\n";
        let found = |dev: &str, ci: &str| {
            let repo = Repo::sample(&[("dev", dev), (".ci/run", ci)]);
            check_scripts(&repo).len()
        };
        assert_eq!(found(dev, ci), 0);
        assert_eq!(found(&dev.replace("lint", "lnit"), ci), 1);
        assert_eq!(found(dev, &ci.replace("./dev demo", "")), 1);
        assert_eq!(found(&dev.replace("esac", &"\n".repeat(DEV_LINES)), ci), 1);
    }
}
