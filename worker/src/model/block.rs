//! The parts that models are built of; which of them a model has is said in `lsa_common::architecture`.

pub mod attention;
pub mod attention_plan;
pub mod convolution;
pub mod disentangled;
pub mod embedding;
pub mod feed_forward;
pub mod linear;
pub mod norm;
pub mod relative_bias;
pub mod rotary;
pub mod sinusoidal;
