//! The server's parts together, in one process: engine, stores, adapters, services.

#![allow(clippy::disallowed_methods, reason = "tests compare with what they see on their own clock")]
#![allow(clippy::unwrap_used, reason = "a test that can not go on stops")]

mod api;
mod arch;
mod calls;
mod ci_cases;
mod circles;
mod crates;
mod deploy;
mod engine;
mod secrets;
mod skips;
mod waits;
