//! The broker behind the adapter: its rows, and the notices that it takes.

use async_trait::async_trait;
use wharfinger_adapter::{Failure, Notice};

/// The broker's present state. The adapter keeps no copy of it.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Returns all resources that are not gone.
    ///
    /// # Errors
    /// The broker recovers or stops.
    async fn rows(&self) -> Result<Vec<Row>, Failure>;

    /// Delivers a notice. Returns when the change is durable.
    ///
    /// # Errors
    /// The broker recovers or stops; the caller delivers the notice again.
    async fn tell(&self, notice: Notice) -> Result<(), Failure>;
}

/// One resource of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of its pool.
    pub pool: String,
    /// Id of the resource.
    pub resource: String,
    /// The stored record of the resource, as text.
    pub handle: Option<String>,
    /// Phase of its life.
    pub phase: Phase,
}

/// Phase of a resource's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is being made.
    Making,
    /// It serves leases.
    Serving,
    /// It is being removed, or its removal failed.
    Leaving,
}
