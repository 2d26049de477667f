//! The configuration file: read, checked as a whole, and turned into the settings of the broker.
//!
//! A file with mistakes is refused with all of them, each with its place and its remedy. Nothing of a refused file is used:
//! a running server keeps the settings that it has.
//!
//! The table of an adapter is read by the adapter ([`wharfinger_adapter::settings`]); `tables.rs` finds the places of its
//! mistakes in the file.

mod audit;
mod auth;
mod build;
mod check;
mod cluster;
mod cluster_tls;
pub mod duration;
mod hook;
mod issuer;
mod issuer_check;
mod jenkins;
mod load;
mod log;
mod page;
mod page_oidc;
mod page_proxy;
mod per_address;
mod problem;
mod reader;
mod role;
mod secret_file;
mod store;
mod tables;
mod tenant;
mod tls;
mod traces;
mod types;
mod unix;

#[cfg(test)]
mod tests;

pub use crate::adapters::AdapterConfig;
pub use crate::socket::{SocketAccess, UnixSocket};
pub use cluster::Cluster;
pub use cluster_tls::ClusterTls;
pub use load::{load, parse};
pub use page::Page;
pub use page_proxy::PageProxy;
pub(crate) use problem::Problems;
pub use problem::{ConfigError, Problem, Report};
pub(crate) use reader::{Reader, wrong_type};
pub use store::StoreConfig;
pub use tls::Tls;
pub use types::{Loaded, Server};
