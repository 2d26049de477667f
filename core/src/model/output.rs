//! What goes out: changes to store, then replies, then effects.

use crate::{Effect, Event, Lease, LeaseId, Millis, PoolRow, Resource, ResourceId, Revision, Timestamp};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// All that one or several steps changed. Stored in one transaction; nothing of it is told before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// The revision before it.
    pub base: Revision,
    /// The revision after it; equal to `base` if nothing changed.
    pub revision: Revision,
    /// The time of the last step.
    pub now: Timestamp,
    /// Leases that changed, as they are now, in order of revision.
    pub leases: Vec<Arc<Lease>>,
    /// Resources that changed, as they are now, in order of revision.
    pub resources: Vec<Arc<Resource>>,
    /// Operators' words on pools that changed.
    pub pools: Vec<Arc<PoolRow>>,
    /// Ended leases that are no longer kept. Forgetting is a change: the revision goes on.
    pub forgotten_leases: Vec<LeaseId>,
    /// Resources that are gone and no longer kept.
    pub forgotten_resources: Vec<ResourceId>,
    /// The oldest revision from which a watch can resume.
    pub floor: Revision,
    /// The audit trail's new entries.
    pub events: Vec<Event>,
    /// To be done after the commit.
    pub effects: Vec<Effect>,
}

impl Batch {
    /// Whether there is nothing to store. What an operator asked for is in the trail also if it changed nothing.
    pub fn is_empty(&self) -> bool {
        self.base == self.revision
            && self.events.is_empty()
            && self.forgotten_leases.is_empty()
            && self.forgotten_resources.is_empty()
    }
}

/// All that a store holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The last committed revision.
    pub revision: Revision,
    /// The oldest revision from which a watch can resume.
    pub floor: Revision,
    /// The time of the last committed step: time never runs backwards, over a restart either.
    pub now: Timestamp,
    /// Tells the ids of this deployment from another's.
    pub salt: u16,
    /// All leases.
    pub leases: Vec<Lease>,
    /// All resources.
    pub resources: Vec<Resource>,
    /// Operators' words on pools.
    pub pools: Vec<PoolRow>,
}

/// The answer to an input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Nothing to say.
    Done,
    /// The leases of a request, or the lease that was renewed or released (with its group).
    Leases(Vec<Arc<Lease>>),
    /// The resource that an operator spoke of.
    Resource(Arc<Resource>),
    /// The pool that an operator spoke of.
    Pool(Arc<str>),
}

/// An input that was refused; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// What kind of refusal.
    pub kind: RejectionKind,
    /// Stable code: `UNKNOWN_POOL`, `LEASE_ENDED`.
    pub reason: &'static str,
    /// The field at fault, as a path in the request's protobuf message; empty if none.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
    /// Try again after this time.
    pub retry_after: Option<Millis>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RejectionKind {
    /// The request itself is wrong.
    Invalid,
    /// No such thing.
    NotFound,
    /// The request id was used for another request.
    Conflict,
    /// Not theirs.
    Denied,
    /// No capacity now, or a limit reached.
    Exhausted,
    /// Not in its present state, or never with the present configuration.
    Precondition,
}
