//! The next requests of all parties with some reaches, in the order of their turns, kept from one placing to the next.
//!
//! Changes that move a party are noted where they happen: a party whose requests, slots or patience changed is ranked anew
//! at the next use. Nothing of it is stored, and none of it differs from what ranking all parties anew gives.

use crate::policy::turn::Turn;
use crate::state::queue::Party;
use crate::state::reach::ReachId;
use crate::state::want::ClassId;
use crate::{Core, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Bound;

/// Maximum number of changes that are remembered; who lags behind more ranks all parties anew.
const CHANGES: usize = 4096;

/// Maximum number of orders that are kept. There is one for each set of pools that compete.
const KEPT: usize = 16;

/// A row of the line: requests of one party and of one priority.
pub(crate) type RowKey = (Party, Reverse<i32>);

/// The next request of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranked {
    pub(crate) class: ClassId,
    /// Its turn; `None`: it is found at each placing (the broker's), or its party has used up its quota.
    pub(crate) turn: Option<Turn>,
    /// When time alone changes its turn.
    pub(crate) rises_at: Option<Timestamp>,
}

/// The order of the next requests with some reaches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranks {
    pub(crate) reaches: BTreeSet<ReachId>,
    /// The number of the first change that it does not know.
    seen: u64,
    rows: BTreeMap<RowKey, Ranked>,
    order: BTreeSet<(Turn, RowKey)>,
    by_class: BTreeMap<ClassId, BTreeSet<RowKey>>,
    rises: BTreeSet<(Timestamp, RowKey)>,
}

/// Parties whose requests, slots or patience changed, in the order of the changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The number of the first that is remembered.
    first: u64,
    parties: VecDeque<Party>,
}

impl Changes {
    fn add(&mut self, party: &Party) {
        if self.parties.len() >= CHANGES {
            self.parties.pop_front();
            self.first += 1;
        }
        self.parties.push_back(party.clone());
    }
}

impl Ranks {
    /// The order of these reaches, which was never made.
    pub(crate) fn of(reaches: BTreeSet<ReachId>) -> Self {
        Self { reaches, ..Self::default() }
    }

    /// Whether several tenants are in line.
    pub(crate) fn is_contested(&self) -> bool {
        let mut tenants = self.rows.keys().map(|(party, _)| party).filter(|party| party.is_some());
        let last = self.rows.keys().next_back().map(|(party, _)| party);
        tenants.next().is_some_and(|first| Some(first) != last)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &RowKey> {
        self.rows.keys()
    }

    /// The first in the order after this one.
    pub(crate) fn after(&self, before: Option<&(Turn, RowKey)>) -> Option<&(Turn, RowKey)> {
        let from = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).next()
    }

    /// The rows in the order whose next request is of a class.
    pub(crate) fn of_class(&self, class: ClassId) -> impl Iterator<Item = &RowKey> {
        self.by_class.get(&class).into_iter().flatten()
    }

    /// When time alone changes the order first, and the class of the request that rises.
    pub(crate) fn rises_at(&self) -> Option<(Timestamp, ClassId)> {
        let (at, row) = self.rises.first()?;
        Some((*at, self.rows.get(row)?.class))
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, key: RowKey, row: Ranked) {
        if let Some(turn) = row.turn {
            self.order.insert((turn, key.clone()));
            self.by_class.entry(row.class).or_default().insert(key.clone());
        }
        self.rises.extend(row.rises_at.map(|at| (at, key.clone())));
        self.rows.insert(key, row);
    }

    /// Removes the rows of a party.
    pub(crate) fn remove(&mut self, party: &Party) {
        let from = (party.clone(), Reverse(i32::MAX));
        let own = self.rows.range(from..).map(|(key, _)| key).take_while(|(other, _)| other == party);
        let own: Vec<RowKey> = own.cloned().collect();
        for key in own {
            let Some(row) = self.rows.remove(&key) else { continue };
            if let Some(at) = row.rises_at {
                self.rises.remove(&(at, key.clone()));
            }
            let Some(turn) = row.turn else { continue };
            if let Some(rows) = self.by_class.get_mut(&row.class) {
                rows.remove(&key);
                if rows.is_empty() {
                    self.by_class.remove(&row.class);
                }
            }
            self.order.remove(&(turn, key));
        }
    }

    /// A party of which time alone has changed a turn by now.
    pub(crate) fn risen(&self, now: Timestamp) -> Option<Party> {
        self.rises.first().filter(|(at, _)| *at <= now).map(|(_, (party, _))| party.clone())
    }

    /// Removes all rows.
    pub(crate) fn clear(&mut self) {
        *self = Self { reaches: core::mem::take(&mut self.reaches), seen: self.seen, ..Self::default() };
    }

    /// Whether another order is the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.rows, &self.order, &self.by_class, &self.rises)
            == (&other.rows, &other.order, &other.by_class, &other.rises)
    }
}

impl Core {
    /// Ranks a party anew: its requests, slots or patience changed.
    pub(crate) fn rank_anew(&mut self, party: &Party) {
        self.changes.add(party);
    }

    /// Ranks all parties anew: a rule for the turns of all of them changed.
    pub(crate) fn rank_all_anew(&mut self) {
        self.ranks.clear();
    }

    /// The order of these reaches, as it was left; one that was never made knows no change.
    pub(crate) fn take_ranks(&mut self, reaches: &BTreeSet<ReachId>) -> Ranks {
        match self.ranks.iter().position(|ranks| ranks.reaches == *reaches) {
            Some(n) => self.ranks.remove(n),
            None => Ranks::of(reaches.clone()),
        }
    }

    /// Keeps an order until it is wanted again.
    pub(crate) fn keep_ranks(&mut self, ranks: Ranks) {
        if self.ranks.len() >= KEPT {
            self.ranks.remove(0);
        }
        self.ranks.push(ranks);
    }

    /// The orders that are kept.
    pub(crate) fn kept_ranks(&self) -> &[Ranks] {
        &self.ranks
    }

    /// The parties that changed since an order was last brought up to date; `None`: all may have. Notes that it knows of
    /// them.
    pub(crate) fn changed_since(&self, ranks: &mut Ranks) -> Option<BTreeSet<&Party>> {
        let Changes { first, parties } = &self.changes;
        // Counting starts at 1, so that an order that was never made knows nothing.
        let (first, next) = (first + 1, first + 1 + parties.len() as u64);
        let seen = core::mem::replace(&mut ranks.seen, next);
        let known = usize::try_from(seen.checked_sub(first)?).ok()?;
        Some(parties.iter().skip(known).collect())
    }
}
