//! Heatmap and dendrogram of one layer × layer matrix, and the line of one quantity of layers: numbers in, SVG text out,
//! PNG from that SVG.
//!
//! Everything is decided by the matrix and its labels, so the same results always give the same bytes.

mod caption;
mod color;
mod dendrogram;
mod font;
mod heatmap;
mod line;
mod scale;
mod svg;

use std::collections::BTreeMap;

use lsa_common::dataset::DatasetName;
use lsa_common::model::short_name;
use resvg::{tiny_skia, usvg};

use crate::merge::Estimates;
use crate::metadata::Metadata;
use scale::Scale;

/// The most layers that a figure can show; a larger matrix would give cells too small to see and a file too large
/// to open.
pub const LAYERS_MAX: usize = 512;

/// Pixels of a PNG per pixel of the SVG: sharp on dense screens and in print.
const PNG_SCALE: f32 = 2.0;

/// A matrix with what a reader must know to read it.
#[derive(Clone, Debug)]
pub struct Figure<'a> {
    scale: Scale,
    caption: Caption,
    rows: Axis,
    columns: Axis,
    values: &'a [f64],
    /// Cells that a line runs through.
    path: Vec<(usize, usize)>,
}

/// What the rows or the columns of a matrix are.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    title: String,
    labels: Vec<String>,
    /// Why an entry is undefined, by its place.
    undefined: BTreeMap<usize, String>,
    /// The hidden-state indices where the entries are layers, for notes that name many.
    layers: Vec<u32>,
}

impl Axis {
    /// Layers by their hidden-state indices; `title` says of what. `undefined` is by place.
    pub fn layers(title: &str, layers: &[u32], undefined: BTreeMap<usize, String>) -> Self {
        let labels = layers.iter().map(u32::to_string).collect();
        Self { title: title.to_owned(), labels, undefined, layers: layers.to_vec() }
    }

    /// The layers of one model; `undefined` is by hidden-state index.
    fn of_model(layers: &[u32], undefined: &BTreeMap<u32, String>) -> Self {
        let reason = |(place, layer): (usize, &u32)| Some((place, undefined.get(layer)?.clone()));
        Self::layers("layer", layers, layers.iter().enumerate().filter_map(reason).collect())
    }

    /// Entries with labels of their own. `undefined` is by place.
    pub fn named(title: &str, labels: Vec<String>, undefined: BTreeMap<usize, String>) -> Self {
        Self { title: title.to_owned(), labels, undefined, layers: Vec::new() }
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    /// The entries at `places` with the reasons why they are undefined, one line per reason.
    fn reasons(&self, places: &[usize]) -> Vec<String> {
        let mut by_reason: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for place in places {
            let reason = self.undefined.get(place).map_or("no reason recorded", String::as_str);
            by_reason.entry(reason).or_default().push(*place);
        }
        let named = |places: &[usize]| match self.layers.is_empty() {
            true => places.iter().map(|place| self.labels[*place].as_str()).collect::<Vec<_>>().join(", "),
            false => layer_list(&places.iter().map(|place| self.layers[*place]).collect::<Vec<_>>()),
        };
        by_reason.into_iter().map(|(reason, places)| format!("{} ({reason})", named(&places))).collect()
    }
}

/// The lines above a drawing.
#[derive(Clone, Debug)]
struct Caption {
    /// What is shown.
    heading: String,
    /// Of what.
    subject: String,
    /// How it was made.
    detail: String,
}

/// Why a matrix cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The numbers do not fill the matrix.
    #[error("the {metric} matrix has {found} numbers, which is not {rows} × {columns}")]
    Shape {
        /// The metric's name.
        metric: String,
        /// The numbers it has.
        found: usize,
        /// The rows it should have.
        rows: usize,
        /// The columns it should have.
        columns: usize,
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
        metric: &str,
        values: &'a [f64],
        side: usize,
        metadata: &'a Metadata,
        name: &str,
    ) -> Result<Self, FigureError> {
        check_size(metric, values, side, side)?;
        let layers = layers(metadata, side);
        let heading = metadata.metric_title(metric);
        let axis = Axis::of_model(&layers, &metadata.undefined);
        Ok(Self {
            scale: Scale::of(metric),
            caption: Caption { heading, subject: subject(metadata, name), detail: detail(metadata) },
            rows: axis.clone(),
            columns: axis,
            values,
            path: Vec::new(),
        })
    }

    /// The same for values on the scale from unrelated rows, 0, to identical layers, 1.
    pub fn calibrated(
        metric: &str,
        values: &'a [f64],
        side: usize,
        metadata: &'a Metadata,
        name: &str,
    ) -> Result<Self, FigureError> {
        let Self { caption: Caption { heading, subject, detail }, .. } =
            Self::new(metric, values, side, metadata, name)?;
        let heading = format!("{heading}, calibrated");
        let detail = format!("{detail} · 0: unrelated rows, 1: identical layers");
        let caption = Caption { heading, subject, detail };
        Ok(Self {
            scale: Scale::calibrated(metric),
            caption,
            ..Self::new(metric, values, side, metadata, name)?
        })
    }

    /// The figure of a row-major matrix `values` whose rows and columns are different things, with the cells of `path`
    /// outlined. `heading` and `subject` are its title; the rest of it is from `metadata`.
    pub fn between(
        metric: &str,
        values: &'a [f64],
        (rows, columns): (Axis, Axis),
        (heading, subject): (String, String),
        metadata: &Metadata,
        path: Vec<(usize, usize)>,
    ) -> Result<Self, FigureError> {
        check_size(metric, values, rows.len(), columns.len())?;
        let caption = Caption { heading, subject, detail: detail(metadata) };
        Ok(Self { scale: Scale::of(metric), caption, rows, columns, values, path })
    }

    /// The heatmap as SVG text: layer 0 at the top left, undefined cells hatched and explained.
    pub fn heatmap(&self) -> String {
        heatmap::draw(self)
    }

    /// The dendrogram as SVG text: average linkage on the distances of the layers, undefined layers left out
    /// and named. Of a metric that has a direction the mean of both is taken.
    ///
    /// With fewer than two defined layers, or a value that is no distance, the figure says that there is nothing to
    /// cluster, and why.
    pub fn dendrogram(&self) -> String {
        dendrogram::draw(self)
    }

    fn value(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns.len() + column]
    }
}

fn check_size(metric: &str, values: &[f64], rows: usize, columns: usize) -> Result<(), FigureError> {
    if rows.checked_mul(columns) != Some(values.len()) {
        return Err(FigureError::Shape { metric: metric.to_owned(), found: values.len(), rows, columns });
    }
    let side = rows.max(columns);
    if values.is_empty() || side > LAYERS_MAX {
        return Err(FigureError::Size { metric: metric.to_owned(), side });
    }
    Ok(())
}

/// The line of one quantity over the layers, with the band of its confidence intervals, as SVG text.
///
/// Layers without a value leave a gap, and are named. Fails where there are no layers or too many, or another number
/// of values than layers.
pub fn layer_line(
    quantity: &str,
    estimates: &Estimates,
    metadata: &Metadata,
    name: &str,
) -> Result<String, FigureError> {
    let n_layers = estimates.mean.len();
    if n_layers == 0 || n_layers > LAYERS_MAX {
        return Err(FigureError::Size { metric: quantity.to_owned(), side: n_layers });
    }
    let caption =
        Caption { heading: quantity.to_owned(), subject: subject(metadata, name), detail: detail(metadata) };
    Ok(line::draw(&line::Line {
        quantity,
        caption,
        layers: layers(metadata, n_layers),
        estimates,
        undefined: &metadata.undefined,
    }))
}

/// The metadata's layers where there are as many, else 0, 1, ….
fn layers(metadata: &Metadata, n_layers: usize) -> Vec<u32> {
    let numbered = || (0..u32::try_from(n_layers).expect("at most LAYERS_MAX")).collect();
    if metadata.layers.len() == n_layers { metadata.layers.clone() } else { numbered() }
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
    encode(&pixels).map_err(|error| refused(error.to_string()))
}

/// Figures are opaque: colours alone. Compressed fast, for a large grid has thousands of them, and smaller files took half
/// of the coordinator's time there.
fn encode(pixels: &tiny_skia::Pixmap) -> Result<Vec<u8>, png::EncodingError> {
    let colours: Vec<u8> = pixels.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, pixels.width(), pixels.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&colours)?;
    writer.finish()?;
    Ok(file)
}

/// What was measured: model, pooling and dataset, as far as known.
fn subject(metadata: &Metadata, name: &str) -> String {
    let texts = texts_of(metadata);
    match (metadata.model.as_str(), texts.as_str()) {
        ("", _) => name.to_owned(),
        (model, "") => short_name(model).to_owned(),
        (model, texts) => format!("{} · {texts}", short_name(model)),
    }
}

/// Pooling and dataset, as far as known.
pub fn texts_of(metadata: &Metadata) -> String {
    let pooling = match metadata.pooling.as_str() {
        "" => String::new(),
        pooling => format!("{pooling} pooling"),
    };
    let dataset = match metadata.dataset.parse::<DatasetName>() {
        Ok(name) => name.stem(),
        Err(_) => metadata.dataset.clone(),
    };
    let known = [pooling, dataset];
    known.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ")
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
            const LONGEST: &str = "OrthogonalProcrustesCenteredAndNormalized";
            let metrics = [
                ("CKA", 0.0),
                ("RSA", -1.0),
                ("Procrustes", -500.0),
                ("Gulp", 901.0),
                ("PWCCA", 0.3),
                (LONGEST, 1.4),
            ];
            for (metric, low) in metrics {
                for hole in [true, false] {
                    let value = |place: usize| {
                        let (a, b) = (place / side, place % side);
                        let apart = a.abs_diff(b) as f64 / side as f64;
                        if hole && (a == 0 || b == 0) { f64::NAN } else { 1.0 - apart * (1.0 - low) }
                    };
                    let values: Vec<f64> = (0..side * side).map(value).collect();
                    let figure = Figure::new(metric, &values, side, &metadata, "x").unwrap();
                    let calibrated = Figure::calibrated(metric, &values, side, &metadata, "x").unwrap();
                    let estimates = Estimates {
                        mean: values[..side].to_vec(),
                        std: vec![0.0; side],
                        ci_low: values[..side].iter().map(|value| value - 0.01).collect(),
                        ci_high: values[..side].iter().map(|value| value + 0.01).collect(),
                    };
                    let line = layer_line(metric, &estimates, &metadata, "x").unwrap();
                    let svgs = [
                        figure.heatmap(),
                        figure.dendrogram(),
                        calibrated.heatmap(),
                        calibrated.dendrogram(),
                        line,
                    ];
                    for svg in svgs {
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
        assert!(matches!(error(&[1.0; 3], 2), FigureError::Shape { .. }));
        assert!(matches!(error(&[], 0), FigureError::Size { side: 0, .. }));
        assert!(matches!(error(&[1.0; 600 * 600], 600), FigureError::Size { side: 600, .. }));
        assert!(matches!(error(&[1.0; 4], usize::MAX), FigureError::Shape { .. }));
    }
}
