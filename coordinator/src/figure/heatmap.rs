//! The heatmap: one coloured square per pair of layers, a colour bar, and notes on what is undefined.

use std::fmt::Write as _;

use super::Figure;
use super::caption::{Block, MARGIN, SMALL, thinned};
use super::color::{Range, Rgb};
use super::font;
use super::svg::{Anchor, GREY, INK, Sheet, Style, fixed, short};

/// The side that all cells together aim at; fewer layers get cells of at most `CELL_MAX`.
const SIDE_WANTED: f64 = 660.0;
/// Pixels of a cell at most, whatever the number of layers.
const CELL_MAX: f64 = 72.0;
/// Pixels of a cell at least.
const CELL_MIN: f64 = 2.0;
/// Sizes of the numbers in the cells: the largest at which all fit is used, none where not even the last fits.
const VALUE_SIZES: [f64; 6] = [13.0, 12.0, 11.0, 10.0, 9.0, 8.0];
/// The colour bar and the space before it.
const BAR_WIDTH: f64 = 16.0;
const BAR_GAP: f64 = 24.0;
/// How undefined cells are filled.
const HATCH: &str = "url(#undefined)";
const HATCH_PATTERN: &str = r##"<defs><pattern id="undefined" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#f4f4f4"/><rect width="1.5" height="6" fill="#8c8c8c"/></pattern></defs>"##;

/// The heatmap as SVG text.
pub(super) fn draw(figure: &Figure) -> String {
    let side = figure.side();
    let range = Range::of(figure.metric, figure.values);
    let cell = (SIDE_WANTED / side as f64).floor().clamp(CELL_MIN, CELL_MAX);
    let plot = cell * side as f64;
    let labels: Vec<String> = figure.layers.iter().map(u32::to_string).collect();
    let ticks = range.ticks(5);

    let widest = |texts: &mut dyn Iterator<Item = &String>| {
        texts.map(|text| font::width(text, SMALL)).fold(0.0, f64::max)
    };
    let left = MARGIN + SMALL * 1.6 + widest(&mut labels.iter()) + 8.0;
    let bar_x = left + plot + BAR_GAP;
    let right = bar_x + BAR_WIDTH + 8.0 + widest(&mut ticks.iter().map(|(_, text)| text)) + MARGIN;
    let width = right.max(460.0);

    let title = Block::title(figure, "", width - 2.0 * MARGIN);
    let undefined = undefined_places(figure);
    let notes = Block::notes(&[range_note(figure, range)], width - 2.0 * MARGIN);
    let swatch_indent = SMALL * 2.0;
    let hatched = Block::notes(&undefined_notes(figure, &undefined), width - 2.0 * MARGIN - swatch_indent);
    let top = MARGIN + title.height() + 14.0;
    let notes_top = top + plot + SMALL * 3.6;
    let bottom = notes_top + notes.height() + hatched.height() + MARGIN;

    let name = format!("{} heatmap: {}", figure.heading, figure.subject);
    let mut sheet = Sheet::new(width, bottom, &name);
    if !undefined.is_empty() {
        sheet.raw(HATCH_PATTERN);
    }
    title.draw(&mut sheet, MARGIN, MARGIN);
    draw_cells(&mut sheet, figure, range, (left, top), cell);
    draw_values(&mut sheet, figure, range, (left, top), cell);
    sheet.frame(left - 0.5, top - 0.5, plot + 1.0, plot + 1.0, GREY);
    draw_axes(&mut sheet, &labels, (left, top), cell);
    draw_bar(&mut sheet, range, &ticks, (bar_x, top), plot);
    notes.draw(&mut sheet, MARGIN, notes_top);
    if !undefined.is_empty() {
        let y = notes_top + notes.height();
        sheet.rect(MARGIN, y + 3.0, SMALL * 1.4, SMALL, HATCH);
        sheet.frame(MARGIN + 0.5, y + 3.5, SMALL * 1.4 - 1.0, SMALL - 1.0, GREY);
        hatched.draw(&mut sheet, MARGIN + swatch_indent, y);
    }
    sheet.finish()
}

/// One rectangle per run of equal colour in a row, so that hatching has no seams and the file stays small.
fn draw_cells(sheet: &mut Sheet, figure: &Figure, range: Range, (left, top): (f64, f64), cell: f64) {
    let fill = |row, column| {
        let value = figure.value(row, column);
        if value.is_finite() { Rgb::of(range.fraction(value)).hex() } else { HATCH.to_owned() }
    };
    let side = figure.side();
    sheet.raw(r#"<g shape-rendering="crispEdges">"#);
    for row in 0..side {
        let mut start = 0;
        while start < side {
            let colour = fill(row, start);
            let end = (start + 1..side).find(|column| fill(row, *column) != colour).unwrap_or(side);
            let (x, y) = (left + start as f64 * cell, top + row as f64 * cell);
            sheet.rect(x, y, (end - start) as f64 * cell, cell, &colour);
            start = end;
        }
    }
    sheet.raw("</g>");
}

/// The numbers in the cells, all with the same decimals and size, where they fit.
fn draw_values(sheet: &mut Sheet, figure: &Figure, range: Range, (left, top): (f64, f64), cell: f64) {
    let side = figure.side();
    let room = cell - if cell >= 40.0 { 8.0 } else { 4.0 };
    let choices = [3, 2].into_iter().flat_map(|decimals| VALUE_SIZES.map(|size| (decimals, size)));
    // Three decimals want a comfortable size; two may be small.
    let mut choices = choices.filter(|(decimals, size)| *decimals == 2 || *size >= 11.0);
    let fits = |decimals: usize, size: f64| {
        let finite = figure.values.iter().filter(|value| value.is_finite());
        cell >= size * 1.8 && finite.map(|v| fixed(*v, decimals)).all(|text| font::width(&text, size) <= room)
    };
    let Some((decimals, size)) = choices.find(|(decimals, size)| fits(*decimals, *size)) else {
        return;
    };
    for row in 0..side {
        for column in 0..side {
            let value = figure.value(row, column);
            if value.is_finite() {
                let ink = Rgb::of(range.fraction(value)).readable_ink();
                let x = left + (column as f64 + 0.5) * cell;
                // Digits are 0.73 em high: this puts their middle into the cell's.
                let y = top + (row as f64 + 0.5) * cell + size * 0.365;
                let style = Style::new(size, ink).anchored(Anchor::Middle);
                sheet.text(x, y, &fixed(value, decimals), style);
            }
        }
    }
}

fn draw_axes(sheet: &mut Sheet, labels: &[String], (left, top): (f64, f64), cell: f64) {
    let plot = cell * labels.len() as f64;
    let middle = Style::new(SMALL, INK).anchored(Anchor::Middle);
    let end = middle.anchored(Anchor::End);
    for place in thinned(labels, SMALL, cell) {
        let along = (place as f64 + 0.5) * cell;
        sheet.line(&[(left + along, top + plot), (left + along, top + plot + 4.0)], GREY, 1.0);
        sheet.text(left + along, top + plot + 5.0 + SMALL, &labels[place], middle);
        sheet.line(&[(left - 4.0, top + along), (left, top + along)], GREY, 1.0);
        sheet.text(left - 7.0, top + along + SMALL * 0.365, &labels[place], end);
    }
    sheet.text(left + plot / 2.0, top + plot + 6.0 + SMALL * 2.3, "layer", middle);
    sheet.text_upwards(MARGIN + SMALL * 0.9, top + plot / 2.0, "layer", middle);
}

fn draw_bar(sheet: &mut Sheet, range: Range, ticks: &[(f64, String)], (x, top): (f64, f64), height: f64) {
    let steps = 64;
    let mut gradient = r#"<defs><linearGradient id="scale" x1="0" y1="1" x2="0" y2="0">"#.to_owned();
    for step in 0..=steps {
        let fraction = f64::from(step) / f64::from(steps);
        let colour = Rgb::of(fraction).hex();
        let _ = write!(gradient, r#"<stop offset="{fraction}" stop-color="{colour}"/>"#);
    }
    gradient.push_str("</linearGradient></defs>");
    sheet.raw(&gradient);
    sheet.rect(x, top, BAR_WIDTH, height, "url(#scale)");
    sheet.frame(x - 0.5, top - 0.5, BAR_WIDTH + 1.0, height + 1.0, GREY);
    for (value, text) in ticks {
        let y = top + height * (1.0 - range.fraction(*value));
        sheet.line(&[(x + BAR_WIDTH, y), (x + BAR_WIDTH + 4.0, y)], GREY, 1.0);
        sheet.text(x + BAR_WIDTH + 8.0, y + SMALL * 0.365, text, Style::new(SMALL, INK));
    }
}

/// What the colours span and what the data do.
fn range_note(figure: &Figure, range: Range) -> String {
    let side = figure.side();
    let pairs = (0..side).flat_map(|row| (0..side).map(move |column| (row, column)));
    let off_diagonal = pairs.filter(|(row, column)| row != column);
    let values =
        off_diagonal.map(|(row, column)| figure.value(row, column)).filter(|value| value.is_finite());
    let (smallest, largest) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let whose = if range.fixed { "fixed" } else { "the data's" };
    let span = format!("Colours: {whose} range {} to {}.", short(range.low), short(range.high));
    if smallest > largest {
        return span;
    }
    format!("{span} Off the diagonal: {} to {}.", short(smallest), short(largest))
}

fn undefined_places(figure: &Figure) -> Vec<(usize, usize)> {
    let side = figure.side();
    let pairs = (0..side).flat_map(|row| (0..side).map(move |column| (row, column)));
    pairs.filter(|(row, column)| !figure.value(*row, *column).is_finite()).collect()
}

/// Why cells are hatched: the layers that are undefined against every layer, then a word on single cells.
fn undefined_notes(figure: &Figure, cells: &[(usize, usize)]) -> Vec<String> {
    let side = figure.side();
    let whole: Vec<usize> =
        (0..side).filter(|layer| (0..side).all(|other| !figure.value(*layer, other).is_finite())).collect();
    let mut notes: Vec<String> =
        figure.reasons(&whole).into_iter().map(|reason| format!("Undefined: {reason}")).collect();
    let single = cells.iter().filter(|(row, column)| !whole.contains(row) && !whole.contains(column)).count();
    match single {
        0 => {}
        1 => notes.push("Undefined: 1 single cell (not a number)".to_owned()),
        single => notes.push(format!("Undefined: {single} single cells (not a number)")),
    }
    notes
}
