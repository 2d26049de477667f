//! Wharfinger: leases build infrastructure over gRPC, and notices when it is gone.

#[cfg(feature = "server")]
mod adapters;
#[cfg(feature = "server")]
pub mod auth;
mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod engine;
pub mod pb;
mod random;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "cli")]
pub mod telemetry;
