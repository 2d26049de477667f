//! The queue: classes of requests that want the same, each with a lane for each tenant and priority. Within a lane age
//! decides; between lanes see `policy/fair.rs`. A request that goes back to the queue keeps its place.

use crate::{Labels, LeaseId, Selector, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;

/// The place of a request: its priority, and its age. Unique.
pub(crate) type Place = (Reverse<i32>, u64);

/// What one lease in the queue may be served by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Want {
    /// What the request selects.
    Selector(Arc<Selector>),
    /// Any of these pools: a working copy may lie on hosts of several.
    OneOf(Arc<[Arc<str>]>),
}

impl Want {
    /// The pools that it names; `None`: it goes by labels alone.
    pub(crate) fn pools(&self) -> Option<&[Arc<str>]> {
        match self {
            Want::Selector(selector) => selector.pool.as_ref().map(core::slice::from_ref),
            Want::OneOf(pools) => Some(pools),
        }
    }

    /// Whether something in this pool with these labels will do. A label of the resource wins over the pool's.
    pub(crate) fn matches(&self, pool: &str, pool_labels: &Labels, own: &Labels) -> bool {
        match self {
            Want::Selector(selector) => selector.matches(pool, pool_labels, own),
            Want::OneOf(pools) => pools.iter().any(|name| **name == *pool),
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Want::Selector(selector) => selector.fmt(f),
            Want::OneOf(pools) => {
                for (n, pool) in pools.iter().enumerate() {
                    write!(f, "{}{pool}", if n == 0 { "pool " } else { " or " })?;
                }
                Ok(())
            }
        }
    }
}

/// Requests that want the same wait in one class: if its first cannot be served, nor can the others.
pub(crate) type ClassKey = Arc<[Want]>;

/// A party in the queue: a tenant, or `None` for the broker itself, whose working copies wait for hosts.
pub(crate) type Party = Option<Arc<str>>;

/// One request in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    /// Its leases that are in the queue, in the order of the class's wants.
    pub(crate) leases: Vec<LeaseId>,
    /// Since when it waits.
    pub(crate) since: Timestamp,
}

/// The requests of one party and one priority in a class, by age.
pub(crate) type Lane = BTreeMap<u64, Waiter>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) lanes: BTreeMap<(Party, Reverse<i32>), Lane>,
    /// Requests in it.
    pub(crate) requests: usize,
    /// Leases in it.
    pub(crate) leases: u32,
}

impl Class {
    /// The oldest request of the highest priority, of any tenant.
    pub(crate) fn first(&self) -> Option<(Place, &Waiter)> {
        let first = |((_, priority), lane): (&(Party, Reverse<i32>), &'_ Lane)| {
            lane.first_key_value().map(|(seq, _)| (*priority, *seq))
        };
        let place = self.lanes.iter().filter_map(first).min()?;
        let lanes = self.lanes.iter().filter(|((_, priority), _)| *priority == place.0);
        lanes.filter_map(|(_, lane)| lane.get(&place.1)).next().map(|waiter| (place, waiter))
    }
}

/// The first request of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key: ClassKey,
    /// Since when it waits.
    pub(crate) since: Timestamp,
}

/// What a party has in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InLine {
    /// The first request of each of its lanes.
    pub(crate) heads: BTreeMap<Place, Head>,
    /// Its leases.
    pub(crate) leases: u32,
}

/// Where a lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) key: ClassKey,
    pub(crate) place: Place,
    pub(crate) party: Party,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) classes: BTreeMap<ClassKey, Class>,
    /// The place of each lease.
    places: BTreeMap<LeaseId, Stand>,
    /// What each party has in it.
    parties: BTreeMap<Party, InLine>,
    /// Classes that name a pool, by pool, and under `None` those that go by labels alone.
    by_pool: BTreeMap<Option<Arc<str>>, BTreeSet<ClassKey>>,
}

/// The keys of `by_pool` under which a class stands.
fn names(key: &ClassKey) -> BTreeSet<Option<Arc<str>>> {
    let mut names = BTreeSet::new();
    for want in key.iter() {
        match want.pools() {
            Some(pools) => names.extend(pools.iter().cloned().map(Some)),
            None => drop(names.insert(None)),
        }
    }
    names
}

impl Queue {
    /// Leases in the queue.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds a request of a party. Its place must be free: a request that took another's place would lose the other.
    pub(crate) fn push(&mut self, key: ClassKey, place: Place, party: Party, waiter: Waiter) {
        // One key for all requests of a class.
        let known = self.classes.get_key_value(&key).map(|(known, _)| known.clone());
        let fresh = known.is_none();
        let key = known.unwrap_or(key);
        if fresh {
            for name in names(&key) {
                self.by_pool.entry(name).or_default().insert(key.clone());
            }
        }
        for lease in &waiter.leases {
            let stand = Stand { key: key.clone(), place, party: party.clone() };
            self.places.insert(*lease, stand);
        }
        let class = self.classes.entry(key.clone()).or_default();
        let leases = waiter.leases.len() as u32;
        class.leases += leases;
        class.requests += 1;
        let (priority, seq) = place;
        let lane = class.lanes.entry((party.clone(), priority)).or_default();
        let first = lane.first_key_value().map(|(first, _)| *first);
        let head = Head { key, since: waiter.since };
        let before = lane.insert(seq, waiter);
        debug_assert!(before.is_none(), "two requests at the place {place:?}: {before:?} is lost");
        let own = self.parties.entry(party).or_default();
        own.leases += leases;
        if first.is_none_or(|first| seq < first) {
            if let Some(first) = first {
                own.heads.remove(&(priority, first));
            }
            own.heads.insert(place, head);
        }
    }

    /// Takes the whole request of which this lease is a part out of the queue.
    pub(crate) fn remove(&mut self, lease: LeaseId) -> Option<Waiter> {
        let Stand { key, place, party } = self.places.get(&lease)?.clone();
        let class = self.classes.get_mut(&key)?;
        let name = (party.clone(), place.0);
        let lane = class.lanes.get_mut(&name)?;
        let waiter = lane.remove(&place.1)?;
        let leases = waiter.leases.len() as u32;
        class.leases -= leases;
        class.requests -= 1;
        for lease in &waiter.leases {
            self.places.remove(lease);
        }
        if let Some(own) = self.parties.get_mut(&party) {
            own.leases -= leases;
            if own.heads.remove(&place).is_some()
                && let Some((next, waiter)) = lane.first_key_value()
            {
                own.heads.insert((place.0, *next), Head { key: key.clone(), since: waiter.since });
            }
            if own.heads.is_empty() {
                self.parties.remove(&party);
            }
        }
        if lane.is_empty() {
            class.lanes.remove(&name);
        }
        if class.lanes.is_empty() {
            self.classes.remove(&key);
            for name in names(&key) {
                if let Some(keys) = self.by_pool.get_mut(&name) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.by_pool.remove(&name);
                    }
                }
            }
        }
        Some(waiter)
    }

    /// Where a lease stands.
    pub(crate) fn place(&self, lease: LeaseId) -> Option<&Stand> {
        self.places.get(&lease)
    }

    /// The requests of a party and a priority in a class.
    pub(crate) fn lane(&self, key: &ClassKey, party: &Party, priority: Reverse<i32>) -> Option<&Lane> {
        self.classes.get(key)?.lanes.get(&(party.clone(), priority))
    }

    /// The request at a place.
    pub(crate) fn waiter(&self, at: &Stand) -> Option<&Waiter> {
        self.lane(&at.key, &at.party, at.place.0)?.get(&at.place.1)
    }

    /// All parties with what they have in the queue.
    pub(crate) fn parties(&self) -> impl Iterator<Item = (&Party, &InLine)> {
        self.parties.iter()
    }

    /// What a party has in the queue.
    pub(crate) fn party(&self, party: &Party) -> Option<&InLine> {
        self.parties.get(party)
    }

    /// The other leases that are granted with this one.
    pub(crate) fn together(&self, lease: LeaseId) -> &[LeaseId] {
        let waiter = self.places.get(&lease).and_then(|at| self.waiter(at));
        waiter.map_or(&[], |waiter| &waiter.leases)
    }

    /// Classes that name this pool or go by labels alone.
    pub(crate) fn classes_for(&self, pool: &Arc<str>) -> BTreeSet<ClassKey> {
        let mut keys = self.by_pool.get(&Some(pool.clone())).cloned().unwrap_or_default();
        if let Some(any) = self.by_pool.get(&None) {
            keys.extend(any.iter().cloned());
        }
        keys
    }

    /// All classes that compete with those for these pools, over one pool or a chain of pools, and all the pools that
    /// they name. What one of them is given may be kept for another. `true`: some go by labels alone, and compete for
    /// every pool.
    pub(crate) fn competing(&self, pools: &BTreeSet<Arc<str>>) -> (BTreeSet<ClassKey>, BTreeSet<Arc<str>>, bool) {
        if self.by_pool.contains_key(&None) && !pools.is_empty() {
            return (self.classes.keys().cloned().collect(), pools.clone(), true);
        }
        let (mut keys, mut all) = (BTreeSet::new(), pools.clone());
        let mut next: Vec<Arc<str>> = pools.iter().cloned().collect();
        while let Some(pool) = next.pop() {
            for key in self.by_pool.get(&Some(pool)).into_iter().flatten() {
                if keys.insert(key.clone()) {
                    let named = key.iter().filter_map(Want::pools).flatten();
                    next.extend(named.filter(|pool| all.insert((*pool).clone())).cloned());
                }
            }
        }
        (keys, all, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn key(pools: &[&str]) -> ClassKey {
        pools.iter().map(|pool| Want::Selector(Arc::new(Selector::pool(pool)))).collect()
    }

    fn lease(number: u128) -> LeaseId {
        LeaseId::new(number)
    }

    fn waiter(leases: Vec<LeaseId>) -> Waiter {
        Waiter { leases, since: Timestamp(0) }
    }

    #[test]
    fn a_party_has_one_head_in_each_lane() {
        let mut queue = Queue::default();
        let party = |name: &str| -> Party { Some(Arc::from(name)) };
        let heads = |queue: &Queue, name: &str| -> Vec<u64> {
            let own = queue.party(&party(name));
            own.into_iter().flat_map(|own| own.heads.keys().map(|place| place.1)).collect()
        };
        for (n, name, pool, priority) in
            [(1, "ann", "a", 0), (2, "ann", "a", 0), (3, "bob", "a", 0), (4, "ann", "b", 0), (5, "ann", "a", 7)]
        {
            queue.push(key(&[pool]), (Reverse(priority), n), party(name), waiter(vec![lease(u128::from(n))]));
        }
        assert_eq!(heads(&queue, "ann"), [5, 1, 4], "one for each class and priority");
        assert_eq!(heads(&queue, "bob"), [3]);
        assert_eq!(queue.party(&party("ann")).map(|own| own.leases), Some(4));
        assert_eq!(queue.classes[&key(&["a"])].first().map(|(place, _)| place.1), Some(5));
        queue.remove(lease(5));
        assert_eq!(heads(&queue, "ann"), [1, 4]);
        queue.remove(lease(2));
        assert_eq!(heads(&queue, "ann"), [1, 4], "a request behind the head is no head");
        queue.remove(lease(3));
        assert_eq!((queue.party(&party("bob")), queue.classes[&key(&["a"])].requests), (None, 1));
    }

    #[test]
    fn classes_compete_over_chains_of_pools() {
        let mut queue = Queue::default();
        for (n, pools) in [&["a", "b"][..], &["b", "c"], &["d"]].iter().enumerate() {
            let leases = (0..pools.len()).map(|m| lease((n * 10 + m) as u128)).collect();
            queue.push(key(pools), (Reverse(0), n as u64), None, waiter(leases));
        }
        let (keys, pools, every) = queue.competing(&[Arc::from("c")].into());
        assert_eq!(keys, [key(&["a", "b"]), key(&["b", "c"])].into());
        assert_eq!(pools, ["a", "b", "c"].map(Arc::from).into());
        assert!(!every);
        assert_eq!(queue.together(lease(1)), [lease(0), lease(1)]);
        queue.remove(lease(10));
        assert_eq!(queue.competing(&[Arc::from("c")].into()).0, BTreeSet::new());
        let any: ClassKey = vec![Want::Selector(Arc::new(Selector::default()))].into();
        queue.push(any, (Reverse(0), 9), None, waiter(vec![lease(90)]));
        let (keys, _, every) = queue.competing(&[Arc::from("c")].into());
        assert!(every && keys.len() == 3, "one that goes by labels competes with all");
    }

    #[test]
    #[should_panic(expected = "two requests at the place")]
    fn no_request_takes_the_place_of_another() {
        let mut queue = Queue::default();
        queue.push(key(&["a"]), (Reverse(0), 1), None, waiter(vec![lease(1)]));
        queue.push(key(&["a"]), (Reverse(0), 1), None, waiter(vec![lease(2)]));
    }
}
