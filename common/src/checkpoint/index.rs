//! The index of a checkpoint in several files: which tensor is in which.

use std::collections::{BTreeMap, BTreeSet};

use super::{CheckpointError, StoredTensors, WeightFile, is_weight_file, listed, shown};

/// What `*.index.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// The name of the index, for errors.
    name: String,
    /// Tensor → file in the same folder.
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads an index; `name` is its own name. No file name in it leaves the folder.
    pub fn read(name: &str, json: &[u8]) -> Result<Self, CheckpointError> {
        #[derive(serde::Deserialize)]
        struct Fields {
            weight_map: BTreeMap<String, String>,
        }
        let fault = |what: String| CheckpointError::Index { file: name.to_owned(), what };
        let Fields { weight_map } =
            serde_json::from_slice(json).map_err(|error| fault(format!("not an index ({error})")))?;
        if weight_map.is_empty() {
            return Err(fault("the index lists no tensor".into()));
        }
        if let Some(leaving) = weight_map.values().find(|file| !stays_in_folder(file)) {
            return Err(fault(format!("{:?} is no weight file beside the index", shown(leaving))));
        }
        Ok(Self { name: name.to_owned(), weight_map })
    }

    /// The files that it lists, each once, in the order of their names.
    pub fn files(&self) -> Vec<&str> {
        let files: BTreeSet<&str> = self.weight_map.values().map(String::as_str).collect();
        files.into_iter().collect()
    }

    /// That `files` hold the tensors that it lists, each in its file, and no others.
    pub fn check(&self, files: &[WeightFile], stored: &StoredTensors) -> Result<(), CheckpointError> {
        let quoted = |name: &String| format!("{:?}", shown(name));
        let missing = self.weight_map.keys().filter(|name| !stored.tensors.contains_key(*name));
        let unlisted = stored.tensors.keys().filter(|name| !self.weight_map.contains_key(*name));
        let elsewhere = self.weight_map.iter().filter_map(|(name, listed)| {
            let found = &files[stored.tensors.get(name)?.file].name;
            (found != listed).then(|| format!("{} is in {found}, listed in {}", quoted(name), shown(listed)))
        });
        let faults = [
            ("missing", missing.map(quoted).collect::<Vec<_>>()),
            ("not listed", unlisted.map(quoted).collect()),
            ("in another file", elsewhere.collect()),
        ];
        let faults: Vec<String> = faults
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(kind, names)| format!("{kind}: {}", listed(names)))
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(CheckpointError::IndexMismatch { file: self.name.clone(), what: faults.join("; ") })
    }
}

fn stays_in_folder(name: &str) -> bool {
    is_weight_file(name) && !name.contains("..") && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::super::tests::weight_file;
    use super::super::{Dtype, StoredTensor};
    use super::*;

    const NAME: &str = "model.safetensors.index.json";

    fn index(weight_map: serde_json::Value) -> Result<Index, CheckpointError> {
        Index::read(
            NAME,
            serde_json::json!({"metadata": {}, "weight_map": weight_map}).to_string().as_bytes(),
        )
    }

    #[test]
    fn files_beside_the_index_alone() {
        let sound = index(serde_json::json!({"a": "2.bin", "b": "1.bin", "c": "2.bin"})).expect("sound");
        assert_eq!(sound.files(), ["1.bin", "2.bin"]);
        for leaving in [
            "../1.bin",
            "/etc/passwd",
            "a/1.bin",
            "..",
            ".",
            "",
            "a\\1.bin",
            "1\0.bin",
            "a..bin",
            "vocab.txt",
        ] {
            let error =
                index(serde_json::json!({"a": "1.bin", "b": leaving})).expect_err(leaving).to_string();
            assert!(error.contains(NAME) && error.contains("beside the index"), "{leaving}: {error}");
        }
    }

    #[test]
    fn what_is_no_index() {
        let check = |json: &str, expected: &str| {
            let error = Index::read(NAME, json.as_bytes()).expect_err(json).to_string();
            assert!(error.contains(NAME) && error.contains(expected), "{json}: {error}");
        };
        check("", "not an index");
        check("[]", "not an index");
        check("{}", "weight_map");
        check(r#"{"weight_map": {}}"#, "no tensor");
        check(r#"{"weight_map": {"a": 1}}"#, "not an index");
        check(&"[".repeat(100_000), "not an index");
    }

    #[test]
    fn tensors_and_index_must_agree() {
        let index = index(serde_json::json!({"a": "1.bin", "b": "2.bin", "c": "2.bin"})).expect("sound");
        let files = [weight_file("1.bin", b""), weight_file("2.bin", b"")];
        let check = |found: &[(&str, usize)], expected: &str| {
            let tensor = |file| StoredTensor {
                file,
                dtype: Dtype::F32,
                shape: vec![0],
                strides: None,
                start: 0,
                size_bytes: 0,
            };
            let tensors = found.iter().map(|(name, file)| ((*name).to_owned(), tensor(*file))).collect();
            let error = index.check(&files, &StoredTensors { tensors }).err();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected), "{error}");
            assert_eq!(error.is_empty(), expected.is_empty(), "{error}");
        };
        check(&[("a", 0), ("b", 1), ("c", 1)], "");
        check(&[("a", 0)], "missing: \"b\", \"c\"; take");
        check(&[("a", 0), ("b", 1), ("c", 1), ("d", 0)], "not listed: \"d\"");
        check(&[("a", 1), ("b", 1), ("c", 1)], "\"a\" is in 2.bin, listed in 1.bin");
    }
}
