//! The tests crate of lsa.
