//! Sizing: how many resources a pool should have, by demand, minimum, maximum, idleness.

use crate::machine::Core;
use crate::pending::Call;
use crate::tables::Pool;
use crate::{
    Labels, Lease, LeaseId, LeaseSpec, LeaseState, Link, Millis, Parent, Reason, Resource, ResourceId, ResourceState,
    Selector, Source, Subject, Texts, Timestamp,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// An idle child keeps its slot on the host this long, even if others wait for the slot: it was just used.
const RECLAIM_AFTER: Millis = Millis::secs(5);

impl Core {
    pub(crate) fn size(&mut self, dirty: &BTreeSet<Arc<str>>) {
        // Where one pool is full, the next that fits the same labels may have to grow.
        let by_label = dirty.iter().flat_map(|name| self.queue.classes_for(name)).flatten();
        let by_label = by_label.filter(|selector| selector.pool.is_none());
        let others: BTreeSet<Arc<str>> = by_label
            .flat_map(|s| self.pools_for(&s).map(|pool| pool.config.name.clone()).collect::<Vec<_>>())
            .collect();
        for name in dirty.union(&others) {
            self.grow(name);
            self.reclaim(name);
        }
    }

    /// How many more the pool may have.
    pub(crate) fn room(&self, pool: &Pool) -> u32 {
        if !pool.open() || pool.backoff.until.is_some_and(|until| until > self.now) {
            return 0;
        }
        let room = pool.config.max.saturating_sub(pool.total.capacity);
        match &pool.config.inventory {
            Some(items) => {
                // A machine that was taken out of the inventory runs to its end beside those that came in its place.
                let struck = |id: &&ResourceId| {
                    self.resources.get(*id).is_some_and(|entry| {
                        entry.counted.capacity
                            && entry.row.item.as_ref().is_some_and(|name| !items.iter().any(|item| item.name == *name))
                    })
                };
                let struck = pool.members.iter().filter(struck).count() as u32;
                let room = pool.config.max.saturating_sub(pool.total.capacity.saturating_sub(struck));
                room.min(self.idle_items(pool).len() as u32)
            }
            None => room,
        }
    }

    /// Inventory entries that may be used and are not.
    fn idle_items(&self, pool: &Pool) -> Vec<crate::Item> {
        let Some(inventory) = &pool.config.inventory else { return Vec::new() };
        let taken: BTreeSet<Arc<str>> = pool
            .members
            .iter()
            .filter_map(|id| self.resource(*id))
            .filter(|row| !matches!(row.state, ResourceState::Orphaned { .. }))
            .filter_map(|row| row.item.clone())
            .collect();
        inventory.iter().filter(|item| item.enabled && !taken.contains(&item.name)).cloned().collect()
    }

    /// Leases in line for which this pool is the one to grow.
    pub(crate) fn demand(&self, name: &Arc<str>) -> u32 {
        let mut demand = 0;
        for key in self.queue.classes_for(name) {
            let Some(class) = self.queue.classes.get(&key) else { continue };
            let wants = key.iter().filter(|selector| {
                let fitting = || self.pools_for(selector).filter(|p| p.open() && self.could_serve(p, selector));
                // One that is full lets the next one grow.
                let grows = fitting().find(|pool| pool.total.coming > 0 || self.room(pool) > 0);
                grows.or_else(|| fitting().next()).is_some_and(|pool| pool.config.name == *name)
            });
            // A class of several selectors is missing a share of each.
            let share = wants.count() as u32;
            if share > 0 {
                demand += (class.missing * share).div_ceil(key.len() as u32);
            }
        }
        demand
    }

    /// Whether what the pool has or could have fits the selector.
    pub(crate) fn could_serve(&self, pool: &Pool, selector: &Selector) -> bool {
        let none = Labels::new();
        let configured = match &pool.config.inventory {
            Some(items) => items.iter().any(|i| selector.matches(&pool.config.name, &pool.config.labels, &i.labels)),
            None => selector.matches(&pool.config.name, &pool.config.labels, &none),
        };
        configured
            || pool.members.iter().any(|id| {
                self.resource(*id)
                    .is_some_and(|row| selector.matches(&pool.config.name, &pool.config.labels, &row.labels))
            })
    }

    fn grow(&mut self, name: &Arc<str>) {
        let Some(pool) = self.pools.get(name) else { return };
        let config = pool.config.clone();
        let total = pool.total;
        let room = self.room(pool);
        if let Some(until) = pool.backoff.until
            && until > self.now
        {
            self.timers.insert((until, crate::timer::Timer::Pool(name.clone())));
        }
        if room == 0 {
            return;
        }
        let slots = config.slots.max(1);
        let demand = self.demand(name);
        let spare = total.free_slots + total.coming_slots.saturating_sub(demand);
        // Made when the end is announced, not when it is there: a machine takes minutes to come.
        let foreseen = total.foreseen.saturating_sub(spare);
        let for_demand = (demand.saturating_sub(total.coming_slots) + foreseen).div_ceil(slots);
        let for_minimum = config.min_ready.saturating_sub(total.idle + total.coming);
        let wanted = for_demand.max(for_minimum).min(room);
        for _ in 0..wanted {
            self.start_resource(name);
        }
    }

    /// Begins to make one more resource.
    fn start_resource(&mut self, name: &Arc<str>) {
        let Some(pool) = self.pools.get(name) else { return };
        let config = pool.config.clone();
        let item = match &config.inventory {
            Some(_) => match self.idle_items(pool).into_iter().next() {
                Some(item) => Some(item),
                None => return,
            },
            None => None,
        };
        let id = ResourceId::new(self.mint());
        let hosted = !config.on.is_empty();
        let op = if hosted { None } else { Some(self.next_op()) };
        self.insert_resource(Resource {
            id,
            revision: crate::Revision(0),
            pool: name.clone(),
            labels: item.as_ref().map(|item| item.labels.clone()).unwrap_or_default(),
            found: Labels::new(),
            slots: item.as_ref().and_then(|item| item.slots).unwrap_or(config.slots).max(1),
            item: item.map(|item| item.name),
            parent: None,
            state: ResourceState::Provisioning { op, attempt: 0, retry_at: None },
            cordoned: None,
            created_at: self.now,
            ready_at: None,
            idle_since: None,
            uses: 0,
            handle: None,
            access: Arc::new(Texts::new()),
            ends_at: None,
            announced: BTreeMap::new(),
            trouble: None,
            at_risk: None,
            keep: None,
            failures: Vec::new(),
        });
        self.own_event("resource.provisioning", Subject::Resource(id), "");
        if hosted {
            self.ask_for_host(id, &config);
        } else if let Some(op) = op {
            self.call(Call::Resource(id, op));
        }
    }

    /// Queues the lease that a child holds on its host: first in the line of its priority's fellows is who waits for
    /// the child.
    pub(crate) fn ask_for_host(&mut self, child: ResourceId, config: &crate::PoolConfig) {
        let on = config
            .on
            .iter()
            .filter_map(|name| self.pools.get(name))
            .max_by_key(|pool| (pool.open(), pool.total.free_slots.min(1), core::cmp::Reverse(pool.total.capacity)))
            .map(|pool| pool.config.name.clone())
            .or_else(|| config.on.first().cloned());
        let Some(on) = on else { return };
        let priority = self
            .queue
            .classes_for(&config.name)
            .iter()
            .filter_map(|key| self.queue.classes.get(key)?.waiters.keys().next().map(|place| place.0.0))
            .max()
            .unwrap_or(0);
        let id = LeaseId::new(self.mint());
        let seq = self.revision.0 + 1;
        let selector = Arc::new(Selector { pool: Some(on.clone()), labels: Labels::new() });
        let spec = LeaseSpec {
            request_id: Arc::from(format!("{child}")),
            fingerprint: 0,
            principal: Arc::from(crate::pending::SELF),
            holder: Arc::from(format!("{child}")),
            selector: selector.clone(),
            priority,
            ttl: Millis::ZERO,
            wait_until: None,
            expected: None,
            params: Arc::new(Texts::new()),
            tags: Arc::new(Texts::new()),
            group: None,
            index: 0,
            independent: true,
            child: Some(child),
            replace: false,
            replaces: None,
            work: None,
        };
        self.insert_lease(Lease {
            id,
            revision: crate::Revision(0),
            spec: Arc::new(spec),
            state: LeaseState::Queued,
            pool: None,
            created_at: self.now,
            seq,
            expires_at: None,
            attempts: 0,
            delays: 0,
            not_before: None,
            avoid: Vec::new(),
            trouble: None,
            ends_at: None,
            doubt: None,
        });
        self.edit_resource(child, |row| row.parent = Some(Parent { lease: id, host: None }));
        self.queue.push(alloc::vec![selector], (core::cmp::Reverse(priority), seq), alloc::vec![id]);
        self.dirty.insert(on);
    }

    /// A child's lease on its host is active: now it can be made.
    pub(crate) fn host_found(&mut self, child: ResourceId, host: ResourceId) {
        if let Some(entry) = self.resources.get_mut(&host) {
            entry.children.insert(child);
        }
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

    /// Others wait for slots of hosts that idle children keep: the longest idle ones go.
    fn reclaim(&mut self, name: &Arc<str>) {
        let Some(pool) = self.pools.get(name) else { return };
        if !pool.config.on.is_empty() || self.room(pool) > 0 {
            return;
        }
        let short = self.demand(name).saturating_sub(pool.total.coming_slots);
        if short == 0 {
            return;
        }
        let mut leaving = 0;
        let mut idle: Vec<(Timestamp, ResourceId)> = Vec::new();
        for host in pool.members.clone() {
            let Some(entry) = self.resources.get(&host) else { continue };
            if !self.leasable(&entry.row) {
                continue;
            }
            for child in &entry.children {
                let Some(own) = self.resources.get(child) else { continue };
                match own.row.state {
                    ResourceState::Ready if own.slots.len() == 0 => {
                        if let Some(since) = own.row.idle_since.or(own.row.ready_at) {
                            idle.push((since, *child));
                        }
                    }
                    ResourceState::Destroying { .. } | ResourceState::Draining { .. } => leaving += 1,
                    _ => {}
                }
            }
        }
        idle.sort();
        let mut wanted = short.saturating_sub(leaving);
        for (since, child) in idle {
            if wanted == 0 {
                return;
            }
            if since.after(RECLAIM_AFTER) > self.now {
                self.timers.insert((since.after(RECLAIM_AFTER), crate::timer::Timer::Pool(name.clone())));
                return;
            }
            let Some(own) = self.resource(child).and_then(|row| self.pools.get(&row.pool)) else { continue };
            if own.total.idle <= own.config.min_ready {
                continue;
            }
            let link = self.policy_link(child, "its host's slot is wanted by others");
            self.destroy(child, alloc::vec![link], false);
            wanted -= 1;
        }
    }

    /// Gives up a resource that has been idle, is too old or used up.
    pub(crate) fn consider_retiring(&mut self, id: ResourceId) {
        let Some(entry) = self.resources.get(&id) else { return };
        let row = entry.row.clone();
        let Some(pool) = self.pools.get(&row.pool) else { return };
        let config = pool.config.clone();
        let idle_above_minimum = pool.total.idle > config.min_ready;
        if !matches!(row.state, ResourceState::Ready) {
            return;
        }
        let empty = entry.slots.len() == 0;
        let why: Option<String> = if let (Some(at), Some(age)) = (row.ready_at, config.max_age)
            && at.after(age) <= self.now
        {
            Some(format!("older than {age}"))
        } else if config.max_uses.is_some_and(|most| row.uses >= most) && empty {
            Some(format!("used {} times", row.uses))
        } else if let (Some(since), Some(idle)) = (row.idle_since, config.idle)
            && empty
            && since.after(idle) <= self.now
        {
            if idle_above_minimum {
                Some(format!("idle for {idle}"))
            } else {
                // Kept as part of the minimum; asked again later.
                let later = self.now.after(idle.max(Millis::secs(1)));
                if let Some(entry) = self.resources.get_mut(&id) {
                    entry.idle_recheck = later;
                }
                None
            }
        } else {
            None
        };
        if let Some(why) = why {
            let link = self.policy_link(id, &why);
            self.drain(id, alloc::vec![link], None);
        }
    }

    pub(crate) fn policy_link(&self, id: ResourceId, why: &str) -> Link {
        Link {
            subject: Subject::Resource(id),
            reason: Reason::Policy,
            detail: Arc::from(why),
            source: Source::Broker,
            at: self.now,
        }
    }
}
