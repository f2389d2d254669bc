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
/// The least height of the colour bar, so that its ticks never touch.
const BAR_MIN: f64 = 72.0;
/// How undefined cells are filled.
const HATCH: &str = "url(#undefined)";
const HATCH_PATTERN: &str = r##"<defs><pattern id="undefined" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#f4f4f4"/><rect width="1.5" height="6" fill="#8c8c8c"/></pattern></defs>"##;

/// The heatmap as SVG text.
pub(super) fn draw(figure: &Figure) -> String {
    let range = Range::of(&figure.scale, figure.values);
    let side = figure.rows.len().max(figure.columns.len());
    let cell = (SIDE_WANTED / side as f64).floor().clamp(CELL_MIN, CELL_MAX);
    let plot = (cell * figure.columns.len() as f64, cell * figure.rows.len() as f64);
    let ticks = range.ticks(5);

    let widest = |texts: &mut dyn Iterator<Item = &String>| {
        texts.map(|text| font::width(text, SMALL)).fold(0.0, f64::max)
    };
    let left = MARGIN + SMALL * 1.6 + widest(&mut figure.rows.labels.iter()) + 8.0;
    let bar_x = left + plot.0 + BAR_GAP;
    let direction_x = bar_x + BAR_WIDTH + 8.0 + widest(&mut ticks.iter().map(|(_, text)| text)) + SMALL * 1.5;
    let right = direction_x + SMALL * 0.3 + MARGIN;
    let width = right.max(460.0);

    let title = Block::title(&figure.caption, "", width - 2.0 * MARGIN);
    let undefined = undefined_places(figure);
    let mut notes = vec![range_note(figure, range)];
    if !figure.path.is_empty() {
        notes.push(
            "Outlined: the monotone alignment of the layers with the smallest total dissimilarity."
                .to_owned(),
        );
    }
    if !figure.scale.symmetric {
        notes.push("Not symmetric: the row is the first of a pair, the column the second.".to_owned());
    }
    let notes = Block::notes(&notes, width - 2.0 * MARGIN);
    let swatch_indent = SMALL * 2.0;
    let hatched = Block::notes(&undefined_notes(figure, &undefined), width - 2.0 * MARGIN - swatch_indent);
    let top = MARGIN + title.height() + 14.0;
    let notes_top = top + plot.1.max(BAR_MIN) + SMALL * 3.6;
    let bottom = notes_top + notes.height() + hatched.height() + MARGIN;

    let name = format!("{} heatmap: {}", figure.caption.heading, figure.caption.subject);
    let mut sheet = Sheet::new(width, bottom, &name);
    if !undefined.is_empty() {
        sheet.raw(HATCH_PATTERN);
    }
    title.draw(&mut sheet, MARGIN, MARGIN);
    draw_cells(&mut sheet, figure, range, (left, top), cell);
    draw_values(&mut sheet, figure, range, (left, top), cell);
    draw_path(&mut sheet, figure, (left, top), cell);
    sheet.frame(left - 0.5, top - 0.5, plot.0 + 1.0, plot.1 + 1.0, GREY);
    draw_axes(&mut sheet, figure, (left, top), cell);
    let larger_is_more_similar = figure.scale.larger_is_more_similar;
    let bar_height = plot.1.max(BAR_MIN);
    draw_bar(&mut sheet, range, larger_is_more_similar, &ticks, (bar_x, top), bar_height);
    draw_direction(&mut sheet, larger_is_more_similar, direction_x, top, bar_height);
    notes.draw(&mut sheet, MARGIN, notes_top);
    if !undefined.is_empty() {
        let y = notes_top + notes.height();
        sheet.rect(MARGIN, y + 3.0, SMALL * 1.4, SMALL, HATCH);
        sheet.frame(MARGIN + 0.5, y + 3.5, SMALL * 1.4 - 1.0, SMALL - 1.0, GREY);
        hatched.draw(&mut sheet, MARGIN + swatch_indent, y);
    }
    sheet.finish()
}

/// The brighter, the more similar.
fn colour(figure: &Figure, range: Range, value: f64) -> Rgb {
    let fraction = range.fraction(value);
    Rgb::of(if figure.scale.larger_is_more_similar { fraction } else { 1.0 - fraction })
}

/// One rectangle per run of equal colour in a row, so that hatching has no seams and the file stays small.
fn draw_cells(sheet: &mut Sheet, figure: &Figure, range: Range, (left, top): (f64, f64), cell: f64) {
    let fill = |row, column| {
        let value = figure.value(row, column);
        if value.is_finite() { colour(figure, range, value).hex() } else { HATCH.to_owned() }
    };
    let (rows, columns) = (figure.rows.len(), figure.columns.len());
    sheet.raw(r#"<g shape-rendering="crispEdges">"#);
    for row in 0..rows {
        let mut start = 0;
        while start < columns {
            let colour = fill(row, start);
            let end = (start + 1..columns).find(|column| fill(row, *column) != colour).unwrap_or(columns);
            let (x, y) = (left + start as f64 * cell, top + row as f64 * cell);
            sheet.rect(x, y, (end - start) as f64 * cell, cell, &colour);
            start = end;
        }
    }
    sheet.raw("</g>");
}

/// The numbers in the cells, all with the same decimals and size, where they fit.
fn draw_values(sheet: &mut Sheet, figure: &Figure, range: Range, (left, top): (f64, f64), cell: f64) {
    let room = cell - if cell >= 40.0 { 8.0 } else { 4.0 };
    let largest = range.high.abs().max(range.low.abs());
    // What two decimals do not show is left to the colours.
    if largest < 0.05 {
        return;
    }
    let decimals_min = match largest {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let choices = [decimals_min + 1, decimals_min]
        .into_iter()
        .flat_map(|decimals| VALUE_SIZES.map(|size| (decimals, size)));
    // Three decimals want a comfortable size; two may be small.
    let mut choices = choices.filter(|(decimals, size)| *decimals <= 2 || *size >= 11.0);
    let fits = |decimals: usize, size: f64| {
        let finite = figure.values.iter().filter(|value| value.is_finite());
        cell >= size * 1.8 && finite.map(|v| fixed(*v, decimals)).all(|text| font::width(&text, size) <= room)
    };
    let Some((decimals, size)) = choices.find(|(decimals, size)| fits(*decimals, *size)) else {
        return;
    };
    for row in 0..figure.rows.len() {
        for column in 0..figure.columns.len() {
            let value = figure.value(row, column);
            if value.is_finite() {
                let ink = colour(figure, range, value).readable_ink();
                let x = left + (column as f64 + 0.5) * cell;
                // Digits are 0.73 em high: this puts their middle into the cell's.
                let y = top + (row as f64 + 0.5) * cell + size * 0.365;
                let style = Style::new(size, ink).anchored(Anchor::Middle);
                sheet.text(x, y, &fixed(value, decimals), style);
            }
        }
    }
}

/// The cells of the path: framed where they are large enough to hold numbers, else with a line through them.
fn draw_path(sheet: &mut Sheet, figure: &Figure, (left, top): (f64, f64), cell: f64) {
    const FRAMED_MIN: f64 = 14.0;
    let mut outlined = |points: &[(f64, f64)]| {
        sheet.line(points, INK, 3.6);
        sheet.line(points, "#ffffff", 1.8);
    };
    let corner = |row: usize, column: usize| (left + column as f64 * cell, top + row as f64 * cell);
    if cell >= FRAMED_MIN {
        for (row, column) in &figure.path {
            let (x, y) = corner(*row, *column);
            let (near, far) = (2.5, cell - 2.5);
            let ends = [(near, near), (far, near), (far, far), (near, far), (near, near), (far, near)];
            outlined(&ends.map(|(right, down)| (x + right, y + down)));
        }
    } else if figure.path.len() > 1 {
        let centre = |(row, column): &(usize, usize)| {
            let (x, y) = corner(*row, *column);
            (x + cell / 2.0, y + cell / 2.0)
        };
        outlined(&figure.path.iter().map(centre).collect::<Vec<_>>());
    }
}

fn draw_axes(sheet: &mut Sheet, figure: &Figure, (left, top): (f64, f64), cell: f64) {
    let (rows, columns) = (&figure.rows, &figure.columns);
    let (width, height) = (cell * columns.len() as f64, cell * rows.len() as f64);
    let middle = Style::new(SMALL, INK).anchored(Anchor::Middle);
    let end = middle.anchored(Anchor::End);
    for place in thinned(&columns.labels, SMALL, cell) {
        let along = left + (place as f64 + 0.5) * cell;
        sheet.line(&[(along, top + height), (along, top + height + 4.0)], GREY, 1.0);
        sheet.text(along, top + height + 5.0 + SMALL, &columns.labels[place], middle);
    }
    // Lines below one another need their height, not their width.
    let numbers: Vec<String> = (0..rows.len()).map(|place| place.to_string()).collect();
    for place in thinned(&numbers, SMALL, cell) {
        let along = top + (place as f64 + 0.5) * cell;
        sheet.line(&[(left - 4.0, along), (left, along)], GREY, 1.0);
        sheet.text(left - 7.0, along + SMALL * 0.365, &rows.labels[place], end);
    }
    sheet.text(left + width / 2.0, top + height + 6.0 + SMALL * 2.3, &columns.title, middle);
    sheet.text_upwards(MARGIN + SMALL * 0.9, top + height / 2.0, &rows.title, middle);
}

fn draw_bar(
    sheet: &mut Sheet,
    range: Range,
    larger_is_more_similar: bool,
    ticks: &[(f64, String)],
    (x, top): (f64, f64),
    height: f64,
) {
    let steps = 64;
    let mut gradient = r#"<defs><linearGradient id="scale" x1="0" y1="1" x2="0" y2="0">"#.to_owned();
    for step in 0..=steps {
        let fraction = f64::from(step) / f64::from(steps);
        let colour = Rgb::of(if larger_is_more_similar { fraction } else { 1.0 - fraction }).hex();
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

/// Which way along the bar layers are more alike, where there is room to say so; the note under the cells says it, too.
fn draw_direction(sheet: &mut Sheet, larger_is_more_similar: bool, x: f64, top: f64, height: f64) {
    let text = if larger_is_more_similar { "more similar →" } else { "← more similar" };
    if font::width(text, SMALL) <= height {
        sheet.text_upwards(x, top + height / 2.0, text, Style::new(SMALL, GREY).anchored(Anchor::Middle));
    }
}

/// What the colours span and what the data do.
fn range_note(figure: &Figure, range: Range) -> String {
    let square = figure.rows == figure.columns;
    let shown = pairs(figure).filter(|(row, column)| !square || row != column);
    let values = shown.map(|(row, column)| figure.value(row, column)).filter(|value| value.is_finite());
    let (smallest, largest) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let whose = if range.fixed { "fixed" } else { "the data's" };
    let (low, high) = (short(range.low), short(range.high));
    let which = if figure.scale.larger_is_more_similar { "larger" } else { "smaller" };
    let span = format!("Colours: {whose} range {low} to {high}; brighter and {which} is more similar.");
    if smallest > largest {
        return span;
    }
    let which = if square { "Off the diagonal" } else { "Values" };
    format!("{span} {which}: {} to {}.", short(smallest), short(largest))
}

fn pairs(figure: &Figure) -> impl Iterator<Item = (usize, usize)> {
    let columns = figure.columns.len();
    (0..figure.rows.len()).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

fn undefined_places(figure: &Figure) -> Vec<(usize, usize)> {
    pairs(figure).filter(|(row, column)| !figure.value(*row, *column).is_finite()).collect()
}

/// Why cells are hatched: the layers that are undefined against every layer, then a word on single cells.
fn undefined_notes(figure: &Figure, cells: &[(usize, usize)]) -> Vec<String> {
    let missing = |row: usize, column: usize| !figure.value(row, column).is_finite();
    let (n_rows, n_columns) = (figure.rows.len(), figure.columns.len());
    let rows: Vec<usize> =
        (0..n_rows).filter(|row| (0..n_columns).all(|column| missing(*row, column))).collect();
    let columns: Vec<usize> =
        (0..n_columns).filter(|column| (0..n_rows).all(|row| missing(row, *column))).collect();
    let mut reasons = figure.rows.reasons(&rows);
    if figure.rows.title != figure.columns.title {
        let of = |axis: &str, reason: &String| format!("{axis}, {reason}");
        reasons = reasons.iter().map(|reason| of(&figure.rows.title, reason)).collect();
        let others = figure.columns.reasons(&columns);
        reasons.extend(others.iter().map(|reason| of(&figure.columns.title, reason)));
    }
    let mut notes: Vec<String> = reasons.into_iter().map(|reason| format!("Undefined: {reason}")).collect();
    let single =
        cells.iter().filter(|(row, column)| !rows.contains(row) && !columns.contains(column)).count();
    match single {
        0 => {}
        1 => notes.push("Undefined: 1 single cell (not a number)".to_owned()),
        single => notes.push(format!("Undefined: {single} single cells (not a number)")),
    }
    notes
}
