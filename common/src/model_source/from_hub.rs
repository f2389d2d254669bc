//! A model out of a repository: which of its files are needed, and how much of them has to be here to pin it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::weights::FORMS;
use super::{CONFIG, ModelFolder, ModelSourceError, io_error, read_small};
use crate::checkpoint::{Index, safetensors_header_bytes};
use crate::exported_graph;
use crate::hub::{ContentId, Hub, HubFile, Listing, Repo, RepoKind};
use crate::id::Digest;
use crate::model::PinnedModel;
use crate::tokenize::TokenizerFiles;

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
    let revision = revision.unwrap_or("main");
    let failed = |source| ModelSourceError::Hub { id: id.to_owned(), source };
    let repo = Repo { kind: RepoKind::Model, id: id.to_owned() };
    let listing = hub.list(&repo, revision).map_err(failed)?;
    let missing = |file: &str| ModelSourceError::NotInRepo {
        repo: repo.clone(),
        revision: revision.to_owned(),
        file: file.to_owned(),
    };
    let config = listing.file(CONFIG).ok_or_else(|| missing(CONFIG))?;
    let snapshot = hub.fetch(&listing, config).map_err(failed)?;
    let snapshot = snapshot.parent().unwrap_or(Path::new("/")).to_owned();
    let model = Remote { id, hub, listing: &listing, snapshot };
    let fetched = model.small_files()?;
    let weights = model.weights()?;
    let known = weights.iter().filter_map(|file| Some((file.path.clone(), sha256(file)?))).collect();
    match fetch {
        Fetch::Weights => {
            weights.iter().try_for_each(|file| model.fetch(file).map(drop))?;
            model.folder(model.snapshot.clone()).pin_knowing(&known)
        }
        Fetch::Headers => model.pin_headers(&fetched, &weights, &known),
    }
}

/// The sha256 that the hub says a file has.
fn sha256(file: &HubFile) -> Option<Digest> {
    match file.content {
        ContentId::Sha256(digest) => Some(digest),
        ContentId::GitSha1(_) => None,
    }
}

/// A model in a repository at a commit.
struct Remote<'a> {
    id: &'a str,
    hub: &'a dyn Hub,
    listing: &'a Listing,
    /// Where fetched files are.
    snapshot: PathBuf,
}

impl Remote<'_> {
    fn folder(&self, folder: PathBuf) -> ModelFolder {
        ModelFolder { id: self.id.to_owned(), revision: Some(self.listing.commit.clone()), folder }
    }

    fn fetch(&self, file: &HubFile) -> Result<PathBuf, ModelSourceError> {
        let failed = |source| ModelSourceError::Hub { id: self.id.to_owned(), source };
        self.hub.fetch(self.listing, file).map_err(failed)
    }

    /// Fetches config, tokenizer and indices.
    fn small_files(&self) -> Result<Vec<PathBuf>, ModelSourceError> {
        let is_small = |name: &str| {
            TokenizerFiles::knows(name)
                || super::weights::is_index(name)
                || name == exported_graph::DESCRIPTION
        };
        self.listing.files.iter().filter(|file| is_small(&file.path)).map(|file| self.fetch(file)).collect()
    }

    /// The weights in the preferred form, none of them fetched; none where no form is there.
    fn weights(&self) -> Result<Vec<HubFile>, ModelSourceError> {
        if self.listing.file(exported_graph::DESCRIPTION).is_some() {
            return Ok(self.listing.file(exported_graph::GRAPH).into_iter().cloned().collect());
        }
        for form in FORMS {
            let Some(file) = self.listing.file(form.name) else { continue };
            if !form.is_index {
                return Ok(vec![file.clone()]);
            }
            let path = self.snapshot.join(form.name);
            let json = File::open(&path).map_err(|source| io_error(&path, source))?;
            let damaged = |source| ModelSourceError::Checkpoint { folder: self.snapshot.clone(), source };
            let index = Index::read(form.name, &read_small(&path, json)?).map_err(damaged)?;
            // What the index lists and the repository lacks is found, and named, when the folder is pinned.
            return Ok(index
                .files()
                .into_iter()
                .filter_map(|name| self.listing.file(name))
                .cloned()
                .collect());
        }
        Ok(Vec::new())
    }

    /// Pins the model from a folder in which weights are holes, except for their headers.
    fn pin_headers(
        &self,
        fetched: &[PathBuf],
        weights: &[HubFile],
        known: &BTreeMap<String, Digest>,
    ) -> Result<PinnedModel, ModelSourceError> {
        // Named after the model, for errors.
        let prefix = format!("lsa-{}-", self.id.replace('/', "--"));
        let scratch = tempfile::Builder::new().prefix(&prefix).tempdir();
        let scratch = scratch.map_err(|source| io_error(&std::env::temp_dir(), source))?;
        let path = |name: &str| scratch.path().join(name);
        for file in fetched {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            symlink(file, path(name)).map_err(|source| io_error(&path(name), source))?;
        }
        for file in weights {
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
        let failed = |source| ModelSourceError::Hub { id: self.id.to_owned(), source };
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
