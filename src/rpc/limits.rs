//! Concurrency limits. Excess calls are refused, never queued: a hidden queue hides overload.

use crate::auth::AddressLimits;
use crate::rpc::status::RpcError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits of the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// Maximum number of connections. The next one is closed.
    pub max_connections: usize,
    /// Limits of each address, before it is known who calls.
    pub per_address: AddressLimits,
    /// Maximum number of streams of one connection. Clients queue excess streams silently, hence the high number.
    pub max_streams: u32,
    /// Maximum number of calls that do not wait.
    pub max_calls: usize,
    /// Maximum number of `Lease` calls that wait.
    pub max_waits: usize,
    /// Maximum number of watches.
    pub max_watches: usize,
    /// Maximum length of a request in bytes.
    pub max_request_bytes: usize,
    /// Maximum length of a response in bytes.
    pub max_response_bytes: usize,
    /// Maximum time of a call that does not wait.
    pub call_timeout: Duration,
    /// Time without traffic after which a connection gets a keepalive ping.
    pub keepalive_interval: Duration,
    /// Maximum time for the answer to the ping; then the connection is closed.
    pub keepalive_timeout: Duration,
    /// Maximum time for the HTTP/2 preface of a new connection.
    pub preface_timeout: Duration,
    /// Time after the stop in which calls under way may end; then connections are cut.
    pub stop_grace: Duration,
    /// A server that follows forwards calls that change something to the server that leads; else it refuses them.
    pub forward: bool,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            per_address: AddressLimits::default(),
            max_streams: 16_384,
            max_calls: 8_192,
            max_waits: 16_384,
            max_watches: 16_384,
            max_request_bytes: 256 * 1024,
            max_response_bytes: 16 * 1024 * 1024,
            call_timeout: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            preface_timeout: Duration::from_secs(10),
            stop_grace: Duration::from_secs(10),
            forward: true,
        }
    }
}

/// A limit on something that happens at once.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    room: Arc<Semaphore>,
    max: usize,
}

/// A place behind the gate. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(max)), max }
    }

    /// Takes a place, if one is free.
    pub(crate) fn enter(&self) -> Option<Place> {
        self.room.clone().try_acquire_owned().ok().map(|_permit| Place { _permit })
    }

    /// Takes a place, or returns the error of a call.
    pub(crate) fn enter_call(&self) -> Result<Place, RpcError> {
        self.enter().ok_or(RpcError::Overloaded { max: self.max })
    }

    /// Takes a place, or returns the error of a watch or a waiting call.
    pub(crate) fn enter_stay(&self, what: &'static str) -> Result<Place, RpcError> {
        self.enter().ok_or(RpcError::TooMany { what, max: self.max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_refuses_and_a_place_left_is_free_again() {
        let gate = Gate::new(1);
        let place = gate.enter_call().unwrap();
        assert!(matches!(gate.enter_call(), Err(RpcError::Overloaded { max: 1 })));
        assert!(matches!(gate.enter_stay("watches"), Err(RpcError::TooMany { what: "watches", max: 1 })));
        drop(place);
        assert!(gate.enter().is_some());
    }
}
