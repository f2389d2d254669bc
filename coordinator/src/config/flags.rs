//! The flags that describe experiments; `run`, `plan` and `submit` share them.

use std::path::PathBuf;

use clap::Args;

use crate::grid::{self, Fault, Grid, GridErrors, Overlay, Place};

/// A grid file, the flags of a single run, or a file with flags that override it.
///
/// Lists take values separated by spaces or commas and may repeat; more than one combination makes the run a grid.
/// A flag that is typed wins over the file, also over the settings of its `[[experiment]]` entries; `--model`,
/// `--pooling` and `--dataset` replace the lists of `[grid]`.
#[derive(Args, Clone, Debug, Default)]
pub struct GridArgs {
    /// Grid file (.toml, .yaml, .yml or .json); put it before lists of values
    #[arg(value_name = "GRID", conflicts_with = "config")]
    pub grid: Option<PathBuf>,

    /// The same as GRID
    #[arg(long, value_name = "GRID")]
    pub config: Option<PathBuf>,

    /// Hub ids or folders of models; a hub id may end in @REVISION
    #[arg(long, visible_alias = "models", value_name = "MODEL", num_args = 1.., value_delimiter = ',')]
    pub model: Vec<String>,

    /// mean, cls, max, last_token, pooler [default: mean]
    #[arg(long, visible_alias = "poolings", value_name = "POOLING", num_args = 1.., value_delimiter = ',')]
    pub pooling: Vec<String>,

    /// c4, an MTEB task, hf:owner/name, file:PATH[#COLUMN] or s3://bucket/prefix; `lsa-coordinator datasets` lists those
    /// with a name [default: c4]
    #[arg(long, visible_alias = "datasets", value_name = "DATASET", num_args = 1.., value_delimiter = ',')]
    pub dataset: Vec<String>,

    /// Texts taken of each dataset at most [default: 20000]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub num_samples: Option<String>,

    /// Split of a hub dataset; files have none [default: train]
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,

    /// A batch holds at most batch size × max length tokens [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<String>,

    /// Tokens of a text at most, special tokens included [default: 256]
    #[arg(long, value_name = "TOKENS", allow_negative_numbers = true)]
    pub max_length: Option<String>,

    /// Number format of the forward pass: float32, float16, bfloat16 [default: float32]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<String>,

    /// The same as --dtype float16
    #[arg(long)]
    pub fp16: bool,

    /// all, every:K, or layer numbers; -1 is the last [default: all]
    #[arg(long, value_name = "LAYER", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    pub layers: Vec<String>,

    /// Similarities of layers; `lsa-coordinator metrics` lists them [default: CKA, RSA, JaccardSimilarity,
    /// DistanceCorrelation]
    #[arg(long, visible_alias = "metric", value_name = "METRIC", num_args = 1.., value_delimiter = ',')]
    pub metrics: Vec<String>,

    /// Quantities of single layers, such as EffectiveRank; `lsa-coordinator metrics` lists them [default: none]
    #[arg(long, visible_alias = "layer-metric", value_name = "METRIC", num_args = 1.., value_delimiter = ',')]
    pub layer_metrics: Vec<String>,

    /// Texts drawn for a trial [default: min(3000, texts)]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub sample_size: Option<String>,

    /// Monte Carlo trials, or auto: as many as it takes for intervals as narrow as --ci-half-width [default: 5]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub trials: Option<String>,

    /// With --trials auto: how far the 95 % confidence interval of a cell may reach to either side [default: 0.01]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub ci_half_width: Option<String>,

    /// With --trials auto: the most trials [default: 50]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_trials: Option<String>,

    /// Also compare unrelated rows, and put every similarity on the scale from there to identical layers
    #[arg(long)]
    pub calibrate: bool,

    /// What the draws of the trials depend on [default: 42]
    #[arg(long, value_name = "SEED", allow_negative_numbers = true)]
    pub seed: Option<String>,

    /// Write the pooled representations too, as embeddings/layer_L/batch_B.pt
    #[arg(long)]
    pub save_embeddings: bool,

    /// Go on with the other experiments when one fails; the exit code is then 3
    #[arg(long)]
    pub continue_on_error: bool,

    /// Guard against a grid larger than meant [default: 1000]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_experiments: Option<String>,

    /// Override any key of the grid file, such as --set similarity.trials=3
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl GridArgs {
    /// The grid; all that is wrong with file and flags at once. Reads the grid file and nothing else.
    pub fn into_grid(self) -> Result<Grid, GridErrors> {
        let source = self.grid.as_deref().or(self.config.as_deref()).map(grid::read).transpose()?;
        let (overlay, mut flag_faults) = self.overlay();
        let built = grid::build(source.as_ref(), overlay);
        match built {
            Ok(grid) if flag_faults.is_empty() => Ok(grid),
            Ok(_) => Err(GridErrors { file: source.map(|source| source.path), faults: flag_faults }),
            Err(mut errors) => {
                errors.faults.append(&mut flag_faults);
                Err(errors)
            }
        }
    }

    fn overlay(&self) -> (Overlay, Vec<Fault>) {
        let mut overlay = Overlay::default();
        let mut faults = Vec::new();
        // First, so that a flag of its own wins over it.
        for assignment in &self.set {
            overlay.set(assignment, &mut faults);
        }
        for (flag, key, texts) in [
            ("--model", "grid.models", &self.model),
            ("--pooling", "grid.pooling", &self.pooling),
            ("--dataset", "grid.datasets", &self.dataset),
            ("--metrics", "similarity.metrics", &self.metrics),
            ("--layer-metrics", "similarity.layer_metrics", &self.layer_metrics),
        ] {
            if !texts.is_empty() {
                overlay.texts(flag, key, texts);
            }
        }
        for (flag, key, text) in [
            ("--num-samples", "data.num_samples", &self.num_samples),
            ("--batch-size", "extraction.batch_size", &self.batch_size),
            ("--max-length", "data.max_length", &self.max_length),
            ("--sample-size", "similarity.sample_size", &self.sample_size),
            ("--trials", "similarity.trials", &self.trials),
            ("--ci-half-width", "similarity.ci_half_width", &self.ci_half_width),
            ("--max-trials", "similarity.max_trials", &self.max_trials),
            ("--seed", "run.seed", &self.seed),
            ("--max-experiments", "run.max_experiments", &self.max_experiments),
        ] {
            text.iter().for_each(|text| overlay.number(flag, key, text));
        }
        self.split.iter().for_each(|split| overlay.text("--split", "data.split", split));
        match &self.dtype {
            Some(dtype) if self.fp16 && dtype != "float16" => {
                let message = format!("--fp16 and --dtype {dtype} contradict each other; keep one");
                faults.push(Fault { place: Some(Place::Flag("--fp16".to_owned())), message });
            }
            Some(dtype) => overlay.text("--dtype", "extraction.dtype", dtype),
            None if self.fp16 => overlay.text("--fp16", "extraction.dtype", "float16"),
            None => {}
        }
        match self.layers.as_slice() {
            [] => {}
            [word] if word.parse::<i64>().is_err() => overlay.text("--layers", "extraction.layers", word),
            layers => overlay.numbers("--layers", "extraction.layers", layers),
        }
        if self.calibrate {
            overlay.switch("--calibrate", "similarity.calibrate");
        }
        if self.save_embeddings {
            overlay.switch("--save-embeddings", "extraction.save_embeddings");
        }
        if self.continue_on_error {
            overlay.switch("--continue-on-error", "run.continue_on_error");
        }
        (overlay, faults)
    }
}
