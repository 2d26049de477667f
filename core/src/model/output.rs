//! Outputs: changes to store, then replies, then effects.

use crate::{
    Effect, Event, Lease, LeaseId, Machine, MachineKey, Millis, PoolRow, Resource, ResourceId, Revision, Session,
    SessionId, Timestamp,
};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// All changes of one or several steps. The store commits it in one transaction, and nothing of it leaves before.
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
    /// Pools that operators cordoned or uncordoned.
    pub pools: Vec<Arc<PoolRow>>,
    /// Machines on which the orders of operators changed.
    pub machines: Vec<Arc<Machine>>,
    /// Sessions that were opened, fell into doubt or were resumed.
    pub sessions: Vec<Arc<Session>>,
    /// Ended leases that are no longer kept. Forgetting is a change: the revision goes on.
    pub forgotten_leases: Vec<LeaseId>,
    /// Resources that are gone and no longer kept.
    pub forgotten_resources: Vec<ResourceId>,
    /// Sessions that were closed or lost.
    pub ended_sessions: Vec<SessionId>,
    /// The oldest revision from which a watch can resume.
    pub floor: Revision,
    /// The audit trail's new entries.
    pub events: Vec<Event>,
    /// Calls of adapters, to be started after the commit.
    pub effects: Vec<Effect>,
}

impl Batch {
    /// Whether there is nothing to store. An operator's request is in the audit trail even if it changed nothing.
    pub fn is_empty(&self) -> bool {
        self.base == self.revision
            && self.events.is_empty()
            && self.forgotten_leases.is_empty()
            && self.forgotten_resources.is_empty()
            && self.ended_sessions.is_empty()
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
    /// Pools that operators cordoned.
    pub pools: Vec<PoolRow>,
    /// Machines on which operators gave orders.
    pub machines: Vec<Machine>,
    /// All sessions.
    pub sessions: Vec<Session>,
}

/// The answer to an input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The input was taken.
    Done,
    /// The leases of a request, or the lease that was renewed or released (with its group).
    Leases(Vec<Arc<Lease>>),
    /// The result of each lease of an input on several, in its order.
    Each(Vec<Result<Arc<Lease>, Rejection>>),
    /// The resource of an operator's request.
    Resource(Arc<Resource>),
    /// The pool of an operator's request.
    Pool(Arc<str>),
    /// The machine of an operator's request.
    Machine(MachineKey),
    /// The session that was opened or resumed.
    Session(Arc<Session>),
}

/// An input that was refused; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The kind of the refusal.
    pub kind: RejectionKind,
    /// Stable code: `UNKNOWN_POOL`, `LEASE_ENDED`.
    pub reason: &'static str,
    /// The field at fault, as a path in the request's protobuf message; empty if none.
    pub field: String,
    /// The mistake and its remedy, as text.
    pub message: String,
    /// Minimum time before the client repeats the request.
    pub retry_after: Option<Millis>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RejectionKind {
    /// The request itself is wrong.
    Invalid,
    /// The lease, resource or pool does not exist.
    NotFound,
    /// The request id was used for another request.
    Conflict,
    /// The lease belongs to another principal.
    Denied,
    /// No capacity now, or a limit reached.
    Exhausted,
    /// A limit of the caller's tenant is reached. `field` names the tenant, as `tenant:NAME`.
    Quota,
    /// Not in its present state, or never with the present configuration.
    Precondition,
}
