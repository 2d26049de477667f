//! A resource as it is stored and told.

use crate::{CauseChain, Cordon, Labels, LeaseId, Op, ResourceId, Revision, Texts, Timestamp};
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
    /// What the adapter found.
    pub found: Labels,
    /// Leases at once.
    pub slots: u32,
    /// The host that it lies on.
    pub parent: Option<Parent>,
    /// Where it stands.
    pub state: ResourceState,
    /// No new leases, by an operator's word; valid in every state.
    pub cordoned: Option<Cordon>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was first ready.
    pub ready_at: Option<Timestamp>,
    /// When its last lease ended; `None` while it has one or before its first.
    pub idle_since: Option<Timestamp>,
    /// Leases so far.
    pub uses: u32,
    /// What the adapter needs to find it again.
    pub handle: Option<Arc<str>>,
    /// How to reach it.
    pub access: Arc<Texts>,
    /// It will end at this time, as far as is known.
    pub ends_at: Option<Timestamp>,
    /// Who announced its end, for when; the soonest counts.
    pub announced: BTreeMap<Arc<str>, Timestamp>,
    /// The last thing that went wrong with it, for people.
    pub trouble: Option<Arc<str>>,
    /// It may be taken away, says a notice: others are preferred.
    pub at_risk: Option<AtRisk>,
    /// No new leases; when its last one ends, it is kept as it is.
    pub hold: Option<Hold>,
    /// Work that failed on it in a row, oldest first; a success empties it. At most [`Resource::MAX_FAILURES`].
    pub failures: Vec<WorkFailure>,
}

impl Resource {
    /// How many failures in a row are remembered.
    pub const MAX_FAILURES: usize = 8;
}

/// A notice that it may be taken away.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AtRisk {
    /// Which source said so; it alone can take it back.
    pub source: Arc<str>,
    /// In its own words.
    pub detail: Arc<str>,
}

/// What is kept for triage, by whose wish and for how long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hold {
    /// Principal, or `wharfinger`.
    pub by: Arc<str>,
    /// In their words.
    pub reason: Arc<str>,
    /// Then it goes back to service by way of a check; `None`: when an operator says so.
    pub until: Option<Timestamp>,
}

/// A lease whose work failed, as its holder said.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkFailure {
    /// Which work; see [`crate::LeaseSpec::work`].
    pub work: Arc<str>,
    /// Which lease.
    pub lease: LeaseId,
    /// When.
    pub at: Timestamp,
    /// A check has passed since: nothing was found wrong with the resource.
    pub cleared: bool,
}

/// A child's tie to its host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Parent {
    /// The lease that it holds on the host.
    pub lease: LeaseId,
    /// The host, once the lease is active.
    pub host: Option<ResourceId>,
}

/// Where a resource stands.
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
    /// Leasable.
    Ready,
    /// In doubt: no new leases, a check under way.
    Suspect {
        /// Since when.
        since: Timestamp,
        /// Why.
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
        /// What is wrong.
        cause: CauseChain,
        /// Repairs so far, this one among them.
        repairs: u32,
    },
    /// Kept as it is for an operator.
    Quarantined {
        /// Who and why.
        cordon: Cordon,
        /// Since when.
        since: Timestamp,
        /// Then it goes back to service by way of a check.
        until: Option<Timestamp>,
    },
    /// No new leases; live ones run to their end.
    Draining {
        /// Why.
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
        /// Why.
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
    /// No more.
    Gone {
        /// Since when.
        at: Timestamp,
        /// Why.
        cause: CauseChain,
    },
}

impl ResourceState {
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
