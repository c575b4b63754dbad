//! Shell words: a command line as an argument list, without running a shell.
//!
//! Quotes and backslashes work as in POSIX `sh`. What only a shell can do
//! (pipes, redirections, expansions, several commands) is not imitated: the
//! caller is told which character needs one.

/// A command line that is not a plain argument list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShellError {
    /// A quote that never ends.
    #[error("the quote {quote} is never closed")]
    OpenQuote {
        /// The quote.
        quote: char,
    },
    /// A backslash with nothing behind it.
    #[error("the command ends in a backslash")]
    OpenEscape,
    /// Something that only a shell does.
    #[error("{what} needs a shell")]
    NeedsShell {
        /// The character or form.
        what: String,
    },
    /// No word at all.
    #[error("the command is empty")]
    Empty,
}

/// The argument list of a command line.
pub(crate) fn split(line: &str) -> Result<Vec<String>, ShellError> {
    let mut chars = line.trim().chars().peekable();
    let mut argv: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    while let Some(c) = chars.next() {
        match c {
            '\n' => return Err(needs_shell("a second line")),
            c if c.is_whitespace() => argv.extend(word.take()),
            '\'' => quoted_single(&mut chars, word.get_or_insert_default())?,
            '"' => quoted_double(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err(ShellError::OpenEscape),
            },
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' => {
                return Err(needs_shell(c));
            }
            '~' | '#' if word.is_none() => return Err(needs_shell(c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    argv.extend(word);
    match argv.first() {
        None => Err(ShellError::Empty),
        Some(first) if is_assignment(first) => Err(needs_shell(first)),
        Some(_) => Ok(argv),
    }
}

fn needs_shell(what: impl ToString) -> ShellError {
    ShellError::NeedsShell { what: what.to_string() }
}

fn quoted_single(chars: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), ShellError> {
    for c in chars {
        if c == '\'' {
            return Ok(());
        }
        word.push(c);
    }
    Err(ShellError::OpenQuote { quote: '\'' })
}

fn quoted_double(chars: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), ShellError> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '$' | '`' => return Err(needs_shell(c)),
            '\\' => match chars.next() {
                Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                Some('\n') => {}
                Some(next) => {
                    word.push('\\');
                    word.push(next);
                }
                None => return Err(ShellError::OpenEscape),
            },
            c => word.push(c),
        }
    }
    Err(ShellError::OpenQuote { quote: '"' })
}

/// `NAME=value` before the program, which a shell would put into the environment.
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(text: &str) -> String {
        format!("'{}'", text.replace('\'', r"'\''"))
    }

    #[test]
    fn words_are_split_as_sh_does() {
        let cases: &[(&str, &[&str])] = &[
            ("nvidia-smi -L", &["nvidia-smi", "-L"]),
            ("  echo   'a  b' c\"d e\"f ", &["echo", "a  b", "cd ef"]),
            (r#"echo "a \"q\" \n" \$5 ''"#, &["echo", r#"a "q" \n"#, "$5", ""]),
            ("sh -c 'ls | wc -l; echo $HOME'", &["sh", "-c", "ls | wc -l; echo $HOME"]),
            ("torchrun \\\n  train.py", &["torchrun", "train.py"]),
            ("env A=1 x", &["env", "A=1", "x"]),
        ];
        for (line, argv) in cases {
            let expected: Vec<String> = argv.iter().map(ToString::to_string).collect();
            assert_eq!(split(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_needs_a_shell_is_named() {
        let cases = [
            ("ls | wc", "|"),
            ("a && b", "&"),
            ("a; b", ";"),
            ("a > f", ">"),
            ("echo $HOME", "$"),
            ("echo \"$HOME\"", "$"),
            ("ls *.txt", "*"),
            ("ls ~/x", "~"),
            ("a\nb", "a second line"),
            ("A=1 x", "A=1"),
        ];
        for (line, what) in cases {
            let expected = Err(needs_shell(what));
            assert_eq!(split(line), expected, "{line}");
        }
        assert_eq!(split("echo 'a"), Err(ShellError::OpenQuote { quote: '\'' }));
        assert_eq!(split(" "), Err(ShellError::Empty));
    }

    proptest::proptest! {
        #[test]
        fn quoted_words_come_back_whole(words in proptest::collection::vec("[^\0]{0,12}", 1..5)) {
            let words: Vec<String> = std::iter::once("x".to_owned()).chain(words).collect();
            let line = words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
            proptest::prop_assert_eq!(split(&line), Ok(words));
        }
    }
}
