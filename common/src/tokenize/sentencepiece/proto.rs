//! The parts of a SentencePiece model file that decide about tokens: a protobuf message `ModelProto`.
//!
//! The file comes from anywhere: lengths are checked before anything is kept, and the number and size of pieces
//! are bounded. Fields that do not matter here are passed over.

/// A model file has some 5 MB at most, 20 MB with a million pieces.
const FILE_BYTES_MAX: usize = 64 << 20;
/// The largest vocabularies have about a million pieces.
const PIECES_MAX: usize = 1 << 22;
/// Trained pieces have 16 characters at most, symbols given by hand some dozens.
const PIECE_BYTES_MAX: usize = 512;

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// One entry of the vocabulary; its position is its id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceType,
}

/// How a text is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelType {
    Unigram,
    Bpe,
}

/// What a model file says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    pub(super) model_type: ModelType,
    pub(super) byte_fallback: bool,
    /// The rules of normalization, compiled; empty for none.
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
}

/// Reads a model file.
pub(super) fn read(bytes: &[u8]) -> Result<Model, String> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("it has {} bytes; at most {FILE_BYTES_MAX} make sense", bytes.len()));
    }
    // Defaults are those of sentencepiece_model.proto.
    let mut model = Model {
        pieces: Vec::new(),
        model_type: ModelType::Unigram,
        byte_fallback: false,
        charsmap: Vec::new(),
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
    };
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => {
                if model.pieces.len() == PIECES_MAX {
                    return Err(format!("it has more than {PIECES_MAX} pieces"));
                }
                let piece = read_piece(value.message()?);
                model.pieces.push(piece.map_err(|reason| format!("piece {}: {reason}", model.pieces.len()))?);
            }
            2 => read_trainer_spec(value.message()?, &mut model)?,
            3 => read_normalizer_spec(value.message()?, &mut model)?,
            _ => {}
        }
    }
    if model.pieces.is_empty() {
        return Err("it has no pieces, so it is no SentencePiece model".into());
    }
    Ok(model)
}

fn read_piece(mut fields: Fields<'_>) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceType::Normal };
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => {
                let text = value.bytes()?;
                if text.len() > PIECE_BYTES_MAX {
                    return Err(format!("it has {} bytes; at most {PIECE_BYTES_MAX} make sense", text.len()));
                }
                piece.text = str::from_utf8(text).map_err(|error| error.to_string())?.to_owned();
            }
            2 => piece.score = f32::from_bits(value.fixed32()?),
            3 => {
                piece.kind = match value.varint()? {
                    1 => PieceType::Normal,
                    2 => PieceType::Unknown,
                    3 => PieceType::Control,
                    4 => PieceType::UserDefined,
                    5 => PieceType::Unused,
                    6 => PieceType::Byte,
                    other => return Err(format!("its type is {other}, which is unknown")),
                }
            }
            _ => {}
        }
    }
    if piece.text.is_empty() {
        return Err("its text is empty".into());
    }
    if !piece.score.is_finite() {
        return Err(format!("its score is {}", piece.score));
    }
    Ok(piece)
}

fn read_trainer_spec(mut fields: Fields<'_>, model: &mut Model) -> Result<(), String> {
    while let Some((number, value)) = fields.next()? {
        match number {
            3 => {
                model.model_type = match value.varint()? {
                    1 => ModelType::Unigram,
                    2 => ModelType::Bpe,
                    3 => return Err("its model type is \"word\"; supported: unigram, bpe".into()),
                    4 => return Err("its model type is \"char\"; supported: unigram, bpe".into()),
                    other => {
                        return Err(format!("its model type is {other}; supported: unigram (1), bpe (2)"));
                    }
                }
            }
            24 if value.varint()? != 0 => {
                return Err("it treats white space as a suffix, which is not supported".into());
            }
            35 => model.byte_fallback = value.varint()? != 0,
            _ => {}
        }
    }
    Ok(())
}

fn read_normalizer_spec(mut fields: Fields<'_>, model: &mut Model) -> Result<(), String> {
    while let Some((number, value)) = fields.next()? {
        match number {
            2 => model.charsmap = value.bytes()?.to_vec(),
            3 => model.add_dummy_prefix = value.varint()? != 0,
            4 => model.remove_extra_whitespaces = value.varint()? != 0,
            5 if value.varint()? == 0 => {
                return Err("it does not escape white space, which is not supported".into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The fields of a message that are still to be read.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

/// The value of a field, as far as its wire type tells.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Fields<'a> {
    /// The next field with its number.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
            }
            other => return Err(format!("wire type {other} does not occur in such a file")),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number has more than ten bytes".into())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = split.ok_or("it ends within a field; fetch it again")?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Value<'a> {
    fn varint(self) -> Result<u64, String> {
        if let Self::Varint(number) = self {
            Ok(number)
        } else {
            Err("a number has another wire type".into())
        }
    }

    fn fixed32(self) -> Result<u32, String> {
        if let Self::Fixed32(bits) = self { Ok(bits) } else { Err("a score has another wire type".into()) }
    }

    fn bytes(self) -> Result<&'a [u8], String> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err("a text has another wire type".into()) }
    }

    fn message(self) -> Result<Fields<'a>, String> {
        self.bytes().map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_defaults_hold() {
        // Two pieces, the second of type unknown; a field 9 that is not read; a trainer spec with model type 2.
        let bytes = b"\x0a\x08\x0a\x01a\x15\x00\x00\x80\xbf\x0a\x06\x0a\x02\xc3\xa9\x18\x02\x48\x96\x01\x12\x02\x18\x02";
        let model = read(bytes).expect("sound");
        let piece = |text: &str, score, kind| Piece { text: text.into(), score, kind };
        assert_eq!(model.pieces, [piece("a", -1.0, PieceType::Normal), piece("é", 0.0, PieceType::Unknown)]);
        assert_eq!((model.model_type, model.byte_fallback), (ModelType::Bpe, false));
        assert!(model.add_dummy_prefix && model.remove_extra_whitespaces && model.charsmap.is_empty());
    }

    #[test]
    fn malformed_files_are_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let error = read(bytes).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        };
        check(b"", "no pieces");
        check(b"\x0a\x05\x0a\x01a", "ends within a field");
        check(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends within a field");
        check(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "more than ten bytes");
        check(b"\x0a\x03\x0a\x01\xff", "piece 0: invalid utf-8");
        check(b"\x0a\x00", "piece 0: its text is empty");
        check(b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x7f", "its score is NaN");
        check(b"\x0a\x05\x0a\x01a\x18\x07", "its type is 7");
        check(b"\x0a\x02\x08\x01", "a text has another wire type");
        check(b"\x0b", "wire type 3");
        check(b"\x12\x02\x18\x03", "\"word\"");
        check(b"\x12\x03\xc0\x01\x01", "white space as a suffix");
        check(b"\x1a\x02\x28\x00", "does not escape white space");
        let long = [&b"\x0a\x84\x04\x0a\x81\x04"[..], &[b'a'; 513]].concat();
        check(&long, "513 bytes");
    }
}
