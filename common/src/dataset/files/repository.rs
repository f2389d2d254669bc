//! One repository at a commit, and the ways to learn what it holds, tried in order.

use super::contents::{Config, DEFAULT, Split};
use super::{FilesError, by_name, converted, readme};
use crate::dataset::format::kind_of;
use crate::dataset::name::listed;
use crate::dataset::{Columns, Place, SourceFile};
use crate::hub::{Hub, Listing, Repo, RepoKind};
use crate::suggest;

/// Names under which subsets in English go, the likeliest first.
const ENGLISH: [&str; 12] = [
    "en",
    "eng",
    "eng_Latn",
    "eng-Latn",
    "english",
    "en-en",
    "en-US",
    "en_us",
    "eng-eng",
    "eng_Latn-eng_Latn",
    "EN",
    DEFAULT,
];

/// A config to look for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which<'a> {
    /// The one that is read where none is named.
    Default,
    /// The first of these that there is.
    Named(&'a [&'a str]),
}

/// A repository whose files were listed.
pub(super) struct Repository<'h> {
    hub: &'h dyn Hub,
    listing: Listing,
    /// What it declares, and what its files' names say: by folder, then by stem.
    declared: Vec<Config>,
    by_folder: Vec<Config>,
    by_stem: Vec<Config>,
    /// What a user should know of it, whatever is read.
    pub(super) warnings: Vec<String>,
}

/// A config, and the listing that its files are in.
pub(super) struct Found {
    pub(super) config: Config,
    repo: Repo,
    pub(super) commit: String,
    /// What a user should know of how it was found.
    pub(super) warnings: Vec<String>,
}

impl<'h> Repository<'h> {
    /// Lists the files and reads `README.md`.
    pub(super) fn open(hub: &'h dyn Hub, id: &str, revision: &str) -> Result<Self, FilesError> {
        let repo = Repo { kind: RepoKind::Dataset, id: id.to_owned() };
        let listing = hub.list(&repo, revision)?;
        let mut warnings = Vec::new();
        if listing.repo != repo {
            warnings.push(format!("{repo} is now called {}", listing.repo.id));
        }
        let declared = match listing.file("README.md") {
            Some(file) => {
                let size = file.size.min(readme::BYTES_MAX);
                let bytes = hub.read_range(&listing, file, 0, size)?;
                readme::configs(&bytes, &listing.files).unwrap_or_else(|reason| {
                    warnings
                        .push(format!("README.md of {repo} is not used: {reason}; names of files decide"));
                    Vec::new()
                })
            }
            None => Vec::new(),
        };
        let by_folder = by_name::by_folder(&listing.files);
        let by_stem = by_name::by_stem(&listing.files);
        Ok(Self { hub, listing, declared, by_folder, by_stem, warnings })
    }

    /// Whether the repository itself has a config of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        let configs = self.declared.iter().chain(&self.by_folder).chain(&self.by_stem);
        configs.into_iter().any(|config| config.name == name)
    }

    /// The config to read: out of what the repository declares, else out of what the files' names say, else out of
    /// what the hub has converted.
    pub(super) fn config(&self, which: Which<'_>) -> Result<Found, FilesError> {
        let by_stem: &[Config] = if matches!(which, Which::Named(_)) { &self.by_stem } else { &[] };
        for configs in [&self.declared[..], &self.by_folder, by_stem] {
            if let Some((config, said)) = choose(configs, which) {
                return Ok(Found::new(config, &self.listing, said));
            }
        }
        let Listing { repo, commit, .. } = &self.listing;
        let known = if self.declared.is_empty() { &self.by_folder } else { &self.declared };
        let listing = match self.hub.list(repo, converted::REVISION) {
            Ok(listing) => listing,
            Err(_) if !known.is_empty() => return Err(no_config(repo, which, known)),
            Err(source) => {
                return Err(FilesError::NoData {
                    repo: repo.clone(),
                    commit: commit.clone(),
                    source: Box::new(source),
                });
            }
        };
        let configs = converted::configs(&listing.files);
        let Some((config, said)) = choose(&configs, which) else {
            let known = if known.is_empty() { &configs } else { known };
            return Err(if known.is_empty() {
                FilesError::Empty { repo: repo.clone(), commit: commit.clone() }
            } else {
                no_config(repo, which, known)
            });
        };
        let mut found = Found::new(config, &listing, said);
        let short = commit.get(..12).unwrap_or(commit);
        found.warnings.push(format!(
            "{repo} at {short} has no files that can be read for this; the hub's conversion to Parquet is read, which \
             follows the branch main and not that commit"
        ));
        Ok(found)
    }
}

impl Found {
    fn new(config: &Config, listing: &Listing, said: Option<String>) -> Self {
        Self {
            config: config.clone(),
            repo: listing.repo.clone(),
            commit: listing.commit.clone(),
            warnings: said.into_iter().collect(),
        }
    }

    /// The files of one of the config's splits.
    pub(super) fn files(&self, split: &Split, columns: Option<&Columns>) -> Vec<SourceFile> {
        let file = |file: &crate::hub::HubFile| {
            let (format, compression) = kind_of(&file.path)?;
            let place =
                Place::Hub { repo: self.repo.clone(), commit: self.commit.clone(), path: file.path.clone() };
            let content = Some(file.content.clone());
            Some(SourceFile {
                place,
                size: file.size,
                content,
                format,
                compression,
                columns: columns.cloned(),
            })
        };
        split.files.iter().filter_map(file).collect()
    }
}

/// The config meant, and what to say where that is not plain.
fn choose<'c>(configs: &'c [Config], which: Which<'_>) -> Option<(&'c Config, Option<String>)> {
    let named = |name: &str| configs.iter().find(|config| config.name == name);
    match which {
        Which::Named(names) => names.iter().find_map(|name| named(name)).map(|config| (config, None)),
        Which::Default => {
            let declared = || configs.iter().find(|config| config.is_default);
            let only = if let [only] = configs { Some(only) } else { None };
            if let Some(config) = only.or_else(declared).or_else(|| named(DEFAULT)) {
                return Some((config, None));
            }
            let names: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
            let name = preferred(&names)?;
            let said =
                format!("no config was named; {name:?} is read (there are: {})", list(&names, names.len()));
            named(name).map(|config| (config, Some(said)))
        }
    }
}

/// The name to take where none is asked for: the English one, a pair with English, one that ends as `cited_count_en` does,
/// or the first.
pub(super) fn preferred<'n>(names: &[&'n str]) -> Option<&'n str> {
    let english = ENGLISH.iter().find_map(|english| names.iter().find(|name| *name == english));
    let is_english = |part: &str| ENGLISH.contains(&part) && part != DEFAULT;
    let pair = || names.iter().find(|name| name.split('-').any(is_english));
    let in_english = |name: &&&str| name.rsplit_once('_').is_some_and(|(_, end)| is_english(end));
    english.or_else(pair).or_else(|| names.iter().find(in_english)).or(names.first()).copied()
}

/// The names as a list for reading, cut where they are many.
pub(super) fn list(names: &[&str], n_names: usize) -> String {
    listed(names.iter().copied(), n_names)
}

fn no_config(repo: &Repo, which: Which<'_>, known: &[Config]) -> FilesError {
    let names: Vec<&str> = known.iter().map(|config| config.name.as_str()).collect();
    let wanted = match which {
        // The first ones are names that it might have besides.
        Which::Named([.., wanted]) => *wanted,
        Which::Named([]) | Which::Default => DEFAULT,
    };
    FilesError::NoConfig {
        repo: repo.clone(),
        config: wanted.to_owned(),
        known: list(&names, names.len()),
        hint: suggest::hint(wanted, names.iter().copied()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_where_nothing_is_named() {
        let check =
            |names: &[&str], expected: Option<&str>| assert_eq!(preferred(names), expected, "{names:?}");
        check(&["de", "en", "fr"], Some("en"));
        check(&["deu_Latn", "eng_Latn"], Some("eng_Latn"));
        check(&["french", "english"], Some("english"));
        check(&["de", "fr"], Some("de"));
        check(&["ace_Arab-bam_Latn", "ace_Arab-eng_Latn"], Some("ace_Arab-eng_Latn"));
        check(&["de-fr", "en-de", "en-en"], Some("en-en"));
        check(&["yearpubl_ru", "yearpubl_en"], Some("yearpubl_en"));
        check(&["x", "default"], Some("default"));
        check(&[], None);
    }
}
