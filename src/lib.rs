//! Wharfinger: leases build infrastructure over gRPC, and notices when it is gone.

pub mod client;
#[cfg(feature = "server")]
pub mod engine;
pub mod pb;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod store;
