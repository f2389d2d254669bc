//! The order of ids: where the pieces of a model and the special tokens of a class are in the vocabulary.

use std::collections::{HashMap, HashSet};

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;

use super::super::class::{Class, Role};
use super::super::special_tokens::SpecialTokens;
use super::proto::{Model, Piece, PieceType};

/// The vocabulary of a tokenizer; a position is an id.
pub(super) struct Vocabulary {
    /// Contents and scores.
    entries: Vec<(String, f64)>,
    /// Special tokens whose ids follow those of the entries, in this order.
    behind: Vec<String>,
    /// The id of the unknown token.
    unknown: usize,
    /// The id of each piece of the model.
    ids: Vec<u32>,
}

/// Extra ids of T5 where the config names no number.
const EXTRA_IDS: u64 = 100;
/// The most seen is 300.
const EXTRA_IDS_MAX: u64 = 1 << 16;
/// A vocabulary of 250,000 pieces has some 600,000 merges.
const MERGES_MAX: usize = 1 << 23;
/// What classes that avoid pieces such as "9," take off their scores.
const NUMBER_COMMA_PENALTY: f64 = 100.0;
/// Below the lowest score by this, a piece is not taken as long as single characters make up the same text; they
/// cost some tens each.
const OUT_OF_REACH: f64 = 1000.0;

impl Vocabulary {
    /// The vocabulary that a class makes of a model's pieces; what it adds for itself goes to `special`.
    pub(super) fn of(model: &Model, class: &Class, special: &mut SpecialTokens) -> Result<Self, String> {
        let mut seen = HashSet::new();
        if let Some(piece) = model.pieces.iter().find(|piece| !seen.insert(&piece.text)) {
            return Err(format!("it has the piece {:?} twice", piece.text));
        }
        let kinds: Vec<PieceType> = model.pieces.iter().map(|piece| piece.kind).collect();
        let mut unknown = kinds.iter().enumerate().filter(|(_, kind)| **kind == PieceType::Unknown);
        let (Some((unknown, _)), None) = (unknown.next(), unknown.next()) else {
            return Err("it has no piece for the unknown, or several".into());
        };
        let begins_with = |expected: &[PieceType]| match kinds.starts_with(expected) {
            true => Ok(()),
            false => {
                Err(format!("its first pieces are not the special ones that {} expects", class.names[0]))
            }
        };
        let n_pieces = model.pieces.len() as u32;
        let scores = Scores::of(model, class);
        let entry = |content: &str| (content.to_owned(), scores.of_special());
        let role = |role: Role, default: &str| entry(special.content(role).unwrap_or(default));
        let mask = special.content(Role::Mask).unwrap_or("<mask>").to_owned();
        let pieces = model.pieces.iter().map(|piece| (piece.text.clone(), scores.of_piece(piece)));
        if class.is("XLMRobertaTokenizer") {
            // fairseq has these in another order, and one more of them than the model.
            begins_with(&[PieceType::Unknown, PieceType::Control, PieceType::Control])?;
            let first = [(Role::Bos, "<s>"), (Role::Pad, "<pad>"), (Role::Eos, "</s>"), (Role::Unk, "<unk>")];
            let first = first.map(|(name, default)| role(name, default));
            let entries = first.into_iter().chain(pieces.skip(3)).collect();
            let ids = [3, 0, 2].into_iter().chain(4..n_pieces + 1).collect();
            return Ok(Self { entries, behind: vec![mask], unknown: 3, ids });
        }
        if class.is("CamembertTokenizer") {
            // As above, but the model's own pieces for beginning and end are used, and the others are not.
            begins_with(&[PieceType::Unknown])?;
            let unused = ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"];
            let [start, end, unk] = unused.map(entry);
            let first = [start, role(Role::Pad, "<pad>"), end, role(Role::Unk, "<unk>"), unk];
            let entries = first.into_iter().chain(pieces.skip(1)).collect();
            let ids = [3].into_iter().chain(5..n_pieces + 4).collect();
            special.add_extra(unused.map(str::to_owned));
            return Ok(Self { entries, behind: vec![mask], unknown: 3, ids });
        }
        let entries = pieces.collect();
        let mut behind = Vec::new();
        if class.is("T5Tokenizer") {
            let n_extra = special.config["extra_ids"].as_u64().unwrap_or(EXTRA_IDS);
            if n_extra > EXTRA_IDS_MAX {
                return Err(format!(
                    "\"extra_ids\" of tokenizer_config.json is {n_extra}, at most {EXTRA_IDS_MAX}"
                ));
            }
            let extra = (0..n_extra).rev().map(|number| format!("<extra_id_{number}>"));
            behind.extend(extra.filter(|content| !seen.contains(content)));
        }
        if class.is("XLNetTokenizer") {
            special.add_extra(["<eop>", "<eod>"].map(str::to_owned));
        }
        Ok(Self { entries, behind, unknown, ids: (0..n_pieces).collect() })
    }

    /// Special tokens that must be added first, in this order.
    pub(super) fn behind(&self) -> &[String] {
        &self.behind
    }

    /// The pieces of one type that stand in the vocabulary under their own text, with their ids.
    pub(super) fn ids<'a>(
        &'a self,
        model: &'a Model,
        kind: PieceType,
    ) -> impl Iterator<Item = (&'a str, u32)> {
        let pieces = model.pieces.iter().zip(&self.ids).filter(move |(piece, _)| piece.kind == kind);
        pieces
            .filter(|(piece, id)| self.entries[**id as usize].0 == piece.text)
            .map(|(piece, id)| (piece.text.as_str(), *id))
    }

    /// The model that takes the most likely pieces.
    pub(super) fn unigram(&self, model: &Model) -> Result<Unigram, String> {
        let unigram = Unigram::from(self.entries.clone(), Some(self.unknown), model.byte_fallback);
        unigram.map_err(|error| error.to_string())
    }

    /// The model that joins pieces in the order of their scores.
    pub(super) fn bpe(&self, model: &Model) -> Result<BPE, String> {
        if model.pieces.iter().any(|piece| piece.kind == PieceType::Unused) {
            return Err("it is of type bpe and has unused pieces, which is not supported".into());
        }
        let vocab: Vocab =
            self.entries.iter().zip(0..).map(|((content, _), id)| (content.clone(), id)).collect();
        let unknown = self.entries[self.unknown].0.clone();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges(&model.pieces)?)
            .unk_token(unknown)
            .fuse_unk(true)
            .byte_fallback(model.byte_fallback);
        bpe.build().map_err(|error| error.to_string())
    }
}

/// Every pair of pieces that make up a third, the one of the highest score first.
///
/// Among pairs of one score the longer left part comes first: that is the order in which SentencePiece, which goes
/// from left to right, meets them.
fn merges(pieces: &[Piece]) -> Result<Vec<(String, String)>, String> {
    let normal = || pieces.iter().filter(|piece| piece.kind == PieceType::Normal);
    let ids: HashMap<&str, usize> =
        normal().enumerate().map(|(id, piece)| (piece.text.as_str(), id)).collect();
    let mut merges = Vec::new();
    for piece in normal() {
        let n_chars = piece.text.chars().count();
        for (n_left, (place, _)) in piece.text.char_indices().enumerate().skip(1) {
            let (left, right) = piece.text.split_at(place);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push((piece.score, n_left, n_chars - n_left, left, right));
            }
        }
        if merges.len() > MERGES_MAX {
            return Err(format!("its pieces allow more than {MERGES_MAX} merges"));
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))));
    Ok(merges.into_iter().map(|(.., left, right)| (left.to_owned(), right.to_owned())).collect())
}

/// How likely SentencePiece takes a piece to be.
struct Scores {
    lowest: f64,
    highest: f64,
    /// Whether pieces such as "9," are avoided, as these classes do.
    avoids_number_commas: bool,
}

impl Scores {
    fn of(model: &Model, class: &Class) -> Self {
        let normal = model.pieces.iter().filter(|piece| piece.kind == PieceType::Normal);
        let scores = normal.map(|piece| f64::from(piece.score));
        let (mut lowest, mut highest) = (0.0f64, f64::from(f32::MIN_POSITIVE));
        for score in scores {
            lowest = lowest.min(score);
            highest = highest.max(score);
        }
        let avoids_number_commas = class.is("AlbertTokenizer") || class.is("XLNetTokenizer");
        Self { lowest, highest, avoids_number_commas }
    }

    /// The score of what a text is never cut into: special tokens are found in the text as it was written, and a
    /// normalized text may look like one.
    fn of_special(&self) -> f64 {
        self.lowest - OUT_OF_REACH
    }

    fn of_piece(&self, piece: &Piece) -> f64 {
        match piece.kind {
            PieceType::Normal if self.avoids_number_commas && ends_in_number_comma(&piece.text) => {
                f64::from(piece.score) - NUMBER_COMMA_PENALTY
            }
            PieceType::Normal => f64::from(piece.score),
            // Always taken where it occurs.
            PieceType::UserDefined => piece.text.len() as f64 * self.highest - 0.1,
            PieceType::Unused | PieceType::Byte | PieceType::Unknown | PieceType::Control => {
                self.of_special()
            }
        }
    }
}

fn ends_in_number_comma(text: &str) -> bool {
    text.strip_suffix(',').and_then(|rest| rest.chars().next_back()).is_some_and(char::is_numeric)
}

#[cfg(test)]
mod tests {
    use super::super::super::TokenizerFiles;
    use super::super::super::class::Form;
    use super::super::proto::ModelType;
    use super::*;

    fn model(pieces: &[(&str, PieceType)]) -> Model {
        let piece = |(index, (text, kind)): (usize, &(&str, PieceType))| Piece {
            text: (*text).to_owned(),
            score: -(index as f32),
            kind: *kind,
        };
        Model {
            pieces: pieces.iter().enumerate().map(piece).collect(),
            model_type: ModelType::Unigram,
            byte_fallback: false,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        }
    }

    const PIECES: [(&str, PieceType); 4] = [
        ("<unk>", PieceType::Unknown),
        ("<s>", PieceType::Control),
        ("</s>", PieceType::Control),
        ("a", PieceType::Normal),
    ];

    fn vocabulary(model: &Model, class: &str, options: &str) -> Result<Vocabulary, String> {
        let config = format!(r#"{{"tokenizer_class": "{class}"{options}}}"#);
        let files = TokenizerFiles { tokenizer_config: Some(config.into()), ..TokenizerFiles::default() };
        let class = Class::find(&files, Form::SentencePiece, "spiece.model").expect("known");
        let mut special = SpecialTokens::read(&files, class).expect("sound");
        Vocabulary::of(model, class, &mut special)
    }

    #[test]
    fn ids_are_in_the_order_of_the_class() {
        let check = |class: &str, options: &str, expected: &[&str], behind: &[&str], ids: &[u32]| {
            let model = model(&PIECES);
            let found = vocabulary(&model, class, options).expect("sound");
            let contents: Vec<&str> = found.entries.iter().map(|(content, _)| content.as_str()).collect();
            assert_eq!(
                (contents.as_slice(), found.behind(), found.ids.as_slice()),
                (expected, &*behind.iter().map(|content| content.to_string()).collect::<Vec<_>>(), ids)
            );
        };
        let plain = ["<unk>", "<s>", "</s>", "a"];
        check("LlamaTokenizer", "", &plain, &[], &[0, 1, 2, 3]);
        check("T5Tokenizer", r#", "extra_ids": 2"#, &plain, &["<extra_id_1>", "<extra_id_0>"], &[0, 1, 2, 3]);
        check("XLMRobertaTokenizer", "", &["<s>", "<pad>", "</s>", "<unk>", "a"], &["<mask>"], &[3, 0, 2, 4]);
        let camembert = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "a"];
        check("CamembertTokenizer", r#", "mask_token": "<m>""#, &camembert, &["<m>"], &[3, 5, 6, 7]);
    }

    #[test]
    fn models_that_do_not_fit_are_refused() {
        let check = |pieces: &[(&str, PieceType)], class: &str, options: &str, expected: &str| {
            let error = vocabulary(&model(pieces), class, options).err().expect(expected);
            assert!(error.contains(expected), "{error}");
        };
        check(&[PIECES[3], PIECES[0], PIECES[3]], "LlamaTokenizer", "", "the piece \"a\" twice");
        check(&PIECES[1..], "LlamaTokenizer", "", "no piece for the unknown");
        check(&[PIECES[0], ("?", PieceType::Unknown)], "LlamaTokenizer", "", "or several");
        check(&[PIECES[3], PIECES[0]], "CamembertTokenizer", "", "expects");
        check(&PIECES[..2], "XLMRobertaTokenizer", "", "that XLMRobertaTokenizer expects");
        check(&PIECES, "T5Tokenizer", r#", "extra_ids": 1000000"#, "\"extra_ids\"");
        let unused = model(&[PIECES[0], ("a", PieceType::Unused)]);
        let error = vocabulary(&unused, "LlamaTokenizer", "").expect("sound").bpe(&unused);
        assert!(error.expect_err("refused").contains("unused pieces"));
    }

    #[test]
    fn merges_follow_the_scores() {
        let normal = |text| (text, PieceType::Normal);
        let pieces = ["a", "b", "ab", "aa", "aaa", "aab"].map(normal);
        let found = merges(&model(&pieces).pieces).expect("few");
        let found: Vec<String> = found.into_iter().map(|(left, right)| format!("{left} {right}")).collect();
        assert_eq!(found, ["a b", "a a", "aa a", "a aa", "aa b", "a ab"]);
    }
}
