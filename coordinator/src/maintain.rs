//! Keeping a bucket in bounds.

pub mod evict;
