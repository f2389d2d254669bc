//! The schema of a grid file: which keys there are, and what they may hold.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::RangeInclusive;

use lsa_common::dataset::DatasetName;
use lsa_common::job::{Compare, Trials};
use lsa_common::metric::{Inner, K_DEFAULT, LayerMetricName, MetricName, MetricSpec, Number};
use lsa_common::mirror::MirrorMode;
use lsa_common::model::{Dtype, LayerChoice, Pooling};

use super::expand::{self, Named};
use super::fault::{Faults, Place, shown};
use super::name::slug;
use super::table::{Table, one_of};
use super::tree::{Node, Value};
use super::{DataSettings, ExtractionSettings, Grid, ModelName, RunSettings, Sampling, SimilaritySettings};
use lsa_common::suggest;

const ROOT: &[&str] = &["name", "grid", "data", "extraction", "similarity", "run", "experiment"];
const GRID: &[&str] = &["models", "pooling", "datasets"];
const DATA: &[&str] = &[
    "num_samples",
    "split",
    "sampling",
    "max_length",
    "dedupe",
    "bad_rows",
    "empty_texts",
    "text_bytes_max",
    "record_bytes_max",
    "decompressed_bytes_max",
];
const EXTRACTION: &[&str] = &["batch_size", "dtype", "layers", "save_embeddings"];
const SIMILARITY: &[&str] = &[
    "metrics",
    "layer_metrics",
    "sample_size",
    "trials",
    "ci_half_width",
    "max_trials",
    "compare",
    "calibrate",
];
const RUN: &[&str] = &["seed", "continue_on_error", "max_attempts", "priority", "max_experiments", "mirror"];
const EXPERIMENT: &[&str] = &["model", "pooling", "dataset", "data", "extraction", "similarity", "run"];

/// The section in which `key` is known.
pub(super) fn belongs(key: &str) -> Option<&'static str> {
    let sections = [
        ("grid", GRID),
        ("data", DATA),
        ("extraction", EXTRACTION),
        ("similarity", SIMILARITY),
        ("run", RUN),
    ];
    sections.into_iter().find(|(_, keys)| keys.contains(&key)).map(|(section, _)| section)
}

/// The settings that one experiment may have for itself.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) data: DataSettings,
    pub(super) extraction: ExtractionSettings,
    pub(super) similarity: SimilaritySettings,
    sample_size_place: Option<Place>,
    compare_place: Option<Place>,
}

/// An entry of `[[experiment]]`.
pub(super) struct Single {
    pub(super) model: ModelName,
    pub(super) pooling: Pooling,
    pub(super) dataset: DatasetName,
    pub(super) settings: Settings,
    pub(super) place: Place,
}

/// The grid that `root` describes; none, and at least one fault, where it describes none.
///
/// `stem` names the job where the file does not.
pub(super) fn grid(root: &Node, stem: Option<&str>, from_flags: bool, faults: &mut Faults) -> Option<Grid> {
    let root = Table::open(root, "", ROOT, faults)?;
    let mut base = Settings::default();
    apply(&root, "", &mut base, faults);
    base.check(faults);
    let run = run_settings(&root, &mut base.similarity.seed, faults);
    let name = root.text("name", faults).and_then(|(name, place)| job_name(name, place, faults));

    let has_grid = root.node("grid").is_some();
    let has_experiments = root.node("experiment").is_some();
    if !has_grid && !has_experiments {
        let message = if from_flags {
            "there is nothing to run; name a grid file, or --model, --pooling and --dataset"
        } else {
            "there is nothing to run; add a [grid] with models, pooling and datasets, or [[experiment]] entries"
        };
        faults.add(None, message);
        return None;
    }
    let combinations = root.node("grid").and_then(|node| combinations(node, has_experiments, faults));
    let singles = singles(&root, &base, faults);
    let requests = expand::requests(combinations.as_ref(), &base, singles, &run, faults)?;
    let is_list = !(from_flags && requests.len() == 1);
    let first_name = || if is_list { "grid".to_owned() } else { requests[0].name.clone() };
    let name = name
        .or_else(|| {
            stem.map(|stem| slug(stem).chars().take(JOB_NAME_BYTES_MAX).collect::<String>())
                .filter(|name| !name.is_empty())
        })
        .unwrap_or_else(first_name);
    Some(Grid { name, requests, run, is_list })
}

/// The lists of `[grid]`.
pub(super) struct Combinations {
    pub(super) models: Vec<Named<ModelName>>,
    pub(super) poolings: Vec<Named<Pooling>>,
    pub(super) datasets: Vec<Named<DatasetName>>,
}

fn combinations(node: &Node, has_experiments: bool, faults: &mut Faults) -> Option<Combinations> {
    let table = Table::open(node, "grid", GRID, faults)?;
    let lists = ["models", "pooling", "datasets"];
    if has_experiments && lists.iter().all(|list| table.node(list).is_none()) {
        return None;
    }
    if table.node("models").is_none() {
        faults.add(Some(&node.place), "no model is named; add models = [\"…\"] to [grid], or --model");
    }
    let models = named(&table, "models", faults, model_name);
    let poolings = match table.node("pooling") {
        Some(_) => named(&table, "pooling", faults, pooling),
        None => vec![Named { value: Pooling::Mean, place: None }],
    };
    let datasets = match table.node("datasets") {
        Some(_) => named(&table, "datasets", faults, dataset),
        None => vec![Named { value: default_dataset(), place: None }],
    };
    Some(Combinations { models, poolings, datasets })
}

/// The default of the older scripts.
fn default_dataset() -> DatasetName {
    "c4".parse().expect("a name that every catalogue has")
}

/// The valid names of a list, each once.
fn named<T: Clone + Eq + Hash>(
    table: &Table<'_>,
    key: &str,
    faults: &mut Faults,
    parse: fn(&str, &Node, &mut Faults) -> Option<T>,
) -> Vec<Named<T>> {
    let mut values: Vec<Named<T>> = Vec::new();
    let mut seen: HashSet<T> = HashSet::new();
    for item in table.list(key, faults).unwrap_or(&[]) {
        let Some(value) = parse(&table.name(key), item, faults) else {
            continue;
        };
        if seen.insert(value.clone()) {
            values.push(Named { value, place: Some(item.place.clone()) });
        } else {
            faults.add(
                Some(&item.place),
                format!("{} names {} twice; keep one", table.name(key), item.value.kind()),
            );
        }
    }
    values
}

fn singles(root: &Table<'_>, base: &Settings, faults: &mut Faults) -> Vec<Single> {
    let Some(node) = root.node("experiment") else {
        return Vec::new();
    };
    let Value::List(items) = &node.value else {
        faults.add(Some(&node.place), "experiment must be a list of tables; in TOML write [[experiment]]");
        return Vec::new();
    };
    if items.is_empty() {
        faults.add(Some(&node.place), "experiment is empty; name at least one, or leave the key out");
    }
    items.iter().filter_map(|item| single(item, base, faults)).collect()
}

fn single(node: &Node, base: &Settings, faults: &mut Faults) -> Option<Single> {
    let table = Table::open(node, "experiment", EXPERIMENT, faults)?;
    let mut settings = base.clone();
    apply(&table, "experiment.", &mut settings, faults);
    settings.check(faults);
    if let Some(run) = table.node("run") {
        let run = Table::open(run, "experiment.run", RUN, faults)?;
        for key in RUN.iter().filter(|key| **key != "seed") {
            if let Some(node) = run.node(key) {
                let message = format!("run.{key} holds for the whole job; move it to [run]");
                faults.add(Some(&node.place), message);
            }
        }
        seed(&run, &mut settings.similarity.seed, faults);
    }
    let model = table.node("model").and_then(|node| model_name("experiment.model", node, faults));
    if table.node("model").is_none() {
        faults.add(Some(&node.place), "this experiment names no model; add model = \"…\"");
    }
    let pooling = match table.node("pooling") {
        Some(node) => pooling("experiment.pooling", node, faults),
        None => Some(Pooling::Mean),
    };
    let dataset = match table.node("dataset") {
        Some(node) => dataset("experiment.dataset", node, faults),
        None => Some(default_dataset()),
    };
    Some(Single { model: model?, pooling: pooling?, dataset: dataset?, settings, place: node.place.clone() })
}

/// Overrides `settings` by the sections of `table`.
fn apply(table: &Table<'_>, prefix: &str, settings: &mut Settings, faults: &mut Faults) {
    let mut section =
        |key: &str, known: &[&str]| Table::open(table.node(key)?, &format!("{prefix}{key}"), known, faults);
    let data = section("data", DATA);
    let extraction = section("extraction", EXTRACTION);
    let similarity = section("similarity", SIMILARITY);
    data.iter().for_each(|table| apply_data(table, &mut settings.data, faults));
    extraction.iter().for_each(|table| apply_extraction(table, &mut settings.extraction, faults));
    if let Some(table) = similarity {
        apply_similarity(&table, &mut settings.similarity, faults);
        if let Some(node) = table.node("sample_size") {
            settings.sample_size_place = Some(node.place.clone());
        }
        if let Some(node) = table.node("compare") {
            settings.compare_place = Some(node.place.clone());
        }
    }
}

const U32: std::ops::RangeInclusive<i128> = 1..=u32::MAX as i128;

fn apply_data(table: &Table<'_>, data: &mut DataSettings, faults: &mut Faults) {
    replace(&mut data.num_samples, table.whole("num_samples", U32, faults));
    if let Some((split, place)) = table.text("split", faults) {
        if split.is_empty() || split.len() > 200 || split.chars().any(char::is_control) {
            faults.add(Some(place), format!("{} must be a name such as \"train\"", table.name("split")));
        } else {
            data.split = Some(split.to_owned());
        }
    }
    let sampling = table.choice("sampling", &Sampling::ALL.map(Sampling::as_str), faults);
    replace(&mut data.sampling, sampling.and_then(Sampling::parse));
    // No position scheme is longer than this; a larger value is a slip.
    replace(&mut data.max_length, table.whole("max_length", 1..=10_000_000, faults));
    replace(&mut data.dedupe, table.boolean("dedupe", faults));
    let skips = |value: &str| value == "skip";
    replace(&mut data.skip_bad_rows, table.choice("bad_rows", &["error", "skip"], faults).map(skips));
    replace(&mut data.skip_empty_texts, table.choice("empty_texts", &["error", "skip"], faults).map(skips));
    // A text or record has to fit in memory some thousand times over.
    let bytes = 1..=1 << 30;
    replace(&mut data.limits.text_bytes_max, table.whole("text_bytes_max", bytes.clone(), faults));
    replace(&mut data.limits.record_bytes_max, table.whole("record_bytes_max", bytes, faults));
    let whole = table.whole("decompressed_bytes_max", 1..=i64::MAX as i128, faults);
    replace(&mut data.limits.decompressed_bytes_max, whole);
}

fn apply_extraction(table: &Table<'_>, extraction: &mut ExtractionSettings, faults: &mut Faults) {
    replace(&mut extraction.batch_size, table.whole("batch_size", 1..=1_000_000, faults));
    let dtype = table.choice("dtype", &Dtype::ALL.map(Dtype::as_str), faults);
    replace(&mut extraction.dtype, dtype.and_then(Dtype::parse));
    let layers = table.node("layers").and_then(|node| layers(&table.name("layers"), node, faults));
    replace(&mut extraction.layers, layers);
    replace(&mut extraction.save_embeddings, table.boolean("save_embeddings", faults));
}

fn apply_similarity(table: &Table<'_>, similarity: &mut SimilaritySettings, faults: &mut Faults) {
    if table.node("metrics").is_some() {
        let metrics = named(table, "metrics", faults, metric);
        let mut unique: Vec<MetricSpec> = Vec::new();
        for Named { value, place } in metrics {
            if unique.iter().any(|other| other.name == value.name) {
                let message = format!(
                    "{} is named twice with different parameters; results are filed by name, keep one",
                    value.name
                );
                faults.add(place.as_ref(), message);
            } else {
                unique.push(value);
            }
        }
        if !unique.is_empty() {
            similarity.metrics = unique;
        }
    }
    if table.node("layer_metrics").is_some() {
        similarity.layer_metrics.clear();
        for Named { value, .. } in named(table, "layer_metrics", faults, layer_metric) {
            if !similarity.layer_metrics.contains(&value) {
                similarity.layer_metrics.push(value);
            }
        }
    }
    if let Some(size) = table.whole("sample_size", U32, faults) {
        similarity.sample_size = Some(size);
    }
    let asked = trials(table, similarity.trials, faults);
    replace(&mut similarity.trials, asked);
    let compare = table.choice("compare", &Compare::ALL.map(Compare::as_str), faults);
    replace(&mut similarity.compare, compare.and_then(Compare::parse));
    replace(&mut similarity.calibrate, table.boolean("calibrate", faults));
}

/// The trials asked for: a number, or "auto" with what says when there are enough; `base` is what holds otherwise.
fn trials(table: &Table<'_>, base: Trials, faults: &mut Faults) -> Option<Trials> {
    const TRIALS: RangeInclusive<i128> = 1..=100_000;
    /// Half as wide as the differences between layers that figures show.
    const CI_HALF_WIDTH: f64 = 0.01;
    const MAX_TRIALS: u32 = 50;
    // These two speak only where trials is "auto"; they are checked so that a file that names them stays valid.
    let max_trials = table.whole("max_trials", 2..=100_000, faults);
    let ci_half_width =
        table.number("ci_half_width", "above 0 and at most 1", |width| width > 0.0 && width <= 1.0, faults);
    let (usual_width, usual_max) = match base {
        Trials::Auto { ci_half_width, max_trials } => (Some(ci_half_width), max_trials),
        Trials::Fixed(_) => (Number::new(CI_HALF_WIDTH), MAX_TRIALS),
    };
    let auto = Trials::Auto {
        ci_half_width: ci_half_width.or(usual_width)?,
        max_trials: max_trials.unwrap_or(usual_max),
    };
    match table.node("trials").map(|node| (&node.value, &node.place)) {
        Some((Value::Text(text), _)) if text == "auto" => Some(auto),
        Some((Value::Text(text), place)) => {
            let hint = suggest::hint(text, ["auto"]);
            let message = format!(
                "{} must be \"auto\" or a whole number from 1 to 100000, got {}{hint}",
                table.name("trials"),
                shown(text)
            );
            faults.add(Some(place), message);
            None
        }
        None if matches!(base, Trials::Auto { .. }) => Some(auto),
        _ => table.whole("trials", TRIALS, faults).map(Trials::Fixed),
    }
}

impl Settings {
    /// What the values say about each other.
    fn check(&self, faults: &mut Faults) {
        if self.similarity.compare == Compare::Across && self.data.skip_empty_texts {
            let message = "similarity.compare = \"across\" needs the same rows of every model, but data.empty_texts = \
                           \"skip\" may leave out others in each; use \"error\"";
            faults.add(self.compare_place.as_ref(), message.to_owned());
        }
        let Some(sample_size) = self.similarity.sample_size else {
            return;
        };
        let place = self.sample_size_place.as_ref();
        let num_samples = self.data.num_samples;
        if sample_size > num_samples {
            let message = format!(
                "similarity.sample_size = {sample_size} is larger than data.num_samples = {num_samples}; \
                 lower the one or raise the other"
            );
            faults.add(place, message);
        }
        if sample_size == num_samples && matches!(self.similarity.trials, Trials::Auto { .. }) {
            let message = format!(
                "similarity.trials = \"auto\" needs draws that differ, but similarity.sample_size = {sample_size} is all \
                 of data.num_samples; lower it, or take trials = 1"
            );
            faults.add(place, message);
        }
        for reason in self.similarity.metrics.iter().filter_map(|metric| metric.refuses(sample_size.into())) {
            faults.add(place, format!("similarity.sample_size = {sample_size} is too small: {reason}"));
        }
    }
}

fn run_settings(root: &Table<'_>, seed_slot: &mut u64, faults: &mut Faults) -> RunSettings {
    let mut run = RunSettings::default();
    let Some(table) = root.node("run").and_then(|node| Table::open(node, "run", RUN, faults)) else {
        return run;
    };
    seed(&table, seed_slot, faults);
    replace(&mut run.continue_on_error, table.boolean("continue_on_error", faults));
    replace(&mut run.max_attempts, table.whole("max_attempts", 1..=100, faults));
    replace(&mut run.priority, table.whole("priority", -1000..=1000, faults));
    replace(&mut run.max_experiments, table.whole("max_experiments", 1..=1_000_000, faults));
    let mirror = table.choice("mirror", &MirrorMode::ALL.map(MirrorMode::as_str), faults);
    replace(&mut run.mirror, mirror.and_then(MirrorMode::parse));
    run
}

fn seed(table: &Table<'_>, slot: &mut u64, faults: &mut Faults) {
    replace(slot, table.whole("seed", 0..=u64::MAX as i128, faults));
}

/// Room is left for the digest that makes it a job id.
const JOB_NAME_BYTES_MAX: usize = 100;

/// A job's name becomes part of its id and of object keys.
fn job_name(name: &str, place: &Place, faults: &mut Faults) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let dots = name.chars().all(|c| c == '.');
    if !dots && name.len() <= JOB_NAME_BYTES_MAX && name.chars().all(allowed) {
        return Some(name.to_owned());
    }
    let hint = Some(slug(name)).filter(|slug| !slug.is_empty()).map(|slug| format!("; {slug:?} would do"));
    let message = format!(
        "name must be 1 to 100 letters, digits, '_', '-' or '.', got {}{}",
        shown(name),
        hint.unwrap_or_default()
    );
    faults.add(Some(place), message);
    None
}

fn model_name(key: &str, node: &Node, faults: &mut Faults) -> Option<ModelName> {
    let text = expect_text(key, node, "a model: a hub id or a folder", faults)?;
    let refuse = |faults: &mut Faults, reason: &str| {
        let message = format!("{key}: {} is no model: {reason}", shown(text));
        faults.add(Some(&node.place), message);
    };
    if text.is_empty() || text.len() > 1000 || text.chars().any(char::is_control) || text.trim() != text {
        refuse(faults, "write a hub id such as \"bert-base-uncased\" or a folder such as \"./my-model\"");
        return None;
    }
    // The revision of a folder is what lies in it.
    let is_path = text.starts_with(['.', '/', '~']);
    let (id, revision) = match text.rsplit_once('@') {
        Some((id, revision)) if !is_path => (id, Some(revision)),
        _ => (text, None),
    };
    if id.is_empty()
        || revision.is_some_and(|revision| revision.is_empty() || revision.contains(char::is_whitespace))
    {
        refuse(faults, "write id@revision with a branch, tag or commit after '@'");
        return None;
    }
    Some(ModelName { id: id.to_owned(), revision: revision.map(str::to_owned) })
}

fn pooling(key: &str, node: &Node, faults: &mut Faults) -> Option<Pooling> {
    let text = expect_text(key, node, "a pooling", faults)?;
    let known = Pooling::ALL.map(Pooling::as_str);
    let pooling = Pooling::parse(text);
    if pooling.is_none() {
        let hint = suggest::hint(text, known);
        faults.add(
            Some(&node.place),
            format!("{key}: unknown pooling {}; known are {}{hint}", shown(text), one_of(&known)),
        );
    }
    pooling
}

fn dataset(key: &str, node: &Node, faults: &mut Faults) -> Option<DatasetName> {
    let text = expect_text(key, node, "a dataset such as \"file:texts.txt\"", faults)?;
    match text.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            faults.add(Some(&node.place), format!("{key}: {error}"));
            None
        }
    }
}

fn metric(key: &str, node: &Node, faults: &mut Faults) -> Option<MetricSpec> {
    let Value::Table(_) = node.value else {
        return Some(MetricSpec::new(metric_name(key, node, faults)?));
    };
    const PARAMETERS: [&str; 6] = ["name", "k", "inner", "sigma", "batch_size", "variance"];
    let table = Table::open(node, key, &PARAMETERS, faults)?;
    if table.node("name").is_none() {
        faults.add(Some(&node.place), format!("{key}: the metric's name is missing; add name = \"…\""));
    }
    let mut spec = MetricSpec::new(metric_name(&table.name("name"), table.node("name")?, faults)?);
    // A neighbourhood or a batch of a million would be the whole sample.
    let k = table.whole("k", 1..=1_000_000, faults);
    let batch_size = table.whole("batch_size", 4..=1_000_000, faults);
    let inner = table.choice("inner", &Inner::ALL.map(Inner::as_str), faults).and_then(Inner::parse);
    let sigma = table.number("sigma", "above 0", |sigma| sigma > 0.0, faults);
    let share = |variance| variance > 0.0 && variance <= 1.0;
    let variance = table.number("variance", "above 0 and at most 1", share, faults);
    for parameter in &PARAMETERS[1..] {
        let known = spec.name.info().parameters.iter().any(|known| known.as_str() == *parameter);
        if let (Some(other), false) = (table.node(parameter), known) {
            let message = format!("{key}: {} has no parameter {parameter}; remove it", spec.name);
            faults.add(Some(&other.place), message);
        }
    }
    spec.k = spec.k.map(|default| k.unwrap_or(default));
    spec.inner = spec.inner.map(|default| inner.unwrap_or(default));
    spec.sigma = spec.sigma.map(|default| sigma.unwrap_or(default));
    spec.batch_size = spec.batch_size.map(|default| batch_size.unwrap_or(default));
    spec.variance = spec.variance.map(|default| variance.unwrap_or(default));
    Some(spec)
}

fn layer_metric(key: &str, node: &Node, faults: &mut Faults) -> Option<LayerMetricName> {
    let text = expect_text(key, node, "a layer metric such as \"EffectiveRank\"", faults)?;
    let known = LayerMetricName::ALL.map(LayerMetricName::as_str);
    let name = LayerMetricName::parse(text);
    if name.is_none() {
        let hint = suggest::hint(text, known);
        let message =
            format!("{key}: unknown layer metric {}; known are {}{hint}", shown(text), one_of(&known));
        faults.add(Some(&node.place), message);
    }
    name
}

fn metric_name(key: &str, node: &Node, faults: &mut Faults) -> Option<MetricName> {
    let example = format!("a metric such as \"CKA\" or {{ name = \"JaccardSimilarity\", k = {K_DEFAULT} }}");
    let text = expect_text(key, node, &example, faults)?;
    let known = MetricName::ALL.map(MetricName::as_str);
    let metric = MetricName::parse(text);
    if metric.is_none() {
        let hint = suggest::hint(text, known);
        faults.add(
            Some(&node.place),
            format!("{key}: unknown metric {}; known are {}{hint}", shown(text), one_of(&known)),
        );
    }
    metric
}

fn layers(key: &str, node: &Node, faults: &mut Faults) -> Option<LayerChoice> {
    let choice = match &node.value {
        Value::Text(text) if text == "all" => Some(LayerChoice::All),
        Value::Text(text) => {
            let step = text.strip_prefix("every:").and_then(|step| step.parse().ok());
            step.filter(|step| *step > 0).map(LayerChoice::Every)
        }
        Value::List(items) if !items.is_empty() => {
            let layer = |item: &Node| match item.value {
                // No model has as many layers; the rest is refused when the model is known.
                Value::Int(layer) => i64::try_from(layer).ok().filter(|layer| layer.abs() <= 1_000_000),
                _ => None,
            };
            items.iter().map(layer).collect::<Option<_>>().map(LayerChoice::List)
        }
        _ => None,
    };
    if choice.is_none() {
        let message = format!(
            "{key} must be \"all\", \"every:2\" or a list such as [0, 6, -1], got {}",
            node.value.kind()
        );
        faults.add(Some(&node.place), message);
    }
    choice
}

fn expect_text<'t>(key: &str, node: &'t Node, expected: &str, faults: &mut Faults) -> Option<&'t str> {
    match &node.value {
        Value::Text(text) => Some(text),
        other => {
            faults.add(Some(&node.place), format!("{key} must be {expected}, got {}", other.kind()));
            None
        }
    }
}

fn replace<T>(slot: &mut T, value: Option<T>) {
    value.into_iter().for_each(|value| *slot = value);
}
