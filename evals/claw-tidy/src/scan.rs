//! A small reader of Rust text: where code ends and comments and literals begin, where
//! functions stand, and which parts are compiled for tests only.
//!
//! It is not a parser. It masks comments and literals with blanks of the same length, so
//! that offsets and lines stay true, and then counts brackets. That is enough for rules
//! about size and about words, and it does not need the code to compile.

use std::ops::Range;

/// One Rust file with its masked twin.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path from the root of the repository.
    pub path: String,
    /// The text as it stands in the file.
    pub text: String,
    /// The same text, byte for byte as long, with every comment and every content of a
    /// string or character literal replaced by blanks (newlines are kept).
    pub code: String,
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of the `fn` keyword, from 1.
    pub first_line: usize,
    /// Line of the closing brace.
    pub last_line: usize,
    /// Bytes from the `fn` keyword to the closing brace.
    pub span: Range<usize>,
}

impl Function {
    /// Lines from `fn` to the closing brace, both included.
    pub fn lines(&self) -> usize {
        self.last_line - self.first_line + 1
    }
}

impl Source {
    /// Reads one file's text.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: mask(text) }
    }

    /// The line of a byte offset, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        line_of(&self.text, offset)
    }

    /// Every function that has a body, nested ones too.
    pub fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for at in words(&self.code, "fn") {
            let name = identifier(&self.code, skip_blanks(bytes, at + 2));
            if name.is_empty() {
                continue; // the type `fn(...)`
            }
            let Some(open) = body_start(bytes, at) else {
                continue; // a declaration without a body
            };
            let end = matching_brace(bytes, open);
            found.push(Function {
                name: name.to_owned(),
                first_line: self.line_of(at),
                last_line: self.line_of(end),
                span: at..end + 1,
            });
        }
        found
    }

    /// The innermost function around an offset.
    pub fn enclosing_function(&self, offset: usize) -> Option<Function> {
        let around = |f: &Function| f.span.contains(&offset);
        let inner_first = |f: &Function| f.span.len();
        self.functions().into_iter().filter(around).min_by_key(inner_first)
    }

    /// The byte ranges of items marked `#[cfg(test)]`.
    pub fn test_spans(&self) -> Vec<Range<usize>> {
        let bytes = self.code.as_bytes();
        let mut spans = Vec::new();
        for (at, attribute) in self.code.match_indices(CFG_TEST) {
            let after = at + attribute.len();
            let end = match body_start(bytes, after) {
                Some(open) => matching_brace(bytes, open),
                None => next_semicolon(bytes, after),
            };
            spans.push(at..end + 1);
        }
        spans
    }

    /// Names of the modules that this file declares with `#[cfg(test)] mod name;`.
    pub fn test_modules(&self) -> Vec<String> {
        let bytes = self.code.as_bytes();
        let mut names = Vec::new();
        for span in self.test_spans() {
            let item = skip_blanks(bytes, span.start + CFG_TEST.len());
            let rest = self.code.get(item..span.end).unwrap_or_default();
            let declared = rest.strip_prefix("mod ").and_then(|r| r.strip_suffix(';'));
            if let Some(name) = declared {
                names.push(name.trim().to_owned());
            }
        }
        names
    }

    /// Offsets at which `needle` stands in code as a whole path or word: what is before
    /// and after it is no part of an identifier.
    pub fn code_words(&self, needle: &str) -> Vec<usize> {
        words(&self.code, needle)
    }

    /// Lines that hold code: not blank, not only a comment.
    pub fn code_lines(&self) -> usize {
        let has_code = |line: &&str| !line.trim().is_empty();
        self.code.lines().filter(has_code).count()
    }
}

const CFG_TEST: &str = "#[cfg(test)]";

/// The line of a byte offset in a text, from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.split(|byte| *byte == b'\n').count()
}

/// Replaces comments and the content of literals by blanks, keeping every newline and the
/// length in bytes.
pub fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment_end(bytes, at);
        match end {
            Some(end) => {
                for slot in &mut out[at..end.min(bytes.len())] {
                    if *slot != b'\n' {
                        *slot = b' ';
                    }
                }
                at = end;
            }
            None => at += 1,
        }
    }
    // Only whole characters were blanked, so this is the text again in UTF-8.
    String::from_utf8_lossy(&out).into_owned()
}

/// If a comment or literal starts at `at`, the offset just behind it.
fn literal_or_comment_end(bytes: &[u8], at: usize) -> Option<usize> {
    let next = bytes.get(at + 1).copied().unwrap_or_default();
    match bytes[at] {
        b'/' if next == b'/' => Some(line_comment_end(bytes, at)),
        b'/' if next == b'*' => Some(block_comment_end(bytes, at)),
        b'"' => Some(string_end(bytes, at)),
        b'\'' => char_end(bytes, at),
        b'r' => raw_string_end(bytes, at),
        _ => None,
    }
}

fn line_comment_end(bytes: &[u8], at: usize) -> usize {
    let newline = bytes[at..].iter().position(|byte| *byte == b'\n');
    newline.map_or(bytes.len(), |length| at + length)
}

/// Block comments nest in Rust.
fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut here = at;
    while here < bytes.len() {
        if bytes[here..].starts_with(b"/*") {
            depth += 1;
            here += 2;
        } else if bytes[here..].starts_with(b"*/") {
            depth -= 1;
            here += 2;
            if depth == 0 {
                return here;
            }
        } else {
            here += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b'"' => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

/// Tells a character literal from a lifetime: a literal is closed by a quote after one
/// character or one escape.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    let first = *bytes.get(at + 1)?;
    if first == b'\\' {
        let close = bytes.get(at + 3..)?.iter().position(|byte| *byte == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let width = match first {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    };
    let close = at + 1 + width;
    (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
}

/// `r"..."`, `r#"..."#`, also behind `b` or `c`; `r#name` is an identifier.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|index| bytes[index]);
    let prefixed =
        matches!(before, Some(b'b' | b'c')) && !at.checked_sub(2).is_some_and(|index| is_identifier_byte(bytes[index]));
    if before.is_some_and(is_identifier_byte) && !prefixed {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let quote = at + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = bytes.get(quote + 1..)?;
    let length = body.windows(close.len()).position(|window| window == close.as_slice());
    Some(length.map_or(bytes.len(), |n| quote + 1 + n + close.len()))
}

fn is_identifier_byte(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Offsets of `needle` in `code` with no identifier character on either side.
pub fn words(code: &str, needle: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let is_open = |index: Option<usize>| !index.and_then(|i| bytes.get(i)).copied().is_some_and(is_identifier_byte);
    code.match_indices(needle)
        .map(|(at, _)| at)
        .filter(|at| is_open(at.checked_sub(1)) && is_open(Some(at + needle.len())))
        .collect()
}

/// The identifier that starts at `at`, or the empty string.
pub fn identifier(code: &str, at: usize) -> &str {
    let rest = code.get(at..).unwrap_or_default();
    let end = rest.bytes().position(|byte| !is_identifier_byte(byte)).unwrap_or(rest.len());
    &rest[..end]
}

/// The offset of the first byte at or after `at` that is not white space.
pub fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
    at + blanks.count()
}

/// The `{` that opens the item whose head starts at `at`; none if a `;` ends it first.
/// Brackets of the head (arguments, attributes, array types) are stepped over.
fn body_start(bytes: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (index, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(index),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn next_semicolon(bytes: &[u8], at: usize) -> usize {
    let found = bytes.iter().skip(at).position(|byte| *byte == b';');
    found.map_or(bytes.len().saturating_sub(1), |length| at + length)
}

/// The `}` that closes the `{` at `open`; the last byte if the text ends before.
fn matching_brace(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return index;
                }
            }
            _ => {}
        }
    }
    bytes.len().saturating_sub(1)
}

#[cfg(test)]
mod tests;
