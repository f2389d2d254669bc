//! A dataset into the bucket: what a job would ask of the hub for it, and the texts that a job would read.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use lsa_common::dataset::{DatasetName, HubFiles, HubName, Place, TextsPlan, files};
use lsa_common::hub::{Hub, HubError, HubFile, Listing, Repo};
use lsa_common::mirror::{MirroredHub, Told};
use tokio::runtime::Handle;

use super::fill::{FillError, Filled, add_repo};
use crate::grid::DataSettings;
use crate::identity::Identity;
use crate::prepared;
use crate::resolve::texts_request;

/// Datasets up to here are mirrored whole, beside the texts that are taken of them.
const WHOLE_BYTES_MAX: u64 = 4 << 30;

/// Which texts are taken of a dataset: as a grid's `[data]` and `[run]` say.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The settings.
    pub data: DataSettings,
    /// The seed.
    pub seed: u64,
}

/// Mirrors what a job asks of the hub for the dataset of that name, and puts its texts into the bucket.
pub fn add_dataset(
    hub: &Arc<dyn Hub>,
    mirror: &MirroredHub,
    name: &str,
    taken: &Taken,
    runtime: &Handle,
    identity: &Identity,
    told: Told<'_>,
) -> Result<Vec<Filled>, FillError> {
    let name: DatasetName = name.parse().map_err(|error| FillError::Choice(Box::new(error)))?;
    let DatasetName::Hub(dataset) = &name else {
        return Err(FillError::Local(name.to_string()));
    };
    let asked = Asked::new(hub.clone());
    let (plan, notes) = plan(dataset, &name, taken, &asked)?;
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    let whole = plan.n_bytes() <= WHOLE_BYTES_MAX;
    if !whole {
        eprintln!(
            "note: {name} has {}: only the texts that are taken of it are kept, not its files",
            crate::forecast::bytes(plan.n_bytes())
        );
    }
    let mut filled = Vec::new();
    for ((repo, revision), (listing, mut paths)) in asked.into_listings() {
        if whole {
            let of_listing = plan.files.iter().filter_map(|file| match &file.place {
                Place::Hub { repo, commit, path } if *repo == listing.repo && *commit == listing.commit => {
                    Some(path.clone())
                }
                Place::Hub { .. } | Place::Local { .. } => None,
            });
            paths.extend(of_listing);
        }
        paths.sort();
        paths.dedup();
        let choose =
            |listing: &Listing| Ok(paths.iter().filter_map(|path| listing.file(path)).cloned().collect());
        filled.push(add_repo(&**hub, mirror, &repo, &revision, &choose, told)?);
    }
    let files = HubFiles::new(mirror);
    prepared::find_or_make(runtime, mirror.store(), identity, &plan, &files)
        .map_err(|error| FillError::Choice(Box::new(error)))?;
    Ok(filled)
}

fn plan(
    dataset: &HubName,
    name: &DatasetName,
    taken: &Taken,
    hub: &dyn Hub,
) -> Result<(TextsPlan, Vec<String>), FillError> {
    let request = texts_request(name, &taken.data, taken.seed);
    let split = request.split.as_deref();
    let found = files::resolve(dataset, split.unwrap_or(files::SPLIT_DEFAULT), split.is_some(), hub)
        .map_err(|error| FillError::Choice(Box::new(error)))?;
    Ok((TextsPlan::new(dataset.to_string(), found.files, request.settings), found.warnings))
}

type Listings = BTreeMap<(Repo, String), (Listing, Vec<String>)>;

/// A hub that remembers which repositories were listed, and which of their files were read.
struct Asked {
    hub: Arc<dyn Hub>,
    listings: Mutex<Listings>,
}

impl Asked {
    fn new(hub: Arc<dyn Hub>) -> Self {
        Self { hub, listings: Mutex::default() }
    }

    fn note(&self, listing: &Listing, file: &HubFile) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        for (known, paths) in listings.values_mut() {
            if known.repo == listing.repo && known.commit == listing.commit {
                paths.push(file.path.clone());
            }
        }
    }

    fn into_listings(self) -> Listings {
        self.listings.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub for Asked {
    fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
        let listing = self.hub.list(repo, revision)?;
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.insert((repo.clone(), revision.to_owned()), (listing.clone(), Vec::new()));
        Ok(listing)
    }

    fn open(&self, listing: &Listing, file: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError> {
        self.note(listing, file);
        self.hub.open(listing, file, from)
    }

    fn read_range(
        &self,
        listing: &Listing,
        file: &HubFile,
        from: u64,
        size: u64,
    ) -> Result<Vec<u8>, HubError> {
        self.note(listing, file);
        self.hub.read_range(listing, file, from, size)
    }

    fn fetch(&self, listing: &Listing, file: &HubFile) -> Result<PathBuf, HubError> {
        self.note(listing, file);
        self.hub.fetch(listing, file)
    }
}
