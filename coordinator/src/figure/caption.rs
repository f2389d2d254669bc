//! The lines above and below a drawing, broken to its width.

use super::Caption;
use super::font;
use super::svg::{GREY, INK, Sheet, Style};

/// Free space around everything.
pub(super) const MARGIN: f64 = 18.0;
/// Size of the numbers on axes and of the notes.
pub(super) const SMALL: f64 = 12.0;
/// Lines of one text, and of a block: what a damaged file says of itself must not become a sheet without end.
const TEXT_LINES_MAX: usize = 5;
const BLOCK_LINES_MAX: usize = 24;
/// Baseline to baseline, in ems.
const LEADING: f64 = 1.4;

/// Lines of text of known height.
pub(super) struct Block {
    lines: Vec<(String, f64, &'static str)>,
}

impl Block {
    /// The title: what is shown, of what, and how it was made.
    pub fn title(caption: &Caption, method: &str, width: f64) -> Self {
        let mut block = Self { lines: Vec::new() };
        block.push(&caption.heading, 18.0, INK, width);
        block.push(&caption.subject, 13.0, INK, width);
        let details = [caption.detail.as_str(), method];
        let details: Vec<&str> = details.into_iter().filter(|detail| !detail.is_empty()).collect();
        block.push(&details.join(" · "), SMALL, GREY, width);
        block
    }

    /// Notes under a drawing, each beginning on a line of its own.
    pub fn notes(notes: &[String], width: f64) -> Self {
        let mut block = Self { lines: Vec::new() };
        for note in notes {
            block.push(note, SMALL, GREY, width);
        }
        block
    }

    /// Pixels from the top of the first line to the bottom of the last.
    pub fn height(&self) -> f64 {
        self.lines.iter().map(|(_, size, _)| size * LEADING).sum()
    }

    /// Draws the lines from `y` downwards, left-aligned at `x`.
    pub fn draw(&self, sheet: &mut Sheet, x: f64, y: f64) {
        let mut baseline = y;
        for (text, size, fill) in &self.lines {
            baseline += size * LEADING;
            // The descent of the font is a quarter em; what is left is the gap to the line above.
            sheet.text(x, baseline - size * 0.3, text, Style::new(*size, fill));
        }
    }

    fn push(&mut self, text: &str, size: f64, fill: &'static str, width: f64) {
        if text.is_empty() || self.lines.len() >= BLOCK_LINES_MAX {
            return;
        }
        let mut lines = font::wrap(text, size, width);
        if lines.len() > TEXT_LINES_MAX {
            lines.truncate(TEXT_LINES_MAX - 1);
            lines.push("…".to_owned());
        }
        self.lines.extend(lines.into_iter().map(|line| (line, size, fill)));
    }
}

/// The places of the axis labels to print so that none touch: every one, or every 2nd, 5th, 10th, ….
pub(super) fn thinned(labels: &[String], size: f64, spacing: f64) -> Vec<usize> {
    let widest = labels.iter().map(|label| font::width(label, size)).fold(0.0, f64::max);
    let steps = (0..).flat_map(|power| [1, 2, 5].map(|m| m * 10usize.pow(power)));
    // A label and half a digit of air; past as many steps as labels only the first is printed.
    let step = steps.take(24).find(|step| *step as f64 * spacing >= widest + size * 0.5);
    (0..labels.len()).step_by(step.unwrap_or(usize::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_texts_end() {
        let notes = vec!["word ".repeat(10_000); 10_000];
        let block = Block::notes(&notes, 400.0);
        assert!(block.lines.len() <= BLOCK_LINES_MAX + TEXT_LINES_MAX);
        assert_eq!(block.lines[4].0, "…");
    }

    #[test]
    fn labels_are_thinned_only_where_they_would_touch() {
        let labels: Vec<String> = (0..49).map(|layer| layer.to_string()).collect();
        assert_eq!(thinned(&labels, 12.0, 30.0).len(), 49);
        assert_eq!(thinned(&labels, 12.0, 13.0)[..3], [0, 2, 4]);
        assert_eq!(thinned(&labels, 12.0, 2.0)[..3], [0, 20, 40]);
        assert_eq!(thinned(&labels, 12.0, 1e-12), [0]);
        assert_eq!(thinned(&["0".to_owned()], 12.0, 30.0), [0]);
    }
}
