//! A pool gets one more resource; a working copy first gets a slot on a host.

use crate::state::outbox::{Call, SELF};
use crate::{
    Core, EventKind, Item, Labels, LeaseId, LeaseSpec, MachineKey, Millis, Parent, PoolConfig, Resource, ResourceId,
    ResourceState, Revision, Selector, Subject, Texts,
};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

impl Core {
    /// Begins to make one more resource; `item`: of an inventory, the machine that it is to stand for.
    pub(crate) fn start_resource(&mut self, name: &Arc<str>, item: Option<Item>) {
        let Some(pool) = self.pool_entry(name) else { return };
        let config = pool.config.clone();
        let id = ResourceId::new(self.mint());
        let hosted = !config.on.is_empty();
        let op = if hosted { None } else { Some(self.next_op()) };
        let machine = item.as_ref().map(|item| MachineKey { pool: name.clone(), item: item.name.clone() });
        let note = machine.and_then(|key| self.machine(&key)?.note.clone());
        self.insert_resource(Resource {
            id,
            revision: Revision(0),
            pool: name.clone(),
            labels: item.as_ref().map(|item| item.labels.clone()).unwrap_or_default(),
            found: Labels::new(),
            slots: item.as_ref().and_then(|item| item.slots).unwrap_or(config.slots).max(1),
            item: item.map(|item| item.name),
            parent: None,
            state: ResourceState::Provisioning { op, attempt: 0, retry_at: None },
            cordoned: None,
            created_at: self.now(),
            ready_at: None,
            idle_since: None,
            uses: 0,
            handle: None,
            access: Arc::new(Texts::new()),
            ends_at: None,
            announced: BTreeMap::new(),
            trouble: None,
            at_risk: None,
            hold: None,
            failures: Vec::new(),
            evidence: crate::Evidence::default(),
            last_tenant: None,
            held_for: None,
            note,
        });
        self.own_event(EventKind::ResourceProvisioning, Subject::Resource(id), "");
        if hosted {
            self.ask_for_host(id, &config);
        } else if let Some(op) = op {
            self.call(Call::Resource(id, op));
        }
    }

    /// Queues the lease that a child holds on its host, at the priority of the most urgent request that waits for the
    /// child. Its selector names one of the pools on which it may lie; any of them may serve it (see
    /// [`Core::want_of`]).
    pub(crate) fn ask_for_host(&mut self, child: ResourceId, config: &PoolConfig) {
        let on = config
            .on
            .iter()
            .filter_map(|name| self.pool_entry(name))
            .max_by_key(|pool| (pool.open(), pool.total.free_slots.min(1), Reverse(pool.total.capacity)))
            .map(|pool| pool.config.name.clone())
            .or_else(|| config.on.first().cloned());
        let Some(on) = on else { return };
        let priority = self
            .queue()
            .classes_for(&config.name)
            .filter_map(|class| class.first().map(|(place, _)| place.0.0))
            .max()
            .unwrap_or(0);
        let seq = self.next_number();
        let selector = Arc::new(Selector::pool(&on));
        let name: Arc<str> = Arc::from(format!("{child}"));
        let spec = LeaseSpec {
            holder: name.clone(),
            priority,
            independent: true,
            child: Some(child),
            ..LeaseSpec::new(name, Arc::from(SELF), selector, Millis::ZERO)
        };
        let id = self.add_lease(spec, seq, (Vec::new(), None));
        self.edit_resource(child, |row| row.parent = Some(Parent { lease: id, host: None }));
        if let Some(want) = self.lease(id).map(|lease| self.want_of(lease)) {
            self.enqueue(alloc::vec![want].into(), (Reverse(priority), seq), alloc::vec![id]);
        }
        self.mark_dirty_for(id);
    }

    /// Has the leases of working copies that have no host yet wait for the pools on which their own lies now.
    pub(crate) fn requeue_children(&mut self) {
        let waits =
            |entry: &crate::state::tables::ResourceEntry| entry.row.parent.filter(|parent| parent.host.is_none());
        let leases: Vec<LeaseId> = self.entries().filter_map(waits).map(|parent| parent.lease).collect();
        for id in leases {
            let Some(place) = self.queue().place(id).map(|at| at.place) else { continue };
            let Some(want) = self.lease(id).map(|lease| self.want_of(lease)) else { continue };
            self.dequeue(id);
            self.enqueue(alloc::vec![want].into(), place, alloc::vec![id]);
        }
    }

    /// A child's lease on its host is active: now it can be made.
    pub(crate) fn host_found(&mut self, child: ResourceId, host: ResourceId) {
        self.tie(host, child);
        let op = self.next_op();
        self.edit_resource(child, |row| {
            if let Some(parent) = &mut row.parent {
                parent.host = Some(host);
            }
            if let ResourceState::Provisioning { op: slot, .. } = &mut row.state {
                *slot = Some(op);
            }
        });
        self.call(Call::Resource(child, op));
    }
}
