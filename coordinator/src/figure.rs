//! Heatmap and dendrogram of one layer × layer matrix: numbers in, SVG text out, PNG from that SVG.
//!
//! Everything is decided by the matrix and its labels, so the same results always give the same bytes.

mod caption;
mod color;
mod dendrogram;
mod font;
mod heatmap;
mod svg;

use std::collections::BTreeMap;

use lsa_common::dataset::DatasetName;
use lsa_common::model::short_name;
use resvg::{tiny_skia, usvg};

use crate::metadata::Metadata;

/// The most layers that a figure can show; a larger matrix would give cells too small to see and a file too large
/// to open.
pub const LAYERS_MAX: usize = 512;

/// Pixels of a PNG per pixel of the SVG: sharp on dense screens and in print.
const PNG_SCALE: f32 = 2.0;

/// A matrix with what a reader must know to read it.
#[derive(Clone, Debug)]
pub struct Figure<'a> {
    metric: &'a str,
    heading: String,
    subject: String,
    detail: String,
    layers: Vec<u32>,
    values: &'a [f64],
    undefined: &'a BTreeMap<u32, String>,
}

/// Why a matrix cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The numbers do not fill a square.
    #[error("the {metric} matrix has {found} numbers, which is not {side} × {side}")]
    NotSquare {
        /// The metric's name.
        metric: String,
        /// The numbers it has.
        found: usize,
        /// The layers it should compare.
        side: usize,
    },
    /// The picture would be too large.
    #[error("the {metric} matrix compares {side} layers; a figure shows 1 to {LAYERS_MAX}")]
    Size {
        /// The metric's name.
        metric: String,
        /// The layers it compares.
        side: usize,
    },
    /// The rasteriser refused the SVG.
    #[error("the figure cannot be turned into a PNG: {reason}")]
    Raster {
        /// What it said.
        reason: String,
    },
}

impl<'a> Figure<'a> {
    /// The figure of one metric's [side, side] row-major `values`, labelled from `metadata`.
    ///
    /// `name` stands in the title where the metadata do not say what was measured. Rows are labelled with the
    /// metadata's layers where there are as many, else 0, 1, ….
    pub fn new(
        metric: &'a str,
        values: &'a [f64],
        side: usize,
        metadata: &'a Metadata,
        name: &str,
    ) -> Result<Self, FigureError> {
        if side.checked_mul(side) != Some(values.len()) {
            return Err(FigureError::NotSquare { metric: metric.to_owned(), found: values.len(), side });
        }
        if side == 0 || side > LAYERS_MAX {
            return Err(FigureError::Size { metric: metric.to_owned(), side });
        }
        let numbered = || (0..u32::try_from(side).expect("at most LAYERS_MAX")).collect();
        let layers = if metadata.layers.len() == side { metadata.layers.clone() } else { numbered() };
        let heading = match metadata.parameter(metric, "k") {
            Some(k) => format!("{metric} (k = {k})"),
            None => metric.to_owned(),
        };
        Ok(Self {
            metric,
            heading,
            subject: subject(metadata, name),
            detail: detail(metadata),
            layers,
            values,
            undefined: &metadata.undefined,
        })
    }

    /// The heatmap as SVG text: layer 0 at the top left, undefined cells hatched and explained.
    pub fn heatmap(&self) -> String {
        heatmap::draw(self)
    }

    /// The dendrogram as SVG text: average linkage on 1 - similarity, undefined layers left out and named.
    ///
    /// With fewer than two defined layers, or a value outside [-1, 1], the figure says that there is nothing to
    /// cluster, and why.
    pub fn dendrogram(&self) -> String {
        dendrogram::draw(self)
    }

    fn side(&self) -> usize {
        self.layers.len()
    }

    fn value(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.side() + column]
    }

    /// The layers at `places` of the matrix with the reasons why they are undefined, one line per reason.
    fn reasons(&self, places: &[usize]) -> Vec<String> {
        let mut by_reason: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for place in places {
            let layer = self.layers[*place];
            let reason = self.undefined.get(&layer).map_or("no reason recorded", String::as_str);
            by_reason.entry(reason).or_default().push(layer);
        }
        let line = |(reason, layers): (&str, Vec<u32>)| format!("{} ({reason})", layer_list(&layers));
        by_reason.into_iter().map(line).collect()
    }
}

/// A PNG of a figure's SVG, at two pixels per SVG pixel, on white.
pub fn png(svg: &str) -> Result<Vec<u8>, FigureError> {
    let refused = |reason: String| FigureError::Raster { reason };
    let options = usvg::Options { fontdb: font::database(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| refused(error.to_string()))?;
    let size = tree.size().to_int_size();
    let size = size.scale_by(PNG_SCALE).ok_or_else(|| refused("it has no size".to_owned()))?;
    let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height())
        .ok_or_else(|| refused(format!("{} × {} pixels are too many", size.width(), size.height())))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| refused(error.to_string()))
}

/// What was measured: model, pooling and dataset, as far as known.
fn subject(metadata: &Metadata, name: &str) -> String {
    let pooling = match metadata.pooling.as_str() {
        "" => String::new(),
        pooling => format!("{pooling} pooling"),
    };
    let dataset = match metadata.dataset.parse::<DatasetName>() {
        Ok(name) => name.stem(),
        Err(_) => metadata.dataset.clone(),
    };
    let known = [short_name(&metadata.model), pooling.as_str(), dataset.as_str()];
    let parts: Vec<&str> = known.into_iter().filter(|part| !part.is_empty()).collect();
    if metadata.model.is_empty() { name.to_owned() } else { parts.join(" · ") }
}

/// How many trials of how many texts, as far as known.
fn detail(metadata: &Metadata) -> String {
    let trials = match metadata.trials {
        0 => String::new(),
        1 => "1 trial".to_owned(),
        trials => format!("mean of {trials} trials"),
    };
    let texts = match (metadata.sample_size, metadata.num_samples) {
        (0, 0) => String::new(),
        (0, texts) => format!("{texts} texts"),
        (sample, 0) => format!("{sample} texts"),
        (sample, texts) => format!("{sample} of {texts} texts"),
    };
    match (trials.as_str(), texts.as_str()) {
        ("", text) | (text, "") => text.to_owned(),
        (trials, texts) => format!("{trials}, {texts} each"),
    }
}

/// `layer 3` or `layers 0, 4 to 7, 9`.
fn layer_list(layers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for layer in layers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*layer) => *last = *layer,
            _ => runs.push((*layer, *layer)),
        }
    }
    let run = |(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first} to {last}"),
    };
    let noun = if layers.len() == 1 { "layer" } else { "layers" };
    format!("{noun} {}", runs.iter().map(run).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_lists_are_short() {
        assert_eq!(layer_list(&[3]), "layer 3");
        assert_eq!(layer_list(&[0, 1]), "layers 0, 1");
        assert_eq!(layer_list(&[0, 4, 5, 6, 7, 9]), "layers 0, 4 to 7, 9");
    }

    #[test]
    fn captions_say_what_is_known() {
        let mut metadata = Metadata::default();
        assert_eq!(subject(&metadata, "my_results"), "my_results");
        assert_eq!(detail(&metadata), "");
        metadata.model = "m".to_owned();
        metadata.dataset = "c4".to_owned();
        assert_eq!(subject(&metadata, "my_results"), "m · c4");
        metadata.model = "../models/m/".to_owned();
        metadata.dataset = "file:/data/reviews.jsonl.gz#body".to_owned();
        assert_eq!(subject(&metadata, "my_results"), "m · reviews");
        metadata.dataset = "c4".to_owned();
        metadata.pooling = "mean".to_owned();
        metadata.trials = 5;
        metadata.sample_size = 1000;
        metadata.num_samples = 2000;
        assert_eq!(subject(&metadata, "my_results"), "m · mean pooling · c4");
        assert_eq!(detail(&metadata), "mean of 5 trials, 1000 of 2000 texts each");
    }

    /// Where every text of a figure lies: left, top, right, bottom, and the text.
    fn texts(group: &usvg::Group, found: &mut Vec<([f32; 4], String)>) {
        for node in group.children() {
            match node {
                usvg::Node::Group(group) => texts(group, found),
                usvg::Node::Text(text) => {
                    let area = text.abs_bounding_box();
                    let text = text.chunks().iter().map(|chunk| chunk.text()).collect();
                    found.push(([area.left(), area.top(), area.right(), area.bottom()], text));
                }
                usvg::Node::Path(_) | usvg::Node::Image(_) => {}
            }
        }
    }

    #[test]
    fn no_text_is_clipped_or_overlaps_another() {
        let mut metadata = Metadata {
            model: "sentence-transformers/paraphrase-multilingual-mpnet-base-v2".to_owned(),
            pooling: "last_token".to_owned(),
            dataset: "a".repeat(300),
            trials: 5,
            sample_size: 3000,
            num_samples: 20_000,
            ..Metadata::default()
        };
        metadata
            .undefined
            .insert(0, "all rows are equal up to rounding, which is usual at layer 0".to_owned());
        for side in [1usize, 2, 3, 4, 7, 13, 25, 33, 49, 130] {
            for (metric, low) in [("CKA", 0.0), ("RSA", -1.0), ("Procrustes", -500.0)] {
                for hole in [true, false] {
                    let value = |place: usize| {
                        let (a, b) = (place / side, place % side);
                        let apart = a.abs_diff(b) as f64 / side as f64;
                        if hole && (a == 0 || b == 0) { f64::NAN } else { 1.0 - apart * (1.0 - low) }
                    };
                    let values: Vec<f64> = (0..side * side).map(value).collect();
                    let figure = Figure::new(metric, &values, side, &metadata, "x").unwrap();
                    for svg in [figure.heatmap(), figure.dendrogram()] {
                        check_texts(&svg, &format!("{metric}, {side} layers"));
                    }
                }
            }
        }
    }

    fn check_texts(svg: &str, which: &str) {
        let options = usvg::Options { fontdb: font::database(), ..usvg::Options::default() };
        let tree = usvg::Tree::from_str(svg, &options).unwrap();
        let mut found = Vec::new();
        texts(tree.root(), &mut found);
        assert!(found.len() > 3, "{which}");
        for (place, ([left, top, right, bottom], text)) in found.iter().enumerate() {
            let inside =
                *left > 0.0 && *top > 0.0 && *right < tree.size().width() && *bottom < tree.size().height();
            assert!(inside, "{which}: {text:?} is clipped");
            for ([l, t, r, b], other) in &found[..place] {
                let apart = right <= l || r <= left || bottom <= t || b <= top;
                assert!(apart, "{which}: {text:?} overlaps {other:?}");
            }
        }
    }

    #[test]
    fn undefined_cells_are_hatched_and_explained() {
        let mut metadata = Metadata { layers: vec![0, 6], ..Metadata::default() };
        metadata.undefined.insert(6, "all rows are <equal>".to_owned());
        let values = [1.0, f64::NAN, f64::NAN, f64::NAN];
        let svg = Figure::new("CKA", &values, 2, &metadata, "x").unwrap().heatmap();
        assert!(svg.contains("url(#undefined)"));
        assert!(svg.contains("Undefined: layer 6 (all rows are &lt;equal&gt;)"), "{svg}");
        let whole = Figure::new("CKA", &[1.0; 4], 2, &metadata, "x").unwrap().heatmap();
        assert!(!whole.contains("undefined") && !whole.contains("Undefined"), "{whole}");
    }

    #[test]
    fn a_png_has_the_colours_of_its_svg() {
        let metadata = Metadata::default();
        let figure = Figure::new("CKA", &[1.0, 0.0, 0.0, 1.0], 2, &metadata, "x").unwrap();
        let bytes = png(&figure.heatmap()).unwrap();
        let pixels = tiny_skia::Pixmap::decode_png(&bytes).unwrap();
        let count = |rgb: [u8; 3]| {
            let same = |p: &&tiny_skia::PremultipliedColorU8| [p.red(), p.green(), p.blue()] == rgb;
            pixels.pixels().iter().filter(same).count()
        };
        // Two cells of 144 × 144 pixels each, less the digits on them.
        for end in [[0xfd, 0xe7, 0x25], [0x44, 0x01, 0x54]] {
            assert!((30_000..43_000).contains(&count(end)), "{end:?}: {}", count(end));
        }
        assert!(bytes == png(&figure.heatmap()).unwrap());
        assert!(matches!(png("<svg"), Err(FigureError::Raster { .. })));
    }

    #[test]
    fn what_is_not_a_matrix_is_refused() {
        let metadata = Metadata::default();
        let error = |values: &[f64], side| Figure::new("CKA", values, side, &metadata, "x").unwrap_err();
        assert!(matches!(error(&[1.0; 3], 2), FigureError::NotSquare { .. }));
        assert!(matches!(error(&[], 0), FigureError::Size { side: 0, .. }));
        assert!(matches!(error(&[1.0; 600 * 600], 600), FigureError::Size { side: 600, .. }));
        assert!(matches!(error(&[1.0; 4], usize::MAX), FigureError::NotSquare { .. }));
    }
}
