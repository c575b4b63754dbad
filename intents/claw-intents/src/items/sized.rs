//! A model's family and its size that do not stand side by side: "the 70b llama",
//! "gemma 2 with 27b", "mixtral 8 x 7b".

use crate::catalog::Catalog;
use crate::catalog::resolve::Resolution;

use super::{Item, Kind};

/// Most items between a family's name and the size behind it.
const BETWEEN_MAX: usize = 3;

/// Puts the size that stands near a family's name to it, where both together name one model.
pub(super) fn join<'c>(list: &mut [Item<'c>], catalog: &'c Catalog) {
    for at in 0..list.len() {
        if !matches!(list[at].kind, Kind::Model(Resolution::Several(_) | Resolution::NoSuch(_))) {
            continue;
        }
        let name = list[at].text.replace("'s", "");
        let found = candidates(list, at).into_iter().find_map(|(from, to, size)| {
            match catalog.resolve(&format!("{name} {size}")) {
                one @ Resolution::One { .. } => Some((from, to, one)),
                _ => None,
            }
        });
        if let Some((from, to, one)) = found {
            list[at].kind = Kind::Model(one);
            for item in &mut list[from..to] {
                item.masked = true;
            }
        }
    }
}

/// Sizes near a name, the nearest first: their items, and how they are written in a name.
fn candidates(list: &[Item<'_>], at: usize) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    if let Some(size) = bare(list, at + 1) {
        found.push((at + 1, at + 2, size));
    }
    for k in at + 1..(at + 2 + BETWEEN_MAX).min(list.len()) {
        if let Some((to, size)) = size_at(list, k) {
            found.push((k, to, size));
            break;
        }
        if !passes(&list[k]) {
            break;
        }
    }
    // "the 70b llama", "the big 72b qwen".
    for k in (at.saturating_sub(2)..at).rev() {
        if let Some((to, size)) = size_at(list, k).filter(|(to, _)| *to <= at) {
            found.push((k, to, size));
            break;
        }
        if list[k].kind != Kind::Word {
            break;
        }
    }
    found
}

/// Words and signs that may stand between a name and its size.
fn passes(item: &Item<'_>) -> bool {
    const WORDS: &[&str] =
        &["the", "in", "de", "with", "mit", "con", "avec", "à", "size", "one", "w/", "at", "of", "en"];
    match item.kind {
        Kind::Punct(sign) => matches!(sign, '(' | ',' | '-' | ':'),
        Kind::Word => WORDS.contains(&item.text.as_str()),
        _ => false,
    }
}

/// A size that begins at an item, and the item behind it.
fn size_at(list: &[Item<'_>], k: usize) -> Option<(usize, String)> {
    let item = list.get(k)?;
    let word = |k: usize| list.get(k).filter(|n| n.kind == Kind::Word).map_or("", |n| n.text.as_str());
    if item.kind == Kind::Word && item.senses.is_empty() {
        let text = ["-parameter", "-param", "-sized"].iter().find_map(|end| item.text.strip_suffix(end));
        let text = text.unwrap_or(&item.text);
        return is_size(text).then(|| (k + 1, text.to_owned()));
    }
    let Kind::Num(n) = item.kind else {
        return None;
    };
    // "27 b", "8 x 7b".
    if matches!(word(k + 1), "b" | "billion" | "bn") {
        return Some((k + 2, format!("{n}b")));
    }
    let (times, size) = (word(k + 1), word(k + 2));
    (matches!(times, "x" | "×") && is_size(size)).then(|| (k + 3, format!("{n}x{size}")))
}

/// "qwen 32", "mixtral 8x22": a size without its letter, right behind the name and counting nothing.
fn bare(list: &[Item<'_>], k: usize) -> Option<String> {
    let size = match list.get(k)?.kind {
        Kind::Num(n) => format!("{n}b"),
        Kind::Cross(a, b) => format!("{a}x{b}b"),
        _ => return None,
    };
    let counts = list.get(k + 1).is_some_and(|next| {
        matches!(next.kind, Kind::Gpu { .. } | Kind::Num(_))
            || next.senses.iter().any(|s| s.starts_with("noun.") || s.starts_with("unit.") || s == "times")
    });
    (!counts).then_some(size)
}

/// 70b, 1.5b, 8x7b.
fn is_size(text: &str) -> bool {
    let Some(body) = text.strip_suffix('b') else {
        return false;
    };
    let number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '.');
    body.split('x').all(number)
}
