//! What bytes are, found out while they pass by.

use crate::hub::ContentId;
use crate::hub::content::ContentHash as ListedHash;
use crate::id::Digest;

/// Digests of the bytes of one file: always SHA-256, and the git object id where the listing has that.
pub(super) struct ContentHash {
    sha256: sha2::Sha256,
    git: Option<ListedHash>,
}

impl ContentHash {
    /// For a file of `size` bytes that the listing identifies by `id`.
    pub(super) fn new(id: &ContentId, size: u64) -> Self {
        let git = matches!(id, ContentId::GitSha1(_)).then(|| ListedHash::like(id, size));
        Self { sha256: sha2::Digest::new(), git }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.sha256, bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// The SHA-256, and the content id of the kind that the listing has.
    pub(super) fn finish(self) -> (Digest, ContentId) {
        let sha256 = Digest(sha2::Digest::finalize(self.sha256).into());
        (sha256, self.git.map_or(ContentId::Sha256(sha256), ListedHash::finish))
    }
}

/// For an error.
pub(super) fn digest_text(id: &ContentId) -> String {
    match id {
        ContentId::Sha256(digest) => format!("SHA-256 {digest}"),
        ContentId::GitSha1(id) => format!("git object id {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        let check = |id: &ContentId, expected: &str| {
            let mut hash = ContentHash::new(id, 6);
            hash.update(b"hel");
            hash.update(b"lo\n");
            let (sha256, found) = hash.finish();
            assert_eq!(sha256, Digest::of(b"hello\n"));
            assert_eq!(digest_text(&found), expected);
        };
        check(&ContentId::GitSha1(String::new()), "git object id ce013625030ba8dba906f756967f9e9ca394464a");
        check(
            &ContentId::Sha256(Digest([0; 32])),
            "SHA-256 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        );
    }
}
