//! Files that a unit names by digest: where they were when the job was resolved, or from the bucket into a cache.

use std::path::{Path, PathBuf};

use lsa_common::failure::FailureClass;
use lsa_common::layout;
use lsa_common::model::{PinnedFile, PinnedModel};
use lsa_common::record::StoredObject;
use lsa_common::store::{Store, StoreError};

/// Why a file is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Neither where it was nor in the bucket.
    #[error(
        "{name:?} is neither at {hint:?} nor in the bucket; submit the job again from a machine that has it, or put \
         it there"
    )]
    Missing {
        /// Which file.
        name: String,
        /// Where it was.
        hint: PathBuf,
    },
    /// The bucket failed.
    #[error("cannot get {name:?} from the bucket")]
    Store {
        /// Which file.
        name: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// The cache cannot be written.
    #[error("cannot keep {name:?} in the cache {cache:?}; free space or choose another with --cache")]
    Cache {
        /// Which file.
        name: String,
        /// Where.
        cache: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl InputError {
    /// What the failure means for an attempt.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Missing { .. } => FailureClass::Reject,
            Self::Store { .. } | Self::Cache { .. } => FailureClass::Retry,
        }
    }
}

/// A local path with the content of `file`: `hint`, if a file of that size is there, else a copy in the cache. Whoever
/// reads it checks the digest.
pub async fn file(
    store: &Store,
    cache: &Path,
    file: &PinnedFile,
    hint: &Path,
) -> Result<PathBuf, InputError> {
    if has_size(hint, file.size) {
        return Ok(hint.to_owned());
    }
    let cached = cache.join("inputs").join(file.sha256.to_string());
    if has_size(&cached, file.size) {
        return Ok(cached);
    }
    fetch(store, file, hint, &cached).await?;
    Ok(cached)
}

/// A folder with the files of `model`: the one it was pinned in, if all are there, else one in the cache.
pub async fn model(store: &Store, cache: &Path, model: &PinnedModel) -> Result<PathBuf, InputError> {
    let complete =
        |folder: &Path| model.files.iter().all(|file| has_size(&folder.join(&file.name), file.size));
    if complete(&model.folder) {
        return Ok(model.folder.clone());
    }
    let digests: Vec<_> = model.files.iter().map(|file| (&file.name, file.sha256)).collect();
    let folder = cache.join("models").join(lsa_common::key::digest_of("model files", &digests).to_string());
    for file in &model.files {
        let place = folder.join(&file.name);
        if !has_size(&place, file.size) {
            fetch(store, file, &model.folder.join(&file.name), &place).await?;
        }
    }
    Ok(folder)
}

async fn fetch(store: &Store, file: &PinnedFile, hint: &Path, place: &Path) -> Result<(), InputError> {
    let name = || file.name.clone();
    let from_store = |source| InputError::Store { name: name(), source: Box::new(source) };
    let object = StoredObject { key: layout::input(file.sha256), size: file.size, sha256: file.sha256 };
    if store.size(&object.key).await.map_err(from_store)?.is_none() {
        return Err(InputError::Missing { name: name(), hint: hint.to_owned() });
    }
    let folder = place.parent().unwrap_or(Path::new("."));
    let on_disk = |source| InputError::Cache { name: name(), cache: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(on_disk)?;
    // Workers of one machine share the cache; each writes a name of its own and renames.
    let beside = folder.join(format!(".{}.{}", file.sha256, std::process::id()));
    store.download(&object, &beside).await.map_err(from_store)?;
    std::fs::rename(&beside, place).map_err(on_disk)
}

fn has_size(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}
