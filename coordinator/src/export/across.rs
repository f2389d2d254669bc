//! The files of a comparison across models: a matrix per metric and pair of models, and what they say in short.

use std::collections::BTreeMap;
use std::io::{self, Cursor};

use serde_json::{Map, Value, json};
use zip::ZipWriter;

use super::ExportError;
use super::npz::{add, add_metric, npy};
use crate::across::summary::{BAND, PairSummary};
use crate::across::{AcrossResult, ComparedModel};
use crate::figure::{self, Axis, Figure, FigureError};
use crate::merge::MetricResult;

/// Every file of a comparison across models: path inside its directory → bytes; `summary.json` comes last.
pub fn files(result: &AcrossResult) -> Result<Vec<(String, Vec<u8>)>, ExportError> {
    let mut files = Vec::new();
    for metric in &result.metrics {
        for (a, b) in result.pairs(metric) {
            let path = format!("{}/{}", metric.metric.name, pair_name(result, (a, b)));
            let archive = pair_archive(&result.pair(metric, a, b), &result.models[a], &result.models[b]);
            let archive = archive.map_err(|source| ExportError::Archive {
                experiment: result.name.clone(),
                file: "an archive across models",
                source,
            })?;
            files.push((format!("{path}.npz"), archive));
        }
        let drawn = figures(result, metric);
        let drawn =
            drawn.map_err(|source| ExportError::Figure { experiment: result.name.clone(), source })?;
        files.extend(drawn);
    }
    files.push(("summary.json".to_owned(), summary_json(result).into_bytes()));
    Ok(files)
}

/// A heatmap of each pair with the alignment of its layers, and of each model × model matrix of the summary; figures
/// that cannot show their matrix (more than [`figure::LAYERS_MAX`] rows or columns) are left out.
fn figures(result: &AcrossResult, metric: &MetricResult) -> Result<Vec<(String, Vec<u8>)>, FigureError> {
    let mut drawn = Vec::new();
    let mut add = |name: String, figure: &Figure<'_>| {
        let svg = figure.heatmap();
        drawn.push((format!("{}/{name}.png", metric.metric.name), figure::png(&svg)?));
        drawn.push((format!("{}/{name}.svg", metric.metric.name), svg.into_bytes()));
        Ok::<_, FigureError>(())
    };
    let name = metric.metric.name.as_str();
    let texts = figure::texts_of(&result.metadata);
    for (a, b) in result.pairs(metric) {
        let (pair, summary) = (result.pair(metric, a, b), result.summary(metric, a, b));
        let axes = (layer_axis(result, a), layer_axis(result, b));
        let drawable = [a, b].iter().all(|model| result.models[*model].layers.len() <= figure::LAYERS_MAX);
        if drawable {
            let heading = metric.metric.to_string();
            let subject = format!("{} and {} · {texts}", result.models[a].name, result.models[b].name);
            let (metadata, path) = (&result.metadata, summary.alignment);
            let figure =
                Figure::between(name, &pair.estimates.mean, axes, (heading, subject), metadata, path)?;
            add(pair_name(result, (a, b)), &figure)?;
        }
    }
    if result.models.len() <= figure::LAYERS_MAX {
        for (file, heading, of) in SUMMARIES {
            let n = result.models.len();
            let pairs = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
            let values: Vec<f64> = pairs.map(|(a, b)| of(&result.summary(metric, a, b))).collect();
            let heading = format!("{}: {heading}", metric.metric);
            let (metadata, axes) = (&result.metadata, model_axes(result));
            let figure =
                Figure::between(name, &values, axes, (heading, texts.clone()), metadata, Vec::new())?;
            add(file.to_owned(), &figure)?;
        }
    }
    Ok(drawn)
}

/// The model × model matrices: file, what they show, and a pair's number.
type Summary = (&'static str, &'static str, fn(&PairSummary) -> f64);
const SUMMARIES: [Summary; 3] = [
    ("models_best_match", "best match, mean over the layers of a row's model", |pair| pair.mean_best_match),
    ("models_diagonal_band", "mean over layers at about the same depth", |pair| pair.diagonal_band),
    ("models_alignment", "mean along the best monotone alignment", |pair| pair.mean_alignment),
];

fn layer_axis(result: &AcrossResult, model: usize) -> Axis {
    let model = &result.models[model];
    let reason = |place: usize| {
        let reason = result.undefined.get(&u32::try_from(place).ok()?)?;
        Some((place - model.first, reason.clone()))
    };
    Axis::layers(
        &format!("layer of {}", model.name),
        &model.layers,
        model.places().filter_map(reason).collect(),
    )
}

/// Models are numbered, because names would not fit below one another's columns.
fn model_axes(result: &AcrossResult) -> (Axis, Axis) {
    let named = (1..).zip(&result.models).map(|(number, model)| format!("{number} · {}", model.name));
    let numbers = (1..=result.models.len()).map(|number| number.to_string());
    // What is said of one layer of a model is most often said of all.
    let reason = |(place, model): (usize, &ComparedModel)| {
        let mut of_layers =
            model.places().filter_map(|layer| result.undefined.get(&u32::try_from(layer).ok()?));
        Some((place, of_layers.next()?.clone()))
    };
    let undefined = result.models.iter().enumerate().filter_map(reason).collect();
    let rows = Axis::named("model", named.collect(), undefined);
    (rows, Axis::named("model", numbers.collect(), BTreeMap::new()))
}

/// The name of the files of a pair, without ending: `<first model>__<second model>`.
pub fn pair_name(result: &AcrossResult, (a, b): (usize, usize)) -> String {
    format!("{}__{}", result.models[a].name, result.models[b].name)
}

/// The archive of one metric and pair: what `similarities.npz` has of a metric, with matrices [La, Lb], and `layers_a`
/// `[La]` and `layers_b` `[Lb]`, int64, the hidden-state index of each row and column.
pub fn pair_archive(pair: &MetricResult, a: &ComparedModel, b: &ComparedModel) -> io::Result<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, layers) in [("layers_a", &a.layers), ("layers_b", &b.layers)] {
        let indices = layers.iter().map(|layer| i64::from(*layer));
        add(&mut archive, name, npy(&[layers.len() as u64], indices.collect::<Vec<i64>>())?)?;
    }
    add_metric(&mut archive, pair, &[a.layers.len() as u64, b.layers.len() as u64])?;
    Ok(archive.finish()?.into_inner())
}

/// The text of `summary.json`: the models, and per metric three model × model matrices (mean over the diagonal band,
/// mean best match of a row's layers, mean along the alignment) and for each pair the matches and the alignment as
/// hidden-state indices. What is undefined is null.
pub fn summary_json(result: &AcrossResult) -> String {
    let models: Vec<Value> = result
        .models
        .iter()
        .map(|model| json!({ "name": model.name, "model": model.id, "layers": model.layers }))
        .collect();
    let metrics: Map<String, Value> = result
        .metrics
        .iter()
        .map(|metric| (metric.metric.name.to_string(), of_metric(result, metric)))
        .collect();
    let whole = json!({
        "name": result.name,
        "pooling": result.metadata.pooling,
        "dataset": result.metadata.dataset,
        "num_samples": result.metadata.num_samples,
        "sample_size": result.metadata.sample_size,
        "trials": result.metadata.trials,
        "band": BAND,
        "models": models,
        "metrics": metrics,
    });
    let mut text = serde_json::to_string_pretty(&whole).expect("keys are texts");
    text.push('\n');
    text
}

fn of_metric(result: &AcrossResult, metric: &MetricResult) -> Value {
    let n = result.models.len();
    let summaries: Vec<Vec<PairSummary>> =
        (0..n).map(|a| (0..n).map(|b| result.summary(metric, a, b)).collect()).collect();
    let square = |of: &dyn Fn(&PairSummary) -> f64| -> Value {
        let row = |row: &Vec<PairSummary>| row.iter().map(|pair| number(of(pair))).collect::<Vec<_>>();
        summaries.iter().map(row).collect()
    };
    let different = (0..n).flat_map(|a| (0..n).map(move |b| (a, b))).filter(|(a, b)| a != b);
    let pairs: Vec<Value> =
        different.map(|(a, b)| of_pair(&result.models[a], &result.models[b], &summaries[a][b])).collect();
    json!({
        "diagonal_band": square(&|pair| pair.diagonal_band),
        "best_match": square(&|pair| pair.mean_best_match),
        "alignment": square(&|pair| pair.mean_alignment),
        "pairs": pairs,
    })
}

fn of_pair(a: &ComparedModel, b: &ComparedModel, summary: &PairSummary) -> Value {
    let matches: Vec<Value> = a
        .layers
        .iter()
        .zip(&summary.best_match)
        .map(|(layer, best)| match best {
            Some((place, value)) => json!({ "layer": layer, "best": b.layers[*place], "value": value }),
            None => json!({ "layer": layer, "best": null, "value": null }),
        })
        .collect();
    let path: Vec<[u32; 2]> =
        summary.alignment.iter().map(|(row, column)| [a.layers[*row], b.layers[*column]]).collect();
    json!({ "a": a.name, "b": b.name, "best_match": matches, "alignment": path })
}

/// NaN as null.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}
