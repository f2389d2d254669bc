//! Symbols that a model was told to keep whole, and the words between them.

use std::collections::HashMap;
use std::sync::Arc;

use tokenizers::normalizer::Range;
use tokenizers::{NormalizedString, PreTokenizedString, PreTokenizer, Token};

use super::normalizer::SPACE;

/// User-defined symbols by their first character, the longest first.
#[derive(Debug, Default)]
pub(super) struct Symbols(HashMap<char, Vec<(String, u32)>>);

impl Symbols {
    /// These symbols with their ids.
    pub(super) fn new(symbols: impl Iterator<Item = (String, u32)>) -> Self {
        let mut by_first: HashMap<char, Vec<(String, u32)>> = HashMap::new();
        for (symbol, id) in symbols {
            if let Some(first) = symbol.chars().next() {
                by_first.entry(first).or_default().push((symbol, id));
            }
        }
        by_first
            .values_mut()
            .for_each(|symbols| symbols.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.cmp(b))));
        Self(by_first)
    }

    /// The longest symbol with which a text begins.
    pub(super) fn longest_prefix(&self, text: &str) -> Option<(&str, u32)> {
        let first = text.chars().next()?;
        let symbols = self.0.get(&first)?;
        let found = symbols.iter().find(|(symbol, _)| text.starts_with(symbol.as_str()))?;
        Some((&found.0, found.1))
    }
}

/// Normalized text → words and symbols.
///
/// SentencePiece cuts a text into pieces as a whole. Where no piece goes on over the beginning of a word, doing it
/// word by word gives the same and lets the words be remembered.
#[derive(Clone, Debug)]
pub(in crate::tokenize) struct WordSplitter {
    /// Whether words may be looked at one by one.
    pub(super) split_words: bool,
    /// Symbols that are set apart before any merge; none for Unigram, where a score does the same.
    pub(super) apart: Option<Arc<Symbols>>,
}

impl PreTokenizer for WordSplitter {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        text.split(|_, part| self.split(&part))
    }
}

type Parts = Vec<(NormalizedString, Option<Vec<Token>>)>;

impl WordSplitter {
    fn split(&self, part: &NormalizedString) -> tokenizers::Result<Parts> {
        let text = part.get();
        let mut parts = Parts::new();
        let mut add = |start: usize, end: usize, id: Option<u32>| -> tokenizers::Result<()> {
            if start < end {
                let slice = part.slice(Range::Normalized(start..end)).ok_or("a word is out of its text")?;
                let token = |id| vec![Token::new(id, text[start..end].to_owned(), (0, end - start))];
                parts.push((slice, id.map(token)));
            }
            Ok(())
        };
        let (mut start, mut place, mut after_space) = (0, 0, true);
        while let Some(c) = text[place..].chars().next() {
            let symbol = self.apart.as_ref().and_then(|symbols| symbols.longest_prefix(&text[place..]));
            if let Some((symbol, id)) = symbol {
                add(start, place, None)?;
                add(place, place + symbol.len(), Some(id))?;
                place += symbol.len();
                (start, after_space) = (place, true);
                continue;
            }
            let is_space = c == SPACE;
            if self.split_words && is_space && !after_space {
                add(start, place, None)?;
                start = place;
            }
            after_space = is_space;
            place += c.len_utf8();
        }
        add(start, text.len(), None)?;
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_with_their_spaces() {
        let symbols = [("<x>".to_owned(), 7), ("<x>>".to_owned(), 8), ("\u{2581}\u{2581}".to_owned(), 9)];
        let symbols = Arc::new(Symbols::new(symbols.into_iter()));
        let check = |split_words, with_symbols: bool, text: &str, expected: &[&str]| {
            let apart = with_symbols.then(|| symbols.clone());
            let text = NormalizedString::from(text.replace('_', &SPACE.to_string()));
            let parts = WordSplitter { split_words, apart }.split(&text).expect("split");
            let shown: Vec<String> = parts
                .into_iter()
                .map(|(part, tokens)| {
                    let id = tokens.map(|tokens| format!("={}", tokens[0].id)).unwrap_or_default();
                    part.get().replace(SPACE, "_") + &id
                })
                .collect();
            assert_eq!(shown, expected);
        };
        check(true, false, "_a_bc__d_", &["_a", "_bc", "__d", "_"]);
        check(false, false, "_a_bc", &["_a_bc"]);
        check(true, true, "_a<x>>_b___c", &["_a", "<x>>=8", "_b", "__=9", "_c"]);
        check(true, true, "<x><x", &["<x>=7", "<x"]);
        check(true, false, "", &[]);
    }
}
