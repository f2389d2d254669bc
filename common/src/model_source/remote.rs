//! Which files of a hub repository make a model: its config, its tokenizer, and its weights in one form.
//!
//! The same files that a folder is read for, chosen before any of them is here.

use std::io;
use std::path::PathBuf;

use super::weights::{self, FORMS};
use super::{CONFIG, SMALL_FILE_BYTES_MAX};
use crate::checkpoint::{CheckpointError, Index};
use crate::exported_graph;
use crate::failure::FailureClass;
use crate::hub::{Hub, HubError, HubFile, Listing, Repo};
use crate::tokenize::TokenizerFiles;

/// Why the files of a repository make no model.
#[derive(Debug, thiserror::Error)]
pub enum RemoteModelError {
    /// A file is missing that every such model has.
    #[error("{repo} has no {file} at commit {commit}")]
    Missing {
        /// Which repository.
        repo: Repo,
        /// At which commit.
        commit: String,
        /// Which file.
        file: &'static str,
    },
    /// The weights are there in another form, or not at all.
    #[error(
        "{repo} has no weights that can be read{found} at commit {commit}; supported: {}",
        weights::supported()
    )]
    Weights {
        /// Which repository.
        repo: Repo,
        /// At which commit.
        commit: String,
        /// What is there instead.
        found: String,
    },
    /// The index lists a file that is not there.
    #[error("{repo} has no {file:?} at commit {commit}, which {index} lists")]
    MissingShard {
        /// Which repository.
        repo: Repo,
        /// At which commit.
        commit: String,
        /// Which file.
        file: String,
        /// What lists it.
        index: String,
    },
    /// The index is none.
    #[error("the weights of {repo} cannot be used")]
    Index {
        /// Which repository.
        repo: Repo,
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// A file of a size that cannot be right.
    #[error("{file} of {repo} has {size} bytes; at most {SMALL_FILE_BYTES_MAX} make sense for such a file")]
    TooLarge {
        /// Which repository.
        repo: Repo,
        /// Which file.
        file: String,
        /// Its size.
        size: u64,
    },
    /// The copy of the index cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The hub did not give the index.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl RemoteModelError {
    /// Trouble with reading may pass; what a repository holds stays so.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Missing { .. }
            | Self::Weights { .. }
            | Self::MissingShard { .. }
            | Self::Index { .. }
            | Self::TooLarge { .. } => FailureClass::Reject,
            Self::Io { .. } => FailureClass::Retry,
            Self::Hub(error) => error.failure_class(),
        }
    }
}

/// The files of the model in `listing`, sorted by path, as far as their names tell: where the weights are in several
/// files, their index ([`weight_index`]) stands for them, and [`shards`] gives the rest.
pub fn model_files(listing: &Listing) -> Result<Vec<HubFile>, RemoteModelError> {
    let missing = |file| {
        let (repo, commit) = (listing.repo.clone(), listing.commit.clone());
        RemoteModelError::Missing { repo, commit, file }
    };
    let named = |name: &'static str| listing.file(name).cloned();
    named(CONFIG).ok_or_else(|| missing(CONFIG))?;
    let tokenizer = listing.files.iter().filter(|file| TokenizerFiles::knows(&file.path));
    let mut files: Vec<HubFile> = tokenizer.cloned().collect();
    if let Some(description) = named(exported_graph::DESCRIPTION) {
        files.push(description);
        files.push(named(exported_graph::GRAPH).ok_or_else(|| missing(exported_graph::GRAPH))?);
    } else {
        let weights = FORMS.iter().find_map(|form| named(form.name));
        files.push(weights.ok_or_else(|| {
            let names = listing.files.iter().map(|file| file.path.clone());
            let (repo, commit) = (listing.repo.clone(), listing.commit.clone());
            RemoteModelError::Weights { repo, commit, found: weights::only_unsupported(names) }
        })?);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The index among the files of a model, where its weights are in several files.
pub fn weight_index(files: &[HubFile]) -> Option<&HubFile> {
    files.iter().find(|file| weights::is_index(&file.path))
}

/// The weight files that `index`, with the content `json`, lists: all in the same folder, and all there.
pub fn shards(listing: &Listing, index: &HubFile, json: &[u8]) -> Result<Vec<HubFile>, RemoteModelError> {
    let damaged = |source| RemoteModelError::Index { repo: listing.repo.clone(), source };
    let found = Index::read(&index.path, json).map_err(damaged)?;
    let shard = |name: &str| {
        listing.file(name).cloned().ok_or_else(|| RemoteModelError::MissingShard {
            repo: listing.repo.clone(),
            commit: listing.commit.clone(),
            file: name.to_owned(),
            index: index.path.clone(),
        })
    };
    found.files().into_iter().map(shard).collect()
}

/// All files of the model in `listing`, sorted by path; the index, where there is one, is fetched from `hub`.
pub fn all_model_files(hub: &dyn Hub, listing: &Listing) -> Result<Vec<HubFile>, RemoteModelError> {
    let mut files = model_files(listing)?;
    let Some(index) = weight_index(&files) else { return Ok(files) };
    if index.size > SMALL_FILE_BYTES_MAX {
        let (repo, file) = (listing.repo.clone(), index.path.clone());
        return Err(RemoteModelError::TooLarge { repo, file, size: index.size });
    }
    let path = hub.fetch(listing, index)?;
    let json = std::fs::read(&path).map_err(|source| RemoteModelError::Io { path, source })?;
    let shards = shards(listing, index, &json)?;
    files.extend(shards);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{ContentId, RepoKind};
    use crate::id::Digest;

    fn listing(paths: &[&str]) -> Listing {
        let file = |path: &&str| {
            let content = ContentId::Sha256(Digest::of(path.as_bytes()));
            HubFile { path: (*path).to_owned(), size: 1, content }
        };
        let mut files: Vec<HubFile> = paths.iter().map(file).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let repo = Repo { kind: RepoKind::Model, id: "a/b".to_owned() };
        Listing { repo, commit: "0".repeat(40), files }
    }

    #[test]
    fn the_mirror_takes_one_form_of_weights() {
        let forms = FORMS.map(|form| form.name);
        let others = ["README.md", "tf_model.h5", "onnx/model.onnx", "onnx/config.json", "tokenizer.json"];
        for first in 0..forms.len() {
            let paths = [&forms[first..], &others, &["config.json", "1_Pooling/config.json"]].concat();
            let files = model_files(&listing(&paths)).expect("a model");
            let mut expected = vec!["config.json", forms[first], "tokenizer.json"];
            expected.sort_unstable();
            assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), expected);
            assert_eq!(weight_index(&files).is_some(), FORMS[first].is_index);
        }
        let graph =
            ["config.json", "hidden_states.json", "hidden_states.pt", "model.safetensors", "vocab.txt"];
        let files = model_files(&listing(&graph)).expect("a model");
        let names: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["config.json", "hidden_states.json", "hidden_states.pt", "vocab.txt"]);
    }

    #[test]
    fn what_is_no_model_for_the_mirror_is_said() {
        let check = |paths: &[&str], expected: &str| {
            let error = model_files(&listing(paths)).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&["model.safetensors"], "no config.json at commit 000");
        check(&["config.json", "tf_model.h5"], "can be read, only tf_model.h5 at commit");
        check(&["config.json", "hidden_states.json", "model.safetensors"], "no hidden_states.pt");
    }

    #[test]
    fn shards_of_the_mirror_stay_beside_their_index() {
        const INDEX: &str = "model.safetensors.index.json";
        let listing = listing(&["config.json", INDEX, "x-1.safetensors", "x-2.safetensors", "y.safetensors"]);
        let index = listing.file(INDEX).expect("listed");
        let read = |map: serde_json::Value| {
            shards(&listing, index, serde_json::json!({"weight_map": map}).to_string().as_bytes())
        };
        let found = read(serde_json::json!({"a": "x-2.safetensors", "b": "x-1.safetensors"})).expect("sound");
        let names: Vec<_> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["x-1.safetensors", "x-2.safetensors"]);
        let error = read(serde_json::json!({"a": "x-3.safetensors"})).expect_err("not there").to_string();
        assert!(error.contains("\"x-3.safetensors\"") && error.contains(INDEX), "{error}");
        for leaving in ["../x-1.safetensors", "/etc/passwd", "a/x-1.safetensors", "config.json", ""] {
            let error = read(serde_json::json!({ "a": leaving })).expect_err(leaving);
            assert!(matches!(error, RemoteModelError::Index { .. }), "{error}");
        }
    }
}
