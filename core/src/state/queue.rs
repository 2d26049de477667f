//! The queue: priority, then age. A request that goes back to the queue keeps its place.

use crate::{Labels, LeaseId, Selector};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;

/// A place in the queue: higher priority first, then the older request. Unique.
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

/// One request in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    /// Its leases that are in the queue, in the order of the class's wants.
    pub(crate) leases: Vec<LeaseId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) waiters: BTreeMap<Place, Waiter>,
    /// Leases in it.
    pub(crate) leases: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) classes: BTreeMap<ClassKey, Class>,
    /// The place of each lease.
    places: BTreeMap<LeaseId, (ClassKey, Place)>,
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

    /// Adds a request. Its place must be free: a request that took another's place would lose the other.
    pub(crate) fn push(&mut self, key: ClassKey, place: Place, leases: Vec<LeaseId>) {
        for lease in &leases {
            self.places.insert(*lease, (key.clone(), place));
        }
        if !self.classes.contains_key(&key) {
            for name in names(&key) {
                self.by_pool.entry(name).or_default().insert(key.clone());
            }
        }
        let class = self.classes.entry(key).or_default();
        class.leases += leases.len() as u32;
        let before = class.waiters.insert(place, Waiter { leases });
        debug_assert!(before.is_none(), "two requests at the place {place:?}: {before:?} is lost");
    }

    /// Takes the whole request of which this lease is a part out of the queue.
    pub(crate) fn remove(&mut self, lease: LeaseId) -> Option<Waiter> {
        let (key, place) = self.places.get(&lease)?.clone();
        let class = self.classes.get_mut(&key)?;
        let waiter = class.waiters.remove(&place)?;
        class.leases -= waiter.leases.len() as u32;
        for lease in &waiter.leases {
            self.places.remove(lease);
        }
        if class.waiters.is_empty() {
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

    /// The class and the place of a lease.
    pub(crate) fn place(&self, lease: LeaseId) -> Option<&(ClassKey, Place)> {
        self.places.get(&lease)
    }

    /// The other leases that are granted with this one.
    pub(crate) fn together(&self, lease: LeaseId) -> &[LeaseId] {
        let waiter = self.places.get(&lease).and_then(|(key, place)| self.classes.get(key)?.waiters.get(place));
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

    #[test]
    fn classes_compete_over_chains_of_pools() {
        let mut queue = Queue::default();
        for (n, pools) in [&["a", "b"][..], &["b", "c"], &["d"]].iter().enumerate() {
            let leases = (0..pools.len()).map(|m| lease((n * 10 + m) as u128)).collect();
            queue.push(key(pools), (Reverse(0), n as u64), leases);
        }
        let (keys, pools, every) = queue.competing(&[Arc::from("c")].into());
        assert_eq!(keys, [key(&["a", "b"]), key(&["b", "c"])].into());
        assert_eq!(pools, ["a", "b", "c"].map(Arc::from).into());
        assert!(!every);
        assert_eq!(queue.together(lease(1)), [lease(0), lease(1)]);
        queue.remove(lease(10));
        assert_eq!(queue.competing(&[Arc::from("c")].into()).0, BTreeSet::new());
        let any: ClassKey = vec![Want::Selector(Arc::new(Selector::default()))].into();
        queue.push(any, (Reverse(0), 9), vec![lease(90)]);
        let (keys, _, every) = queue.competing(&[Arc::from("c")].into());
        assert!(every && keys.len() == 3, "one that goes by labels competes with all");
    }

    #[test]
    #[should_panic(expected = "two requests at the place")]
    fn no_request_takes_the_place_of_another() {
        let mut queue = Queue::default();
        queue.push(key(&["a"]), (Reverse(0), 1), vec![lease(1)]);
        queue.push(key(&["a"]), (Reverse(0), 1), vec![lease(2)]);
    }
}
