//! Parts that families share; what differs between families stays in the family's file.

pub mod attention;
pub mod embedding;
pub mod feed_forward;
pub mod linear;
pub mod norm;
