//! Transitions of what is known of a resource beside its row, none of which is worth a revision.

use crate::near;
use crate::state::tables::Liveness;
use crate::{Core, LeaseId, ResourceId, Texts, Timestamp};
use alloc::sync::Arc;

impl Core {
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
        self.resources.get_mut(&id).map(|entry| entry.slots.take(lease))
    }

    /// Gives a lease this very slot, as it is stored.
    pub(crate) fn restore_slot(&mut self, id: ResourceId, slot: u32, lease: LeaseId) {
        if let Some(entry) = self.resources.get_mut(&id) {
            entry.slots.restore(slot, lease);
        }
    }

    /// Takes a slot from a lease; `false`: the lease does not hold it.
    pub(crate) fn give_slot_back(&mut self, id: ResourceId, slot: u32, lease: LeaseId) -> bool {
        self.resources.get_mut(&id).is_some_and(|entry| entry.slots.free(slot, lease))
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
            near::take(&mut pool.near, &before, id);
            near::put(&mut pool.near, &near, id);
        }
    }
}
