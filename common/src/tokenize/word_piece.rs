//! vocab.txt: WordPiece with the text preparation of BERT.

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::class::{Class, Form, Role};
use super::files::VOCAB_TXT;
use super::special_tokens::{Around, SpecialTokens};
use super::{TokenizeError, TokenizerFiles, malformed};

/// WordPiece over the lines of a vocab.txt, and the special tokens around a text.
pub(super) fn load(
    vocab: &[u8],
    files: &TokenizerFiles,
) -> Result<(tokenizers::Tokenizer, Around), TokenizeError> {
    let fault = |reason: String| malformed(VOCAB_TXT, reason);
    let special = SpecialTokens::read(files, Class::find(files, Form::WordPiece, VOCAB_TXT)?)?;
    let vocab = WordPiece::read_bytes(vocab).map_err(|error| fault(error.to_string()))?;
    // The three that every text may need; others may be missing and are then never used.
    for role in [Role::Unk, Role::Cls, Role::Sep] {
        let token = special.content(role).unwrap_or_default();
        if !vocab.contains_key(token) {
            return Err(fault(format!("it lacks the special token {token:?}")));
        }
    }
    let unknown = special.content(Role::Unk).unwrap_or_default().to_owned();
    let model = WordPiece::builder().vocab(vocab).unk_token(unknown).build();
    let model = model.map_err(|error| fault(error.to_string()))?;
    let config = &special.config;
    let normalizer = BertNormalizer::new(
        true,
        config["tokenize_chinese_chars"].as_bool().unwrap_or(true),
        config["strip_accents"].as_bool(),
        config["do_lower_case"].as_bool().unwrap_or(true),
    );
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer)).map_err(|error| fault(error.to_string()))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.add_tokens(special.tokens(&[])).map_err(|error| fault(error.to_string()))?;
    let around = special.around(|token| tokenizer.token_to_id(token))?;
    Ok((tokenizer, around))
}
