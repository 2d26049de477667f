//! The entries of the tables: a row, and what is known beside it.

use crate::policy::affinity::NearIndex;
use crate::policy::brake::{Domain, Share};
use crate::state::learned::Lengths;
use crate::state::slots::Slots;
use crate::{
    Cordon, Lease, Losses, PoolConfig, PoolCounters, Record, Resource, ResourceId, Revision, Texts, Timestamp,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

#[derive(Clone, Debug)]
pub(crate) struct LeaseEntry {
    pub(crate) row: Arc<Lease>,
    pub(crate) timer: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct ResourceEntry {
    pub(crate) row: Arc<Resource>,
    pub(crate) slots: Slots,
    /// Its part in its pool's counters; subtracted before each new count.
    pub(crate) counted: Count,
    pub(crate) children: BTreeSet<ResourceId>,
    pub(crate) timer: Timestamp,
    pub(crate) liveness: Liveness,
    /// Not to be looked at for idleness before this.
    pub(crate) idle_recheck: Timestamp,
    /// Cleanings of its slots that failed in a row.
    pub(crate) clean_failures: u32,
    /// A reason for doubt came while a check was under way: a healthy answer of that check is followed by one more
    /// check. Not stored: a recovery makes each check anew.
    pub(crate) recheck: bool,
    /// Its part in its failure domains, and their name.
    pub(crate) share: Share,
    pub(crate) domain: Option<Arc<str>>,
    /// The lease parameters that it has, as its latest preparation reported.
    pub(crate) near: Arc<Texts>,
    /// When it, or the leases on it, last changed. Of one that was loaded: when it was loaded.
    pub(crate) changed: Revision,
}

/// Probes while nothing is (known to be) wrong. Not stored: after a restart every host is simply probed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Liveness {
    /// When the next probe starts; `None`: one is under way, or none is wanted.
    pub(crate) next: Option<Timestamp>,
    /// A probe is under way.
    pub(crate) in_flight: bool,
    /// Misses in a row, of a resource whose state does not carry them.
    pub(crate) misses: u32,
    pub(crate) first_miss: Option<Timestamp>,
    /// When it last answered.
    pub(crate) heard_at: Option<Timestamp>,
    pub(crate) login: Login,
}

/// Whether a probe by a new login is wanted, since a holder could not get in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Login {
    #[default]
    No,
    Wanted,
    UnderWay,
}

/// A resource's part in its pool's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Counts against the pool's maximum.
    pub(crate) capacity: bool,
    /// Stands for a machine of the inventory, so that no other one does.
    pub(crate) takes_item: bool,
    /// Slots that could be leased now.
    pub(crate) free: u32,
    /// Slots that will be leasable when it is made.
    pub(crate) coming: u32,
    /// Slots of a host whose end is known and whose holders want others in their stead.
    pub(crate) foreseen: u32,
    /// Whether new leases may be given on it, were there room: what its children's standing depends on.
    pub(crate) leasable: bool,
    /// Leasable and without a lease.
    pub(crate) idle: bool,
    /// Its place among the leasable; see [`Core::rank`].
    pub(crate) rank: Option<(i64, ResourceId)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) config: Arc<PoolConfig>,
    pub(crate) configured: bool,
    pub(crate) cordoned: Option<Cordon>,
    pub(crate) revision: Revision,
    /// How its uses went.
    pub(crate) record: Record,
    /// The latest losses of hosts that it made at will.
    pub(crate) losses: Option<Losses>,
    /// All but those that are gone.
    pub(crate) members: BTreeSet<ResourceId>,
    /// Leasable with a free slot, best first.
    pub(crate) free: BTreeSet<(i64, ResourceId)>,
    /// The same, by what they are near to.
    pub(crate) near: NearIndex,
    pub(crate) total: Totals,
    /// It is known to have no room for more; forgotten with each change that may give it some.
    pub(crate) no_room: bool,
    pub(crate) backoff: Backoff,
    /// Failure domains by the value of the pool's domain label; `""`: the pool itself.
    pub(crate) domains: BTreeMap<Arc<str>, Domain>,
    pub(crate) counters: PoolCounters,
    /// How long things took lately; not stored.
    pub(crate) learned: Lengths,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) capacity: u32,
    pub(crate) free_slots: u32,
    pub(crate) coming_slots: u32,
    pub(crate) coming: u32,
    pub(crate) foreseen: u32,
    pub(crate) idle: u32,
}

/// Provisioning that keeps failing is tried more and more seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) failures: u32,
    pub(crate) until: Option<Timestamp>,
    pub(crate) why: Option<Arc<str>>,
}

impl Pool {
    pub(crate) fn new(config: Arc<PoolConfig>) -> Self {
        Self {
            config,
            configured: true,
            cordoned: None,
            revision: Revision(0),
            record: Record::default(),
            losses: None,
            members: BTreeSet::new(),
            free: BTreeSet::new(),
            near: NearIndex::new(),
            total: Totals::default(),
            no_room: false,
            backoff: Backoff::default(),
            domains: BTreeMap::new(),
            counters: PoolCounters::default(),
            learned: Lengths::default(),
        }
    }

    /// Whether new leases are given on it at all.
    pub(crate) fn open(&self) -> bool {
        self.configured && self.config.enabled && self.cordoned.is_none()
    }
}
