//! Names of what lies on the hub: C4, tasks of MTEB, repositories.

use std::fmt;

use super::NameError;
use crate::dataset::catalogue::{self, Task, c4};
use crate::suggest;

/// The most names that a message lists.
const LISTED_MAX: usize = 12;

/// A dataset in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HubName {
    /// C4.
    C4(C4Name),
    /// A task of MTEB.
    Task(TaskName),
    /// Any repository.
    Repo(RepoName),
}

impl HubName {
    /// See [`super::DatasetName::stem`].
    pub fn stem(&self) -> String {
        match self {
            Self::C4(name) => name.to_string().replace('/', "_"),
            Self::Task(name) => name.to_string().replace('/', "_"),
            Self::Repo(name) => name.stem(),
        }
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::C4(name) => name.fmt(f),
            Self::Task(name) => name.fmt(f),
            Self::Repo(name) => name.fmt(f),
        }
    }
}

/// A config of C4: `c4` alone stands for `en`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct C4Name {
    config: &'static str,
}

impl C4Name {
    pub(super) fn parse(text: &str, config: Option<&str>) -> Result<Self, NameError> {
        let Some(config) = config else { return Ok(Self { config: c4::ENGLISH[0] }) };
        match c4::configs().find(|known| known.eq_ignore_ascii_case(config)) {
            Some(config) => Ok(Self { config }),
            None => Err(NameError::NoSubset {
                subset: text.to_owned(),
                what: "config of c4".to_owned(),
                known: listed(c4::configs(), c4::configs().count()),
                hint: suggest::hint(config, c4::configs()),
            }),
        }
    }

    /// The config, such as `en` or `de`.
    pub fn config(self) -> &'static str {
        self.config
    }
}

impl fmt::Display for C4Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.config == c4::ENGLISH[0] { f.write_str("c4") } else { write!(f, "c4/{}", self.config) }
    }
}

/// A task of MTEB of which texts can be read, and one of its subsets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskName {
    name: &'static str,
    subset: Option<String>,
}

impl TaskName {
    pub(super) fn parse(text: &str, task: &'static Task, subset: Option<&str>) -> Result<Self, NameError> {
        if let Some(reason) = task.unreadable {
            return Err(NameError::Unreadable { task: task.name, reason });
        }
        let Some(subset) = subset else { return Ok(Self { name: task.name, subset: None }) };
        let known = task.subsets.iter().find(|known| known.eq_ignore_ascii_case(subset));
        match known {
            Some(subset) => Ok(Self { name: task.name, subset: Some((*subset).to_owned()) }),
            None if task.subsets.is_empty() => {
                Err(NameError::NotDivided { task: task.name, subset: subset.to_owned() })
            }
            // The repository knows them all.
            None if !task.knows_all_subsets() && is_plain(subset) => {
                Ok(Self { name: task.name, subset: Some(subset.to_owned()) })
            }
            None => Err(NameError::NoSubset {
                subset: text.to_owned(),
                what: format!("subset of {}", task.name),
                known: listed(task.subsets.iter().copied(), task.n_subsets),
                hint: suggest::hint(subset, task.subsets.iter().copied()),
            }),
        }
    }

    /// The task's row in the table.
    pub fn task(&self) -> &'static Task {
        catalogue::find(self.name).expect("a parsed name is in the table")
    }

    /// The subset asked for, if one was.
    pub fn subset(&self) -> Option<&str> {
        self.subset.as_deref()
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.subset.iter().try_for_each(|subset| write!(f, "/{subset}"))
    }
}

/// `hf:owner/name[@revision][#config/split/column]`; an empty part means what is read by default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName {
    id: String,
    revision: Option<String>,
    config: Option<String>,
    split: Option<String>,
    column: Option<String>,
}

impl RepoName {
    pub(super) fn parse(text: &str, rest: &str) -> Result<Self, NameError> {
        let form = "hf:owner/name, hf:owner/name@revision or hf:owner/name#config/split/column";
        let malformed = |reason| Err(NameError::Malformed { name: text.to_owned(), reason, form });
        let (place, parts) = rest.split_once('#').map_or((rest, None), |(place, p)| (place, Some(p)));
        let (id, revision) = place.split_once('@').map_or((place, None), |(id, r)| (id, Some(r)));
        if id.is_empty() {
            return malformed("the repository is missing");
        }
        let is_name = |part: &str| is_plain(part) && !part.starts_with(['.', '-']) && !part.contains("..");
        if id.split('/').count() > 2 || !id.split('/').all(is_name) {
            return malformed("a repository is called owner/name, of letters, digits, '-', '.' and '_'");
        }
        match revision {
            Some("") => return malformed("the revision after '@' is missing"),
            Some(revision) if !revision.split('/').all(is_name) => {
                return malformed("a revision is a branch, a tag or a commit, without spaces");
            }
            _ => {}
        }
        let mut parts = parts.map(|parts| parts.splitn(3, '/').map(filled)).into_iter().flatten();
        let (config, split, column) =
            (parts.next().flatten(), parts.next().flatten(), parts.next().flatten());
        if rest.contains('#') && config.is_none() && split.is_none() && column.is_none() {
            return malformed("there is nothing after '#'");
        }
        let revision = revision.map(str::to_owned);
        Ok(Self { id: id.to_owned(), revision, config, split, column })
    }

    /// The repository.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whose repository it is, where the name says it.
    pub fn owner(&self) -> Option<&str> {
        self.id.split_once('/').map(|(owner, _)| owner)
    }

    /// The revision asked for; `main` otherwise.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The config asked for, if one was.
    pub fn config(&self) -> Option<&str> {
        self.config.as_deref()
    }

    /// The split asked for, if one was.
    pub fn split(&self) -> Option<&str> {
        self.split.as_deref()
    }

    /// The column asked for, if one was.
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    fn stem(&self) -> String {
        let name = self.id.rsplit('/').next().unwrap_or(&self.id);
        let parts = [Some(name), self.config(), self.split()];
        parts.into_iter().flatten().collect::<Vec<_>>().join("_")
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.id)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))?;
        let parts = [&self.config, &self.split, &self.column];
        let n_parts = parts.iter().rposition(|part| part.is_some()).map_or(0, |last| last + 1);
        for (idx, part) in parts.into_iter().take(n_parts).enumerate() {
            let mark = if idx == 0 { '#' } else { '/' };
            write!(f, "{mark}{}", part.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

fn filled(part: &str) -> Option<String> {
    (!part.is_empty()).then(|| part.to_owned())
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// `a, b, c and 5 more`
pub(in crate::dataset) fn listed<'a>(names: impl Iterator<Item = &'a str>, n_names: usize) -> String {
    let shown: Vec<&str> = names.take(LISTED_MAX).collect();
    match n_names.saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
