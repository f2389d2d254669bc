//! Finds what can go, folder by folder, and removes it.

use std::collections::BTreeMap;

use lsa_common::id::{AttemptId, Digest};
use lsa_common::layout;
use lsa_common::model::Pooling;
use lsa_common::record::TextsRecord;
use lsa_common::shard_records::{Listing, Newest};
use lsa_common::store::{Listed, Store, StoreError};

use super::uses::Uses;
use super::{Collected, GcError, Kind, Promised};
use crate::identity::Identity;

/// Looks through the bucket and removes.
pub(super) struct Collector<'a> {
    pub store: &'a Store,
    pub identity: &'a Identity,
    pub uses: Uses,
    pub promised: &'a Promised,
    /// What was written later stays.
    pub young_s: i64,
    /// What was used last before, goes.
    pub unused_before_s: Option<i64>,
    pub dry_run: bool,
    pub collected: Collected,
}

impl Collector<'_> {
    pub async fn trials(&mut self) -> Result<(), GcError> {
        for key in self.unneeded(layout::TRIALS).await? {
            let objects = self.store.list(&layout::trials(key)).await?;
            let newest = newest_of(&objects, layout::parse_record_name);
            let is_replaced = |object: &Listed| {
                let number = layout::parse_record_name(name_of(object));
                number.is_some_and(|(trial, generation)| self.is_replaced(&newest, trial, generation))
            };
            let replaced: Vec<Listed> =
                objects.iter().filter(|object| is_replaced(object)).cloned().collect();
            self.remove_of_work(key, &objects, replaced, Vec::new()).await?;
        }
        Ok(())
    }

    pub async fn embeddings(&mut self) -> Result<(), GcError> {
        for key in self.unneeded(layout::EMBEDDINGS).await? {
            let objects = self.store.list(&layout::extraction(key)).await?;
            let mut replaced = Vec::new();
            let mut uncommitted = Vec::new();
            for pooling in Pooling::ALL {
                let folder = format!("{}/", layout::embeddings(key, pooling));
                let of_pooling: Vec<&Listed> =
                    objects.iter().filter(|object| object.key.starts_with(&folder)).collect();
                let listing = Listing::of(of_pooling.iter().map(|object| object.key.as_str()));
                let found = listing.read(self.store, key, pooling, |record| record.writer.attempt).await?;
                let newest = newest_of(of_pooling.iter().copied(), layout::parse_record_name);
                let segments = newest_of(of_pooling.iter().copied(), |name| {
                    layout::parse_segment_name(name).map(|(first, _, number)| (first, number))
                });
                for object in of_pooling {
                    let name = name_of(object);
                    if let Some((shard, attempt)) = parse_rows_name(name) {
                        let is_named = match found.get(&shard) {
                            Some(Newest { kept: Some(named), .. }) => *named == attempt,
                            // A damaged record names nobody knows what.
                            Some(Newest { kept: None, .. }) => true,
                            None => false,
                        };
                        if !is_named && object.modified_s < self.young_s {
                            uncommitted.push(object.clone());
                        }
                    } else if let Some((shard, generation)) = layout::parse_record_name(name) {
                        let is_sound = found.get(&shard).is_some_and(|newest| newest.kept.is_some());
                        if is_sound && self.is_replaced(&newest, shard, generation) {
                            replaced.push(object.clone());
                        }
                    } else if let Some((first, _, number)) = layout::parse_segment_name(name)
                        && self.is_replaced(&segments, first, number)
                    {
                        replaced.push(object.clone());
                    }
                }
            }
            self.remove_of_work(key, &objects, replaced, uncommitted).await?;
        }
        Ok(())
    }

    pub async fn texts(&mut self) -> Result<(), GcError> {
        for key in self.unneeded(layout::TEXTS).await? {
            let objects = self.store.list(&layout::texts(key)).await?;
            let generation = |name: &str| layout::parse_generation(name).map(|generation| (0, generation));
            let newest = newest_of(&objects, generation);
            let record: Option<TextsRecord> = match newest.get(&0) {
                Some((generation, _)) => {
                    let json = self.store.try_get(&layout::texts_commit(key, *generation)).await?;
                    json.and_then(|json| serde_json::from_slice(&json).ok())
                }
                None => None,
            };
            let mut replaced = Vec::new();
            let mut uncommitted = Vec::new();
            for object in &objects {
                if let Some((_, number)) = generation(name_of(object)) {
                    if record.is_some() && self.is_replaced(&newest, 0, number) {
                        replaced.push(object.clone());
                    }
                    continue;
                }
                let is_named = match &record {
                    Some(record) => record.parts.iter().any(|part| part.key == object.key),
                    None => !newest.is_empty(),
                };
                if !is_named && object.modified_s < self.young_s {
                    uncommitted.push(object.clone());
                }
            }
            self.remove_of_work(key, &objects, replaced, uncommitted).await?;
        }
        Ok(())
    }

    pub async fn inputs(&mut self) -> Result<(), GcError> {
        for object in self.store.list(layout::INPUTS).await? {
            let Ok(sha256) = name_of(&object).parse::<Digest>() else { continue };
            let promised = self.promised.lock().await;
            if object.modified_s >= self.young_s || promised.contains(&sha256) {
                continue;
            }
            match self.uses.input(sha256) {
                None => self.remove(Kind::Unmentioned, &[object]).await?,
                Some(used_s) if self.is_unused(used_s.max(object.modified_s)) => {
                    self.remove(Kind::Unused, &[object]).await?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The works in a folder that no unfinished run needs.
    async fn unneeded(&self, folder: &str) -> Result<Vec<Digest>, StoreError> {
        let keys = self.store.folders(folder).await?.into_iter().filter_map(|name| name.parse().ok());
        Ok(keys.filter(|key| !self.uses.is_needed(*key)).collect())
    }

    /// A later generation is there, and both have been there for long.
    fn is_replaced(&self, newest: &BTreeMap<u32, (u32, i64)>, number: u32, generation: u32) -> bool {
        newest.get(&number).is_some_and(|(newest, since_s)| generation < *newest && *since_s < self.young_s)
    }

    fn is_unused(&self, used_s: i64) -> bool {
        self.unused_before_s.is_some_and(|before_s| used_s < before_s.min(self.young_s))
    }

    async fn remove_of_work(
        &mut self,
        key: Digest,
        objects: &[Listed],
        replaced: Vec<Listed>,
        uncommitted: Vec<Listed>,
    ) -> Result<(), GcError> {
        let written_s = objects.iter().map(|object| object.modified_s).max().unwrap_or(i64::MAX);
        let used_s = self.uses.work(key).unwrap_or(i64::MIN).max(written_s);
        if self.is_unused(used_s) {
            let (records, data): (Vec<Listed>, Vec<Listed>) =
                objects.iter().cloned().partition(|object| object.key.contains("/commits/"));
            self.remove(Kind::Unused, &records).await?;
            return self.remove(Kind::Unused, &data).await;
        }
        self.remove(Kind::Replaced, &replaced).await?;
        self.remove(Kind::Uncommitted, &uncommitted).await
    }

    async fn remove(&mut self, kind: Kind, objects: &[Listed]) -> Result<(), GcError> {
        for object in objects {
            if !self.dry_run {
                if !self.identity.leads() {
                    return Err(GcError::Deposed);
                }
                self.store.delete(&object.key).await?;
            }
            self.collected.add(kind, object.size);
        }
        Ok(())
    }
}

fn name_of(object: &Listed) -> &str {
    object.key.rsplit('/').next().unwrap_or_default()
}

/// The highest generation of each number, and since when it is there.
fn newest_of<'a>(
    objects: impl IntoIterator<Item = &'a Listed>,
    parse: impl Fn(&str) -> Option<(u32, u32)>,
) -> BTreeMap<u32, (u32, i64)> {
    let mut newest = BTreeMap::new();
    for object in objects {
        let Some((number, generation)) = parse(name_of(object)) else { continue };
        let known = newest.entry(number).or_insert((generation, object.modified_s));
        if generation > known.0 {
            *known = (generation, object.modified_s);
        }
    }
    newest
}

/// Shard and attempt of `rows_<shard>.<attempt>.safetensors`.
fn parse_rows_name(name: &str) -> Option<(u32, AttemptId)> {
    let (shard, attempt) = name.strip_prefix("rows_")?.strip_suffix(".safetensors")?.split_once('.')?;
    Some((shard.parse().ok()?, attempt.parse().ok()?))
}
