//! Requests that nobody writes: cases cut, doubled, spliced and filled with
//! signs, for what must hold of any text.

use serde_json::Value;

use crate::{Answer, Intent, Source};

/// Characters longest in a made-up request; the engine itself reads more.
const CHARS_MAX: usize = 3_000;
/// Pieces that the grammar takes for something, and such that break encodings.
const PIECES: &[&str] = &[
    "\"",
    "'",
    "`",
    "```",
    "“",
    "»",
    "\n",
    "\n> ",
    " ",
    ",",
    ";",
    ".",
    "…",
    "?",
    "[",
    "]",
    "{",
    "}",
    "{\"a\":",
    "[\"",
    "=",
    ":",
    "/",
    "\\",
    "-",
    "--",
    "$",
    "%",
    "°",
    "×",
    "no wait, ",
    "not ",
    "instead of ",
    " or ",
    " and ",
    "from ",
    "to ",
    "between ",
    "4",
    "0",
    "1e9",
    "999999999999",
    "0.0000001",
    "-1",
    "2x8",
    "4-8",
    "00:00",
    "25:99",
    "2026-02-30",
    "2026-03-12T08:00:00Z",
    "80 GB",
    "6h",
    "H100",
    "llama",
    "3g.40gb",
    "node ",
    "deployment ",
    "job ",
    "run ",
    "stop ",
    "command ",
    "env ",
    "labels ",
    "port ",
    "only on the market ",
    "节点",
    "停止",
    "ß",
    "İ",
    "é",
    "\u{301}",
    "\u{200d}",
    "\u{feff}",
    "🙂",
    "\u{0}",
    "\u{1b}[0m",
];

/// Draws of SplitMix64; the same seed gives the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draws {
    state: u64,
}

impl Draws {
    /// Draws from a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number below `n`, as even as a remainder is; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let n = u64::try_from(n.max(1)).unwrap_or(u64::MAX);
        usize::try_from((z ^ (z >> 31)) % n).unwrap_or(0)
    }
}

/// Made-up requests; the same seed and cases give the same ones.
#[derive(Debug, Clone)]
pub struct Noise {
    draws: Draws,
    texts: Vec<String>,
}

impl Noise {
    /// A source of requests that are made from these.
    pub fn new(seed: u64, texts: Vec<String>) -> Self {
        Self { draws: Draws::new(seed), texts }
    }

    fn below(&mut self, n: usize) -> usize {
        self.draws.below(n)
    }

    /// The next request.
    pub fn request(&mut self) -> String {
        let (base, from_nothing) = (self.below(self.texts.len()), self.below(8) == 0);
        let base = self.texts.get(base).filter(|_| !from_nothing);
        let mut text: Vec<char> = base.map(|text| text.chars().collect()).unwrap_or_default();
        for _ in 0..self.below(5) + usize::from(text.is_empty()) {
            self.mutate(&mut text);
            text.truncate(CHARS_MAX);
        }
        text.into_iter().collect()
    }

    fn mutate(&mut self, text: &mut Vec<char>) {
        let at = self.below(text.len() + 1);
        let end = at + self.below(text.len() - at + 1);
        match self.below(9) {
            0 => drop(text.drain(at..end)),
            1 => {
                let part = text[at..end].to_vec();
                for _ in 0..=self.below(3) {
                    text.splice(at..at, part.iter().copied());
                }
            }
            2 => {
                let other = self.below(self.texts.len());
                let other: Vec<char> = self.texts.get(other).map(|t| t.chars().collect()).unwrap_or_default();
                text.splice(at..end, other);
            }
            3 => text[at..end].reverse(),
            4 => {
                let upper: Vec<char> = text[at..end].iter().flat_map(|c| c.to_uppercase()).collect();
                text.splice(at..end, upper);
            }
            5 => {
                let any = u32::try_from(self.below(0x11_0000)).ok().and_then(char::from_u32).unwrap_or('?');
                text.insert(at, any);
            }
            6 => {
                let piece = PIECES[self.below(PIECES.len())];
                for _ in 0..self.below(60) {
                    text.splice(at..at, piece.chars());
                }
            }
            _ => {
                let piece = PIECES[self.below(PIECES.len())];
                text.splice(at..at, piece.chars());
            }
        }
    }
}

/// What must hold of the answer to any text.
///
/// # Errors
/// What does not hold: an intent that is not of the schema or whose provenance names no words of
/// the text, a question without a field, a refusal without a reason.
pub fn check(text: &str, answer: &Answer) -> Result<(), String> {
    match answer {
        Answer::Intent(understood) => {
            let value: Value = serde_json::to_value(&understood.intent).map_err(|error| error.to_string())?;
            let again: Intent = serde_json::from_value(value).map_err(|error| error.to_string())?;
            if again != understood.intent {
                return Err("the intent is not what its JSON says".into());
            }
            for provenance in &understood.provenance {
                if let Source::Text(span) = &provenance.source
                    && (span.text.is_empty() || text.get(span.start..span.end) != Some(&span.text))
                {
                    return Err(format!("{} is not from {:?}", provenance.field, span.text));
                }
            }
            Ok(())
        }
        Answer::Question(questions) => {
            let asked = questions.iter().all(|q| !q.field.is_empty() && !q.prompt.is_empty());
            ((1..=2).contains(&questions.len()) && asked).then_some(()).ok_or_else(|| "no proper question".into())
        }
        Answer::Refusal { message, .. } => (!message.is_empty()).then_some(()).ok_or_else(|| "no reason".into()),
    }
}
