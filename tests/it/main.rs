//! The server's parts together, in one process: engine, stores, adapters, services.

#![allow(clippy::unwrap_used, reason = "a test that can not go on stops")]

mod arch;
mod calls;
mod deploy;
mod engine;
mod secrets;
