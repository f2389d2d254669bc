//! The one font of the figures, and how wide its text is.
//!
//! The PNGs are drawn with the embedded file, so that they look the same on every machine. The SVGs name the same
//! family, then Verdana, whose letters are as wide, then whatever sans-serif the viewer has.

use std::sync::{Arc, OnceLock};

use resvg::usvg::fontdb::Database;

/// What an SVG's `font-family` says.
pub(super) const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// DejaVu Sans 2.37, unchanged; its licence lies beside it.
static DEJAVU_SANS: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// Advance widths of ' ' to '~' in units of 1/2048 em, from the font's `hmtx` table.
const ADVANCES: [u16; 95] = [
    651, 821, 942, 1716, 1303, 1946, 1597, 563, 799, 799, 1024, 1716, 651, 739, 651, 690, 1303, 1303, 1303,
    1303, 1303, 1303, 1303, 1303, 1303, 1303, 690, 690, 1716, 1716, 1716, 1087, 2048, 1401, 1405, 1430, 1577,
    1294, 1178, 1587, 1540, 604, 604, 1343, 1141, 1767, 1532, 1612, 1235, 1612, 1423, 1300, 1251, 1499, 1401,
    2025, 1403, 1251, 1403, 799, 690, 799, 1716, 1024, 1024, 1255, 1300, 1126, 1300, 1260, 721, 1300, 1298,
    569, 569, 1186, 569, 1995, 1298, 1253, 1300, 1300, 842, 1067, 803, 1298, 1212, 1675, 1212, 1212, 1075,
    1303, 690, 1303, 1716,
];

/// The font database that rasterising uses: the embedded font, whatever family is asked for.
pub(super) fn database() -> Arc<Database> {
    static DATABASE: OnceLock<Arc<Database>> = OnceLock::new();
    let load = || {
        let mut database = Database::new();
        database.load_font_source(resvg::usvg::fontdb::Source::Binary(Arc::new(DEJAVU_SANS)));
        database.set_sans_serif_family("DejaVu Sans");
        Arc::new(database)
    };
    Arc::clone(DATABASE.get_or_init(load))
}

/// The width of `text` in pixels at `size` pixels per em; letters beyond ASCII count as a full em.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let advance = |letter: char| {
        let place = u32::from(letter).checked_sub(32).and_then(|place| usize::try_from(place).ok());
        let known = place.and_then(|place| ADVANCES.get(place).copied());
        match letter {
            '·' => 651,
            _ => known.unwrap_or(2048),
        }
    };
    text.chars().map(|letter| f64::from(advance(letter))).sum::<f64>() / 2048.0 * size
}

/// `text` in lines of at most `width_max` pixels, broken at spaces; a word that is wider still is cut in its middle.
pub(super) fn wrap(text: &str, size: f64, width_max: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let word = shorten(word, size, width_max);
        match lines.last_mut() {
            Some(line) if width(line, size) + width(" ", size) + width(&word, size) <= width_max => {
                line.push(' ');
                line.push_str(&word);
            }
            Some(line) => {
                // A separator between two parts is said by the line break.
                line.truncate(line.trim_end_matches(" ·").len());
                lines.push(word);
            }
            None => lines.push(word),
        }
    }
    lines
}

/// `text`, or its two ends with `…` between them where it is wider than `width_max` pixels.
fn shorten(text: &str, size: f64, width_max: f64) -> String {
    if width(text, size) <= width_max {
        return text.to_owned();
    }
    let letters: Vec<char> = text.chars().collect();
    let joined = |kept: usize| {
        let head = letters[..kept.div_ceil(2)].iter();
        let tail = letters[letters.len() - kept / 2..].iter();
        head.chain(['…'].iter()).chain(tail).collect::<String>()
    };
    // The fewest letters that could overflow bound the search, so a megabyte of text costs no more than a line.
    let most = (width_max / size * 4.0) as usize;
    let kept = (0..=most.min(letters.len() - 1)).rev().find(|kept| width(&joined(*kept), size) <= width_max);
    joined(kept.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outlines lie inside the advances by at most a letter's side bearings.
    const BEARING_TOLERANCE: f64 = 4.0;

    #[test]
    fn widths_are_those_of_the_embedded_font() {
        for text in ["HHHHHHHHHH", "0123456789", "bert_base_uncased · mean · c4", "(k = 10)%&@~{}"] {
            let svg = format!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" width="900" height="50"><text x="10" y="30"
                   font-family="{FAMILY}" font-size="20">{}</text></svg>"#,
                text.replace('&', "&amp;")
            );
            let options = resvg::usvg::Options { fontdb: database(), ..Default::default() };
            let tree = resvg::usvg::Tree::from_str(&svg, &options).unwrap();
            let drawn = f64::from(tree.root().abs_bounding_box().width());
            let computed = width(text, 20.0);
            assert!(
                (drawn - computed).abs() < BEARING_TOLERANCE,
                "{text:?}: drawn {drawn}, computed {computed}"
            );
        }
    }

    #[test]
    fn lines_fit() {
        let text = "sentence-transformers/all-MiniLM-L6-v2 · mean pooling · reviews-of-everything-that-was-ever-sold";
        for width_max in [60.0, 150.0, 400.0] {
            let lines = wrap(text, 12.0, width_max);
            assert!(lines.iter().all(|line| width(line, 12.0) <= width_max), "{lines:?}");
        }
        assert_eq!(wrap("a b", 12.0, 400.0), ["a b"]);
        assert_eq!(wrap("HHHHH · HHHHH", 12.0, 60.0), ["HHHHH", "HHHHH"]);
        assert_eq!(wrap("", 12.0, 400.0), [""]);
        assert!(wrap(&"x".repeat(100_000), 12.0, 100.0)[0].contains('…'));
    }
}
