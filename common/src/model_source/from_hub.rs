//! A model out of a repository: which of its files are needed, and how much of them has to be here to pin it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::weights::is_weights_to_load;
use super::{ModelFolder, ModelSourceError, io_error, remote};
use crate::checkpoint::safetensors_header_bytes;
use crate::hub::names::is_repo_id;
use crate::hub::{ContentId, Hub, HubFile, Listing, Repo, RepoKind};
use crate::id::Digest;
use crate::model::PinnedModel;

/// How much of a model's weights is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// All of them, into this machine's cache: it will run the model.
    Weights,
    /// What says which tensors there are: others will run the model.
    Headers,
}

/// Pins a model of a hub at a branch, tag or commit, by default `main`.
///
/// The pinned folder is where the files are on this machine, as far as they were fetched.
pub fn pin_from_hub(
    id: &str,
    revision: Option<&str>,
    hub: &dyn Hub,
    fetch: Fetch,
) -> Result<PinnedModel, ModelSourceError> {
    let listing = list(id, revision, hub)?;
    let model = Remote::look(id, hub, &listing)?;
    let known = model.weights.iter().filter_map(|file| Some((file.path.clone(), sha256(file)?))).collect();
    match fetch {
        Fetch::Weights => model.fetched()?.pin_knowing(&known),
        Fetch::Headers => model.pin_headers(&known),
    }
}

/// Fetches a model of a hub, whole.
pub fn fetch_from_hub(
    id: &str,
    revision: Option<&str>,
    hub: &dyn Hub,
) -> Result<ModelFolder, ModelSourceError> {
    let listing = list(id, revision, hub)?;
    Remote::look(id, hub, &listing)?.fetched()
}

fn list(id: &str, revision: Option<&str>, hub: &dyn Hub) -> Result<Listing, ModelSourceError> {
    if !is_repo_id(id) {
        return Err(ModelSourceError::MalformedId(id.chars().take(200).collect()));
    }
    let repo = Repo { kind: RepoKind::Model, id: id.to_owned() };
    let listed = hub.list(&repo, revision.unwrap_or("main"));
    listed.map_err(|source| ModelSourceError::Hub { id: id.to_owned(), source: Box::new(source) })
}

/// The sha256 that the hub says a file has.
fn sha256(file: &HubFile) -> Option<Digest> {
    match file.content {
        ContentId::Sha256(digest) => Some(digest),
        ContentId::GitSha1(_) => None,
    }
}

/// A model in a repository at a commit. Its config, tokenizer and indices are fetched.
struct Remote<'a> {
    id: &'a str,
    hub: &'a dyn Hub,
    listing: &'a Listing,
    /// Where fetched files are.
    snapshot: PathBuf,
    small: Vec<PathBuf>,
    /// The weights in the preferred form, none of them fetched.
    weights: Vec<HubFile>,
}

impl<'a> Remote<'a> {
    fn look(id: &'a str, hub: &'a dyn Hub, listing: &'a Listing) -> Result<Self, ModelSourceError> {
        let files = remote::all_model_files(hub, listing);
        let files = files
            .map_err(|source| ModelSourceError::Remote { id: id.to_owned(), source: Box::new(source) })?;
        let (weights, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| is_weights_to_load(&file.path));
        let failed = |source| ModelSourceError::Hub { id: id.to_owned(), source: Box::new(source) };
        let fetch = |file: &HubFile| hub.fetch(listing, file).map_err(failed);
        let small = others.iter().map(fetch).collect::<Result<Vec<_>, _>>()?;
        let snapshot = small.first().and_then(|path| path.parent()).unwrap_or(Path::new("/")).to_owned();
        Ok(Self { id, hub, listing, snapshot, small, weights })
    }

    fn folder(&self, folder: PathBuf) -> ModelFolder {
        ModelFolder { id: self.id.to_owned(), revision: Some(self.listing.commit.clone()), folder }
    }

    fn fetch(&self, file: &HubFile) -> Result<PathBuf, ModelSourceError> {
        let failed = |source| ModelSourceError::Hub { id: self.id.to_owned(), source: Box::new(source) };
        self.hub.fetch(self.listing, file).map_err(failed)
    }

    /// The folder with all files.
    fn fetched(&self) -> Result<ModelFolder, ModelSourceError> {
        self.weights.iter().try_for_each(|file| self.fetch(file).map(drop))?;
        Ok(self.folder(self.snapshot.clone()))
    }

    /// Pins the model from a folder in which weights are holes, except for their headers.
    fn pin_headers(&self, known: &BTreeMap<String, Digest>) -> Result<PinnedModel, ModelSourceError> {
        // Named after the model, for errors.
        let prefix = format!("lsa-{}-", self.id.replace('/', "--"));
        let scratch = tempfile::Builder::new().prefix(&prefix).tempdir();
        let scratch = scratch.map_err(|source| io_error(&std::env::temp_dir(), source))?;
        let path = |name: &str| scratch.path().join(name);
        for file in &self.small {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            symlink(file, path(name)).map_err(|source| io_error(&path(name), source))?;
        }
        for file in &self.weights {
            let place = path(&file.path);
            match self.header(file)? {
                Some(header) => with_holes(&place, &header, file.size),
                // Another format, or one whose digest only its content tells.
                None => symlink(self.fetch(file)?, &place),
            }
            .map_err(|source| io_error(&place, source))?;
        }
        let pinned = self.folder(scratch.path().to_owned()).pin_knowing(known)?;
        Ok(PinnedModel { folder: self.snapshot.clone(), ..pinned })
    }

    /// The header of a safetensors file whose digest is known; nothing for any other file.
    fn header(&self, file: &HubFile) -> Result<Option<Vec<u8>>, ModelSourceError> {
        let failed = |source| ModelSourceError::Hub { id: self.id.to_owned(), source: Box::new(source) };
        if sha256(file).is_none() || file.size < 9 || !file.path.ends_with(".safetensors") {
            return Ok(None);
        }
        let read = |size| self.hub.read_range(self.listing, file, 0, size).map_err(failed);
        let head = read(9)?;
        let header_bytes =
            <[u8; 9]>::try_from(head).ok().and_then(|head| safetensors_header_bytes(&head, file.size));
        header_bytes.map(read).transpose()
    }
}

/// A file of `size` bytes of which only the first are written; the rest takes no room on the disk.
fn with_holes(path: &Path, head: &[u8], size: u64) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(head)?;
    file.set_len(size)
}
