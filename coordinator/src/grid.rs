//! What the user asks for: a grid of experiments, from a file or from flags.
//!
//! A grid file is TOML, YAML or JSON of one schema. Whatever its language, it becomes one tree in which each value
//! knows its place (`source`); flags are laid over that tree (`overlay`); one validator turns it into a [`Grid`]
//! and collects every fault on the way (`schema`); combinations become requests (`expand`), each with a name
//! (`name`). Nothing here looks at a model or a dataset: only [`read`] touches the disk.

mod expand;
mod fault;
pub mod name;
mod overlay;
mod schema;
mod source;
mod table;
mod tree;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lsa_common::dataset::{DatasetName, ReadLimits};
use lsa_common::job::{Compare, Trials};
use lsa_common::metric::{LayerMetricName, MetricName, MetricSpec};
use lsa_common::mirror::MirrorMode;
use lsa_common::model::{Dtype, LayerChoice, Pooling};
use serde::{Serialize, Serializer};

use fault::Faults;
pub use fault::{Fault, GridErrors, Place};
pub use overlay::Overlay;
pub use source::Language;

/// The longest grid file, in bytes. 1 MiB: tens of thousands of names.
pub const GRID_BYTES_MAX: u64 = 1 << 20;

/// Everything that one job is asked to do; every setting is filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// What the job is called: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// The experiments, at least one, no two alike.
    pub requests: Vec<Request>,
    /// How the job is run.
    pub run: RunSettings,
    /// Whether results go to `DIR/<experiment>/`: false for exactly one experiment given by flags, which writes
    /// into DIR itself.
    pub is_list: bool,
}

/// One experiment as asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The name of its directory, unique within the grid; at most 120 bytes.
    pub name: String,
    /// The model.
    pub model: ModelName,
    /// How tokens become one vector.
    pub pooling: Pooling,
    /// The texts.
    pub dataset: DatasetName,
    /// Which texts, and how long.
    pub data: DataSettings,
    /// How they are run through the model.
    pub extraction: ExtractionSettings,
    /// How layers are compared.
    pub similarity: SimilaritySettings,
    /// Where the user asked for it.
    pub place: Option<Place>,
}

/// A model as the user named it: a hub id or a folder, and a revision of the former.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ModelName {
    /// Hub id (`owner/name`, `name`) or path of a folder.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: Option<String>,
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// The order in which texts are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// What suits the dataset: [`Sampling::Streams`] for C4, [`Sampling::First`] for all else.
    Auto,
    /// The first texts, in file order.
    First,
    /// Texts of rows drawn at random, in file order.
    Shuffle,
    /// The first texts of several files drawn at random.
    Streams,
}

impl Sampling {
    /// Every order, as they are listed.
    pub const ALL: [Self; 4] = [Self::Auto, Self::First, Self::Shuffle, Self::Streams];

    /// The name as it is written in grid files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::First => "first",
            Self::Shuffle => "shuffle",
            Self::Streams => "streams",
        }
    }

    /// The order of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sampling| sampling.as_str() == text)
    }
}

/// Section `[data]`: which texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct DataSettings {
    /// Texts taken at most. 20,000: enough that a mean over trials of 3,000 is stable.
    pub num_samples: u32,
    /// The split of a hub dataset or MTEB task, by default `train`; files have none.
    pub split: Option<String>,
    /// The order in which texts are taken.
    pub sampling: Sampling,
    /// Tokens of a text at most, special tokens included. 256: where sentence encoders are trained.
    pub max_length: u32,
    /// Leave out texts that were there before.
    pub dedupe: bool,
    /// Leave out unusable rows instead of failing (`bad_rows = "skip"`).
    pub skip_bad_rows: bool,
    /// Leave out texts without tokens instead of failing (`empty_texts = "skip"`).
    pub skip_empty_texts: bool,
    /// Bounds on what a file may make a reader hold or do.
    pub limits: ReadLimits,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            num_samples: 20_000,
            split: None,
            sampling: Sampling::Auto,
            max_length: 256,
            dedupe: false,
            skip_bad_rows: false,
            skip_empty_texts: false,
            limits: ReadLimits::default(),
        }
    }
}

/// Section `[extraction]`: the forward passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ExtractionSettings {
    /// The token budget of a batch is `batch_size * max_length`. 64: fills a CPU and fits small GPUs.
    pub batch_size: u32,
    /// The number format of the forward pass.
    pub dtype: Dtype,
    /// The layers kept.
    #[serde(serialize_with = "layers_as_text")]
    pub layers: LayerChoice,
    /// Export the pooled representations too.
    pub save_embeddings: bool,
}

impl Default for ExtractionSettings {
    fn default() -> Self {
        Self { batch_size: 64, dtype: Dtype::Float32, layers: LayerChoice::All, save_embeddings: false }
    }
}

/// Section `[similarity]`, and the seed: the comparisons.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SimilaritySettings {
    /// The metrics, at least one, each once.
    pub metrics: Vec<MetricSpec>,
    /// Quantities of single layers, each once.
    pub layer_metrics: Vec<LayerMetricName>,
    /// Rows drawn for a trial; none: min([`SAMPLE_SIZE_DEFAULT`], texts).
    pub sample_size: Option<u32>,
    /// Monte Carlo trials. 5: enough for a standard deviation.
    pub trials: Trials,
    /// Which layers are compared.
    pub compare: Compare,
    /// Whether what a metric says of unrelated rows is computed too.
    pub calibrate: bool,
    /// What the draws depend on. 42, as in the older scripts.
    pub seed: u64,
}

/// Rows drawn for a trial unless told otherwise or there are fewer: n × n matrices of 3,000 rows take 72 MB.
pub const SAMPLE_SIZE_DEFAULT: u32 = 3000;

impl Default for SimilaritySettings {
    fn default() -> Self {
        Self {
            metrics: MetricName::DEFAULT.map(MetricSpec::new).to_vec(),
            layer_metrics: Vec::new(),
            sample_size: None,
            trials: Trials::Fixed(5),
            compare: Compare::Within,
            calibrate: false,
            seed: 42,
        }
    }
}

/// Section `[run]`: how the job is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSettings {
    /// Go on with the other experiments when one fails.
    pub continue_on_error: bool,
    /// Attempts at a unit before its job fails. 4: a fault that comes three times over comes again.
    pub max_attempts: u32,
    /// Between jobs of one coordinator; higher goes first.
    pub priority: i32,
    /// Guard against a grid larger than meant. 1000.
    pub max_experiments: u32,
    /// Whether files of a hub go through the bucket.
    pub mirror: MirrorMode,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            continue_on_error: false,
            max_attempts: 4,
            priority: 0,
            max_experiments: 1000,
            mirror: MirrorMode::Auto,
        }
    }
}

/// A layer choice as it is written in a grid file.
pub fn layers_text(layers: &LayerChoice) -> String {
    match layers {
        LayerChoice::All => "all".to_owned(),
        LayerChoice::Every(step) => format!("every:{step}"),
        LayerChoice::List(list) => format!("{list:?}"),
    }
}

fn layers_as_text<S: Serializer>(layers: &LayerChoice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&layers_text(layers))
}

/// The text of a grid file, with what messages about it need.
#[derive(Clone, Debug)]
pub struct GridSource {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
    /// In which language.
    pub language: Language,
}

/// Reads a grid file: at most [`GRID_BYTES_MAX`] bytes of UTF-8. The only function here that touches the disk.
pub fn read(path: &Path) -> Result<GridSource, GridErrors> {
    let fault = |place: Option<Place>, message: String| GridErrors {
        file: Some(path.to_owned()),
        faults: vec![Fault { place, message }],
    };
    let language = Language::of(path).ok_or_else(|| {
        fault(None, "a grid file ends in .toml, .yaml, .yml or .json; rename it".to_owned())
    })?;
    let unreadable = |error: std::io::Error| fault(None, format!("the grid file cannot be read: {error}"));
    // Looked at before it is opened: opening a named pipe waits for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(fault(None, "this is not a regular file; name a grid file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(GRID_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > GRID_BYTES_MAX {
        return Err(fault(None, format!("a grid file has at most {GRID_BYTES_MAX} bytes; split it")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let place = Place::File { line: u32::try_from(line).unwrap_or(u32::MAX), column: 1 };
        fault(Some(place), "this line is not UTF-8; save the file as UTF-8".to_owned())
    })?;
    Ok(GridSource { path: path.to_owned(), text, language })
}

/// The grid of a file, of flags, or of a file with flags laid over it; all faults at once.
pub fn build(source: Option<&GridSource>, overlay: Overlay) -> Result<Grid, GridErrors> {
    let mut faults = Faults::default();
    let file = source.map(|source| source.path.clone());
    let tree = match source {
        Some(source) => source::parse(&source.text, source.language, &mut faults),
        None => Some(tree::Node::empty_table(Place::Flag("the command line".to_owned()))),
    };
    let from_flags = source.is_none();
    let tree = tree.map(|tree| overlay.lay_over(tree, from_flags, &mut faults));
    let stem = file.as_deref().and_then(Path::file_stem).and_then(|stem| stem.to_str());
    let grid = tree.and_then(|tree| schema::grid(&tree, stem, from_flags, &mut faults));
    match grid {
        Some(grid) if faults.is_empty() => Ok(grid),
        _ => Err(faults.into_errors(file)),
    }
}

#[cfg(test)]
mod tests;
