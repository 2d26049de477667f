//! How long things took lately in each pool: leases, clean-ups, makings. Not stored: a server that is started anew knows nothing
//! of it, and one that takes the lead over knows what it has seen as one that follows.

use crate::{Core, Ended, Lease, LeaseSpec, LeaseState, Millis, Resource, ResourceState, Timestamp};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Maximum number of leases that a pool remembers.
const LEASES: usize = 256;
/// Maximum number of clean-ups and of makings that a pool remembers.
const OTHERS: usize = 64;

/// How long things took lately, by pool.
#[derive(Clone, Debug, Default)]
pub struct Learned(BTreeMap<Arc<str>, Lengths>);

/// How long things took lately in a pool, the latest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lengths {
    /// Of leases, by their work, from active to their end. A lease that broke is not one of them: it says nothing of its work.
    pub(crate) leases: VecDeque<(u64, Millis)>,
    /// Of clean-ups.
    pub(crate) cleanings: VecDeque<Millis>,
    /// Of makings, of resources that lie on no host.
    pub(crate) makings: VecDeque<Millis>,
}

impl Lengths {
    /// How long leases of this work took.
    pub(crate) fn of_work(&self, work: u64) -> Vec<Millis> {
        self.leases.iter().filter(|(of, _)| *of == work).map(|(_, span)| *span).collect()
    }

    /// The mean time of a clean-up.
    pub(crate) fn cleaning(&self) -> Millis {
        let all: i64 = self.cleanings.iter().map(|span| span.0).sum();
        Millis(all / (self.cleanings.len() as i64).max(1))
    }
}

fn note<T>(kept: &mut VecDeque<T>, most: usize, one: T) {
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(one);
}

/// A time that begins with a state of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begun {
    Active(Timestamp),
    Cleaning(Timestamp),
    Nothing,
}

impl Begun {
    pub(crate) fn of(state: &LeaseState) -> Self {
        match state {
            LeaseState::Active { since, .. } => Self::Active(*since),
            LeaseState::Ended { at, cleanup: Some(_), .. } => Self::Cleaning(*at),
            LeaseState::Queued | LeaseState::Preparing { .. } | LeaseState::Ended { cleanup: None, .. } => {
                Self::Nothing
            }
        }
    }
}

/// A time that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Took {
    Lease(u64, Millis),
    Cleaning(Millis),
}

/// The time that ends with this state of a lease.
pub(crate) fn took(begun: Begun, after: &Lease, now: Timestamp) -> Option<(Arc<str>, Took)> {
    let LeaseState::Ended { how, at, cleanup } = &after.state else { return None };
    let took = match (begun, how) {
        (Begun::Active(_), Ended::Broken { .. }) | (Begun::Nothing, _) => return None,
        (Begun::Active(since), _) => Took::Lease(work_of(&after.spec), at.since(since)),
        (Begun::Cleaning(since), _) if cleanup.is_none() => Took::Cleaning(now.since(since)),
        (Begun::Cleaning(_), _) => return None,
    };
    Some((after.pool.clone()?, took))
}

/// A number for the work of a lease, the same for the same [`LeaseSpec::work_key`] of a tenant. FNV-1a: two works that have the
/// same number by chance are mixed up in an estimate.
pub(crate) fn work_of(spec: &LeaseSpec) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |text: &str| {
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(&spec.tenant);
    match &spec.work {
        Some(work) => add(work),
        None if spec.params.is_empty() => add(&spec.holder),
        None => spec.params.iter().for_each(|(key, value)| {
            add(key);
            add(value);
        }),
    }
    hash
}

impl Core {
    /// How long things took lately.
    pub fn learned(&self) -> Learned {
        Learned(self.pools.values().map(|pool| (pool.config.name.clone(), pool.learned.clone())).collect())
    }

    /// Takes over how long things took lately, as another core has seen it.
    pub fn remember(&mut self, learned: Learned) {
        for (name, lengths) in learned.0 {
            if let Some(pool) = self.pools.get_mut(&name) {
                pool.learned = lengths;
            }
        }
    }

    /// Learns from a time that is over.
    pub(crate) fn learn(&mut self, over: Option<(Arc<str>, Took)>) {
        let Some((name, took)) = over else { return };
        let Some(pool) = self.pools.get_mut(&name) else { return };
        match took {
            Took::Lease(work, span) => note(&mut pool.learned.leases, LEASES, (work, span)),
            Took::Cleaning(span) => note(&mut pool.learned.cleanings, OTHERS, span),
        }
    }

    /// Learns from a resource that was being made before: how long that took.
    pub(crate) fn learn_making(&mut self, before: bool, row: &Resource) {
        let made = before && row.parent.is_none() && matches!(row.state, ResourceState::Ready);
        let Some(ready) = row.ready_at.filter(|_| made) else { return };
        if let Some(pool) = self.pools.get_mut(&row.pool) {
            note(&mut pool.learned.makings, OTHERS, ready.since(row.created_at));
        }
    }
}
