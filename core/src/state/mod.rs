//! The rows, their indices, and what goes out next. Fields are private to this folder: all others read them by the
//! methods of `read.rs`, and change them by named transitions, each of which keeps rows, indices and outbox in step.

mod accusers;
mod counts;
mod domains;
pub(crate) mod intern;
pub(crate) mod lane;
pub(crate) mod learned;
mod leases;
mod machines;
mod numbered;
pub(crate) mod outbox;
mod pools;
pub(crate) mod queue;
pub(crate) mod ranks;
pub(crate) mod reach;
mod read;
mod replica;
mod resources;
mod sessions;
mod slots;
pub(crate) mod tables;
pub(crate) mod tenants;
mod timers;
pub(crate) mod want;
mod works;

use crate::lifecycle::Consequences;
use crate::policy::brake::Domain;
use crate::{GroupId, LeaseId, Limits, Machine, MachineKey, Op, ResourceId, Revision, SessionId, Tenants, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use intern::Intern;
use outbox::Outbox;
use queue::{Party, Queue};
use ranks::{Changes, Ranks};
use sessions::SessionEntry;
use tables::{LeaseEntry, Pool, ResourceEntry};
use tenants::Held;
use timers::Timer;

/// The tenant and the id of a request: tenants choose their ids on their own.
pub(crate) type RequestKey = (Arc<str>, Arc<str>);

/// All of the broker's state, and every decision.
#[derive(Clone)]
pub struct Core {
    limits: Limits,
    salt: u16,
    now: Timestamp,
    revision: Revision,
    floor: Revision,
    /// No lease expires before this.
    grace_until: Timestamp,
    /// No ended lease is forgotten before this: its holder had no broker to ask while none served. Not stored.
    forgets_from: Timestamp,
    /// Misses before this do not count: the broker itself was not there to hear an answer.
    heard_since: Timestamp,
    pools: BTreeMap<Arc<str>, Pool>,
    /// Names in the order of the configuration, then those removed from it of which something is left.
    order: Vec<Arc<str>>,
    tenants: Arc<Tenants>,
    /// The slots of each tenant that holds some.
    held: BTreeMap<Arc<str>, Held>,
    /// When the patience of a party began anew, by pool; not stored.
    patience: BTreeMap<Party, BTreeMap<Arc<str>, Timestamp>>,
    /// Machines on which operators gave orders.
    machines: BTreeMap<MachineKey, Arc<Machine>>,
    sessions: BTreeMap<SessionId, SessionEntry>,
    /// The number of sessions of each tenant's principals.
    session_counts: BTreeMap<(Arc<str>, Arc<str>), u32>,
    leases: BTreeMap<LeaseId, LeaseEntry>,
    resources: BTreeMap<ResourceId, ResourceEntry>,
    /// The first lease of each request, by its tenant and id.
    by_request: BTreeMap<RequestKey, LeaseId>,
    by_group: BTreeMap<GroupId, BTreeSet<LeaseId>>,
    by_revision: BTreeMap<Revision, LeaseId>,
    /// When each resource, or the leases on it, last changed; not stored.
    resource_changes: BTreeSet<(Revision, ResourceId)>,
    /// Where works failed though checks pass, by work.
    by_work: BTreeMap<Arc<str>, works::Met>,
    /// Resources that were lost or mangled under a work, by work; not stored.
    lost_under: BTreeMap<Arc<str>, BTreeSet<ResourceId>>,
    /// Reports of each machine by tenants that share it; not stored.
    accusers: BTreeMap<(ResourceId, Arc<str>), accusers::Reports>,
    /// Reports of each lease: when its present period began, and the reports in it. Not stored.
    reports: BTreeMap<LeaseId, (Timestamp, u32)>,
    /// When a check passed that began after the last report of a lease. Not stored.
    answered: BTreeMap<LeaseId, Timestamp>,
    /// All probed hosts as one failure domain.
    network: Domain,
    queue: Queue,
    /// The order of the next requests, by the pools that compete; not stored.
    ranks: Vec<Ranks>,
    changes: Changes,
    /// Groups of which some members have slots and others went back to the queue; not stored.
    partial: BTreeSet<GroupId>,
    /// A step ended before nothing changed any more.
    unsettled: bool,
    timers: BTreeSet<(Timestamp, Timer)>,
    lease_timers: BTreeSet<(Timestamp, LeaseId)>,
    /// Ended leases, by when they are forgotten.
    old: BTreeSet<(Timestamp, LeaseId)>,
    /// Pools whose supply or demand changed since the last placing.
    dirty: BTreeSet<Arc<str>>,
    outbox: Outbox,
    consequences: Consequences,
    intern: Intern,
}

impl Core {
    pub(crate) fn next_revision(&mut self) -> Revision {
        self.revision.0 += 1;
        self.revision
    }

    /// A number for an operation that the next edit stores.
    pub(crate) fn next_op(&self) -> Op {
        Op(self.revision.0 + 1)
    }

    /// The bits of a new id; the edit that stores it uses up the number.
    pub(crate) fn mint(&self) -> u128 {
        crate::model::id::mint(self.now, self.salt, self.revision.0 + 1)
    }

    /// Goes on to a time. A long gap is a pause of the broker, in which no holder could renew and no host could answer.
    pub(crate) fn elapse(&mut self, now: Timestamp) {
        let before = self.now;
        self.now = before.max(now);
        let missed = self.now.since(before);
        if missed > self.limits.pause {
            self.grace_until = self.grace_until.max(self.now.after(self.limits.grace));
            self.heard_since = self.now;
            self.forgets_from = self.forgets_from.max(self.limits.forgets_from(self.now, missed));
        }
    }

    /// The supply or demand of a pool changed.
    pub(crate) fn mark_dirty(&mut self, pool: Arc<str>) {
        self.dirty.insert(pool);
    }

    /// The supply or demand of these pools changed.
    pub(crate) fn mark_all_dirty(&mut self, pools: impl IntoIterator<Item = Arc<str>>) {
        self.dirty.extend(pools);
    }

    /// The pools that are to be looked at now.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<Arc<str>> {
        core::mem::take(&mut self.dirty)
    }

    /// These pools, and no others, are to be looked at next.
    pub(crate) fn set_dirty(&mut self, pools: BTreeSet<Arc<str>>) {
        self.dirty = pools;
    }

    /// Notes whether the latest step ended before nothing changed any more.
    pub(crate) fn set_unsettled(&mut self, unsettled: bool) {
        self.unsettled = unsettled;
    }

    /// The consequences that are due.
    pub(crate) fn consequences(&self) -> &Consequences {
        &self.consequences
    }

    /// The same, to be changed by the loop alone.
    pub(crate) fn consequences_mut(&mut self) -> &mut Consequences {
        &mut self.consequences
    }
}
