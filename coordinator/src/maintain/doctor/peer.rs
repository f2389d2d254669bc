//! Two machines and one store: what each of them writes, the other one sees, and of two that create, one wins.
//!
//! They find each other in the store itself. Each writes a greeting under `probe/peers/` that it refreshes; whoever
//! sees exactly one other greeting change has met its peer, and the two names together are the meeting.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use lsa_common::failure::chain;
use lsa_common::store::{Created, Store, StoreError, probe_key};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Check, Diagnosis, Verdict};

const PEERS: &str = "probe/peers";
const WAIT_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longer than a network file system keeps what it knows of a folder.
const ANSWER_MAX: Duration = Duration::from_secs(90);
const ROUNDS: usize = 20;
/// Creates of one key that each of the two sends at once.
const RACERS: usize = 8;

#[derive(Debug, thiserror::Error)]
enum MeetError {
    #[error(
        "nobody came within {WAIT_MAX:?}; start `lsa-coordinator doctor --peer` with the same store on another machine"
    )]
    Nobody,
    #[error("more than two are here; let two meet at a time")]
    Crowd,
    #[error("the other one's {what} did not appear within {ANSWER_MAX:?}")]
    Silent { what: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one side saw of a round.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    n_won: usize,
    read: String,
}

struct Meeting<'a> {
    store: &'a Store,
    folder: String,
    me: String,
    other: String,
    slowest: Duration,
}

/// Waits for another machine, and races it.
pub(super) async fn meet(store: &Store) -> Diagnosis {
    let me = probe_key("peer").rsplit('-').next().unwrap_or_default().to_owned();
    let greeting = format!("{PEERS}/{me}");
    let found = find(store, &me, &greeting).await;
    let mut checks = Vec::new();
    match found {
        Ok(other) => {
            let (first, second) = if me < other { (&me, &other) } else { (&other, &me) };
            let folder = format!("probe/meeting-{first}-{second}");
            let mut meeting = Meeting { store, folder, me, other, slowest: Duration::ZERO };
            let race = check("race", meeting.race().await);
            let seen = format!("what {} wrote was seen within {:?}", meeting.other, meeting.slowest);
            checks.push(Check { name: "peer", verdict: Verdict::Ok, detail: seen });
            checks.push(race);
            // Neither knows whether the other one has read everything; the last to leave removes what is left.
            meeting.leave().await;
        }
        Err(error) => checks.push(check("peer", Err(error))),
    }
    if let Err(error) = store.delete(&greeting).await {
        tracing::warn!("{}", chain(&error));
    }
    Diagnosis::new(store, checks)
}

fn check(name: &'static str, found: Result<(Verdict, String), MeetError>) -> Check {
    let (verdict, detail) = found.unwrap_or_else(|error| (Verdict::Failed, chain(&error)));
    Check { name, verdict, detail }
}

/// The name of the other one.
#[expect(clippy::disallowed_methods, reason = "another machine is waited for")]
async fn find(store: &Store, me: &str, greeting: &str) -> Result<String, MeetError> {
    let begun = Instant::now();
    let mut first: BTreeMap<String, Bytes> = BTreeMap::new();
    for count in 0u64.. {
        store.put(greeting, Bytes::from(count.to_string())).await?;
        let mut alive = Vec::new();
        for object in store.list(PEERS).await? {
            let Some(name) = object.key.rsplit('/').next().filter(|name| *name != me) else { continue };
            let Some(beat) = store.try_get(&object.key).await? else { continue };
            // One that never changes was left by somebody who was killed.
            if *first.entry(name.to_owned()).or_insert(beat.clone()) != beat {
                alive.push(name.to_owned());
            }
        }
        match alive.len() {
            0 => {}
            1 => return Ok(alive.remove(0)),
            _ => return Err(MeetError::Crowd),
        }
        if begun.elapsed() > WAIT_MAX {
            return Err(MeetError::Nobody);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(MeetError::Nobody)
}

impl Meeting<'_> {
    async fn race(&mut self) -> Result<(Verdict, String), MeetError> {
        for round in 0..ROUNDS {
            self.tell(&format!("ready-{round}"), b"").await?;
            self.hear(&format!("ready-{round}")).await?;
            let key = format!("{}/race-{round}", self.folder);
            let bytes = |racer: usize| format!("{}-{racer}", self.me);
            let creates = (0..RACERS).map(|racer| self.store.create(&key, bytes(racer).into()));
            let created = try_join_all(creates).await?;
            let n_won = created.iter().filter(|created| **created == Created::Here).count();
            let read = String::from_utf8_lossy(&self.store.get(&key).await?).into_owned();
            let mine = Seen { n_won, read };
            let json = serde_json::to_vec(&mine).expect("a plain struct serialises");
            self.tell(&format!("seen-{round}"), &json).await?;
            let theirs = self.hear(&format!("seen-{round}")).await?;
            let Ok(theirs) = serde_json::from_slice::<Seen>(&theirs) else {
                return Ok((
                    Verdict::Failed,
                    format!("round {round}: what the other one wrote cannot be read"),
                ));
            };
            let fault = match (mine.n_won + theirs.n_won, mine.read == theirs.read) {
                (1, true) => continue,
                (1, false) => format!("one reads {:?}, the other one {:?}", mine.read, theirs.read),
                (n, _) => format!("{n} of {} creates of one key succeeded", 2 * RACERS),
            };
            return Ok((Verdict::Failed, format!("round {round} of {ROUNDS}: {fault}")));
        }
        let detail =
            format!("{ROUNDS} races of {RACERS} creates from each side: one winner each, and both agree");
        Ok((Verdict::Ok, detail))
    }

    async fn tell(&self, what: &str, bytes: &[u8]) -> Result<(), MeetError> {
        let key = format!("{}/{what}-{}", self.folder, self.me);
        self.store.put(&key, Bytes::copy_from_slice(bytes)).await?;
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "another machine is waited for")]
    async fn hear(&mut self, what: &str) -> Result<Bytes, MeetError> {
        let key = format!("{}/{what}-{}", self.folder, self.other);
        let begun = Instant::now();
        loop {
            // A name that was asked for too early may be remembered as missing; a listing looks again.
            self.store.list(&self.folder).await?;
            if let Some(bytes) = self.store.try_get(&key).await? {
                self.slowest = self.slowest.max(begun.elapsed());
                return Ok(bytes);
            }
            if begun.elapsed() > ANSWER_MAX {
                return Err(MeetError::Silent { what: what.to_owned() });
            }
            tokio::time::sleep(LOOK_EVERY / 10).await;
        }
    }

    async fn leave(&mut self) {
        let left = async {
            self.tell("left", b"").await?;
            if self.me < self.other {
                self.hear("left").await?;
                for object in self.store.list(&self.folder).await? {
                    self.store.delete(&object.key).await?;
                }
            }
            Ok::<(), MeetError>(())
        };
        if let Err(error) = left.await {
            tracing::warn!("{} was not cleaned up: {}", self.folder, chain(&error));
        }
    }
}
