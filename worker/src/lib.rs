//! Computes: texts through models, pooled rows of every layer, similarity of layers. The only crate that links libtorch.
//!
//! No result depends on the number of threads: libtorch computes each operation on one thread, and parallel work is
//! done on whole batches and whole layers.

pub mod array_file;
pub mod batch;
pub mod condition;
pub mod config;
pub mod device;
pub mod embed;
pub mod extract;
pub mod http;
pub mod inputs;
pub mod inspect;
pub mod interrupt;
pub mod lease_loop;
pub mod metric;
pub mod model;
pub mod pooling;
pub mod resources;
pub mod rpc;
pub mod run;
pub mod sampled_rows;
pub mod serve;
pub mod similarity;
pub mod stored;
pub mod trial;
pub mod verify_model;
pub mod weights;

/// An error and all its causes on one line, without the backtrace that libtorch adds to its messages.
pub fn chain(error: &dyn std::error::Error) -> String {
    device::first_line(&lsa_common::failure::chain(error))
}
