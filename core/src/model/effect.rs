//! Calls of adapters, to be started after the commit.

use crate::{Lease, Millis, Op, Resource};
use alloc::sync::Arc;

/// One call of an adapter. Each is idempotent by its `op` and can be derived from the state again after a crash. Each
/// brings exactly one input back, also when it is given up after `timeout`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    /// The kind of call.
    pub work: Work,
    /// The operation's number.
    pub op: Op,
    /// The resource, as it is stored.
    pub resource: Arc<Resource>,
    /// The host under it.
    pub host: Option<Arc<Resource>>,
    /// Give it up after this time: the result is then a failure blamed on the resource, code `TIMEOUT` (for a check:
    /// the verdict `Unreachable`).
    pub timeout: Millis,
    /// With [`Work::Probe`]: asked by a new login, as holders make it.
    pub by_new_login: bool,
    /// With [`Work::Probe`]: holders work on it, or on what lies on it.
    pub held: bool,
}

/// Kinds of calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    /// Make it; this many tries were made before.
    Provision(u32),
    /// Make a slot ready for this lease.
    Prepare(Arc<Lease>),
    /// Clean a slot after this lease.
    Clean(Arc<Lease>),
    /// Check it thoroughly.
    Check,
    /// Probe it cheaply.
    Probe,
    /// Mend it.
    Repair,
    /// Remove it.
    Destroy,
}
