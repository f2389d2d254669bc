//! Files that a unit names by digest: where they were when the job was resolved, or from the bucket into a cache.

use std::path::{Path, PathBuf};

use lsa_common::dataset::{LocalFiles, Place, SourceFile};
use lsa_common::failure::FailureClass;
use lsa_common::hub::{ContentId, Hub as _, HubError, HubFile, Listing, Repo, RepoKind};
use lsa_common::key::model_files_key;
use lsa_common::layout;
use lsa_common::mirror::{MirrorError, MirroredHub};
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
    /// The hub lists other files at the commit than the job was resolved with.
    #[error("model {id:?} has no file {name:?} of that content at commit {commit}; submit the job again")]
    NotListed {
        /// Which model.
        id: String,
        /// At which commit.
        commit: String,
        /// Which file.
        name: String,
    },
    /// The hub failed.
    #[error(transparent)]
    Hub(Box<HubError>),
    /// The way from the hub into the bucket failed.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
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

impl From<HubError> for InputError {
    fn from(error: HubError) -> Self {
        Self::Hub(Box::new(error))
    }
}

impl InputError {
    /// What the failure means for an attempt.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Missing { .. } | Self::NotListed { .. } => FailureClass::Reject,
            Self::Hub(error) => error.failure_class(),
            Self::Mirror(error) => error.failure_class(),
            Self::Store { .. } | Self::Cache { .. } => FailureClass::Retry,
        }
    }
}

/// Where the local ones of a dataset's files are to be had.
pub async fn local_files(
    store: &Store,
    cache: &Path,
    files: &[SourceFile],
) -> Result<LocalFiles, InputError> {
    let mut local = LocalFiles::default();
    for source in files {
        let (Place::Local { name, hint }, Some(ContentId::Sha256(sha256))) = (&source.place, &source.content)
        else {
            continue;
        };
        let pinned = PinnedFile { name: name.clone(), size: source.size, sha256: *sha256 };
        local.moved(hint.clone(), file(store, cache, &pinned, hint).await?);
    }
    Ok(local)
}

/// A local path with the content of `file`: `hint`, if a file of that size is there, else a copy in the cache. Whoever
/// reads it checks the digest.
async fn file(store: &Store, cache: &Path, file: &PinnedFile, hint: &Path) -> Result<PathBuf, InputError> {
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
    let folder = cache.join("models").join(model_files_key(model).to_string());
    for file in &model.files {
        let place = folder.join(&file.name);
        if !has_size(&place, file.size) {
            fetch(store, file, &model.folder.join(&file.name), &place).await?;
        }
    }
    Ok(folder)
}

/// Puts the files of a hub's model into the bucket. `go_on` hears how many bytes are there; a file that was begun is
/// finished whatever it says.
pub fn mirror(hub: &MirroredHub, model: &PinnedModel, go_on: &dyn Fn(u64) -> bool) -> Result<(), InputError> {
    let (repo, listing) = listed(hub, model)?;
    let mut before = 0;
    for pinned in &model.files {
        let file = listed_file(model, &listing, pinned)?;
        let told = |_: &str, done: u64, _: u64| {
            go_on(before + done);
        };
        hub.add_as(&repo, &listing, &listing.commit, std::slice::from_ref(file), &told)?;
        before += pinned.size;
        if !go_on(before) {
            break;
        }
    }
    Ok(())
}

/// A folder of the cache with the files of a hub's model, which this machine fetches itself.
pub fn model_from_hub(hub: &MirroredHub, cache: &Path, model: &PinnedModel) -> Result<PathBuf, InputError> {
    let (_, listing) = listed(hub, model)?;
    let folder = cache.join("models").join(model_files_key(model).to_string());
    let on_disk = |source| InputError::Cache { name: model.id.clone(), cache: folder.clone(), source };
    std::fs::create_dir_all(&folder).map_err(on_disk)?;
    for pinned in &model.files {
        let place = folder.join(&pinned.name);
        if has_size(&place, pinned.size) {
            continue;
        }
        let fetched = hub.fetch(&listing, listed_file(model, &listing, pinned)?)?;
        let beside = folder.join(format!(".{}.{}", pinned.sha256, std::process::id()));
        std::os::unix::fs::symlink(&fetched, &beside).map_err(on_disk)?;
        std::fs::rename(&beside, &place).map_err(on_disk)?;
    }
    Ok(folder)
}

fn listed(hub: &MirroredHub, model: &PinnedModel) -> Result<(Repo, Listing), InputError> {
    let repo = Repo { kind: RepoKind::Model, id: model.id.clone() };
    let listing = hub.list(&repo, model.revision.as_deref().unwrap_or("main"))?;
    Ok((repo, listing))
}

fn listed_file<'a>(
    model: &PinnedModel,
    listing: &'a Listing,
    pinned: &PinnedFile,
) -> Result<&'a HubFile, InputError> {
    let is_it = |file: &&HubFile| {
        let other = matches!(file.content, ContentId::Sha256(digest) if digest != pinned.sha256);
        file.size == pinned.size && !other
    };
    listing.file(&pinned.name).filter(is_it).ok_or_else(|| InputError::NotListed {
        id: model.id.clone(),
        commit: listing.commit.clone(),
        name: pinned.name.clone(),
    })
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
