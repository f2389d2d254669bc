//! An object of the bucket as a blocking reader: pieces of bounded size, the next one fetched while one is used.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::MirrorError;
use super::content::{ContentHash, digest_text};
use crate::hub::{ContentId, HubError};
use crate::record::StoredObject;
use crate::store::{Store, StoreError};

/// The first piece is small, for whoever wants a header alone; each is twice the one before.
const FIRST_PIECE: u64 = 256 << 10;
/// A reader holds two pieces at most.
const PIECE_MAX: u64 = 8 << 20;

/// The bytes of an object from an offset on.
///
/// When it is read from its beginning, its last piece is handed out only after the digest of all was found right.
pub(super) struct ObjectReader {
    store: Store,
    runtime: Handle,
    object: StoredObject,
    next: Option<JoinHandle<Result<Bytes, StoreError>>>,
    asked_to: u64,
    piece_size: u64,
    piece: Bytes,
    /// Bytes received, counted from the beginning of the object.
    received: u64,
    check: Option<(ContentHash, ContentId)>,
    fault: Option<String>,
}

impl ObjectReader {
    /// Reads `object`, whose bytes must be `id`, from `from` on.
    pub(super) fn new(store: Store, runtime: Handle, object: StoredObject, id: ContentId, from: u64) -> Self {
        let check = (from == 0).then(|| (ContentHash::new(&id, object.size), id));
        let mut reader = Self {
            store,
            runtime,
            object,
            next: None,
            asked_to: from,
            piece_size: FIRST_PIECE,
            piece: Bytes::new(),
            received: from,
            check,
            fault: None,
        };
        if reader.object.size == 0 {
            reader.check_digest();
        }
        reader.ask();
        reader
    }

    /// Asks for the next piece, if there is one.
    fn ask(&mut self) {
        let size = self.piece_size.min(self.object.size.saturating_sub(self.asked_to));
        if size == 0 {
            return;
        }
        let (store, key, from) = (self.store.clone(), self.object.key.clone(), self.asked_to);
        self.next = Some(self.runtime.spawn(async move { store.get_range(&key, from, size).await }));
        self.asked_to += size;
        self.piece_size = (self.piece_size * 2).min(PIECE_MAX);
    }

    /// Takes in the next piece; `false` at the end.
    fn advance(&mut self) -> Result<bool, MirrorError> {
        let Some(next) = self.next.take() else { return Ok(false) };
        let interrupted = |_| MirrorError::Interrupted { key: self.object.key.clone() };
        let piece = self.runtime.block_on(next).map_err(interrupted)??;
        self.ask();
        self.received += piece.len() as u64;
        if let Some((hash, _)) = &mut self.check {
            hash.update(&piece);
        }
        if self.received == self.object.size {
            self.check_digest();
        }
        self.piece = piece;
        Ok(true)
    }

    fn check_digest(&mut self) {
        let Some((hash, id)) = self.check.take() else { return };
        let (sha256, found) = hash.finish();
        if sha256 != self.object.sha256 {
            self.fault = Some(format!("its SHA-256 is {sha256}"));
        } else if found != id {
            self.fault = Some(format!("it has {}, expected {}", digest_text(&found), digest_text(&id)));
        }
    }

    fn read_some(&mut self, to: &mut [u8]) -> Result<usize, MirrorError> {
        while self.piece.is_empty() && self.fault.is_none() && self.advance()? {}
        if let Some(fault) = &self.fault {
            return Err(MirrorError::Damaged { key: self.object.key.clone(), fault: fault.clone() });
        }
        let size = to.len().min(self.piece.len());
        to[..size].copy_from_slice(&self.piece[..size]);
        self.piece.advance(size);
        Ok(size)
    }
}

impl Read for ObjectReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        self.read_some(to).map_err(|error| io::Error::other(HubError::from(error)))
    }
}
