//! Wharfinger: leases build infrastructure over gRPC, and notices when it is gone.

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod engine;
pub mod pb;
#[cfg(feature = "cli")]
pub mod telemetry;
