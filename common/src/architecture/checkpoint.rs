//! The header of a safetensors file against the tensors that a config implies; no tensor is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::{Layout, Parameter};

/// Headers beyond this are refused; the largest real ones have a few MB.
const HEADER_BYTES_MAX: u64 = 64 << 20;
/// At most this many names are listed per kind of fault.
const LISTED_MAX: usize = 20;

/// Where one tensor of the encoder lies.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// The number format.
    pub dtype: Dtype,
    /// The shape.
    pub shape: Vec<usize>,
    /// The first byte in the file.
    pub start: u64,
    /// The number of bytes.
    pub size_bytes: u64,
}

/// The tensors of an encoder in a safetensors file, by their names in the family's own words.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Exactly the expected tensors, those of the pooler only where all of them are there.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// Whether a trained pooler is there.
    pub has_pooler: bool,
}

/// Why a file does not hold the encoder that its config describes.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read.
    #[error("cannot read the header")]
    Io(#[from] std::io::Error),
    /// Not safetensors, cut off, or inconsistent in itself.
    #[error("not a sound safetensors file: {0}; fetch it again")]
    Malformed(String),
    /// No token embedding: the file belongs to another architecture.
    #[error(
        "no tensor named \"{0}\", with or without a prefix; weights and config.json must come from one model"
    )]
    NoAnchor(&'static str),
    /// Several encoders, and no way to know which is meant.
    #[error("several encoders in one file: {0}; keep one of them")]
    Ambiguous(String),
    /// Tensors are missing, unknown, misshapen or of a number format that cannot be used.
    #[error("weights and config.json disagree: {0}; take both files from one revision")]
    Mismatch(String),
}

/// Reads the header of a safetensors file of `file_bytes` bytes and finds the encoder in it.
///
/// Task heads, position ids and a task prefix (`bert.` …) are ignored; `gamma` and `beta` of old checkpoints
/// are `weight` and `bias`. All faults are reported in one error.
pub fn read(source: &mut impl Read, file_bytes: u64, layout: &Layout) -> Result<Checkpoint, CheckpointError> {
    let (data_start, header) = read_header(source, file_bytes)?;
    let found = encoder_tensors(&header, data_start, layout)?;
    matched(found, layout)
}

fn read_header(source: &mut impl Read, file_bytes: u64) -> Result<(u64, Metadata), CheckpointError> {
    let malformed = |what: &str| CheckpointError::Malformed(what.to_owned());
    if file_bytes < 8 {
        return Err(malformed("shorter than 8 bytes"));
    }
    let mut length = [0u8; 8];
    source.read_exact(&mut length)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > HEADER_BYTES_MAX || header_bytes > file_bytes - 8 {
        return Err(malformed("the header's length makes no sense"));
    }
    let mut header = Vec::new();
    source.take(header_bytes).read_to_end(&mut header)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| CheckpointError::Malformed(error.to_string()))?;
    let data_start = 8 + header_bytes;
    match data_start.checked_add(metadata.data_len() as u64) {
        Some(end) if end == file_bytes => Ok((data_start, metadata)),
        Some(end) if end > file_bytes => Err(malformed("the file is cut off")),
        _ => Err(malformed("there are bytes behind the last tensor")),
    }
}

/// The tensors that belong to the encoder, renamed.
fn encoder_tensors(
    header: &Metadata,
    data_start: u64,
    layout: &Layout,
) -> Result<BTreeMap<String, StoredTensor>, CheckpointError> {
    let stored = header.tensors();
    let anchors = layout.naming.anchors;
    let prefixes_of = |anchor: &&'static str| {
        let mut prefixes: Vec<&str> = stored.keys().filter_map(|name| prefix(name, anchor)).collect();
        prefixes.sort_unstable();
        prefixes
    };
    let anchor = anchors.iter().find(|anchor| !prefixes_of(anchor).is_empty()).unwrap_or(&anchors[0]);
    let prefixes = prefixes_of(anchor);
    let prefix = match prefixes[..] {
        [] => return Err(CheckpointError::NoAnchor(anchor)),
        [prefix] => prefix,
        _ => {
            return Err(CheckpointError::Ambiguous(listed(
                prefixes.iter().map(|p| format!("{p:?}")).collect(),
            )));
        }
    };
    let owned = owned(layout);
    let mut found = BTreeMap::new();
    for (stored_name, info) in &stored {
        let Some(name) = stored_name.strip_prefix(prefix) else { continue };
        // The same embedding under another of its names.
        let is_alias = anchors.contains(&name) && name != *anchor;
        let is_owned = name.split('.').next().is_some_and(|part| owned.contains(part));
        if !is_owned || is_alias || layout.naming.ignored.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let name = if name == *anchor { anchors[0] } else { name };
        let (start, end) = info.data_offsets;
        let tensor = StoredTensor {
            dtype: info.dtype,
            shape: info.shape.clone(),
            start: data_start + start as u64,
            size_bytes: (end - start) as u64,
        };
        if found.insert(modern(name), tensor).is_some() {
            return Err(CheckpointError::Mismatch(format!("tensor \"{}\" is there twice", modern(name))));
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

fn matched(found: BTreeMap<String, StoredTensor>, layout: &Layout) -> Result<Checkpoint, CheckpointError> {
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
        return Err(CheckpointError::Mismatch(faults.join("; ")));
    }
    Ok(Checkpoint { tensors: found, has_pooler })
}

fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
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

    fn file(tensors: &[(&str, &str, &[usize])]) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, dtype, shape) in tensors {
            let width = if *dtype == "I64" { 8 } else { 4 };
            let start = end;
            end += shape.iter().product::<usize>() * width;
            header.insert(
                (*name).into(),
                serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}),
            );
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + end, 0);
        bytes
    }

    fn read_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        read(&mut &bytes[..], bytes.len() as u64, &layout())
    }

    #[test]
    fn prefixes_old_names_heads_and_buffers_do_not_matter() {
        let bytes = file(&[
            ("bert.embeddings.word.weight", "F32", &[4, 2]),
            ("bert.embeddings.position_ids", "I64", &[1, 4]),
            ("bert.encoder.norm.gamma", "F32", &[2]),
            ("cls.predictions.bias", "F32", &[4]),
        ]);
        let found = read_bytes(&bytes).expect("complete");
        let names: Vec<&str> = found.tensors.keys().map(String::as_str).collect();
        assert_eq!(names, ["embeddings.word.weight", "encoder.norm.weight"]);
        assert!(!found.has_pooler);
    }

    #[test]
    fn an_embedding_may_be_stored_under_either_name_or_both() {
        let (word, norm) = (&[4usize, 2][..], ("x.encoder.norm.weight", "F32", &[2usize][..]));
        let names = ["x.embeddings.word.weight", "x.encoder.word.weight"];
        for names in [&names[..1], &names[1..], &names[..]] {
            let embeddings = names.iter().map(|name| (*name, "F32", word));
            let found = read_bytes(&file(&embeddings.chain([norm]).collect::<Vec<_>>())).expect("complete");
            let found: Vec<&str> = found.tensors.keys().map(String::as_str).collect();
            assert_eq!(found, ["embeddings.word.weight", "encoder.norm.weight"], "{names:?}");
        }
    }

    #[test]
    fn all_faults_come_in_one_error() {
        let check = |tensors: &[(&str, &str, &[usize])], expected: &[&str]| {
            let error = read_bytes(&file(tensors)).expect_err("faulty").to_string();
            for part in expected {
                assert!(error.contains(part), "{part:?} not in {error}");
            }
        };
        check(
            &[
                ("embeddings.word.weight", "F32", &[4, 3]),
                ("encoder.extra", "F32", &[1]),
                ("pooler.bias", "F32", &[2]),
            ],
            &[
                "missing: \"encoder.norm.weight\", \"pooler.weight\"",
                "unexpected: \"encoder.extra\"",
                "\"embeddings.word.weight\" is [4, 3] but config.json implies [4, 2]",
            ],
        );
        check(&[("lm_head.weight", "F32", &[1])], &["no tensor named \"embeddings.word.weight\""]);
        check(
            &[("a.embeddings.word.weight", "F32", &[4, 2]), ("b.embeddings.word.weight", "F32", &[4, 2])],
            &["several encoders", "\"a.\", \"b.\""],
        );
        check(
            &[("embeddings.word.weight", "I32", &[4, 2]), ("encoder.norm.weight", "F32", &[2])],
            &["\"embeddings.word.weight\" is I32"],
        );
    }

    #[test]
    fn damaged_files_are_refused() {
        let sound = file(&[("embeddings.word.weight", "F32", &[4, 2]), ("encoder.norm.weight", "F32", &[2])]);
        assert!(read_bytes(&sound).is_ok());
        for length in 0..sound.len() {
            assert!(read_bytes(&sound[..length]).is_err(), "cut to {length}");
        }
        assert!(read_bytes(&[&sound[..], &[0]].concat()).is_err());
        let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
        assert!(read_bytes(&huge).is_err());
    }
}
