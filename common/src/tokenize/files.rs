//! Which files a tokenizer is made of, and in which order they are looked for.

/// The whole tokenizer in one file.
const TOKENIZER_JSON: &str = "tokenizer.json";
/// A vocabulary of byte-level BPE.
pub(super) const VOCAB_JSON: &str = "vocab.json";
/// The merges that go with [`VOCAB_JSON`].
pub(super) const MERGES_TXT: &str = "merges.txt";
/// A vocabulary of WordPiece.
pub(super) const VOCAB_TXT: &str = "vocab.txt";
/// Names under which SentencePiece models are found, in the order in which they are tried.
pub(super) const SENTENCEPIECE: [&str; 4] =
    ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model"];
/// Class, options and special tokens.
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens in the older form.
pub(super) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// Tokens added to a vocabulary, in the older form.
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";

/// The model's own config.
pub(super) const CONFIG: &str = "config.json";

/// The contents of the files of a tokenizer, as far as they exist and are used.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer_json: Option<Vec<u8>>,
    /// `vocab.json`; read only without a `tokenizer.json`, and only together with `merges_txt`.
    pub vocab_json: Option<Vec<u8>>,
    /// `merges.txt`.
    pub merges_txt: Option<Vec<u8>>,
    /// `vocab.txt`; read only without those above.
    pub vocab_txt: Option<Vec<u8>>,
    /// A SentencePiece model under one of its usual names; read only without those above.
    pub sentencepiece: Option<(&'static str, Vec<u8>)>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Vec<u8>>,
    /// `added_tokens.json`; not read beside a `tokenizer.json`.
    pub added_tokens: Option<Vec<u8>>,
    /// The model's own `config.json`: it tells the tokenizer's class where `tokenizer_config.json` does not.
    pub config_json: Option<Vec<u8>>,
}

impl TokenizerFiles {
    /// Reads the files that make up the tokenizer, and no others, in order of preference.
    ///
    /// `read` gives the content of a file, or none where it does not exist. The model's own config is left out.
    pub fn read<E>(mut read: impl FnMut(&'static str) -> Result<Option<Vec<u8>>, E>) -> Result<Self, E> {
        let mut files = Self { tokenizer_json: read(TOKENIZER_JSON)?, ..Self::default() };
        if files.tokenizer_json.is_none() {
            // Both or neither: a vocab.json alone says nothing that could be used.
            if let Some(merges) = read(MERGES_TXT)? {
                files.vocab_json = read(VOCAB_JSON)?;
                files.merges_txt = Some(merges);
            }
            if files.vocab_json.is_none() {
                files.vocab_txt = read(VOCAB_TXT)?;
            }
            if files.vocab_json.is_none() && files.vocab_txt.is_none() {
                for name in SENTENCEPIECE {
                    files.sentencepiece = read(name)?.map(|content| (name, content));
                    if files.sentencepiece.is_some() {
                        break;
                    }
                }
            }
            files.added_tokens = read(ADDED_TOKENS)?;
        }
        files.tokenizer_config = read(TOKENIZER_CONFIG)?;
        files.special_tokens_map = read(SPECIAL_TOKENS_MAP)?;
        Ok(files)
    }

    /// Whether a file of that name can be one of these.
    pub fn knows(name: &str) -> bool {
        Self::default().insert(name, Vec::new())
    }

    /// Takes in a file by its name; `false` where [`TokenizerFiles::knows`] none of that name.
    pub fn insert(&mut self, name: &str, content: Vec<u8>) -> bool {
        let place = match name {
            TOKENIZER_JSON => &mut self.tokenizer_json,
            VOCAB_JSON => &mut self.vocab_json,
            MERGES_TXT => &mut self.merges_txt,
            VOCAB_TXT => &mut self.vocab_txt,
            TOKENIZER_CONFIG => &mut self.tokenizer_config,
            SPECIAL_TOKENS_MAP => &mut self.special_tokens_map,
            ADDED_TOKENS => &mut self.added_tokens,
            CONFIG => &mut self.config_json,
            name => {
                let known = SENTENCEPIECE.into_iter().find(|known| *known == name);
                if let Some(name) = known {
                    self.sentencepiece = Some((name, content));
                }
                return known.is_some();
            }
        };
        *place = Some(content);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(folder: &[&str]) -> (TokenizerFiles, Vec<&'static str>) {
        let mut taken = Vec::new();
        let files = TokenizerFiles::read(|name| -> Result<_, ()> {
            let there = folder.contains(&name);
            if there {
                taken.push(name);
            }
            Ok(there.then(|| name.as_bytes().to_vec()))
        });
        (files.expect("read"), taken)
    }

    #[test]
    fn only_the_files_that_are_used_are_read() {
        let check = |folder: &[&str], expected: &[&str]| assert_eq!(read_from(folder).1, expected);
        let all = [
            "tokenizer.json",
            "vocab.json",
            "merges.txt",
            "vocab.txt",
            "spiece.model",
            "tokenizer.model",
            "added_tokens.json",
            "tokenizer_config.json",
        ];
        check(&all, &["tokenizer.json", "tokenizer_config.json"]);
        check(&all[1..], &["merges.txt", "vocab.json", "added_tokens.json", "tokenizer_config.json"]);
        check(&all[3..], &["vocab.txt", "added_tokens.json", "tokenizer_config.json"]);
        check(&all[4..], &["spiece.model", "added_tokens.json", "tokenizer_config.json"]);
        check(&all[5..], &["tokenizer.model", "added_tokens.json", "tokenizer_config.json"]);
        check(
            &["vocab.json", "vocab.txt", "special_tokens_map.json"],
            &["vocab.txt", "special_tokens_map.json"],
        );
        check(&[], &[]);
    }

    #[test]
    fn what_was_read_is_taken_back_by_name() {
        for folder in
            [&["tokenizer.json", "tokenizer_config.json"][..], &["vocab.json", "merges.txt"], &["vocab.txt"]]
        {
            let (_, taken) = read_from(folder);
            let mut files = TokenizerFiles::default();
            assert!(taken.iter().all(|name| files.insert(name, name.as_bytes().to_vec())));
            assert_eq!(format!("{files:?}"), format!("{:?}", read_from(folder).0));
        }
        let mut files = TokenizerFiles::default();
        assert!(files.insert("spm.model", vec![1]) && files.insert("added_tokens.json", vec![2]));
        assert_eq!(files.sentencepiece, Some(("spm.model", vec![1])));
        for name in ["", "pytorch_model.bin", "../vocab.txt", "/etc/passwd"] {
            assert!(!TokenizerFiles::knows(name) && !files.insert(name, vec![]), "{name}");
        }
    }
}
