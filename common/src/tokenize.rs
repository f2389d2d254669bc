//! Text → token ids, whatever files the tokenizer came in.
//!
//! `tokenizer.json` is followed to the letter, except that padding and truncation saved in it are dropped:
//! a text is cut to the length that the caller asks for, with its special tokens kept, and never padded.
//! Without it, `vocab.txt` is read as BERT's WordPiece.

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, PostProcessor, TruncationDirection};

use crate::failure::FailureClass;

/// The contents of the files of a tokenizer, as far as they exist.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer_json: Option<Vec<u8>>,
    /// `vocab.txt`; read only without a `tokenizer.json`.
    pub vocab_txt: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Vec<u8>>,
}

/// A tokenizer without padding or truncation of its own.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    direction: TruncationDirection,
    model_max_length: Option<u32>,
    n_special: usize,
    cuts_at_white_space: bool,
}

/// The tokens of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included; at most the length asked for.
    pub ids: Vec<u32>,
    /// Whether tokens were left out.
    pub truncated: bool,
}

/// Why texts cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// Neither of the two forms is there.
    #[error("the model has no tokenizer.json and no vocab.txt; fetch one of them into its folder")]
    NoFiles,
    /// A file does not say what it should.
    #[error("{file} is malformed: {reason}")]
    Malformed {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No room for a token of the text itself.
    #[error("max_length {max_length} leaves no room beside the {n_special} special tokens; raise it")]
    NoRoom {
        /// As asked for.
        max_length: u32,
        /// Special tokens of a single text.
        n_special: usize,
    },
    /// The tokenizer refused a text.
    #[error("text {index} cannot be tokenized: {reason}")]
    Text {
        /// Position in the batch, from 0.
        index: usize,
        /// In the tokenizer's words.
        reason: String,
    },
}

impl TokenizeError {
    /// No other attempt would see other files or texts.
    pub fn failure_class(&self) -> FailureClass {
        FailureClass::Reject
    }
}

impl Tokenizer {
    /// The tokenizer that these files describe.
    pub fn load(files: &TokenizerFiles) -> Result<Self, TokenizeError> {
        let config = object("tokenizer_config.json", files.tokenizer_config.as_deref())?;
        let (mut inner, saved_direction) = match (&files.tokenizer_json, &files.vocab_txt) {
            (Some(json), _) => from_json(json)?,
            (None, Some(vocab)) => {
                let special = object("special_tokens_map.json", files.special_tokens_map.as_deref())?;
                (from_vocab(vocab, &config, &special)?, None)
            }
            (None, None) => return Err(TokenizeError::NoFiles),
        };
        let direction = match config["truncation_side"].as_str() {
            Some("left") => TruncationDirection::Left,
            Some("right") => TruncationDirection::Right,
            Some(side) => {
                let reason = format!("truncation_side is {side:?}, expected \"left\" or \"right\"");
                return Err(TokenizeError::Malformed { file: "tokenizer_config.json", reason });
            }
            None => saved_direction.unwrap_or(TruncationDirection::Right),
        };
        inner.with_padding(None);
        // Without parameters there is nothing that could be refused.
        let _ = inner.with_truncation(None);
        let n_special = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let cuts_at_white_space = cuts_at_white_space(&inner);
        let model_max_length = model_max_length(&config);
        Ok(Self { inner, direction, model_max_length, n_special, cuts_at_white_space })
    }

    /// The limit that the tokenizer's own config names, if it names one.
    pub fn model_max_length(&self) -> Option<u32> {
        self.model_max_length
    }

    /// Special tokens added to every text.
    pub fn n_special(&self) -> usize {
        self.n_special
    }

    /// Entries of the vocabulary, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The tokens of each text, cut to `max_length` with the special tokens kept.
    pub fn encode_batch<T: AsRef<str>>(
        &self,
        texts: &[T],
        max_length: u32,
    ) -> Result<Vec<Encoded>, TokenizeError> {
        let room = (max_length as usize).checked_sub(self.n_special).filter(|room| *room > 0);
        let room = room.ok_or(TokenizeError::NoRoom { max_length, n_special: self.n_special })?;
        let encode = |(index, text): (usize, &T)| {
            self.encode(text.as_ref(), room)
                .map_err(|error| TokenizeError::Text { index, reason: error.to_string() })
        };
        texts.iter().enumerate().map(encode).collect()
    }

    fn encode(&self, text: &str, room: usize) -> tokenizers::Result<Encoded> {
        let mut encoding = self.encode_enough(text, room)?;
        let truncated = encoding.len() > room;
        encoding.truncate(room, 0, self.direction);
        // What was cut off is kept aside by the crate and would be post-processed as well.
        drop(encoding.take_overflowing());
        let encoding = match self.inner.get_post_processor() {
            Some(processor) => processor.process(encoding, None, true)?,
            None => encoding,
        };
        Ok(Encoded { ids: encoding.get_ids().to_vec(), truncated })
    }

    /// All tokens of a text, or at least its first `room + 1`.
    ///
    /// The tokenizer needs some hundred bytes of memory per byte of text. Where words are known not to
    /// influence each other, a long text is therefore read only as far as needed, up to a white space.
    fn encode_enough(&self, text: &str, room: usize) -> tokenizers::Result<tokenizers::Encoding> {
        let from_the_left = matches!(self.direction, TruncationDirection::Right);
        let mut limit = room.saturating_mul(PREFIX_BYTES_PER_TOKEN).max(PREFIX_BYTES_MIN);
        while self.cuts_at_white_space && from_the_left && limit < text.len() / 2 {
            let Some(end) = white_space_from(text, limit) else { break };
            let encoding = self.inner.encode_fast(&text[..end], false)?;
            if encoding.len() > room {
                return Ok(encoding);
            }
            limit = end.saturating_mul(2);
        }
        self.inner.encode_fast(text, false)
    }
}

/// English has 4 to 5 bytes per token; twice that is nearly always enough at the first try.
const PREFIX_BYTES_PER_TOKEN: usize = 10;
/// Below this, reading a text to its end costs nothing worth saving.
const PREFIX_BYTES_MIN: usize = 4096;

fn white_space_from(text: &str, limit: usize) -> Option<usize> {
    let start = text.ceil_char_boundary(limit);
    text[start..].find(char::is_whitespace).map(|offset| start + offset)
}

/// Whether the tokens before a white space depend on nothing behind it.
///
/// True of BERT's pre-tokenizer, which drops white space and splits there, unless an added token holds one.
fn cuts_at_white_space(tokenizer: &tokenizers::Tokenizer) -> bool {
    let splits = matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)));
    let added = tokenizer.get_added_tokens_decoder();
    splits && !added.values().any(|token| token.content.contains(char::is_whitespace))
}

fn from_json(json: &[u8]) -> Result<(tokenizers::Tokenizer, Option<TruncationDirection>), TokenizeError> {
    let tokenizer = tokenizers::Tokenizer::from_bytes(json);
    let tokenizer = tokenizer.map_err(|error| malformed("tokenizer.json", error.to_string()))?;
    let saved = tokenizer.get_truncation().map(|truncation| truncation.direction);
    Ok((tokenizer, saved))
}

/// BERT's WordPiece over the lines of a vocab.txt.
fn from_vocab(vocab: &[u8], config: &Value, special: &Value) -> Result<tokenizers::Tokenizer, TokenizeError> {
    let fault = |reason: String| malformed("vocab.txt", reason);
    let vocab = WordPiece::read_bytes(vocab).map_err(|error| fault(error.to_string()))?;
    let name = |key: &str, default: &str| -> String {
        let named = [&config[key], &special[key]];
        // A token is a text, or an object with its text in "content".
        let text = |value: &Value| value.as_str().or(value["content"].as_str()).map(str::to_owned);
        named.into_iter().find_map(text).unwrap_or_else(|| default.to_owned())
    };
    let id = |token: &str| {
        let id = vocab.get(token).copied();
        id.ok_or_else(|| fault(format!("it lacks the special token {token:?}")))
    };
    let unknown = name("unk_token", "[UNK]");
    let (cls, sep) = (name("cls_token", "[CLS]"), name("sep_token", "[SEP]"));
    id(&unknown)?;
    let processing = BertProcessing::new((sep.clone(), id(&sep)?), (cls.clone(), id(&cls)?));
    let specials = [unknown.clone(), cls, sep, name("pad_token", "[PAD]"), name("mask_token", "[MASK]")];
    let specials: Vec<AddedToken> = specials
        .into_iter()
        .filter(|token| vocab.contains_key(token.as_str()))
        .map(|token| AddedToken::from(token, true))
        .collect();
    let model = WordPiece::builder().vocab(vocab.clone()).unk_token(unknown).build();
    let model = model.map_err(|error| fault(error.to_string()))?;
    let normalizer = BertNormalizer::new(
        true,
        config["tokenize_chinese_chars"].as_bool().unwrap_or(true),
        config["strip_accents"].as_bool(),
        config["do_lower_case"].as_bool().unwrap_or(true),
    );
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer)).map_err(|error| fault(error.to_string()))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer)).with_post_processor(Some(processing));
    tokenizer.add_special_tokens(specials).map_err(|error| fault(error.to_string()))?;
    Ok(tokenizer)
}

/// `model_max_length`, unless it is the huge number that stands for "none".
fn model_max_length(config: &Value) -> Option<u32> {
    let length = config["model_max_length"].as_f64()?;
    // Python's marker is 10^30; no model reads a billion tokens.
    (1.0..1e9).contains(&length).then_some(length as u32)
}

fn object(file: &'static str, content: Option<&[u8]>) -> Result<Value, TokenizeError> {
    let Some(content) = content else { return Ok(Value::Null) };
    let value: Value = serde_json::from_slice(content).map_err(|error| malformed(file, error.to_string()))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(malformed(file, "the outermost value is no object".into()))
    }
}

fn malformed(file: &'static str, reason: String) -> TokenizeError {
    TokenizeError::Malformed { file, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhe\n##llo\nworld\n!\ncafe\n";

    fn from_config(config: &str) -> Tokenizer {
        let files = TokenizerFiles {
            vocab_txt: Some(VOCAB.into()),
            tokenizer_config: Some(config.into()),
            ..TokenizerFiles::default()
        };
        Tokenizer::load(&files).expect("sound")
    }

    fn ids(tokenizer: &Tokenizer, text: &str, max_length: u32) -> (Vec<u32>, bool) {
        let encoded = tokenizer.encode_batch(&[text], max_length).expect("room").remove(0);
        (encoded.ids, encoded.truncated)
    }

    #[test]
    fn vocab_txt_is_wordpiece() {
        let tokenizer = from_config(r#"{"model_max_length": 1e30}"#);
        assert_eq!(ids(&tokenizer, "Hello, world!", 16), (vec![2, 5, 6, 1, 7, 8, 3], false));
        assert_eq!(ids(&tokenizer, "café", 16).0, [2, 9, 3]);
        assert_eq!(ids(&tokenizer, "", 16).0, [2, 3]);
        assert_eq!(tokenizer.model_max_length(), None);
        let cased = from_config(r#"{"do_lower_case": false, "model_max_length": 12}"#);
        assert_eq!(ids(&cased, "Hello café world", 16).0, [2, 1, 1, 7, 3]);
        assert_eq!(cased.model_max_length(), Some(12));
    }

    #[test]
    fn truncation_keeps_special_tokens_and_honours_its_side() {
        let right = from_config("{}");
        assert_eq!(ids(&right, "hello world !", 4), (vec![2, 5, 6, 3], true));
        assert_eq!(ids(&right, "hello world !", 6), (vec![2, 5, 6, 7, 8, 3], false));
        let left = from_config(r#"{"truncation_side": "left"}"#);
        assert_eq!(ids(&left, "hello world !", 4), (vec![2, 7, 8, 3], true));
        assert!(matches!(right.encode_batch(&["a"], 2), Err(TokenizeError::NoRoom { .. })));
    }

    #[test]
    fn saved_padding_and_truncation_are_dropped() {
        let mut saved: Value =
            serde_json::from_str(&from_config("{}").inner.to_string(false).expect("json")).expect("json");
        saved["truncation"] = serde_json::json!({
            "direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
        saved["padding"] = serde_json::json!({"strategy": {"Fixed": 8}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
        let files =
            TokenizerFiles { tokenizer_json: Some(saved.to_string().into()), ..TokenizerFiles::default() };
        let tokenizer = Tokenizer::load(&files).expect("sound");
        assert_eq!(ids(&tokenizer, "hello world !", 16).0, [2, 5, 6, 7, 8, 3]);
        // The side survives, as it does in the Python library.
        assert_eq!(ids(&tokenizer, "hello world !", 4).0, [2, 7, 8, 3]);
    }

    #[test]
    fn a_long_text_is_read_only_as_far_as_needed_and_gives_the_same_tokens() {
        let tokenizer = from_config("{}");
        let mut whole = tokenizer.clone();
        whole.cuts_at_white_space = false;
        let words = "hello  world! [SEP] caf\u{e9}\u{300}\u{3000}xyz,".repeat(3000);
        let gaps = format!("hello{}world", " ".repeat(100_000));
        let one_word = "x".repeat(200_000);
        for text in [words.as_str(), gaps.as_str(), one_word.as_str()] {
            for max_length in [3, 17, 256, 5000] {
                assert_eq!(ids(&tokenizer, text, max_length), ids(&whole, text, max_length), "{max_length}");
            }
        }
    }

    #[test]
    fn malformed_files_are_named() {
        let check = |files: TokenizerFiles, expected: &str| {
            let error = Tokenizer::load(&files).err().expect("refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(TokenizerFiles::default(), "no tokenizer.json and no vocab.txt");
        check(
            TokenizerFiles { vocab_txt: Some("a\nb\n".into()), ..TokenizerFiles::default() },
            "vocab.txt is malformed: it lacks the special token \"[UNK]\"",
        );
        check(
            TokenizerFiles { tokenizer_json: Some("{}".into()), ..TokenizerFiles::default() },
            "tokenizer.json is malformed",
        );
        check(
            TokenizerFiles {
                vocab_txt: Some(VOCAB.into()),
                tokenizer_config: Some("[]".into()),
                ..TokenizerFiles::default()
            },
            "tokenizer_config.json is malformed",
        );
    }
}
