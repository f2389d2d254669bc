//! What a worker is sent of a unit.

use lsa_common::id::Digest;
use lsa_common::unit::{CompareSide, CompareUnit, ExtractUnit, MirrorUnit, PrepareUnit, Unit as Payload};

use super::WorkState;
use crate::plan::{Side, What};
use crate::scheduler::event::Item;

impl WorkState {
    /// The unit as a worker gets it.
    pub fn payload(&self, index: u32) -> Option<Payload> {
        let unit = self.units.get(&index)?;
        Some(match &self.work.what {
            What::Prepare { texts_key, texts } => {
                Payload::Prepare(PrepareUnit { texts_key: *texts_key, texts: texts.clone() })
            }
            What::Mirror { model, .. } => Payload::Mirror(Box::new(MirrorUnit { model: model.clone() })),
            What::Extract(extraction) => {
                let pooling = |item: &Item| match item {
                    Item::Rows(pooling) => Some(*pooling),
                    Item::Texts | Item::Files | Item::Trial(_) => None,
                };
                Payload::Extract(Box::new(ExtractUnit {
                    extraction_key: self.key?,
                    texts_key: extraction.texts_key,
                    model: extraction.model.clone(),
                    settings: extraction.settings.clone(),
                    poolings: unit.items.iter().filter_map(pooling).collect(),
                    shard: index,
                    n_rows: extraction.shard_len(index),
                }))
            }
            What::Compare(comparison) => {
                let trial = |item: &Item| match item {
                    Item::Trial(trial) => Some(*trial),
                    Item::Texts | Item::Files | Item::Rows(_) => None,
                };
                if self.rows_keys.len() != comparison.sides.len() {
                    return None;
                }
                let side = |(side, key): (&Side, &Digest)| CompareSide {
                    extraction_key: *key,
                    n_shards: side.n_shards,
                    layers: side.layers.clone(),
                    hidden_size: side.hidden_size,
                };
                Payload::Compare(CompareUnit {
                    comparison_key: self.key?,
                    sides: comparison.sides.iter().zip(&self.rows_keys).map(side).collect(),
                    pooling: comparison.pooling,
                    n_texts: comparison.n_texts,
                    settings: comparison.settings.clone(),
                    trials: unit.items.iter().filter_map(trial).collect(),
                })
            }
        })
    }
}
