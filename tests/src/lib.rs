//! The system seen from outside: what the integration tests share to start the real binaries and to look at what they
//! leave behind.
//!
//! Nothing here sleeps for a guessed time: a test waits for a condition until a deadline ([`wait::until`]). Every process
//! that is started is killed when its handle is dropped.

pub mod bucket;
pub mod cluster;
pub mod disk;
pub mod golden;
pub mod inputs;
pub mod layers;
pub mod moto;
pub mod preload;
pub mod process;
pub mod proxy;
pub mod python;
pub mod reference;
pub mod results;
pub mod s3_server;
pub mod test_hub;
pub mod wait;
