//! The configuration file: read, checked as a whole, and turned into what the broker works with.
//!
//! It is refused with everything that is wrong with it at once, each mistake with its place and its remedy, and nothing
//! of a refused file is used: a server that is told to read it again goes on with what it has.
//!
//! What an adapter's own table says is the adapter's to know; `adapters.rs` is the only file that names them.

pub mod adapters;
mod build;
mod check;
mod cluster;
pub mod duration;
mod load;
mod problem;
mod reader;
mod store;
mod types;

#[cfg(test)]
mod tests;

pub use adapters::AdapterConfig;
pub use cluster::Cluster;
pub use load::{load, parse};
pub use problem::{ConfigError, Problem, Report};
pub use store::StoreConfig;
pub use types::{Loaded, Server};
