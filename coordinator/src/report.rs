//! `lsa-coordinator report`: draws the figures of a results directory again, from its `.pkl` files alone.
//!
//! It opens what this system writes and what older Python scripts wrote: a directory of one experiment, or of many,
//! with the pickles in `similarities/` or beside `metadata.json`. The files are read as data and never executed;
//! what cannot be read is named, and the rest is drawn.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lsa_common::metric::MetricName;

use crate::export;
use crate::figure::FigureError;
use crate::metadata::Metadata;
use crate::unpickle::{self, UnpickleError};

const EXAMPLES: &str = "\
Examples:
  lsa-coordinator report results
  lsa-coordinator report results_of_an_older_script/bert_base_uncased_mean --json";

/// What `report` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// Results of one experiment, or a directory of several; also of older Python scripts (.pkl and metadata.json)
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What `report` did.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ReportSummary {
    /// Directories of experiments of which something was drawn.
    pub experiments: Vec<PathBuf>,
    /// Figures written, SVG and PNG.
    pub figures: Vec<PathBuf>,
    /// What was odd but did no harm, ready to print.
    pub warnings: Vec<String>,
    /// Matrices of known metrics that could not be drawn, and why.
    pub failures: Vec<(PathBuf, String)>,
}

impl ReportSummary {
    /// 0, or 1 where a matrix of a known metric could not be drawn.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.failures.is_empty())
    }
}

/// Why `report` stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory cannot be listed.
    #[error("{} cannot be read; give a directory with results", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing to draw.
    #[error(
        "no .pkl file in {} or the directories below it; a results directory has similarities/<Metric>.pkl, or \
         <Metric>.pkl beside metadata.json",
        dir.display()
    )]
    NoPickles {
        /// The directory.
        dir: PathBuf,
    },
    /// A figure cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The figure's path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ReportError {
    /// 2 where the command was given the wrong directory, 1 where the work failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Directory { .. } | Self::NoPickles { .. } => 2,
            Self::Write { .. } => 1,
        }
    }
}

/// The largest pickle that is read: a matrix of 2896 layers.
const PICKLE_BYTES_MAX: u64 = 64 << 20;
/// The largest `metadata.json` that is read.
const METADATA_BYTES_MAX: u64 = 16 << 20;
/// Directories below the given one that are searched: `across/<dataset>_<pooling>` is two deep.
const DEPTH_MAX: u32 = 3;

/// Draws heatmap and dendrogram of every mean matrix below `args.dir` into `figures/` of its experiment.
///
/// Existing figures are replaced, each in one step. Fails where there is no pickle at all or a figure cannot be
/// written; pickles that cannot be read and odd metadata end in the summary.
pub fn run(args: &ReportArgs) -> Result<ReportSummary, ReportError> {
    let dir = args.dir.canonicalize();
    let dir = dir.map_err(|source| ReportError::Directory { dir: args.dir.clone(), source })?;
    let mut found = BTreeMap::new();
    let mut summary = ReportSummary::default();
    find_experiments(&dir, 0, &mut found, &mut summary.warnings)
        .map_err(|source| ReportError::Directory { dir: args.dir.clone(), source })?;
    if found.is_empty() {
        return Err(ReportError::NoPickles { dir: args.dir.clone() });
    }
    for (experiment, pickles) in found {
        draw_experiment(&experiment, &pickles, &mut summary)?;
    }
    Ok(summary)
}

/// Why one pickle was not drawn.
#[derive(Debug, thiserror::Error)]
enum MatrixError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it has more than {PICKLE_BYTES_MAX} bytes, which no matrix of a figure needs")]
    TooLarge,
    #[error(transparent)]
    Unpickle(#[from] UnpickleError),
    #[error("the array is {rows} × {columns}, expected as many rows as columns")]
    NotSquare { rows: usize, columns: usize },
    #[error(transparent)]
    Figure(#[from] FigureError),
}

/// Collects the experiments at `dir` and below: directory → its pickles of mean matrices, in name order.
fn find_experiments(
    dir: &Path,
    depth: u32,
    found: &mut BTreeMap<PathBuf, Vec<PathBuf>>,
    warnings: &mut Vec<String>,
) -> io::Result<()> {
    let mut pickles = Vec::new();
    let mut below = Vec::new();
    for path in listed(dir)? {
        if path.is_dir() {
            below.push(path);
        } else if is_mean(&path) {
            pickles.push(path);
        }
    }
    let similarities = dir.join("similarities");
    if below.contains(&similarities) {
        match listed(&similarities) {
            Ok(paths) => pickles.extend(paths.into_iter().filter(|path| is_mean(path))),
            Err(error) => warnings.push(format!("{} is skipped: {error}", similarities.display())),
        }
    }
    if !pickles.is_empty() {
        found.insert(dir.to_owned(), pickles);
    }
    let ours = ["similarities", "figures", "embeddings"];
    for path in below.into_iter().filter(|path| !ours.iter().any(|name| path.ends_with(name))) {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || depth == DEPTH_MAX {
            continue;
        }
        if let Err(error) = find_experiments(&path, depth + 1, found, warnings) {
            warnings.push(format!("{} is skipped: {error}", path.display()));
        }
    }
    Ok(())
}

fn listed(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Whether a file is a pickle and, by its name, not the spread of a metric.
fn is_mean(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.strip_suffix(".pkl").is_some_and(|stem| !stem.is_empty() && !stem.ends_with("_std"))
}

fn draw_experiment(dir: &Path, pickles: &[PathBuf], summary: &mut ReportSummary) -> Result<(), ReportError> {
    let metadata = read_metadata(dir, &mut summary.warnings);
    let figures = dir.join("figures");
    let before = summary.figures.len();
    for pickle in pickles {
        let metric = pickle.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        match draw(&metric, pickle, &metadata) {
            Ok(files) => {
                for (name, bytes) in files {
                    let path = figures.join(name);
                    write(&figures, &path, &bytes)
                        .map_err(|source| ReportError::Write { path: path.clone(), source })?;
                    summary.figures.push(path);
                }
            }
            // Other pickles may lie beside the matrices; a known metric's must be one.
            Err(error) if MetricName::parse(&metric).is_none() => {
                summary.warnings.push(format!("{} is not drawn: {error}", pickle.display()));
            }
            Err(error) => summary.failures.push((pickle.clone(), error.to_string())),
        }
    }
    if summary.figures.len() > before {
        summary.experiments.push(dir.to_owned());
    }
    Ok(())
}

/// The metadata as far as they can be read; the directory's name stands in for the experiment's.
fn read_metadata(dir: &Path, warnings: &mut Vec<String>) -> Metadata {
    let path = dir.join("metadata.json");
    let (mut metadata, odd) = match read_at_most(&path, METADATA_BYTES_MAX) {
        Ok(Some(json)) => Metadata::read_lenient(&json),
        Ok(None) => (Metadata::default(), vec![format!("metadata.json has over {METADATA_BYTES_MAX} bytes")]),
        Err(error) => (Metadata::default(), vec![format!("metadata.json: {error}")]),
    };
    warnings.extend(odd.into_iter().map(|odd| format!("{}: {odd}", dir.display())));
    if metadata.experiment.is_empty() {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
        metadata.experiment = name.unwrap_or_default();
    }
    metadata
}

fn draw(metric: &str, pickle: &Path, metadata: &Metadata) -> Result<Vec<(String, Vec<u8>)>, MatrixError> {
    let bytes = read_at_most(pickle, PICKLE_BYTES_MAX)?.ok_or(MatrixError::TooLarge)?;
    let matrix = unpickle::read_matrix(&bytes)?;
    let [rows, columns] = matrix.shape;
    if rows != columns {
        return Err(MatrixError::NotSquare { rows, columns });
    }
    Ok(export::metric_figures(metric, &matrix.values, rows, metadata)?)
}

/// The content of a file, or none where it has more than `limit` bytes.
fn read_at_most(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = fs::File::open(path)?;
    // A pipe or device of that name would make the reader wait for ever.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Writes beside the target and renames, so that no half figure is ever seen.
fn write(figures: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(figures)?;
    // As an ordinary new file: everyone may read it, unless the umask says otherwise.
    let permissions = fs::Permissions::from_mode(0o666);
    let mut file =
        tempfile::Builder::new().prefix(".figure").permissions(permissions).tempfile_in(figures)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::experiment_files;
    use crate::export::samples::result;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pickles");

    fn report(dir: &Path) -> Result<ReportSummary, ReportError> {
        run(&ReportArgs { dir: dir.to_owned(), json: false })
    }

    fn copy(fixture: &str, to: &Path) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(format!("{FIXTURES}/{fixture}.pkl"), to).unwrap();
    }

    #[test]
    fn our_own_results_are_drawn_alike_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = experiment_files(&result(4, true)).unwrap();
        for (name, bytes) in files.iter().filter(|(name, _)| !name.starts_with("figures/")) {
            let path = dir.path().join("bert_base_uncased_mean_c4").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let summary = report(dir.path()).unwrap();
        assert_eq!(summary.figures.len(), 16);
        assert_eq!(summary.warnings, [""; 0]);
        for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("figures/")) {
            let drawn = fs::read(dir.path().join("bert_base_uncased_mean_c4").join(name)).unwrap();
            assert!(drawn == *bytes, "{name} differs from what export wrote");
        }
        let left = fs::read_dir(dir.path().join("bert_base_uncased_mean_c4/figures")).unwrap().count();
        assert_eq!(left, 16, "no temporary file stays");
    }

    #[test]
    fn results_of_older_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("bert_mean"), dir.path().join("bert_cls"));
        copy("numpy1_p2_f8", &first.join("CKA.pkl"));
        copy("numpy1_p3_f4", &first.join("RSA.pkl"));
        copy("numpy1_p3_f4", &first.join("RSA_std.pkl"));
        fs::write(first.join("metadata.json"), r#"{"model": "bert-base-uncased", "num_layers": "13"}"#)
            .unwrap();
        copy("numpy2_p4_f8_big", &second.join("similarities/CKA.pkl"));
        copy("numpy2_p5_f8", &second.join("similarities/Other.pkl"));

        let summary = report(dir.path()).unwrap();
        assert_eq!(summary.experiments.len(), 2);
        assert_eq!(summary.figures.len(), 4 * 4);
        assert_eq!(summary.failures, []);
        assert_eq!(summary.warnings.len(), 2, "{:?}", summary.warnings);
        let svg = fs::read_to_string(first.join("figures/CKA_heatmap.svg")).unwrap();
        assert!(
            svg.contains("bert-base-uncased") && svg.contains("no reason recorded")
                || svg.contains("single cell")
        );
        let svg = fs::read_to_string(second.join("figures/Other_heatmap.svg")).unwrap();
        assert!(svg.contains("bert_cls"), "the directory's name stands in for the metadata");

        // The directory of one experiment is as good.
        assert_eq!(report(&first).unwrap().figures.len(), 8);
    }

    #[test]
    fn what_cannot_be_read_does_not_stop_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        copy("numpy2_p4_f8", &dir.path().join("CKA.pkl"));
        copy("numpy2_p4_i8", &dir.path().join("RSA.pkl"));
        fs::write(dir.path().join("everything.pkl"), b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.").unwrap();
        fs::write(dir.path().join("metadata.json"), b"{").unwrap();
        let summary = report(dir.path()).unwrap();
        assert_eq!(summary.figures.len(), 4);
        assert_eq!(summary.failures.len(), 1);
        assert!(summary.failures[0].1.contains("2 × 3"), "{:?}", summary.failures);
        assert!(
            summary.warnings.iter().any(|warning| warning.contains("os.system")),
            "{:?}",
            summary.warnings
        );
        assert_eq!(summary.exit_code(), 1);
    }

    #[test]
    fn a_directory_without_pickles_is_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        copy("numpy2_p4_f8", &dir.path().join("a/similarities/CKA_std.pkl"));
        let error = report(dir.path()).unwrap_err();
        assert!(matches!(error, ReportError::NoPickles { .. }));
        assert_eq!(error.exit_code(), 2);
        let error = report(&dir.path().join("missing")).unwrap_err();
        assert!(matches!(error, ReportError::Directory { .. }));
        assert_eq!(error.exit_code(), 2);
    }
}
