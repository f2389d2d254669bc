//! Loads a synthetic 3 B model from shards and says how long it took and how much memory, beside reading its files.
//!
//! ```text
//! cargo run --release -p lsa-worker --example load_bench -- FOLDER [llama|t5] [float32|float16|bfloat16]
//! ```
//!
//! FOLDER gets some 6 GB of shards the first time. Reading is measured first, into a small buffer and into memory that
//! holds all of it; the kernel is asked to forget the files before each measurement, so all start from the disk.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

use lsa_common::architecture;
use lsa_common::model::{Dtype, PinnedModel};
use lsa_common::model_source;
use lsa_worker::device;
use lsa_worker::extract::Extractor;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::{Map, json};
use tch::Device;

const LLAMA: &str = r#"{"model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192,
    "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 500000.0, "tie_word_embeddings": true}"#;
const T5: &str = r#"{"model_type": "t5", "d_model": 2048, "d_kv": 128, "d_ff": 16384, "num_heads": 64,
    "num_layers": 24, "vocab_size": 32128, "feed_forward_proj": "relu"}"#;
const SHARD_BYTES_MAX: usize = 2 << 30;
const TOKENIZER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models/open/t5/tokenizer.json");

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rest @ ..] = args.as_slice() else { return Err("which folder?".into()) };
    let kind = rest.first().map_or("llama", String::as_str);
    let dtype = Dtype::parse(rest.get(1).map_or("float16", String::as_str)).ok_or("unknown dtype")?;
    let folder = Path::new(folder).join(kind);
    if !folder.join("model.safetensors.index.json").is_file() {
        write_model(&folder, if kind == "t5" { T5 } else { LLAMA })?;
    }
    device::prepare_libtorch();
    let found = model_source::local(folder.to_str().ok_or("not UTF-8")?, None)?.ok_or("no folder")?;
    let started = Instant::now();
    let model = found.pin()?;
    println!("pinned (read and digested once): {:.1} s", started.elapsed().as_secs_f64());

    forget(&model, &folder)?;
    let started = Instant::now();
    let n_bytes = read_all(&model, &folder)?;
    let reading = started.elapsed().as_secs_f64();
    println!("reading {:.2} GB: {reading:.1} s", n_bytes as f64 / 1e9);

    forget(&model, &folder)?;
    let started = Instant::now();
    let whole: Vec<Vec<u8>> =
        model.files.iter().map(|file| fs::read(folder.join(&file.name))).collect::<Result<_, _>>()?;
    let holding = started.elapsed().as_secs_f64();
    drop(whole);
    println!("reading into memory that holds all of it: {holding:.1} s");
    reset_peak()?;

    forget(&model, &folder)?;
    let before = peak_bytes()?;
    let started = Instant::now();
    let extractor = Extractor::load(&model, &folder, dtype, Device::Cpu)?;
    let loading = started.elapsed().as_secs_f64();
    let weights = model.facts.n_params * dtype.bytes();
    let peak = peak_bytes()?;
    println!(
        "loading into {dtype}, digests checked: {loading:.1} s, {:.2} times as long as reading, {:.2} times as long as \
         reading into memory",
        loading / reading,
        loading / holding
    );
    println!(
        "{} parameters, {} layers; peak memory {:.2} GB (before: {:.2} GB), {:.3} times the weights' {:.2} GB",
        model.facts.n_params,
        extractor.n_layers(),
        peak as f64 / 1e9,
        before as f64 / 1e9,
        peak as f64 / weights as f64,
        weights as f64 / 1e9,
    );
    Ok(())
}

/// Shards of float16 numbers that are small, and no two parts alike.
fn write_model(folder: &Path, config: &str) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("config.json"), config)?;
    fs::copy(TOKENIZER, folder.join("tokenizer.json"))?;
    let layout = architecture::read(config.as_bytes())?.layout();
    let mut shards: Vec<Vec<(String, Vec<u32>)>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in layout.tensors {
        let size = 2 * tensor.shape.iter().map(|side| *side as usize).product::<usize>();
        if filled + size > SHARD_BYTES_MAX && filled > 0 {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        shards.last_mut().expect("there is one").push((tensor.name, tensor.shape));
    }
    let mut weight_map = Map::new();
    let mut state = 1u64;
    for (place, tensors) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", place + 1, shards.len());
        println!("writing {name}");
        let mut header = Map::new();
        let mut end = 0;
        for (tensor, shape) in tensors {
            let start = end;
            end += 2 * shape.iter().map(|side| *side as usize).product::<usize>();
            header.insert(
                tensor.clone(),
                json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}),
            );
            weight_map.insert(tensor.clone(), json!(name));
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join(&name))?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for _ in 0..end / 8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Exponents of four float16 numbers between 2^-8 and 2^-5, signs and fractions as they come.
            let word = (state ^ (state >> 29)) & 0x8fff_8fff_8fff_8fff | 0x2000_2000_2000_2000;
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&vec![0u8; end % 8])?;
        file.flush()?;
        file.get_ref().sync_all()?;
    }
    let index = json!({"metadata": {}, "weight_map": weight_map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
    Ok(())
}

fn forget(model: &PinnedModel, folder: &Path) -> Result<(), Box<dyn Error>> {
    for file in &model.files {
        let file = File::open(folder.join(&file.name))?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}

fn read_all(model: &PinnedModel, folder: &Path) -> Result<u64, Box<dyn Error>> {
    let mut piece = vec![0u8; 16 << 20];
    let mut total = 0;
    for file in &model.files {
        let mut file = File::open(folder.join(&file.name))?;
        loop {
            match file.read(&mut piece)? {
                0 => break,
                n_bytes => total += n_bytes as u64,
            }
        }
    }
    Ok(total)
}

fn reset_peak() -> Result<(), Box<dyn Error>> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

fn peak_bytes() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? << 10)
}
