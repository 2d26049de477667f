//! Placing: which request in the queue gets which free slots.
//!
//! All classes that compete for a pool that changed, directly or over other pools, are looked at in the order of
//! `fair.rs`.
//! A request is granted if a matching of its leases to free slots exists. Slots that a waiting request could already
//! have are kept for it, so that younger requests do not starve it; which slots those are may still change, so that
//! nothing is kept in vain. The same matching then tells what has to be made: see [`Core::demand`].

use crate::Core;
use crate::policy::affinity::nearest;
use crate::policy::capacity::Extent;
use crate::policy::fair::Line;
use crate::policy::matching::Matching;
use crate::state::queue::{Party, Stand};
use crate::state::ranks::Ranks;
use crate::state::tables::{Pool, ResourceEntry};
use crate::state::want::{ClassId, ClassKey, Want};
use crate::{Lease, LeaseId, Resource, ResourceId, ResourceState, Selector};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// At most this many requests of a class are looked at if those before them are blocked by wishes of their own: a
/// resource that they avoid, or work that takes too long for it.
const LOOK_BEHIND: usize = 32;

/// Free slots listed for a lease beyond the number of those that compete with it.
const MORE_OPTIONS: usize = 64;

/// The match of a lease in the queue.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seat {
    /// A free slot of a resource.
    Free(ResourceId),
    /// A slot that a pool, by its number in the order, is making or could make.
    Made(usize),
    /// A slot that an idle working copy on a host of the pool would give back.
    Idle(usize),
}

/// One look at all requests that compete.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) matching: Matching<Seat>,
    /// Claims of leases that wait, and what each wants.
    pub(crate) waiting: Vec<(usize, Want)>,
    pub(crate) looked: BTreeMap<ClassId, Looked>,
    /// Hosts that are emptied for a tenant: no other one gets a slot of them.
    pub(crate) emptied: BTreeMap<ResourceId, Arc<str>>,
    /// Unused resources that are replaced, since another tenant than the one that waits used them.
    pub(crate) replaced: BTreeSet<ResourceId>,
}

/// A round's progress in a class.
#[derive(Default)]
pub(crate) struct Looked {
    /// Requests that were looked at and wait.
    pub(crate) waiters: usize,
    /// The same, by lane.
    pub(crate) lanes: BTreeMap<(Party, Reverse<i32>), usize>,
    /// Something is free, but not for one of them.
    pub(crate) own_wish: bool,
    /// The pools, as they are switched, cannot meet such a request.
    pub(crate) unmet: bool,
}

/// The result of a look at one request.
pub(crate) enum Look {
    /// A resource for each lease.
    Served(Vec<ResourceId>),
    /// Not all.
    Short(Short),
}

/// The slots of a request that waits.
pub(crate) struct Short {
    /// Whether there is a slot for each lease.
    pub(crate) has: Vec<bool>,
    /// Slots that are kept for it.
    pub(crate) kept: usize,
}

/// Whether a resource with a free slot suits a lease that selects it.
enum Fit {
    Good,
    /// It may be taken away. `true`: and the lease avoids it.
    Risky(bool),
    /// It failed this lease before.
    Avoided,
    Never,
}

impl Core {
    /// Looks at all that compete with a lease in the queue and stand before it, and at its own request: which of its
    /// wants have a slot, and which have none.
    pub(crate) fn shortfall(&self, id: LeaseId) -> Vec<(Want, bool)> {
        let Some(own) = self.queue().place(id) else { return Vec::new() };
        let pools = own.key.iter().flat_map(|want| self.pools_of(want)).map(|pool| pool.config.name.clone()).collect();
        let reaches = self.queue().reaches().competing(&pools).reaches;
        let mut line = Line::new(self, Ranks::of(reaches));
        let has = self.look_up_to(own, &mut line);
        // Others of its class wait before it for the same, or its tenant may have no more.
        let has = has.unwrap_or_else(|| own.key.iter().map(|_| false).collect());
        own.key.iter().cloned().zip(has).collect()
    }

    /// Looks at the line up to a request, and grants nothing: which leases of the request have a slot. `None`: it is not
    /// looked at.
    pub(crate) fn look_up_to(&self, own: &Stand, line: &mut Line) -> Option<Vec<bool>> {
        let mut round = Round::default();
        while let Some((_, next)) = line.pop(self) {
            let looked = self.look(&mut round, &next.at);
            if next.at.place == own.place {
                return Some(match looked {
                    Look::Served(_) => own.key.iter().map(|_| true).collect(),
                    Look::Short(short) => short.has,
                });
            }
            match looked {
                Look::Served(found) => {
                    self.set_aside(&mut round, &next.at, found);
                    line.served(self, &next, false);
                }
                Look::Short(short) => line.short(self, &next, short.kept, round.looks_behind(next.at.class)),
            }
        }
        None
    }

    /// Keeps the slots that a request would be granted from those behind it.
    fn set_aside(&self, round: &mut Round, at: &Stand, found: Vec<ResourceId>) {
        for id in found {
            let free = self.entry(&id).map_or(0, |entry| entry.counted.free);
            round.matching.set_room(Seat::Free(id), free);
            let claim = round.matching.add(alloc::vec![Seat::Free(id)], 1);
            round.matching.fill(claim);
            if let Some(tenant) = &at.party {
                self.note_use(round, id, tenant);
            }
        }
    }

    /// Finds a resource for each lease of a request, beside what is kept for those before it.
    pub(crate) fn look(&self, round: &mut Round, at: &Stand) -> Look {
        let key = &at.key;
        let leases = self.queue().waiter(at).map(|waiter| waiter.leases.as_slice()).unwrap_or_default();
        let mut own_wish = false;
        if let Some(found) = self.first_choices(round, key, leases, &mut own_wish) {
            return Look::Served(found);
        }
        let contended = !round.matching.is_empty();
        let limit = round.matching.len() + leases.len() + MORE_OPTIONS;
        let mut claims: Vec<Option<usize>> = Vec::new();
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (lease, want) in leases.iter().zip(key.iter()) {
            let Some(lease) = self.lease(*lease).filter(|lease| !self.is_put_off(lease)) else {
                own_wish = true;
                claims.push(None);
                continue;
            };
            // A single lease that has no first choice has no other, unless those before it can move.
            let options = if leases.len() > 1 || contended {
                self.options(round, lease, want, limit, &mut own_wish)
            } else {
                Vec::new()
            };
            for (resource, free) in &options {
                round.matching.set_room(Seat::Free(*resource), *free);
            }
            order.push((options.len(), claims.len()));
            let seats = options.into_iter().map(|(resource, _)| Seat::Free(resource)).collect();
            claims.push(Some(round.matching.add(seats, 1)));
        }
        // The most constrained first, so that the others keep their preferences as far as possible.
        order.sort_unstable();
        for claim in order.iter().filter_map(|(_, n)| claims[*n]) {
            round.matching.fill(claim);
        }
        let seat = |claim: &Option<usize>| match claim.and_then(|claim| round.matching.seat(claim)) {
            Some(Seat::Free(resource)) => Some(*resource),
            Some(Seat::Made(_) | Seat::Idle(_)) | None => None,
        };
        let found: Option<Vec<ResourceId>> = claims.iter().map(seat).collect();
        if let Some(found) = found {
            claims.into_iter().flatten().for_each(|claim| round.matching.withdraw(claim));
            return Look::Served(found);
        }
        let has = |claim: &Option<usize>| claim.is_some_and(|claim| round.matching.missing(claim) == 0);
        let has: Vec<bool> = claims.iter().map(has).collect();
        self.make_way(round, key, &at.party, &has);
        let looked = round.looked.entry(at.class).or_default();
        looked.waiters += 1;
        *looked.lanes.entry((at.party.clone(), at.place.0)).or_default() += 1;
        looked.own_wish |= own_wish;
        // Nothing is kept or made for a request that cannot be met as the pools are switched now.
        let mut kept = has.iter().filter(|has| **has).count();
        if leases.len() > 1 && !self.unmet(key, Extent::SwitchedOn).is_empty() {
            looked.unmet = true;
            claims.iter().flatten().for_each(|claim| round.matching.withdraw(*claim));
            kept = 0;
        } else {
            let waits = claims.iter().zip(key.iter()).filter_map(|(claim, want)| Some(((*claim)?, want.clone())));
            round.waiting.extend(waits);
        }
        Look::Short(Short { has, kept })
    }

    /// The resource that each lease prefers, if each can have it.
    fn first_choices(
        &self,
        round: &Round,
        key: &ClassKey,
        leases: &[LeaseId],
        own_wish: &mut bool,
    ) -> Option<Vec<ResourceId>> {
        let mut taken: BTreeMap<ResourceId, u32> = BTreeMap::new();
        let mut found = Vec::new();
        let mut all = true;
        for (lease, want) in leases.iter().zip(key.iter()) {
            let Some(lease) = self.lease(*lease).filter(|lease| !self.is_put_off(lease)) else {
                all = false;
                continue;
            };
            let spare = |entry: &ResourceEntry| {
                let used = round.matching.used(&Seat::Free(entry.row.id));
                entry.counted.free.saturating_sub(used + taken.get(&entry.row.id).copied().unwrap_or(0))
            };
            match self.best(round, lease, want, spare, own_wish) {
                Some(resource) => {
                    *taken.entry(resource).or_default() += 1;
                    found.push(resource);
                }
                None => all = false,
            }
        }
        all.then_some(found)
    }

    /// In the queue, but not to be served yet: nothing need be made for it.
    fn is_put_off(&self, lease: &Lease) -> bool {
        lease.not_before.is_some_and(|at| at > self.now())
    }

    /// The best resource with a spare slot for a lease. `own_wish`: there are some, but not for it.
    fn best(
        &self,
        round: &Round,
        lease: &Lease,
        want: &Want,
        spare: impl Fn(&ResourceEntry) -> u32,
        own_wish: &mut bool,
    ) -> Option<ResourceId> {
        let (mut good, mut risky, mut second) = (None, None, None);
        let mut whole = None;
        let mut unfit = false;
        self.candidates(lease, want, |entry| {
            if spare(entry) == 0 {
                return true;
            }
            let id = entry.row.id;
            match self.fit(round, lease, &entry.row) {
                Fit::Good if self.is_preferred(lease, &entry.row) == Some(false) => {
                    whole = whole.or(Some(id));
                    return true;
                }
                Fit::Good => good = Some(id),
                Fit::Risky(false) => risky = risky.or(Some(id)),
                Fit::Avoided => second = second.or(Some(id)),
                Fit::Risky(true) | Fit::Never => {}
            }
            unfit |= good.is_none();
            good.is_none()
        });
        let good = good.or(whole);
        if good.is_some() {
            return good;
        }
        // It is READY, so a check has cleared it since. Better it than none, if no other can come.
        let other = risky.or(second).filter(|_| !self.could_grow(want));
        *own_wish |= unfit && other.is_none();
        other
    }

    /// Resources with free slots that may serve a lease, best first, with their free slots; not many more than `limit`.
    /// `own_wish`: others would be among them, but not for this lease.
    fn options(
        &self,
        round: &Round,
        lease: &Lease,
        want: &Want,
        limit: usize,
        own_wish: &mut bool,
    ) -> Vec<(ResourceId, u32)> {
        let (mut good, mut risky, mut second) = (Vec::new(), Vec::new(), Vec::new());
        self.candidates(lease, want, |entry| {
            let option = (entry.row.id, entry.counted.free);
            let fit = self.fit(round, lease, &entry.row);
            *own_wish |= !matches!(fit, Fit::Good);
            match fit {
                Fit::Good => good.push(option),
                Fit::Risky(false) => risky.push(option),
                Fit::Avoided => second.push(option),
                Fit::Risky(true) | Fit::Never => {}
            }
            good.len() < limit
        });
        if good.len() < limit && !(risky.is_empty() && second.is_empty()) && !self.could_grow(want) {
            risky.truncate(limit);
            second.truncate(limit);
            good.extend(risky);
            good.extend(second);
        }
        good
    }

    /// Shows the resources with a free slot that a lease selects, nearest first, then in the order of the pools, until
    /// the visitor has seen enough.
    fn candidates(&self, lease: &Lease, want: &Want, mut visit: impl FnMut(&ResourceEntry) -> bool) {
        for pool in self.pools_of(want) {
            let near = if lease.spec.child.is_none() { nearest(&pool.near, &lease.spec.params) } else { Vec::new() };
            let others = pool.free.iter().map(|(_, resource)| resource).filter(|resource| !near.contains(resource));
            for entry in near.iter().chain(others).filter_map(|resource| self.entry(resource)) {
                let fits = want.matches(&pool.config.name, &pool.config.labels, &entry.row.labels);
                if fits && !visit(entry) {
                    return;
                }
            }
        }
    }

    fn fit(&self, round: &Round, lease: &Lease, row: &Resource) -> Fit {
        if self.is_anothers(round, lease, row) {
            return Fit::Never;
        }
        if self.too_many_siblings(lease.spec.child, row.id) {
            return Fit::Never;
        }
        if let (Some(ends_at), Some(expected)) = (row.ends_at, lease.spec.expected)
            && self.now().after(expected) > ends_at
        {
            return Fit::Never;
        }
        let host = row.parent.and_then(|parent| parent.host);
        let host = host.and_then(|host| self.resource(host));
        let avoided = self.avoids(lease, row) || host.is_some_and(|host| self.avoids(lease, host));
        if self.is_at_risk(row) {
            return Fit::Risky(avoided);
        }
        if avoided { Fit::Avoided } else { Fit::Good }
    }

    /// Whether a lease avoids a resource: it failed the lease, or another one did that was made of the same machine.
    fn avoids(&self, lease: &Lease, row: &Resource) -> bool {
        let same =
            |id: &ResourceId| self.resource(*id).is_some_and(|other| other.item == row.item && other.pool == row.pool);
        lease.avoid.contains(&row.id) || (row.item.is_some() && lease.avoid.iter().any(same))
    }

    /// Says a notice that it, or its host, may be taken away?
    fn is_at_risk(&self, row: &Resource) -> bool {
        let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resource(host));
        row.at_risk.is_some() || host.is_some_and(|host| host.at_risk.is_some())
    }

    /// Whether the host has as many children of the child's pool as it may.
    fn too_many_siblings(&self, child: Option<ResourceId>, host: ResourceId) -> bool {
        let Some(row) = child.and_then(|child| self.resource(child)) else { return false };
        let Some(most) = self.pool_entry(&row.pool).and_then(|pool| pool.config.max_per_parent) else { return false };
        let Some(entry) = self.entry(&host) else { return true };
        // A debt takes no capacity.
        let counts =
            |id: &&ResourceId| self.entry(id).is_some_and(|entry| entry.row.pool == row.pool && entry.counted.capacity);
        let siblings = entry.children.iter().filter(counts);
        siblings.count() as u32 >= most
    }

    /// Pools that may serve a selector, in the order of the configuration.
    pub(crate) fn pools_for<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a Pool> {
        let named = self.named(selector.pool.as_ref().map(core::slice::from_ref));
        named.filter(|pool| selector.among.has(&pool.config.name))
    }

    /// Pools that may serve a lease in the queue, in the order of the configuration or of its pool's `on`.
    pub(crate) fn pools_of<'a>(&'a self, want: &'a Want) -> impl Iterator<Item = &'a Pool> {
        self.named(want.pools())
    }

    fn named<'a>(&'a self, names: Option<&'a [Arc<str>]>) -> impl Iterator<Item = &'a Pool> {
        names.unwrap_or(self.pool_order()).iter().filter_map(|name| self.pool_entry(name))
    }

    /// The pools that may serve a lease: those of its selector; of a working copy's lease any pool on which copies of its pool lie.
    pub(crate) fn want_of(&self, lease: &Lease) -> Want {
        let child = lease.spec.child.and_then(|child| self.resource(child));
        let pool = child.and_then(|child| self.pool_entry(&child.pool)).filter(|pool| pool.configured);
        match pool.map(|pool| pool.config.on.as_slice()) {
            Some([one]) if lease.spec.selector.pool.as_ref() != Some(one) => {
                Want::Selector(Arc::new(Selector::pool(one)))
            }
            Some(several) if several.len() > 1 => Want::OneOf(several.into()),
            Some(_) | None => Want::Selector(lease.spec.selector.clone()),
        }
    }

    pub(crate) fn could_grow(&self, want: &Want) -> bool {
        // One that failed to be made before may fail for ever.
        let hope = |id: &ResourceId| {
            self.resource(*id).is_some_and(|row| matches!(row.state, ResourceState::Provisioning { attempt: 0, .. }))
        };
        self.pools_of(want).any(|pool| pool.open() && pool.members.iter().any(hope) || self.room(pool) > 0)
    }
}

impl Round {
    /// Whether the next request of a class is looked at though the one before it waits.
    pub(crate) fn looks_behind(&self, class: ClassId) -> bool {
        self.looked.get(&class).is_some_and(|looked| looked.own_wish && looked.waiters < LOOK_BEHIND)
    }
}
