//! A SentencePiece model → a tokenizer of the tokenizers crate with the ids that the Python library gives.
//!
//! The text is normalized and cut as SentencePiece does; special tokens, the order of ids and what is done to a
//! text before follow the class of the tokenizer.

mod normalizer;
mod proto;
mod symbols;
mod vocabulary;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::normalizers::{Lowercase, NFKD, Replace, Sequence, StripAccents};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, TokenizerImpl,
};

use super::class::{Class, Form};
use super::files::TOKENIZER_CONFIG;
use super::long_text::Cut;
use super::special_tokens::{Around, SpecialTokens};
use super::{TokenizeError, TokenizerFiles, malformed};
use normalizer::{Prefix, Rules, SPACE, TextNormalizer};
use proto::{Model, ModelType, PieceType};
use symbols::{Symbols, WordSplitter};
use vocabulary::Vocabulary;

/// A tokenizer that normalizes and splits as SentencePiece does.
pub(super) type SentencePieceTokenizer =
    TokenizerImpl<ModelWrapper, TextNormalizer, WordSplitter, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer with what is known about it.
pub(super) struct Loaded {
    pub(super) tokenizer: SentencePieceTokenizer,
    pub(super) around: Around,
    pub(super) cut: Cut,
    /// "Unigram" or "BPE".
    pub(super) model: &'static str,
}

/// The tokenizer of a model file.
pub(super) fn load(
    file: &'static str,
    bytes: &[u8],
    files: &TokenizerFiles,
) -> Result<Loaded, TokenizeError> {
    let class = Class::find(files, Form::SentencePiece, file)?;
    let mut special = SpecialTokens::read(files, class)?;
    let before = before(class, &special.config)?;
    let fault = |reason: String| malformed(file, reason);
    let foreign = |error: tokenizers::Error| malformed(file, error.to_string());
    let model = proto::read(bytes).map_err(fault)?;
    let vocabulary = Vocabulary::of(&model, class, &mut special).map_err(fault)?;
    let rules = (!model.charsmap.is_empty()).then(|| Rules::read(&model.charsmap));
    let rules = rules.transpose().map_err(fault)?;
    let symbols = vocabulary.ids(&model, PieceType::UserDefined).map(|(text, id)| (text.to_owned(), id));
    let symbols = Arc::new(Symbols::new(symbols));
    let split_words = has_words(&model);
    let (name, inner, apart) = match model.model_type {
        ModelType::Unigram => {
            ("Unigram", vocabulary.unigram(&model).map(ModelWrapper::from).map_err(fault)?, None)
        }
        ModelType::Bpe => {
            let inner = vocabulary.bpe(&model).map(ModelWrapper::from).map_err(fault)?;
            ("BPE", inner, Some(symbols.clone()))
        }
    };
    // Added tokens are looked for in the text itself: once it is normalized, a space may stand before them. Control
    // pieces are special wherever they occur in a text, as in the Python library.
    let mut tokens: Vec<AddedToken> =
        special.tokens(vocabulary.behind()).into_iter().map(|token| token.normalized(false)).collect();
    let control = [PieceType::Unknown, PieceType::Control].map(|kind| vocabulary.ids(&model, kind));
    let named: HashSet<String> = tokens.iter().map(|token| token.content.clone()).collect();
    let control = control.into_iter().flatten().filter(|(text, _)| !named.contains(*text));
    tokens.extend(control.map(|(text, _)| AddedToken::from(text, true)));
    let local = split_words
        && !rules.as_ref().is_some_and(Rules::reach_over_spaces)
        && !tokens.iter().any(|token| token.content.contains(char::is_whitespace));
    let mut tokenizer = SentencePieceTokenizer::new(inner);
    let normalizer = TextNormalizer {
        before,
        rules,
        symbols,
        prefix: prefix(&model, class, &special.config),
        remove_extra_whitespaces: model.remove_extra_whitespaces,
    };
    tokenizer.with_normalizer(Some(normalizer)).map_err(foreign)?;
    tokenizer.with_pre_tokenizer(Some(WordSplitter { split_words, apart }));
    tokenizer.add_tokens(tokens).map_err(foreign)?;
    let around = special.around(|token| tokenizer.token_to_id(token))?;
    let cut = if local { Cut::WordEnd } else { Cut::Never };
    Ok(Loaded { tokenizer, around, cut, model: name })
}

/// Whether no piece goes on over the beginning of a word, and a space alone has a piece.
fn has_words(model: &Model) -> bool {
    let spaces = [' ', SPACE];
    let reaches_on = |text: &str| text.trim_start_matches(spaces).contains(spaces);
    let is_space = |text: &str| text.chars().eq([SPACE]);
    model.pieces.iter().all(|piece| !reaches_on(&piece.text))
        && model.pieces.iter().any(|piece| is_space(&piece.text) && piece.kind == PieceType::Normal)
}

fn prefix(model: &Model, class: &Class, config: &Value) -> Prefix {
    // Only these two have the flag; what it is by default differs, as in the Python library.
    let legacy = match (class.is("LlamaTokenizer"), class.is("T5Tokenizer")) {
        (true, _) => config["legacy"].as_bool().unwrap_or(false),
        (_, true) => config["legacy"].as_bool().unwrap_or(true),
        _ => true,
    };
    if !model.add_dummy_prefix || config["add_prefix_space"] == false {
        Prefix::Never
    } else if legacy {
        Prefix::Always
    } else {
        Prefix::First
    }
}

/// What a class does to a text before SentencePiece sees it.
fn before(class: &Class, config: &Value) -> Result<Option<NormalizerWrapper>, TokenizeError> {
    let option = |key: &str, default: bool| config[key].as_bool().unwrap_or(default);
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if class.is("AlbertTokenizer") || class.is("XLNetTokenizer") {
        for quotes in ["``", "''"] {
            let step = Replace::new(quotes, "\"");
            steps.push(step.map_err(|error| malformed(TOKENIZER_CONFIG, error.to_string()))?.into());
        }
        if !option("keep_accents", false) {
            steps.extend([NFKD.into(), StripAccents.into()]);
        }
    }
    let lowercase_default = class.is("AlbertTokenizer");
    let has_case = lowercase_default || class.is("XLNetTokenizer") || class.is("DebertaV2Tokenizer");
    if has_case && option("do_lower_case", lowercase_default) {
        steps.push(Lowercase.into());
    }
    if class.is("DebertaV2Tokenizer") && option("split_by_punct", false) {
        let reason = "\"split_by_punct\" is true, which is supported only in a tokenizer.json; save one with the \
                      Python library: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)";
        return Err(malformed(TOKENIZER_CONFIG, reason.into()));
    }
    Ok((!steps.is_empty()).then(|| Sequence::new(steps).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_class_apply_to_it_alone() {
        let class = |name: &str| {
            let config = format!(r#"{{"tokenizer_class": "{name}"}}"#);
            let files = TokenizerFiles { tokenizer_config: Some(config.into()), ..Default::default() };
            Class::find(&files, Form::SentencePiece, "spiece.model").expect("known")
        };
        let config = |text: &str| -> Value { serde_json::from_str(text).expect("json") };
        let normalized = |name: &str, options: &str| {
            let mut text = tokenizers::NormalizedString::from("``É''");
            if let Some(before) = before(class(name), &config(options)).expect("supported") {
                tokenizers::Normalizer::normalize(&before, &mut text).expect("normalized");
            }
            text.get().to_owned()
        };
        assert_eq!(normalized("AlbertTokenizer", "{}"), "\"e\"");
        assert_eq!(
            normalized("AlbertTokenizer", r#"{"keep_accents": true, "do_lower_case": false}"#),
            "\"É\""
        );
        assert_eq!(normalized("XLNetTokenizer", "{}"), "\"E\"");
        assert_eq!(normalized("DebertaV2Tokenizer", r#"{"do_lower_case": true}"#), "``é''");
        assert_eq!(normalized("T5Tokenizer", r#"{"do_lower_case": true}"#), "``É''");
        let error = before(class("DebertaV2Tokenizer"), &config(r#"{"split_by_punct": true}"#));
        assert!(error.expect_err("refused").to_string().contains("split_by_punct"));
        let model = |add_dummy_prefix| Model {
            pieces: Vec::new(),
            model_type: ModelType::Bpe,
            byte_fallback: false,
            charsmap: Vec::new(),
            add_dummy_prefix,
            remove_extra_whitespaces: false,
        };
        let check = |dummy, name: &str, options: &str, expected| {
            assert_eq!(prefix(&model(dummy), class(name), &config(options)), expected, "{name} {options}");
        };
        check(true, "LlamaTokenizer", "{}", Prefix::First);
        check(true, "LlamaTokenizer", r#"{"legacy": true}"#, Prefix::Always);
        check(true, "LlamaTokenizer", r#"{"add_prefix_space": false}"#, Prefix::Never);
        check(true, "T5Tokenizer", "{}", Prefix::Always);
        check(true, "T5Tokenizer", r#"{"legacy": false}"#, Prefix::First);
        check(true, "AlbertTokenizer", r#"{"legacy": false}"#, Prefix::Always);
        check(false, "GemmaTokenizer", "{}", Prefix::Never);
    }
}
