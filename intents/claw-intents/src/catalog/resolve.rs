//! Which model a name in words means.
//!
//! A name is the family's, then words that narrow it: size, version, variant.
//! Text is compared in atoms, so that "Llama 3.3 70B", "llama-3.3-70b" and
//! "Llama3.3 70b" are the same.

use super::{Catalog, Model};
use crate::lexicon::one_slip;

/// What a name in words means.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution<'c> {
    /// This model.
    One {
        /// The model.
        model: &'c Model,
        /// Other models that the words fit too, if one was preferred.
        alternatives: Vec<&'c Model>,
    },
    /// Several: a person must choose.
    Several(Vec<&'c Model>),
    /// A known family, but no such member: the nearest ones.
    NoSuch(Vec<&'c Model>),
    /// Not the name of any model.
    Unknown,
}

/// A model name found at the start of some words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NameMatch<'c> {
    /// How many words it takes.
    pub(crate) words: usize,
    /// What it means.
    pub(crate) resolution: Resolution<'c>,
    /// The family's name as it should have been written, if it was corrected.
    pub(crate) corrected: Option<String>,
}

/// Words that may follow a family's name and narrow it, whether or not the
/// catalogue has such a member: they must not be dropped.
const VARIANTS: &[&str] = &[
    "instruct", "chat", "base", "coder", "vl", "vision", "guard", "mini", "small", "medium", "large", "turbo",
    "distill", "lite", "nemo", "schnell", "dev", "tiny", "thinking", "math", "xl",
];

impl Catalog {
    /// Which model these words mean, all of them taken as a name.
    pub fn resolve(&self, words: &str) -> Resolution<'_> {
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let refs: Vec<&str> = words.iter().map(String::as_str).collect();
        match self.name_at(&refs, false) {
            Some(found) if found.words == refs.len() => found.resolution,
            _ => Resolution::Unknown,
        }
    }

    /// The model name at the start of these lower-case words, if there is one.
    ///
    /// `misspelled` asks for a family's name with one slip in it instead.
    pub(crate) fn name_at(&self, words: &[&str], misspelled: bool) -> Option<NameMatch<'_>> {
        let first = words.first()?;
        if let Some(model) = self.models.iter().find(|m| m.is_called(first)) {
            return Some(NameMatch {
                words: 1,
                resolution: Resolution::One { model, alternatives: Vec::new() },
                corrected: None,
            });
        }
        let Some((family, rest_atoms, taken, corrected)) = self.family_at(words, misspelled) else {
            return if misspelled { self.sized_name_at(words) } else { None };
        };
        let members: Vec<&Model> = self.models.iter().filter(|m| m.family.contains(&family)).collect();
        // Something else that begins with the family's name, such as the deployment llama-prod.
        let telling = rest_atoms.iter().any(|atom| {
            is_size(atom) || is_version(atom) || is_number(atom) || members.iter().any(|m| m.key.contains(atom))
        });
        let unkeyed = members.iter().any(|m| m.key.is_empty() && rest_atoms.iter().all(|atom| m.knows(atom)));
        if !rest_atoms.is_empty()
            && !(narrows(&members, &rest_atoms, words.get(taken).copied()) && (telling || unkeyed))
        {
            return None;
        }
        let mut said = rest_atoms;
        let mut used = taken;
        while let Some(word) = words.get(used) {
            let joined = size_in_two(word, words.get(used + 1).copied());
            let (atoms, width) = match &joined {
                Some(size) => (vec![size.clone()], 2),
                None => (atoms(word), 1),
            };
            let again = atoms.iter().any(|atom| is_number(atom) && said.contains(atom));
            if again || !narrows(&members, &atoms, words.get(used + width).copied()) {
                break;
            }
            said.extend(atoms);
            used += width;
        }
        Some(NameMatch { words: used, resolution: choose(&members, &said), corrected })
    }

    /// "mitral 7b": a misspelled family that may be several, of which one has that size.
    fn sized_name_at(&self, words: &[&str]) -> Option<NameMatch<'_>> {
        let first = words.first()?;
        let letters: Vec<char> = first.chars().collect();
        let mut found: Option<NameMatch<'_>> = None;
        for name in self.family_names().iter().filter(|name| alike(&letters, name)) {
            let mut respelled = words.to_vec();
            respelled[0] = name;
            let sized = self.name_at(&respelled, false).filter(|m| m.words > 1);
            let Some(mut sized) = sized.filter(|m| matches!(m.resolution, Resolution::One { .. })) else {
                continue;
            };
            sized.corrected = Some(name.clone());
            if found.replace(sized).is_some() {
                return None;
            }
        }
        found
    }

    /// The family's name at the start of the words: its name, the atoms of the
    /// same word that follow it, how many words it takes, and its correction.
    fn family_at(&self, words: &[&str], misspelled: bool) -> Option<(String, Vec<String>, usize, Option<String>)> {
        let mut best: Option<(String, Vec<String>, usize)> = None;
        let head = atoms(words.first()?).into_iter().next();
        for name in self.family_names() {
            // Most families differ in their first word.
            if head.as_deref().is_some_and(|head| name.split(' ').next() != Some(head)) {
                continue;
            }
            let wanted: Vec<&str> = name.split(' ').collect();
            if let Some((rest, taken)) = starts_with(words, &wanted) {
                let longer = best.as_ref().is_none_or(|(old, ..)| old.len() < name.len());
                if longer {
                    best = Some((name.clone(), rest, taken));
                }
            }
        }
        if let Some((name, rest, taken)) = best {
            return Some((name, rest, taken, None));
        }
        if !misspelled {
            return None;
        }
        let mut typed = atoms(words.first()?);
        if typed.is_empty() {
            return None;
        }
        let head = typed.remove(0);
        let single = self.family_names().iter().map(String::as_str).filter(|name| !name.contains(' '));
        let right = near(&head, single)?;
        Some((right.to_owned(), typed, 1, Some(right.to_owned())))
    }
}

impl Model {
    /// Whether this single word is its id, repository or one of its full names.
    fn is_called(&self, word: &str) -> bool {
        self.id == word || self.repository.eq_ignore_ascii_case(word) || self.names.iter().any(|name| name == word)
    }

    fn knows(&self, atom: &str) -> bool {
        self.key.iter().chain(&self.marks).any(|m| m == atom)
    }
}

/// The one family that a misspelled name means: one slip, the same first letter,
/// and never if two families are as near.
fn near<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let letters: Vec<char> = word.chars().collect();
    let mut found: Option<&str> = None;
    for name in known {
        if alike(&letters, name) {
            if found.is_some() {
                return None;
            }
            found = Some(name);
        }
    }
    found
}

/// Whether a word is a name with one slip in it.
fn alike(letters: &[char], name: &str) -> bool {
    const LETTERS_MIN: usize = 4;
    let named: Vec<char> = name.chars().collect();
    named.len() >= LETTERS_MIN
        && letters.len() + 1 >= LETTERS_MIN
        && named.first() == letters.first()
        && one_slip(letters, &named)
}

/// The model that all these atoms allow.
fn choose<'c>(members: &[&'c Model], said: &[String]) -> Resolution<'c> {
    let allowed: Vec<&Model> = members.iter().copied().filter(|m| said.iter().all(|atom| m.knows(atom))).collect();
    if allowed.is_empty() {
        let same_size: Vec<&Model> =
            members.iter().copied().filter(|m| m.key.iter().any(|key| said.contains(key))).collect();
        let near = if same_size.is_empty() { members.to_vec() } else { same_size };
        return Resolution::NoSuch(near);
    }
    let full: Vec<&Model> =
        allowed.iter().copied().filter(|m| m.key.is_empty() || m.key.iter().any(|key| said.contains(key))).collect();
    match full.as_slice() {
        [] => Resolution::Several(allowed),
        [model] => Resolution::One { model, alternatives: Vec::new() },
        several => match several.iter().find(|m| m.preferred) {
            Some(model) => {
                Resolution::One { model, alternatives: several.iter().copied().filter(|m| m != model).collect() }
            }
            None => Resolution::Several(full),
        },
    }
}

/// Whether a word after the family's name belongs to the model's name.
fn narrows(members: &[&Model], atoms: &[String], next: Option<&str>) -> bool {
    let next_is_size = next.is_some_and(is_size);
    !atoms.is_empty()
        && atoms.iter().all(|atom| {
            is_size(atom)
                || VARIANTS.contains(&atom.as_str())
                || members.iter().any(|m| m.knows(atom))
                || is_version(atom)
                || (is_number(atom) && next_is_size)
        })
}

/// "70 b" as the size "70b".
fn size_in_two(word: &str, next: Option<&str>) -> Option<String> {
    let next = next?;
    let is_unit = matches!(next, "b" | "billion");
    (is_unit && is_number(word)).then(|| format!("{word}b"))
}

/// A size such as 70b, 8x7b, 1.5b, a22b.
fn is_size(atom: &str) -> bool {
    let Some(body) = atom.strip_suffix('b') else {
        return false;
    };
    let body = body.strip_prefix('a').unwrap_or(body);
    !body.is_empty() && body.split('x').all(is_number)
}

/// A version such as v3 or v0.1, or a number with a dot.
fn is_version(atom: &str) -> bool {
    atom.strip_prefix('v').is_some_and(is_number) || (atom.contains('.') && is_number(atom))
}

fn is_number(atom: &str) -> bool {
    atom.starts_with(|c: char| c.is_ascii_digit()) && atom.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// The atoms of a word: parts between `-`, `_`, `/` and `:`, with a name of two
/// or more letters parted from the number that follows it.
fn atoms(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in word.split(['-', '_', '/', ':']).filter(|p| !p.is_empty()) {
        let letters = part.chars().take_while(char::is_ascii_alphabetic).count();
        let rest = part.get(letters..).unwrap_or_default();
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        if letters >= 2 && rest.starts_with(|c: char| c.is_ascii_digit()) {
            found.push(part[..letters].to_owned());
            found.push(rest.to_owned());
        } else {
            found.push(part.to_owned());
        }
    }
    found
}

/// If the words start with these atoms: the rest of the last word's atoms, and
/// how many words were taken.
fn starts_with(words: &[&str], wanted: &[&str]) -> Option<(Vec<String>, usize)> {
    let mut left = wanted;
    let mut taken = 0;
    let mut rest = Vec::new();
    while !left.is_empty() {
        let word = words.get(taken)?;
        taken += 1;
        for atom in atoms(word) {
            match left.split_first() {
                Some((first, others)) if *first == atom => left = others,
                Some(_) => return None,
                None => rest.push(atom),
            }
        }
    }
    Some((rest, taken))
}
