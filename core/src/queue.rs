//! The line: priority, then age. A request that went back to the line stands where it stood before.

use crate::{LeaseId, Selector};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// A place in line: higher priority first, then the older request. Unique.
pub(crate) type Place = (Reverse<i32>, u64);

/// Requests that want the same wait in one class: when its first can't be served, nor can the others.
pub(crate) type ClassKey = Vec<Arc<Selector>>;

/// One request in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    /// Its leases that are in line, in the order of the class's selectors.
    pub(crate) leases: Vec<LeaseId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) waiters: BTreeMap<Place, Waiter>,
    /// Leases in it for which nothing is free now, by the last placing.
    pub(crate) missing: u32,
    /// Leases in it.
    pub(crate) leases: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) classes: BTreeMap<ClassKey, Class>,
    /// Where a lease stands.
    places: BTreeMap<LeaseId, (ClassKey, Place)>,
    /// Classes that name a pool, by pool, and under `None` those that go by labels alone.
    by_pool: BTreeMap<Option<Arc<str>>, BTreeSet<ClassKey>>,
}

impl Queue {
    /// Leases in line.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn push(&mut self, key: ClassKey, place: Place, leases: Vec<LeaseId>) {
        for selector in &key {
            self.by_pool.entry(selector.pool.clone()).or_default().insert(key.clone());
        }
        for lease in &leases {
            self.places.insert(*lease, (key.clone(), place));
        }
        let class = self.classes.entry(key).or_default();
        class.leases += leases.len() as u32;
        class.waiters.insert(place, Waiter { leases });
    }

    /// Takes the whole request of which this lease is a part out of the line.
    pub(crate) fn remove(&mut self, lease: LeaseId) -> Option<Waiter> {
        let (key, place) = self.places.get(&lease)?.clone();
        let class = self.classes.get_mut(&key)?;
        let waiter = class.waiters.remove(&place)?;
        class.leases -= waiter.leases.len() as u32;
        class.missing = class.missing.min(class.leases);
        for lease in &waiter.leases {
            self.places.remove(lease);
        }
        if class.waiters.is_empty() {
            self.classes.remove(&key);
            for selector in &key {
                if let Some(keys) = self.by_pool.get_mut(&selector.pool) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.by_pool.remove(&selector.pool);
                    }
                }
            }
        }
        Some(waiter)
    }

    /// Where a lease stands.
    pub(crate) fn place(&self, lease: LeaseId) -> Option<&(ClassKey, Place)> {
        self.places.get(&lease)
    }

    /// Classes that name this pool or go by labels alone.
    pub(crate) fn classes_for(&self, pool: &Arc<str>) -> BTreeSet<ClassKey> {
        let mut keys = self.by_pool.get(&Some(pool.clone())).cloned().unwrap_or_default();
        if let Some(any) = self.by_pool.get(&None) {
            keys.extend(any.iter().cloned());
        }
        keys
    }
}
