//! A lease gets a slot.

use crate::state::outbox::Call;
use crate::{Assignment, Core, EventKind, LeaseId, LeaseState, Resource, ResourceId, Selector, Subject};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;

impl Core {
    /// A tenant uses a resource and its host, where that matters to the next one.
    fn note_tenant(&mut self, lease: LeaseId, resource: ResourceId) {
        let Some(tenant) = self.lease(lease).map(|lease| lease.spec.tenant.clone()) else { return };
        for id in BTreeSet::from([resource, self.host_or_itself(resource)]) {
            let noted = self
                .resource(id)
                .is_none_or(|row| !self.is_replaced_between(row) || row.last_tenant.as_ref() == Some(&tenant));
            if !noted {
                self.edit_resource(id, |row| row.last_tenant = Some(tenant.clone()));
            }
        }
    }

    /// Gives a lease that left the queue a slot of this resource.
    pub(crate) fn grant(&mut self, id: LeaseId, resource: ResourceId) {
        let Some(slot) = self.take_slot(resource, id) else { return };
        let Some(row) = self.resource(resource) else { return };
        // Not the row itself: a second owner of it would make the next change copy it.
        let (pool_name, ends_at, access, hosted) =
            (row.pool.clone(), row.ends_at, row.access.clone(), row.parent.is_some());
        let Some(pool) = self.pool_entry(&pool_name) else { return };
        let config = pool.config.clone();
        let Some(lease) = self.lease(id) else { return };
        let child = lease.spec.child;
        let kept = self.is_kept(lease);
        let ttl = lease.spec.ttl.min(config.max_ttl);
        let shorter = ttl < lease.spec.ttl;
        // A copy that may lie on several pools says from now on which it is.
        let settled = child.is_some() && lease.spec.selector.pool.as_ref() != Some(&pool_name);
        let now = self.now();
        let assignment = Assignment { resource, slot, token: self.next_number() };
        let prepare = config.traits.prepares && child.is_none();
        let op = self.next_op();
        self.edit_lease(id, |lease| {
            if shorter {
                Arc::make_mut(&mut lease.spec).ttl = ttl;
            }
            if settled {
                Arc::make_mut(&mut lease.spec).selector = Arc::new(Selector::pool(&pool_name));
            }
            lease.pool = Some(pool_name);
            lease.ends_at = ends_at;
            lease.doubt = None;
            lease.state = if prepare {
                LeaseState::Preparing { assignment, op }
            } else {
                if child.is_none() {
                    lease.begin(now, kept);
                }
                LeaseState::Active { assignment, since: now, access }
            };
        });
        if child.is_none() {
            self.note_tenant(id, resource);
        }
        let counts_uses = config.max_uses.is_some();
        let used = |row: &mut Resource| {
            row.uses += 1;
            row.idle_since = None;
        };
        if counts_uses {
            let _ = self.edit_resource(resource, used);
        } else {
            self.touch_resource(resource, used)
        }
        let kind = if prepare { EventKind::LeasePreparing } else { EventKind::LeaseActive };
        let asked = self.asked_just_now(id);
        self.event_of(asked, kind, Subject::Lease(id), format!("slot {slot}, token {}", assignment.token));
        if prepare {
            self.call(Call::Lease(id, op));
        }
        if let Some(child) = child {
            self.host_found(child, resource);
        }
        if hosted {
            self.schedule_probe(resource, false);
        }
    }
}
