//! What a store really does, keeping a bucket in bounds, and filling it with what its workers cannot download.

pub mod doctor;
pub mod evict;
pub mod gc;
pub mod mirror;
