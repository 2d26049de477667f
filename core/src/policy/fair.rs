//! Whose turn it is. Priority decides, then the share of each tenant, then age.
//!
//! Within a tenant requests go by priority, then by age, as they do where there is one tenant. Between tenants of one
//! priority the next request goes first whose tenant has the smallest share: slots that it holds and would then hold, by its
//! weight. Shares are compared by cross multiplication.
//!
//! A request that has waited as long as its patience goes before its turn: each span of patience counts as one level of
//! priority, and among those of one level the patient go by age, before shares. So a request is overtaken by a stream of
//! higher priority, or by tenants with small shares, for a bounded time. After such a grant the patience of the tenant begins
//! anew in these pools, so that a long line of old requests owns nothing.

use crate::state::queue::{ClassKey, Party, Place, Stand};
use crate::{Core, Millis, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::{Ordering, Reverse};
use core::ops::Bound;

/// A share: slots by weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    slots: u64,
    weight: u32,
}

impl Share {
    pub(crate) fn new(slots: u64, weight: u32) -> Self {
        Self { slots, weight: weight.max(1) }
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let by = |share: &Self, weight: u32| u128::from(share.slots) * u128::from(weight);
        by(self, other.weight).cmp(&by(other, self.weight))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Share {}

/// The turn of a request: the least is next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Turn {
    level: Reverse<i64>,
    by: By,
    seq: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum By {
    /// It has been patient.
    Age,
    Share(Share),
}

/// A row of the line: requests of one tenant and of one priority. Where there is one tenant, the broker's stand with its
/// own.
type RowKey = (Party, Reverse<i32>);

struct Row {
    parties: Vec<Party>,
    /// Heads before this place were looked at, or are of classes in which nothing more can be served.
    from: Place,
    /// Requests behind a head that waits for a wish of its own.
    behind: BTreeMap<Place, Stand>,
    /// Where it stands in the order, and the class of its next request.
    stands: Option<(Turn, ClassKey)>,
}

/// The request whose turn it is.
#[derive(Clone, Debug)]
pub(crate) struct Next {
    pub(crate) at: Stand,
    row: RowKey,
    /// It goes before its turn.
    patient: bool,
    /// The tenant for which the broker asks.
    on_behalf: Party,
}

/// All requests that compete, in the order in which they are looked at.
pub(crate) struct Line {
    /// Classes of which requests are still looked at.
    open: BTreeSet<ClassKey>,
    rows: BTreeMap<RowKey, Row>,
    order: BTreeSet<(Turn, RowKey)>,
    /// Rows by the class of their next request.
    by_class: BTreeMap<ClassKey, BTreeSet<RowKey>>,
    /// At most one tenant is in line: shares decide nothing.
    alone: bool,
    /// Slots that are kept for requests that wait, by party; they count as held.
    kept: BTreeMap<Party, u64>,
    /// Tenants whose next request exceeds their quota.
    full: BTreeSet<Party>,
    /// Tenants for which copies of a pool are made, by the pool.
    wanted_by: BTreeMap<Arc<str>, Vec<Party>>,
    /// When time alone changes the order.
    changes_at: Option<(Timestamp, ClassKey)>,
}

impl Line {
    /// All requests of these classes.
    pub(crate) fn new(core: &Core, keys: BTreeSet<ClassKey>) -> Self {
        let mut line = Self {
            open: keys,
            rows: BTreeMap::new(),
            order: BTreeSet::new(),
            by_class: BTreeMap::new(),
            alone: true,
            kept: BTreeMap::new(),
            full: BTreeSet::new(),
            wanted_by: BTreeMap::new(),
            changes_at: None,
        };
        let mut found: Vec<(Party, Place)> = Vec::new();
        for (party, own) in core.queue().parties() {
            let mut next = own.heads.iter().find(|(_, head)| line.open.contains(&head.key));
            while let Some((place, _)) = next {
                found.push((party.clone(), *place));
                let lower = (Bound::Excluded((place.0, u64::MAX)), Bound::Unbounded);
                next = own.heads.range(lower).find(|(_, head)| line.open.contains(&head.key));
            }
        }
        // The broker asks for tenants that wait for copies.
        let broker = found.iter().any(|(party, _)| party.is_none());
        let one = |mut tenants: &mut dyn Iterator<Item = &Arc<str>>| {
            let first = tenants.next();
            (&mut tenants).all(|tenant| Some(tenant) == first)
        };
        line.alone = if broker {
            one(&mut core.queue().parties().filter_map(|(party, _)| party.as_ref()))
        } else {
            one(&mut found.iter().filter_map(|(party, _)| party.as_ref()))
        };
        for (party, place) in found {
            let of = if line.alone { None } else { party.clone() };
            let row = line.rows.entry((of, place.0)).or_insert_with(|| Row {
                parties: Vec::new(),
                from: (place.0, 0),
                behind: BTreeMap::new(),
                stands: None,
            });
            row.parties.push(party);
        }
        let keys: Vec<RowKey> = line.rows.keys().cloned().collect();
        for key in keys {
            line.stand(core, &key);
        }
        line
    }

    /// Classes of which requests are still looked at.
    pub(crate) fn open(&self) -> &BTreeSet<ClassKey> {
        &self.open
    }

    /// Whether at most one tenant is in line.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// When time alone changes the order, and a class in it.
    pub(crate) fn changes_at(&self) -> Option<(Timestamp, &ClassKey)> {
        self.changes_at.as_ref().map(|(at, key)| (*at, key))
    }

    /// The next request, and its turn. It is looked at, and then [`Line::served`] or [`Line::short`] is called.
    pub(crate) fn pop(&mut self, core: &Core) -> Option<(Turn, Next)> {
        while let Some((before, row)) = self.order.first().cloned() {
            self.leave(&row);
            if self.open.is_empty() {
                return None;
            }
            let Some((turn, next)) = self.turn(core, &row) else { continue };
            // Grants since it was put here made its share larger.
            if turn > before && self.order.first().is_some_and(|(first, _)| *first < turn) {
                self.put(turn, &next);
                continue;
            }
            let left = core.quota_left(&next.at.party).map(|left| left.saturating_sub(self.kept(&next.at.party)));
            if left.is_some_and(|left| next.at.key.len() as u64 > left) {
                self.full.insert(next.at.party.clone());
                self.stand(core, &row);
                continue;
            }
            return Some((turn, next));
        }
        None
    }

    /// The request was granted. `counted`: its tenant holds the slots already.
    pub(crate) fn served(&mut self, core: &Core, next: &Next, counted: bool) {
        let party = if next.at.party.is_some() { &next.at.party } else { &next.on_behalf };
        if !counted || next.at.party.is_none() {
            *self.kept.entry(party.clone()).or_default() += next.at.key.len() as u64;
        }
        self.go_on(core, next, !counted);
    }

    /// The request waits, with this number of slots kept for it. `behind`: those behind it in its class are looked at.
    pub(crate) fn short(&mut self, core: &Core, next: &Next, kept: usize, behind: bool) {
        let party = if next.at.party.is_some() { &next.at.party } else { &next.on_behalf };
        *self.kept.entry(party.clone()).or_default() += kept as u64;
        if !behind {
            self.open.remove(&next.at.key);
            for row in self.by_class.remove(&next.at.key).unwrap_or_default() {
                self.leave(&row);
                self.stand(core, &row);
            }
        }
        self.go_on(core, next, behind);
    }

    fn kept(&self, party: &Party) -> u64 {
        self.kept.get(party).copied().unwrap_or(0)
    }

    /// Goes on behind a request. One that was granted has left the queue, and the next of its lane is a head.
    fn go_on(&mut self, core: &Core, next: &Next, is_in_line: bool) {
        let Some(row) = self.rows.get_mut(&next.row) else { return };
        let Stand { key, place: (priority, seq), party } = &next.at;
        row.behind.remove(&next.at.place);
        row.from = row.from.max((*priority, seq + 1));
        if is_in_line && let Some(lane) = core.queue().lane(key, party, *priority) {
            let after = lane.range((Bound::Excluded(seq), Bound::Unbounded)).next();
            row.behind.extend(after.map(|(seq, _)| {
                let place = (*priority, *seq);
                (place, Stand { place, ..next.at.clone() })
            }));
        }
        self.stand(core, &next.row);
    }

    /// Puts a row where its next request belongs.
    fn stand(&mut self, core: &Core, row: &RowKey) {
        if let Some((turn, next)) = self.turn(core, row) {
            self.put(turn, &next);
        }
    }

    fn put(&mut self, turn: Turn, next: &Next) {
        if let Some(row) = self.rows.get_mut(&next.row) {
            row.stands = Some((turn, next.at.key.clone()));
            self.order.insert((turn, next.row.clone()));
            self.by_class.entry(next.at.key.clone()).or_default().insert(next.row.clone());
        }
    }

    fn leave(&mut self, row: &RowKey) {
        if let Some((turn, key)) = self.rows.get_mut(row).and_then(|row| row.stands.take()) {
            self.order.remove(&(turn, row.clone()));
            if let Some(rows) = self.by_class.get_mut(&key) {
                rows.remove(row);
            }
        }
    }

    /// The next request of a row, and its turn.
    fn turn(&mut self, core: &Core, row: &RowKey) -> Option<(Turn, Next)> {
        let (at, since) = self.first(core, row)?;
        // Several tenants, or several priorities.
        let (bonus, changes_at) = if self.rows.len() > 1 { bonus(core, &at, since) } else { (0, None) };
        if let Some(time) = changes_at
            && self.changes_at.as_ref().is_none_or(|(before, _)| time < *before)
        {
            self.changes_at = Some((time, at.key.clone()));
        }
        let (share, on_behalf) = if self.alone { (Share::new(0, 1), None) } else { self.share(core, &at) };
        let turn = Turn {
            level: Reverse(i64::from(at.place.0.0).saturating_add(bonus)),
            by: if bonus > 0 { By::Age } else { By::Share(share) },
            seq: at.place.1,
        };
        Some((turn, Next { at, row: row.clone(), patient: bonus > 0, on_behalf }))
    }

    /// The first request of a row that is still to be looked at, and since when it waits.
    fn first(&mut self, core: &Core, key: &RowKey) -> Option<(Stand, Timestamp)> {
        let row = self.rows.get_mut(key)?;
        let end = (key.1, u64::MAX);
        let mut found: Option<(Stand, Timestamp)> = None;
        let sooner = |place: &Place, found: &Option<(Stand, Timestamp)>| {
            found.as_ref().is_none_or(|(before, _)| *place < before.place)
        };
        if row.from <= end {
            for party in row.parties.iter().filter(|party| !self.full.contains(*party)) {
                let heads = core.queue().party(party).map(|own| own.heads.range(row.from..=end));
                let head = heads.into_iter().flatten().find(|(_, head)| self.open.contains(&head.key));
                if let Some((place, head)) = head
                    && sooner(place, &found)
                {
                    let at = Stand { key: head.key.clone(), place: *place, party: party.clone() };
                    found = Some((at, head.since));
                }
            }
            if let Some((at, _)) = &found {
                row.from = at.place;
            }
        }
        let behind = row.behind.values().find(|at| self.open.contains(&at.key) && !self.full.contains(&at.party));
        if let Some(at) = behind
            && sooner(&at.place, &found)
        {
            return Some((at.clone(), core.queue().waiter(at)?.since));
        }
        found
    }

    /// The share that the party of a request would have with it. For the broker it is that of the tenant for which it
    /// asks.
    fn share(&mut self, core: &Core, at: &Stand) -> (Share, Party) {
        let of = |line: &Self, party: &Party| {
            let weight = core.tenant(party).map_or(1, |tenant| tenant.weight);
            Share::new(core.held_for(party, &at.key) + line.kept(party) + at.key.len() as u64, weight)
        };
        if at.party.is_some() {
            return (of(self, &at.party), None);
        }
        // Some copies are made for no tenant, but to have them ready.
        let for_none = (Share::new(u64::MAX, 1), None);
        let lease = core.queue().waiter(at).and_then(|waiter| core.lease(*waiter.leases.first()?));
        let Some(copy) = lease.and_then(|lease| core.resource(lease.spec.child?)) else { return for_none };
        let pool = copy.pool.clone();
        if !self.wanted_by.contains_key(&pool) {
            let classes = core.queue().classes_for(&pool);
            let lanes = classes.iter().filter_map(|key| core.queue().classes.get(key)).flat_map(|c| c.lanes.keys());
            let parties: BTreeSet<&Party> = lanes.map(|(party, _)| party).filter(|party| party.is_some()).collect();
            self.wanted_by.insert(pool.clone(), parties.into_iter().cloned().collect());
        }
        let parties = self.wanted_by.get(&pool).map(Vec::as_slice).unwrap_or_default();
        parties.iter().map(|party| (of(self, party), party.clone())).min().unwrap_or(for_none)
    }
}

/// The levels by which a request has risen, and when it rises again.
fn bonus(core: &Core, at: &Stand, since: Timestamp) -> (i64, Option<Timestamp>) {
    let patience = core.limits().patience;
    if patience <= Millis::ZERO {
        return (0, None);
    }
    let since = since.max(core.patience_since(&at.party, &at.key));
    let bonus = core.now().since(since).0 / patience.0;
    (bonus, Some(since.after(Millis(patience.0.saturating_mul(bonus + 1)))))
}

impl Next {
    /// Whether it goes before its turn.
    pub(crate) fn is_patient(&self) -> bool {
        self.patient
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_compared_without_loss() {
        let share = Share::new;
        assert!(share(1, 2) == share(2, 4) && share(1, 3) < share(1, 2) && share(7, 3) > share(2, 1));
        let most = u64::MAX;
        assert!(share(most, u32::MAX) < share(most, u32::MAX - 1));
        assert!(share(most - 1, 1) < share(most, 1));
        assert_eq!(share(5, 0), share(5, 1), "no weight is a weight of one");
    }

    #[test]
    fn the_order_is_level_then_patience_then_share_then_age() {
        let turn = |level, by, seq| Turn { level: Reverse(level), by, seq };
        let share = |slots| By::Share(Share::new(slots, 1));
        let order = [
            turn(7, share(9), 9),
            turn(1, By::Age, 4),
            turn(1, By::Age, 5),
            turn(1, share(2), 8),
            turn(1, share(3), 1),
            turn(1, share(3), 2),
            turn(0, By::Age, 0),
        ];
        assert!(order.is_sorted());
    }
}
