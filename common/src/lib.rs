//! The words that coordinator and workers share: ids, content keys, specs, stored formats, the wire.
//!
//! This crate builds without libtorch. It holds no policy: it says what things are, not who does what.

pub mod architecture;
pub mod artifact;
pub mod checkpoint;
pub mod config;
mod contained;
pub mod cost;
pub mod dataset;
pub mod epoch;
pub mod exported_graph;
pub mod failure;
pub mod hub;
pub mod id;
pub mod job;
pub mod key;
pub mod layout;
pub mod metric;
pub mod mirror;
pub mod model;
pub mod model_source;
pub mod pickle;
pub mod prepare;
pub mod reach;
pub mod record;
pub mod report;
pub mod seed;
pub mod shard_records;
pub mod store;
pub mod suggest;
pub mod telemetry;
pub mod texts;
pub mod time;
pub mod tokenize;
pub mod trial_matrices;
pub mod unit;
pub mod wire;
