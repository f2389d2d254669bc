//! `hf:` names: any repository, of which nothing is known but what it says itself.

use super::repository::{Repository, Which};
use super::split::Wanted;
use super::{FilesError, FoundFiles, task};
use crate::dataset::Columns;
use crate::dataset::name::RepoName;
use crate::hub::Hub;

pub(super) fn resolve(
    name: &RepoName,
    split: &str,
    split_is_asked: bool,
    hub: &dyn Hub,
) -> Result<FoundFiles, FilesError> {
    let repository = Repository::open(hub, name.id(), name.revision())?;
    let wanted = Wanted {
        name: name.split().unwrap_or(split),
        is_asked: name.split().is_some() || split_is_asked,
        instead: &[],
    };
    let is_retrieval = repository.has("corpus") && repository.has("queries");
    if is_retrieval && name.config().is_none() && name.column().is_none() {
        return task::retrieval(repository, None, wanted);
    }
    let columns = name.column().map(|column| Columns { names: vec![column.to_owned()], joined: false });
    match name.config() {
        Some(config) => task::rows(repository, Which::Named(&[config]), wanted, columns),
        None => task::rows(repository, Which::Default, wanted, columns),
    }
}
