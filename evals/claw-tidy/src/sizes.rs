//! Files, functions and `main` stay small enough to be read in one go.

use crate::Finding;
use crate::scan::Source;

/// Most lines of a Rust file.
pub const FILE_LINES: usize = 600;
/// Most lines of a function, from `fn` to its closing brace.
pub const FUNCTION_LINES: usize = 70;
/// Most lines of a `main`.
pub const MAIN_LINES: usize = 60;

/// Finds files that are too long.
pub fn check_files(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            findings.push(Finding::new(
                &source.path,
                FILE_LINES + 1,
                format!("the file has {lines} lines, at most {FILE_LINES} are allowed"),
                "split it by what the parts own (not into `utils`); move tests to `<module>/tests.rs`",
            ));
        }
    }
    findings
}

/// Finds functions that are too long.
pub fn check_functions(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for function in source.functions() {
            let most = match function.name.as_str() {
                "main" => MAIN_LINES,
                _ => FUNCTION_LINES,
            };
            let lines = function.lines();
            if lines > most {
                findings.push(Finding::new(
                    &source.path,
                    function.first_line,
                    format!("`fn {}` has {lines} lines, at most {most} are allowed", function.name),
                    "pull a step with a name of its own out of it",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, lines: usize) -> Source {
        let body = "    x();\n".repeat(lines - 2);
        Source::new("a.rs", &format!("fn {name}() {{\n{body}}}\n"))
    }

    #[test]
    fn limits_are_inclusive() {
        let long = |lines| check_functions(&[function("f", lines)]).len();
        assert_eq!((long(FUNCTION_LINES), long(FUNCTION_LINES + 1)), (0, 1));
        let main = |lines| check_functions(&[function("main", lines)]).len();
        assert_eq!((main(MAIN_LINES), main(MAIN_LINES + 1)), (0, 1));
        let file = |lines| check_files(&[Source::new("a.rs", &"\n".repeat(lines))]).len();
        assert_eq!((file(FILE_LINES), file(FILE_LINES + 1)), (0, 1));
    }

    #[test]
    fn braces_in_literals_do_not_hide_a_long_function() {
        let mut source = function("f", FUNCTION_LINES + 1);
        let text = source.text.replacen("x();", "x('}', \"}\");", 3);
        source = Source::new("a.rs", &text);
        let findings = check_functions(&[source]);
        assert_eq!(findings[0].line, 1);
        assert!(findings[0].problem.contains("71 lines"), "{findings:?}");
    }
}
