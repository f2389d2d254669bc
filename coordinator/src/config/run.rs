//! `run`: everything on this machine.

use std::path::PathBuf;

use clap::Args;

use super::{GridArgs, Machine, MachineArgs};
use crate::grid::{Fault, Grid, GridErrors};

const EXAMPLES: &str = "\
Examples:
  One experiment, written into results/:
    lsa-coordinator run --model ./all-MiniLM-L6-v2 --dataset file:reviews.txt --output-dir results

  Two models, two poolings: four experiments, each in a folder of its own:
    lsa-coordinator run --model bert-base-uncased BAAI/bge-small-en-v1.5 --pooling mean cls \\
        --dataset file:reviews.jsonl#body --num-samples 5000 --output-dir results

  A model and a dataset of the hub:
    lsa-coordinator run --model bert-base-uncased --dataset Banking77Classification --output-dir results

  A grid file, with fewer trials than it says:
    lsa-coordinator run examples/compare-models.toml --trials 3 --output-dir results

  What would be done, and what is done already:
    lsa-coordinator run examples/compare-models.toml --dry-run

Running the same command again goes on where it stopped.
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 finished but some experiments failed, 4 refused for want of rights,
130 interrupted.";

/// Run experiments on this machine, from a grid file or from flags
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// What to run.
    #[command(flatten)]
    pub grid: GridArgs,

    /// Folder for the results; made if it does not exist
    #[arg(long, short = 'o', value_name = "DIR", required_unless_present = "dry_run")]
    pub output_dir: Option<PathBuf>,

    /// Where and on what.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// Show what would run, as `plan` does, and stop
    #[arg(long)]
    pub dry_run: bool,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// [`RunArgs`], checked.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// What to run.
    pub grid: Grid,
    /// Folder for the results; none only with `dry_run`.
    pub output_dir: Option<PathBuf>,
    /// Where and on what.
    pub machine: Machine,
    /// Plan only.
    pub dry_run: bool,
    /// Print JSON.
    pub json: bool,
}

impl RunArgs {
    /// The configuration; all faults of file and flags at once.
    pub fn into_config(self) -> Result<RunConfig, GridErrors> {
        let mut faults: Vec<Fault> = Vec::new();
        let machine = self.machine.check(&mut faults);
        let grid = merged(self.grid.into_grid(), faults)?;
        Ok(RunConfig { grid, output_dir: self.output_dir, machine, dry_run: self.dry_run, json: self.json })
    }
}

/// The grid, or its faults and `faults` together.
pub(super) fn merged(grid: Result<Grid, GridErrors>, mut faults: Vec<Fault>) -> Result<Grid, GridErrors> {
    match grid {
        Ok(grid) if faults.is_empty() => Ok(grid),
        Ok(_) => Err(GridErrors { file: None, faults }),
        Err(mut errors) => {
            errors.faults.append(&mut faults);
            Err(errors)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lsa_common::job::Trials;
    use lsa_common::metric::{LayerMetricName, Number};
    use lsa_common::model::{Dtype, LayerChoice, Pooling};

    use super::*;
    use crate::grid::Place;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(line: &str) -> Result<RunConfig, String> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        cli.run.into_config().map_err(|errors| errors.to_string())
    }

    #[test]
    fn flags_alone_make_one_experiment_with_defaults() {
        let config = parse("--model m --dataset file:d/t.txt -o out").expect("valid flags");
        let grid = config.grid;
        assert_eq!((grid.name.as_str(), grid.is_list, grid.requests.len()), ("m_mean_t", false, 1));
        let request = &grid.requests[0];
        assert_eq!(request.pooling, Pooling::Mean);
        assert_eq!(
            (request.data.num_samples, request.data.max_length, request.extraction.batch_size),
            (20_000, 256, 64)
        );
        assert_eq!(
            (request.similarity.trials.at_most(), request.similarity.seed, request.similarity.sample_size),
            (5, 42, None)
        );
        assert_eq!(request.similarity.metrics.len(), 4);
        assert_eq!(config.machine.device, "auto");
    }

    #[test]
    fn lists_make_a_grid() {
        let grid =
            parse("--models a,b --model c --pooling mean cls --datasets file:t.txt,file:u.csv#x -o out")
                .expect("valid")
                .grid;
        assert_eq!((grid.is_list, grid.requests.len(), grid.name.as_str()), (true, 12, "grid"));
        assert_eq!(grid.requests[1].name, "a_cls_t");
        assert_eq!(grid.requests[0].place, Some(Place::Flag("--model".to_owned())));
    }

    #[test]
    fn flags_reach_their_settings() {
        let line = "--model m --dataset file:t.txt -o out --num-samples 100 --split test --batch-size 8 --max-length 32 \
                    --fp16 --metrics CKA,RSA --sample-size 50 --trials 2 --seed 7 --save-embeddings --layers 0 6 -1 \
                    --continue-on-error --max-experiments 1 --set data.dedupe=true --set run.priority=-3";
        let grid = parse(line).expect("valid flags").grid;
        let request = &grid.requests[0];
        assert_eq!(
            (request.data.num_samples, request.data.split.as_deref(), request.data.max_length),
            (100, Some("test"), 32)
        );
        assert!(request.data.dedupe);
        assert_eq!((request.extraction.batch_size, request.extraction.dtype), (8, Dtype::Float16));
        assert_eq!(request.extraction.layers, LayerChoice::List(vec![0, 6, -1]));
        assert!(request.extraction.save_embeddings);
        let similarity = &request.similarity;
        assert_eq!(
            (similarity.metrics.len(), similarity.sample_size, similarity.trials.at_most(), similarity.seed),
            (2, Some(50), 2, 7)
        );
        assert!(grid.run.continue_on_error);
        assert_eq!((grid.run.priority, grid.run.max_experiments), (-3, 1));
        let grid =
            parse("--model m --dataset file:t.txt --dry-run --layers every:2").expect("valid flags").grid;
        assert_eq!(grid.requests[0].extraction.layers, LayerChoice::Every(2));

        let line = "--model m --dataset file:t.txt -o out --trials auto --ci-half-width 0.005 --max-trials 20 \
                    --calibrate --layer-metrics EffectiveRank,NormMean";
        let similarity = &parse(line).expect("valid flags").grid.requests[0].similarity;
        let ci_half_width = Number::new(0.005).expect("finite");
        assert_eq!(similarity.trials, Trials::Auto { ci_half_width, max_trials: 20 });
        assert!(similarity.calibrate);
        assert_eq!(similarity.layer_metrics, [LayerMetricName::EffectiveRank, LayerMetricName::NormMean]);
    }

    #[test]
    fn faults_of_flags_are_told_at_once() {
        let line = "--model m --dataset c44 --pooling meen --trials 0 --sample-size x --metrics CKKA --fp16 --dtype bfloat16 \
                    --workers 0 --set trials --set similarity.trails=3 -o out";
        let message = parse(line).expect_err("many faults");
        for expected in [
            "--dataset: grid.datasets: there is no dataset \"c44\"; did you mean \"c4\"?",
            "--pooling: grid.pooling: unknown pooling \"meen\"",
            "did you mean \"mean\"?",
            "--trials: similarity.trials must be a whole number from 1 to 100000, got 0",
            "--sample-size: similarity.sample_size must be a whole number from 1 to 4294967295, got \"x\"",
            "--metrics: similarity.metrics: unknown metric \"CKKA\"",
            "--fp16: --fp16 and --dtype bfloat16 contradict each other",
            "--workers: \"0\" must be a whole number from 1",
            "--set trials: write --set section.key=value",
            "--set similarity.trails=3: unknown key \"trails\" in similarity; did you mean \"trials\"?",
        ] {
            assert!(message.contains(expected), "expected {expected:?} in:\n{message}");
        }
        assert_eq!(message.lines().count(), 9, "{message}");
    }

    #[test]
    fn what_is_missing_is_told() {
        let check = |line: &str, expected: &str| {
            let message = parse(line).expect_err(line);
            assert!(message.contains(expected), "{line}: {message}");
        };
        check("-o out", "there is nothing to run; name a grid file, or --model");
        check("--dataset file:t.txt -o out", "no model is named");
        check("--model m --dataset file:t.txt", "--output-dir");
        check("a.toml --config b.toml -o out", "cannot be used with");
        check("missing.toml -o out", "missing.toml: the grid file cannot be read");
        check("grid.ini -o out", "ends in .toml, .yaml, .yml or .json");
    }

    #[test]
    fn flags_win_over_a_grid_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("My grid.toml");
        let text = "[grid]\nmodels = [\"a\", \"b\"]\ndatasets = [\"file:t.txt\"]\n[similarity]\ntrials = 9\n";
        std::fs::write(&path, text).expect("write the grid file");
        let run = |flags: &str| {
            let mut words = vec!["run".into(), path.clone().into_os_string()];
            words.extend(flags.split_whitespace().map(Into::into));
            let cli = Cli::try_parse_from(words).expect("valid usage");
            cli.run.into_config().map_err(|errors| errors.to_string())
        };
        let grid = run("-o out").expect("a valid file").grid;
        assert_eq!((grid.name.as_str(), grid.requests.len(), grid.is_list), ("my_grid", 2, true));
        assert_eq!(grid.requests[0].similarity.trials.at_most(), 9);
        let grid = run("--model c --trials 3 -o out").expect("a valid file").grid;
        assert_eq!(
            (grid.requests.len(), grid.is_list, grid.requests[0].similarity.trials.at_most()),
            (1, true, 3)
        );

        let text =
            format!("{text}[[experiment]]\nmodel = \"d\"\ndataset = \"file:t.txt\"\nsimilarity.trials = 4\n");
        std::fs::write(&path, text).expect("write the grid file");
        let trials = |grid: Grid| {
            grid.requests.iter().map(|request| request.similarity.trials.at_most()).collect::<Vec<_>>()
        };
        assert_eq!(trials(run("-o out").expect("a valid file").grid), [9, 9, 4]);
        assert_eq!(trials(run("--trials 3 -o out").expect("a valid file").grid), [3, 3, 3]);
        let message = run("--model c -o out").expect_err("which experiments are meant is not clear");
        assert!(message.contains("--model: the file has [[experiment]] entries"), "{message}");
    }

    #[test]
    fn usage_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
