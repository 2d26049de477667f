//! Sizing: how many resources a pool should have, by demand, minimum, maximum, idleness.

use crate::Core;
use crate::policy::matching::Matching;
use crate::policy::scheduler::{Round, Seat};
use crate::state::reach::ReachId;
use crate::state::tables::Pool;
use crate::state::want::Want;
use crate::{MachineKey, Millis, ResourceId, ResourceState, Stage, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Slots that a placing lacked, by pool.
#[derive(Default)]
pub(crate) struct Demand {
    /// The pools that compete.
    pub(crate) pools: BTreeSet<Arc<str>>,
    /// Slots that a pool makes or is to make for leases in the queue.
    pub(crate) made: BTreeMap<Arc<str>, u32>,
    /// Slots on a pool's hosts that idle working copies are to give back.
    pub(crate) idle: BTreeMap<Arc<str>, u32>,
}

/// Whether a resource retires.
pub(crate) enum Retirement {
    /// Now, for this reason.
    Now(String),
    /// Not before this time; it is due to be asked again then.
    NotBefore(Timestamp),
    No,
}

impl Core {
    /// Matches all leases that wait after a round to what is free, being made, could be made or could be given back, in
    /// that order: no pool makes what another one has or makes, and none more than is missing.
    pub(crate) fn demand(&self, mut round: Round, reaches: &BTreeSet<ReachId>, pools: BTreeSet<Arc<str>>) -> Demand {
        self.add_the_rest(&mut round, reaches);
        let Round { mut matching, waiting, .. } = round;
        let short =
            |matching: &mut Matching<Seat>| waiting.iter().filter(|(claim, _)| !matching.fill(*claim)).count() > 0;
        let mut demand = Demand { pools, ..Demand::default() };
        if !short(&mut matching) {
            return demand;
        }
        let mut fitting: BTreeMap<&Want, Vec<usize>> = BTreeMap::new();
        for (claim, want) in &waiting {
            for n in fitting.entry(want).or_insert_with(|| self.fitting(want)) {
                matching.offer(*claim, Seat::Made(*n));
            }
        }
        let all: BTreeSet<usize> = fitting.values().flatten().copied().collect();
        let pool = |n: &usize| self.nth_pool(*n);
        for n in &all {
            matching.set_room(Seat::Made(*n), pool(n).total.coming_slots);
        }
        if short(&mut matching) {
            for n in &all {
                let (total, slots) = (pool(n).total, pool(n).config.slots.max(1));
                let room = self.room(pool(n)).saturating_mul(slots);
                matching.set_room(Seat::Made(*n), total.coming_slots.saturating_add(room));
            }
            if short(&mut matching) {
                for (claim, want) in &waiting {
                    for n in &fitting[want] {
                        matching.offer(*claim, Seat::Idle(*n));
                    }
                }
                for n in &all {
                    let (idle, leaving) = self.idle_children(pool(n));
                    matching.set_room(Seat::Idle(*n), idle.len() as u32 + leaving);
                }
                short(&mut matching);
            }
        }
        for n in all {
            let name = self.pool_name(n);
            demand.made.insert(name.clone(), matching.used(&Seat::Made(n)));
            let idle = matching.used(&Seat::Idle(n));
            if idle > 0 {
                demand.idle.insert(name.clone(), idle);
            }
        }
        demand
    }

    /// Adds the requests behind those that were looked at, by what they want.
    fn add_the_rest(&self, round: &mut Round, reaches: &BTreeSet<ReachId>) {
        for (id, rest) in self.rest_within_quota(round, reaches) {
            let looked = round.looked.get(&id);
            let Some(key) = self.queue().class(id).map(|class| &class.key) else { continue };
            let rest = u32::try_from(rest).unwrap_or(u32::MAX);
            if rest == 0 || looked.is_some_and(|looked| looked.unmet) {
                continue;
            }
            // The first of a class of single leases found nothing: nor do the others. Slots that are kept for others may become free for
            // them, if those others can have slots that are being made.
            let found_none = key.len() == 1 && looked.is_some_and(|looked| !looked.own_wish);
            let nothing_free = found_none && round.matching.is_empty();
            let mut units: BTreeMap<&Want, u32> = BTreeMap::new();
            for want in key.iter() {
                let units = units.entry(want).or_default();
                *units = units.saturating_add(rest);
            }
            for (want, units) in units {
                let options = if nothing_free { Vec::new() } else { self.free_seats(want, units, &mut round.matching) };
                round.waiting.push((round.matching.add(options, units), want.clone()));
            }
        }
    }

    /// Free seats for this many leases, also those that are kept for other requests: a kept seat changes hands if its request can
    /// have another one. Seats for all leases and all that is kept are enough.
    fn free_seats(&self, want: &Want, units: u32, matching: &mut Matching<Seat>) -> Vec<Seat> {
        let enough = units.saturating_add(matching.seated());
        let (mut seats, mut found) = (Vec::new(), 0u32);
        for pool in self.pools_of(want) {
            for entry in pool.free.iter().filter_map(|(_, id)| self.entry(id)) {
                if want.matches(&pool.config.name, &pool.config.labels, &entry.row.labels) {
                    let seat = Seat::Free(entry.row.id);
                    matching.set_room(seat.clone(), entry.counted.free);
                    seats.push(seat);
                    found = found.saturating_add(entry.counted.free);
                }
                if found >= enough {
                    return seats;
                }
            }
        }
        seats
    }

    /// The open pools that could serve a want, by their numbers in the order.
    fn fitting(&self, want: &Want) -> Vec<usize> {
        let fits = |name: &Arc<str>| {
            let named = want.pools().is_none_or(|pools| pools.contains(name));
            named && self.pool_entry(name).is_some_and(|pool| pool.open() && self.could_serve(pool, want))
        };
        (0..self.pool_order().len()).filter(|n| fits(self.pool_name(*n))).collect()
    }

    /// How many more the pool may have.
    pub(crate) fn room(&self, pool: &Pool) -> u32 {
        let failed = pool.backoff.until.is_some_and(|until| until > self.now());
        if !pool.open() || failed || self.rest_of_pool(pool).is_some() {
            return 0;
        }
        let room = pool.config.max.saturating_sub(pool.total.capacity);
        match &pool.config.inventory {
            Some(items) => {
                // A machine that was taken out of the inventory runs to its end beside those that came in its place.
                let names: BTreeSet<&Arc<str>> = items.iter().map(|item| &item.name).collect();
                let struck = |id: &&ResourceId| {
                    self.entry(id).is_some_and(|entry| {
                        entry.counted.capacity && entry.row.item.as_ref().is_some_and(|name| !names.contains(name))
                    })
                };
                let struck = pool.members.iter().filter(struck).count() as u32;
                let room = pool.config.max.saturating_sub(pool.total.capacity.saturating_sub(struck));
                room.min(self.idle_items(pool).len() as u32)
            }
            None => room,
        }
    }

    /// Inventory entries that may be used and are not. One under an operator's order may not, nor one that rests.
    pub(crate) fn idle_items(&self, pool: &Pool) -> Vec<crate::Item> {
        let Some(inventory) = &pool.config.inventory else { return Vec::new() };
        let taken: BTreeSet<&Arc<str>> = pool
            .members
            .iter()
            .filter_map(|id| self.resource(*id))
            .filter(|row| !matches!(row.state, ResourceState::Orphaned { .. }))
            .filter_map(|row| row.item.as_ref())
            .collect();
        let out = |item: &&crate::Item| {
            let key = MachineKey { pool: pool.config.name.clone(), item: item.name.clone() };
            self.is_out(&key) || self.rest_of_machine(&key).is_some()
        };
        let free = inventory.iter().filter(|item| item.enabled && !taken.contains(&item.name));
        free.filter(|item| !out(item)).cloned().collect()
    }

    /// Resources that a pool lacks for the demand, announced ends and the minimum, whether or not it has room for them.
    /// `demand`: slots for leases in the queue, with those that are being made.
    pub(crate) fn growth(&self, pool: &Pool, demand: u32) -> u32 {
        let total = pool.total;
        let slots = pool.config.slots.max(1);
        let spare = total.free_slots + total.coming_slots.saturating_sub(demand);
        // Made when the end is announced, not when it is there: a machine takes minutes to come.
        let foreseen = total.foreseen.saturating_sub(spare);
        let for_demand = demand.saturating_sub(total.coming_slots).saturating_add(foreseen).div_ceil(slots);
        let for_minimum = pool.config.min_ready.saturating_sub(total.idle + total.coming);
        for_demand.max(for_minimum)
    }

    /// Working copies on the pool's hosts that hold no lease, with the time since when, longest idle first, but for
    /// those that their own pool keeps ready; and how many copies leave already.
    pub(crate) fn idle_children(&self, pool: &Pool) -> (Vec<(Timestamp, ResourceId)>, u32) {
        let (mut idle, mut leaving) = (Vec::new(), 0);
        let hosts = pool.members.iter().filter_map(|id| self.entry(id));
        for child in hosts.filter(|host| self.leasable(&host.row)).flat_map(|host| &host.children) {
            let Some(own) = self.entry(child) else { continue };
            match own.row.state.stage() {
                Stage::Ready if own.slots.len() == 0 => {
                    idle.extend(own.row.idle_since.or(own.row.ready_at).map(|since| (since, *child)));
                }
                // A debt of the janitor holds no slot of its host.
                Stage::Leaving if matches!(own.row.state, ResourceState::Orphaned { .. }) => {}
                Stage::Leaving | Stage::Draining => leaving += 1,
                Stage::Coming | Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Gone => {}
            }
        }
        idle.sort_unstable();
        let mut kept: BTreeMap<&Arc<str>, u32> = BTreeMap::new();
        idle.retain(|(_, child)| {
            let pool = self.resource(*child).and_then(|row| self.pool_entry(&row.pool));
            let Some(pool) = pool else { return false };
            let spare = kept.entry(&pool.config.name).or_insert(pool.total.idle.saturating_sub(pool.config.min_ready));
            let goes = *spare > 0;
            *spare = spare.saturating_sub(1);
            goes
        });
        (idle, leaving)
    }

    /// Whether a resource retires: it is too old, used up, or idle above the minimum of its pool.
    pub(crate) fn retirement(&self, id: ResourceId) -> Retirement {
        let Some(entry) = self.entry(&id) else { return Retirement::No };
        let row = &entry.row;
        let Some(pool) = self.pool_entry(&row.pool) else { return Retirement::No };
        let config = &pool.config;
        if row.state.stage() != Stage::Ready || self.host_is_held(row) {
            return Retirement::No;
        }
        let empty = entry.slots.len() == 0;
        if let (Some(at), Some(age)) = (row.ready_at, config.max_age)
            && at.after(age) <= self.now()
        {
            return Retirement::Now(format!("older than {age}"));
        }
        if config.max_uses.is_some_and(|most| row.uses >= most) && empty {
            return Retirement::Now(format!("used {} times", row.uses));
        }
        if let (Some(since), Some(idle)) = (row.idle_since, config.idle)
            && empty
            && since.after(idle) <= self.now()
        {
            if pool.total.idle > config.min_ready {
                return Retirement::Now(format!("idle for {idle}"));
            }
            // It is part of the minimum.
            return Retirement::NotBefore(self.now().after(idle.max(Millis::secs(1))));
        }
        Retirement::No
    }
}
