//! The lexicon: which phrases say what, in five languages.
//!
//! It is data (`intents/lexicon/*.toml`): a sense such as `act.run` and the
//! phrases that say it. The grammar speaks of senses only, so that a new alias
//! or language is a change of the data.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use crate::text::{Kind, Token, Words};

/// A language beside English, in which a text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lang {
    /// English, and what all languages share.
    English,
    German,
    Spanish,
    French,
    Chinese,
}

const FILES: &[(Lang, &str)] = &[
    (Lang::English, include_str!("../../lexicon/common.toml")),
    (Lang::English, include_str!("../../lexicon/en.toml")),
    (Lang::German, include_str!("../../lexicon/de.toml")),
    (Lang::Spanish, include_str!("../../lexicon/es.toml")),
    (Lang::French, include_str!("../../lexicon/fr.toml")),
    (Lang::Chinese, include_str!("../../lexicon/zh.toml")),
];
const LANGS: usize = 5;
/// Parts the halves of a phrase that has something between them.
const GAP: char = '…';
/// Most words between the halves of such a phrase.
const GAP_WORDS_MAX: usize = 9;
/// Fewest letters of a word whose misspelling is understood.
const TYPO_LETTERS_MIN: usize = 5;

/// What a phrase may mean: in English, and in the text's other language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Senses {
    english: &'static [&'static str],
    other: &'static [&'static str],
    /// A bit for each meaning, so that most of what a phrase does not mean is seen at once.
    bits: u64,
}

/// The bit of a meaning; several meanings may share one.
#[inline]
const fn bit(sense: &str) -> u64 {
    let bytes = sense.as_bytes();
    let len = bytes.len();
    if len == 0 {
        return 1;
    }
    let (mid, last) = (bytes[len / 2] as usize, bytes[len - 1] as usize);
    1 << ((len * 7 + mid * 3 + last) & 63)
}

impl Senses {
    /// Whether this is one of the meanings.
    #[inline]
    pub(crate) fn has(self, sense: &str) -> bool {
        // No meaning at all is the most frequent case, and needs no bits.
        !self.is_empty() && self.bits & bit(sense) != 0 && self.contains(sense)
    }

    fn contains(self, sense: &str) -> bool {
        self.english.contains(&sense) || self.other.contains(&sense)
    }

    /// What follows a prefix such as `num.` in the first meaning that begins with it.
    pub(crate) fn after(self, prefix: &str) -> Option<&'static str> {
        self.iter().find_map(|sense| sense.strip_prefix(prefix))
    }

    /// Every meaning.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'static str> {
        self.english.iter().chain(self.other).copied()
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(self) -> bool {
        self.english.is_empty() && self.other.is_empty()
    }
}

#[derive(Debug)]
struct Entry {
    words: Vec<String>,
    senses: [Vec<&'static str>; LANGS],
    bits: [u64; LANGS],
}

/// A phrase in two parts with something between them: "take … out of rotation".
#[derive(Debug)]
struct Gap {
    lang: Lang,
    sense: &'static str,
    head: Vec<String>,
    tail: Vec<String>,
}

/// What is kept by a word. The words are our own, so that a plain hash will do.
type ByWord<V> = FxHashMap<String, V>;

/// All phrases by their first word.
#[derive(Debug)]
pub(crate) struct Lexicon {
    by_first: ByWord<Vec<Entry>>,
    /// Phrases in two parts, by the first word of the first part.
    gaps: ByWord<Vec<Gap>>,
    /// Single words of which a misspelling is understood, by first letter.
    correctable: HashMap<char, Spelled>,
    /// Words of phrases of several words, by first letter.
    parts: HashMap<char, Spelled>,
}

/// Words that begin with the same letter, by how many letters they have.
#[derive(Debug, Default)]
struct Spelled {
    by_len: Vec<Vec<Spelling>>,
    count: usize,
}

/// A word, its letters, and its place in the order of the lexicon.
#[derive(Debug)]
struct Spelling {
    place: usize,
    word: String,
    letters: Vec<char>,
}

impl Spelled {
    fn add(&mut self, word: &str, letters: Vec<char>) {
        if self.has(word, letters.len()) {
            return;
        }
        if self.by_len.len() <= letters.len() {
            self.by_len.resize_with(letters.len() + 1, Vec::new);
        }
        let len = letters.len();
        self.by_len[len].push(Spelling { place: self.count, word: word.to_owned(), letters });
        self.count += 1;
    }

    /// Whether a word of so many letters is one of these.
    fn has(&self, word: &str, len: usize) -> bool {
        self.by_len.get(len).is_some_and(|all| all.iter().any(|known| known.word == word))
    }
}

impl Lexicon {
    /// The lexicon of this build.
    pub(crate) fn get() -> &'static Self {
        static LEXICON: OnceLock<Lexicon> = OnceLock::new();
        LEXICON.get_or_init(Self::load)
    }

    fn load() -> Self {
        let mut lexicon = Self {
            by_first: ByWord::default(),
            gaps: ByWord::default(),
            correctable: HashMap::new(),
            parts: HashMap::new(),
        };
        for (lang, text) in FILES {
            let table: BTreeMap<String, Vec<String>> =
                toml::from_str(text).expect("the lexicon is read by a test of every build");
            for (sense, phrases) in table {
                // Lives as long as the program, as the lexicon does.
                let sense: &'static str = Box::leak(sense.into_boxed_str());
                for phrase in phrases {
                    lexicon.add(*lang, sense, &phrase);
                    // "dont", "whats": people leave the apostrophe out.
                    let bare = phrase.replace("n't", "nt").replace("hat's", "hats").replace("ho's", "hos");
                    if bare != phrase && *lang == Lang::English {
                        lexicon.add(*lang, sense, &bare);
                    }
                    // "fine-tuning", "fine tuning", "finetuning".
                    for variant in unhyphened(&phrase).into_iter().flatten().filter(|_| *lang == Lang::English) {
                        lexicon.add(*lang, sense, &variant);
                    }
                    // "it keeps crashing", "why does it keep crashing".
                    if let Some(base) =
                        base_form(&phrase).filter(|_| *lang == Lang::English && sense.starts_with("sym."))
                    {
                        lexicon.add(*lang, sense, &base);
                    }
                }
            }
        }
        for entries in lexicon.by_first.values_mut() {
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.words.len()));
        }
        lexicon
    }

    fn add(&mut self, lang: Lang, sense: &'static str, phrase: &str) {
        if let Some((head, tail)) = phrase.split_once(GAP) {
            let words = |part: &str| part.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let (head, tail) = (words(head), words(tail));
            self.gaps.entry(head[0].clone()).or_default().push(Gap { lang, sense, head, tail });
            return;
        }
        let words: Vec<String> = Words::new(phrase).tokens.into_iter().map(|t| t.text).collect();
        let Some(first) = words.first().cloned() else {
            return;
        };
        if words.len() == 1 && first.chars().count() >= TYPO_LETTERS_MIN && first.chars().all(char::is_alphabetic) {
            let letters: Vec<char> = first.chars().collect();
            self.correctable.entry(letters[0]).or_default().add(&first, letters);
        }
        for word in words.iter().filter(|w| words.len() > 1 && w.chars().count() >= TYPO_LETTERS_MIN) {
            let letters: Vec<char> = word.chars().collect();
            if letters.iter().all(|c| c.is_alphabetic()) {
                self.parts.entry(letters[0]).or_default().add(word, letters);
            }
        }
        let entries = self.by_first.entry(first).or_default();
        let at = if let Some(at) = entries.iter().position(|entry| entry.words == words) {
            at
        } else {
            entries.push(Entry { words, senses: Default::default(), bits: Default::default() });
            entries.len() - 1
        };
        entries[at].bits[lang as usize] |= bit(sense);
        let senses = &mut entries[at].senses[lang as usize];
        if !senses.contains(&sense) {
            senses.push(sense);
        }
    }

    /// The longest phrase that begins at a token: how many tokens, and its meanings.
    pub(crate) fn at(&'static self, tokens: &[Token], i: usize, lang: Lang) -> Option<(usize, Senses)> {
        let entries = self.by_first.get(plain(tokens.get(i)?)?)?;
        entries.iter().find_map(|entry| {
            let senses = entry.senses(lang)?;
            let len = entry.words.len();
            let same = (1..len).all(|k| tokens.get(i + k).and_then(plain) == Some(entry.words[k].as_str()));
            same.then_some((len, senses))
        })
    }

    /// Whether a phrase in two parts begins with this word.
    pub(crate) fn begins_gap(&self, word: &str) -> bool {
        self.gaps.contains_key(word)
    }

    /// What the phrases in two parts say that begin with the first of these words, and where
    /// among the words the second part begins. A number stands as `#`.
    pub(crate) fn gaps_at(&'static self, words: &[&str], lang: Lang) -> Vec<(&'static str, usize)> {
        let Some(gaps) = words.first().and_then(|first| self.gaps.get(*first)) else {
            return Vec::new();
        };
        let begins = |from: usize, part: &[String]| {
            part.iter().enumerate().all(|(k, word)| words.get(from + k).is_some_and(|w| w == word))
        };
        gaps.iter()
            .filter(|gap| (gap.lang == Lang::English || gap.lang == lang) && begins(0, &gap.head))
            .filter_map(|gap| {
                let from = gap.head.len() + 1;
                let to = words.len().min(from + GAP_WORDS_MAX);
                (from..to).find(|at| begins(*at, &gap.tail)).map(|at| (gap.sense, at))
            })
            .collect()
    }

    /// What a single word may mean.
    pub(crate) fn word(&'static self, word: &str, lang: Lang) -> Option<Senses> {
        self.by_first.get(word)?.iter().find(|entry| entry.words.len() == 1)?.senses(lang)
    }

    /// The one known word that a misspelled word means; of several that mean the same, the first.
    /// What begins with one of the expected meanings goes first: behind a number a unit is meant,
    /// at the start of a clause an order.
    pub(crate) fn corrected(&'static self, word: &str, lang: Lang, expected: &str) -> Option<&'static str> {
        let found: Vec<(&'static str, Senses)> =
            near(&self.correctable, word).filter_map(|known| Some((known, self.word(known, lang)?))).collect();
        let fitting: Vec<_> = found
            .iter()
            .copied()
            .filter(|(_, s)| !expected.is_empty() && s.iter().any(|s| s.starts_with(expected)))
            .collect();
        let found = if fitting.is_empty() { found } else { fitting };
        let ((first, senses), rest) = found.split_first()?;
        let shared = |sense: &&str| rest.iter().all(|(_, other)| other.has(sense));
        (rest.is_empty() || senses.iter().any(|sense| shared(&sense))).then_some(*first)
    }

    /// What a token should have been that is no known word, where that makes a phrase of several
    /// words with those around it: "best efort", "scrtch that".
    pub(crate) fn respelled(&'static self, tokens: &[Token], i: usize, lang: Lang) -> Option<&'static str> {
        let word = plain(tokens.get(i)?)?;
        let first = word.chars().next()?;
        let part = || self.parts.get(&first).is_some_and(|all| all.has(word, word.chars().count()));
        if self.word(word, lang).is_some() || part() {
            return None;
        }
        let from = i.saturating_sub(3);
        let mut window: Vec<Token> = tokens[from..tokens.len().min(i + 4)].to_vec();
        let mut found = None;
        for known in near(&self.parts, word) {
            known.clone_into(&mut window[i - from].text);
            let whole = (from..=i)
                .any(|start| self.at(&window, start - from, lang).is_some_and(|(len, _)| len > 1 && start + len > i));
            if whole && found.replace(known).is_some() {
                return None;
            }
        }
        found
    }

    /// The language of a text beside English: the one with the most words that English does not have.
    pub(crate) fn language(&'static self, tokens: &[Token]) -> Lang {
        if tokens.iter().any(|t| t.text.chars().next().is_some_and(crate::text::is_ideograph)) {
            return Lang::Chinese;
        }
        let mut own = [0_usize; LANGS];
        for token in tokens {
            let Some(entry) = plain(token)
                .and_then(|word| self.by_first.get(word))
                .and_then(|all| all.iter().find(|e| e.words.len() == 1))
            else {
                continue;
            };
            let english = !entry.senses[0].is_empty();
            own[0] += usize::from(english);
            for lang in [Lang::German, Lang::Spanish, Lang::French] {
                own[lang as usize] += usize::from(!english && !entry.senses[lang as usize].is_empty());
            }
        }
        let best = [Lang::German, Lang::Spanish, Lang::French].into_iter().max_by_key(|lang| own[*lang as usize]);
        best.filter(|lang| own[*lang as usize] >= 1 && own[*lang as usize] * 2 >= own[0]).unwrap_or(Lang::English)
    }
}

impl Entry {
    fn senses(&'static self, lang: Lang) -> Option<Senses> {
        let other: &'static [&'static str] = if lang == Lang::English { &[] } else { &self.senses[lang as usize] };
        let bits = self.bits[0] | if lang == Lang::English { 0 } else { self.bits[lang as usize] };
        let senses = Senses { english: &self.senses[0], other, bits };
        (!senses.is_empty()).then_some(senses)
    }
}

/// The words of a list that differ from a word by one slip at most.
fn near<'l>(list: &'l HashMap<char, Spelled>, word: &str) -> impl Iterator<Item = &'l str> + use<'l> {
    let letters: Vec<char> = word.chars().collect();
    let len = letters.len();
    let all = letters.first().filter(|_| len + 1 >= TYPO_LETTERS_MIN).and_then(|first| list.get(first));
    let alike = all.into_iter().flat_map(|all| all.by_len.iter().take(len + 2).skip(len.saturating_sub(1)).flatten());
    let mut found: Vec<(usize, &'l str)> = alike
        .filter(|known| one_slip(&letters, &known.letters))
        .map(|known| (known.place, known.word.as_str()))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, word)| word)
}

/// A phrase with a hyphen between two words, with a space or nothing in its place.
fn unhyphened(phrase: &str) -> Option<[String; 2]> {
    let (head, tail) = phrase.split_once('-')?;
    let word = |text: Option<&str>| text.is_some_and(|t| t.len() > 1 && t.chars().all(char::is_alphabetic));
    let parts = word(head.rsplit(' ').next()) && word(tail.split(' ').next()) && !phrase.contains(GAP);
    parts.then(|| [format!("{head} {tail}"), format!("{head}{tail}")])
}

/// A phrase of several words that begins with a verb of the third person, in the form behind "does":
/// "keeps crashing" and "keep crashing".
fn base_form(phrase: &str) -> Option<String> {
    let (first, rest) = phrase.split_once(' ')?;
    // "go down to one replica" tells of no failure.
    if first == "goes" {
        return None;
    }
    let verb = ["shes", "ches", "xes", "sses", "oes"].iter().any(|end| first.ends_with(end));
    let stem = first.strip_suffix(if verb { "es" } else { "s" })?;
    (!stem.ends_with('s') && stem.len() > 1 && stem.chars().all(char::is_alphabetic)).then(|| format!("{stem} {rest}"))
}

/// The text of a token that is no quote.
fn plain(token: &Token) -> Option<&str> {
    match token.kind {
        Kind::Word | Kind::Symbol(_) => Some(&token.text),
        Kind::Quote(_) => None,
    }
}

/// Whether two words differ by one slip at most: a letter wrong, missing, too
/// many, or two neighbors swapped.
pub(crate) fn one_slip(a: &[char], b: &[char]) -> bool {
    let prefix = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);
    match (a, b) {
        ([] | [_], [] | [_]) => true,
        ([a1, a2], [b1, b2]) => a1 == b2 && a2 == b1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHRASE_WORDS_MAX: usize = 8;

    #[test]
    fn a_phrase_in_two_parts_has_both() {
        for (_, text) in FILES {
            let table: BTreeMap<String, Vec<String>> = toml::from_str(text).unwrap();
            for phrase in table.into_values().flatten().filter(|p| p.contains(GAP)) {
                let parts: Vec<&str> = phrase.split(GAP).map(str::trim).collect();
                assert_eq!(parts.len(), 2, "{phrase:?}");
                assert!(parts.iter().all(|part| !part.is_empty()), "{phrase:?}");
            }
        }
        let words = ["take", "h100-3", "out", "of", "rotation"];
        assert_eq!(Lexicon::get().gaps_at(&words, Lang::English), [("act.drain", 2)]);
    }

    #[test]
    fn phrases_are_short_and_lower_case() {
        for (_, text) in FILES {
            let table: BTreeMap<String, Vec<String>> = toml::from_str(text).unwrap();
            for (sense, phrases) in table {
                for phrase in phrases {
                    let words = Words::new(&phrase).tokens.len();
                    assert!((1..=PHRASE_WORDS_MAX).contains(&words), "{sense}: {phrase:?} has {words} words");
                    assert_eq!(phrase, phrase.to_lowercase(), "{sense}");
                }
            }
        }
    }

    #[test]
    fn the_longest_phrase_wins_and_a_slip_is_understood() {
        let lexicon = Lexicon::get();
        let tokens = Words::new("roll back the deploymnt").tokens;
        let (len, senses) = lexicon.at(&tokens, 0, Lang::English).unwrap();
        assert_eq!((len, senses.has("act.rollback")), (2, true));
        assert_eq!(lexicon.corrected("deploymnt", Lang::English, ""), Some("deployment"));
        assert_eq!(lexicon.corrected("xyzzy", Lang::English, ""), None);
    }
}
