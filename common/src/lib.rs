//! The words that coordinator and workers share: ids, content keys, specs, stored formats, the wire.
//!
//! This crate builds without libtorch. It holds no policy: it says what things are, not who does what.

pub mod architecture;
pub mod cost;
pub mod dataset;
pub mod failure;
pub mod id;
pub mod metric;
pub mod model;
pub mod model_source;
pub mod seed;
pub mod texts;
pub mod tokenize;
pub mod trial_matrices;
