//! The tensors of some weight files against those that a config implies; no tensor is read.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::Dtype;

use super::{Layout, Parameter};
use crate::checkpoint::{StoredTensor, StoredTensors, listed};

/// The tensors of an encoder, by their names in the family's own words.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Exactly the expected tensors, those of the pooler only where all of them are there.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// Whether a trained pooler is there.
    pub has_pooler: bool,
}

/// Why the weights are not those of the encoder that a config describes.
#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    /// No token embedding: the weights belong to another architecture.
    #[error(
        "no tensor named \"{0}\", with or without a prefix; weights and config.json must come from one model"
    )]
    NoAnchor(&'static str),
    /// Several encoders, and no way to know which is meant.
    #[error("several encoders in one checkpoint: {0}; keep one of them")]
    Ambiguous(String),
    /// Tensors are missing, unknown, misshapen or of a number format that cannot be used.
    #[error("weights and config.json disagree: {0}; take both files from one revision")]
    Mismatch(String),
}

/// Finds the encoder among the tensors of a checkpoint.
///
/// Task heads, position ids and a task prefix (`bert.` …) are ignored; `gamma` and `beta` of old checkpoints
/// are `weight` and `bias`. All faults are reported in one error.
pub fn matched(stored: &StoredTensors, layout: &Layout) -> Result<Checkpoint, MatchError> {
    complete(encoder_tensors(stored, layout)?, layout)
}

/// The tensors that belong to the encoder, renamed.
fn encoder_tensors(
    stored: &StoredTensors,
    layout: &Layout,
) -> Result<BTreeMap<String, StoredTensor>, MatchError> {
    let anchors = layout.naming.anchors;
    let prefixes_of = |anchor: &&'static str| {
        let mut prefixes: Vec<&str> = stored.tensors.keys().filter_map(|name| prefix(name, anchor)).collect();
        prefixes.sort_unstable();
        prefixes
    };
    let anchor = anchors.iter().find(|anchor| !prefixes_of(anchor).is_empty()).unwrap_or(&anchors[0]);
    let prefixes = prefixes_of(anchor);
    let prefix = match prefixes[..] {
        [] => return Err(MatchError::NoAnchor(anchor)),
        [prefix] => prefix,
        _ => {
            return Err(MatchError::Ambiguous(listed(prefixes.iter().map(|p| format!("{p:?}")).collect())));
        }
    };
    let owned = owned(layout);
    let mut found = BTreeMap::new();
    for (stored_name, tensor) in &stored.tensors {
        let Some(name) = stored_name.strip_prefix(prefix) else { continue };
        // The same embedding under another of its names.
        let is_alias = anchors.contains(&name) && name != *anchor;
        let is_owned = name.split('.').next().is_some_and(|part| owned.contains(part));
        if !is_owned || is_alias || layout.naming.ignored.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let name = if name == *anchor { anchors[0] } else { name };
        if found.insert(modern(name), tensor.clone()).is_some() {
            return Err(MatchError::Mismatch(format!("tensor \"{}\" is there twice", modern(name))));
        }
    }
    Ok(found)
}

/// First parts of the names of an encoder's tensors; a name with another beginning is that of a head.
fn owned(layout: &Layout) -> BTreeSet<&str> {
    let parameters = layout.tensors.iter().chain(&layout.pooler);
    parameters.filter_map(|parameter| parameter.name.split('.').next()).collect()
}

/// What stands before `anchor` in `name`, if it ends with it at a dot.
fn prefix<'a>(name: &'a str, anchor: &str) -> Option<&'a str> {
    name.strip_suffix(anchor).filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
}

/// The name with `gamma` and `beta`, as the first checkpoints had them, replaced.
fn modern(name: &str) -> String {
    let renamed = [(".gamma", ".weight"), (".beta", ".bias")];
    let renamed = renamed.iter().find_map(|(old, new)| Some(format!("{}{new}", name.strip_suffix(old)?)));
    renamed.unwrap_or_else(|| name.to_owned())
}

fn complete(found: BTreeMap<String, StoredTensor>, layout: &Layout) -> Result<Checkpoint, MatchError> {
    let is_pooler = |name: &str| layout.pooler.iter().any(|expected| expected.name == name);
    // Part of a pooler is a fault, none of it is not.
    let has_pooler = found.keys().any(|name| is_pooler(name));
    let pooler = if has_pooler { layout.pooler.as_slice() } else { &[] };
    let expected: BTreeMap<&str, &Parameter> =
        layout.tensors.iter().chain(pooler).map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let missing = expected.keys().filter(|name| !found.contains_key(**name));
    let missing: Vec<String> = missing.map(|name| format!("\"{name}\"")).collect();
    let unexpected = found.keys().filter(|name| !expected.contains_key(name.as_str()));
    let unexpected: Vec<String> = unexpected.map(|name| format!("\"{name}\"")).collect();
    let (mut misshapen, mut unusable) = (Vec::new(), Vec::new());
    for (name, tensor) in &found {
        match expected.get(name.as_str()) {
            Some(expected) if !expected.has_shape(&tensor.shape) => misshapen.push(format!(
                "\"{name}\" is {:?} but config.json implies {:?}",
                tensor.shape, expected.shape
            )),
            Some(_) if !matches!(tensor.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64) => {
                unusable.push(format!("\"{name}\" is {:?}", tensor.dtype));
            }
            Some(_) | None => {}
        }
    }
    let faults = [
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshapen", misshapen),
        ("stored in a format other than F16, BF16, F32 or F64", unusable),
    ];
    let faults: Vec<String> = faults
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("{kind}: {}", listed(names)))
        .collect();
    if !faults.is_empty() {
        return Err(MatchError::Mismatch(faults.join("; ")));
    }
    Ok(Checkpoint { tensors: found, has_pooler })
}

#[cfg(test)]
mod tests {
    use super::super::Naming;
    use super::*;

    fn layout() -> Layout {
        Layout {
            naming: Naming {
                anchors: &["embeddings.word.weight", "encoder.word.weight"],
                ignored: &[".position_ids"],
            },
            tensors: vec![
                Parameter::new("embeddings.word.weight", &[4, 2]),
                Parameter::new("encoder.norm.weight", &[2]),
            ],
            pooler: vec![Parameter::new("pooler.weight", &[2, 2]), Parameter::new("pooler.bias", &[2])],
        }
    }

    fn matched_among(tensors: &[(&str, Dtype, &[usize])]) -> Result<Checkpoint, MatchError> {
        let tensor = |dtype, shape: &[usize]| StoredTensor {
            file: 0,
            dtype,
            shape: shape.to_vec(),
            strides: None,
            start: 0,
            size_bytes: 0,
        };
        let tensors = tensors.iter().map(|(name, dtype, shape)| ((*name).to_owned(), tensor(*dtype, shape)));
        matched(&StoredTensors { tensors: tensors.collect() }, &layout())
    }

    #[test]
    fn prefixes_old_names_heads_and_buffers_do_not_matter() {
        let found = matched_among(&[
            ("bert.embeddings.word.weight", Dtype::F32, &[4, 2]),
            ("bert.embeddings.position_ids", Dtype::I64, &[1, 4]),
            ("bert.encoder.norm.gamma", Dtype::F32, &[2]),
            ("cls.predictions.bias", Dtype::F32, &[4]),
        ])
        .expect("complete");
        let names: Vec<&str> = found.tensors.keys().map(String::as_str).collect();
        assert_eq!(names, ["embeddings.word.weight", "encoder.norm.weight"]);
        assert!(!found.has_pooler);
    }

    #[test]
    fn an_embedding_may_be_stored_under_either_name_or_both() {
        let (word, norm) = (&[4usize, 2][..], ("x.encoder.norm.weight", Dtype::F32, &[2usize][..]));
        let names = ["x.embeddings.word.weight", "x.encoder.word.weight"];
        for names in [&names[..1], &names[1..], &names[..]] {
            let embeddings = names.iter().map(|name| (*name, Dtype::F32, word));
            let found = matched_among(&embeddings.chain([norm]).collect::<Vec<_>>()).expect("complete");
            let found: Vec<&str> = found.tensors.keys().map(String::as_str).collect();
            assert_eq!(found, ["embeddings.word.weight", "encoder.norm.weight"], "{names:?}");
        }
    }

    #[test]
    fn all_faults_come_in_one_error() {
        let check = |tensors: &[(&str, Dtype, &[usize])], expected: &[&str]| {
            let error = matched_among(tensors).expect_err("faulty").to_string();
            for part in expected {
                assert!(error.contains(part), "{part:?} not in {error}");
            }
        };
        check(
            &[
                ("embeddings.word.weight", Dtype::F32, &[4, 3]),
                ("encoder.extra", Dtype::F32, &[1]),
                ("pooler.bias", Dtype::F32, &[2]),
            ],
            &[
                "missing: \"encoder.norm.weight\", \"pooler.weight\"",
                "unexpected: \"encoder.extra\"",
                "\"embeddings.word.weight\" is [4, 3] but config.json implies [4, 2]",
            ],
        );
        check(&[("lm_head.weight", Dtype::F32, &[1])], &["no tensor named \"embeddings.word.weight\""]);
        check(
            &[
                ("a.embeddings.word.weight", Dtype::F32, &[4, 2]),
                ("b.embeddings.word.weight", Dtype::F32, &[4, 2]),
            ],
            &["several encoders", "\"a.\", \"b.\""],
        );
        check(
            &[("embeddings.word.weight", Dtype::I32, &[4, 2]), ("encoder.norm.weight", Dtype::F32, &[2])],
            &["\"embeddings.word.weight\" is I32"],
        );
    }
}
