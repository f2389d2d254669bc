//! How long a coordinator takes to learn from a bucket in a folder what is done: by reading every record, and once they
//! are rolled up.
//!
//! ```text
//! cargo run --release -p lsa-coordinator --example recovery_bench FOLDER [records] [shards of an extraction] [layers]
//! ```
//!
//! Fills FOLDER, which must be empty, with as many records and with an object of four bytes for every layer of each, and
//! looks through all extractions as the driver does: so many at once.

#[path = "bench/works.rs"]
mod works;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lsa_common::id::{AttemptId, Digest, Epoch};
use lsa_common::key::extraction_key;
use lsa_common::layout;
use lsa_common::model::Pooling;
use lsa_common::record::{ExtractNotes, ShardLayer, ShardRecord, StoredObject, Writer};
use lsa_common::shard_records::{Generations, block_of, roll_up};
use lsa_common::store::{Store, StoreError};
use lsa_coordinator::driver::Settings;
use lsa_coordinator::plan::{What, Work, WorkId};
use lsa_coordinator::scheduler::work::WorkState;
use lsa_coordinator::survey::look;

const PROFILE: &str = "bench";
const POOLING: Pooling = Pooling::Mean;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("a folder that is empty");
    let mut number = |default: u32| match arguments.next() {
        None => default,
        Some(number) => number.parse().expect("records, shards, layers: numbers"),
    };
    let (n_records, n_shards, n_layers) = (number(1_000_000), number(10_000), number(1));
    let works: Vec<Arc<Work>> =
        (0..n_records / n_shards).map(|i| work(u64::from(i), n_shards, n_layers)).collect();
    let store = Store::open(&folder).expect("a folder");
    timed("written", async {
        for work in &works {
            write(Path::new(&folder), key(work), n_shards, n_layers);
        }
        Ok(())
    })
    .await;
    timed("looked through, record by record", survey(&store, &works)).await;
    timed("rolled up", roll_up_all(&store, &works, n_shards)).await;
    timed("looked through, rolled up", survey(&store, &works)).await;
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
async fn timed(what: &str, task: impl Future<Output = Result<(), StoreError>>) {
    let begun = Instant::now();
    task.await.expect("a folder of one's own");
    println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
}

fn work(number: u64, n_shards: u32, n_layers: u32) -> Arc<Work> {
    let texts_key = Digest::of(b"texts");
    let n_texts = n_shards * works::SHARD_ROWS;
    let layers = (0..n_layers).collect();
    let extraction = works::extraction(number, texts_key, n_texts, layers, vec![POOLING]);
    let id = WorkId(extraction.base_key);
    Arc::new(Work { id, what: What::Extract(extraction), depends_on: Vec::new(), memory_bytes: 0, flop: 0 })
}

fn key(work: &Work) -> Digest {
    extraction_key(work.id.0, PROFILE)
}

/// Without fsync: only the reading is measured.
fn write(folder: &Path, key: Digest, n_shards: u32, n_layers: u32) {
    fs::create_dir_all(folder.join(layout::embeddings_commits(key, POOLING))).expect("an empty folder");
    for layer in 0..n_layers {
        let name = layout::embedding_rows(key, POOLING, layer, 0, AttemptId(0));
        let (layer, _) = name.rsplit_once('/').expect("a key has a folder");
        fs::create_dir_all(folder.join(layer)).expect("an empty folder");
    }
    for shard in 0..n_shards {
        let attempt = AttemptId(u128::from(shard));
        let layers = (0..n_layers).map(|layer| {
            let name = layout::embedding_rows(key, POOLING, layer, shard, attempt);
            fs::write(folder.join(&name), b"rows").expect("an empty folder");
            ShardLayer {
                layer,
                width: 768,
                object: StoredObject { key: name, size: 4, sha256: Digest::of(b"rows") },
            }
        });
        let record = ShardRecord {
            writer: Writer {
                coordinator: "bench".to_owned(),
                epoch: Epoch(1),
                attempt,
                attempt_number: 1,
                worker: "worker-1".parse().expect("a plain name"),
                numeric_profile: PROFILE.to_owned(),
                committed_at: "2026-01-01T00:00:00Z".to_owned(),
                elapsed_ms: 1_000,
            },
            shard,
            n_rows: works::SHARD_ROWS,
            layers: layers.collect(),
            notes: ExtractNotes::default(),
        };
        let name = layout::embeddings_commit(key, POOLING, shard, 0);
        let json = serde_json::to_vec_pretty(&record).expect("a plain struct serialises");
        fs::write(folder.join(name), json).expect("an empty folder");
    }
}

async fn survey(store: &Store, works: &[Arc<Work>]) -> Result<(), StoreError> {
    let look = |work: Arc<Work>| {
        let store = store.clone();
        let looked = async move {
            let found = look(&store, &work, Some(key(&work))).await?;
            let mut state = WorkState::new(work);
            state.open(found);
            assert!(state.is_complete(), "every record and every object is there");
            Ok::<_, StoreError>(())
        };
        async { tokio::spawn(looked).await.expect("nobody panics") }
    };
    stream::iter(works.to_vec())
        .map(look)
        .buffer_unordered(Settings::default().merges_at_once)
        .try_collect()
        .await
}

async fn roll_up_all(store: &Store, works: &[Arc<Work>], n_shards: u32) -> Result<(), StoreError> {
    for work in works {
        let mut first = 0;
        while let Some(block) = block_of(first, n_shards) {
            first = block.end() + 1;
            let block: Generations = block.map(|shard| (shard, 0)).collect();
            roll_up(store, ("bench", Epoch(1)), key(work), POOLING, &block).await?;
        }
    }
    Ok(())
}
