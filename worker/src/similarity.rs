//! `lsa-worker similarity`: layer × layer matrices of arrays in a file, without coordinator or bucket.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use lsa_common::failure::FailureClass;
use lsa_common::metric::{K_DEFAULT, MetricName, MetricSpec};

use crate::array_file::{ArrayFile, ArrayFileError, npy_bytes, read_trial_rows};
use crate::trial::{LayerSource, PreparedLayers, TrialError, check_rows};

const EXAMPLES: &str = "\
Examples:
  lsa-worker similarity --input reviews.safetensors --pooling mean --output matrices
  lsa-worker similarity --input layers.npy --metrics CKA RSA --rows trials.npy --output matrices
  lsa-worker similarity --input bert.npz --against roberta.npz --metrics CKA --output matrices";

/// Compare layers of an array file
///
/// Writes OUTPUT/METRIC.npy, float64 [layers, layers], over all rows. With --rows it compares the rows of each trial
/// and writes METRIC.trials.npy [trials, layers, layers], METRIC.mean.npy and METRIC.std.npy instead.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SimilarityArgs {
    /// .npy [layers, n, d]; .npz or .safetensors of that or of one array [n, d] per layer, ordered by number
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
    /// Neighbours that JaccardSimilarity, MutualKNN and RankSimilarity look at
    #[arg(long, default_value_t = K_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub k: u32,
    /// Layers prepared at once [default: one per core]; results do not depend on it
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where to compute: auto or cpu, which are the same here
    #[arg(long, default_value = "auto", value_parser = ["auto", "cpu"])]
    pub device: String,
}

fn parse_metric(text: &str) -> Result<MetricName, String> {
    let names = MetricName::ALL.map(MetricName::as_str);
    MetricName::parse(text).ok_or_else(|| format!("unknown metric; known are {}", names.join(", ")))
}

/// Why there are no matrices.
#[derive(Debug, thiserror::Error)]
pub enum SimilarityError {
    /// A file does not give layers or rows.
    #[error(transparent)]
    Input(#[from] ArrayFileError),
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

fn of_trial(trial: Option<usize>) -> String {
    trial.map_or_else(String::new, |trial| format!(" over the rows of trial {trial}"))
}

impl SimilarityError {
    /// 2 where the input or the command line is at fault, 1 where the work failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) | Self::RowsDiffer { .. } | Self::Write { .. } => 2,
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
    let metrics = metrics(&args);
    let threads = args
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from);
    let pooling = args.pooling.as_deref();
    let input = ArrayFile::open(&args.input, pooling)?;
    let against = args.against.as_deref().map(|path| ArrayFile::open(path, pooling)).transpose()?;
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
        check_rows(&input, rows, &metrics).map_err(failed(&args.input, trial))?;
    }
    let unwritable = |source| SimilarityError::Write { path: args.output.clone(), source };
    check_writable(&args.output).map_err(unwritable)?;
    warn_of_few_rows(&metrics, trials[0].len());

    let shape = [input.n_layers(), against.as_ref().map_or(input.n_layers(), LayerSource::n_layers)];
    // [metrics][trials]
    let mut matrices: Vec<Vec<Vec<f64>>> = vec![Vec::new(); metrics.len()];
    for (trial, rows) in trials.iter().enumerate() {
        let prepare = |source: &ArrayFile, path: &Path| {
            let prepared = PreparedLayers::new(source, rows, &metrics, threads, &|_| true);
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
        let layers = prepare(&input, &args.input)?;
        let compared = match (&against, &args.against) {
            (Some(other), Some(path)) => layers.compare_with(&prepare(other, path)?),
            _ => layers.compare().matrices,
        };
        for (all, (_, matrix)) in matrices.iter_mut().zip(compared) {
            all.push(matrix);
        }
    }
    std::fs::create_dir_all(&args.output).map_err(unwritable)?;
    for (spec, trials) in metrics.iter().zip(&matrices) {
        write_matrices(&args.output, spec.name, &shape, trials, several)?;
    }
    Ok(())
}

/// Each metric once, in the order given.
fn metrics(args: &SimilarityArgs) -> Vec<MetricSpec> {
    let mut names = args.metrics.clone();
    if names.is_empty() {
        names.extend(MetricName::DEFAULT);
    }
    let mut metrics: Vec<MetricSpec> = Vec::new();
    for name in names {
        let default = MetricSpec::new(name);
        let spec = MetricSpec { k: default.k.map(|_| args.k), ..default };
        if !metrics.contains(&spec) {
            metrics.push(spec);
        }
    }
    metrics
}

/// Says where a metric is defined on so few rows but cannot tell layers apart.
fn warn_of_few_rows(metrics: &[MetricSpec], n: usize) {
    for spec in metrics {
        let always_one = match spec.name {
            MetricName::Cka | MetricName::DistanceCorrelation => n == 2,
            MetricName::JaccardSimilarity | MetricName::MutualKnn => n as u64 == u64::from(spec.rows_min()),
            MetricName::Rsa | MetricName::DebiasedCka | MetricName::RankSimilarity => false,
        };
        if always_one {
            eprintln!("warning: {} of {n} rows is always 1; take more rows", spec.name);
        }
    }
}

fn write_matrices(
    folder: &Path,
    name: MetricName,
    shape: &[usize; 2],
    trials: &[Vec<f64>],
    several: bool,
) -> Result<(), SimilarityError> {
    if !several {
        return write_whole(&folder.join(format!("{name}.npy")), &npy_bytes(shape, &trials[0]));
    }
    let n_trials = trials.len() as f64;
    let cell_of_trials = |cell: usize| trials.iter().map(move |matrix| matrix[cell]);
    let mean: Vec<f64> =
        (0..shape[0] * shape[1]).map(|cell| cell_of_trials(cell).sum::<f64>() / n_trials).collect();
    let std: Vec<f64> = mean
        .iter()
        .enumerate()
        .map(|(cell, mean)| {
            let squares = cell_of_trials(cell).map(|value| (value - mean) * (value - mean));
            (squares.sum::<f64>() / n_trials).sqrt()
        })
        .collect();
    let all = npy_bytes(&[trials.len(), shape[0], shape[1]], &trials.concat());
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
            let specs = metrics(&SimilarityArgs::from_arg_matches(&matches).unwrap());
            assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), expected);
            specs
        };
        check("", &["CKA", "RSA", "JaccardSimilarity", "DistanceCorrelation"]);
        check("--metrics RSA CKA --metrics cka,DistanceCorrelation", &["RSA", "CKA", "DistanceCorrelation"]);
        let specs = check("--metrics JaccardSimilarity,CKA --k 3", &["JaccardSimilarity", "CKA"]);
        assert_eq!((specs[0].k, specs[1].k), (Some(3), None));
    }

    #[test]
    fn an_unknown_metric_is_refused_with_the_known_ones() {
        let error = parse_metric("SVCCA").unwrap_err();
        assert!(error.contains("CKA, RSA, JaccardSimilarity, DistanceCorrelation"), "{error}");
    }
}
