//! The checks that one machine can make alone.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use futures::future::{BoxFuture, try_join_all};
use lsa_common::failure::chain;
use lsa_common::id::Digest;
use lsa_common::store::{Store, StoreError, probe_key};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use super::{Check, Verdict};
use crate::forecast::bytes as shown;

const RACES: usize = 20;
const LISTED: usize = 50;
const OVERWRITES: u32 = 5;
const ROUND_TRIPS: usize = 5;
const THROUGHPUT_OBJECTS: usize = 16;
const THROUGHPUT_BYTES: usize = 8 << 20;
/// Two parts and a half.
const MULTIPART_BYTES: usize = 20 << 20;
/// Ages of objects decide which of them `--store-limit` removes first.
const SKEW_MAX_S: i64 = 60;
/// Below this a shard would not find room.
const FREE_MIN_BYTES: u64 = 10 << 30;
/// No check may take longer; a store that hangs is one that fails.
const CHECK_MAX: Duration = Duration::from_secs(120);
/// File systems that several machines share, by what statfs calls them.
const NETWORK_FILE_SYSTEMS: [(i64, &str); 8] = [
    (0x6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x00C3_6400, "Ceph"),
    (0x1983_0326, "BeeGFS"),
    (0x6573_5546, "FUSE"),
];

/// What a check says: its verdict in words, or that the store failed.
type Found = Result<(Verdict, String), StoreError>;

/// A store under examination. All that is written lies below `probe/` and is removed again.
pub(super) struct Bench<'a> {
    store: &'a Store,
}

impl<'a> Bench<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// All checks; after one that shows that nothing works, no more are made.
    pub(super) async fn all(&self) -> Vec<Check> {
        let mut checks = vec![self.check("round trip", Box::pin(self.round_trip())).await];
        if checks[0].verdict == Verdict::Failed {
            return checks;
        }
        checks.push(self.check("create-only", Box::pin(self.create_only())).await);
        checks.push(self.check("listing", Box::pin(self.listing())).await);
        checks.push(self.check("overwriting", Box::pin(self.overwriting())).await);
        checks.push(self.check("multipart", Box::pin(self.multipart())).await);
        checks.push(self.check("clock", Box::pin(self.clock())).await);
        checks.push(self.check("throughput", Box::pin(self.throughput())).await);
        if self.store.folder().is_some() {
            checks.push(self.check("disk", Box::pin(async { Ok(self.disk()) })).await);
        }
        checks
    }

    async fn check(&self, name: &'static str, check: BoxFuture<'_, Found>) -> Check {
        let (verdict, detail) = match tokio::time::timeout(CHECK_MAX, check).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => (Verdict::Failed, chain(&error)),
            Err(_) => (Verdict::Failed, format!("no end after {CHECK_MAX:?}")),
        };
        Check { name, verdict, detail }
    }

    /// Written, read, listed, removed.
    #[expect(clippy::disallowed_methods, reason = "latency is what is measured")]
    async fn round_trip(&self) -> Found {
        let (mut puts, mut gets) = (Vec::new(), Vec::new());
        for _ in 0..ROUND_TRIPS {
            let key = probe_key("small");
            let begun = Instant::now();
            let object = self.store.put(&key, Bytes::from_static(b"small")).await?;
            puts.push(begun.elapsed());
            let begun = Instant::now();
            self.store.get_verified(&object).await?;
            gets.push(begun.elapsed());
            self.store.delete(&key).await?;
            if self.store.size(&key).await?.is_some() {
                return Ok((Verdict::Failed, "an object that was removed is still there".to_owned()));
            }
        }
        Ok((Verdict::Ok, format!("put {}, get {}", milliseconds(puts), milliseconds(gets))))
    }

    /// Of several creates of one key, exactly one wins, also against a late one.
    async fn create_only(&self) -> Found {
        for number in 1..=RACES {
            if let Some(fault) = self.store.race().await?.fault() {
                return Ok((Verdict::Failed, format!("race {number} of {RACES}: {fault}")));
            }
        }
        let detail =
            format!("{RACES} races of 16 creates and a late one: one winner each, and its bytes stand");
        Ok((Verdict::Ok, detail))
    }

    /// What was put is listed at once, over pages too.
    async fn listing(&self) -> Found {
        let folder = probe_key("list");
        let keys: Vec<String> = (0..LISTED).map(|number| format!("{folder}/{number:03}")).collect();
        try_join_all(keys.iter().map(|key| self.store.put(key, Bytes::from_static(b"x")))).await?;
        let listed: Vec<String> =
            self.store.list(&folder).await?.into_iter().map(|object| object.key).collect();
        try_join_all(keys.iter().map(|key| self.store.delete(key))).await?;
        let left = self.store.list(&folder).await?.len();
        let missing = keys.iter().filter(|key| !listed.contains(key)).count();
        Ok(match (missing, left) {
            (0, 0) => {
                (Verdict::Ok, format!("{LISTED} new objects listed at once, none after they were removed"))
            }
            (0, left) => {
                let detail = format!("{left} of {LISTED} objects are listed after they were removed");
                (Verdict::Warning, detail)
            }
            (missing, _) => {
                let detail = format!("{missing} of {LISTED} new objects are missing from a listing");
                (Verdict::Failed, detail)
            }
        })
    }

    /// What is read is what was written last: a leader's beats are.
    async fn overwriting(&self) -> Found {
        let key = probe_key("beat");
        let mut stale = 0;
        for number in 0..OVERWRITES {
            let beat = Bytes::from(number.to_string());
            self.store.put(&key, beat.clone()).await?;
            stale += u32::from(self.store.get(&key).await? != beat);
        }
        self.store.delete(&key).await?;
        Ok(match stale {
            0 => (Verdict::Ok, "what was written last is read".to_owned()),
            stale => {
                let detail = format!(
                    "{stale} of {OVERWRITES} reads gave what had been overwritten: a standby could take a leader \
                     for dead"
                );
                (Verdict::Failed, detail)
            }
        })
    }

    /// A large object goes up in parts, comes down whole and by ranges, and is not there when given up.
    async fn multipart(&self) -> Found {
        let content = noise(MULTIPART_BYTES);
        let key = probe_key("parts");
        let mut upload = self.store.upload(&key).await?;
        for piece in content.chunks(1 << 20) {
            upload.write(piece).await?;
        }
        let sha256 = upload.digest();
        upload.finish().await?;
        let whole = self.store.get(&key).await?;
        let (from, size) = ((8 << 20) - 3, 7);
        let range = self.store.get_range(&key, from as u64, size as u64).await?;
        self.store.delete(&key).await?;
        if Digest::of(&whole) != sha256 || range != content[from..from + size] {
            return Ok((Verdict::Failed, "what comes down is not what went up".to_owned()));
        }
        let given_up = probe_key("given-up");
        let mut upload = self.store.upload(&given_up).await?;
        upload.write(&content).await?;
        upload.abandon().await?;
        if self.store.size(&given_up).await?.is_some() {
            self.store.delete(&given_up).await?;
            return Ok((Verdict::Warning, "an upload that was given up left an object".to_owned()));
        }
        Ok((Verdict::Ok, format!("{} in parts, whole and by ranges", shown(MULTIPART_BYTES as u64))))
    }

    /// The store's clock against this machine's.
    async fn clock(&self) -> Found {
        let skew_s = self.store.now_s().await? - Utc::now().timestamp();
        Ok(match skew_s.abs() <= SKEW_MAX_S {
            true => (Verdict::Ok, format!("{skew_s} s from this machine's")),
            false => {
                let detail = format!(
                    "{skew_s} s from this machine's; eviction goes by the store's clock: set one of the two right"
                );
                (Verdict::Warning, detail)
            }
        })
    }

    #[expect(clippy::disallowed_methods, reason = "throughput is what is measured")]
    async fn throughput(&self) -> Found {
        let content = noise(THROUGHPUT_BYTES);
        let folder = probe_key("throughput");
        let keys: Vec<String> = (0..THROUGHPUT_OBJECTS).map(|number| format!("{folder}/{number}")).collect();
        let begun = Instant::now();
        let put = try_join_all(keys.iter().map(|key| self.store.put(key, content.clone()))).await;
        let put_s = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let got = match &put {
            Ok(objects) => try_join_all(objects.iter().map(|object| self.store.get_verified(object))).await,
            Err(_) => Ok(Vec::new()),
        };
        let get_s = begun.elapsed().as_secs_f64();
        try_join_all(keys.iter().map(|key| self.store.delete(key))).await?;
        put?;
        got?;
        let mebibytes = (THROUGHPUT_OBJECTS * (THROUGHPUT_BYTES >> 20)) as f64;
        let detail = format!(
            "{THROUGHPUT_OBJECTS} objects of {} at once, digests included: put {:.0} MiB/s, get {:.0} MiB/s",
            shown(THROUGHPUT_BYTES as u64),
            mebibytes / put_s,
            mebibytes / get_s
        );
        Ok((Verdict::Ok, detail))
    }

    /// Room, and whether other machines may see another content.
    fn disk(&self) -> (Verdict, String) {
        let Some(folder) = self.store.folder() else { return (Verdict::Ok, String::new()) };
        let asked = nix::sys::statvfs::statvfs(folder)
            .and_then(|room| nix::sys::statfs::statfs(folder).map(|kind| (room, kind.filesystem_type().0)));
        let (room, kind) = match asked {
            Ok(asked) => asked,
            Err(error) => return (Verdict::Warning, format!("its file system cannot be asked: {error}")),
        };
        let free = room.blocks_available().saturating_mul(room.fragment_size());
        #[expect(clippy::unnecessary_cast, reason = "its width differs between machines")]
        let network = NETWORK_FILE_SYSTEMS.iter().find(|(magic, _)| *magic == kind as i64);
        match network {
            Some((_, name)) => {
                let detail = format!(
                    "{} free on {name}, which other machines may see otherwise: run `doctor --peer` on two of them",
                    shown(free)
                );
                (Verdict::Warning, detail)
            }
            None if free < FREE_MIN_BYTES => (Verdict::Warning, format!("only {} free", shown(free))),
            None => (Verdict::Ok, format!("{} free", shown(free))),
        }
    }
}

/// The middle one.
fn milliseconds(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("{:.1} ms", times[times.len() / 2].as_secs_f64() * 1000.0)
}

/// Bytes that no store can make smaller.
fn noise(n_bytes: usize) -> Bytes {
    let mut bytes = vec![0; n_bytes];
    ChaCha8Rng::from_seed([7; 32]).fill_bytes(&mut bytes);
    bytes.into()
}
