//! Comparisons across models: what the layers of several models over the same texts say of one another. Pure.

pub mod alignment;
pub mod group;
pub mod summary;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::merge::MetricResult;
use crate::metadata::Metadata;
use summary::{PairSummary, summarise};

/// What one comparison across models found, ready to be written into files.
#[derive(Clone, Debug, PartialEq)]
pub struct AcrossResult {
    /// The name of its directory: dataset and pooling.
    pub name: String,
    /// The models, in the order in which the job names them.
    pub models: Vec<ComparedModel>,
    /// The metrics with the matrices of all layers of all models.
    pub metrics: Vec<MetricResult>,
    /// Why a layer has no similarity to any, by its place among the layers of all models.
    pub undefined: BTreeMap<u32, String>,
    /// Where the numbers come from, as far as it is the same for all models.
    pub metadata: Metadata,
}

/// One model of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparedModel {
    /// What it is called in files and figures, unique among the models.
    pub name: String,
    /// The model's id.
    pub id: String,
    /// The hidden-state index of each of its layers.
    pub layers: Vec<u32>,
    /// The relative depth of each layer: 0 for the embeddings, 1 for the output of the last block.
    pub depths: Vec<f64>,
    /// The place of its first layer in the matrices.
    pub first: usize,
}

impl ComparedModel {
    /// The places of its layers in the matrices.
    pub fn places(&self) -> Range<usize> {
        self.first..self.first + self.layers.len()
    }
}

impl AcrossResult {
    /// The matrices [layers of `a`, layers of `b`] of a metric; models by their places.
    pub fn pair(&self, metric: &MetricResult, a: usize, b: usize) -> MetricResult {
        metric.block(self.models[a].places(), self.models[b].places())
    }

    /// What such a matrix says in short, from its means.
    pub fn summary(&self, metric: &MetricResult, a: usize, b: usize) -> PairSummary {
        let (depths_a, depths_b) = (&self.models[a].depths, &self.models[b].depths);
        let side = metric.n_layers as usize;
        let row = |row: usize| &metric.estimates.mean[row * side..(row + 1) * side][self.models[b].places()];
        let means: Vec<f64> = self.models[a].places().flat_map(row).copied().collect();
        summarise(metric.metric.name, &means, (depths_a, depths_b))
    }

    /// The pairs of different models that have a matrix of their own: each once where the metric is symmetric, else
    /// both ways.
    pub fn pairs(&self, metric: &MetricResult) -> Vec<(usize, usize)> {
        let both = !metric.metric.name.info().symmetric;
        let n = self.models.len();
        let all = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
        all.filter(|(a, b)| if both { a != b } else { a < b }).collect()
    }

    /// Why the cell of two layers, by their places in the matrices, is undefined, where a layer of it is.
    pub fn reason(&self, place_a: usize, place_b: usize) -> Option<String> {
        [place_a, place_b].into_iter().find_map(|place| {
            let reason = self.undefined.get(&u32::try_from(place).ok()?)?;
            let model = self.models.iter().find(|model| model.places().contains(&place))?;
            Some(format!("layer {} of {}: {reason}", model.layers[place - model.first], model.name))
        })
    }
}
