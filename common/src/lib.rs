//! The words that coordinator and workers share: ids, content keys, specs, stored formats, the wire.
//!
//! This crate builds without libtorch. It holds no policy: it says what things are, not who does what.

pub mod dataset;
pub mod id;
pub mod metric;
pub mod model;
pub mod seed;
pub mod texts;
pub mod trial_matrices;
