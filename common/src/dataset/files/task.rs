//! Tasks of MTEB: the table says where their texts are, the repository in which files.

use super::contents::DEFAULT;
use super::repository::{Repository, Which, list, preferred};
use super::split::Wanted;
use super::{FilesError, FoundFiles, joined};
use crate::dataset::Columns;
use crate::dataset::catalogue::{Layout, Loader, Task};
use crate::dataset::name::TaskName;
use crate::hub::Hub;

pub(super) fn resolve(
    name: &TaskName,
    split: &str,
    split_is_asked: bool,
    hub: &dyn Hub,
) -> Result<FoundFiles, FilesError> {
    let task = name.task();
    let mut warnings = Vec::new();
    let subset = name.subset().or_else(|| {
        let subset = preferred(&task.subsets)?;
        if task.n_subsets > 1 {
            let name = task.name;
            let names = list(&task.subsets, task.n_subsets);
            warnings.push(format!(
                "no subset of {name} was named; \"{name}/{subset}\" is read (there are: {names})"
            ));
        }
        Some(subset)
    });
    if task.loader == Loader::Transform {
        let name = task.name;
        warnings
            .push(format!("MTEB changes the rows of {name} by code; its texts are read as they are stored"));
    }
    let repository = Repository::open(hub, task.path, task.revision)?;
    let wanted = Wanted { name: split, is_asked: split_is_asked, instead: &task.eval_splits };
    let mut found = match task.layout {
        Layout::Retrieval => retrieval(repository, subset, wanted)?,
        Layout::Columns | Layout::BitextParallel | Layout::None => {
            let columns = columns(task, subset);
            // All languages of a parallel text are columns of one config.
            let subset = subset.filter(|_| task.layout != Layout::BitextParallel);
            match task.config.or(subset).filter(|config| *config != DEFAULT) {
                Some(config) => rows(repository, Which::Named(&[config]), wanted, columns)?,
                None => rows(repository, Which::Default, wanted, columns)?,
            }
        }
    };
    warnings.append(&mut found.warnings);
    Ok(FoundFiles { warnings, ..found })
}

/// The columns that hold a task's texts; each cell is a text of its own.
fn columns(task: &Task, subset: Option<&str>) -> Option<Columns> {
    let names: Vec<String> = match task.layout {
        Layout::BitextParallel => subset?.split('-').map(str::to_owned).collect(),
        Layout::Columns | Layout::Retrieval | Layout::None => {
            task.columns.as_ref()?.iter().map(|column| (*column).to_owned()).collect()
        }
    };
    Some(Columns { names, joined: false })
}

/// The rows of one split of one config.
pub(super) fn rows(
    repository: Repository<'_>,
    which: Which<'_>,
    wanted: Wanted<'_>,
    columns: Option<Columns>,
) -> Result<FoundFiles, FilesError> {
    let mut found = repository.config(which)?;
    let mut warnings = repository.warnings;
    warnings.append(&mut found.warnings);
    let (split, said) = wanted.choose(&found.config.splits).expect("a config has at least one split");
    warnings.extend(said);
    warnings.extend(split.is_partial.then(|| partial(&split.name)));
    Ok(FoundFiles {
        files: found.files(split, columns.as_ref()),
        split: Some(split.name.clone()),
        config: Some(found.config.name.clone()),
        revision: Some(found.commit.clone()),
        warnings,
    })
}

/// The documents, then the queries; a document's text is its title and its text, as in MTEB.
pub(super) fn retrieval(
    repository: Repository<'_>,
    subset: Option<&str>,
    wanted: Wanted<'_>,
) -> Result<FoundFiles, FilesError> {
    let prefix =
        subset.filter(|subset| *subset != DEFAULT).map_or(String::new(), |subset| format!("{subset}-"));
    let (corpus, queries) = (format!("{prefix}corpus"), format!("{prefix}queries"));
    let document = Columns { names: vec!["title".to_owned(), "text".to_owned()], joined: true };
    let query = Columns { names: vec!["text".to_owned()], joined: false };
    let parts = [
        (repository.config(Which::Named(&[&corpus]))?, document),
        // MTEB takes a config `query` for the queries wherever there is one.
        (repository.config(Which::Named(&["query", &queries]))?, query),
    ];
    let mut warnings = repository.warnings;
    let mut files = Vec::new();
    let mut splits = Vec::new();
    for (found, columns) in &parts {
        let (split, said) =
            wanted.choose_or_only(&found.config.splits).expect("a config has at least one split");
        let said = said.map(|said| format!("{}: {said}", found.config.name));
        let partial = split.is_partial.then(|| partial(&split.name));
        for warning in found.warnings.iter().cloned().chain(said).chain(partial) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        files.extend(found.files(split, Some(columns)));
        splits.push(split.name.as_str());
    }
    let configs = parts.iter().map(|(found, _)| found.config.name.as_str());
    Ok(FoundFiles {
        files,
        split: Some(joined(splits)),
        config: Some(joined(configs)),
        revision: Some(parts[0].0.commit.clone()),
        warnings,
    })
}

fn partial(split: &str) -> String {
    format!("the hub has converted only the beginning of split {split:?}")
}
