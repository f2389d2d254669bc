//! What a config.json says can be anything: it is read, or refused with a message that names it; nothing else.

use std::fs;
use std::path::Path;

use lsa_common::architecture;
use serde_json::{Value, json};

/// Mutations of each config.
const ROUNDS: u64 = 300;

/// Every config.json of a native architecture among the tiny models, with the name of its folder.
fn configs() -> Vec<(String, Value)> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
    let folders = |path: &Path| -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(path).expect("fixtures").map(|entry| entry.expect("listed").path());
        let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    };
    let models = folders(&models).into_iter().flat_map(|group| folders(&group));
    let config = |folder: std::path::PathBuf| {
        let content = fs::read(folder.join("config.json")).ok()?;
        Some((folder.display().to_string(), serde_json::from_slice(&content).expect("json")))
    };
    let is_native = |(_, config): &(String, Value)| architecture::read(config.to_string().as_bytes()).is_ok();
    models.filter_map(config).filter(is_native).collect()
}

/// Numbers that are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

fn strange(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(1023),
        json!(65_536),
        json!(16_777_216),
        json!(4_294_967_295u64),
        json!(u64::MAX),
        json!(1e300),
        json!(-0.5),
        json!(1e-30),
        json!(4096.0),
        json!(""),
        json!("gelu_10"),
        json!("\u{0}é"),
        json!([]),
        json!([1, "x", null]),
        json!([[["global"], 1_000_000_000]]),
        json!({}),
        json!({"type": "yarn"}),
        json!({"rope_type": "longrope", "short_factor": [0], "long_factor": []}),
        json!({"rope_type": "llama3", "low_freq_factor": 4, "high_freq_factor": 1}),
        json!({"rope_type": "yarn", "factor": 1e300, "beta_fast": 1e-300}),
    ];
    values[random.below(values.len())].clone()
}

#[test]
fn a_config_is_read_or_refused_whatever_it_says() {
    let configs = configs();
    assert!(configs.len() > 20, "only {} configs", configs.len());
    let (mut n_read, mut n_refused) = (0, 0);
    for (number, (name, sound)) in (1u64..).zip(&configs) {
        let mut random = Random(number);
        for round in 0..ROUNDS {
            let mut config = sound.clone();
            for _ in 0..=random.below(3) {
                let fields = config.as_object_mut().expect("an object");
                let keys: Vec<String> = fields.keys().cloned().collect();
                let key = &keys[random.below(keys.len())];
                // A type that nobody knows is refused before anything else is looked at.
                if key == "model_type" {
                    continue;
                }
                if random.below(5) == 0 {
                    fields.remove(key);
                } else {
                    fields.insert(key.clone(), strange(&mut random));
                }
            }
            match architecture::read(config.to_string().as_bytes()) {
                Ok(found) => {
                    n_read += 1;
                    let layout = found.layout();
                    assert!(layout.tensors.len() < 1 << 21, "{name}, round {round}");
                    assert!(
                        found.flop_linear() < u64::MAX / 2 && found.n_layers() > 1,
                        "{name}, round {round}"
                    );
                }
                Err(error) => {
                    n_refused += 1;
                    assert!(error.to_string().contains("config.json"), "{name}, round {round}: {error}");
                }
            }
        }
    }
    // Neither everything nor nothing gets through, so the mutations mean something.
    assert!(n_read > 100 && n_refused > 100, "{n_read} read, {n_refused} refused");
}

#[test]
fn bytes_that_are_no_json_are_refused() {
    for (name, sound) in configs() {
        let text = sound.to_string().into_bytes();
        let mut random = Random(7);
        for _ in 0..50 {
            let mut bytes = text.clone();
            bytes.truncate(random.below(bytes.len()));
            assert!(architecture::read(&bytes).is_err(), "{name}: cut to {} bytes", bytes.len());
        }
    }
}
