//! How far a long text must be read to know its first tokens.
//!
//! A tokenizer needs some hundred bytes of memory per byte of text. Where words are known not to influence each
//! other, only the beginning of a text is read. This is never a guess: what is not known is read to the end.

use serde_json::Value;

/// Where a text may end without a change to the tokens before that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nowhere.
    Never,
    /// Before a white space.
    WhiteSpace,
    /// Before a space that follows something else than white space.
    WordEnd,
}

impl Cut {
    /// Where tokens of a tokenizer of the library end for certain.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        if added.values().any(|token| token.content.contains(char::is_whitespace)) {
            return Self::Never;
        }
        // Their JSON says what the types keep to themselves.
        let normalizer = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default();
        let pre_tokenizer = serde_json::to_value(tokenizer.get_pre_tokenizer()).unwrap_or_default();
        if !is_local(&normalizer) {
            return Self::Never;
        }
        match (pre_tokenizer["type"].as_str(), splits_at_word_ends(&pre_tokenizer)) {
            (Some("BertPreTokenizer"), _) => Self::WhiteSpace,
            (_, Some(true)) => Self::WordEnd,
            _ => Self::Never,
        }
    }

    /// The first such place at or behind `limit`.
    pub(super) fn first_from(self, text: &str, limit: usize) -> Option<usize> {
        let start = text.ceil_char_boundary(limit);
        match self {
            Self::Never => None,
            Self::WhiteSpace => text[start..].find(char::is_whitespace).map(|offset| start + offset),
            Self::WordEnd => {
                let mut before = text[..start].chars().next_back();
                text[start..].char_indices().find_map(|(offset, c)| {
                    let follows_word = before.replace(c).is_some_and(|before| !before.is_whitespace());
                    (c == ' ' && follows_word).then_some(start + offset)
                })
            }
        }
    }
}

/// Whether a normalizer treats what stands before such a place without regard to what follows.
fn is_local(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        Some("Sequence") => {
            normalizer["normalizers"].as_array().is_some_and(|steps| steps.iter().all(is_local))
        }
        // Code point by code point, or composing what follows a base: a space is a base of its own.
        Some(
            "BertNormalizer" | "Lowercase" | "StripAccents" | "Nmt" | "NFC" | "NFD" | "NFKC" | "NFKD"
            | "Precompiled" | "Prepend" | "Strip",
        ) => true,
        Some("Replace") => {
            let pattern = &normalizer["pattern"];
            let runs_of_spaces = pattern["Regex"] == " {2,}";
            runs_of_spaces
                || pattern["String"]
                    .as_str()
                    .is_some_and(|text| text == " " || !text.contains(char::is_whitespace))
        }
        Some(_) => false,
    }
}

/// Patterns of widely used tokenizers in which no match reaches from a word over a space behind it.
const WORD_PATTERNS: [&str; 3] = [
    // GPT-2.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // Llama 3, after GPT-4.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Whether a pre-tokenizer splits at every such place; none where it is not known to keep them apart.
fn splits_at_word_ends(pre_tokenizer: &Value) -> Option<bool> {
    match pre_tokenizer["type"].as_str()? {
        "Sequence" => {
            let steps = pre_tokenizer["pretokenizers"].as_array()?;
            let steps: Option<Vec<bool>> = steps.iter().map(splits_at_word_ends).collect();
            Some(steps?.contains(&true))
        }
        "BertPreTokenizer" | "WhitespaceSplit" | "Whitespace" => Some(true),
        "ByteLevel" => Some(pre_tokenizer["use_regex"].as_bool().unwrap_or(true)),
        "Metaspace" => Some(pre_tokenizer["split"].as_bool().unwrap_or(true)),
        "Punctuation" | "Digits" => Some(false),
        "Split" => {
            let pattern = pre_tokenizer["pattern"]["Regex"].as_str()?;
            let isolated = pre_tokenizer["behavior"] == "Isolated" && pre_tokenizer["invert"] == false;
            (isolated && WORD_PATTERNS.contains(&pattern)).then_some(true)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_end_where_a_word_ends() {
        let text = "a  b\tc d";
        let check =
            |cut: Cut, limit, expected| assert_eq!(cut.first_from(text, limit), expected, "{cut:?} {limit}");
        check(Cut::WhiteSpace, 0, Some(1));
        check(Cut::WhiteSpace, 3, Some(4));
        check(Cut::WhiteSpace, 7, None);
        check(Cut::WordEnd, 0, Some(1));
        // Neither the second of two spaces nor a tab.
        check(Cut::WordEnd, 2, Some(6));
        check(Cut::WordEnd, 6, Some(6));
        check(Cut::WordEnd, 7, None);
        check(Cut::Never, 0, None);
        assert_eq!(Cut::WordEnd.first_from("日本 語", 1), Some(6));
        assert_eq!(Cut::WordEnd.first_from(" a", 0), None);
    }

    #[test]
    fn only_what_is_known_is_cut() {
        let check = |pre_tokenizer: Value, expected| {
            assert_eq!(splits_at_word_ends(&pre_tokenizer), expected, "{pre_tokenizer}")
        };
        check(Value::Null, None);
        check(json!({"type": "ByteLevel", "use_regex": false}), Some(false));
        check(
            json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORD_PATTERNS[1]}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "use_regex": false}]}),
            Some(true),
        );
        check(
            json!({"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "UnicodeScripts"}]}),
            None,
        );
        check(
            json!({"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false}),
            None,
        );
        check(json!({"type": "Metaspace", "split": false}), Some(false));
        assert!(is_local(&json!({"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "NFKD"}]})));
        assert!(!is_local(&json!({"type": "Replace", "pattern": {"Regex": "a b"}, "content": ""})));
        assert!(!is_local(&json!({"type": "Replace", "pattern": {"String": "a b"}, "content": ""})));
    }
}
