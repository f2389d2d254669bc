//! Whether a store keeps the one promise that everything rests on: of several creates of one key, exactly one wins.

use bytes::Bytes;
use futures::future::try_join_all;

use super::{Created, Store, StoreError};
use crate::id::Digest;

const RACERS: usize = 16;
/// Keys of the short form, at every start. A store that checks and then writes, without holding anything, lets several
/// of 16 win on nearly every key.
const SHORT_KEYS: usize = 3;

/// What a race of creates on one key showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Race {
    /// Creates that the store said had won, of those at once.
    pub n_winners: usize,
    /// Creates at once.
    pub n_racers: usize,
    /// A create that came after them was said to have won.
    pub late_won: bool,
    /// What is read afterwards is not what the winner wrote.
    pub overwritten: bool,
    /// A listing afterwards does not show the key.
    pub unlisted: bool,
}

impl Race {
    /// What is wrong, if anything is.
    pub fn fault(&self) -> Option<String> {
        let Self { n_winners, n_racers, late_won, overwritten, unlisted } = self;
        if *late_won {
            return Some("a second create of one key succeeded: it ignores `If-None-Match`".to_owned());
        }
        match *n_winners {
            0 => return Some(format!("none of {n_racers} creates of one key succeeded")),
            1 => {}
            n => return Some(format!("{n} of {n_racers} creates of one key succeeded")),
        }
        if *overwritten {
            return Some("a create that failed has overwritten the one that succeeded".to_owned());
        }
        unlisted.then(|| "an object that was created is missing from a listing".to_owned())
    }
}

impl Store {
    /// The short form of `doctor`: refuses a store that lets two writers win.
    pub(super) async fn check_safety(&self) -> Result<(), StoreError> {
        for _ in 0..SHORT_KEYS {
            if let Some(evidence) = self.race().await?.fault() {
                return Err(StoreError::Unsafe { url: self.url.clone(), evidence });
            }
        }
        Ok(())
    }

    /// Races creates on a fresh key, and removes it again.
    pub async fn race(&self) -> Result<Race, StoreError> {
        let key = probe_key("race");
        let bytes = |racer: usize| Bytes::from(format!("racer {racer}"));
        let raced = try_join_all((0..RACERS).map(|racer| self.create(&key, bytes(racer)))).await;
        let created = match raced {
            Ok(created) => created,
            Err(error) => return Err(self.without_links(error)),
        };
        let late = self.create(&key, bytes(RACERS)).await?;
        let found = self.try_get(&key).await?;
        let listed = self.list("probe").await?.iter().any(|object| object.key == key);
        self.delete(&key).await?;
        let winners: Vec<usize> = (0..RACERS).filter(|racer| created[*racer] == Created::Here).collect();
        let stands = winners.first().is_some_and(|winner| found == Some(bytes(*winner)));
        Ok(Race {
            n_winners: winners.len(),
            n_racers: RACERS,
            late_won: late == Created::Here,
            overwritten: winners.len() == 1 && !stands,
            unlisted: !listed,
        })
    }

    /// Seconds since 1970 by the store's clock: it is asked when an object was written that is written for this.
    pub async fn now_s(&self) -> Result<i64, StoreError> {
        let key = probe_key("clock");
        self.put(&key, Bytes::from_static(b"x")).await?;
        let written = self.look(&key).await?;
        self.delete(&key).await?;
        let fault = || "an object that was just written is not there".to_owned();
        Ok(written.ok_or_else(|| StoreError::Damaged { key, fault: fault() })?.modified_s)
    }

    /// Names the cause where a directory cannot take a create: the file system has no hard links.
    fn without_links(&self, error: StoreError) -> StoreError {
        let StoreError::Request { source, .. } = &error else { return error };
        let mut cause: &dyn std::error::Error = source;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let errno = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        let refused = [nix::libc::EPERM, nix::libc::EOPNOTSUPP, nix::libc::ENOSYS, nix::libc::EMLINK];
        match errno {
            Some(errno) if self.folder.is_some() && refused.contains(&errno) => StoreError::Unsafe {
                url: self.url.clone(),
                evidence: format!("its file system has no hard links ({cause})"),
            },
            _ => error,
        }
    }
}

/// A key that nobody else uses.
pub fn probe_key(what: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let seed = format!("{:?} {} {count}", std::time::SystemTime::now(), std::process::id());
    format!("probe/{what}-{}", Digest::of(seed.as_bytes()).short())
}
