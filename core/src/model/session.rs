//! A session as it is stored and served.

use crate::{Caller, Millis, Revision, SessionId, Timestamp};
use alloc::sync::Arc;

/// One stream of one agent, which keeps its leases by heartbeats. A heartbeat changes no row. A session that ended has none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// When it last changed.
    pub revision: Revision,
    /// The tenant to which it belongs.
    pub tenant: Arc<str>,
    /// The authenticated principal, within the tenant.
    pub principal: Arc<str>,
    /// The agent's own name, as free text.
    pub holder: Arc<str>,
    /// Silence of this length ends it, and its leases.
    pub ttl: Millis,
    /// The end of its stream ends it after this time, unless another stream resumes it.
    pub grace: Millis,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The number of its streams so far. Only the latest one counts.
    pub stream: u64,
    /// Its stream ended at this time, and none has resumed it.
    pub doubt: Option<Timestamp>,
}

impl Session {
    /// Whether it belongs to a caller.
    pub fn belongs_to(&self, caller: &Caller) -> bool {
        self.tenant == caller.tenant && self.principal == caller.principal
    }

    /// Its present stream.
    pub fn present(&self) -> SessionStream {
        SessionStream { session: self.id, number: self.stream }
    }

    /// How long after the last word of it it ends.
    pub(crate) fn patience(&self) -> Millis {
        if self.doubt.is_some() { self.grace } else { self.ttl }
    }
}

/// One stream of a session. A stream that another one replaced counts no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionStream {
    /// The session.
    pub session: SessionId,
    /// The number of the stream.
    pub number: u64,
}

/// A request for a session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionRequest {
    /// The caller.
    pub caller: Caller,
    /// The agent's own name, as free text.
    pub holder: Arc<str>,
    /// `None`: the default.
    pub ttl: Option<Millis>,
    /// `None`: the default. At most the TTL.
    pub grace: Option<Millis>,
}
