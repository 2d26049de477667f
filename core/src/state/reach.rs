//! Reaches: the pools that classes name. Classes of one reach compete for the same, and reaches that share a pool compete
//! with each other.

use crate::state::numbered::Numbered;
use crate::state::want::{ClassId, ClassKey};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The number of a reach. Numbers of reaches that are gone are given again; no decision depends on them.
pub(crate) type ReachId = u32;

/// The pools that a class names; `None` among them: something in it goes by labels alone.
pub(crate) type Names = BTreeSet<Option<Arc<str>>>;

/// The classes that name the same pools.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) names: Names,
    pub(crate) classes: BTreeSet<ClassId>,
}

/// All reaches that have classes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reaches {
    all: Numbered<Reach>,
    known: BTreeMap<Names, ReachId>,
    by_pool: BTreeMap<Option<Arc<str>>, BTreeSet<ReachId>>,
}

/// Competitors for some pools.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Competing {
    pub(crate) reaches: BTreeSet<ReachId>,
    /// The pools that they name.
    pub(crate) pools: BTreeSet<Arc<str>>,
    /// Some go by labels alone, and compete for every pool.
    pub(crate) every: bool,
}

fn names(key: &ClassKey) -> Names {
    let mut names = Names::new();
    for want in key.iter() {
        match want.pools() {
            Some(pools) => names.extend(pools.iter().cloned().map(Some)),
            None => drop(names.insert(None)),
        }
    }
    names
}

impl Reaches {
    /// The reach of a class that is new.
    pub(crate) fn add(&mut self, key: &ClassKey) -> ReachId {
        let names = names(key);
        if let Some(id) = self.known.get(&names) {
            return *id;
        }
        let id = self.all.add(Reach { names: names.clone(), classes: BTreeSet::new() });
        for name in &names {
            self.by_pool.entry(name.clone()).or_default().insert(id);
        }
        self.known.insert(names, id);
        id
    }

    /// A class joins its reach.
    pub(crate) fn join(&mut self, id: ReachId, class: ClassId) {
        if let Some(reach) = self.all.get_mut(id) {
            reach.classes.insert(class);
        }
    }

    /// A class leaves its reach, which is gone with its last one.
    pub(crate) fn leave(&mut self, id: ReachId, class: ClassId) {
        let Some(reach) = self.all.get_mut(id) else { return };
        reach.classes.remove(&class);
        if !reach.classes.is_empty() {
            return;
        }
        let Some(reach) = self.all.remove(id) else { return };
        for name in &reach.names {
            if let Some(ids) = self.by_pool.get_mut(name) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_pool.remove(name);
                }
            }
        }
        self.known.remove(&reach.names);
    }

    pub(crate) fn get(&self, id: ReachId) -> Option<&Reach> {
        self.all.get(id)
    }

    /// Reaches that name this pool or have classes that go by labels alone.
    pub(crate) fn of(&self, pool: &Arc<str>) -> BTreeSet<ReachId> {
        let mut ids = self.by_pool.get(&Some(pool.clone())).cloned().unwrap_or_default();
        ids.extend(self.by_pool.get(&None).into_iter().flatten());
        ids
    }

    /// All reaches that compete for these pools, over one pool or a chain of pools, and all the pools that they name. What
    /// one of them is given may be kept for another.
    pub(crate) fn competing(&self, pools: &BTreeSet<Arc<str>>) -> Competing {
        if self.by_pool.contains_key(&None) && !pools.is_empty() {
            return Competing { reaches: self.known.values().copied().collect(), pools: pools.clone(), every: true };
        }
        let mut found = Competing { reaches: BTreeSet::new(), pools: pools.clone(), every: false };
        let mut next: Vec<Arc<str>> = pools.iter().cloned().collect();
        while let Some(pool) = next.pop() {
            for id in self.by_pool.get(&Some(pool)).into_iter().flatten() {
                if found.reaches.insert(*id) {
                    let named = self.all.get(*id).into_iter().flat_map(|reach| reach.names.iter().flatten());
                    next.extend(named.filter(|pool| found.pools.insert((*pool).clone())).cloned());
                }
            }
        }
        found
    }
}
