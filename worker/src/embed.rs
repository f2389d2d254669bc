//! `lsa-worker embed`: every layer and pooling of every line of a text file, as one safetensors file.
//!
//! Lines are computed in chunks of rows and written where they belong in the file, so memory does not grow
//! with the number of lines. The file appears under its name only when it is complete.

mod output;
mod text_file;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use lsa_common::failure::FailureClass;
use lsa_common::model::{Dtype, PinnedModel, Pooling};
use lsa_common::model_source::Fetch;

use crate::config::{self, CommandError};
use crate::device::{self, ChosenDevice, DeviceChoice};
use crate::extract::{ExtractError, ExtractRequest, Extractor, Pooled};
use crate::{inspect, interrupt};
use output::EmbeddingFile;
use text_file::TextFile;

/// Texts in a batch, at most, if all of them had the maximal length.
const BATCH_SIZE_DEFAULT: u32 = 64;
/// Pooled values in memory at once.
const CHUNK_BYTES: u64 = 256 << 20;
/// Rows computed between two writes, at most: enough that sorting by length leaves little to balance.
const CHUNK_ROWS_MAX: u64 = 2048;
/// Rows computed between two writes, at least.
const CHUNK_ROWS_MIN: u64 = 32;
/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  lsa-worker embed --model ./all-MiniLM-L6-v2 --texts reviews.txt --pooling mean cls --output reviews.safetensors
  lsa-worker embed --model BAAI/bge-small-en-v1.5 --texts reviews.txt --pooling cls --max-length 128 \\
      --dtype bfloat16 --device cuda:0 --output reviews.safetensors

The file holds one float32 array [layers, lines, width] per pooling, named after it.";

/// What to embed, how, and where to.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EmbedArgs {
    /// A folder, or a hub id, with @revision if need be.
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// A UTF-8 text file; every line is a row, and nothing of it is trimmed.
    #[arg(long, value_name = "FILE")]
    pub texts: PathBuf,
    /// One or more of mean, cls, max, last_token, pooler.
    #[arg(long, num_args = 1.., required = true, value_name = "P")]
    pub pooling: Vec<String>,
    /// The most tokens of a text [default: what the model allows].
    #[arg(long, value_name = "N")]
    pub max_length: Option<u32>,
    /// The token budget of a batch, in texts of the maximal length.
    #[arg(long, value_name = "N", default_value_t = BATCH_SIZE_DEFAULT)]
    pub batch_size: u32,
    /// The number format to compute in: float32, float16 or bfloat16.
    #[arg(long, value_name = "D", default_value_t = Dtype::Float32.to_string())]
    pub dtype: String,
    /// auto, cpu or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Batches computed at once on a CPU [default: one per core].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// [`EmbedArgs`], checked.
struct EmbedConfig {
    model: PinnedModel,
    texts: TextFile,
    poolings: Vec<Pooling>,
    max_length: u32,
    token_budget: u64,
    dtype: Dtype,
    device: ChosenDevice,
    threads: usize,
    output: PathBuf,
}

impl EmbedConfig {
    /// Checks everything that can be checked before work; faults of the flags are reported together.
    fn new(args: &EmbedArgs) -> Result<Self, CommandError> {
        let mut faults = Vec::new();
        let poolings = config::names("--pooling", &args.pooling, &Pooling::ALL, Pooling::parse, &mut faults);
        let dtype = Dtype::parse(&args.dtype);
        if dtype.is_none() {
            let known = Dtype::ALL.map(Dtype::as_str).join(", ");
            faults.push(format!("--dtype: {:?} is unknown; known: {known}", args.dtype));
        }
        let device: Result<DeviceChoice, _> = args.device.parse();
        if let Err(error) = &device {
            faults.push(format!("--device: {error}"));
        }
        let counts = [
            ("--max-length", args.max_length.map(u64::from)),
            ("--batch-size", Some(u64::from(args.batch_size))),
            ("--threads", args.threads.map(|threads| threads as u64)),
        ];
        for (flag, count) in counts {
            if count == Some(0) {
                faults.push(format!("{flag}: 0 makes no sense; give 1 or more"));
            }
        }
        let (Some(dtype), Ok(device), []) = (dtype, device, &faults[..]) else {
            return Err(CommandError::usage(faults.join("; ")));
        };
        let texts = TextFile::open(&args.texts)?;
        let model = inspect::pin(&args.model, Fetch::Weights)?;
        let limit = model.facts.max_length;
        if poolings.contains(&Pooling::Pooler) && !model.facts.has_pooler {
            return Err(CommandError::usage(ExtractError::NoPooler(model.id)));
        }
        let device = device::open(device).map_err(CommandError::usage)?;
        let max_length = args.max_length.unwrap_or(limit);
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            texts,
            poolings,
            max_length,
            token_budget: u64::from(args.batch_size) * u64::from(max_length),
            dtype,
            device,
            threads: args.threads.unwrap_or_else(cores),
            output: args.output.clone(),
            model,
        })
    }
}

/// Embeds a text file.
pub fn run(args: &EmbedArgs) -> Result<(), CommandError> {
    let stopped = interrupt::watch().map_err(CommandError::failed)?;
    let config = EmbedConfig::new(args)?;
    eprintln!("device: {}", config.device.reason);
    let folder = &config.model.folder;
    let extractor = Extractor::load(&config.model, folder, config.dtype, config.device.device);
    let extractor = extractor.map_err(extract_error)?;
    let n_rows = config.texts.n_lines();
    let widths: Vec<u32> = (0..extractor.n_layers()).map(|layer| extractor.width(layer)).collect();
    let metadata = metadata(&config);
    let mut file = EmbeddingFile::create(&config.output, &config.poolings, n_rows, &widths, &metadata)?;
    let what = ExtractRequest {
        max_length: config.max_length,
        token_budget: config.token_budget,
        layers: (0..extractor.n_layers()).collect(),
        poolings: config.poolings.clone(),
        skip_empty: false,
    };
    let started = Instant::now();
    let progress = Progress::new(n_rows);
    let mut sums = Sums::default();
    let mut first_row = 0;
    let mut chunks = config.texts.chunks(chunk_rows(&widths))?;
    while let Some(texts) = chunks.next_chunk()? {
        let go_on = |done: u64| {
            progress.say(first_row + done);
            !stopped.load(Ordering::SeqCst)
        };
        let pooled = extractor.extract(&texts, &what, config.threads, &go_on);
        let pooled = pooled.map_err(|error| in_file(error, first_row, &config))?;
        file.write(first_row, &pooled).map_err(CommandError::failed)?;
        sums.add(&pooled);
        first_row += texts.len() as u64;
    }
    file.finish().map_err(CommandError::failed)?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("wrote {}: {}", config.output.display(), sums.line(n_rows, &widths, seconds));
    Ok(())
}

/// Rows that fit into [`CHUNK_BYTES`] with every pooling there is: depends on the model alone.
///
/// Were it to depend on the poolings asked for, another set of them would change the batches, and so the bytes.
fn chunk_rows(widths: &[u32]) -> u64 {
    let numbers: u64 = widths.iter().map(|width| u64::from(*width)).sum();
    let row_bytes = numbers * Pooling::ALL.len() as u64 * 4;
    let rows = (CHUNK_BYTES / row_bytes.max(1)).clamp(CHUNK_ROWS_MIN, CHUNK_ROWS_MAX);
    1 << rows.ilog2()
}

fn metadata(config: &EmbedConfig) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("model", config.model.id.clone()),
        ("revision", config.model.revision.clone().unwrap_or_default()),
        ("model_type", config.model.facts.model_type.clone()),
        ("layers", config.model.facts.n_layers.to_string()),
        ("max_length", config.max_length.to_string()),
        ("token_budget", config.token_budget.to_string()),
        ("dtype", config.dtype.to_string()),
        ("profile", device::numeric_profile(config.device.device, config.dtype)),
    ])
}

/// Lines of progress, not more often than people can read.
struct Progress {
    n_rows: u64,
    /// When the next line is due, in milliseconds since the start.
    due_ms: std::sync::atomic::AtomicU64,
    started: Instant,
    quiet: AtomicBool,
}

impl Progress {
    fn new(n_rows: u64) -> Self {
        let due_ms = (PROGRESS_INTERVAL.as_millis() as u64).into();
        Self { n_rows, due_ms, started: Instant::now(), quiet: AtomicBool::new(false) }
    }

    /// Called from several threads; one of them speaks.
    fn say(&self, done: u64) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        if now_ms < self.due_ms.load(Ordering::Relaxed) || self.quiet.swap(true, Ordering::Relaxed) {
            return;
        }
        self.due_ms.store(now_ms + PROGRESS_INTERVAL.as_millis() as u64, Ordering::Relaxed);
        let rate = done as f64 * 1000.0 / now_ms.max(1) as f64;
        eprintln!("{done} of {} texts, {rate:.0} per second", self.n_rows);
        self.quiet.store(false, Ordering::Relaxed);
    }
}

/// What all chunks together were like.
#[derive(Default)]
struct Sums {
    n_tokens: u64,
    n_truncated: u64,
    nonfinite_rows: u64,
    split: bool,
}

impl Sums {
    fn add(&mut self, pooled: &Pooled) {
        self.n_tokens += pooled.notes.n_tokens;
        self.n_truncated += pooled.notes.n_truncated;
        self.nonfinite_rows += pooled.notes.nonfinite_rows_per_layer.iter().max().copied().unwrap_or(0);
        self.split |= pooled.notes.split;
    }

    fn line(&self, n_rows: u64, widths: &[u32], seconds: f64) -> String {
        let mut line = format!(
            "{n_rows} texts, {} layers, {} tokens, {} texts cut, {seconds:.1} s, {:.0} tokens per second",
            widths.len(),
            self.n_tokens,
            self.n_truncated,
            self.n_tokens as f64 / seconds.max(1e-9),
        );
        if self.nonfinite_rows > 0 {
            line += &format!("; {} rows overflowed and were redone in float32", self.nonfinite_rows);
        }
        if self.split {
            line += "; a batch was split for lack of memory";
        }
        line
    }
}

/// Names the line of the file for a row of a chunk.
fn in_file(error: ExtractError, first_row: u64, config: &EmbedConfig) -> CommandError {
    let of_file = |row: u64| first_row + row;
    let (row, error) = match error {
        ExtractError::Text { row, reason } => (row, ExtractError::Text { row: of_file(row), reason }),
        ExtractError::Empty { row } => (row, ExtractError::Empty { row: of_file(row) }),
        ExtractError::UnknownToken { row, token, vocab_size } => {
            (row, ExtractError::UnknownToken { row: of_file(row), token, vocab_size })
        }
        ExtractError::NonFinite { row, layer } => (row, ExtractError::NonFinite { row: of_file(row), layer }),
        ExtractError::OutOfMemory { row, n_tokens } => {
            (row, ExtractError::OutOfMemory { row: of_file(row), n_tokens })
        }
        error => return extract_error(error),
    };
    let place = format!("{}:{}: {error}", config.texts.path().display(), of_file(row) + 1);
    match error.failure_class() {
        FailureClass::Reject => CommandError::usage(place),
        FailureClass::Retry | FailureClass::Fatal => CommandError::failed(place),
    }
}

fn extract_error(error: ExtractError) -> CommandError {
    match error {
        ExtractError::Stopped => CommandError::Interrupted,
        ExtractError::TooLong { .. } | ExtractError::Tokenizer { .. } => CommandError::usage(error),
        ExtractError::Source(source) => inspect::source_error(source),
        error => CommandError::failed(error),
    }
}
