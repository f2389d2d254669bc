//! Times one Monte Carlo trial on synthetic layers and says where the time goes.
//!
//! ```text
//! cargo run --release -p lsa-worker --example trial_bench -- [LAYERS] [ROWS] [WIDTH] [THREADS] [DEVICE]
//! ```
//!
//! With a DEVICE such as `cuda:0`, the same trial is timed with its tensors there too, after one that warms it up.

use std::time::{Duration, Instant};

use lsa_common::cost::trial_memory_bytes;
use lsa_common::metric::{MetricName, MetricSpec};
use lsa_worker::device;
use lsa_worker::metric::gram::centred_gram;
use lsa_worker::metric::layer::Layer;
use lsa_worker::metric::quantity::Pairs;
use lsa_worker::metric::{Memo, Sides, Source, metric};
use lsa_worker::resources::Resources;
use lsa_worker::trial::{LayerRows, LayerSource, SourceError, Wanted, run_trial};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tch::{Kind, Tensor};

/// Layers that drift away from the first, with noise and a common mean, as those of a model do.
struct Synthetic {
    n_layers: usize,
    n_rows: usize,
    width: usize,
}

impl Synthetic {
    fn layer(&self, layer: usize) -> Vec<f64> {
        let noise = |seed: u64| {
            let mut state = seed;
            move || {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut x = state;
                x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64 - 0.5
            }
        };
        let (mut common, mut own) = (noise(1), noise(layer as u64 + 2));
        let mut mean = noise(layer as u64 + 1000);
        let means: Vec<f64> = (0..self.width).map(|_| mean() * 2.0).collect();
        let drift = layer as f64 / self.n_layers as f64;
        let entry = |place: usize| {
            let value = (1.0 - drift) * common() + drift * own() + means[place % self.width];
            f64::from(value as f32)
        };
        (0..self.n_rows * self.width).map(entry).collect()
    }
}

struct InMemory {
    layers: Vec<Vec<f32>>,
    width: usize,
}

impl LayerSource for InMemory {
    fn n_layers(&self) -> usize {
        self.layers.len()
    }

    fn n_rows(&self) -> u32 {
        u32::try_from(self.layers[0].len() / self.width).expect("a count given as an argument")
    }

    fn width(&self, _layer: usize) -> usize {
        self.width
    }

    fn rows(&self, layer: usize, rows: &[u32]) -> Result<LayerRows, SourceError> {
        let all = &self.layers[layer];
        let row = |row: &u32| &all[*row as usize * self.width..][..self.width];
        let values = rows.iter().flat_map(row).copied().map(f64::from).collect();
        Ok(LayerRows { width: self.width, values })
    }
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage of this process");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// The most memory that this process has held so far, in MiB.
fn peak_mib() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).expect("getrusage of this process").max_rss() / 1024
}

/// Runs `work` and adds the CPU time that it took to `total`.
fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let before = cpu_time();
    let result = work();
    *total += cpu_time() - before;
    result
}

fn main() {
    let argument = |place: usize, default: usize| {
        std::env::args().nth(place).map_or(default, |text| text.parse().expect("arguments are numbers"))
    };
    let (n_layers, n_rows, width) = (argument(1, 13), argument(2, 3000), argument(3, 768));
    let threads = argument(4, 2);
    tch::set_num_threads(1);
    let metrics: Vec<MetricSpec> = MetricName::DEFAULT.into_iter().map(MetricSpec::new).collect();
    let synthetic = Synthetic { n_layers, n_rows, width };
    let layers: Vec<Vec<f32>> =
        (0..n_layers).map(|layer| synthetic.layer(layer).into_iter().map(|x| x as f32).collect()).collect();
    let source = InMemory { layers, width };
    let rows: Vec<u32> = (0..source.n_rows()).collect();
    let base_mib = peak_mib();

    let (wall, cpu) = (Instant::now(), cpu_time());
    let result = run_trial(
        &source,
        &rows,
        None,
        Wanted { metrics: &metrics, layer_metrics: &[] },
        &Resources::available(threads),
        &|_| true,
    )
    .expect("synthetic layers are regular");
    let (wall, cpu) = (wall.elapsed(), cpu_time() - cpu);
    println!("{n_layers} layers of {n_rows} x {width}, {} metrics, {threads} threads", metrics.len());
    println!("one trial: {:.2} s wall, {:.2} s CPU", wall.as_secs_f64(), cpu.as_secs_f64());
    let estimate =
        trial_memory_bytes(source.n_rows(), &vec![width as u32; n_layers], &metrics, &[], threads) >> 20;
    println!("peak memory {} MiB, before the trial {base_mib} MiB, estimate {estimate} MiB", peak_mib());
    for (spec, matrix) in &result.matrices {
        println!("  {}: first against last layer {:.9}", spec.name, matrix[n_layers - 1]);
    }

    if let Some(choice) = std::env::args().nth(5) {
        let chosen = device::open(choice.parse().expect("a device")).expect("a device that works");
        let resources = Resources { tensors: Some(chosen.device), ..Resources::available(threads) };
        for run in ["first", "second"] {
            let wall = Instant::now();
            let wanted = Wanted { metrics: &metrics, layer_metrics: &[] };
            let there = run_trial(&source, &rows, None, wanted, &resources, &|_| true)
                .expect("synthetic layers are regular");
            println!("on {}, {run} trial: {:.3} s wall", chosen.reason, wall.elapsed().as_secs_f64());
            for ((spec, here), (_, there)) in result.matrices.iter().zip(&there.matrices) {
                let error = here.iter().zip(there).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                println!("  {}: at most {error:.1e} from the CPU", spec.name);
            }
        }
    }

    // The same work, one step at a time on one thread.
    let mut steps = vec![("layer", Duration::ZERO), ("gram", Duration::ZERO)];
    let first_metric = steps.len();
    steps.extend(metrics.iter().map(|spec| (spec.name.as_str(), Duration::ZERO)));
    let mut parts: Vec<Vec<_>> = metrics.iter().map(|_| Vec::new()).collect();
    let mut product = Duration::ZERO;
    for layer in 0..n_layers {
        let layer_rows = source.rows(layer, &rows).expect("rows in memory");
        let layer = timed(&mut steps[0].1, || Layer::new(layer_rows.values, width)).expect("a regular layer");
        let gram = timed(&mut steps[1].1, || centred_gram(&layer)).expect("a product");
        let mut pairs = Pairs::new(&layer, &gram);
        let mut right = Vec::new();
        for (place, spec) in metrics.iter().enumerate() {
            let part = timed(&mut steps[first_metric + place].1, || {
                let (Source::Pairs(reads, prepare) | Source::Either { reads, prepare, .. }) =
                    metric(spec).source
                else {
                    unreachable!("the default metrics read pairs");
                };
                let mut part = prepare(spec, &layer);
                for i in 0..n_rows {
                    let own = pairs.row(reads, i, &mut right);
                    part.row(i, own, &right);
                }
                part.finish()
            });
            parts[place].push(part.expect("a regular layer"));
        }
        let size = [n_rows as i64, width as i64];
        let x = Tensor::from_slice(&layer.values).view(size).to_kind(Kind::Double);
        drop(timed(&mut product, || x.matmul(&x.tr())));
    }
    let mut combine = Duration::ZERO;
    timed(&mut combine, || {
        for (spec, parts) in metrics.iter().zip(&parts) {
            let parts: Vec<_> = parts.iter().map(Some).collect();
            let memo = Memo::default();
            let sides = Sides { spec, a: &parts, b: None, memo: &memo };
            (metric(spec).combine)(&sides).expect("parts of regular layers");
        }
    });
    steps.push(("all pairs", combine));
    let total: Duration = steps.iter().map(|(_, time)| *time).sum();
    println!("steps, CPU time on one thread:");
    for (name, time) in &steps {
        let share = 100.0 * time.as_secs_f64() / total.as_secs_f64();
        println!("  {name:20} {:6.3} s {share:5.1} %", time.as_secs_f64());
    }
    let flop = 2.0 * n_layers as f64 * (n_rows * n_rows * width) as f64;
    println!(
        "full float64 products alone: {:.3} s ({:.0} GFLOP/s); the trial takes {:.2} times that",
        product.as_secs_f64(),
        flop / product.as_secs_f64() / 1e9,
        cpu.as_secs_f64() / product.as_secs_f64()
    );
}
