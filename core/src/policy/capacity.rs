//! The capacity of the pools: requests that no configuration of them meets, and requests that they cannot meet as
//! they are switched now.

use crate::Core;
use crate::policy::matching::Matching;
use crate::state::tables::Pool;
use crate::state::want::Want;
use crate::{Item, Labels, MachineKey};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::OnceCell;

/// Which part of the configuration counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it, switched on or off.
    Configured,
    /// Pools that are enabled and under no order of an operator.
    SwitchedOn,
}

/// Slots that come from one place: an inventory entry, or all of a pool, each by number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Item(usize, usize),
    Pool(usize),
}

impl Core {
    /// The wants, by number, for which no slot can exist beside those for the others: each an upper bound, by
    /// inventory entry and by pool. Equal wants are counted together, and the last of them are those without a slot.
    pub(crate) fn unmet(&self, wants: &[Want], extent: Extent) -> Vec<usize> {
        let mut kinds: BTreeMap<&Want, Vec<usize>> = BTreeMap::new();
        for (n, want) in wants.iter().enumerate() {
            kinds.entry(want).or_default().push(n);
        }
        let by_item = self.unmet_by(&kinds, wants.len(), |n, pool, want, limit| match &pool.config.inventory {
            Some(items) => {
                let mut rest = limit as u64;
                let enough = self.fitting_items(pool, items, want, extent).take_while(|(_, item)| {
                    let more = rest > 0;
                    rest = rest.saturating_sub(slots_of(pool, item));
                    more
                });
                enough.map(|(m, item)| (Source::Item(n, m), slots_of(pool, item))).collect()
            }
            None => self.whole(n, pool, want, extent),
        });
        if !by_item.is_empty() {
            return by_item;
        }
        self.unmet_by(&kinds, wants.len(), |n, pool, want, _| self.whole(n, pool, want, extent))
    }

    fn unmet_by(
        &self,
        kinds: &BTreeMap<&Want, Vec<usize>>,
        limit: usize,
        sources: impl Fn(usize, &Pool, &Want, usize) -> Vec<(Source, u64)>,
    ) -> Vec<usize> {
        let mut matching = Matching::default();
        let mut unmet = Vec::new();
        for (want, numbers) in kinds {
            let mut options = Vec::new();
            for (n, pool) in
                self.pool_order().iter().enumerate().filter_map(|(n, name)| Some((n, self.pool_entry(name)?)))
            {
                let named = want.pools().is_none_or(|names| names.contains(&pool.config.name));
                for (source, slots) in named.then(|| sources(n, pool, want, limit)).into_iter().flatten() {
                    matching.set_room(source.clone(), u32::try_from(slots).unwrap_or(u32::MAX));
                    options.push(source);
                }
            }
            let claim = matching.add(options, numbers.len() as u32);
            if !matching.fill(claim) {
                let missing = matching.missing(claim) as usize;
                unmet.extend(&numbers[numbers.len() - missing..]);
            }
        }
        unmet
    }

    /// All that a pool can have, if it can serve the want.
    fn whole(&self, n: usize, pool: &Pool, want: &Want, extent: Extent) -> Vec<(Source, u64)> {
        let counts = extent == Extent::Configured || pool.open();
        let serves = counts && self.could_serve(pool, want);
        serves.then(|| (Source::Pool(n), self.most_of(pool, extent))).into_iter().collect()
    }

    /// Slots that a pool can have at most.
    fn most_of(&self, pool: &Pool, extent: Extent) -> u64 {
        let config = &pool.config;
        // A reload that lowers the maximum takes nothing away that is there.
        let most = config.max.max(pool.total.capacity);
        match &config.inventory {
            Some(items) => {
                let on = items.iter().filter(|item| extent == Extent::Configured || self.is_on(pool, item));
                let mut slots: Vec<u64> = on.map(|item| slots_of(pool, item)).collect();
                if slots.len() > most as usize {
                    slots.sort_unstable_by_key(|slots| core::cmp::Reverse(*slots));
                    slots.truncate(most as usize);
                }
                slots.iter().sum()
            }
            None => u64::from(most) * u64::from(config.slots.max(1)),
        }
    }

    /// Whether an inventory entry is enabled and under no order of an operator.
    fn is_on(&self, pool: &Pool, item: &Item) -> bool {
        let out = || self.is_out(&MachineKey { pool: pool.config.name.clone(), item: item.name.clone() });
        item.enabled && !out()
    }

    /// The inventory entries that can serve a want, with their numbers.
    fn fitting_items<'a>(
        &'a self,
        pool: &'a Pool,
        items: &'a [Item],
        want: &'a Want,
        extent: Extent,
    ) -> impl Iterator<Item = (usize, &'a Item)> {
        let config = &pool.config;
        // Labels that the hosts themselves showed. All are looked at once, where the labels of an entry do not suffice.
        let found: OnceCell<BTreeSet<&Arc<str>>> = OnceCell::new();
        let find = move || {
            let rows = pool.members.iter().filter_map(|id| self.resource(*id));
            let fit = rows.filter(|row| want.matches(&config.name, &config.labels, &row.labels));
            fit.filter_map(|row| row.item.as_ref()).collect()
        };
        items.iter().enumerate().filter(move |(_, item)| {
            let on = extent == Extent::Configured || pool.open() && self.is_on(pool, item);
            on && (want.matches(&config.name, &config.labels, &item.labels)
                || found.get_or_init(&find).contains(&item.name))
        })
    }

    /// Slots that the configuration can have at most for a want; of a removed pool, what is left of it.
    pub(crate) fn most_slots(&self, want: &Want) -> u64 {
        let of = |pool: &Pool| match &pool.config.inventory {
            Some(items) => {
                let fitting = self.fitting_items(pool, items, want, Extent::Configured);
                fitting.map(|(_, item)| slots_of(pool, item)).sum::<u64>().min(self.most_of(pool, Extent::Configured))
            }
            None if self.could_serve(pool, want) => self.most_of(pool, Extent::Configured),
            None => 0,
        };
        self.pools_of(want).map(of).fold(0, u64::saturating_add)
    }

    /// Whether a resource that the pool has or could have fits the want.
    pub(crate) fn could_serve(&self, pool: &Pool, want: &Want) -> bool {
        let none = Labels::new();
        let configured = match &pool.config.inventory {
            Some(items) => items.iter().any(|i| want.matches(&pool.config.name, &pool.config.labels, &i.labels)),
            None => want.matches(&pool.config.name, &pool.config.labels, &none),
        };
        configured
            || pool.members.iter().any(|id| {
                self.resource(*id).is_some_and(|row| want.matches(&pool.config.name, &pool.config.labels, &row.labels))
            })
    }
}

fn slots_of(pool: &Pool, item: &Item) -> u64 {
    u64::from(item.slots.unwrap_or(pool.config.slots).max(1))
}
