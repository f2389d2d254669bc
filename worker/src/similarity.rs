//! `lsa-worker similarity`: layer × layer matrices of arrays in a file, without coordinator or bucket.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use lsa_common::failure::FailureClass;
use lsa_common::metric::{
    BATCH_SIZE_DEFAULT, Inner, K_DEFAULT, LayerMetricName, MetricName, MetricSpec, Number, Parameter,
    SIGMA_DEFAULT, VARIANCE_DEFAULT,
};

use crate::array_file::{self, ArrayFileError, npy_bytes, read_trial_rows};
use crate::device::{self, DeviceChoice, DeviceError};
use crate::resources::{MemoryArgs, Resources};
use crate::trial::{LayerSource, PreparedLayers, TrialError, Wanted, check_rows};

const EXAMPLES: &str = "\
Examples:
  lsa-worker similarity --input reviews.safetensors --pooling mean --output matrices
  lsa-worker similarity --input layers.npy --metrics CKA RSA --rows trials.npy --output matrices
  lsa-worker similarity --input results/bert_mean_reviews/embeddings --output matrices
  lsa-worker similarity --input layers.npy --metrics RBFCKA --sigma 0.5 --layer-metrics EffectiveRank --output out
  lsa-worker similarity --input bert.npz --against roberta.npz --metrics CKA --output matrices";

/// Compare layers of an array file
///
/// Writes OUTPUT/METRIC.npy, float64 [layers, layers], over all rows. With --rows it compares the rows of each trial
/// and writes METRIC.trials.npy [trials, layers, layers], METRIC.mean.npy and METRIC.std.npy instead. Layer metrics go
/// into files of the same kind, `[layers]` and `[trials, layers]`. A parameter is set for every metric that has it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SimilarityArgs {
    /// .npy [layers, n, d]; .npz or .safetensors of that or of one array [n, d] per layer, ordered by number; or a
    /// folder of layer_0/batch_0.pt, …
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Which pooling of the file to compare, where it holds several
    #[arg(long)]
    pub pooling: Option<String>,
    /// Metrics, separated by spaces or commas [default: CKA RSA JaccardSimilarity DistanceCorrelation]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_parser = parse_metric)]
    pub metrics: Vec<MetricName>,
    /// Folder for the matrices; made where it does not exist
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Rows of each trial: integer .npy [trials, s]
    #[arg(long, value_name = "FILE")]
    pub rows: Option<PathBuf>,
    /// Compare with the layers of this file, over the same rows: matrices are [layers, other layers]
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Quantities of each layer of --input, separated by spaces or commas
    #[arg(long, value_name = "NAMES", num_args = 1.., value_delimiter = ',', value_parser = parse_layer_metric)]
    pub layer_metrics: Vec<LayerMetricName>,
    /// Neighbours that count
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help = help_of("k"))]
    pub k: Option<u32>,
    /// How the rows of a layer are compared
    #[arg(long, value_parser = parse_inner, help = help_of("inner"))]
    pub inner: Option<Inner>,
    /// Width of the RBF kernel as a part of the median distance
    #[arg(long, value_parser = parse_sigma, help = help_of("sigma"))]
    pub sigma: Option<Number>,
    /// Rows of a batch
    #[arg(
        long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(4..=1_000_000),
        help = help_of("batch_size")
    )]
    pub batch_size: Option<u32>,
    /// Share of the variance that is kept
    #[arg(long, value_name = "SHARE", value_parser = parse_variance, help = help_of("variance"))]
    pub variance: Option<Number>,
    /// Layers prepared at once [default: one per core]; results do not depend on it
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// What else it may use of the machine
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Where to compute: auto, cpu, cuda:N; a GPU takes the metrics that have a form for it where the layers fit
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
}

fn parse_metric(text: &str) -> Result<MetricName, String> {
    let names = MetricName::ALL.map(MetricName::as_str);
    MetricName::parse(text).ok_or_else(|| format!("unknown metric; known are {}", names.join(", ")))
}

fn parse_layer_metric(text: &str) -> Result<LayerMetricName, String> {
    let names = LayerMetricName::ALL.map(LayerMetricName::as_str);
    LayerMetricName::parse(text)
        .ok_or_else(|| format!("unknown layer metric; known are {}", names.join(", ")))
}

fn parse_inner(text: &str) -> Result<Inner, String> {
    let known = Inner::ALL.map(Inner::as_str);
    Inner::parse(text).ok_or_else(|| format!("known are {}", known.join(", ")))
}

fn parse_sigma(text: &str) -> Result<Number, String> {
    number_where(text, "a number above 0", |sigma| sigma > 0.0)
}

fn parse_variance(text: &str) -> Result<Number, String> {
    number_where(text, "a number above 0 and at most 1", |share| share > 0.0 && share <= 1.0)
}

fn number_where(text: &str, expected: &str, holds: impl Fn(f64) -> bool) -> Result<Number, String> {
    let number = text.parse().ok().and_then(Number::new).filter(|number| holds(number.get()));
    number.ok_or_else(|| format!("expected {expected}"))
}

/// What a parameter of metrics is, the metrics that have it, and its default.
fn help_of(key: &str) -> String {
    let has = |name: &MetricName| parameter_of(*name, key);
    let names: Vec<&str> =
        MetricName::ALL.iter().filter(|name| has(name).is_some()).map(|name| name.as_str()).collect();
    let names = names.join(", ");
    match MetricName::ALL.iter().find_map(has) {
        Some(Parameter::K) => format!("Nearest rows that count, for {names} [default: {K_DEFAULT}]"),
        Some(Parameter::Inner(_)) => {
            let known = Inner::ALL.map(Inner::as_str).join(", ");
            format!("How rows of a layer are compared, for {names}: {known} [default: depends on the metric]")
        }
        Some(Parameter::Sigma) => {
            format!(
                "Width of the kernel as a part of the median distance, for {names} [default: {SIGMA_DEFAULT}]"
            )
        }
        Some(Parameter::BatchSize) => {
            format!("Rows of a batch, at least 4, for {names} [default: {BATCH_SIZE_DEFAULT}]")
        }
        Some(Parameter::Variance) => {
            format!("Share of the variance that is kept, for {names} [default: {VARIANCE_DEFAULT}]")
        }
        None => String::new(),
    }
}

/// The parameter of that key, where the metric has it.
fn parameter_of(name: MetricName, key: &str) -> Option<Parameter> {
    name.info().parameters.iter().copied().find(|parameter| parameter.as_str() == key)
}

/// Why there are no matrices.
#[derive(Debug, thiserror::Error)]
pub enum SimilarityError {
    /// A file does not give layers or rows.
    #[error(transparent)]
    Input(#[from] ArrayFileError),
    /// A parameter that no metric has.
    #[error("--{flag} is given, but none of {asked} has it; {having} {}", has_or_have(*one))]
    Parameter {
        /// The flag without its dashes.
        flag: String,
        /// The metrics asked for.
        asked: String,
        /// The metrics that have it.
        having: String,
        /// Whether that is one metric.
        one: bool,
    },
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The two files do not hold the same rows.
    #[error("{} has {n_rows} rows and {} has {n_against}; both need the same texts", input.display(), against.display())]
    RowsDiffer {
        /// The file of `--input`.
        input: PathBuf,
        /// Its rows.
        n_rows: u32,
        /// The file of `--against`.
        against: PathBuf,
        /// Its rows.
        n_against: u32,
    },
    /// The layers cannot be compared.
    #[error("{} cannot be compared{}", path.display(), of_trial(*trial))]
    Trial {
        /// The file.
        path: PathBuf,
        /// Which trial, where `--rows` names several.
        trial: Option<usize>,
        /// Why.
        #[source]
        source: TrialError,
    },
    /// A matrix cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn has_or_have(one: bool) -> &'static str {
    if one { "has" } else { "have" }
}

fn of_trial(trial: Option<usize>) -> String {
    trial.map_or_else(String::new, |trial| format!(" over the rows of trial {trial}"))
}

impl SimilarityError {
    /// 2 where the input or the command line is at fault, 1 where the work failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_)
            | Self::Device(_)
            | Self::Parameter { .. }
            | Self::RowsDiffer { .. }
            | Self::Write { .. } => 2,
            Self::Trial { source, .. } => {
                if source.class() == FailureClass::Reject {
                    2
                } else {
                    1
                }
            }
        }
    }
}

/// Runs the command. Sets libtorch to one intra-op thread; call it first thing in a process.
pub fn run(args: SimilarityArgs) -> Result<(), SimilarityError> {
    let metrics = metrics(&args)?;
    let layer_metrics = layer_metrics(&args);
    let threads = args
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from);
    let device = device::open(args.device)?.device;
    let pooling = args.pooling.as_deref();
    let input = array_file::open(&args.input, pooling)?;
    let against = args.against.as_deref().map(|path| array_file::open(path, pooling)).transpose()?;
    if let (Some(other), Some(path)) = (&against, &args.against)
        && other.n_rows() != input.n_rows()
    {
        return Err(SimilarityError::RowsDiffer {
            input: args.input,
            n_rows: input.n_rows(),
            against: path.clone(),
            n_against: other.n_rows(),
        });
    }
    let named = args.rows.as_deref().map(read_trial_rows).transpose()?;
    let several = named.is_some();
    let trials = named.unwrap_or_else(|| vec![(0..input.n_rows()).collect()]);
    let failed = |path: &Path, trial: usize| {
        let (path, trial) = (path.to_owned(), several.then_some(trial));
        move |source| SimilarityError::Trial { path, trial, source }
    };
    for (trial, rows) in trials.iter().enumerate() {
        check_rows(&*input, rows, &metrics).map_err(failed(&args.input, trial))?;
    }
    let n_layers = input.n_layers() + against.as_ref().map_or(0, |other| other.n_layers());
    let n = trials.iter().map(Vec::len).max().unwrap_or(0);
    let resources = args.memory.resources(threads).on(device).where_tensors_fit(n, n_layers, &metrics);
    let unwritable = |source| SimilarityError::Write { path: args.output.clone(), source };
    check_writable(&args.output).map_err(unwritable)?;
    warn_of_few_rows(&metrics, trials[0].len());

    let shape = [input.n_layers(), against.as_ref().map_or(input.n_layers(), |other| other.n_layers())];
    // [metrics][trials]
    let mut matrices: Vec<Vec<Vec<f64>>> = vec![Vec::new(); metrics.len()];
    // [layer metrics][trials]
    let mut values: Vec<Vec<Vec<f64>>> = vec![Vec::new(); layer_metrics.len()];
    for (trial, rows) in trials.iter().enumerate() {
        let prepare = |source: &dyn LayerSource,
                       path: &Path,
                       layer_metrics: &[LayerMetricName],
                       resources: &Resources| {
            let wanted = Wanted { metrics: &metrics, layer_metrics };
            let prepared = PreparedLayers::new(source, rows, wanted, resources, &|_| true);
            let prepared = prepared.map_err(failed(path, trial))?;
            for (layer, reason) in prepared.undefined() {
                eprintln!(
                    "warning: {}, layer {layer}{}: {reason}; its cells are NaN",
                    path.display(),
                    of_trial(several.then_some(trial))
                );
            }
            Ok::<_, SimilarityError>(prepared)
        };
        let own = if against.is_some() { resources.half_the_memory() } else { resources.clone() };
        let layers = prepare(&*input, &args.input, &layer_metrics, &own)?;
        let compared = match (&against, &args.against) {
            (Some(other), Some(path)) => {
                let rest = resources.less_memory(layers.kept_bytes());
                layers.compare_with(&prepare(&**other, path, &[], &rest)?)
            }
            _ => layers.compare().map(|trial| trial.matrices),
        };
        let compared = compared.map_err(failed(&args.input, trial))?;
        for (all, (_, matrix)) in matrices.iter_mut().zip(compared) {
            all.push(matrix);
        }
        for (all, (_, values)) in values.iter_mut().zip(layers.layer_metrics()) {
            all.push(values);
        }
    }
    std::fs::create_dir_all(&args.output).map_err(unwritable)?;
    for (spec, trials) in metrics.iter().zip(&matrices) {
        write_trials(&args.output, spec.name.as_str(), &shape, trials, several)?;
    }
    for (name, trials) in layer_metrics.iter().zip(&values) {
        write_trials(&args.output, name.as_str(), &shape[..1], trials, several)?;
    }
    Ok(())
}

/// Each metric once, in the order given, with the parameters given where it has them.
fn metrics(args: &SimilarityArgs) -> Result<Vec<MetricSpec>, SimilarityError> {
    let mut names = args.metrics.clone();
    if names.is_empty() {
        names.extend(MetricName::DEFAULT);
    }
    let mut metrics: Vec<MetricSpec> = Vec::new();
    for name in names {
        let default = MetricSpec::new(name);
        let spec = MetricSpec {
            name,
            k: default.k.map(|default| args.k.unwrap_or(default)),
            inner: default.inner.map(|default| args.inner.unwrap_or(default)),
            sigma: default.sigma.map(|default| args.sigma.unwrap_or(default)),
            batch_size: default.batch_size.map(|default| args.batch_size.unwrap_or(default)),
            variance: default.variance.map(|default| args.variance.unwrap_or(default)),
        };
        if !metrics.contains(&spec) {
            metrics.push(spec);
        }
    }
    let given = [
        ("k", args.k.is_some()),
        ("inner", args.inner.is_some()),
        ("sigma", args.sigma.is_some()),
        ("batch_size", args.batch_size.is_some()),
        ("variance", args.variance.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, given)| *given) {
        if metrics.iter().all(|spec| parameter_of(spec.name, key).is_none()) {
            return Err(unused(key, &metrics));
        }
    }
    Ok(metrics)
}

/// A parameter is given that no metric asked for has.
fn unused(key: &str, metrics: &[MetricSpec]) -> SimilarityError {
    let names = |names: &mut dyn Iterator<Item = MetricName>| -> Vec<&str> {
        names.map(MetricName::as_str).collect()
    };
    let asked = names(&mut metrics.iter().map(|spec| spec.name));
    let having = names(&mut MetricName::ALL.into_iter().filter(|name| parameter_of(*name, key).is_some()));
    SimilarityError::Parameter {
        flag: key.replace('_', "-"),
        asked: asked.join(", "),
        one: having.len() == 1,
        having: having.join(", "),
    }
}

/// Each layer metric once, in the order given.
fn layer_metrics(args: &SimilarityArgs) -> Vec<LayerMetricName> {
    let mut names: Vec<LayerMetricName> = Vec::new();
    for name in &args.layer_metrics {
        if !names.contains(name) {
            names.push(*name);
        }
    }
    names
}

/// Says where a metric is defined on so few rows but cannot tell layers apart.
fn warn_of_few_rows(metrics: &[MetricSpec], n: usize) {
    for spec in metrics {
        let always_one = match spec.name {
            // Two rows have one pair, and one neighbour each.
            MetricName::Cka
            | MetricName::RbfCka
            | MetricName::DistanceCorrelation
            | MetricName::RankSimilarity
            | MetricName::SecondOrderCosineSimilarity => n == 2,
            // All other rows are neighbours.
            MetricName::JaccardSimilarity | MetricName::MutualKnn => n as u64 == u64::from(spec.rows_min()),
            _ => false,
        };
        if always_one {
            eprintln!("warning: {} of {n} rows is always 1; take more rows", spec.name);
        }
    }
}

/// Writes an array of that shape, or where there are several trials all of them, their mean and their deviation.
fn write_trials(
    folder: &Path,
    name: &str,
    shape: &[usize],
    trials: &[Vec<f64>],
    several: bool,
) -> Result<(), SimilarityError> {
    if !several {
        return write_whole(&folder.join(format!("{name}.npy")), &npy_bytes(shape, &trials[0]));
    }
    let n_trials = trials.len() as f64;
    let cell_of_trials = |cell: usize| trials.iter().map(move |cells| cells[cell]);
    let mean: Vec<f64> =
        (0..shape.iter().product()).map(|cell| cell_of_trials(cell).sum::<f64>() / n_trials).collect();
    let std: Vec<f64> = mean
        .iter()
        .enumerate()
        .map(|(cell, mean)| {
            let squares = cell_of_trials(cell).map(|value| (value - mean) * (value - mean));
            (squares.sum::<f64>() / n_trials).sqrt()
        })
        .collect();
    let all = npy_bytes(&[&[trials.len()], shape].concat(), &trials.concat());
    write_whole(&folder.join(format!("{name}.trials.npy")), &all)?;
    write_whole(&folder.join(format!("{name}.mean.npy")), &npy_bytes(shape, &mean))?;
    write_whole(&folder.join(format!("{name}.std.npy")), &npy_bytes(shape, &std))
}

/// Whether files may be written to a folder, or to the nearest one above it where it is still to be made. Leaves
/// nothing behind: layers that cannot be compared are found only when they are read.
fn check_writable(folder: &Path) -> io::Result<()> {
    let there = folder.ancestors().find(|above| above.symlink_metadata().is_ok());
    let probe = there.unwrap_or(Path::new("")).join(format!(".lsa-{}.tmp", std::process::id()));
    std::fs::File::create(&probe)?;
    std::fs::remove_file(&probe)
}

/// Writes a file beside its place and moves it there, so that nobody sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), SimilarityError> {
    let failed = |source| SimilarityError::Write { path: path.to_owned(), source };
    let beside = path.with_extension(format!("npy.{}.tmp", std::process::id()));
    std::fs::write(&beside, bytes).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn metrics_come_separated_by_spaces_or_commas_and_repeated() {
        let check = |line: &str, expected: &[&str]| {
            let command = SimilarityArgs::augment_args(clap::Command::new("similarity"));
            let line = format!("similarity --input x.npy --output out {line}");
            let matches =
                command.try_get_matches_from(line.split(' ').filter(|word| !word.is_empty())).unwrap();
            let specs = metrics(&SimilarityArgs::from_arg_matches(&matches).unwrap()).unwrap();
            assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), expected);
            specs
        };
        check("", &["CKA", "RSA", "JaccardSimilarity", "DistanceCorrelation"]);
        check("--metrics RSA CKA --metrics cka,DistanceCorrelation", &["RSA", "CKA", "DistanceCorrelation"]);
        let specs = check("--metrics JaccardSimilarity,CKA --k 3", &["JaccardSimilarity", "CKA"]);
        assert_eq!((specs[0].k, specs[1].k), (Some(3), None));
    }

    /// The arguments of a command line, or what clap says against them.
    fn parsed(line: &str) -> Result<SimilarityArgs, String> {
        let command = SimilarityArgs::augment_args(clap::Command::new("similarity"));
        let line = format!("similarity --input x.npy --output out {line}");
        let matches = command.try_get_matches_from(line.split(' '));
        let matches = matches.map_err(|error| error.to_string())?;
        Ok(SimilarityArgs::from_arg_matches(&matches).unwrap())
    }

    #[test]
    fn a_parameter_is_set_for_every_metric_that_has_it() {
        let args = parsed(
            "--metrics RSA RBFCKA MinibatchCKA SVCCA MutualKNN --k 4 --inner euclidean --sigma 0.25 --batch-size 32 \
             --variance 0.5",
        );
        let specs = metrics(&args.unwrap()).unwrap();
        let shown: Vec<String> = specs.iter().map(ToString::to_string).collect();
        let expected = [
            "RSA (inner = euclidean)",
            "RBFCKA (sigma = 0.25)",
            "MinibatchCKA (batch_size = 32)",
            "SVCCA (variance = 0.5)",
            "MutualKNN (k = 4, inner = euclidean)",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_parameter_that_no_metric_has_is_refused() {
        let check = |line: &str, expected: &str| {
            let error = metrics(&parsed(line).unwrap()).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.exit_code()), (expected, 2));
        };
        check("--metrics CKA RSA --sigma 2", "--sigma is given, but none of CKA, RSA has it; RBFCKA has");
        check(
            "--metrics CKA --k 10",
            "--k is given, but none of CKA has it; JaccardSimilarity, MutualKNN, RankSimilarity, \
             SecondOrderCosineSimilarity have",
        );
        check(
            "--metrics CKA --batch-size 10",
            "--batch-size is given, but none of CKA has it; MinibatchCKA has",
        );
        check("--metrics CKA --variance 1", "--variance is given, but none of CKA has it; SVCCA has");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let check = |line: &str, expected: &str| {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("--sigma 0", "expected a number above 0");
        check("--sigma inf", "expected a number above 0");
        check("--variance 1.5", "above 0 and at most 1");
        check("--batch-size 3", "4..=1000000");
        check("--inner manhattan", "known are cosine, correlation, euclidean");
        check("--layer-metrics Rank", "known are EffectiveRank, DatasetEntropy");
    }

    #[test]
    fn the_help_names_the_metrics_that_have_a_parameter() {
        let mut command = SimilarityArgs::augment_args(clap::Command::new("similarity"));
        let help = command.render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in [
            "for RBFCKA [default: 1]",
            "for MinibatchCKA [default: 256]",
            "for SVCCA [default: 0.99]",
            "RankSimilarity, SecondOrderCosineSimilarity [default: 10]",
        ] {
            assert!(help.contains(expected), "{help}");
        }
    }

    #[test]
    fn an_unknown_metric_is_refused_with_the_known_ones() {
        let error = parse_metric("SVCCCA").unwrap_err();
        assert!(error.contains("CKA, RSA, JaccardSimilarity, DistanceCorrelation"), "{error}");
    }
}
