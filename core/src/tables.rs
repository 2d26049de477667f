//! The tables and their indices. Every change of a row goes through [`Core::edit_lease`] or [`Core::edit_resource`],
//! which number it, note it for the store, and keep the indices.

use crate::brake::{Domain, Share};
use crate::machine::Core;
use crate::near::{self, NearIndex};
use crate::slots::Slots;
use crate::timer::{NEVER, Timer};
use crate::{
    Cordon, Lease, LeaseId, LeaseState, Op, PoolConfig, PoolCounters, Reason, Resource, ResourceId, ResourceState,
    Revision, Texts, Timestamp,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

#[derive(Clone, Debug)]
pub(crate) struct LeaseEntry {
    pub(crate) row: Arc<Lease>,
    pub(crate) timer: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct ResourceEntry {
    pub(crate) row: Arc<Resource>,
    pub(crate) slots: Slots,
    /// What it adds to its pool's counters; taken back before each new count.
    pub(crate) counted: Count,
    pub(crate) children: BTreeSet<ResourceId>,
    pub(crate) timer: Timestamp,
    pub(crate) liveness: Liveness,
    /// Not to be looked at for idleness before this.
    pub(crate) idle_recheck: Timestamp,
    /// Cleanings of its slots that failed in a row.
    pub(crate) clean_failures: u32,
    /// A reason for doubt came while a check was under way: a healthy answer of that check is followed by one more check.
    /// Not stored: a recovery makes each check anew.
    pub(crate) recheck: bool,
    /// What it adds to its failure domains, and where.
    pub(crate) share: Share,
    pub(crate) domain: Option<Arc<str>>,
    /// What it has already, as its last preparation told.
    pub(crate) near: Arc<Texts>,
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
    /// All but those that are gone.
    pub(crate) members: BTreeSet<ResourceId>,
    /// Leasable with a free slot, best first.
    pub(crate) free: BTreeSet<(i64, ResourceId)>,
    /// The same, by what they are near to.
    pub(crate) near: NearIndex,
    pub(crate) total: Totals,
    pub(crate) backoff: Backoff,
    /// Failure domains by the value of the pool's domain label; `""`: the pool itself.
    pub(crate) domains: BTreeMap<Arc<str>, Domain>,
    pub(crate) counters: PoolCounters,
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
            members: BTreeSet::new(),
            free: BTreeSet::new(),
            near: NearIndex::new(),
            total: Totals::default(),
            backoff: Backoff::default(),
            domains: BTreeMap::new(),
            counters: PoolCounters::default(),
        }
    }

    /// Whether new leases are given on it at all.
    pub(crate) fn open(&self) -> bool {
        self.configured && self.config.enabled && self.cordoned.is_none()
    }
}

/// So many failures in a row to make an inventory's machine ready, and nobody counts on it any more.
pub(crate) const PROVISION_BREAKER: u32 = 3;

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
        crate::id::mint(self.now, self.salt, self.revision.0 + 1)
    }

    pub(crate) fn insert_lease(&mut self, mut row: Lease) {
        row.revision = self.next_revision();
        let id = row.id;
        self.index_lease(Arc::new(row));
        self.pending.leases.insert(id);
        self.arm_lease(id);
    }

    /// Puts a row into the table and its indices, as new or as loaded.
    pub(crate) fn index_lease(&mut self, row: Arc<Lease>) {
        let id = row.id;
        if let Some(group) = row.spec.group {
            self.by_group.entry(group).or_default().insert(id);
        }
        if row.is_of_request() {
            self.by_request.insert(row.spec.request_id.clone(), id);
        }
        self.by_revision.insert(row.revision, id);
        self.leases.insert(id, LeaseEntry { row, timer: NEVER });
    }

    /// Puts all rows of an empty table into it and its indices: maps that are made of all that they hold have full nodes,
    /// which those that grow in order leave half empty.
    pub(crate) fn index_leases(&mut self, rows: Vec<Lease>) {
        let mut leases = Vec::with_capacity(rows.len());
        let mut by_request = Vec::with_capacity(rows.len());
        let mut by_revision = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.id;
            if let Some(group) = row.spec.group {
                self.by_group.entry(group).or_default().insert(id);
            }
            if row.is_of_request() {
                by_request.push((row.spec.request_id.clone(), id));
            }
            by_revision.push((row.revision, id));
            leases.push((id, LeaseEntry { row: Arc::new(row), timer: NEVER }));
        }
        self.leases = leases.into_iter().collect();
        self.by_request = by_request.into_iter().collect();
        self.by_revision = by_revision.into_iter().collect();
    }

    /// Changes a lease. Returns false if there is none.
    pub(crate) fn edit_lease(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) -> bool {
        let revision = Revision(self.revision.0 + 1);
        let Some(entry) = self.leases.get_mut(&id) else { return false };
        let row = Arc::make_mut(&mut entry.row);
        let before = row.revision;
        let held = row.hold().map(|hold| hold.resource);
        change(row);
        row.revision = revision;
        let again = row.spec.replace.then(|| [held, row.hold().map(|hold| hold.resource)]);
        self.revision = revision;
        self.by_revision.remove(&before);
        self.by_revision.insert(revision, id);
        self.pending.leases.insert(id);
        self.arm_lease(id);
        for resource in again.into_iter().flatten().flatten() {
            self.recount_foreseen(resource);
        }
        true
    }

    /// A lease that would be queued again came to this resource, left it or ended there: if its host is to end, that counts.
    fn recount_foreseen(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id) else { return };
        let host = row.parent.and_then(|parent| parent.host).unwrap_or(id);
        let ends = self
            .resource(host)
            .is_some_and(|row| matches!(row.state, ResourceState::Draining { deadline: Some(_), .. }));
        if ends {
            self.reindex(host);
        }
    }

    pub(crate) fn forget_lease(&mut self, id: LeaseId) {
        let Some(entry) = self.leases.remove(&id) else { return };
        self.disarm_lease(entry.timer, id);
        self.reports.remove(&id);
        self.by_revision.remove(&entry.row.revision);
        if self.by_request.get(&entry.row.spec.request_id) == Some(&id) {
            self.by_request.remove(&entry.row.spec.request_id);
        }
        if let Some(group) = entry.row.spec.group
            && let Some(members) = self.by_group.get_mut(&group)
        {
            members.remove(&id);
            if members.is_empty() {
                self.by_group.remove(&group);
            }
        }
        // A change like others: who follows the changes has to hear of it.
        self.next_revision();
        self.pending.leases.remove(&id);
        self.pending.forgotten_leases.push(id);
        self.floor = self.floor.max(entry.row.revision);
    }

    pub(crate) fn insert_resource(&mut self, mut row: Resource) {
        row.revision = self.next_revision();
        let id = row.id;
        self.index_resource(Arc::new(row));
        self.pending.resources.insert(id);
        self.reindex(id);
        self.arm_resource(id);
    }

    pub(crate) fn index_resource(&mut self, row: Arc<Resource>) {
        let id = row.id;
        if !matches!(row.state, ResourceState::Gone { .. })
            && let Some(pool) = self.pools.get_mut(&row.pool)
        {
            pool.members.insert(id);
        }
        if let Some(host) = row.parent.and_then(|parent| parent.host)
            && let Some(host) = self.resources.get_mut(&host)
        {
            host.children.insert(id);
        }
        self.resources.insert(
            id,
            ResourceEntry {
                row,
                slots: Slots::default(),
                counted: Count::default(),
                children: BTreeSet::new(),
                timer: NEVER,
                liveness: Liveness::default(),
                idle_recheck: Timestamp(0),
                clean_failures: 0,
                recheck: false,
                share: Share::default(),
                domain: None,
                near: Arc::default(),
            },
        );
    }

    /// Changes a resource. Returns false if there is none.
    pub(crate) fn edit_resource(&mut self, id: ResourceId, change: impl FnOnce(&mut Resource)) -> bool {
        let revision = Revision(self.revision.0 + 1);
        let Some(entry) = self.resources.get_mut(&id) else { return false };
        let row = Arc::make_mut(&mut entry.row);
        change(row);
        row.revision = revision;
        self.revision = revision;
        self.pending.resources.insert(id);
        self.reindex(id);
        self.arm_resource(id);
        true
    }

    /// Changes what is not worth a revision of its own: how often and when it was last used.
    pub(crate) fn touch_resource(&mut self, id: ResourceId, change: impl FnOnce(&mut Resource)) {
        if let Some(entry) = self.resources.get_mut(&id) {
            change(Arc::make_mut(&mut entry.row));
        }
        self.reindex(id);
        self.arm_resource(id);
    }

    pub(crate) fn forget_resource(&mut self, id: ResourceId) {
        let Some(entry) = self.resources.remove(&id) else { return };
        self.timers.remove(&(entry.timer, Timer::Resource(id)));
        if let Some(pool) = self.pools.get_mut(&entry.row.pool) {
            pool.members.remove(&id);
        }
        self.next_revision();
        self.pending.resources.remove(&id);
        self.pending.forgotten_resources.push(id);
        self.floor = self.floor.max(entry.row.revision);
        self.drop_empty_pools();
    }

    /// Whether new leases may be given on it: READY, not cordoned, in an open pool, its host likewise.
    pub(crate) fn leasable(&self, row: &Resource) -> bool {
        let Some(pool) = self.pools.get(&row.pool) else { return false };
        if !pool.open() || row.cordoned.is_some() || row.keep.is_some() || !matches!(row.state, ResourceState::Ready) {
            return false;
        }
        match row.parent {
            None => true,
            Some(parent) => parent.host.and_then(|host| self.resources.get(&host)).is_some_and(|host| {
                matches!(host.row.state, ResourceState::Ready)
                    && host.row.cordoned.is_none()
                    && host.row.keep.is_none()
                    && self.pools.get(&host.row.pool).is_some_and(Pool::open)
            }),
        }
    }

    /// Machines of an inventory share the load; what can be given up again is filled up one by one, so that the rest
    /// falls idle.
    fn rank(pool: &Pool, used: u32, id: ResourceId) -> (i64, ResourceId) {
        let used = i64::from(used);
        (if pool.config.inventory.is_some() { used } else { -used }, id)
    }

    /// Counts a resource anew, and its children, whose standing depends on it.
    pub(crate) fn reindex(&mut self, id: ResourceId) {
        let Some(entry) = self.resources.get(&id) else { return };
        let row = &entry.row;
        let Some(pool) = self.pools.get(&row.pool) else { return };
        let used = entry.slots.len();
        let leasable = self.leasable(row);
        let free = if leasable { row.slots.saturating_sub(used) } else { 0 };
        // A machine that fails again and again is tried on, but nobody counts on it: others are tried in its place.
        let given_up = row.item.is_some()
            && matches!(row.state, ResourceState::Provisioning { attempt, .. } if attempt >= PROVISION_BREAKER);
        let coming = match row.state {
            ResourceState::Provisioning { .. } if row.cordoned.is_none() && !given_up => row.slots,
            _ => 0,
        };
        let ends = matches!(row.state, ResourceState::Draining { deadline: Some(_), .. });
        let foreseen = if ends { self.wanted_again(entry) } else { 0 };
        let gone = matches!(row.state, ResourceState::Gone { .. });
        // One that is being taken away does not keep its successor from being made: they overlap for minutes. Planned work may
        // be days off, and waits its turn.
        let makes_room = foreseen > 0 && row.item.is_none() && is_interrupted(&row.state);
        let counted = Count {
            capacity: !given_up
                && !makes_room
                && !matches!(
                    row.state,
                    ResourceState::Gone { .. }
                        | ResourceState::Orphaned { .. }
                        | ResourceState::Destroying { dead: true, .. }
                ),
            free,
            coming,
            foreseen,
            leasable,
            idle: leasable && used == 0,
            rank: (free > 0).then(|| Self::rank(pool, used, id)),
        };
        let before = entry.counted;
        let name = row.pool.clone();
        let (share, domain) = (entry.share, entry.domain.clone());
        let (share, domain) = self.recount_share(id, share, domain);
        if let Some(entry) = self.resources.get_mut(&id) {
            entry.share = share;
            entry.domain = domain;
        }
        if counted != before || gone {
            let pool = self.pools.get_mut(&name).expect("looked up above");
            let near = self.resources.get(&id).map(|entry| entry.near.clone()).unwrap_or_default();
            if let Some(rank) = before.rank {
                pool.free.remove(&rank);
                near::take(&mut pool.near, &near, id);
            }
            if let Some(rank) = counted.rank {
                pool.free.insert(rank);
                near::put(&mut pool.near, &near, id);
            }
            let total = &mut pool.total;
            total.capacity = total.capacity - u32::from(before.capacity) + u32::from(counted.capacity);
            total.free_slots = total.free_slots - before.free + counted.free;
            total.coming_slots = total.coming_slots - before.coming + counted.coming;
            total.coming = total.coming - u32::from(before.coming > 0) + u32::from(counted.coming > 0);
            total.foreseen = total.foreseen - before.foreseen + counted.foreseen;
            total.idle = total.idle - u32::from(before.idle) + u32::from(counted.idle);
            if gone {
                pool.members.remove(&id);
            }
            let entry = self.resources.get_mut(&id).expect("looked up above");
            entry.counted = counted;
            if gone {
                entry.near = Arc::default();
            }
            self.dirty.insert(name);
            let children = entry.children.clone();
            for child in children {
                self.reindex(child);
            }
        }
    }

    /// Slots of this host on which somebody works, on it or on what lies there, who will be queued again when that is broken.
    /// What lies on hosts is made in moments, and would only keep slots from others meanwhile.
    fn wanted_again(&self, entry: &ResourceEntry) -> u32 {
        if entry.row.parent.is_some() {
            return 0;
        }
        let again = |lease: LeaseId| {
            let works = |state: &LeaseState| matches!(state, LeaseState::Preparing { .. } | LeaseState::Active { .. });
            self.lease(lease).is_some_and(|lease| lease.spec.replace && works(&lease.state))
        };
        let slots = entry.slots.used().filter(|(_, lease)| {
            let child = self.lease(*lease).and_then(|lease| lease.spec.child);
            match child.and_then(|child| self.resources.get(&child)) {
                Some(child) => child.slots.used().any(|(_, lease)| again(lease)),
                None => again(*lease),
            }
        });
        slots.count() as u32
    }

    /// Counts everything anew, after the pools themselves changed.
    pub(crate) fn reindex_all(&mut self) {
        for pool in self.pools.values_mut() {
            pool.free.clear();
            pool.near.clear();
            pool.total = Totals::default();
            pool.domains.values_mut().for_each(Domain::clear_counts);
        }
        self.network.clear_counts();
        let ids: Vec<ResourceId> = self.resources.keys().copied().collect();
        for id in &ids {
            if let Some(entry) = self.resources.get_mut(id) {
                entry.counted = Count::default();
                entry.share = Share::default();
                entry.domain = None;
            }
        }
        for id in ids {
            self.reindex(id);
        }
        self.dirty.extend(self.pools.keys().cloned());
    }

    /// Leases on it whose holders may be at work: preparing or active.
    pub(crate) fn live_on(&self, id: ResourceId) -> Vec<LeaseId> {
        let Some(entry) = self.resources.get(&id) else { return Vec::new() };
        entry
            .slots
            .used()
            .map(|(_, lease)| lease)
            .filter(|lease| self.lease(*lease).is_some_and(|l| !l.ended()))
            .collect()
    }

    /// Leases that are over and whose slots on it are not clean yet.
    pub(crate) fn unclean_on(&self, id: ResourceId) -> Vec<LeaseId> {
        let Some(entry) = self.resources.get(&id) else { return Vec::new() };
        entry
            .slots
            .used()
            .map(|(_, lease)| lease)
            .filter(|lease| self.lease(*lease).is_some_and(|l| l.ended()))
            .collect()
    }

    /// A pool that is no longer configured is forgotten with its last resource.
    pub(crate) fn drop_empty_pools(&mut self) {
        let before = self.pools.len();
        self.pools.retain(|_, pool| pool.configured || !pool.members.is_empty());
        if self.pools.len() != before {
            let pools = &self.pools;
            self.order.retain(|name| pools.contains_key(name));
        }
    }

    /// Gives back the slot that an ended lease still holds.
    pub(crate) fn free_slot(&mut self, lease: LeaseId) {
        let Some(hold) = self.lease(lease).and_then(|row| row.hold().copied()) else { return };
        self.edit_lease(lease, |row| {
            if let LeaseState::Ended { cleanup, .. } = &mut row.state {
                *cleanup = None;
            }
        });
        self.vacate(hold.resource, hold.slot, lease);
    }

    /// Takes a lease off its slot and does what the slot's being free brings about.
    pub(crate) fn vacate(&mut self, id: ResourceId, slot: u32, lease: LeaseId) {
        let now = self.now;
        let Some(entry) = self.resources.get_mut(&id) else { return };
        if !entry.slots.free(slot, lease) {
            return;
        }
        let empty = entry.slots.len() == 0;
        self.touch_resource(id, |row| {
            if empty {
                row.idle_since = Some(now);
            }
        });
        if let Some(row) = self.resource(id) {
            let pool = row.pool.clone();
            self.dirty.insert(pool);
        }
        self.after_vacated(id);
    }
}

/// It drains because its provider takes it away.
fn is_interrupted(state: &ResourceState) -> bool {
    matches!(state, ResourceState::Draining { cause, .. } if cause.iter().any(|link| link.reason == Reason::Interrupted))
}
