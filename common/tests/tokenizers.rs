//! Tokenizers of every kind of file against stored ids; see `tests/fixtures/tokenizers/README.md`.

use std::fs;
use std::path::{Path, PathBuf};

use lsa_common::id::Digest;
use lsa_common::tokenize::{Tokenizer, TokenizerFiles};
use serde_json::Value;

/// The length for which truncated results are stored.
const MAX_LENGTH: u32 = 12;

const KINDS: [(&str, &str); 12] = [
    ("json", "tokenizer.json"),
    ("byte-level", "byte-level BPE from vocab.json and merges.txt"),
    ("word-piece", "WordPiece from vocab.txt"),
    ("t5", "SentencePiece Unigram from spiece.model"),
    ("t5-bytes", "SentencePiece Unigram from spiece.model"),
    ("fairseq", "SentencePiece Unigram from sentencepiece.bpe.model"),
    ("albert", "SentencePiece Unigram from spiece.model"),
    ("xlnet", "SentencePiece Unigram from spiece.model"),
    ("deberta-v2", "SentencePiece Unigram from spm.model"),
    ("llama", "SentencePiece BPE from tokenizer.model"),
    ("bpe", "SentencePiece BPE from tokenizer.model"),
    ("gemma", "SentencePiece BPE from tokenizer.model"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers")
}

fn json(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(path).expect("fixture")).expect("an array")
}

fn texts() -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => value[0].as_str().expect("a text").repeat(value[1].as_u64().expect("a number") as usize),
    };
    json(&fixtures().join("texts.json")).iter().map(text).collect()
}

/// The files of one case: those of its folder, and those that it brings.
fn files(folder: &Path, case: &Value) -> TokenizerFiles {
    let mut files = TokenizerFiles::default();
    for entry in fs::read_dir(folder).expect("fixture") {
        let entry = entry.expect("listed");
        let name = entry.file_name().into_string().expect("utf-8");
        if name != "cases.json" {
            assert!(files.insert(&name, fs::read(entry.path()).expect("read")), "{name}");
        }
    }
    for (name, content) in case["files"].as_object().expect("an object") {
        assert!(files.insert(name, content.to_string().into()), "{name}");
    }
    files
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("an array").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Whether these are the stored ids, or have their number and digest.
fn agree(found: &[u32], stored: &Value) -> bool {
    if stored.is_array() {
        return found == ids(stored);
    }
    let bytes: Vec<u8> = found.iter().flat_map(|id| id.to_le_bytes()).collect();
    stored["n"] == found.len() && stored["sha256"] == Digest::of(&bytes).to_string()
}

#[test]
fn every_kind_gives_the_stored_ids() {
    let texts = texts();
    let mut faults = Vec::new();
    for (kind, name) in KINDS {
        let folder = fixtures().join(kind);
        for case in json(&folder.join("cases.json")) {
            let label = format!("{kind}, {}", case["name"].as_str().expect("a name"));
            let tokenizer = Tokenizer::load(&files(&folder, &case)).expect(&label);
            assert_eq!(tokenizer.kind().to_string(), name);
            let whole = tokenizer.encode_batch(&texts, u32::MAX).expect(&label);
            let cut = tokenizer.encode_batch(&texts, MAX_LENGTH).expect(&label);
            // Of the last tokens; all others are of type 0.
            let last_types = case.get("last_types").map(ids).unwrap_or_default();
            for encoded in whole.iter().chain(&cut) {
                let (n_ids, n_last) = (encoded.ids.len(), last_types.len());
                let zeros = if n_last == 0 { 0 } else { n_ids - n_last };
                assert_eq!(encoded.types, [vec![0; zeros], last_types.clone()].concat(), "{label}");
            }
            for (row, text) in texts.iter().enumerate() {
                let shown: String = text.chars().take(60).collect();
                if !agree(&whole[row].ids, &case["ids"][row]) {
                    let found: Vec<&u32> = whole[row].ids.iter().take(80).collect();
                    faults.push(format!(
                        "{label}, text {row} {shown:?}: {found:?}, expected {}",
                        case["ids"][row]
                    ));
                } else if cut[row].ids != ids(&case["truncated"][row]) {
                    let found = &cut[row].ids;
                    faults.push(format!(
                        "{label}, text {row} {shown:?} cut: {found:?}, expected {}",
                        case["truncated"][row]
                    ));
                }
                assert!(!whole[row].truncated);
                assert_eq!(
                    cut[row].truncated,
                    whole[row].ids.len() > MAX_LENGTH as usize,
                    "{label}, text {row}"
                );
            }
        }
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

/// Repeatable random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    /// Damages a file as a bad disk, a broken download or an attacker would.
    fn damage(&mut self, content: &mut Vec<u8>) {
        let place = self.below(content.len());
        match self.below(12) {
            0 => content.truncate(place),
            1 => {
                let end = place + self.below(40).min(content.len() - place);
                content.drain(place..end);
            }
            // A huge length, or a huge number.
            2 => content.splice(place..place, [0xff; 9].into_iter().chain([1])).for_each(drop),
            3 => content.splice(place..place, *b"99999999999").for_each(drop),
            4 => {
                let from = self.below(content.len());
                let piece = content[from..(from + self.below(60)).min(content.len())].to_vec();
                content.splice(place..place, piece).for_each(drop);
            }
            _ => {
                for _ in 0..=self.below(4) {
                    let place = self.below(content.len());
                    if let Some(byte) = content.get_mut(place) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
    }
}

/// Every file of a tokenizer that is there, with its name.
fn present(files: &mut TokenizerFiles) -> Vec<(&'static str, &mut Vec<u8>)> {
    let TokenizerFiles { tokenizer_json, vocab_json, merges_txt, vocab_txt, sentencepiece, .. } = files;
    let plain = [
        ("tokenizer.json", tokenizer_json),
        ("vocab.json", vocab_json),
        ("merges.txt", merges_txt),
        ("vocab.txt", vocab_txt),
        ("tokenizer_config.json", &mut files.tokenizer_config),
        ("special_tokens_map.json", &mut files.special_tokens_map),
        ("added_tokens.json", &mut files.added_tokens),
        ("config.json", &mut files.config_json),
    ];
    let plain = plain.into_iter().filter_map(|(name, content)| Some((name, content.as_mut()?)));
    plain.chain(sentencepiece.as_mut().map(|(name, content)| (*name, content))).collect()
}

#[test]
fn damaged_files_give_an_error_that_names_them_or_a_tokenizer() {
    let texts = ["", " The naïve  fox <mask> [MASK]", "日本語 ☃ ﬁne\t9, ``x''", "<s>a</s> <0x41>"];
    let (mut n_refused, mut n_loaded) = (0, 0);
    for (seed, (kind, _)) in KINDS.into_iter().enumerate() {
        let folder = fixtures().join(kind);
        let cases = json(&folder.join("cases.json"));
        let mut random = Random(seed as u64);
        for round in 0..400 {
            let mut files = files(&folder, &cases[round % cases.len()]);
            let mut there = present(&mut files);
            let names: Vec<&str> = there.iter().map(|(name, _)| *name).collect();
            let (_, content) = &mut there[round / cases.len() % names.len()];
            random.damage(content);
            match Tokenizer::load(&files) {
                Ok(tokenizer) => {
                    n_loaded += 1;
                    for text in texts {
                        // Ids or a reason, but no panic and no end.
                        let _ = tokenizer.encode_batch(&[text], 512);
                    }
                }
                Err(error) => {
                    n_refused += 1;
                    let error = error.to_string();
                    let named = names.iter().any(|name| error.contains(name));
                    assert!(named || error.contains("tokenizer_class"), "{kind}, round {round}: {error}");
                }
            }
        }
    }
    assert!(
        n_refused > 1000 && n_loaded > 500,
        "{n_refused} refused, {n_loaded} loaded: one side is untested"
    );
}
