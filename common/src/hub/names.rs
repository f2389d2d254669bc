//! Which names of repositories, revisions and files are believed: all of them become paths below the cache.

/// The longest path inside a repository, in bytes.
const PATH_BYTES_MAX: usize = 2048;
/// The longest part of a path that file systems take, in bytes.
const PART_BYTES_MAX: usize = 255;

/// `name` or `owner/name`, in the characters that the hub allows.
pub(crate) fn is_repo_id(id: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.') && !part.contains("--")
    };
    id.len() <= 200 && id.split('/').count() <= 2 && id.split('/').all(part)
}

/// Full commit hashes name their snapshot; branches and tags are looked up.
pub(crate) fn is_commit(revision: &str) -> bool {
    is_hex(revision, 40)
}

/// That many lower-case hex digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A path with `/` that stays below the folder it is joined to, on every system. Revisions are such paths too.
pub(super) fn is_inside(path: &str) -> bool {
    let part = |part: &str| {
        // `C:` begins a drive on some systems.
        let is_drive = part.len() == 2 && part.ends_with(':');
        let leaves = matches!(part, "" | "." | "..") || is_drive || part.contains(['\\', '\0']);
        !leaves && part.len() <= PART_BYTES_MAX
    };
    path.len() <= PATH_BYTES_MAX && path.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_the_cache_are_refused() {
        for bad in ["..", "a/..", "a/b/c", "a b", "a--b", "a/", "/a", "a\\b", ""] {
            assert!(!is_repo_id(bad), "{bad}");
        }
        for good in ["bert-base-uncased", "BAAI/bge-large-en-v1.5", "a_b/c.d"] {
            assert!(is_repo_id(good), "{good}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        let long = "x".repeat(256);
        for bad in ["", "..", "a/../b", "/a", "a//b", "a/", "./a", "a\\b", "a\0", "C:/a", &long] {
            assert!(!is_inside(bad), "{bad:?}");
        }
        for good in
            ["a", "a/b.c", ".gitattributes", "data/train 1#?%.parquet", "refs/convert/parquet", "..a/b.."]
        {
            assert!(is_inside(good), "{good}");
        }
    }

    #[test]
    fn commits_are_40_digits() {
        assert!(is_commit(&"0a".repeat(20)));
        for bad in ["main", "0a0a0a0", &"0A".repeat(20), &"0a".repeat(32)] {
            assert!(!is_commit(bad), "{bad}");
        }
    }
}
