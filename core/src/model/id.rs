//! Numbers of changes and operations, and the subjects of events. The ids themselves are in `wharfinger-types`.

use alloc::string::String;
use core::fmt;
pub use wharfinger_types::{GroupId, IdError, LeaseId, ResourceId, SessionId};

/// Builds the 128 bits of an id from the core's time, the store's salt and a number that no other id has.
pub(crate) fn mint(now: crate::Timestamp, salt: u16, number: u64) -> u128 {
    wharfinger_types::mint(now.0, salt, number)
}

/// The number of a committed change. It grows by 1 with each change, over the whole life of a deployment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of an operation on the outside world. A result with another number than the row is stale.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Op(pub u64);

/// The subject of an event or a cause.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// A pool, by name.
    Pool(alloc::sync::Arc<str>),
    /// A resource.
    Resource(ResourceId),
    /// A lease.
    Lease(LeaseId),
    /// A session.
    Session(SessionId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Pool(name) => write!(f, "pool {name}"),
            Subject::Resource(id) => id.fmt(f),
            Subject::Lease(id) => id.fmt(f),
            Subject::Session(id) => id.fmt(f),
        }
    }
}

impl Subject {
    /// The text that identifies it in a table of events.
    pub fn key(&self) -> String {
        match self {
            Subject::Pool(name) => String::from(&**name),
            Subject::Resource(id) => alloc::format!("{id}"),
            Subject::Lease(id) => alloc::format!("{id}"),
            Subject::Session(id) => alloc::format!("{id}"),
        }
    }
}
