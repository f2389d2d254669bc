//! `metadata.json`: where an experiment's numbers come from, and all that is needed to repeat it.
//!
//! The keys that users of earlier scripts know keep their names. Reading is lenient, because `report` also opens
//! the files of those scripts: an unknown key is ignored, a missing one is empty, an odd one is left out and named.

use std::collections::BTreeMap;

use lsa_common::metric::{MetricName, MetricSpec, plain};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The content of `metadata.json`; an empty text, list or 0 means unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The experiment's name.
    pub experiment: String,
    /// The job that made it.
    pub job_id: String,
    /// The model as the user named it: a hub id or a path.
    pub model: String,
    /// The side of the matrices: blocks + 1 where all layers are kept.
    pub num_layers: u32,
    /// Hidden-state index of each row and column of the matrices.
    pub layers: Vec<u32>,
    /// Width of a hidden state.
    pub hidden_size: u32,
    /// How token vectors became one vector per text.
    pub pooling: String,
    /// The dataset as the user named it.
    pub dataset: String,
    /// The split that was read, where the dataset has splits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// How texts were selected from the dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<String>,
    /// Whether repeated texts were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<bool>,
    /// What was done with rows that could not be read: `error` or `skip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_rows: Option<String>,
    /// What was done with texts without tokens: `error` or `skip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_texts: Option<String>,
    /// Texts embedded.
    pub num_samples: u64,
    /// Texts drawn per trial.
    pub sample_size: u64,
    /// Monte Carlo trials.
    pub trials: u32,
    /// The metrics' names, in the order of the run.
    pub metrics: Vec<String>,
    /// Parameters of the metrics that have any: name → parameter → value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metric_parameters: BTreeMap<String, BTreeMap<String, Value>>,
    /// The quantities of single layers, in the order of the run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layer_metrics: Vec<String>,
    /// How far 95 % confidence intervals were to reach at most, where that decided on the number of trials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci_half_width: Option<f64>,
    /// The seed of the trials' draws.
    pub seed: u64,
    /// The longest text in tokens; longer ones were cut.
    pub max_length: u32,
    /// The batch size asked for: the token budget of a batch is `batch_size` · `max_length`.
    pub batch_size: u32,
    /// The number format of the forward pass.
    pub dtype: String,
    /// Commits of hub repositories: `model`, `dataset` → revision.
    pub revisions: BTreeMap<String, String>,
    /// SHA-256 of the files read and the content keys of what was made from them: name → hex digits.
    pub digests: BTreeMap<String, String>,
    /// The numeric profile: what may change the last bits of a result beside the spec.
    pub profile: BTreeMap<String, String>,
    /// Versions of the programs and formats involved: name → version.
    pub versions: BTreeMap<String, String>,
    /// Seconds taken: stage → seconds.
    pub timings: BTreeMap<String, f64>,
    /// Why values of a layer are undefined, by hidden-state index.
    pub undefined: BTreeMap<u32, String>,
    /// What a reader should know before trusting the numbers.
    pub warnings: Vec<String>,
}

impl Metadata {
    /// The text of `metadata.json`: the keys in the order of this struct, indented, one newline at the end.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("keys are texts or integers, values plain data");
        text.push('\n');
        text
    }

    /// Whatever can be read from `json`, and a warning for whatever cannot.
    pub fn read_lenient(json: &[u8]) -> (Self, Vec<String>) {
        let keys = match serde_json::from_slice(json) {
            Ok(serde_json::Value::Object(keys)) => keys,
            Ok(_) => return (Self::default(), vec!["metadata.json is not a JSON object".to_owned()]),
            Err(error) => return (Self::default(), vec![format!("metadata.json is not JSON: {error}")]),
        };
        let mut warnings = Vec::new();
        let mut good = serde_json::Map::new();
        for (key, value) in keys {
            let alone = serde_json::Map::from_iter([(key.clone(), value.clone())]);
            match serde_json::from_value::<Self>(alone.into()) {
                Ok(_) => {
                    good.insert(key, value);
                }
                // An older script's way to say "unknown" deserves no warning.
                Err(_) if value.is_null() => {}
                Err(error) => warnings.push(format!("metadata.json: {key:?} is left out: {error}")),
            }
        }
        match serde_json::from_value(good.into()) {
            Ok(metadata) => (metadata, warnings),
            Err(error) => (Self::default(), vec![format!("metadata.json: {error}")]),
        }
    }

    /// A metric's name for titles: with `k`, and with those other parameters that are not the default.
    pub fn metric_title(&self, metric: &str) -> String {
        let usual = MetricName::parse(metric).map(|name| MetricSpec::new(name).parameters());
        let usual = usual.unwrap_or_default();
        let told = |(name, value): &(&String, &Value)| {
            let default = usual.iter().find(|(usual, _)| usual == name).map(|(_, default)| default);
            *name == "k" || default != Some(value)
        };
        let parameters = self.metric_parameters.get(metric).into_iter().flatten().filter(told);
        let parameters: Vec<String> =
            parameters.map(|(name, value)| format!("{name} = {}", plain(value))).collect();
        match parameters.is_empty() {
            true => metric.to_owned(),
            false => format!("{metric} ({})", parameters.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut metadata = Metadata { model: "m".to_owned(), seed: u64::MAX, ..Metadata::default() };
        metadata.undefined.insert(0, "all rows are equal".to_owned());
        metadata.timings.insert("extract".to_owned(), 1.5);
        let (read, warnings) = Metadata::read_lenient(metadata.to_json().as_bytes());
        assert_eq!(read, metadata);
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn older_files_keep_what_is_good_in_them() {
        let json = br#"{"model": "bert-base-uncased", "num_layers": 13, "pooling": null, "seed": "forty-two",
                        "trials": -1, "extra": [1, 2]}"#;
        let (read, warnings) = Metadata::read_lenient(json);
        assert_eq!(read.model, "bert-base-uncased");
        assert_eq!(read.num_layers, 13);
        assert_eq!(read.pooling, "");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("seed"), "{warnings:?}");
        assert!(warnings[1].contains("trials"), "{warnings:?}");
    }

    #[test]
    fn what_is_not_json_is_a_warning() {
        for bad in [&b""[..], b"[1]", b"{", b"\xff", b"{\"a\": NaN}"] {
            let (read, warnings) = Metadata::read_lenient(bad);
            assert_eq!(read, Metadata::default());
            assert_eq!(warnings.len(), 1);
        }
    }
}
