//! The weights of a model folder: in which of the supported forms they are there, open and digested.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::Digest as _;

use super::{ModelFolder, ModelSourceError, check_size, io_error};
use crate::checkpoint::{Index, WeightFile, is_weight_file};
use crate::exported_graph;
use crate::id::Digest;
use crate::model::PinnedFile;

/// The supported forms, the preferred first: one file, or an index of several.
pub(super) const FORMS: [Form; 4] = [
    Form { name: "model.safetensors", is_index: false },
    Form { name: "model.safetensors.index.json", is_index: true },
    Form { name: "pytorch_model.bin", is_index: false },
    Form { name: "pytorch_model.bin.index.json", is_index: true },
];
/// Files, or their endings, that are recognised only to say that they are not supported.
const UNSUPPORTED: [&str; 4] = ["tf_model.h5", "flax_model.msgpack", "model.onnx", ".gguf"];
/// How much of a file is read and digested at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Digesting is bound by the processor up to here, and by the disk beyond.
const DIGEST_THREADS_MAX: usize = 8;

/// One form of weights.
pub(super) struct Form {
    pub name: &'static str,
    pub is_index: bool,
}

/// The weights that a folder has, open.
pub(super) struct FoundWeights {
    pub files: Vec<WeightFile>,
    /// What lists the files, where there are several.
    pub index: Option<Index>,
}

/// Whether a file of a pinned model is one of its weights, and in the folder itself.
pub(super) fn is_weights_to_load(name: &str) -> bool {
    (is_weight_file(name) || name == exported_graph::GRAPH) && !name.contains('/')
}

/// Opens the graph of a model that was exported.
pub(super) fn graph(folder: &ModelFolder) -> Result<FoundWeights, ModelSourceError> {
    let (name, index) = (exported_graph::GRAPH, exported_graph::DESCRIPTION);
    Ok(FoundWeights { files: vec![shard(&folder.folder, name, index)?], index: None })
}

/// Whether a file of a pinned model is the index of its weights.
pub(super) fn is_index(name: &str) -> bool {
    FORMS.iter().any(|form| form.is_index && form.name == name)
}

/// Opens the weights in the preferred form; the digest of an index goes to `pinned`.
pub(super) fn find(
    folder: &ModelFolder,
    pinned: &mut Vec<PinnedFile>,
) -> Result<FoundWeights, ModelSourceError> {
    for form in FORMS {
        if form.is_index {
            let Some(json) = folder.small_file(form.name, pinned)? else { continue };
            let damaged = |source| ModelSourceError::Checkpoint { folder: folder.folder.clone(), source };
            let index = Index::read(form.name, &json).map_err(damaged)?;
            let files = index.files().into_iter().map(|name| shard(&folder.folder, name, form.name));
            let files = files.collect::<Result<_, _>>()?;
            return Ok(FoundWeights { files, index: Some(index) });
        }
        if let Some(file) = open(&folder.folder, form.name)? {
            return Ok(FoundWeights { files: vec![file], index: None });
        }
    }
    let found = unsupported(&folder.folder);
    Err(ModelSourceError::Weights { folder: folder.folder.clone(), found })
}

/// Opens the weights of a pinned model; their sizes must be those that were pinned.
///
/// That they are all of them was checked when they were pinned.
pub(super) fn open_pinned(pinned: &[PinnedFile], folder: &Path) -> Result<Vec<WeightFile>, ModelSourceError> {
    if pinned.is_empty() {
        return Err(ModelSourceError::Weights { folder: folder.to_owned(), found: unsupported(folder) });
    }
    let opened = |pinned: &PinnedFile| {
        let path = folder.join(&pinned.name);
        let file = File::open(&path).and_then(|file| with_size(&pinned.name, file));
        let file = file.map_err(|source| io_error(&path, source))?;
        check_size(pinned, &path, file.size)?;
        Ok(file)
    };
    pinned.iter().map(opened).collect()
}

/// Opens a weight file, if it is there.
fn open(folder: &Path, name: &str) -> Result<Option<WeightFile>, ModelSourceError> {
    let path = folder.join(name);
    match File::open(&path).and_then(|file| with_size(name, file)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(&path, error)),
    }
}

fn with_size(name: &str, file: File) -> io::Result<WeightFile> {
    let size = file.metadata()?.len();
    Ok(WeightFile { name: name.to_owned(), file, size })
}

/// Opens a weight file that an index lists.
fn shard(folder: &Path, name: &str, index: &'static str) -> Result<WeightFile, ModelSourceError> {
    let missing =
        || ModelSourceError::MissingShard { folder: folder.to_owned(), file: name.to_owned(), index };
    open(folder, name)?.ok_or_else(missing)
}

/// The supported forms, for errors.
pub(super) fn supported() -> String {
    FORMS.map(|form| form.name).join(", ")
}

/// The digests of `files`, in their order; several are read at a time, and those that are `known` not at all.
pub(super) fn digests(
    folder: &Path,
    files: &[WeightFile],
    known: &BTreeMap<String, Digest>,
) -> Result<Vec<Digest>, ModelSourceError> {
    let next = AtomicUsize::new(0);
    let n_threads = thread::available_parallelism().map_or(1, usize::from).min(DIGEST_THREADS_MAX);
    let some = || {
        let mut done = Vec::new();
        while let Some((place, file)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            files.get(place).map(|file| (place, file))
        } {
            let found = known.get(&file.name).map_or_else(|| digest(file), |known| Ok(*known));
            done.push((place, found.map_err(|source| io_error(&folder.join(&file.name), source))));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..n_threads.min(files.len())).map(|_| scope.spawn(some)).collect();
        let mut done = some();
        for other in others {
            done.extend(other.join().expect("digesting does not panic"));
        }
        done
    });
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, digest)| digest).collect()
}

fn digest(file: &WeightFile) -> io::Result<Digest> {
    let mut hasher = sha2::Sha256::new();
    let mut piece = vec![0u8; PIECE_BYTES];
    let mut at = 0;
    while at < file.size {
        let length = (file.size - at).min(PIECE_BYTES as u64);
        let piece = &mut piece[..length as usize];
        file.file.read_exact_at(piece, at)?;
        hasher.update(piece);
        at += length;
    }
    Ok(Digest(hasher.finalize().into()))
}

/// The files of `folder` with weights in forms that are not supported, for the end of an error.
fn unsupported(folder: &Path) -> String {
    let names = folder.read_dir().into_iter().flatten().flatten();
    only_unsupported(names.map(|entry| entry.file_name().to_string_lossy().into_owned()))
}

/// Those of `names` that are weights in forms that are not supported, for the end of an error.
pub(super) fn only_unsupported(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> =
        names.filter(|name| UNSUPPORTED.iter().any(|ending| name.ends_with(ending))).collect();
    names.sort_unstable();
    names.truncate(UNSUPPORTED.len());
    if names.is_empty() { String::new() } else { format!(", only {}", names.join(", ")) }
}
