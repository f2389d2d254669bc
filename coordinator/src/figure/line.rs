//! The line of one quantity over the layers, with the band of its confidence intervals.

use std::collections::BTreeMap;

use super::caption::{Block, MARGIN, SMALL, thinned};
use super::color::Range;
use super::font;
use super::svg::{Anchor, GREY, INK, PALE, Sheet, Style, short};
use super::{Axis, Caption};
use crate::merge::Estimates;

/// Height of the plot.
const HEIGHT: f64 = 340.0;
/// The width that the plot aims at, and pixels between layers at least and at most.
const WIDTH_WANTED: f64 = 660.0;
const GAP_MIN: f64 = 2.0;
const GAP_MAX: f64 = 110.0;
/// Narrower sheets would break every title.
const WIDTH_MIN: f64 = 520.0;
/// Free space above and below the line, as a part of what it spans.
const AIR: f64 = 0.06;
/// The line, and the band around it.
const LINE: &str = "#31688e";
const BAND: &str = "#c3d5e3";

/// One quantity with what a reader must know to read it.
pub(super) struct Line<'a> {
    pub quantity: &'a str,
    pub caption: Caption,
    pub layers: Vec<u32>,
    pub estimates: &'a Estimates,
    pub undefined: &'a BTreeMap<u32, String>,
}

/// The figure as SVG text; where no layer has a value, it says so under an empty plot.
pub(super) fn draw(line: &Line) -> String {
    let n_layers = line.layers.len();
    let gap = (WIDTH_WANTED / n_layers as f64).clamp(GAP_MIN, GAP_MAX);
    let plot = gap * n_layers as f64;
    let range = range(line.estimates);
    let ticks = range.ticks(6);
    let tick_width = ticks.iter().map(|(_, text)| font::width(text, SMALL)).fold(0.0, f64::max);
    let left = MARGIN + SMALL * 1.6 + tick_width + 10.0;
    let width = (left + plot + MARGIN).max(WIDTH_MIN);
    let method = if has_band(line.estimates) { "band: 95 % confidence interval of the mean" } else { "" };
    let title = Block::title(&line.caption, method, width - 2.0 * MARGIN);
    let notes = Block::notes(&notes(line), width - 2.0 * MARGIN);
    let top = MARGIN + title.height() + 14.0;
    let ground = top + HEIGHT;
    let notes_top = ground + SMALL * 3.6;
    let name = format!("{} by layer: {}", line.caption.heading, line.caption.subject);
    let mut sheet = Sheet::new(width, notes_top + notes.height() + MARGIN, &name);
    title.draw(&mut sheet, MARGIN, MARGIN);

    let place = |layer: usize, value: f64| {
        (left + (layer as f64 + 0.5) * gap, ground - HEIGHT * range.fraction(value))
    };
    for (value, text) in &ticks {
        let (_, y) = place(0, *value);
        sheet.line(&[(left, y), (left + plot, y)], PALE, 1.0);
        sheet.text(left - 8.0, y + SMALL * 0.365, text, Style::new(SMALL, INK).anchored(Anchor::End));
    }
    for run in runs(&line.estimates.ci_low) {
        let upper = run.clone().map(|layer| place(layer, line.estimates.ci_high[layer]));
        let lower = run.rev().map(|layer| place(layer, line.estimates.ci_low[layer]));
        let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
        match outline.as_slice() {
            // A layer by itself has no width to fill.
            [(x, high), (_, low)] => sheet.rect(x - 3.0, *high, 6.0, low - high, BAND),
            outline => sheet.area(outline, BAND),
        }
    }
    for run in runs(&line.estimates.mean) {
        let points: Vec<(f64, f64)> = run.map(|layer| place(layer, line.estimates.mean[layer])).collect();
        sheet.line(&points, LINE, 1.6);
        // Dots that would touch are a thicker line.
        if gap >= 8.0 || points.len() == 1 {
            points.iter().for_each(|(x, y)| sheet.dot(*x, *y, 3.0, LINE));
        }
    }
    sheet.line(&[(left, ground), (left + plot, ground)], GREY, 1.0);
    let middle = Style::new(SMALL, INK).anchored(Anchor::Middle);
    let labels: Vec<String> = line.layers.iter().map(u32::to_string).collect();
    for label in thinned(&labels, SMALL, gap) {
        let x = left + (label as f64 + 0.5) * gap;
        sheet.line(&[(x, ground), (x, ground + 4.0)], GREY, 1.0);
        sheet.text(x, ground + 5.0 + SMALL, &labels[label], middle);
    }
    sheet.text(left + plot / 2.0, ground + 6.0 + SMALL * 2.3, "layer", middle);
    sheet.text_upwards(MARGIN + SMALL * 0.9, ground - HEIGHT / 2.0, line.quantity, middle);
    notes.draw(&mut sheet, MARGIN, notes_top);
    sheet.finish()
}

fn has_band(estimates: &Estimates) -> bool {
    estimates.ci_low.iter().any(|low| low.is_finite())
}

/// What line and band span, with some air.
fn range(estimates: &Estimates) -> Range {
    let Estimates { mean, ci_low, ci_high, .. } = estimates;
    let values = || mean.iter().chain(ci_low).chain(ci_high).copied().filter(|value| value.is_finite());
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return Range { low: 0.0, high: 1.0, fixed: false };
    }
    // Equal values still need a scale that is not a point.
    let air = if high > low { (high - low) * AIR } else { low.abs().max(1.0) * 0.1 };
    Range { low: low - air, high: high + air, fixed: false }
}

/// Neighbouring layers that all have a value.
fn runs(values: &[f64]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for layer in (0..values.len()).filter(|layer| values[*layer].is_finite()) {
        match runs.last_mut() {
            Some(run) if run.end == layer => run.end += 1,
            _ => runs.push(layer..layer + 1),
        }
    }
    runs
}

/// From where to where the values go, and why some are missing.
fn notes(line: &Line) -> Vec<String> {
    let mean = &line.estimates.mean;
    let finite = || mean.iter().copied().filter(|value| value.is_finite());
    let span = match (finite().reduce(f64::min), finite().reduce(f64::max)) {
        (Some(low), Some(high)) => format!("Values: {} to {}.", short(low), short(high)),
        _ => "No layer has a value.".to_owned(),
    };
    let missing: Vec<usize> = (0..mean.len()).filter(|layer| !mean[*layer].is_finite()).collect();
    let missing = Axis::of_model(&line.layers, line.undefined).reasons(&missing);
    std::iter::once(span).chain(missing.into_iter().map(|reason| format!("Undefined: {reason}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::layer_line;
    use crate::metadata::Metadata;

    #[test]
    fn gaps_are_left_and_named() {
        assert_eq!(runs(&[f64::NAN, 1.0, 2.0, f64::NAN, 3.0]), [1..3, 4..5]);
        let nan = vec![f64::NAN; 3];
        let estimates =
            Estimates { mean: vec![f64::NAN, 1.0, 2.0], std: nan.clone(), ci_low: nan.clone(), ci_high: nan };
        let mut metadata = Metadata::default();
        metadata.undefined.insert(0, "all rows are equal".to_owned());
        let svg = layer_line("NormMean", &estimates, &metadata, "x").unwrap();
        assert!(svg.contains("Undefined: layer 0 (all rows are equal)"), "{svg}");
        assert!(!svg.contains("band") && !svg.contains("polygon"), "{svg}");
        let none = Estimates { mean: vec![f64::NAN; 3], ..estimates };
        assert!(layer_line("NormMean", &none, &metadata, "x").unwrap().contains("No layer has a value."));
    }
}
