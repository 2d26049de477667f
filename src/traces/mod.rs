//! Traces: the life of a lease as spans, in the trace of the build that asked for it.
//!
//! A caller's `traceparent` is kept in the audit trail, with the entry of its request. When a lease has ended, its spans are made from
//! its entries and exported over OTLP. Nothing is kept open meanwhile, so a lease's trace survives restarts and failovers. The ids of spans
//! are derived from the id of the lease, so that all servers and the client of the lease agree on them.

#[cfg(feature = "server")]
mod cleaned;
#[cfg(feature = "server")]
mod export;
mod ids;
#[cfg(feature = "server")]
mod otlp;
#[cfg(feature = "server")]
mod run;
#[cfg(feature = "server")]
mod settings;
#[cfg(feature = "server")]
mod story;

#[cfg(feature = "server")]
#[cfg(test)]
mod tests;

#[cfg(feature = "server")]
pub use cleaned::{Both, Cleaned};
#[cfg(feature = "server")]
pub use export::reach;
pub use ids::{HOLD, TraceParent, hold_of};
#[cfg(feature = "server")]
pub use run::{Surroundings, Traces};
#[cfg(feature = "server")]
pub use settings::{Endpoint, TraceSettings, Unparented};
