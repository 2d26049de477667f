//! The requests of one party and one priority in a class, by age. A rank is found without a walk over all that are older.

use crate::{LeaseId, Timestamp};
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::{Iter, Keys, Range, Values};
use alloc::vec::Vec;
use core::ops::RangeBounds;

/// Ages that share a counter. A rank adds counters up, and walks over the requests of one block at most.
const BLOCK: u64 = 512;

/// One request in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    /// Its leases that are in the queue, in the order of the class's wants.
    pub(crate) leases: Vec<LeaseId>,
    /// Since when it waits.
    pub(crate) since: Timestamp,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    waiters: BTreeMap<u64, Waiter>,
    /// The number of requests in each block that has some.
    counts: BTreeMap<u64, usize>,
}

impl Lane {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Adds a request. Returns one that has its place.
    pub(crate) fn insert(&mut self, seq: u64, waiter: Waiter) -> Option<Waiter> {
        let before = self.waiters.insert(seq, waiter);
        if before.is_none() {
            *self.counts.entry(seq / BLOCK).or_default() += 1;
        }
        before
    }

    pub(crate) fn remove(&mut self, seq: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&seq)?;
        if let Some(count) = self.counts.get_mut(&(seq / BLOCK)) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&(seq / BLOCK));
            }
        }
        Some(waiter)
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Waiter> {
        self.waiters.get(&seq)
    }

    /// The oldest request.
    pub(crate) fn first(&self) -> Option<(u64, &Waiter)> {
        self.waiters.first_key_value().map(|(seq, waiter)| (*seq, waiter))
    }

    /// The number of requests that are older than this age.
    pub(crate) fn older_than(&self, seq: u64) -> usize {
        let block = seq / BLOCK;
        let blocks: usize = self.counts.range(..block).map(|(_, count)| count).sum();
        blocks + self.waiters.range(block * BLOCK..seq).count()
    }

    /// The requests behind this many of the oldest.
    pub(crate) fn behind(&self, count: usize) -> Range<'_, u64, Waiter> {
        let mut left = count;
        for (block, here) in &self.counts {
            if left < *here {
                let mut rest = self.waiters.range(block * BLOCK..);
                for _ in 0..left {
                    rest.next();
                }
                return rest;
            }
            left -= here;
        }
        self.none()
    }

    /// No request.
    pub(crate) fn none(&self) -> Range<'_, u64, Waiter> {
        self.waiters.range(..0)
    }

    pub(crate) fn range(&self, ages: impl RangeBounds<u64>) -> Range<'_, u64, Waiter> {
        self.waiters.range(ages)
    }

    pub(crate) fn keys(&self) -> Keys<'_, u64, Waiter> {
        self.waiters.keys()
    }

    pub(crate) fn values(&self) -> Values<'_, u64, Waiter> {
        self.waiters.values()
    }

    pub(crate) fn iter(&self) -> Iter<'_, u64, Waiter> {
        self.waiters.iter()
    }

    /// Whether each block has a counter, and it is right.
    pub(crate) fn is_counted(&self) -> bool {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for seq in self.waiters.keys() {
            *counts.entry(seq / BLOCK).or_default() += 1;
        }
        counts == self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_a_walk() {
        let waiter = Waiter { leases: Vec::new(), since: Timestamp(0) };
        let mut lane = Lane::default();
        let mut ages: Vec<u64> = Vec::new();
        let mut random = 7_u64;
        for n in 0..4_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let seq = (random >> 33) % 6_000;
            if n % 3 == 2 {
                assert_eq!(lane.remove(seq).is_some(), ages.contains(&seq));
                ages.retain(|age| *age != seq);
            } else if lane.insert(seq, waiter.clone()).is_none() {
                ages.push(seq);
            }
        }
        ages.sort_unstable();
        assert!(lane.is_counted() && lane.len() == ages.len() && ages.len() > 1_000);
        for seq in (0..6_100).step_by(37) {
            assert_eq!(lane.older_than(seq), ages.iter().filter(|age| **age < seq).count(), "{seq}");
        }
        for count in (0..ages.len() + 2).step_by(7) {
            let behind: Vec<u64> = lane.behind(count).map(|(seq, _)| *seq).collect();
            assert_eq!(behind, ages.iter().skip(count).copied().collect::<Vec<_>>(), "{count}");
        }
        assert_eq!(lane.none().count(), 0);
        for seq in ages {
            lane.remove(seq);
        }
        assert!(lane.is_empty() && lane.is_counted());
    }
}
