//! Transitions of what is known of a resource beside its row, none of which is worth a revision.

use crate::policy::affinity;
use crate::policy::brake::Share;
use crate::state::slots::Slots;
use crate::state::tables::Liveness;
use crate::state::tables::{Count, ResourceEntry};
use crate::state::timers::{NEVER, Timer};
use crate::{Core, Lease, LeaseId, ResourceId, Texts, Timestamp};
use crate::{Resource, ResourceState, Revision, Stage};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    pub(crate) fn insert_resource(&mut self, mut row: Resource) {
        row.revision = self.next_revision();
        let id = row.id;
        self.index_resource(Arc::new(row));
        self.outbox.resources.insert(id);
        self.reindex(id);
        self.arm_resource(id);
    }

    pub(crate) fn index_resource(&mut self, row: Arc<Resource>) {
        let id = row.id;
        if row.state.stage() != Stage::Gone
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
                changed: Revision(0),
            },
        );
        self.resource_changed(id, self.revision);
    }

    /// A resource, or a lease on it, changed at this revision. Readers of changes see it anew.
    pub(crate) fn resource_changed(&mut self, id: ResourceId, at: Revision) {
        let Some(entry) = self.resources.get_mut(&id) else { return };
        self.resource_changes.remove(&(entry.changed, id));
        entry.changed = at;
        self.resource_changes.insert((at, id));
    }

    /// Changes a resource. Returns false if there is none.
    pub(crate) fn edit_resource(&mut self, id: ResourceId, change: impl FnOnce(&mut Resource)) -> bool {
        let revision = Revision(self.revision.0 + 1);
        let Some(entry) = self.resources.get_mut(&id) else { return false };
        let row = Arc::make_mut(&mut entry.row);
        let coming = matches!(row.state, ResourceState::Provisioning { .. });
        change(row);
        row.revision = revision;
        self.revision = revision;
        if coming && let Some(row) = self.resource(id).cloned() {
            self.learn_making(coming, &row);
        }
        self.outbox.resources.insert(id);
        self.resource_changed(id, revision);
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
        self.resource_changes.remove(&(entry.changed, id));
        self.timers.remove(&(entry.timer, Timer::Resource(id)));
        if let Some(pool) = self.pools.get_mut(&entry.row.pool) {
            pool.members.remove(&id);
        }
        self.next_revision();
        self.outbox.resources.remove(&id);
        self.outbox.forgotten_resources.push(id);
        self.floor = self.floor.max(entry.row.revision);
        self.drop_empty_pools();
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

    /// A resource lies on a host from now on.
    pub(crate) fn tie(&mut self, host: ResourceId, child: ResourceId) {
        if let Some(host) = self.resources.get_mut(&host) {
            host.children.insert(child);
        }
    }

    /// A resource lies on a host no more.
    pub(crate) fn untie(&mut self, host: ResourceId, child: ResourceId) {
        if let Some(host) = self.resources.get_mut(&host) {
            host.children.remove(&child);
        }
    }

    /// Gives a lease a free slot of a resource; the row of the lease is the caller's to change.
    pub(crate) fn take_slot(&mut self, id: ResourceId, lease: LeaseId) -> Option<u32> {
        let slot = self.resources.get_mut(&id).map(|entry| entry.slots.take(lease))?;
        if let Some(row) = self.lease(lease).cloned() {
            self.count_held(&row, id, true);
        }
        Some(slot)
    }

    /// Gives a lease the slot that its row names.
    pub(crate) fn restore_slot(&mut self, lease: &Lease) {
        let Some(assignment) = lease.assignment() else { return };
        if let Some(entry) = self.resources.get_mut(&assignment.resource) {
            entry.slots.restore(assignment.slot, lease.id);
            self.count_held(lease, assignment.resource, true);
        }
    }

    /// Takes a slot from a lease; `false`: the lease does not hold it.
    pub(crate) fn give_slot_back(&mut self, id: ResourceId, slot: u32, lease: LeaseId) -> bool {
        self.resources.get_mut(&id).is_some_and(|entry| entry.slots.free(slot, lease))
    }

    /// A lease leaves its slot of a resource; `false`: it does not hold it.
    pub(crate) fn leave_slot(&mut self, id: ResourceId, slot: u32, lease: LeaseId) -> bool {
        if !self.give_slot_back(id, slot, lease) {
            return false;
        }
        if let Some(row) = self.lease(lease).cloned() {
            self.count_held(&row, id, false);
            self.quota_is_freed(&row.spec.tenant);
        }
        let now = self.now;
        let empty = self.resources.get(&id).is_some_and(|entry| entry.slots.len() == 0);
        self.touch_resource(id, |row| {
            if empty {
                row.idle_since = Some(now);
            }
        });
        if let Some(pool) = self.resource(id).map(|row| row.pool.clone()) {
            self.mark_dirty(pool);
        }
        true
    }

    /// Changes what is known of a resource's probes.
    pub(crate) fn edit_liveness(&mut self, id: ResourceId, change: impl FnOnce(&mut Liveness)) {
        if let Some(entry) = self.resources.get_mut(&id) {
            change(&mut entry.liveness);
        }
    }

    /// The resource answered.
    pub(crate) fn heard_from(&mut self, id: ResourceId) {
        let now = self.now;
        self.edit_liveness(id, |liveness| liveness.heard_at = Some(now));
    }

    /// Whether a healthy answer of the check under way is followed by one more check.
    pub(crate) fn set_recheck(&mut self, id: ResourceId, recheck: bool) {
        if let Some(entry) = self.resources.get_mut(&id) {
            entry.recheck = recheck;
        }
    }

    /// A slot was cleaned.
    pub(crate) fn cleaning_worked(&mut self, id: ResourceId) {
        if let Some(entry) = self.resources.get_mut(&id) {
            entry.clean_failures = 0;
        }
    }

    /// A slot could not be cleaned: how many times in a row that happened.
    pub(crate) fn cleaning_failed(&mut self, id: ResourceId) -> Option<u32> {
        let entry = self.resources.get_mut(&id)?;
        entry.clean_failures += 1;
        Some(entry.clean_failures)
    }

    /// The resource has no lease from now on.
    pub(crate) fn fell_idle(&mut self, id: ResourceId) {
        let now = self.now;
        self.touch_resource(id, |row| row.idle_since = Some(now));
    }

    /// Not to be looked at for idleness before this time.
    pub(crate) fn put_off_idleness(&mut self, id: ResourceId, until: Timestamp) {
        if let Some(entry) = self.resources.get_mut(&id) {
            entry.idle_recheck = until;
        }
    }

    /// Notes what a resource has, in terms of lease parameters.
    pub(crate) fn set_near(&mut self, id: ResourceId, near: Texts) {
        let Some(entry) = self.resources.get_mut(&id) else { return };
        if *entry.near == near {
            return;
        }
        let near = Arc::new(near);
        let before = core::mem::replace(&mut entry.near, near.clone());
        let Some(pool) = self.pools.get_mut(&entry.row.pool) else { return };
        if entry.counted.rank.is_some() {
            affinity::take(&mut pool.near, &before, id);
            affinity::put(&mut pool.near, &near, id);
        }
    }
}
