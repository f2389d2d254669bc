//! The coordinator crate of lsa.

pub mod config;
pub mod export;
pub mod figure;
pub mod grid;
pub mod merge;
pub mod metadata;
pub mod report;
pub mod suggest;
pub mod unpickle;
