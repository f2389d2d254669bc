//! The worker crate of lsa.
