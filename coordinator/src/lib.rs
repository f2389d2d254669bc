//! The coordinator crate of lsa.

pub mod merge;
pub mod metadata;
pub mod unpickle;
