//! A resource as it is stored and served.

use crate::{
    CauseChain, Cordon, Evidence, Labels, LeaseId, Millis, Note, Op, ResourceId, Revision, Texts, Timestamp, Weight,
};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// One leasable thing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Resource {
    /// Its id.
    pub id: ResourceId,
    /// When it last changed.
    pub revision: Revision,
    /// Its pool.
    pub pool: Arc<str>,
    /// The inventory entry that it is made of.
    pub item: Option<Arc<str>>,
    /// Its own labels: the inventory entry's, and for the rest what the adapter found.
    pub labels: Labels,
    /// Labels that the adapter found.
    pub found: Labels,
    /// Leases at once.
    pub slots: u32,
    /// The host that it lies on.
    pub parent: Option<Parent>,
    /// Its state.
    pub state: ResourceState,
    /// Cordoned by an operator: no new leases. Valid in every state.
    pub cordoned: Option<Cordon>,
    /// When the broker decided to make it.
    pub created_at: Timestamp,
    /// When it was first ready.
    pub ready_at: Option<Timestamp>,
    /// When its last lease ended; `None` while it has one or before its first.
    pub idle_since: Option<Timestamp>,
    /// Leases so far.
    pub uses: u32,
    /// The key by which the adapter finds it again.
    pub handle: Option<Arc<str>>,
    /// How to reach it.
    pub access: Arc<Texts>,
    /// It will end at this time, as far as is known.
    pub ends_at: Option<Timestamp>,
    /// Announced ends, by source; the soonest counts.
    pub announced: BTreeMap<Arc<str>, Timestamp>,
    /// The latest failure, as text.
    pub trouble: Option<Arc<str>>,
    /// A notice warns that it may be taken away: others are preferred.
    pub at_risk: Option<AtRisk>,
    /// Held for triage: no new leases, and it is set apart as it is when its last one ends.
    pub hold: Option<Hold>,
    /// Failures of work on it that are compared with those elsewhere, oldest first: until nothing speaks against it any
    /// more. At most [`Resource::MAX_FAILURES`].
    pub failures: Vec<WorkFailure>,
    /// The evidence that its uses give.
    pub evidence: Evidence,
    /// The tenant of its latest lease, where that may matter to the next one.
    pub last_tenant: Option<Arc<str>>,
    /// The tenant at whose request it is kept for triage.
    pub held_for: Option<Arc<str>>,
    /// The note of an operator. That of the machine, if it stands for one.
    pub note: Option<Note>,
}

impl Resource {
    /// How many failures are remembered.
    pub const MAX_FAILURES: usize = 8;
}

/// A notice that it may be taken away.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AtRisk {
    /// The source of the notice; it alone can withdraw it.
    pub source: Arc<str>,
    /// The text of the source.
    pub detail: Arc<str>,
}

/// An order to keep a resource for triage.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hold {
    /// Principal, or `wharfinger`.
    pub by: Arc<str>,
    /// The reason, as free text.
    pub reason: Arc<str>,
    /// When it goes back to service by way of a check; `None`: at the request of an operator.
    pub until: Option<Timestamp>,
}

/// A failure of work that a holder reported.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkFailure {
    /// The work; see [`crate::LeaseSpec::work`].
    pub work: Arc<str>,
    /// The lease.
    pub lease: LeaseId,
    /// The time of the report.
    pub at: Timestamp,
    /// A check has passed since: nothing was found wrong with the resource.
    pub cleared: bool,
    /// Its weight against the resource.
    pub weight: Weight,
}

/// A child's tie to its host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Parent {
    /// The lease that it holds on the host.
    pub lease: LeaseId,
    /// The host, once the lease is active.
    pub host: Option<ResourceId>,
}

/// The state of a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResourceState {
    /// Being made.
    Provisioning {
        /// The operation under way; `None`: waits for its host or for `retry_at`.
        op: Option<Op>,
        /// Tries so far.
        attempt: u32,
        /// Not before this time.
        retry_at: Option<Timestamp>,
    },
    /// Fit for leases.
    Ready,
    /// In doubt: no new leases, a check under way.
    Suspect {
        /// Since when.
        since: Timestamp,
        /// The causes, up to the root.
        cause: CauseChain,
        /// The check under way; `None`: the next one starts at `retry_at`.
        op: Option<Op>,
        /// When the next check starts.
        retry_at: Option<Timestamp>,
        /// Checks without an answer, in a row.
        misses: u32,
        /// When the first of them was known.
        first_miss: Option<Timestamp>,
        /// Repairs so far in this doubt.
        repairs: u32,
        /// There is evidence, and why it is not acted upon: the brake, or a dry run.
        held: Option<Arc<str>>,
    },
    /// Being mended.
    Repairing {
        /// The operation under way.
        op: Op,
        /// The evidence.
        cause: CauseChain,
        /// Repairs so far, this one among them.
        repairs: u32,
    },
    /// Kept as it is for an operator.
    Quarantined {
        /// The order to keep it.
        cordon: Cordon,
        /// Since when.
        since: Timestamp,
        /// Then it goes back to service by way of a check.
        until: Option<Timestamp>,
    },
    /// No new leases; live ones run to their end.
    Draining {
        /// The causes, up to the root.
        cause: CauseChain,
        /// Live leases are broken at this time.
        deadline: Option<Timestamp>,
    },
    /// Being removed.
    Destroying {
        /// The operation under way; `None`: the next try starts at `retry_at`.
        op: Option<Op>,
        /// Tries so far.
        attempt: u32,
        /// When the next try starts.
        retry_at: Option<Timestamp>,
        /// The causes, up to the root.
        cause: CauseChain,
        /// It is known to be dead: it takes no capacity.
        dead: bool,
    },
    /// Could not be removed; takes no capacity; the janitor tries on.
    Orphaned {
        /// The operation under way; `None`: the next try starts at `retry_at`.
        op: Option<Op>,
        /// Tries so far.
        attempt: u32,
        /// When the next try starts.
        retry_at: Option<Timestamp>,
        /// Why it was to be removed.
        cause: CauseChain,
    },
    /// It exists no more.
    Gone {
        /// Since when.
        at: Timestamp,
        /// The causes, up to the root.
        cause: CauseChain,
    },
}

/// The meaning of a state for most decisions. A state whose meaning differs from all of these is a new stage:
/// then the compiler lists the decisions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// The adapter makes it.
    Coming,
    /// It can be leased.
    Ready,
    /// It is in doubt, its leases go on, and a check decides.
    Doubted,
    /// The adapter repairs it.
    Repairing,
    /// It is kept as it is for an operator.
    Apart,
    /// It gets no new leases, and its live ones run to their end.
    Draining,
    /// The adapter removes it.
    Leaving,
    /// It exists no more.
    Gone,
}

/// The adapter's task in the present state of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// It makes it; this many tries were made before.
    Provision(u32),
    Check,
    Repair,
    Destroy,
}

impl ResourceState {
    /// The stable names of all states, as [`ResourceState::as_str`] returns them. GONE is the last.
    pub const NAMES: [&'static str; 9] =
        ["PROVISIONING", "READY", "SUSPECT", "REPAIRING", "QUARANTINED", "DRAINING", "DESTROYING", "ORPHANED", "GONE"];

    /// Its meaning for most decisions.
    pub fn stage(&self) -> Stage {
        match self {
            ResourceState::Provisioning { .. } => Stage::Coming,
            ResourceState::Ready => Stage::Ready,
            ResourceState::Suspect { .. } => Stage::Doubted,
            ResourceState::Repairing { .. } => Stage::Repairing,
            ResourceState::Quarantined { .. } => Stage::Apart,
            ResourceState::Draining { .. } => Stage::Draining,
            ResourceState::Destroying { .. } | ResourceState::Orphaned { .. } => Stage::Leaving,
            ResourceState::Gone { .. } => Stage::Gone,
        }
    }

    /// The call of the adapter that is under way.
    pub(crate) fn task(&self) -> Option<(Task, Op)> {
        match self {
            ResourceState::Provisioning { op, attempt, .. } => op.map(|op| (Task::Provision(*attempt), op)),
            ResourceState::Suspect { op, .. } => op.map(|op| (Task::Check, op)),
            ResourceState::Repairing { op, .. } => Some((Task::Repair, *op)),
            ResourceState::Destroying { op, .. } | ResourceState::Orphaned { op, .. } => {
                op.map(|op| (Task::Destroy, op))
            }
            ResourceState::Ready
            | ResourceState::Quarantined { .. }
            | ResourceState::Draining { .. }
            | ResourceState::Gone { .. } => None,
        }
    }

    /// When time alone brings it to an end or to its next call. `retention`: how long what is gone is kept.
    pub(crate) fn due(&self, retention: Millis) -> Option<Timestamp> {
        match self {
            ResourceState::Provisioning { retry_at, op, .. }
            | ResourceState::Suspect { retry_at, op, .. }
            | ResourceState::Destroying { retry_at, op, .. }
            | ResourceState::Orphaned { retry_at, op, .. } => retry_at.filter(|_| op.is_none()),
            ResourceState::Quarantined { until, .. } => *until,
            ResourceState::Draining { deadline, .. } => *deadline,
            ResourceState::Gone { at, .. } => Some(at.after(retention)),
            ResourceState::Repairing { .. } | ResourceState::Ready => None,
        }
    }

    /// Whether it counts against the maximum of its pool. A dead resource and a debt of the janitor do not.
    pub(crate) fn takes_capacity(&self) -> bool {
        match self {
            ResourceState::Provisioning { .. }
            | ResourceState::Ready
            | ResourceState::Suspect { .. }
            | ResourceState::Repairing { .. }
            | ResourceState::Quarantined { .. }
            | ResourceState::Draining { .. } => true,
            ResourceState::Destroying { dead, .. } => !dead,
            ResourceState::Orphaned { .. } | ResourceState::Gone { .. } => false,
        }
    }

    /// Whether it is removed or gone: nothing on it is cleaned, checked or leased.
    pub(crate) fn is_leaving(&self) -> bool {
        match self.stage() {
            Stage::Leaving | Stage::Gone => true,
            Stage::Coming | Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Draining => false,
        }
    }

    /// The stable name.
    pub fn as_str(&self) -> &'static str {
        match self {
            ResourceState::Provisioning { .. } => "PROVISIONING",
            ResourceState::Ready => "READY",
            ResourceState::Suspect { .. } => "SUSPECT",
            ResourceState::Repairing { .. } => "REPAIRING",
            ResourceState::Quarantined { .. } => "QUARANTINED",
            ResourceState::Draining { .. } => "DRAINING",
            ResourceState::Destroying { .. } => "DESTROYING",
            ResourceState::Orphaned { .. } => "ORPHANED",
            ResourceState::Gone { .. } => "GONE",
        }
    }
}
