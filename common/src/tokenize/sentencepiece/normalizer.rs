//! The normalization of SentencePiece, step for step as the library does it.
//!
//! The tokenizers crate has the rules as well, but applies them grapheme by grapheme and takes the shortest rule
//! that fits; SentencePiece takes the longest one at each place.

use std::sync::Arc;

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::{NormalizedString, Normalizer};

use super::symbols::Symbols;

/// What stands for a space in pieces: U+2581.
pub(super) const SPACE: char = '\u{2581}';

/// The longest replacement of NFKC has 33 bytes; rules written by hand stay below this too.
const REPLACEMENT_BYTES_MAX: usize = 1024;

/// Where the space that stands before a text is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Nowhere.
    Never,
    /// Before the text, unless that begins with a special token.
    First,
    /// Before every stretch of text between special tokens.
    Always,
}

/// Text → normalized text with [`SPACE`] for spaces.
#[derive(Clone, Debug)]
pub(in crate::tokenize) struct TextNormalizer {
    /// What the tokenizer's class does before.
    pub(super) before: Option<NormalizerWrapper>,
    pub(super) rules: Option<Rules>,
    pub(super) symbols: Arc<Symbols>,
    pub(super) prefix: Prefix,
    pub(super) remove_extra_whitespaces: bool,
}

impl Normalizer for TextNormalizer {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let is_first = text.offsets_original().0 == 0;
        if let Some(before) = &self.before {
            before.normalize(text)?;
        }
        *text = NormalizedString::from(self.normalized(text.get(), is_first));
        Ok(())
    }
}

impl TextNormalizer {
    fn normalized(&self, text: &str, is_first: bool) -> String {
        let mut rest = text;
        // Spaces before a later stretch are its own where no prefix would replace them.
        let strip = self.remove_extra_whitespaces && (is_first || self.prefix != Prefix::First);
        while strip && !rest.is_empty() {
            let (normal, length) = self.next(rest);
            if normal != " " {
                break;
            }
            rest = &rest[length..];
        }
        let mut normalized = String::with_capacity(text.len() + text.len() / 4);
        if rest.is_empty() {
            return normalized;
        }
        let prefixed = match self.prefix {
            Prefix::Never => false,
            Prefix::First => is_first,
            Prefix::Always => true,
        };
        if prefixed {
            normalized.push(SPACE);
        }
        let mut after_space = strip;
        while !rest.is_empty() {
            let (mut normal, length) = self.next(rest);
            rest = &rest[length..];
            if after_space {
                normal = normal.trim_start_matches(' ');
            }
            normalized.extend(normal.chars().map(|c| if c == ' ' { SPACE } else { c }));
            if !normal.is_empty() {
                after_space = self.remove_extra_whitespaces && normal.ends_with(' ');
            }
        }
        if self.remove_extra_whitespaces {
            normalized.truncate(normalized.trim_end_matches(SPACE).len());
        }
        normalized
    }

    /// The beginning of a text that is not empty, normalized, and how many bytes of the text that was.
    fn next<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        if let Some((symbol, _)) = self.symbols.longest_prefix(text) {
            return (&text[..symbol.len()], symbol.len());
        }
        if let Some(found) = self.rules.as_ref().and_then(|rules| rules.longest_prefix(text)) {
            return found;
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (&text[..length], length)
    }
}

/// Replacements of beginnings of a text: a double-array trie of [darts-clone], and the replacements, each ended
/// by a zero byte.
///
/// [darts-clone]: https://github.com/s-yata/darts-clone
#[derive(Clone, Debug)]
pub(super) struct Rules {
    units: Vec<u32>,
    replacements: String,
}

impl Rules {
    /// Reads a compiled map: the size of the trie in bytes, the trie, the replacements.
    pub(super) fn read(charsmap: &[u8]) -> Result<Self, String> {
        let fault = |what: &str| format!("its normalization rules are damaged: {what}");
        let (size, rest) = charsmap.split_first_chunk::<4>().ok_or_else(|| fault("they end too early"))?;
        let trie =
            usize::try_from(u32::from_le_bytes(*size)).ok().and_then(|size| rest.split_at_checked(size));
        let (trie, replacements) = trie.ok_or_else(|| fault("they end too early"))?;
        let (units, odd) = trie.as_chunks::<4>();
        if units.is_empty() || !odd.is_empty() {
            return Err(fault("the size of the trie is no multiple of 4"));
        }
        let units = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements =
            String::from_utf8(replacements.to_vec()).map_err(|error| fault(&error.to_string()))?;
        if replacements.split('\0').any(|replacement| replacement.len() > REPLACEMENT_BYTES_MAX) {
            return Err(fault("a replacement is too long"));
        }
        Ok(Self { units, replacements })
    }

    /// The replacement of the longest beginning that has one, and the length of that beginning.
    fn longest_prefix(&self, text: &str) -> Option<(&str, usize)> {
        let mut node = Node::root(&self.units)?;
        let mut longest = None;
        for (index, byte) in text.bytes().enumerate() {
            let Some(next) = node.child(&self.units, byte) else { break };
            node = next;
            let length = index + 1;
            if let Some(start) = node.value.filter(|_| text.is_char_boundary(length)) {
                longest = Some((start, length));
            }
        }
        let (start, length) = longest?;
        let replacement = self.replacements.get(start..)?;
        Some((replacement.split('\0').next()?, length))
    }

    /// Whether a rule goes on over a space, so that what stands behind it matters to what stands before it.
    pub(super) fn reach_over_spaces(&self) -> bool {
        let mut seen = vec![false; self.units.len()];
        let mut open: Vec<Node> = Node::root(&self.units).into_iter().collect();
        let mut at_start = true;
        while let Some(node) = open.pop() {
            for byte in 0..=u8::MAX {
                let Some(child) = node.child(&self.units, byte) else { continue };
                if byte == b' ' && !at_start {
                    return true;
                }
                if !std::mem::replace(&mut seen[child.position], true) {
                    open.push(child);
                }
            }
            at_start = false;
        }
        false
    }
}

/// A place in the trie.
#[derive(Clone, Copy)]
struct Node {
    /// The index of its unit.
    position: usize,
    /// What the labels of its children are combined with to find their units.
    base: usize,
    /// Where its replacement begins, if what leads here has one.
    value: Option<usize>,
}

impl Node {
    fn root(units: &[u32]) -> Option<Self> {
        Some(Self { position: 0, base: offset(*units.first()?), value: None })
    }

    fn child(self, units: &[u32], label: u8) -> Option<Self> {
        let position = self.base ^ usize::from(label);
        let unit = *units.get(position)?;
        // The uppermost bit marks a unit that holds a value and is no node.
        if unit & (1 << 31 | 0xff) != u32::from(label) {
            return None;
        }
        let base = position ^ offset(unit);
        let has_value = unit >> 8 & 1 == 1;
        let value = units.get(base).filter(|_| has_value).map(|value| (*value & !(1 << 31)) as usize);
        Some(Self { position, base, value })
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalizer(prefix: Prefix, remove_extra_whitespaces: bool) -> TextNormalizer {
        let symbols = Arc::new(Symbols::new([("<x>".to_owned(), 3)].into_iter()));
        TextNormalizer { before: None, rules: None, symbols, prefix, remove_extra_whitespaces }
    }

    #[test]
    fn spaces_are_escaped_and_removed() {
        let check = |prefix, remove, text: &str, is_first, expected: &str| {
            let found = normalizer(prefix, remove).normalized(text, is_first);
            assert_eq!(
                found,
                expected.replace('_', &SPACE.to_string()),
                "{prefix:?} {remove} {text:?} {is_first}"
            );
        };
        check(Prefix::Always, true, "  a  b ", true, "_a_b");
        check(Prefix::Always, true, "  a  b ", false, "_a_b");
        check(Prefix::Always, false, "  a  b ", true, "___a__b_");
        check(Prefix::First, true, " a b", true, "_a_b");
        check(Prefix::First, true, "  a b", false, "_a_b");
        check(Prefix::First, true, "a b ", false, "a_b");
        check(Prefix::First, false, " a", false, "_a");
        check(Prefix::Never, false, " a<x> ", true, "_a<x>_");
        for text in ["", " ", "   "] {
            check(Prefix::Always, true, text, true, "");
        }
        check(Prefix::Always, false, " ", true, "__");
        check(Prefix::Always, false, "", true, "");
    }

    /// A trie that replaces "a" by "X", and "ab" by "YY".
    fn rules() -> Rules {
        let mut units = vec![0u32; 1024];
        let node = |label: u8, offset: usize| u32::from(label) | 1 << 8 | (offset as u32) << 10;
        // The root's children stand at 256 ^ label; those of "a" at 512 ^ label, their values at offset ^ 0.
        units[0] = 256 << 10;
        let a = 256 ^ usize::from(b'a');
        units[a] = node(b'a', a ^ 512);
        units[512] = 1 << 31;
        let b = 512 ^ usize::from(b'b');
        units[b] = node(b'b', b ^ 768);
        units[768] = 1 << 31 | 2;
        let mut bytes = (4 * units.len() as u32).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(b"X\0YY\0");
        Rules::read(&bytes).expect("sound")
    }

    #[test]
    fn the_longest_rule_is_taken() {
        let rules = rules();
        assert_eq!(rules.longest_prefix("abc"), Some(("YY", 2)));
        assert_eq!(rules.longest_prefix("ac"), Some(("X", 1)));
        assert_eq!(rules.longest_prefix("c"), None);
        assert!(!rules.reach_over_spaces());
    }

    #[test]
    fn damaged_rules_are_refused_or_harmless() {
        for (bytes, expected) in [
            (&b"\x01\0"[..], "too early"),
            (b"\xff\xff\xff\xff\0\0\0\0", "too early"),
            (b"\x03\0\0\0abc", "multiple of 4"),
            (b"\0\0\0\0", "multiple of 4"),
            (b"\x04\0\0\0\0\0\0\0\xff", "utf-8"),
        ] {
            let error = Rules::read(bytes).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        let mut rules = rules();
        // Values and offsets that lead nowhere.
        for unit in [u32::MAX, 1 << 31 | 999, 0xffff_fc00 | u32::from(b'b') | 1 << 8] {
            for position in 0..rules.units.len() {
                let sound = std::mem::replace(&mut rules.units[position], unit);
                let _ = (rules.longest_prefix("abé"), rules.reach_over_spaces());
                rules.units[position] = sound;
            }
        }
    }
}
