//! Decides who does what: expands a grid, plans the shared work, lends it to workers, merges and writes results.
//!
//! Builds and tests without libtorch. The scheduler is a pure state machine; `driver` alone awaits and writes.

pub mod across;
pub mod client;
pub mod commit;
pub mod config;
pub mod daemon;
pub mod datasets;
pub mod driver;
pub mod embeddings;
pub mod export;
pub mod figure;
pub mod forecast;
pub mod grid;
pub mod http;
pub mod hub_access;
pub mod identity;
pub mod journal;
pub mod leader;
pub mod local;
pub mod maintain;
pub mod merge;
pub mod metadata;
pub mod metrics;
pub mod output;
pub mod plan;
pub mod prepared;
pub mod progress;
pub mod report;
pub mod resolve;
pub mod result;
pub mod results;
pub mod rpc;
pub mod scheduler;
pub mod seat;
pub mod sources;
pub mod store_clock;
pub mod survey;
pub mod unpickle;

pub use lsa_common::failure::chain;

/// 128 random bits as hex: a name that no other process has.
pub fn random_id() -> String {
    random_seed()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Randomness from the system: for names and jitter, never for results.
pub fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("a system without randomness cannot run this program");
    seed
}
