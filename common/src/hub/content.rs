//! The digest of a file's bytes, of the kind that its listing has.

use std::fmt::Write as _;

use super::ContentId;
use crate::id::Digest;

/// A digest in the making.
#[derive(Clone)]
pub(crate) enum ContentHash {
    Sha256(sha2::Sha256),
    GitSha1(sha1::Sha1),
}

impl ContentHash {
    /// Of the same kind as `expected`, for a file of `size` bytes.
    pub(crate) fn like(expected: &ContentId, size: u64) -> Self {
        match expected {
            ContentId::Sha256(_) => Self::Sha256(sha2::Digest::new()),
            ContentId::GitSha1(_) => {
                let mut hash: sha1::Sha1 = sha1::Digest::new();
                sha1::Digest::update(&mut hash, format!("blob {size}\0"));
                Self::GitSha1(hash)
            }
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => sha2::Digest::update(hash, bytes),
            Self::GitSha1(hash) => sha1::Digest::update(hash, bytes),
        }
    }

    pub(crate) fn finish(self) -> ContentId {
        match self {
            Self::Sha256(hash) => ContentId::Sha256(Digest(sha2::Digest::finalize(hash).into())),
            Self::GitSha1(hash) => {
                let mut text = String::new();
                for byte in sha1::Digest::finalize(hash) {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "{byte:02x}");
                }
                ContentId::GitSha1(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_git_and_sha256() {
        let check = |like: &ContentId, expected: &str| {
            let mut hash = ContentHash::like(like, 6);
            hash.update(b"hel");
            hash.update(b"lo\n");
            assert_eq!(hash.finish().to_string(), expected);
        };
        // As `git hash-object` and `sha256sum` give them.
        check(&ContentId::GitSha1(String::new()), "ce013625030ba8dba906f756967f9e9ca394464a");
        check(
            &ContentId::Sha256(Digest([0; 32])),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        );
    }
}
