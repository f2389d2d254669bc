//! C4: files by name, without a look into its `README.md`.

use super::contents::Split;
use super::split::Wanted;
use super::{FilesError, FoundFiles};
use crate::dataset::catalogue::c4;
use crate::dataset::name::C4Name;
use crate::dataset::{Columns, Compression, Format, Place, SourceFile};
use crate::hub::{Hub, HubFile, Repo, RepoKind};

/// The commit is that of the branch at the time, and is pinned by whoever keeps the result.
const REVISION: &str = "main";

pub(super) fn resolve(
    name: C4Name,
    split: &str,
    split_is_asked: bool,
    hub: &dyn Hub,
) -> Result<FoundFiles, FilesError> {
    let repo = Repo { kind: RepoKind::Dataset, id: c4::REPO.to_owned() };
    let listing = hub.list(&repo, REVISION)?;
    let mut warnings = Vec::new();
    if listing.repo != repo {
        warnings.push(format!("{repo} is now called {}", listing.repo.id));
    }
    let splits = splits(name.config(), &listing.files, &mut warnings);
    let wanted = Wanted { name: split, is_asked: split_is_asked, instead: &["validation"] };
    let Some((split, said)) = wanted.choose(&splits) else {
        let config = name.config().to_owned();
        return Err(FilesError::NoShards { repo: listing.repo, commit: listing.commit, config });
    };
    warnings.extend(said);
    let columns = Columns { names: vec!["text".to_owned()], joined: false };
    let file = |file: &HubFile| SourceFile {
        place: Place::Hub {
            repo: listing.repo.clone(),
            commit: listing.commit.clone(),
            path: file.path.clone(),
        },
        size: file.size,
        content: Some(file.content.clone()),
        // Called .json, they hold an object a line.
        format: Format::Jsonl,
        compression: Compression::Gzip,
        columns: Some(columns.clone()),
    };
    Ok(FoundFiles {
        files: split.files.iter().map(file).collect(),
        split: Some(split.name.clone()),
        config: Some(name.config().to_owned()),
        revision: Some(listing.commit.clone()),
        warnings,
    })
}

/// Both splits, sorted by the numbers of their files. Says where numbers are missing.
fn splits(config: &str, files: &[HubFile], warnings: &mut Vec<String>) -> Vec<Split> {
    let is_english = c4::ENGLISH.contains(&config);
    let prefixes = if is_english {
        [("train", format!("{config}/c4-train.")), ("validation", format!("{config}/c4-validation."))]
    } else {
        [
            ("train", format!("multilingual/c4-{config}.tfrecord-")),
            ("validation", format!("multilingual/c4-{config}-validation.tfrecord-")),
        ]
    };
    let split = |(name, prefix): &(&str, String)| {
        let numbered = files.iter().filter_map(|file| {
            let numbers = file.path.strip_prefix(prefix.as_str())?.strip_suffix(".json.gz")?;
            let (number, count) = numbers.split_once("-of-")?;
            Some((number.parse::<u32>().ok()?, count.parse::<usize>().ok()?, file))
        });
        let mut numbered: Vec<(u32, usize, &HubFile)> = numbered.collect();
        numbered.sort_by_key(|(number, _, file)| (*number, file.path.as_str()));
        let count = numbered.first()?.1;
        if numbered.len() != count {
            let n_files = numbered.len();
            warnings.push(format!("{n_files} of the {count} files of {name} of C4 {config} are there"));
        }
        let files = numbered.into_iter().map(|(_, _, file)| file.clone()).collect();
        Some(Split { name: (*name).to_owned(), files, is_partial: false })
    };
    prefixes.iter().filter_map(split).collect()
}
