//! vocab.json and merges.txt: byte-pair encoding over bytes, as GPT-2 introduced it.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::class::{Class, Form};
use super::files::{MERGES_TXT, VOCAB_JSON};
use super::special_tokens::{Around, SpecialTokens};
use super::{TokenizeError, TokenizerFiles, malformed};

/// Byte-level BPE, and the special tokens around a text.
pub(super) fn load(
    vocab: &[u8],
    merges: &[u8],
    files: &TokenizerFiles,
) -> Result<(tokenizers::Tokenizer, Around), TokenizeError> {
    let special =
        SpecialTokens::read(files, Class::find(files, Form::ByteLevel, "vocab.json and merges.txt")?)?;
    let vocab: HashMap<String, u32> =
        serde_json::from_slice(vocab).map_err(|error| malformed(VOCAB_JSON, error.to_string()))?;
    let model = BPE::builder().vocab_and_merges(vocab.into_iter().collect::<Vocab>(), read_merges(merges)?);
    // What can fail is a merge of tokens that the vocabulary lacks.
    let model = model.build().map_err(|error| {
        malformed(MERGES_TXT, format!("{error}; take vocab.json and merges.txt from one revision"))
    })?;
    let add_prefix_space = special.config["add_prefix_space"].as_bool().unwrap_or(false);
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)));
    tokenizer.add_tokens(special.tokens(&[])).map_err(|error| malformed(VOCAB_JSON, error.to_string()))?;
    let around = special.around(|token| tokenizer.token_to_id(token))?;
    Ok((tokenizer, around))
}

type Vocab = tokenizers::models::bpe::Vocab;

/// The pairs of a merges.txt, one a line, in order of rank.
fn read_merges(merges: &[u8]) -> Result<Vec<(String, String)>, TokenizeError> {
    let text = str::from_utf8(merges).map_err(|error| malformed(MERGES_TXT, error.to_string()))?;
    // Only the header is a comment: "# #" is a merge.
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version"));
    let pair = |(index, line): (usize, &str)| {
        let pair = line.split_once(' ').filter(|(_, right)| !right.contains(' '));
        let pair = pair.map(|(left, right)| (left.to_owned(), right.to_owned()));
        pair.ok_or_else(|| malformed(MERGES_TXT, format!("line {} is no pair of tokens", index + 1)))
    };
    lines.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_pairs() {
        let merges = read_merges(b"#version: 0.2\n# #\na b\r\n").expect("sound");
        assert_eq!(merges, [("#".into(), "#".into()), ("a".into(), "b".into())]);
        for (text, expected) in [("a b\nab\n", "line 2"), ("a b c", "line 1"), ("a b\n\n", "line 2")] {
            let error = read_merges(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains("merges.txt") && error.contains(expected), "{error}");
        }
        assert!(read_merges(b"a \xff").is_err());
    }
}
