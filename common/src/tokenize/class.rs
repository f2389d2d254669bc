//! What a tokenizer's class implies and its files do not say: special tokens, and where they go.
//!
//! The class is `tokenizer_class` of tokenizer_config.json, else of config.json, else what the Python library
//! takes for the `model_type`. One row of [`CLASSES`] is one class; a class that is not there is refused.

use serde_json::Value;

use super::files::{CONFIG, TOKENIZER_CONFIG};
use super::{TokenizeError, TokenizerFiles, object};

/// What a special token is for, in the order in which the Python library adds missing ones to a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Bos,
    Eos,
    Unk,
    Sep,
    Pad,
    Cls,
    Mask,
}

impl Role {
    /// Every role with its key in tokenizer_config.json and special_tokens_map.json.
    pub(super) const ALL: [(Self, &str); 7] = [
        (Self::Bos, "bos_token"),
        (Self::Eos, "eos_token"),
        (Self::Unk, "unk_token"),
        (Self::Sep, "sep_token"),
        (Self::Pad, "pad_token"),
        (Self::Cls, "cls_token"),
        (Self::Mask, "mask_token"),
    ];
}

/// The files that a class is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// vocab.txt.
    WordPiece,
    /// vocab.json and merges.txt.
    ByteLevel,
    /// A SentencePiece model.
    SentencePiece,
}

/// The special tokens around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// These before, those behind.
    Fixed(&'static [Role], &'static [Role]),
    /// `bos` before it by `add_bos_token`, which is this by default; `eos` behind it by `add_eos_token`.
    IfAsked {
        /// Whether `bos` is added where no file says.
        bos: bool,
    },
}

/// One tokenizer class.
#[derive(Debug)]
pub(super) struct Class {
    /// Names in the Python library, without "Fast"; the first is the one to speak of.
    pub(super) names: &'static [&'static str],
    /// Values of `model_type` for which the library takes this class.
    model_types: &'static [&'static str],
    /// What it is built from.
    pub(super) form: Form,
    /// Default contents, in the order of [`Role::ALL`]; empty where the class has none.
    pub(super) tokens: [&'static str; 7],
    /// Whether white space before the mask token belongs to it by default.
    pub(super) mask_takes_space: bool,
    /// The special tokens around a text.
    pub(super) frame: Frame,
}

/// bos, eos, unk, sep, pad, cls, mask.
const BERT_TOKENS: [&str; 7] = ["", "", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"];
const ROBERTA_TOKENS: [&str; 7] = ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"];
const CLS_AND_SEP: Frame = Frame::Fixed(&[Role::Cls], &[Role::Sep]);

/// Every class that can be built, in the order in which they are listed.
pub(super) const CLASSES: &[Class] = &[
    Class {
        names: &["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"],
        model_types: &["bert", "distilbert", "electra", "ernie", "mobilebert", "nomic_bert"],
        form: Form::WordPiece,
        tokens: BERT_TOKENS,
        mask_takes_space: false,
        frame: CLS_AND_SEP,
    },
    Class {
        names: &["MPNetTokenizer"],
        model_types: &["mpnet"],
        form: Form::WordPiece,
        tokens: ["<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>"],
        mask_takes_space: true,
        frame: CLS_AND_SEP,
    },
    Class {
        names: &["GPT2Tokenizer", "CodeGenTokenizer"],
        model_types: &["gpt2", "gpt_neo", "gptj", "opt", "phi", "codegen"],
        form: Form::ByteLevel,
        tokens: ["<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "", "", "", ""],
        mask_takes_space: false,
        frame: Frame::IfAsked { bos: false },
    },
    Class {
        names: &["RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer"],
        model_types: &["roberta", "bart", "longformer", "led", "roberta-prelayernorm", "data2vec-text"],
        form: Form::ByteLevel,
        tokens: ROBERTA_TOKENS,
        mask_takes_space: true,
        frame: CLS_AND_SEP,
    },
    Class {
        names: &["DebertaTokenizer"],
        model_types: &["deberta"],
        form: Form::ByteLevel,
        tokens: ["[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
        mask_takes_space: true,
        frame: CLS_AND_SEP,
    },
    Class {
        names: &["T5Tokenizer", "MT5Tokenizer"],
        model_types: &["t5", "mt5", "umt5", "longt5", "switch_transformers"],
        form: Form::SentencePiece,
        tokens: ["", "</s>", "<unk>", "", "<pad>", "", ""],
        mask_takes_space: false,
        frame: Frame::Fixed(&[], &[Role::Eos]),
    },
    Class {
        names: &["AlbertTokenizer"],
        model_types: &["albert"],
        form: Form::SentencePiece,
        tokens: ["[CLS]", "[SEP]", "<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]"],
        mask_takes_space: true,
        frame: CLS_AND_SEP,
    },
    Class {
        names: &["XLMRobertaTokenizer"],
        model_types: &["xlm-roberta", "xmod"],
        form: Form::SentencePiece,
        tokens: ROBERTA_TOKENS,
        mask_takes_space: true,
        frame: CLS_AND_SEP,
    },
    Class {
        names: &["CamembertTokenizer"],
        model_types: &["camembert"],
        form: Form::SentencePiece,
        tokens: ROBERTA_TOKENS,
        mask_takes_space: true,
        frame: CLS_AND_SEP,
    },
    Class {
        names: &["LlamaTokenizer"],
        model_types: &["llama", "mistral", "mixtral"],
        form: Form::SentencePiece,
        tokens: ["<s>", "</s>", "<unk>", "", "", "", ""],
        mask_takes_space: false,
        frame: Frame::IfAsked { bos: true },
    },
    Class {
        names: &["GemmaTokenizer"],
        model_types: &["gemma", "gemma2", "gemma3", "gemma3_text"],
        form: Form::SentencePiece,
        tokens: ["<bos>", "<eos>", "<unk>", "", "<pad>", "", "<mask>"],
        mask_takes_space: false,
        frame: Frame::IfAsked { bos: true },
    },
    Class {
        names: &["DebertaV2Tokenizer"],
        model_types: &["deberta-v2"],
        form: Form::SentencePiece,
        tokens: ["[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
        mask_takes_space: false,
        frame: CLS_AND_SEP,
    },
    Class {
        names: &["XLNetTokenizer"],
        model_types: &["xlnet"],
        form: Form::SentencePiece,
        tokens: ["<s>", "</s>", "<unk>", "<sep>", "<pad>", "<cls>", "<mask>"],
        mask_takes_space: true,
        frame: Frame::Fixed(&[], &[Role::Sep, Role::Cls]),
    },
];

/// Names of the library that stand for no class in particular.
const GENERIC: [&str; 3] = ["PreTrainedTokenizer", "TokenizersBackend", "SentencePieceBackend"];

impl Class {
    /// The class of these files, which must be built from `form`, the files being `from`.
    pub(super) fn find(
        files: &TokenizerFiles,
        form: Form,
        from: &'static str,
    ) -> Result<&'static Self, TokenizeError> {
        let tokenizer_config = object(TOKENIZER_CONFIG, files.tokenizer_config.as_deref())?;
        let config = object(CONFIG, files.config_json.as_deref())?;
        let named = |value: &Value| {
            let name = value["tokenizer_class"].as_str()?;
            let name = name.strip_suffix("Fast").unwrap_or(name);
            (!GENERIC.contains(&name)).then(|| name.to_owned())
        };
        let (class, named) =
            match (named(&tokenizer_config).or_else(|| named(&config)), &config["model_type"]) {
                (Some(name), _) => {
                    let class = CLASSES.iter().find(|class| class.names.contains(&name.as_str()));
                    (class, format!("tokenizer class {name:?}"))
                }
                (None, Value::String(model_type)) => {
                    let class = CLASSES.iter().find(|class| class.model_types.contains(&model_type.as_str()));
                    (class, format!("the tokenizer of model_type {model_type:?}"))
                }
                (None, _) => (None, "a tokenizer without tokenizer_class and model_type".to_owned()),
            };
        let class = class.filter(|class| class.form == form);
        class.ok_or_else(|| TokenizeError::Unsupported { class: named.chars().take(120).collect(), from })
    }

    /// The type of the `cls` token; all other tokens of a text are of type 0.
    pub(super) fn cls_type(&self) -> u32 {
        if self.is("XLNetTokenizer") { 2 } else { 0 }
    }

    /// Whether this is the class of that name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.names.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_comes_from_the_first_file_that_names_one() {
        let check = |tokenizer_config: &str, config: &str, form: Form, expected: &str| {
            let files = TokenizerFiles {
                tokenizer_config: Some(tokenizer_config.into()),
                config_json: Some(config.into()),
                ..TokenizerFiles::default()
            };
            match Class::find(&files, form, "vocab.txt") {
                Ok(class) => assert_eq!(class.names[0], expected),
                Err(error) => assert!(error.to_string().contains(expected), "{error}"),
            }
        };
        let (bert, gpt2) = (r#"{"model_type": "bert"}"#, r#"{"model_type": "gpt2"}"#);
        check(r#"{"tokenizer_class": "LlamaTokenizerFast"}"#, bert, Form::SentencePiece, "LlamaTokenizer");
        check(r#"{"tokenizer_class": "DistilBertTokenizer"}"#, gpt2, Form::WordPiece, "BertTokenizer");
        check("{}", gpt2, Form::ByteLevel, "GPT2Tokenizer");
        check(r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#, bert, Form::WordPiece, "BertTokenizer");
        check("{}", r#"{"tokenizer_class": "T5Tokenizer"}"#, Form::SentencePiece, "T5Tokenizer");
        check(
            "{}",
            bert,
            Form::SentencePiece,
            r#"the tokenizer of model_type "bert" cannot be built from vocab.txt"#,
        );
        check(
            r#"{"tokenizer_class": "CanineTokenizer"}"#,
            bert,
            Form::WordPiece,
            r#"class "CanineTokenizer""#,
        );
        check("{}", "{}", Form::WordPiece, "a tokenizer without tokenizer_class and model_type");
        check("[]", "{}", Form::WordPiece, "tokenizer_config.json is malformed");
    }

    #[test]
    fn no_name_occurs_twice() {
        for names in [
            CLASSES.iter().flat_map(|class| class.names).collect::<Vec<_>>(),
            CLASSES.iter().flat_map(|class| class.model_types).collect(),
        ] {
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), names.len());
        }
    }
}
