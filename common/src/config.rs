//! Paths that both binaries agree on.

use std::path::PathBuf;

/// Where `run` keeps its bucket unless told otherwise: `$XDG_CACHE_HOME/lsa`.
pub fn default_store() -> PathBuf {
    cache_home().join("lsa")
}

/// Where a worker keeps files that it has fetched from a bucket: `$XDG_CACHE_HOME/lsa-worker`.
pub fn worker_cache() -> PathBuf {
    cache_home().join("lsa-worker")
}

/// Where a coordinator keeps what it reads of hubs and mirrors: `$XDG_CACHE_HOME/lsa-coordinator`.
pub fn coordinator_cache() -> PathBuf {
    cache_home().join("lsa-coordinator")
}

fn cache_home() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| named("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
}
