//! The coordinator crate of lsa.

pub mod export;
pub mod figure;
pub mod merge;
pub mod metadata;
pub mod report;
pub mod unpickle;
