//! Text → token ids, whatever files the tokenizer came in.
//!
//! `tokenizer.json` is followed to the letter, except that padding and truncation saved in it are dropped:
//! a text is cut to the length that the caller asks for, with its special tokens kept, and never padded.
//! Without it, byte-level BPE is read from `vocab.json` and `merges.txt`, else WordPiece from `vocab.txt`, else a
//! SentencePiece model; special tokens then follow the tokenizer's class. Whatever is not known to give the ids of
//! the Python library is refused.

mod byte_level;
mod class;
mod files;
mod long_text;
mod sentencepiece;
mod special_tokens;
mod word_piece;

use std::fmt;

use serde_json::Value;
use tokenizers::{PostProcessor, PostProcessorWrapper, TruncationDirection};

use crate::contained::contained;
use crate::failure::FailureClass;
pub use files::TokenizerFiles;
use long_text::Cut;
use special_tokens::Around;

/// A tokenizer without padding or truncation of its own.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Inner,
    kind: TokenizerKind,
    direction: TruncationDirection,
    model_max_length: Option<u32>,
    n_special: usize,
    /// Added to every text, beside what a post-processor of `inner` adds.
    around: Around,
    /// Whether the model is given the types of tokens.
    gives_types: bool,
    cut: Cut,
}

#[derive(Clone)]
enum Inner {
    Library(Box<tokenizers::Tokenizer>),
    SentencePiece(Box<sentencepiece::SentencePieceTokenizer>),
}

/// What a tokenizer was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// `tokenizer.json`, which says everything itself.
    Json,
    /// Byte-level BPE from `vocab.json` and `merges.txt`.
    ByteLevel,
    /// WordPiece from `vocab.txt`.
    WordPiece,
    /// A SentencePiece model.
    SentencePiece {
        /// "Unigram" or "BPE".
        model: &'static str,
        /// The name of the model's file.
        file: &'static str,
    },
}

impl fmt::Display for TokenizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json => f.write_str("tokenizer.json"),
            Self::ByteLevel => f.write_str("byte-level BPE from vocab.json and merges.txt"),
            Self::WordPiece => f.write_str("WordPiece from vocab.txt"),
            Self::SentencePiece { model, file } => write!(f, "SentencePiece {model} from {file}"),
        }
    }
}

/// The tokens of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included; at most the length asked for.
    pub ids: Vec<u32>,
    /// The type (segment) of each token; empty where all are of type 0.
    pub types: Vec<u32>,
    /// Whether tokens were left out.
    pub truncated: bool,
}

/// Why texts cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// None of the forms is there.
    #[error(
        "the model has no tokenizer.json, no vocab.json with merges.txt, no vocab.txt and no SentencePiece model \
         ({}); fetch one of them into its folder",
        files::SENTENCEPIECE.join(", ")
    )]
    NoFiles,
    /// A tokenizer class that is not known to be built right.
    #[error(
        "{class} cannot be built from {from}; save a tokenizer.json into the model's folder with the Python library: \
         AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    )]
    Unsupported {
        /// The class, or what stands for it.
        class: String,
        /// The files that were found.
        from: &'static str,
    },
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
        // Readers of the tokenizers crate panic on some damaged files.
        let loaded = contained(|| Self::load_unguarded(files));
        loaded.unwrap_or_else(|reason| Err(malformed(main_file(files), reason)))
    }

    fn load_unguarded(files: &TokenizerFiles) -> Result<Self, TokenizeError> {
        let config = object("tokenizer_config.json", files.tokenizer_config.as_deref())?;
        let mut saved_direction = None;
        let (inner, kind, around, cut) = if let Some(json) = &files.tokenizer_json {
            let (inner, direction) = from_json(json)?;
            saved_direction = direction;
            let cut = Cut::of(&inner);
            (Inner::Library(Box::new(inner)), TokenizerKind::Json, Around::default(), cut)
        } else if let (Some(vocab), Some(merges)) = (&files.vocab_json, &files.merges_txt) {
            let (inner, around) = byte_level::load(vocab, merges, files)?;
            let cut = Cut::of(&inner);
            (Inner::Library(Box::new(inner)), TokenizerKind::ByteLevel, around, cut)
        } else if let Some(vocab) = &files.vocab_txt {
            let (inner, around) = word_piece::load(vocab, files)?;
            let cut = Cut::of(&inner);
            (Inner::Library(Box::new(inner)), TokenizerKind::WordPiece, around, cut)
        } else if let Some((file, model)) = &files.sentencepiece {
            let loaded = sentencepiece::load(file, model, files)?;
            let kind = TokenizerKind::SentencePiece { model: loaded.model, file };
            (Inner::SentencePiece(Box::new(loaded.tokenizer)), kind, loaded.around, loaded.cut)
        } else {
            return Err(TokenizeError::NoFiles);
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
        let n_processed = inner.post_processor().map_or(0, |processor| processor.added_tokens(false));
        let n_special = n_processed + around.before.len() + around.behind.len();
        let (model_max_length, gives_types) = (model_max_length(&config), gives_types(&config));
        Ok(Self { inner, kind, direction, model_max_length, n_special, around, gives_types, cut })
    }

    /// What it was made from.
    pub fn kind(&self) -> TokenizerKind {
        self.kind
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
        match &self.inner {
            Inner::Library(inner) => inner.get_vocab_size(true),
            Inner::SentencePiece(inner) => inner.get_vocab_size(true),
        }
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
            let encoded = contained(|| self.encode(text.as_ref(), room));
            let encoded = encoded.and_then(|encoded| encoded.map_err(|error| error.to_string()));
            encoded.map_err(|reason| TokenizeError::Text { index, reason })
        };
        texts.iter().enumerate().map(encode).collect()
    }

    fn encode(&self, text: &str, room: usize) -> tokenizers::Result<Encoded> {
        let mut encoding = self.encode_enough(text, room)?;
        let truncated = encoding.len() > room;
        encoding.truncate(room, 0, self.direction);
        // What was cut off is kept aside by the crate and would be post-processed as well.
        drop(encoding.take_overflowing());
        let encoding = match self.inner.post_processor() {
            Some(processor) => processor.process(encoding, None, true)?,
            None => encoding,
        };
        let Around { before, behind, behind_types } = &self.around;
        let ids = [before.as_slice(), encoding.get_ids(), behind].concat();
        let mut types = Vec::new();
        if self.gives_types && encoding.get_type_ids().iter().chain(behind_types).any(|kind| *kind != 0) {
            types = [vec![0; before.len()].as_slice(), encoding.get_type_ids(), behind_types].concat();
        }
        Ok(Encoded { ids, types, truncated })
    }

    /// All tokens of a text, or at least its first `room + 1`.
    fn encode_enough(&self, text: &str, room: usize) -> tokenizers::Result<tokenizers::Encoding> {
        let from_the_left = matches!(self.direction, TruncationDirection::Right);
        let mut limit = room.saturating_mul(PREFIX_BYTES_PER_TOKEN).max(PREFIX_BYTES_MIN);
        while from_the_left && limit < text.len() / 2 {
            let Some(end) = self.cut.first_from(text, limit) else { break };
            let encoding = self.inner.encode(&text[..end])?;
            if encoding.len() > room {
                return Ok(encoding);
            }
            limit = end.saturating_mul(2);
        }
        self.inner.encode(text)
    }
}

impl Inner {
    /// The tokens of a text, without special tokens around it.
    fn encode(&self, text: &str) -> tokenizers::Result<tokenizers::Encoding> {
        match self {
            Self::Library(inner) => inner.encode_fast(text, false),
            Self::SentencePiece(inner) => inner.encode_fast(text, false),
        }
    }

    fn post_processor(&self) -> Option<&PostProcessorWrapper> {
        match self {
            Self::Library(inner) => inner.get_post_processor(),
            Self::SentencePiece(inner) => inner.get_post_processor(),
        }
    }
}

/// The file that holds the vocabulary.
fn main_file(files: &TokenizerFiles) -> &'static str {
    if files.tokenizer_json.is_some() {
        "tokenizer.json"
    } else if files.vocab_json.is_some() {
        files::VOCAB_JSON
    } else if files.vocab_txt.is_some() {
        files::VOCAB_TXT
    } else {
        files.sentencepiece.as_ref().map_or("tokenizer_config.json", |(name, _)| name)
    }
}

/// English has 4 to 5 bytes per token; twice that is nearly always enough at the first try.
const PREFIX_BYTES_PER_TOKEN: usize = 10;
/// Below this, reading a text to its end costs nothing worth saving.
const PREFIX_BYTES_MIN: usize = 4096;

fn from_json(json: &[u8]) -> Result<(tokenizers::Tokenizer, Option<TruncationDirection>), TokenizeError> {
    let tokenizer = tokenizers::Tokenizer::from_bytes(json);
    let mut tokenizer = tokenizer.map_err(|error| malformed("tokenizer.json", error.to_string()))?;
    let saved = tokenizer.get_truncation().map(|truncation| truncation.direction);
    tokenizer.with_padding(None);
    // Without parameters there is nothing that could be refused.
    let _ = tokenizer.with_truncation(None);
    Ok((tokenizer, saved))
}

/// `model_max_length`, unless it is the huge number that stands for "none".
fn model_max_length(config: &Value) -> Option<u32> {
    let length = config["model_max_length"].as_f64()?;
    // Python's marker is 10^30; no model reads a billion tokens.
    (1.0..1e9).contains(&length).then_some(length as u32)
}

/// Whether a model is given the types of tokens: where `model_input_names` names them, as in version 5 of the Python
/// library.
fn gives_types(config: &Value) -> bool {
    let names = config["model_input_names"].as_array();
    names.is_some_and(|names| names.iter().any(|name| name == "token_type_ids"))
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

    const BERT: &str = r#"{"model_type": "bert"}"#;
    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhe\n##llo\nworld\n!\ncafe\n";

    fn from_config(config: &str) -> Tokenizer {
        let files = TokenizerFiles {
            vocab_txt: Some(VOCAB.into()),
            tokenizer_config: Some(config.into()),
            config_json: Some(BERT.into()),
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
        let Inner::Library(inner) = from_config("{}").inner else { unreachable!("a vocab.txt") };
        let mut saved: Value = serde_json::from_str(&inner.to_string(false).expect("json")).expect("json");
        saved["post_processor"] =
            serde_json::json!({"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]});
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
    fn types_are_those_of_the_template_unless_the_model_is_given_none() {
        let Inner::Library(inner) = from_config("{}").inner else { unreachable!("a vocab.txt") };
        let mut saved: Value = serde_json::from_str(&inner.to_string(false).expect("json")).expect("json");
        let special = |token: &str, id: u32| serde_json::json!({"id": token, "ids": [id], "tokens": [token]});
        saved["post_processor"] = serde_json::json!({
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"SpecialToken": {"id": "[CLS]", "type_id": 2}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[SEP]": special("[SEP]", 3), "[CLS]": special("[CLS]", 2)}});
        let check = |config: &str, text: &str, expected: (&[u32], &[u32])| {
            let files = TokenizerFiles {
                tokenizer_json: Some(saved.to_string().into()),
                tokenizer_config: Some(config.into()),
                ..TokenizerFiles::default()
            };
            let tokenizer = Tokenizer::load(&files).expect("sound");
            let found = tokenizer.encode_batch(&[text], 5).expect("room").remove(0);
            assert_eq!((found.ids.as_slice(), found.types.as_slice()), expected, "{config} {text:?}");
        };
        let named = r#"{"model_input_names": ["input_ids", "token_type_ids"]}"#;
        check(named, "hello", (&[5, 6, 3, 2], &[0, 0, 0, 2]));
        check(named, "", (&[3, 2], &[0, 2]));
        check(named, "hello world !", (&[5, 6, 7, 3, 2], &[0, 0, 0, 0, 2]));
        // A special token within a text is a token of the text.
        check(named, "world [CLS]", (&[7, 2, 3, 2], &[0, 0, 0, 2]));
        check("{}", "world", (&[7, 3, 2], &[]));
        check(r#"{"model_input_names": ["input_ids", "attention_mask"]}"#, "world", (&[7, 3, 2], &[]));
        assert!(from_config("{}").encode_batch(&["world"], 5).expect("room")[0].types.is_empty());
    }

    #[test]
    fn a_long_text_is_read_only_as_far_as_needed_and_gives_the_same_tokens() {
        let tokenizer = from_config("{}");
        let mut whole = tokenizer.clone();
        whole.cut = Cut::Never;
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
    fn every_kind_of_tokenizer_can_be_cut() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
        for (kind, file, model_type) in [
            ("t5", "spiece.model", "t5"),
            ("fairseq", "sentencepiece.bpe.model", "xlm-roberta"),
            ("llama", "tokenizer.model", "llama"),
            ("gemma", "tokenizer.model", "gemma"),
            ("json", "tokenizer.json", "bert"),
        ] {
            let mut files = TokenizerFiles::default();
            let content = std::fs::read(folder.join(kind).join(file)).expect("fixture");
            assert!(files.insert(file, content));
            files.config_json = Some(format!(r#"{{"model_type": "{model_type}"}}"#).into());
            let tokenizer = Tokenizer::load(&files).expect(kind);
            assert_ne!(tokenizer.cut, Cut::Never, "{kind}");
            let mut whole = tokenizer.clone();
            whole.cut = Cut::Never;
            let text = "hello  wor1,d! <s> \u{600} caf\u{e9}\u{300}\u{3000} [MASK] \t\n ".repeat(2000);
            for max_length in [5, 700, 3000] {
                assert_eq!(ids(&tokenizer, &text, max_length), ids(&whole, &text, max_length), "{kind}");
            }
        }
    }

    #[test]
    fn a_panic_of_the_crate_is_an_error_of_the_file() {
        // The crate takes the prefix off the second part of a merge without looking how long that is.
        let json = r#"{"model": {"type": "BPE", "continuing_subword_prefix": "xxxx", "merges": [["a", "b"]],
            "vocab": {"a": 0, "b": 1, "ab": 2}}, "added_tokens": []}"#;
        let files = TokenizerFiles { tokenizer_json: Some(json.into()), ..TokenizerFiles::default() };
        let error = Tokenizer::load(&files).err().expect("refused").to_string();
        assert!(error.starts_with("tokenizer.json is malformed: "), "{error}");
    }

    #[test]
    fn malformed_files_are_named() {
        let check = |files: TokenizerFiles, expected: &str| {
            let error = Tokenizer::load(&files).err().expect("refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(TokenizerFiles::default(), "no vocab.txt and no SentencePiece model (spiece.model, ");
        check(
            TokenizerFiles {
                vocab_txt: Some("a\nb\n".into()),
                config_json: Some(BERT.into()),
                ..TokenizerFiles::default()
            },
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
