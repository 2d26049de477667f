//! The queue's rules, checked by the oracle after each turn of one input: the order of grants, slots that are kept for
//! groups, demand, and requests that no configuration can meet.
//!
//! The matching here works slot by slot and shares no code with the core, so that it shares no mistake.

use crate::between::Judged;
use crate::turns::{Class, Terms};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{
    GroupId, Item, Lease, LeaseId, LeaseState, PoolView, Resource, ResourceId, ResourceState, Selector, Timestamp,
};

type Checked = Result<(), String>;
pub(crate) type Place = (Reverse<i32>, u64);

/// Changes since the last check.
#[derive(Default)]
pub(crate) struct Changes {
    /// Leases that were granted a slot.
    pub(crate) granted: BTreeSet<LeaseId>,
    /// Leases that are new.
    pub(crate) asked: BTreeSet<LeaseId>,
    /// Leases that returned to the queue, or changed in it.
    pub(crate) requeued: BTreeSet<LeaseId>,
    /// Resources that are new.
    pub(crate) bought: BTreeSet<ResourceId>,
    /// Idle working copies that gave their slot on the host back.
    pub(crate) reclaimed: BTreeSet<ResourceId>,
    /// An incomplete group gave way, or a lease that was granted lost its slot again: slots changed hands between the grants.
    pub(crate) gave_way: bool,
    /// Tenants at whose request a resource is kept that was not before.
    pub(crate) kept_for: BTreeSet<Arc<str>>,
}

/// The stored rows, and the broker's view of the pools.
pub(crate) struct Look<'a> {
    pub(crate) leases: &'a BTreeMap<LeaseId, Arc<Lease>>,
    pub(crate) resources: &'a BTreeMap<ResourceId, Arc<Resource>>,
    pub(crate) pools: &'a [PoolView],
    pub(crate) now: Timestamp,
}

/// One slot that a claim may be matched to.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub(crate) pool: &'a PoolView,
    /// The resource, or `None` for a slot that exists by configuration only.
    row: Option<&'a Resource>,
    /// The inventory entry behind a slot that exists by configuration only.
    item: Option<&'a Item>,
}

impl<'a> Slot<'a> {
    /// One of a resource.
    pub(crate) fn of(pool: &'a PoolView, row: &'a Resource) -> Self {
        Self { pool, row: Some(row), item: None }
    }
}

/// Leases that are granted together.
#[derive(Clone)]
pub(crate) struct Waiter<'a> {
    pub(crate) place: Place,
    pub(crate) leases: Vec<&'a Lease>,
}

/// Kuhn's algorithm: claims on the left, slots on the right.
pub(crate) struct Matching {
    options: Vec<Vec<usize>>,
    by_slot: BTreeMap<usize, usize>,
}

impl Matching {
    pub(crate) fn new() -> Self {
        Self { options: Vec::new(), by_slot: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, options: Vec<usize>) -> bool {
        self.options.push(options);
        let mut seen = BTreeSet::new();
        self.augment(self.options.len() - 1, &mut seen)
    }

    fn augment(&mut self, claim: usize, seen: &mut BTreeSet<usize>) -> bool {
        for slot in self.options[claim].clone() {
            if !seen.insert(slot) {
                continue;
            }
            let holder = self.by_slot.get(&slot).copied();
            if holder.is_none_or(|holder| self.augment(holder, seen)) {
                self.by_slot.insert(slot, claim);
                return true;
            }
        }
        false
    }

    /// Removes the last claims.
    fn retract(&mut self, claims: usize) {
        let left = self.options.len() - claims;
        self.options.truncate(left);
        self.by_slot.retain(|_, claim| *claim < left);
    }
}

impl<'a> Look<'a> {
    pub(crate) fn pool(&self, name: &str) -> Option<&'a PoolView> {
        self.pools.iter().find(|pool| &*pool.config.name == name)
    }

    fn open(pool: &PoolView) -> bool {
        pool.configured && pool.config.enabled && pool.cordoned.is_none()
    }

    fn leasable(&self, row: &Resource) -> bool {
        let itself = matches!(row.state, ResourceState::Ready)
            && row.cordoned.is_none()
            && row.hold.is_none()
            && self.pool(&row.pool).is_some_and(Self::open);
        let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resources.get(&host));
        itself && (row.parent.is_none() || host.is_some_and(|host| self.leasable(host)))
    }

    /// The pools on which a working copy may lie.
    fn hosts_of(&self, lease: &Lease) -> Option<Vec<Arc<str>>> {
        let child = self.resources.get(&lease.spec.child?)?;
        let on = &self.pool(&child.pool).filter(|pool| pool.configured)?.config.on;
        Some(on.clone())
    }

    /// The class of a request: those that want the same. A copy that may lie on one pool wants what a request for that pool wants.
    pub(crate) fn class(&self, waiter: &Waiter<'_>) -> Class {
        let want = |lease: &&Lease| match self.hosts_of(lease) {
            None => (lease.spec.selector.clone(), None),
            Some(on) => match &on[..] {
                [one] => (Arc::new(Selector::pool(one)), None),
                _ => (Arc::default(), Some(on)),
            },
        };
        waiter.leases.iter().map(want).collect()
    }

    /// The pools that a request names; `None`: a part of it goes by labels alone.
    pub(crate) fn pools_of(&self, waiter: &Waiter<'_>) -> Option<BTreeSet<Arc<str>>> {
        let mut names = BTreeSet::new();
        for lease in &waiter.leases {
            match self.hosts_of(lease) {
                Some(on) => names.extend(on),
                None => drop(names.insert(lease.spec.selector.pool.clone()?)),
            }
        }
        Some(names)
    }

    pub(crate) fn fits(&self, lease: &Lease, slot: &Slot<'_>) -> bool {
        let config = &slot.pool.config;
        if let Some(on) = self.hosts_of(lease) {
            return on.contains(&config.name);
        }
        let none = wharfinger_core::Labels::new();
        let labels = slot.row.map(|row| &row.labels).or(slot.item.map(|item| &item.labels)).unwrap_or(&none);
        lease.spec.selector.matches(&config.name, &config.labels, labels)
    }

    /// Whether the request has constraints besides its selector. Requests behind it may get what it cannot use.
    pub(crate) fn is_choosy(&self, waiter: &Waiter<'_>) -> bool {
        waiter.leases.iter().any(|lease| {
            let child = lease.spec.child.and_then(|child| self.resources.get(&child));
            let siblings = child.and_then(|child| self.pool(&child.pool)?.config.max_per_parent);
            !lease.avoid.is_empty()
                || lease.not_before.is_some()
                || lease.spec.expected.is_some()
                || siblings.is_some()
                || (lease.spec.independent && lease.spec.replaces.is_some())
        })
    }

    fn waiters(&self) -> Vec<Waiter<'a>> {
        let mut together: BTreeMap<GroupId, Vec<&'a Lease>> = BTreeMap::new();
        let mut all = Vec::new();
        let place = |lease: &Lease| (Reverse(lease.spec.priority), lease.seq);
        for lease in self.leases.values().filter(|row| matches!(row.state, LeaseState::Queued)) {
            let fresh = lease.attempts == 0 && lease.delays == 0;
            match lease.spec.group {
                Some(group) if !lease.spec.independent || fresh => together.entry(group).or_default().push(lease),
                Some(_) | None => all.push(Waiter { place: place(lease), leases: vec![lease] }),
            }
        }
        for mut leases in together.into_values() {
            leases.sort_by_key(|lease| lease.spec.index);
            let place = leases.iter().map(|lease| place(lease)).min().expect("it has members");
            all.push(Waiter { place, leases });
        }
        all.sort_by_key(|waiter| waiter.place);
        all
    }

    /// Free slots of the resources that take leases.
    fn free(&self) -> Vec<Slot<'a>> {
        let mut held: BTreeMap<ResourceId, u32> = BTreeMap::new();
        for hold in self.leases.values().filter_map(|lease| lease.assignment()) {
            *held.entry(hold.resource).or_default() += 1;
        }
        let mut slots = Vec::new();
        for row in self.resources.values().filter(|row| self.leasable(row)) {
            let Some(pool) = self.pool(&row.pool) else { continue };
            // One on trial has one slot until work went well on it.
            let most = if row.evidence.trial.is_some() { 1 } else { row.slots };
            let free = most.saturating_sub(held.get(&row.id).copied().unwrap_or(0));
            slots.extend((0..free).map(|_| Slot { pool, row: Some(row), item: None }));
        }
        slots
    }

    /// Slots of resources that are being provisioned, except these resources.
    fn coming(&self, but: &BTreeSet<ResourceId>) -> Vec<Slot<'a>> {
        let mut slots = Vec::new();
        for row in self.resources.values().filter(|row| !but.contains(&row.id) && row.cordoned.is_none()) {
            let ResourceState::Provisioning { attempt, .. } = row.state else { continue };
            let counts = |pool: &&PoolView| Self::open(pool) && (row.item.is_none() || attempt < 3);
            let Some(pool) = self.pool(&row.pool).filter(counts) else { continue };
            slots.extend((0..row.slots).map(|_| Slot { pool, row: Some(row), item: None }));
        }
        slots
    }

    /// Slots that the configuration can have. With `switched_on`: only those of enabled entries in open pools, without those under an operator's order.
    pub(crate) fn possible(&self, switched_on: bool) -> Vec<Slot<'a>> {
        let mut slots = Vec::new();
        // The rest of a removed pool counts, because a reload may bring the pool back.
        for pool in self.pools.iter().filter(|pool| !switched_on || Self::open(pool)) {
            let gone = |row: &Resource| match row.state {
                ResourceState::Gone { .. } | ResourceState::Orphaned { .. } => true,
                ResourceState::Destroying { dead, .. } => dead,
                // A machine that cannot be made ready again and again counts as absent, as in the core.
                ResourceState::Provisioning { attempt, .. } => row.item.is_some() && attempt >= 3,
                _ => false,
            };
            // A reload that lowers the maximum removes no existing resource.
            let there = self.resources.values().filter(|row| row.pool == pool.config.name && !gone(row)).count();
            let most = (pool.config.max as usize).max(there);
            let slots_of = |own: Option<u32>| own.unwrap_or(pool.config.slots).max(1);
            match &pool.config.inventory {
                Some(items) => {
                    let out =
                        |item: &Item| pool.items.iter().any(|view| view.name == item.name && view.machine.is_some());
                    let on = |item: &&Item| !switched_on || item.enabled && !out(item);
                    for item in items.iter().filter(on).take(most) {
                        slots.extend((0..slots_of(item.slots)).map(|_| Slot { pool, row: None, item: Some(item) }));
                    }
                }
                // Slots beyond the largest possible request make no difference.
                None => slots.extend((0..(most as u32).saturating_mul(slots_of(None)).min(64)).map(|_| Slot {
                    pool,
                    row: None,
                    item: None,
                })),
            }
        }
        slots
    }

    pub(crate) fn options(&self, lease: &Lease, slots: &[Slot<'_>]) -> Vec<usize> {
        (0..slots.len()).filter(|n| self.fits(lease, &slots[*n])).collect()
    }

    /// Requests that keep slots: the first of each class. A request with constraints of its own does not hide the
    /// next one of its class.
    fn first_of_their_class<'b>(&self, waiters: &'b [Waiter<'a>]) -> Vec<&'b Waiter<'a>> {
        let mut classes = BTreeSet::new();
        let first = |waiter: &&Waiter<'_>| {
            let class = self.class(waiter);
            !classes.contains(&class) && (self.is_choosy(waiter) || classes.insert(class))
        };
        waiters.iter().filter(first).collect()
    }

    pub(crate) fn all_fit(&self, leases: &[&Lease], slots: &[Slot<'_>]) -> bool {
        let mut matching = Matching::new();
        leases.iter().all(|lease| matching.add(self.options(lease, slots)))
    }

    /// The slots of idle copies that gave way in a turn.
    pub(crate) fn reclaimed(&self, changes: &Changes) -> Vec<Slot<'a>> {
        let rows = changes.reclaimed.iter().filter_map(|id| self.resources.get(id));
        let slots = rows.filter_map(|row| Some((self.pool(&row.pool)?, &**row)));
        slots.flat_map(|(pool, row)| (0..row.slots).map(move |_| Slot::of(pool, row))).collect()
    }

    /// Whether a notice about the resource or its host makes the slot unfit for some requests.
    pub(crate) fn is_uncertain(&self, slot: &Slot<'_>) -> bool {
        let host = |row: &Resource| self.resources.get(&row.parent?.host?).cloned();
        let uncertain = |row: &Resource| row.at_risk.is_some() || row.ends_at.is_some();
        slot.row.is_some_and(|row| uncertain(row) || host(row).is_some_and(|host| uncertain(&host)))
    }

    /// All rules of the queue. `tenants`: where there are several.
    pub(crate) fn check(&self, changes: &Changes, tenants: Option<(&mut Terms, &mut Judged)>) -> Checked {
        let waiters = self.waiters();
        self.accepted_can_be_met(&waiters, changes)?;
        self.buys_what_is_missing(&waiters, changes)?;
        let free = self.free();
        if let Some(tenants) = tenants {
            return self.check_tenants(tenants, &waiters, free, changes);
        }
        if free.iter().any(|slot| self.is_uncertain(slot)) {
            return Ok(());
        }
        self.no_one_waits_beside_his_slots(&waiters, &free)?;
        self.kept_for_the_older(&waiters, free, changes)
    }

    /// A lease that is new in this turn and stands before the request has a slot that the request could have used. Only the
    /// lease of a working copy on its host comes so late: it has the priority of the requests for the copy.
    fn overtaken(&self, waiter: &Waiter<'_>, changes: &Changes) -> bool {
        let new = changes.asked.iter().filter(|id| changes.granted.contains(id)).filter_map(|id| self.leases.get(id));
        let mut before = new.filter(|lease| (Reverse(lease.spec.priority), lease.seq) < waiter.place);
        before.any(|lease| {
            let row = lease.assignment().and_then(|hold| self.resources.get(&hold.resource));
            let slot = row.and_then(|row| Some(Slot { pool: self.pool(&row.pool)?, row: Some(row), item: None }));
            slot.is_some_and(|slot| waiter.leases.iter().any(|lease| self.fits(lease, &slot)))
        })
    }

    /// 13: a request that no configuration of the pools can meet is refused.
    fn accepted_can_be_met(&self, waiters: &[Waiter<'_>], changes: &Changes) -> Checked {
        let possible = self.possible(false);
        for waiter in waiters {
            let new = |lease: &&Lease| {
                changes.asked.contains(&lease.id) && lease.spec.child.is_none() && lease.spec.replaces.is_none()
            };
            if waiter.leases.iter().all(new) && !self.all_fit(&waiter.leases, &possible) {
                return Err(format!("(13) a request is accepted that can never be met: {}", named(waiter)));
            }
        }
        Ok(())
    }

    /// 10: a request is granted once each of its leases finds a slot beside those kept for older requests.
    fn no_one_waits_beside_his_slots(&self, waiters: &[Waiter<'_>], free: &[Slot<'_>]) -> Checked {
        let possible = self.possible(true);
        let mut matching = Matching::new();
        for waiter in self.first_of_their_class(waiters) {
            let choosy = self.is_choosy(waiter);
            if choosy && waiter.leases.len() > 1 {
                // The slots kept for it depend on its constraints, which this check does not know.
                return Ok(());
            }
            if choosy {
                continue;
            }
            let found = waiter.leases.iter().filter(|lease| matching.add(self.options(lease, free))).count();
            if found == waiter.leases.len() {
                return Err(format!("(10) a request waits beside free slots: {}", named(waiter)));
            }
            if !self.all_fit(&waiter.leases, &possible) {
                matching.retract(waiter.leases.len());
            }
        }
        Ok(())
    }

    /// 10: priority, then age, orders all competing requests of a tenant. A younger request gets no slot that an older one needs.
    fn kept_for_the_older(&self, waiters: &[Waiter<'_>], mut free: Vec<Slot<'a>>, changes: &Changes) -> Checked {
        let possible = self.possible(true);
        // Idle copies give way after the grants of a turn: until then their slots were kept.
        free.extend(self.reclaimed(changes));
        for granted in changes.granted.iter().filter_map(|id| self.leases.get(id)) {
            let Some(hold) = granted.assignment() else { continue };
            // The place of a member may be behind the place of its request.
            let with_it = changes.granted.iter().filter_map(|id| self.leases.get(id)).filter(|other| {
                other.id == granted.id || granted.spec.group.is_some() && other.spec.group == granted.spec.group
            });
            let Some(seq) = with_it.map(|lease| lease.seq).min() else { continue };
            let place = (Reverse(granted.spec.priority), seq);
            let stood = |waiter: &&Waiter<'_>| {
                let changed = |lease: &Lease| changes.asked.contains(&lease.id) || changes.requeued.contains(&lease.id);
                waiter.place < place
                    && !waiter.leases.iter().any(|lease| changed(lease))
                    && !self.is_choosy(waiter)
                    && !self.overtaken(waiter, changes)
                    && self.all_fit(&waiter.leases, &possible)
            };
            let older: Vec<&Waiter<'_>> = self.first_of_their_class(waiters).into_iter().filter(stood).collect();
            let matched = |slots: &[Slot<'_>]| {
                let mut matching = Matching::new();
                let leases = older.iter().flat_map(|waiter| &waiter.leases);
                leases.filter(|lease| matching.add(self.options(lease, slots))).count()
            };
            let Some(row) = self.resources.get(&hold.resource) else { continue };
            let Some(pool) = self.pool(&row.pool) else { continue };
            let slot = Slot { pool, row: Some(row), item: None };
            if self.is_uncertain(&slot) {
                continue;
            }
            let before = matched(&free);
            free.push(slot);
            let after = matched(&free);
            free.pop();
            if after > before {
                let older: Vec<String> = older.into_iter().map(named).collect();
                return Err(format!("(10) {} has a slot that was kept for one of {older:?}", granted.id));
            }
        }
        Ok(())
    }

    /// Demand provisions the missing slots, and no more.
    fn buys_what_is_missing(&self, waiters: &[Waiter<'_>], changes: &Changes) -> Checked {
        let bought = changes.bought.iter().filter_map(|id| self.resources.get(id));
        let pools: BTreeSet<&Arc<str>> = bought.clone().map(|row| &row.pool).collect();
        for name in pools {
            let Some(pool) = self.pool(name) else { continue };
            let config = &pool.config;
            let of_pool = || self.resources.values().filter(|row| row.pool == *name);
            // Successors of draining resources are provisioned before their slots are missing.
            if of_pool().any(|row| matches!(row.state, ResourceState::Draining { deadline: Some(_), .. })) {
                continue;
            }
            let new = bought.clone().filter(|row| row.pool == *name).count() as u32;
            let mut slots = self.free();
            slots.retain(|slot| !self.is_uncertain(slot));
            slots.extend(self.coming(&changes.bought));
            let here = Slot { pool, row: None, item: None };
            let by_item: Vec<Slot<'_>> = config
                .inventory
                .iter()
                .flatten()
                .map(|item| Slot { pool, row: None, item: Some(item) })
                .chain([here])
                .collect();
            let wants_it = |lease: &Lease| by_item.iter().any(|slot| self.fits(lease, slot));
            // Leases that a new resource cannot serve come first, so that they leave as many slots as possible.
            let leases = || waiters.iter().flat_map(|waiter| waiter.leases.iter().copied());
            let mut matching = Matching::new();
            let choosy: BTreeSet<LeaseId> = waiters
                .iter()
                .filter(|waiter| self.is_choosy(waiter))
                .flat_map(|waiter| waiter.leases.iter().map(|lease| lease.id))
                .collect();
            for lease in leases().filter(|lease| !wants_it(lease)) {
                let mut options = self.options(lease, &slots);
                if choosy.contains(&lease.id) {
                    // A free slot may be unfit for it. A slot that is being provisioned is fit.
                    options.sort_by_key(|n| slots[*n].row.is_some_and(|row| matches!(row.state, ResourceState::Ready)));
                }
                matching.add(options);
            }
            let granted = changes.granted.iter().filter_map(|id| self.leases.get(id));
            let mut missing = granted.filter(|lease| wants_it(lease)).count() as u32;
            for lease in leases().filter(|lease| wants_it(lease)) {
                missing += u32::from(choosy.contains(&lease.id) || !matching.add(self.options(lease, &slots)));
            }
            let idle = of_pool().filter(|row| {
                self.leasable(row)
                    && !self.leases.values().any(|l| l.assignment().is_some_and(|h| h.resource == row.id))
            });
            let counts = |row: &&Arc<Resource>| match row.state {
                ResourceState::Provisioning { attempt, .. } => {
                    row.cordoned.is_none() && (row.item.is_none() || attempt < 3)
                }
                _ => false,
            };
            let coming = of_pool().filter(counts).count() as u32;
            let minimum = config.min_ready.saturating_sub((idle.count() as u32 + coming).saturating_sub(new));
            if new > missing.div_ceil(config.slots.max(1)).max(minimum) {
                let waiting: Vec<String> = waiters.iter().map(named).collect();
                let there: Vec<String> = slots.iter().map(|slot| shown(slot)).collect();
                return Err(format!(
                    "{new} are made in {name}, where {missing} slots are missing: {waiting:?} beside {there:?}"
                ));
            }
        }
        Ok(())
    }
}

/// A request, by its first lease and what its leases want.
fn named(waiter: &Waiter<'_>) -> String {
    let wants = waiter.leases.iter().map(|lease| match lease.spec.child {
        Some(_) => format!("a host, {}", lease.spec.selector),
        None => lease.spec.selector.to_string(),
    });
    format!("{} for {:?}", waiter.leases[0].id, wants.collect::<Vec<_>>())
}

fn shown(slot: &Slot<'_>) -> String {
    let state = slot.row.map_or("", |row| row.state.as_str());
    format!("{} {state}", slot.pool.config.name)
}
