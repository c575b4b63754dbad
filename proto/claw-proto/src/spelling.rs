//! How far one word is from another, for whoever has to guess which name was meant.

/// Most characters of a word that are compared.
pub const COMPARED_CHARS_MAX: usize = 64;

/// Slips between two words, over at most [`COMPARED_CHARS_MAX`] characters of each: a letter put in,
/// left out, changed, or swapped with its neighbor (the most common slip of a keyboard) is one.
pub fn slips(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(COMPARED_CHARS_MAX).collect();
    let b: Vec<char> = b.chars().take(COMPARED_CHARS_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut next = vec![i + 1];
        for j in 0..b.len() {
            let changed = row[j] + usize::from(a[i] != b[j]);
            let mut least = changed.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        for (a, b, expected) in [
            ("", "", 0),
            ("llama", "llama", 0),
            ("", "abc", 3),
            ("lama", "llama", 1),
            ("llamma", "llama", 1),
            ("llema", "llama", 1),
            ("lalma", "llama", 1),
            ("grüße", "grusse", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(slips(a, b), expected, "{a} {b}");
            assert_eq!(slips(b, a), expected, "{b} {a}");
        }
        assert_eq!(slips(&"a".repeat(90), &"a".repeat(70)), 0, "only the beginning counts");
    }
}
