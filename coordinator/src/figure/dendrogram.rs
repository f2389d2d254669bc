//! The dendrogram: which layers are alike, and how alike groups of them are.
//!
//! Average linkage (UPGMA, Sokal and Michener 1958) on the distances: 1 - similarity, or the metric itself where it is
//! a distance. Of the two branches of a merge
//! the one with the lower layer comes first, so the leaves stay as near to layer order as the tree allows.

use kodama::{Method, linkage};

use super::Figure;
use super::caption::{Block, MARGIN, SMALL};
use super::color::Range;
use super::font;
use super::svg::{Anchor, GREY, INK, PALE, Sheet, Style, short};

/// Height of the tree.
const TREE_HEIGHT: f64 = 340.0;
/// The width that the tree aims at, and pixels between leaves at least and at most.
const TREE_WIDTH_WANTED: f64 = 660.0;
const GAP_MIN: f64 = 15.0;
const GAP_MAX: f64 = 110.0;
/// Narrower sheets would break every title.
const WIDTH_MIN: f64 = 520.0;
/// The branches.
const BRANCH: &str = "#31688e";

/// The dendrogram as SVG text; where there is nothing to cluster, a sheet that says why.
pub(super) fn draw(figure: &Figure) -> String {
    let scale = &figure.scale;
    let outside = |value: &&f64| value.is_finite() && !scale.has_distance(**value);
    if let Some(value) = figure.values.iter().find(outside) {
        let (quantity, distance) = (&scale.quantity, scale.distance_name());
        let why = format!("{quantity} has the value {}, so {distance} is not a distance.", short(*value));
        return draw_nothing(figure, &[], &why);
    }
    let (kept, left_out) = defined_block(figure);
    match kept.as_slice() {
        [] => draw_nothing(figure, &left_out, "no layer has defined similarities."),
        [only] => {
            let why = format!("only layer {} has defined similarities.", figure.rows.labels[*only]);
            draw_nothing(figure, &left_out, &why)
        }
        _ => draw_tree(figure, &kept, &left_out, &Tree::of(figure, &kept)),
    }
}

/// The places whose layers are all defined against each other, and the places left out for it.
///
/// Drops the layer with the most undefined cells until none is left; of two alike, the lower one.
fn defined_block(figure: &Figure) -> (Vec<usize>, Vec<usize>) {
    let side = figure.rows.len();
    let missing = |a: usize, b: usize| !figure.value(a, b).is_finite() || !figure.value(b, a).is_finite();
    let mut kept: Vec<usize> = (0..side).collect();
    let mut left_out = Vec::new();
    let mut counts: Vec<usize> =
        (0..side).map(|layer| (0..side).filter(|other| missing(layer, *other)).count()).collect();
    loop {
        let worst = kept.iter().copied().max_by_key(|layer| (counts[*layer], std::cmp::Reverse(*layer)));
        let Some(worst) = worst.filter(|layer| counts[*layer] > 0) else {
            left_out.sort_unstable();
            return (kept, left_out);
        };
        kept.retain(|layer| *layer != worst);
        left_out.push(worst);
        for layer in &kept {
            counts[*layer] -= usize::from(missing(*layer, worst));
        }
    }
}

/// The merges, laid out: leaves at whole numbers, a merge in the middle of its two branches.
struct Tree {
    /// Places in `kept`, from left to right.
    leaves: Vec<usize>,
    /// (x and height of the left branch, of the right branch, height of the merge).
    merges: Vec<([f64; 2], [f64; 2], f64)>,
}

impl Tree {
    /// Clusters the layers at the places `kept`, whose similarities are all finite.
    fn of(figure: &Figure, kept: &[usize]) -> Self {
        let n = kept.len();
        // Some metrics have a direction; a file from elsewhere may not be symmetric to the last bits.
        let distance = |a: usize, b: usize| {
            let both = f64::midpoint(figure.value(kept[a], kept[b]), figure.value(kept[b], kept[a]));
            figure.scale.distance(both)
        };
        let mut condensed: Vec<f64> =
            (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).map(|(a, b)| distance(a, b)).collect();
        let dendrogram = linkage(&mut condensed, n, Method::Average);

        // Cluster i < n is leaf i; cluster n + i is what step i made.
        let mut members: Vec<Vec<usize>> = (0..n).map(|leaf| vec![leaf]).collect();
        let mut branches = Vec::new();
        for step in dendrogram.steps() {
            let (mut first, mut second) = (step.cluster1, step.cluster2);
            if members[second].iter().min() < members[first].iter().min() {
                (first, second) = (second, first);
            }
            members.push([members[first].as_slice(), members[second].as_slice()].concat());
            branches.push((first, second, step.dissimilarity));
        }
        let leaves = members.pop().unwrap_or_default();

        let mut places = vec![[0.0; 2]; n];
        for (x, leaf) in leaves.iter().enumerate() {
            places[*leaf] = [x as f64, 0.0];
        }
        let mut merges = Vec::new();
        for (first, second, height) in branches {
            let (left, right) = (places[first], places[second]);
            places.push([(left[0] + right[0]) / 2.0, height]);
            merges.push((left, right, height));
        }
        Self { leaves, merges }
    }

    fn height(&self) -> f64 {
        self.merges.iter().map(|(_, _, height)| *height).fold(0.0, f64::max)
    }
}

fn draw_tree(figure: &Figure, kept: &[usize], left_out: &[usize], tree: &Tree) -> String {
    let n = tree.leaves.len();
    let gap = (TREE_WIDTH_WANTED / n as f64).floor().clamp(GAP_MIN, GAP_MAX);
    let axis = figure.scale.distance_name();
    let directions = if figure.scale.symmetric { "" } else { ", mean of both directions" };
    // All layers equal: any height would do.
    let height = if tree.height() > 0.0 { tree.height() } else { 1.0 };
    let range = Range { low: 0.0, high: height * 1.04, fixed: false };
    let ticks = range.ticks(6);
    let tick_width = ticks.iter().map(|(_, text)| font::width(text, SMALL)).fold(0.0, f64::max);
    let labels: Vec<String> =
        tree.leaves.iter().map(|leaf| figure.rows.labels[kept[*leaf]].clone()).collect();
    let label_width = labels.iter().map(|label| font::width(label, SMALL)).fold(0.0, f64::max);
    let upright = label_width + 4.0 > gap;

    let left = MARGIN + SMALL * 1.6 + tick_width + 10.0;
    let plot = gap * n as f64;
    let width = (left + plot + MARGIN).max(WIDTH_MIN);
    let title = Block::title(
        &figure.caption,
        &format!("average linkage on {axis}{directions}"),
        width - 2.0 * MARGIN,
    );
    let notes = Block::notes(&left_out_notes(figure, left_out), width - 2.0 * MARGIN);
    let top = MARGIN + title.height() + 14.0;

    let ground = top + TREE_HEIGHT;
    let label_height = if upright { label_width } else { SMALL };
    let notes_top = ground + 8.0 + label_height + SMALL * 2.2;
    let mut sheet = Sheet::new(width, notes_top + notes.height() + MARGIN, &name(figure));
    title.draw(&mut sheet, MARGIN, MARGIN);
    let y = |value: f64| ground - TREE_HEIGHT * range.fraction(value);
    let x = |place: f64| left + (place + 0.5) * gap;

    for (value, text) in &ticks {
        sheet.line(&[(left, y(*value)), (left + plot, y(*value))], PALE, 1.0);
        let style = Style::new(SMALL, INK).anchored(Anchor::End);
        sheet.text(left - 8.0, y(*value) + SMALL * 0.365, text, style);
    }
    for (first, second, merge) in &tree.merges {
        let corners = [(first[0], first[1]), (first[0], *merge), (second[0], *merge), (second[0], second[1])];
        sheet.line(&corners.map(|(place, value)| (x(place), y(value))), BRANCH, 1.6);
    }
    sheet.line(&[(left, ground), (left + plot, ground)], GREY, 1.0);
    let middle = Style::new(SMALL, INK).anchored(Anchor::Middle);
    for (place, label) in labels.iter().enumerate() {
        let x = x(place as f64);
        if upright {
            let end = middle.anchored(Anchor::End);
            sheet.text_upwards(x + SMALL * 0.365, ground + 8.0, label, end);
        } else {
            sheet.text(x, ground + 5.0 + SMALL, label, middle);
        }
    }
    sheet.text(left + plot / 2.0, ground + 8.0 + label_height + SMALL * 1.3, "layer", middle);
    sheet.text_upwards(MARGIN + SMALL * 0.9, ground - TREE_HEIGHT / 2.0, &axis, middle);
    notes.draw(&mut sheet, MARGIN, notes_top);
    sheet.finish()
}

/// A sheet with title and reason alone.
fn draw_nothing(figure: &Figure, left_out: &[usize], why: &str) -> String {
    let width = WIDTH_MIN - 2.0 * MARGIN;
    let title = Block::title(&figure.caption, "", width);
    let message = Block::notes(&[format!("Nothing to cluster: {why}")], width);
    let notes = Block::notes(&left_out_notes(figure, left_out), width);
    let top = MARGIN + title.height() + 14.0;
    let height = top + message.height() + notes.height() + MARGIN;
    let mut sheet = Sheet::new(WIDTH_MIN, height, &name(figure));
    title.draw(&mut sheet, MARGIN, MARGIN);
    message.draw(&mut sheet, MARGIN, top);
    notes.draw(&mut sheet, MARGIN, top + message.height());
    sheet.finish()
}

fn left_out_notes(figure: &Figure, left_out: &[usize]) -> Vec<String> {
    figure
        .rows
        .reasons(left_out)
        .into_iter()
        .map(|reason| format!("Left out as undefined: {reason}"))
        .collect()
}

fn name(figure: &Figure) -> String {
    format!("{} dendrogram: {}", figure.caption.heading, figure.caption.subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;

    const N: f64 = f64::NAN;

    fn figure<'a>(values: &'a [f64], side: usize, metadata: &'a Metadata) -> Figure<'a> {
        Figure::new("CKA", values, side, metadata, "x").unwrap()
    }

    #[test]
    fn average_linkage_by_hand() {
        // 1 and 3 join at 0.1, 0 and 2 at 0.2, both pairs at the mean of 0.5, 0.6, 0.7 and 0.8.
        let values = [
            1.0, 0.5, 0.8, 0.4, //
            0.5, 1.0, 0.3, 0.9, //
            0.8, 0.3, 1.0, 0.2, //
            0.4, 0.9, 0.2, 1.0,
        ];
        let metadata = Metadata::default();
        let tree = Tree::of(&figure(&values, 4, &metadata), &[0, 1, 2, 3]);
        assert_eq!(tree.leaves, [0, 2, 1, 3]);
        let heights: Vec<f64> = tree.merges.iter().map(|(_, _, height)| *height).collect();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(heights.iter().zip([0.1, 0.2, 0.65]).all(|(a, b)| near(*a, b)), "{heights:?}");
        let (left, right, _) = tree.merges[2];
        assert_eq!((left[0], right[0]), (0.5, 2.5));
    }

    #[test]
    fn distances_are_taken_as_they_are() {
        let metadata = Metadata::default();
        let values = [0.0, 3.0, 9.0, 3.0, 0.0, 7.0, 9.0, 7.0, 0.0];
        let far = Figure::new("MagnitudeDifference", &values, 3, &metadata, "x").unwrap();
        assert_eq!(Tree::of(&far, &[0, 1, 2]).height(), 8.0);
        let svg = draw(&far);
        assert!(svg.contains("average linkage on MagnitudeDifference") && !svg.contains("1 - "), "{svg}");
    }

    #[test]
    fn both_directions_count_half() {
        let metadata = Metadata::default();
        let values = [1.0, 0.5, 0.25, 1.0];
        let directed = Figure::new("PWCCA", &values, 2, &metadata, "x").unwrap();
        assert_eq!(Tree::of(&directed, &[0, 1]).height(), 0.625);
        assert!(draw(&directed).contains("mean of both directions"));
        assert!(!draw(&figure(&values, 2, &metadata)).contains("directions"));
    }

    #[test]
    fn similarities_above_one_by_rounding_are_distance_zero() {
        let values = [1.0, 1.0 + 1e-9, 1.0 + 1e-9, 1.0];
        let metadata = Metadata::default();
        assert_eq!(Tree::of(&figure(&values, 2, &metadata), &[0, 1]).height(), 0.0);
        assert!(draw(&figure(&values, 2, &metadata)).contains("average linkage"));
    }

    #[test]
    fn undefined_layers_are_left_out() {
        let metadata = Metadata::default();
        let whole_layer = [N, N, N, N, 1.0, 0.5, N, 0.5, 1.0];
        assert_eq!(defined_block(&figure(&whole_layer, 3, &metadata)), (vec![1, 2], vec![0]));
        let one_cell = [1.0, 0.5, 0.5, 0.5, 1.0, N, 0.5, N, 1.0];
        assert_eq!(defined_block(&figure(&one_cell, 3, &metadata)), (vec![0, 2], vec![1]));
        assert_eq!(defined_block(&figure(&[N; 9], 3, &metadata)), (vec![], vec![0, 1, 2]));
    }

    #[test]
    fn nothing_to_cluster_is_said() {
        let metadata = Metadata::default();
        let check = |values: &[f64], side: usize, expected: &str| {
            let svg = draw(&figure(values, side, &metadata));
            assert!(svg.contains("Nothing to cluster") && svg.contains(expected), "{svg}");
        };
        check(&[1.0], 1, "only layer 0");
        check(&[N], 1, "no layer has");
        check(&[N, N, N, 1.0], 2, "only layer 1");
        check(&[0.0, 3.0, 3.0, 0.0], 2, "has the value 3,");
    }
}
