//! The configuration file: read, checked as a whole, and turned into the settings of the broker.
//!
//! A file with mistakes is refused with all of them, each with its place and its remedy. Nothing of a refused file is used:
//! a running server keeps the settings that it has.
//!
//! The table of an adapter is read by the adapter ([`wharfinger_adapter::settings`]); `tables.rs` finds the places of its
//! mistakes in the file.

mod auth;
mod build;
mod check;
mod cluster;
pub mod duration;
mod load;
mod problem;
mod reader;
mod size;
mod store;
mod tables;
mod tenant;
mod tls;
mod types;

#[cfg(test)]
mod tests;

pub use crate::adapters::AdapterConfig;
pub use cluster::Cluster;
pub use load::{load, parse};
pub use problem::{ConfigError, Problem, Report};
pub use store::StoreConfig;
pub use tls::Tls;
pub use types::{Loaded, Server};
