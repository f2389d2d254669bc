//! An object that is written piece by piece.

use bytes::Bytes;
use object_store::buffered::BufWriter;
use sha2::Digest as _;
use tokio::io::AsyncWriteExt as _;

use super::StoreError;
use crate::id::Digest;

/// An object that is being written.
pub struct Upload {
    writer: BufWriter,
    key: String,
    hash: sha2::Sha256,
    size: u64,
}

impl Upload {
    pub(super) fn new(writer: BufWriter, key: &str) -> Self {
        Self { writer, key: key.to_owned(), hash: sha2::Sha256::new(), size: 0 }
    }

    /// Appends bytes without digesting them.
    pub(super) async fn append(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let failed = |source| StoreError::Request { deed: "write", key: self.key.clone(), source };
        self.writer.put(bytes).await.map_err(failed)
    }

    /// Appends bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.writer.write_all(bytes).await.map_err(|source| self.failed(source))
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of the bytes so far.
    pub fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    /// Throws away what was written.
    pub async fn abandon(mut self) -> Result<(), StoreError> {
        self.writer.abort().await.map_err(|source| StoreError::Request {
            deed: "abandon",
            key: self.key.clone(),
            source,
        })
    }

    /// Makes the object visible.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        self.writer.shutdown().await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> StoreError {
        let source = object_store::Error::Generic { store: "bucket", source: source.into() };
        StoreError::Request { deed: "write", key: self.key.clone(), source }
    }
}
