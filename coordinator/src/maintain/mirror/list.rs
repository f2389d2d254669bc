//! `mirror list`: which repositories are mirrored, at which revisions, and how much of each.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lsa_common::hub::{ContentId, HubFile, RepoKind};
use lsa_common::layout;
use lsa_common::mirror::MirrorError;
use lsa_common::mirror::record;
use lsa_common::store::{Store, StoreError};
use serde::Serialize;

use crate::forecast;

/// One revision of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mirrored {
    /// What it holds.
    pub kind: RepoKind,
    /// The repository, as it was asked for.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The commit.
    pub commit: String,
    /// Files of which the bucket has the content.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that the repository has.
    pub files_listed: u64,
    /// When it was mirrored, RFC 3339.
    pub mirrored_at: String,
}

/// Why the mirror cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its records cannot be used.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

/// Everything mirrored, sorted by repository and revision.
pub async fn list(store: &Store) -> Result<Vec<Mirrored>, ListError> {
    let stored: BTreeSet<String> =
        store.list(layout::INPUTS).await?.into_iter().map(|object| object.key).collect();
    let git = record::all_git(store).await?;
    let is_there = |file: &&HubFile| {
        let sha256 = match &file.content {
            ContentId::Sha256(sha256) => Some(*sha256),
            ContentId::GitSha1(id) => git.get(id).map(|record| record.sha256),
        };
        sha256.is_some_and(|sha256| stored.contains(&layout::input(sha256)))
    };
    let mut mirrored = Vec::new();
    for record in record::all(store).await? {
        let there: Vec<&HubFile> = record.listing.files.iter().filter(is_there).collect();
        mirrored.push(Mirrored {
            kind: record.repo.kind,
            id: record.repo.id,
            revision: record.revision,
            files: there.len() as u64,
            bytes: there.iter().map(|file| file.size).sum(),
            files_listed: record.listing.files.len() as u64,
            commit: record.listing.commit,
            mirrored_at: record.mirrored_at,
        });
    }
    mirrored.sort_by(|a, b| (a.kind, &a.id, &a.revision).cmp(&(b.kind, &b.id, &b.revision)));
    Ok(mirrored)
}

/// A line for each, for a person; a commit that a branch or tag leads to goes without one.
pub fn to_text(mirrored: &[Mirrored]) -> String {
    if mirrored.is_empty() {
        return "nothing is mirrored\n".to_owned();
    }
    let is_named = |one: &&Mirrored| {
        let same =
            |other: &&Mirrored| (other.kind, &other.id, &other.commit) == (one.kind, &one.id, &one.commit);
        one.revision != one.commit
            || !mirrored.iter().filter(same).any(|other| other.revision != other.commit)
    };
    let mut text = String::new();
    for one in mirrored.iter().filter(is_named) {
        let kind = match one.kind {
            RepoKind::Model => "model",
            RepoKind::Dataset => "dataset",
        };
        let commit = one.commit.get(..12).unwrap_or(&one.commit);
        writeln!(
            text,
            "{kind:<7}  {}@{}  {commit}  {} of {} files, {}  {}",
            one.id,
            one.revision,
            one.files,
            one.files_listed,
            forecast::bytes(one.bytes),
            one.mirrored_at
        )
        .expect("a string takes all that is written to it");
    }
    text
}
