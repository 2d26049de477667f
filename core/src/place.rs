//! Placing: who in line gets which free slot.
//!
//! All classes that compete for a changed pool are merged by place in line. The first of a class that can't be served
//! blocks its class; what it could already have is kept for it, so that a request for several is not starved by
//! younger ones for one.

use crate::machine::Core;
use crate::near::nearest;
use crate::queue::{ClassKey, Place};
use crate::{Hold, LeaseId, LeaseState, ResourceId, ResourceState, Selector, Subject};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// So many of a class are looked at behind one whose own wishes (what it avoids, how long it takes) block it.
const LOOK_BEHIND: usize = 32;

/// Slots that are spoken for in this round, by resource.
type Spoken = BTreeMap<ResourceId, u32>;

impl Core {
    pub(crate) fn place(&mut self, dirty: &BTreeSet<Arc<str>>) {
        if self.queue.len() == 0 {
            return;
        }
        let mut keys: BTreeSet<ClassKey> = BTreeSet::new();
        for pool in dirty {
            keys.extend(self.queue.classes_for(pool));
        }
        let mut line: BTreeSet<(Place, ClassKey)> = BTreeSet::new();
        for key in keys {
            if let Some(first) = self.queue.classes.get(&key).and_then(|class| class.waiters.keys().next().copied()) {
                line.insert((first, key));
            }
        }
        let mut spoken = Spoken::new();
        let mut looked: BTreeMap<ClassKey, Looked> = BTreeMap::new();
        while let Some((place, key)) = line.pop_first() {
            let Some(class) = self.queue.classes.get(&key) else { continue };
            let Some(waiter) = class.waiters.get(&place) else { continue };
            let leases = waiter.leases.clone();
            let next = class.waiters.range((core::ops::Bound::Excluded(place), core::ops::Bound::Unbounded)).next();
            let next = next.map(|(place, _)| *place);
            match self.find_slots(&key, &leases, &spoken) {
                Ok(found) => {
                    self.queue.remove(leases[0]);
                    for (lease, resource) in leases.iter().zip(found) {
                        self.grant(*lease, resource);
                    }
                    if let Some(class) = self.queue.classes.get_mut(&key) {
                        class.missing = class.leases;
                    }
                    if let Some(next) = next {
                        line.insert((next, key));
                    }
                }
                Err(short) => {
                    // Nothing is kept for a request that can't be met as things are switched now.
                    let count = |wanted| key.iter().filter(|selector| *selector == wanted).count() as u64;
                    if key.iter().all(|selector| count(selector) <= self.reachable(selector)) {
                        for resource in &short.found {
                            *spoken.entry(*resource).or_default() += 1;
                        }
                    }
                    let looked = looked.entry(key.clone()).or_default();
                    looked.waiters += 1;
                    looked.covered += short.found.len() as u32 + short.put_off;
                    if let Some(class) = self.queue.classes.get_mut(&key) {
                        class.missing = class.leases.saturating_sub(looked.covered);
                    }
                    if short.own_wish
                        && looked.waiters < LOOK_BEHIND
                        && let Some(next) = next
                    {
                        line.insert((next, key));
                    }
                }
            }
        }
    }

    /// A resource for each lease, or what there is and why not all.
    fn find_slots(&self, key: &ClassKey, leases: &[LeaseId], spoken: &Spoken) -> Result<Vec<ResourceId>, Short> {
        let mut taken = spoken.clone();
        let mut found = Vec::new();
        let mut own_wish = false;
        let mut put_off = 0;
        for (lease, selector) in leases.iter().zip(key) {
            match self.find_slot(*lease, selector, &taken) {
                Ok(resource) => {
                    *taken.entry(resource).or_default() += 1;
                    found.push(resource);
                }
                Err(wish) => {
                    own_wish |= wish;
                    put_off += u32::from(self.is_put_off(*lease));
                }
            }
        }
        if found.len() == leases.len() { Ok(found) } else { Err(Short { found, own_wish, put_off }) }
    }

    /// In line, but not to be served yet: nothing need be made for it.
    fn is_put_off(&self, id: LeaseId) -> bool {
        self.lease(id).and_then(|lease| lease.not_before).is_some_and(|at| at > self.now)
    }

    /// The best free resource for a lease; `Err(true)` if there are some, but not for it.
    fn find_slot(&self, id: LeaseId, selector: &Arc<Selector>, taken: &Spoken) -> Result<ResourceId, bool> {
        let Some(lease) = self.lease(id) else { return Err(false) };
        if self.is_put_off(id) {
            return Err(true);
        }
        let mut second = None;
        let mut risky = None;
        let mut own_wish = false;
        for pool in self.pools_for(selector) {
            let near = if lease.spec.child.is_none() { nearest(pool, &lease.spec.params) } else { Vec::new() };
            for resource in near.iter().chain(pool.free.iter().map(|(_, resource)| resource)) {
                let Some(entry) = self.resources.get(resource) else { continue };
                let row = &entry.row;
                if !selector.matches(&pool.config.name, &pool.config.labels, &row.labels)
                    || entry.counted.free <= taken.get(resource).copied().unwrap_or(0)
                {
                    continue;
                }
                if self.too_many_siblings(lease.spec.child, *resource) {
                    own_wish = true;
                    continue;
                }
                if let (Some(ends_at), Some(expected)) = (row.ends_at, lease.spec.expected)
                    && self.now.after(expected) > ends_at
                {
                    own_wish = true;
                    continue;
                }
                if self.is_at_risk(row) {
                    own_wish = true;
                    risky = risky.or(Some(*resource)).filter(|_| !lease.avoid.contains(resource));
                    continue;
                }
                if lease.avoid.contains(resource) {
                    own_wish = true;
                    second = second.or(Some(*resource));
                    continue;
                }
                return Ok(*resource);
            }
        }
        // It is READY, so a check has cleared it since. Better it than none, if no other can come.
        match risky.or(second) {
            Some(resource) if !self.could_grow(selector) => Ok(resource),
            _ => Err(own_wish),
        }
    }

    /// Says a notice that it, or its host, may be taken away?
    fn is_at_risk(&self, row: &crate::Resource) -> bool {
        let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resource(host));
        row.at_risk.is_some() || host.is_some_and(|host| host.at_risk.is_some())
    }

    /// Whether the host has as many children of the child's pool as it may.
    fn too_many_siblings(&self, child: Option<ResourceId>, host: ResourceId) -> bool {
        let Some(row) = child.and_then(|child| self.resource(child)) else { return false };
        let Some(most) = self.pools.get(&row.pool).and_then(|pool| pool.config.max_per_parent) else { return false };
        let Some(entry) = self.resources.get(&host) else { return true };
        // A debt takes no capacity.
        let counts = |id: &&ResourceId| {
            self.resources.get(*id).is_some_and(|entry| entry.row.pool == row.pool && entry.counted.capacity)
        };
        let siblings = entry.children.iter().filter(counts);
        siblings.count() as u32 >= most
    }

    /// Pools that may serve a selector, in the order of the configuration.
    pub(crate) fn pools_for<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a crate::tables::Pool> {
        let named = selector.pool.as_ref().map(|name| self.pools.get(name));
        let any = if named.is_none() { self.order.as_slice() } else { &[] };
        named.into_iter().flatten().chain(any.iter().filter_map(|name| self.pools.get(name)))
    }

    /// Slots that could be free for a selector some day, without a word of an operator.
    fn reachable(&self, selector: &Selector) -> u64 {
        let slots = |pool: &crate::tables::Pool| match &pool.config.inventory {
            Some(items) => items
                .iter()
                .filter(|item| item.enabled)
                .map(|item| u64::from(item.slots.unwrap_or(pool.config.slots).max(1)))
                .sum(),
            None => u64::from(pool.config.max) * u64::from(pool.config.slots.max(1)),
        };
        self.pools_for(selector).filter(|pool| pool.open() && self.could_serve(pool, selector)).map(slots).sum()
    }

    fn could_grow(&self, selector: &Selector) -> bool {
        // One that failed to be made before may fail for ever.
        let hope = |id: &ResourceId| {
            self.resource(*id).is_some_and(|row| matches!(row.state, ResourceState::Provisioning { attempt: 0, .. }))
        };
        self.pools_for(selector).any(|pool| pool.open() && pool.members.iter().any(hope) || self.room(pool) > 0)
    }

    /// Gives a lease in no line a slot of this resource.
    fn grant(&mut self, id: LeaseId, resource: ResourceId) {
        let Some(entry) = self.resources.get_mut(&resource) else { return };
        let slot = entry.slots.take(id);
        // Not the row itself: a second owner of it would make the next change copy it.
        let row = &entry.row;
        let (pool_name, ends_at, access, hosted) =
            (row.pool.clone(), row.ends_at, row.access.clone(), row.parent.is_some());
        let Some(pool) = self.pools.get(&pool_name) else { return };
        let config = pool.config.clone();
        let Some(lease) = self.lease(id) else { return };
        let child = lease.spec.child;
        let ttl = lease.spec.ttl;
        let now = self.now;
        let hold = Hold { resource, slot, token: self.revision.0 + 1 };
        let prepare = config.traits.prepares && child.is_none();
        let op = self.next_op();
        self.edit_lease(id, |lease| {
            lease.pool = Some(pool_name);
            lease.ends_at = ends_at;
            lease.doubt = None;
            lease.state = if prepare {
                LeaseState::Preparing { hold, op }
            } else {
                lease.expires_at = child.is_none().then(|| now.after(ttl));
                LeaseState::Active { hold, since: now, access }
            };
        });
        let counts_uses = config.max_uses.is_some();
        let used = |row: &mut crate::Resource| {
            row.uses += 1;
            row.idle_since = None;
        };
        if counts_uses {
            let _ = self.edit_resource(resource, used);
        } else {
            self.touch_resource(resource, used)
        }
        let kind = if prepare { "lease.preparing" } else { "lease.active" };
        let actor = self.asked_just_now(id).unwrap_or_else(|| Arc::from(crate::pending::SELF));
        self.event(kind, &actor, Subject::Lease(id), format!("slot {slot}, token {}", hold.token));
        if prepare {
            self.call(crate::pending::Call::Lease(id, op));
        }
        if let Some(child) = child {
            self.host_found(child, resource);
        }
        if hosted {
            self.schedule_probe(resource, false);
        }
    }
}

/// Not enough is free.
struct Short {
    /// What there is; kept for the request.
    found: Vec<ResourceId>,
    /// Something is free, but not for this request.
    own_wish: bool,
    /// Leases of it that are put off.
    put_off: u32,
}

/// What was seen of a class in one round.
#[derive(Default)]
struct Looked {
    waiters: usize,
    /// Leases for which nothing need be made: something is free, or they are put off.
    covered: u32,
}
