//! Misspelled words of phrases of several words, put right before the phrases are looked for.

use crate::context::Context;
use crate::items::is_name_like;
use crate::lexicon::{Lang, Lexicon};
use crate::text::{Kind, Token};

/// Nouns behind which a name stands.
pub(super) const NAMING: &[&str] = &["noun.deployment", "noun.node", "noun.workload"];

/// The tokens with the misspelled words of phrases put right, and which those are.
pub(super) fn respell(tokens: &[Token], lang: Lang, context: &Context) -> (Vec<Token>, Vec<bool>) {
    let lexicon = Lexicon::get();
    let mut right = tokens.to_vec();
    let mut changed = vec![false; tokens.len()];
    for i in 0..tokens.len() {
        let text = tokens[i].text.as_str();
        let plain = tokens[i].kind == Kind::Word && text.chars().all(char::is_alphabetic);
        let named = i > 0
            && lexicon.word(&tokens[i - 1].text, lang).is_some_and(|s| {
                NAMING.iter().any(|noun| s.has(noun)) && !tokens[i - 1].text.ends_with('s') || s.has("as")
            });
        let listed = context.deployments.iter().any(|d| d.name.eq_ignore_ascii_case(text));
        // "node ecxept gpu-3": the name comes next.
        let named = named && !tokens.get(i + 1).is_some_and(|t| is_name_like(&t.text));
        if !plain || named || listed {
            continue;
        }
        if let Some(word) = lexicon.respelled(&right, i, lang) {
            word.clone_into(&mut right[i].text);
            changed[i] = true;
        }
    }
    (right, changed)
}
