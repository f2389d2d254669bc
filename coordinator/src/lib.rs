//! The coordinator crate of lsa.
