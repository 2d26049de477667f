//! Wharfinger: leases build infrastructure over gRPC, and notices when it is gone.

#[cfg(feature = "server")]
mod adapters;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "agent")]
pub mod cli;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(any(feature = "server", feature = "agent"))]
mod duration;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(all(feature = "server", any(test, fuzzing)))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(any(feature = "server", feature = "agent"))]
mod hidden;
#[cfg(feature = "server")]
pub mod hooks;
#[cfg(feature = "server")]
pub mod http;
#[cfg(all(test, feature = "server"))]
#[path = "../jwt/tests/support/mod.rs"]
mod issuer_for_tests;
#[cfg(any(feature = "server", feature = "agent"))]
mod likely;
#[cfg(any(feature = "server", feature = "agent"))]
pub mod links;
#[cfg(any(feature = "server", feature = "top"))]
mod overview;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(any(feature = "server", feature = "agent"))]
mod size;
#[cfg(feature = "server")]
mod socket;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;

#[cfg(any(feature = "server", feature = "agent"))]
pub mod traces;

pub use wharfinger_client as client;
#[cfg(feature = "server")]
use wharfinger_client::internal::backoff;
#[cfg(any(feature = "server", feature = "agent"))]
use wharfinger_client::internal::random;
pub use wharfinger_client::pb;
