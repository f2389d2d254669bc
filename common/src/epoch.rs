//! Who leads, as the bucket tells it: numbered records under `epochs/`, the highest one counts.

use serde::{Deserialize, Serialize};

use crate::id::Epoch;
use crate::layout;
use crate::store::{Store, StoreError};

/// That a coordinator took the lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The random id of its process.
    pub coordinator: String,
    /// Where workers and clients reach it, for example `http://10.0.0.1:7300`.
    #[serde(default)]
    pub address: Option<String>,
    /// When, by its own clock: for people.
    pub at: String,
}

/// The highest epoch that was taken, if any was.
pub async fn newest(store: &Store) -> Result<Option<Epoch>, StoreError> {
    let listed = store.list(layout::EPOCHS).await?;
    let number = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    Ok(listed.iter().filter_map(|object| number(&object.key)).max().map(Epoch))
}

/// What the coordinator of that epoch said of itself when it took it.
pub async fn record(store: &Store, epoch: Epoch) -> Result<EpochRecord, StoreError> {
    store.get_json(&layout::epoch(epoch)).await
}
