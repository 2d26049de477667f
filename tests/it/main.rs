//! The server's parts together, in one process: engine, stores, adapters, services.

mod arch;
mod engine;
