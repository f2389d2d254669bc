//! Runs texts through models and pools every layer; one process per device.
//!
//! Invariants: libtorch computes each operation on one thread ([`device::prepare_libtorch`]), parallel work is
//! done on whole batches, and what goes into a batch depends on the spec alone. So results do not depend on
//! the number of threads.

//! The worker crate of lsa.

pub mod array_file;
pub mod batch;
pub mod config;
pub mod device;
pub mod embed;
pub mod extract;
pub mod inspect;
pub mod interrupt;
pub mod metric;
pub mod model;
pub mod pooling;
pub mod similarity;
pub mod trial;
pub mod weights;
