//! Where a model's files are: a folder, or a hub's repository, of which as much is fetched as is needed.
//!
//! [`local`] and [`fetch_from_hub`] give a folder, [`ModelFolder::pin`] digests the files that matter and reads their headers,
//! [`open`] opens them again later, and [`OpenModel::verify_while`] refuses any file that has changed since.

mod facts;
mod from_hub;
pub mod remote;
mod weights;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use crate::architecture::checkpoint::{Checkpoint, MatchError, matched};
use crate::architecture::{self, Architecture, ArchitectureError, Layout};
use crate::checkpoint::{self, CheckpointError, WeightFile};
use crate::exported_graph::{self, ExportedGraph, ExportedGraphError};
use crate::failure::FailureClass;
use crate::hub::HubError;
use crate::hub::settings::expand_home;
use crate::id::Digest;
use crate::model::{PinnedFile, PinnedModel};
use crate::tokenize::{TokenizeError, Tokenizer, TokenizerFiles};

use remote::RemoteModelError;
use weights::{FoundWeights, is_weights_to_load};

pub use from_hub::{Fetch, fetch_from_hub, pin_from_hub};

/// The config.
pub const CONFIG: &str = "config.json";
/// Files read as a whole are not larger than this; the largest tokenizer.json has some 40 MB.
const SMALL_FILE_BYTES_MAX: u64 = 256 << 20;

/// What a model is, as far as its config says.
#[derive(Clone, Debug, PartialEq)]
pub enum Description {
    /// One of the architectures that are built from parts.
    Native(Box<Architecture>),
    /// A graph that the user exported.
    Exported(ExportedGraph),
}

impl Description {
    /// A graph where there is the description of one, else what the config says.
    fn read(id: &str, config: &[u8], graph: Option<&[u8]>) -> Result<Self, ModelSourceError> {
        if let Some(graph) = graph {
            let graph = ExportedGraph::read(graph);
            let failed = |source| ModelSourceError::ExportedGraph { id: id.to_owned(), source };
            return graph.map(Self::Exported).map_err(failed);
        }
        let failed = |source| ModelSourceError::Architecture { id: id.to_owned(), source };
        architecture::read(config).map(|found| Self::Native(Box::new(found))).map_err(failed)
    }

    /// Rows of the token embedding; every token id must be below it.
    pub fn vocab_size(&self) -> u32 {
        match self {
            Self::Native(architecture) => architecture.vocab_size(),
            Self::Exported(graph) => graph.vocab_size,
        }
    }

    /// The most tokens of a text, if there is a limit.
    pub fn position_limit(&self) -> Option<u32> {
        match self {
            Self::Native(architecture) => architecture.position_limit,
            Self::Exported(graph) => graph.max_length,
        }
    }

    /// Width of each entry of the hidden states.
    pub fn widths(&self) -> Vec<u32> {
        match self {
            Self::Native(architecture) => {
                (0..architecture.n_layers()).map(|layer| architecture.width(layer)).collect()
            }
            Self::Exported(graph) => graph.widths.clone(),
        }
    }
}

/// A folder that should hold a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFolder {
    /// As the user named it.
    pub id: String,
    /// The commit, where the folder is a snapshot of a hub repository.
    pub revision: Option<String>,
    /// The folder.
    pub folder: PathBuf,
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelSourceError {
    /// Written as a path, but nothing is there.
    #[error("model folder {} does not exist or is no folder", .0.display())]
    NoFolder(PathBuf),
    /// Neither a path nor a hub id.
    #[error("{0:?} is neither a folder nor a hub id (owner/name)")]
    MalformedId(String),
    /// A revision given for a folder.
    #[error("model {id:?} is a folder and has no revision {revision:?}; leave the revision out")]
    FolderRevision {
        /// As the user named it.
        id: String,
        /// As asked for.
        revision: String,
    },
    /// The hub gave no answer, or a bad one.
    #[error("model {id:?} cannot be had from its hub")]
    Hub {
        /// Which model.
        id: String,
        /// Why.
        #[source]
        source: Box<HubError>,
    },
    /// The files of the repository make no model.
    #[error("model {id:?} cannot be used")]
    Remote {
        /// Which model.
        id: String,
        /// Why.
        #[source]
        source: Box<RemoteModelError>,
    },
    /// The folder lacks a file that every model has.
    #[error("model folder {} has no {file}; fetch the model again", .folder.display())]
    Missing {
        /// Where.
        folder: PathBuf,
        /// Which.
        file: &'static str,
    },
    /// The weights are there in another form, or not at all.
    #[error(
        "model folder {} has no weights that can be read{found}; supported: {}",
        .folder.display(), weights::supported()
    )]
    Weights {
        /// Where.
        folder: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// The folder lacks a part of the weights.
    #[error("model folder {} has no {file:?}, which {index} lists; fetch the model again", .folder.display())]
    MissingShard {
        /// Where.
        folder: PathBuf,
        /// Which file.
        file: String,
        /// What lists it.
        index: &'static str,
    },
    /// Reading failed.
    #[error("cannot read {}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of a size that cannot be right.
    #[error("{} has {size} bytes; at most {SMALL_FILE_BYTES_MAX} make sense for such a file", .path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Not the file that was pinned.
    #[error(
        "{} has changed since the model was resolved (SHA-256 {found}, expected {expected}); \
         resolve again, or put the old file back",
        .path.display()
    )]
    Changed {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is; its size where that differs already.
        found: String,
    },
    /// A pinned file whose name would leave the folder.
    #[error("file name {0:?} of a pinned model is malformed")]
    MalformedName(String),
    /// The config is not one of a supported model.
    #[error("model {id:?} cannot be used")]
    Architecture {
        /// Which model.
        id: String,
        /// Why.
        #[source]
        source: ArchitectureError,
    },
    /// The description of the model's graph is not one.
    #[error("the exported graph of model {id:?} cannot be used")]
    ExportedGraph {
        /// Which model.
        id: String,
        /// Why.
        #[source]
        source: ExportedGraphError,
    },
    /// The weights are damaged.
    #[error("the weights in {} cannot be used", .folder.display())]
    Checkpoint {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// The weights do not fit the config.
    #[error("the weights in {} cannot be used", .folder.display())]
    Match {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: MatchError,
    },
    /// The tokenizer's files make no tokenizer.
    #[error("the tokenizer of model {id:?} cannot be used")]
    Tokenizer {
        /// Which model.
        id: String,
        /// Why.
        #[source]
        source: TokenizeError,
    },
}

impl ModelSourceError {
    /// Whether the rights of whoever asks a hub do not suffice.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Hub { source, .. } => source.is_refused(),
            Self::Remote { source, .. } => {
                matches!(&**source, RemoteModelError::Hub(error) if error.is_refused())
            }
            _ => false,
        }
    }

    /// Trouble with reading may pass; a model that is not what it should be stays so.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Hub { source, .. } => source.failure_class(),
            Self::Remote { source, .. } => source.failure_class(),
            Self::Io { .. } | Self::Checkpoint { source: CheckpointError::Io { .. }, .. } => {
                FailureClass::Retry
            }
            Self::NoFolder(_)
            | Self::MalformedId(_)
            | Self::FolderRevision { .. }
            | Self::Missing { .. }
            | Self::Weights { .. }
            | Self::MissingShard { .. }
            | Self::TooLarge { .. }
            | Self::Changed { .. }
            | Self::MalformedName(_)
            | Self::Architecture { .. }
            | Self::ExportedGraph { .. }
            | Self::Checkpoint { .. }
            | Self::Match { .. }
            | Self::Tokenizer { .. } => FailureClass::Reject,
        }
    }
}

/// The folder that `id` names, or nothing where it is a hub id.
///
/// What exists as a folder, or starts with `.`, `/` or `~`, is a folder, and has no revision.
pub fn local(id: &str, revision: Option<&str>) -> Result<Option<ModelFolder>, ModelSourceError> {
    let path = expand_home(id);
    if id.is_empty() || !(path.is_dir() || id.starts_with(['.', '/', '~'])) {
        return Ok(None);
    }
    if let Some(revision) = revision {
        let (id, revision) = (id.to_owned(), revision.to_owned());
        return Err(ModelSourceError::FolderRevision { id, revision });
    }
    let folder = path.canonicalize().ok().filter(|path| path.is_dir());
    let folder = folder.ok_or(ModelSourceError::NoFolder(path))?;
    Ok(Some(ModelFolder { id: id.to_owned(), revision: None, folder }))
}

/// Splits `owner/name@revision`; a path is left whole.
pub fn split_revision(text: &str) -> (&str, Option<&str>) {
    if text.starts_with(['.', '/', '~']) || Path::new(text).is_dir() {
        return (text, None);
    }
    match text.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (text, None),
    }
}

impl ModelFolder {
    /// What the model is, from its config or the description of its graph; no weights are looked at.
    pub fn describe(&self) -> Result<Description, ModelSourceError> {
        self.described(&mut Vec::new()).map(|(description, _)| description)
    }

    fn described(&self, files: &mut Vec<PinnedFile>) -> Result<(Description, Vec<u8>), ModelSourceError> {
        let config = self.small_file(CONFIG, files)?;
        let config = config.ok_or(ModelSourceError::Missing { folder: self.folder.clone(), file: CONFIG })?;
        let graph = self.small_file(exported_graph::DESCRIPTION, files)?;
        Ok((Description::read(&self.id, &config, graph.as_deref())?, config))
    }

    /// Digests the files of the model and reads what config, tokenizer and the weights' headers say.
    ///
    /// Everything that can be wrong without loading weights is found here.
    pub fn pin(&self) -> Result<PinnedModel, ModelSourceError> {
        self.pin_knowing(&BTreeMap::new())
    }

    /// As [`Self::pin`]; weight files whose digest is known already are not read to find it.
    fn pin_knowing(&self, known: &BTreeMap<String, Digest>) -> Result<PinnedModel, ModelSourceError> {
        let mut files = Vec::new();
        let (description, config) = self.described(&mut files)?;
        let mut tokenizer = TokenizerFiles::read(|name| self.small_file(name, &mut files))?;
        tokenizer.config_json = Some(config);
        let tokenizer = Tokenizer::load(&tokenizer)
            .map_err(|source| ModelSourceError::Tokenizer { id: self.id.clone(), source })?;
        let found = match &description {
            Description::Native(_) => weights::find(self, &mut files)?,
            Description::Exported(_) => weights::graph(self)?,
        };
        let digests = weights::digests(&self.folder, &found.files, known)?;
        for (file, sha256) in found.files.iter().zip(digests) {
            files.push(PinnedFile { name: file.name.clone(), size: file.size, sha256 });
        }
        let facts = match &description {
            Description::Native(architecture) => {
                let checkpoint = self.checkpoint(&found, &architecture.layout())?;
                facts::native(architecture, &checkpoint, &tokenizer)
            }
            Description::Exported(graph) => {
                facts::exported(graph, found.files.iter().map(|file| file.size).sum(), &tokenizer)
            }
        };
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let (id, revision, folder) = (self.id.clone(), self.revision.clone(), self.folder.clone());
        Ok(PinnedModel { id, revision, folder, files, facts })
    }

    /// The content of a file that may be absent; its digest goes to `files`.
    fn small_file(
        &self,
        name: &str,
        files: &mut Vec<PinnedFile>,
    ) -> Result<Option<Vec<u8>>, ModelSourceError> {
        let path = self.folder.join(name);
        let content = match File::open(&path) {
            Ok(file) => read_small(&path, file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path, error)),
        };
        let sha256 = Digest::of(&content);
        files.push(PinnedFile { name: name.to_owned(), size: content.len() as u64, sha256 });
        Ok(Some(content))
    }

    /// Where the encoder's tensors lie, which must be those that the index lists and the config implies.
    fn checkpoint(&self, found: &FoundWeights, layout: &Layout) -> Result<Checkpoint, ModelSourceError> {
        let damaged = |source| ModelSourceError::Checkpoint { folder: self.folder.clone(), source };
        let stored = checkpoint::read(&found.files).map_err(damaged)?;
        if let Some(index) = &found.index {
            index.check(&found.files, &stored).map_err(damaged)?;
        }
        matched(&stored, layout)
            .map_err(|source| ModelSourceError::Match { folder: self.folder.clone(), source })
    }
}

/// The files of a pinned model, open. All but the weights were found to be what was pinned.
pub struct OpenModel {
    /// What the model is.
    pub description: Description,
    /// The files of the tokenizer, and config.json.
    pub tokenizer: TokenizerFiles,
    /// The weights, open for reading at any offset; several files where an index lists them.
    pub weights: Vec<WeightFile>,
    pinned_weights: Vec<PinnedFile>,
    folder: PathBuf,
}

/// Opens the files of `model` in `folder`, checks the digest of each but the weights, and the size of those.
pub fn open(model: &PinnedModel, folder: &Path) -> Result<OpenModel, ModelSourceError> {
    let missing = |file| ModelSourceError::Missing { folder: folder.to_owned(), file };
    let mut description = None;
    let mut tokenizer = TokenizerFiles::default();
    let mut pinned_weights = Vec::new();
    for pinned in &model.files {
        let name = pinned.name.as_str();
        if is_weights_to_load(name) {
            pinned_weights.push(pinned.clone());
            continue;
        }
        // Before anything is opened: another name could lead out of the folder.
        let is_known =
            TokenizerFiles::knows(name) || weights::is_index(name) || name == exported_graph::DESCRIPTION;
        if !is_known {
            return Err(ModelSourceError::MalformedName(name.to_owned()));
        }
        let path = folder.join(&pinned.name);
        let file = File::open(&path).map_err(|source| io_error(&path, source))?;
        let content = read_small(&path, file)?;
        check_size(pinned, &path, content.len() as u64)?;
        check_digest(pinned, &path, Digest::of(&content))?;
        if name == exported_graph::DESCRIPTION {
            description = Some(content);
        } else {
            tokenizer.insert(name, content);
        }
    }
    let config = tokenizer.config_json.clone().ok_or_else(|| missing(CONFIG))?;
    Ok(OpenModel {
        description: Description::read(&model.id, &config, description.as_deref())?,
        tokenizer,
        weights: weights::open_pinned(&pinned_weights, folder)?,
        pinned_weights,
        folder: folder.to_owned(),
    })
}

impl OpenModel {
    /// What `load` makes of the model, if the weights are what was pinned.
    ///
    /// The weights are digested while `load` reads them, so that the disk is read once. `load` may meet bytes that
    /// nobody vouches for, and what it makes of them is thrown away; the files stay open, so that one swapped afterwards
    /// changes nothing. A graph, which is more than numbers, is digested before `load` sees it.
    pub fn verify_while<T>(&self, load: impl FnOnce() -> T) -> Result<T, ModelSourceError> {
        if let Description::Exported(_) = self.description {
            self.verify_weights()?;
            return Ok(load());
        }
        thread::scope(|scope| {
            let verified = scope.spawn(|| self.verify_weights());
            let loaded = load();
            verified.join().expect("digesting does not panic").map(|()| loaded)
        })
    }

    fn verify_weights(&self) -> Result<(), ModelSourceError> {
        let digests = weights::digests(&self.folder, &self.weights, &BTreeMap::new())?;
        let mut pairs = self.pinned_weights.iter().zip(digests);
        pairs.try_for_each(|(pinned, found)| check_digest(pinned, &self.folder.join(&pinned.name), found))
    }
}

fn check_size(pinned: &PinnedFile, path: &Path, size: u64) -> Result<(), ModelSourceError> {
    if size == pinned.size {
        return Ok(());
    }
    changed(pinned, path, format!("of {size} bytes instead of {}", pinned.size))
}

fn check_digest(pinned: &PinnedFile, path: &Path, sha256: Digest) -> Result<(), ModelSourceError> {
    if sha256 == pinned.sha256 {
        return Ok(());
    }
    changed(pinned, path, sha256.to_string())
}

fn changed(pinned: &PinnedFile, path: &Path, found: String) -> Result<(), ModelSourceError> {
    Err(ModelSourceError::Changed { path: path.to_owned(), expected: pinned.sha256.to_string(), found })
}

fn read_small(path: &Path, file: File) -> Result<Vec<u8>, ModelSourceError> {
    let mut content = Vec::new();
    file.take(SMALL_FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(|source| io_error(path, source))?;
    let size = content.len() as u64;
    if size > SMALL_FILE_BYTES_MAX {
        return Err(ModelSourceError::TooLarge { path: path.to_owned(), size });
    }
    Ok(content)
}

fn io_error(path: &Path, source: io::Error) -> ModelSourceError {
    ModelSourceError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_never_taken_for_a_hub_id() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let refuse = |id: &str, revision: Option<&str>, expected: &str| {
            let error = local(id, revision).expect_err(id).to_string();
            assert!(error.contains(expected), "{id}: {error}");
        };
        refuse("./nothing-here", None, "does not exist");
        refuse("/nothing/here", None, "does not exist");
        let path = folder.path().to_str().expect("utf-8");
        refuse(path, Some("main"), "leave the revision out");
        assert!(local(path, None).is_ok_and(|found| found.is_some()));
        for id in ["", "a/b/c", "some/model", "some-model"] {
            assert_eq!(local(id, Some("main")).ok(), Some(None), "{id}");
        }
    }

    #[test]
    fn revisions_split_off_ids_and_not_off_paths() {
        assert_eq!(split_revision("a/b@v1"), ("a/b", Some("v1")));
        assert_eq!(split_revision("a/b"), ("a/b", None));
        assert_eq!(split_revision("./a@b"), ("./a@b", None));
    }

    #[test]
    fn weights_in_other_forms_are_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let config = r#"{"model_type": "bert"}"#;
        std::fs::write(folder.path().join(CONFIG), config).expect("written");
        std::fs::write(folder.path().join("vocab.txt"), "[UNK]\n[CLS]\n[SEP]\n").expect("written");
        for name in ["tf_model.h5", "some.Q4.gguf", "readme.h5"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let model = ModelFolder { id: "x".into(), revision: None, folder: folder.path().into() };
        let error = model.pin().expect_err("no weights").to_string();
        assert!(error.contains("only some.Q4.gguf, tf_model.h5; supported: model.safetensors, "), "{error}");
        assert!(error.contains("pytorch_model.bin.index.json"), "{error}");
    }
}
