//! The cache that the Python libraries keep on this machine: `models--owner--name/{refs,snapshots}`.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use hf_hub::HFClient;

use super::{ModelFolder, ModelSourceError};

/// A ref file holds one commit hash; anything longer is no ref.
const REF_BYTES_MAX: u64 = 1024;

/// Where cached repositories lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache {
    root: PathBuf,
}

impl HubCache {
    /// The cache at that place.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache that the Python libraries would use: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME/hub`,
    /// `XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub`; the first that is set.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some(value.to_str().map_or_else(|| PathBuf::from(&value), expand_home))
        };
        let root = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(folder("HF_HOME")?.join("hub")))
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface/hub")))
            .unwrap_or_else(|| expand_home("~/.cache/huggingface/hub"));
        Self { root }
    }

    /// The snapshot of `id` at a branch, tag or commit.
    pub(super) fn find(&self, id: &str, revision: &str) -> Result<ModelFolder, ModelSourceError> {
        if !is_hub_id(id) {
            return Err(ModelSourceError::MalformedId(id.chars().take(200).collect()));
        }
        let repository = self.root.join(format!("models--{}", id.replace('/', "--")));
        let commit =
            if is_commit(revision) { Some(revision.to_owned()) } else { read_ref(&repository, revision) };
        let found = commit.and_then(|commit| {
            let folder = repository.join("snapshots").join(&commit);
            folder.is_dir().then_some((commit, folder))
        });
        match found {
            Some((commit, folder)) => Ok(ModelFolder { id: id.to_owned(), revision: Some(commit), folder }),
            None => Err(ModelSourceError::NotCached {
                id: id.to_owned(),
                revision: revision.to_owned(),
                cache: self.root.clone(),
                known: known_list(&self.models()),
            }),
        }
    }
}

impl HubCache {
    /// The ids of the models in the cache, sorted; empty where it cannot be read.
    pub fn models(&self) -> Vec<String> {
        let root = self.root.clone();
        // The library's scan is asynchronous; a thread of its own can wait for it wherever this is called from.
        let scan = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let client = HFClient::builder().cache_dir(root).build().ok()?;
            runtime.block_on(client.scan_cache().send()).ok()
        });
        let repositories = scan.join().ok().flatten().map(|cache| cache.repos).unwrap_or_default();
        let models = repositories.into_iter().filter(|repository| repository.repo_type == "model");
        let mut ids: Vec<String> = models.map(|repository| repository.repo_id).collect();
        ids.sort();
        ids
    }
}

/// What an error says of the models that are there.
fn known_list(ids: &[String]) -> String {
    const SHOWN: usize = 8;
    match ids {
        [] => "no models".to_owned(),
        ids if ids.len() <= SHOWN => ids.join(", "),
        ids => format!("{}, and {} more", ids[..SHOWN].join(", "), ids.len() - SHOWN),
    }
}

/// `~` and `~/…` from the home folder; all else as it is.
pub(super) fn expand_home(path: &str) -> PathBuf {
    let below = path.strip_prefix('~').filter(|below| below.is_empty() || below.starts_with('/'));
    match (below, std::env::home_dir()) {
        (Some(below), Some(home)) => home.join(below.trim_start_matches('/')),
        _ => PathBuf::from(path),
    }
}

/// `name` or `owner/name`, in the characters that the hub allows.
fn is_hub_id(id: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.') && !part.contains("--")
    };
    id.len() <= 200 && id.split('/').count() <= 2 && id.split('/').all(part)
}

/// Full commit hashes name their snapshot; branches and tags are looked up.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn read_ref(repository: &Path, revision: &str) -> Option<String> {
    let inside = Path::new(revision).components().all(|part| matches!(part, Component::Normal(_)));
    if revision.is_empty() || !inside {
        return None;
    }
    let path = repository.join("refs").join(revision);
    let size = path.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    let commit = (size <= REF_BYTES_MAX).then(|| std::fs::read_to_string(&path).ok())??;
    let commit = commit.trim();
    is_commit(commit).then(|| commit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn branches_tags_and_commits_lead_to_a_snapshot() {
        let root = tempfile::tempdir().expect("temporary folder");
        let repository = root.path().join("models--owner--name");
        std::fs::create_dir_all(repository.join("snapshots").join(COMMIT)).expect("created");
        std::fs::create_dir_all(repository.join("refs/refs/pr")).expect("created");
        std::fs::write(repository.join("refs/main"), COMMIT).expect("written");
        std::fs::write(repository.join("refs/refs/pr/1"), format!("{COMMIT}\n")).expect("written");
        std::fs::write(repository.join("refs/bad"), "../../..").expect("written");
        let cache = HubCache::at(root.path());
        for revision in ["main", "refs/pr/1", COMMIT] {
            let found = cache.find("owner/name", revision).expect(revision);
            assert_eq!(found.revision.as_deref(), Some(COMMIT));
            assert!(found.folder.ends_with(COMMIT));
        }
        assert_eq!(cache.models(), ["owner/name"]);
        for revision in ["bad", "other", "", "../refs/main", "/etc/passwd", &COMMIT.replace('0', "1")] {
            let error = cache.find("owner/name", revision).expect_err(revision);
            assert!(matches!(error, ModelSourceError::NotCached { .. }), "{revision}");
        }
    }

    #[test]
    fn the_first_variable_that_is_set_wins() {
        let check = |set: &[(&str, &str)], expected: &str| {
            let found = HubCache::from_variables(|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            });
            assert_eq!(found, HubCache::at(expected), "{set:?}");
        };
        check(&[("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b")], "/a");
        check(&[("HUGGINGFACE_HUB_CACHE", "/c"), ("HF_HOME", "/b")], "/c");
        check(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/b")], "/b/hub");
        check(&[("XDG_CACHE_HOME", "/d")], "/d/huggingface/hub");
    }

    #[test]
    fn ids_that_could_leave_the_cache_are_refused() {
        for bad in ["..", "a/..", "a/b/c", "a b", "a--b", "a/", "/a", "a\\b"] {
            assert!(!is_hub_id(bad), "{bad}");
        }
        for good in ["bert-base-uncased", "BAAI/bge-large-en-v1.5", "a_b/c.d"] {
            assert!(is_hub_id(good), "{good}");
        }
    }
}
