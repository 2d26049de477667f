//! The counters and indices of pools, as they follow from the rows.

use crate::policy::affinity;
use crate::policy::brake::{Domain, Share};
use crate::state::tables::{Count, Pool, ResourceEntry, Totals};
use crate::{Core, LeaseId, LeaseState, Reason, Resource, ResourceId, ResourceState, Stage};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Consecutive provisioning failures after which an inventory machine no longer counts as coming capacity.
pub(crate) const PROVISION_BREAKER: u32 = 3;

impl Core {
    /// A lease that would be queued again came to this resource, left it or ended there: if its host is to end, that
    /// counts.
    pub(super) fn recount_foreseen(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id) else { return };
        let host = row.parent.and_then(|parent| parent.host).unwrap_or(id);
        let ends = self
            .resource(host)
            .is_some_and(|row| matches!(row.state, ResourceState::Draining { deadline: Some(_), .. }));
        if ends {
            self.reindex(host);
        }
    }

    /// Whether new leases may be given on it: READY, not cordoned, in an open pool, its host likewise.
    pub(crate) fn leasable(&self, row: &Resource) -> bool {
        let Some(pool) = self.pools.get(&row.pool) else { return false };
        if !pool.open() || row.cordoned.is_some() || row.hold.is_some() || row.state.stage() != Stage::Ready {
            return false;
        }
        match row.parent {
            None => true,
            Some(parent) => parent.host.and_then(|host| self.resources.get(&host)).is_some_and(|host| {
                host.row.state.stage() == Stage::Ready
                    && host.row.cordoned.is_none()
                    && host.row.hold.is_none()
                    && self.pools.get(&host.row.pool).is_some_and(Pool::open)
            }),
        }
    }

    /// Whether it lies on a host that is held or set apart.
    pub(crate) fn host_is_held(&self, row: &Resource) -> bool {
        let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resources.get(&host));
        host.is_some_and(|host| host.row.hold.is_some() || host.row.state.stage() == Stage::Apart)
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
        let slots = if row.evidence.trial.is_some() { row.slots.min(1) } else { row.slots };
        let free = if leasable { slots.saturating_sub(used) } else { 0 };
        // A machine that fails repeatedly is retried, but does not count as coming: others are tried in its place.
        let given_up = row.item.is_some()
            && matches!(row.state, ResourceState::Provisioning { attempt, .. } if attempt >= PROVISION_BREAKER);
        let made = row.state.stage() == Stage::Coming && row.cordoned.is_none() && !given_up;
        let coming = if made { row.slots } else { 0 };
        let ends = matches!(row.state, ResourceState::Draining { deadline: Some(_), .. });
        let foreseen = if ends { self.wanted_again(entry) } else { 0 };
        let gone = row.state.stage() == Stage::Gone;
        // One that is being taken away does not keep its successor from being made: they overlap for minutes. Planned
        // work may be days off, and waits its turn.
        let makes_room = foreseen > 0 && row.item.is_none() && is_interrupted(&row.state);
        let takes_item = row.item.is_some() && !gone && !matches!(row.state, ResourceState::Orphaned { .. });
        let counted = Count {
            takes_item,
            capacity: !given_up && !makes_room && row.state.takes_capacity(),
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
                affinity::take(&mut pool.near, &near, id);
            }
            if let Some(rank) = counted.rank {
                pool.free.insert(rank);
                affinity::put(&mut pool.near, &near, id);
            }
            let total = &mut pool.total;
            total.capacity = total.capacity - u32::from(before.capacity) + u32::from(counted.capacity);
            total.free_slots = total.free_slots - before.free + counted.free;
            total.coming_slots = total.coming_slots - before.coming + counted.coming;
            total.coming = total.coming - u32::from(before.coming > 0) + u32::from(counted.coming > 0);
            total.foreseen = total.foreseen - before.foreseen + counted.foreseen;
            total.idle = total.idle - u32::from(before.idle) + u32::from(counted.idle);
            if (counted.capacity, counted.takes_item) != (before.capacity, before.takes_item) {
                pool.no_room = false;
            }
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

    /// Slots of this host whose leases, on it or on its copies, are replaced when they break. Working copies are made
    /// in moments, so that theirs do not count for their own pool.
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
            pool.no_room = false;
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
}

/// It drains because its provider takes it away.
fn is_interrupted(state: &ResourceState) -> bool {
    matches!(state, ResourceState::Draining { cause, .. } if cause.iter().any(|link| link.reason == Reason::Interrupted))
}
