//! How much at once. What is too much is refused at once and never queued: a queue that nobody sees only hides that.

use crate::rpc::status::RpcError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits of the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// Connections at once; more are closed at once.
    pub max_connections: usize,
    /// Streams at once on one connection; a client queues more silently, so this is wide.
    pub max_streams: u32,
    /// Calls at once that want an answer now.
    pub max_calls: usize,
    /// `Lease` calls at once that wait.
    pub max_waits: usize,
    /// Watches at once.
    pub max_watches: usize,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Bytes of one response.
    pub max_response_bytes: usize,
    /// How long a call may take that does not wait.
    pub call_timeout: Duration,
    /// A connection that is silent for so long is asked whether it is there.
    pub keepalive_interval: Duration,
    /// Without an answer within this time it is closed.
    pub keepalive_timeout: Duration,
    /// A new connection must speak HTTP/2 within this time.
    pub preface_timeout: Duration,
    /// After the stop: calls under way may end within this time, then connections are cut.
    pub stop_grace: Duration,
    /// Of a server that follows: calls that change something are passed on to the one that leads, else refused.
    pub forward: bool,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
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

/// Lets in so many and no more.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    room: Arc<Semaphore>,
    max: usize,
}

/// A place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(max)), max }
    }

    /// A place, if there is one now.
    pub(crate) fn enter(&self) -> Option<Place> {
        self.room.clone().try_acquire_owned().ok().map(|_permit| Place { _permit })
    }

    /// A place, or the error for a call.
    pub(crate) fn enter_call(&self) -> Result<Place, RpcError> {
        self.enter().ok_or(RpcError::Overloaded { max: self.max })
    }

    /// A place, or the error for what stays long.
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
