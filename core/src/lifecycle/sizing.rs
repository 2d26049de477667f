//! Carries out what autoscaling decides: resources are started, reclaimed and retired.

use crate::Core;
use crate::lifecycle::Consequence;
use crate::policy::autoscale::{Demand, Retirement};
use crate::state::queue::Place;
use crate::{LeaseId, Link, Millis, Reason, ResourceId, Source, Subject};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// An idle child keeps its slot on the host this long, even if others wait for the slot: it was just used.
const RECLAIM_AFTER: Millis = Millis::secs(5);

impl Core {
    /// Makes what is missing, and has idle working copies give back what cannot be made.
    pub(crate) fn size(&mut self, demand: &Demand) {
        for name in &demand.pools {
            self.grow(name, demand.made.get(name).copied().unwrap_or(0));
            if let Some(wanted) = demand.idle.get(name) {
                self.reclaim(name, *wanted);
            }
        }
    }

    /// Starts as many resources as the pool lacks.
    fn grow(&mut self, name: &Arc<str>, demand: u32) {
        let Some(pool) = self.pool_entry(name) else { return };
        let failed = pool.backoff.until.filter(|until| *until > self.now());
        if let Some(until) = failed.max(self.rest_of_pool(pool).map(|losses| losses.again_at)) {
            self.wake_pool(name, until);
            return;
        }
        let wanted = self.growth(pool, demand);
        // Whether there is room is remembered, so that a step costs the same in a long inventory as in a short one.
        if wanted == 0 || self.has_no_room(name) {
            return;
        }
        let Some(pool) = self.pool_entry(name) else { return };
        let count = wanted.min(self.room(pool)) as usize;
        if pool.config.inventory.is_some() {
            for item in self.idle_items(pool).into_iter().take(count) {
                self.start_resource(name, Some(item));
            }
        } else {
            for _ in 0..count {
                self.start_resource(name, None);
            }
        }
    }

    /// Others wait for slots of hosts that idle children keep: the longest idle ones go.
    fn reclaim(&mut self, name: &Arc<str>, wanted: u32) {
        let Some(pool) = self.pool_entry(name) else { return };
        let (idle, leaving) = self.idle_children(pool);
        for (since, child) in idle.into_iter().take(wanted.saturating_sub(leaving) as usize) {
            if since.after(RECLAIM_AFTER) > self.now() {
                self.wake_pool(name, since.after(RECLAIM_AFTER));
                return;
            }
            let waiter = self.first_waiter(name);
            let waiting = waiter.and_then(|id| self.lease(id));
            let wanted_by =
                waiting.map_or_else(|| String::from("others"), |row| format!("{} ({})", row.id, row.spec.holder));
            let why = format!("it is idle, and its slot on its host is wanted by {wanted_by}");
            let link = self.policy_link(child, &why);
            self.gave_way(child, waiter, &why);
            self.bring_about(Consequence::remove(child, alloc::vec![link]));
        }
    }

    /// The lease of a holder that waits first for a pool, be it for a working copy that waits for a host of the pool.
    fn first_waiter(&self, name: &Arc<str>) -> Option<LeaseId> {
        let first = self.first_in_queue(name)?;
        let copy = self.lease(first).and_then(|lease| lease.spec.child).and_then(|copy| self.resource(copy));
        copy.map_or(Some(first), |copy| self.first_in_queue(&copy.pool))
    }

    fn first_in_queue(&self, name: &Arc<str>) -> Option<LeaseId> {
        let mut first: Option<(Place, LeaseId)> = None;
        for class in self.queue().classes_for(name) {
            let Some((place, waiter)) = class.first() else { continue };
            if let Some(lease) = waiter.leases.first()
                && first.is_none_or(|(before, _)| place < before)
            {
                first = Some((place, *lease));
            }
        }
        first.map(|(_, lease)| lease)
    }

    /// Gives up a resource that has been idle, is too old or used up.
    pub(crate) fn consider_retiring(&mut self, id: ResourceId) {
        match self.retirement(id) {
            Retirement::Now(why) => {
                let link = self.policy_link(id, &why);
                self.then(Consequence::Drain { resource: id, cause: alloc::vec![link], deadline: None });
            }
            Retirement::NotBefore(later) => self.put_off_idleness(id, later),
            Retirement::No => {}
        }
    }

    pub(crate) fn policy_link(&self, id: ResourceId, why: &str) -> Link {
        Link {
            subject: Subject::Resource(id),
            reason: Reason::Policy,
            detail: Arc::from(why),
            source: Source::Broker,
            at: self.now(),
        }
    }
}
