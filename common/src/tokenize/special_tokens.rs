//! Special and added tokens, from wherever the files of a tokenizer name them.
//!
//! tokenizer_config.json holds the roles (`"cls_token": "[CLS]"`) and, in the newer form, every added token with
//! its id in `added_tokens_decoder`. In the older form special_tokens_map.json overrides the roles, and
//! added_tokens.json holds the ids.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use tokenizers::AddedToken;

use super::class::{Class, Frame, Role};
use super::files::{ADDED_TOKENS, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG};
use super::{TokenizeError, TokenizerFiles, malformed, object};

/// The special tokens of a class, and tokens added to its vocabulary.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// tokenizer_config.json, for the options of the class.
    pub(super) config: Value,
    roles: Vec<(Role, AddedToken)>,
    /// Tokens whose id the files name.
    numbered: BTreeMap<u32, AddedToken>,
    /// The file in which the ids stand.
    numbered_in: &'static str,
    /// Further special tokens.
    extra: Vec<AddedToken>,
    before: Vec<Role>,
    behind: Vec<Role>,
    cls_type: u32,
}

/// Token ids around every text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Around {
    /// Before it.
    pub(super) before: Vec<u32>,
    /// Behind it.
    pub(super) behind: Vec<u32>,
    /// The types of those behind it; those before it are of type 0.
    pub(super) behind_types: Vec<u32>,
}

impl SpecialTokens {
    /// The special tokens that these files name, with the defaults of `class`.
    pub(super) fn read(files: &TokenizerFiles, class: &Class) -> Result<Self, TokenizeError> {
        let config = object(TOKENIZER_CONFIG, files.tokenizer_config.as_deref())?;
        let mut numbered = BTreeMap::new();
        let mut map = Value::Null;
        let newer = config.get("added_tokens_decoder").is_some();
        if newer {
            let decoder = config["added_tokens_decoder"].as_object();
            let decoder = decoder
                .ok_or_else(|| malformed(TOKENIZER_CONFIG, "\"added_tokens_decoder\" is no object".into()))?;
            for (id, token) in decoder {
                let fault = || format!("\"added_tokens_decoder\" has {token} for {id:?}");
                let id = id.parse().map_err(|_| malformed(TOKENIZER_CONFIG, fault()))?;
                let token = from_object(token, false).ok_or_else(|| malformed(TOKENIZER_CONFIG, fault()))?;
                numbered.insert(id, token);
            }
        } else {
            map = object(SPECIAL_TOKENS_MAP, files.special_tokens_map.as_deref())?;
        }
        // The older file comes first where both name a role, as in the Python library.
        let named = |key: &str| map.get(key).or_else(|| config.get(key));
        let by_content: HashMap<String, AddedToken> =
            numbered.values().map(|token: &AddedToken| (token.content.clone(), token.clone())).collect();
        let with_defaults = |role: Role, content: &str| {
            let default =
                || AddedToken::from(content, true).lstrip(role == Role::Mask && class.mask_takes_space);
            by_content.get(content).cloned().unwrap_or_else(default)
        };
        let mut roles = Vec::new();
        for ((role, key), default) in Role::ALL.into_iter().zip(class.tokens) {
            let token = match named(key) {
                Some(Value::Null) => None,
                Some(Value::String(content)) => Some(with_defaults(role, content)),
                Some(value) => {
                    let token = from_object(value, true);
                    let token = token.ok_or_else(|| {
                        let file = if map.get(key).is_some() { SPECIAL_TOKENS_MAP } else { TOKENIZER_CONFIG };
                        malformed(file, format!("\"{key}\" is neither a text nor an object with a text"))
                    })?;
                    Some(by_content.get(&token.content).cloned().unwrap_or(token))
                }
                None => (!default.is_empty()).then(|| with_defaults(role, default)),
            };
            roles.extend(token.map(|token| (role, token.special(true))));
        }
        let mut extra = Vec::new();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            for value in named(key).and_then(Value::as_array).into_iter().flatten() {
                let token = value.as_str().map(|content| AddedToken::from(content, true));
                extra.extend(token.or_else(|| from_object(value, true)));
            }
        }
        let mut numbered_in = TOKENIZER_CONFIG;
        if !newer && files.added_tokens.is_some() {
            numbered_in = ADDED_TOKENS;
            let added = object(ADDED_TOKENS, files.added_tokens.as_deref())?;
            let special = roles.iter().map(|(_, token)| token).chain(&extra);
            let special: HashMap<&str, &AddedToken> =
                special.map(|token| (token.content.as_str(), token)).collect();
            for (content, id) in added.as_object().into_iter().flatten() {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = id.ok_or_else(|| {
                    malformed(ADDED_TOKENS, format!("the id of {content:?} is no token id"))
                })?;
                let special = special.get(content.as_str()).map(|token| (*token).clone());
                let token = special.unwrap_or_else(|| AddedToken::from(content.as_str(), false));
                numbered.insert(id, token);
            }
        }
        let (before, behind) = match class.frame {
            Frame::Fixed(before, behind) => (before.to_vec(), behind.to_vec()),
            Frame::IfAsked { bos } => {
                let asked = |key: &str, default: bool| config[key].as_bool().unwrap_or(default);
                let before = asked("add_bos_token", bos).then_some(Role::Bos);
                let behind = asked("add_eos_token", false).then_some(Role::Eos);
                (before.into_iter().collect(), behind.into_iter().collect())
            }
        };
        let cls_type = class.cls_type();
        Ok(Self { config, roles, numbered, numbered_in, extra, before, behind, cls_type })
    }

    /// The content of the token in this role.
    pub(super) fn content(&self, role: Role) -> Option<&str> {
        self.roles.iter().find(|(known, _)| *known == role).map(|(_, token)| token.content.as_str())
    }

    /// Adds further special tokens that the class always has.
    pub(super) fn add_extra(&mut self, contents: impl IntoIterator<Item = String>) {
        self.extra.extend(contents.into_iter().map(|content| AddedToken::from(content, true)));
    }

    /// Every token to be added to a vocabulary, in the order in which new ones get their ids: those of `first`,
    /// those whose ids the files name, and all others.
    pub(super) fn tokens(&self, first: &[String]) -> Vec<AddedToken> {
        let named = self.roles.iter().map(|(_, token)| token).chain(&self.extra);
        let named = || self.numbered.values().chain(named.clone());
        let by_content: HashMap<&str, &AddedToken> =
            named().map(|token| (token.content.as_str(), token)).collect();
        let first = first.iter().map(|content| match by_content.get(content.as_str()) {
            Some(token) => (*token).clone(),
            None => AddedToken::from(content.as_str(), true),
        });
        let mut seen = HashSet::from([String::new()]);
        first.chain(named().cloned()).filter(|token| seen.insert(token.content.clone())).collect()
    }

    /// The ids around every text, once `id` knows every token; ids that the files name are checked.
    pub(super) fn around(&self, id: impl Fn(&str) -> Option<u32>) -> Result<Around, TokenizeError> {
        for (number, token) in &self.numbered {
            let found = id(&token.content);
            if !token.content.is_empty() && found != Some(*number) {
                let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
                let reason = format!(
                    "token {:?} has id {number} there but {found} in the vocabulary; take all files of the tokenizer \
                     from one revision",
                    token.content
                );
                return Err(malformed(self.numbered_in, reason));
            }
        }
        let id = |role: &Role| id(self.content(*role)?);
        let typed = |role: &Role| Some((id(role)?, if *role == Role::Cls { self.cls_type } else { 0 }));
        let (behind, behind_types) = self.behind.iter().filter_map(typed).unzip();
        Ok(Around { before: self.before.iter().filter_map(id).collect(), behind, behind_types })
    }
}

/// A token written as an object; what it leaves out is as the Python library has it.
fn from_object(value: &Value, special: bool) -> Option<AddedToken> {
    let flag = |key: &str, default: bool| value[key].as_bool().unwrap_or(default);
    let special = special || flag("special", false);
    let token = AddedToken::from(value["content"].as_str()?, special);
    let normalized = flag("normalized", token.normalized);
    Some(
        token
            .single_word(flag("single_word", false))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .normalized(normalized),
    )
}

#[cfg(test)]
mod tests {
    use super::super::class::Form;
    use super::*;

    fn read(model_type: &str, form: Form, files: TokenizerFiles) -> Result<SpecialTokens, TokenizeError> {
        let config = format!(r#"{{"model_type": "{model_type}"}}"#);
        let files = TokenizerFiles { config_json: Some(config.into()), ..files };
        SpecialTokens::read(&files, Class::find(&files, form, "the file")?)
    }

    fn config(config: &str) -> TokenizerFiles {
        TokenizerFiles { tokenizer_config: Some(config.into()), ..TokenizerFiles::default() }
    }

    #[test]
    fn roles_come_from_the_files_and_then_from_the_class() {
        let read = |files| read("roberta", Form::ByteLevel, files).expect("sound");
        let plain = read(TokenizerFiles::default());
        assert_eq!(plain.content(Role::Cls), Some("<s>"));
        let mask = plain.tokens(&[]).into_iter().find(|token| token.content == "<mask>").expect("there");
        assert!(mask.lstrip && mask.special && !mask.normalized);
        let named =
            read(config(r#"{"cls_token": "<c>", "mask_token": {"content": "<m>"}, "pad_token": null}"#));
        assert_eq!((named.content(Role::Cls), named.content(Role::Pad)), (Some("<c>"), None));
        assert!(named.tokens(&[]).iter().all(|token| !token.lstrip));
        let older = TokenizerFiles {
            special_tokens_map: Some(r#"{"cls_token": "<d>"}"#.into()),
            ..config(r#"{"cls_token": "<c>"}"#)
        };
        assert_eq!(read(older.clone()).content(Role::Cls), Some("<d>"));
        let newer = TokenizerFiles {
            tokenizer_config: Some(
                r#"{"cls_token": "<c>", "added_tokens_decoder": {"7": {"content": "<c>", "rstrip": true}}}"#
                    .into(),
            ),
            ..older
        };
        let newer = read(newer);
        assert_eq!(newer.content(Role::Cls), Some("<c>"));
        assert!(newer.tokens(&[])[0].rstrip);
    }

    #[test]
    fn ids_that_the_files_name_are_checked() {
        let decoder = r#"{"added_tokens_decoder": {"7": {"content": "<a>"}, "3": {"content": "<b>"}}}"#;
        let added =
            TokenizerFiles { added_tokens: Some(r#"{"<a>": 7, "<b>": 3}"#.into()), ..Default::default() };
        for (files, file) in [(config(decoder), "tokenizer_config.json"), (added, "added_tokens.json")] {
            let special = read("gpt2", Form::ByteLevel, files).expect("sound");
            let contents: Vec<String> = special.tokens(&[]).into_iter().map(|token| token.content).collect();
            assert_eq!(contents, ["<b>", "<a>", "<|endoftext|>"]);
            let id = |content: &str| match content {
                "<a>" => Some(7),
                "<b>" => Some(3),
                _ => None,
            };
            assert_eq!(special.around(id).expect("agrees"), Around::default());
            let error = special.around(|_| Some(7)).expect_err("differs").to_string();
            assert!(error.contains(file) && error.contains("\"<b>\" has id 3 there but 7"), "{error}");
        }
    }

    #[test]
    fn tokens_around_a_text_follow_class_and_options() {
        let check = |model_type: &str, form: Form, options: &str, before: &[u32], behind: &[u32]| {
            let special = read(model_type, form, config(options)).expect("sound");
            let id = |content: &str| {
                Role::ALL.iter().position(|(role, _)| special.content(*role) == Some(content))
            };
            let around = special.around(|content| id(content).map(|id| id as u32)).expect("no ids");
            assert_eq!(
                (around.before.as_slice(), around.behind.as_slice()),
                (before, behind),
                "{model_type} {options}"
            );
        };
        check("bert", Form::WordPiece, "{}", &[5], &[3]);
        check("gpt2", Form::ByteLevel, "{}", &[], &[]);
        check("opt", Form::ByteLevel, r#"{"add_bos_token": true}"#, &[0], &[]);
        check("llama", Form::SentencePiece, "{}", &[0], &[]);
        check("llama", Form::SentencePiece, r#"{"add_bos_token": false, "add_eos_token": true}"#, &[], &[1]);
        check("t5", Form::SentencePiece, "{}", &[], &[1]);
        check("xlnet", Form::SentencePiece, "{}", &[], &[3, 5]);
        let xlnet = read("xlnet", Form::SentencePiece, TokenizerFiles::default()).expect("sound");
        assert_eq!(xlnet.around(|_| Some(1)).expect("no ids").behind_types, [0, 2]);
    }

    #[test]
    fn malformed_files_are_named() {
        let check = |files: TokenizerFiles, expected: &str| {
            let error = read("roberta", Form::ByteLevel, files).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(config(r#"{"added_tokens_decoder": 3}"#), "tokenizer_config.json is malformed");
        check(
            config(r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#),
            "tokenizer_config.json is malformed",
        );
        check(config(r#"{"added_tokens_decoder": {"1": 2}}"#), "\"added_tokens_decoder\" has 2 for \"1\"");
        check(config(r#"{"cls_token": 3}"#), "tokenizer_config.json is malformed: \"cls_token\"");
        let map = |map: &str| TokenizerFiles { special_tokens_map: Some(map.into()), ..Default::default() };
        check(map(r#"{"cls_token": []}"#), "special_tokens_map.json is malformed: \"cls_token\"");
        check(map("{"), "special_tokens_map.json is malformed");
        let added = |added: &str| TokenizerFiles { added_tokens: Some(added.into()), ..Default::default() };
        check(added(r#"{"a": -1}"#), "added_tokens.json is malformed");
        check(added("3"), "added_tokens.json is malformed");
    }
}
