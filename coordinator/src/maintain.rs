//! Keeping a bucket in bounds, and filling it with what its workers cannot download.

pub mod evict;
pub mod mirror;
