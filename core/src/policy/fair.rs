//! The order of requests. Priority decides, then the share of each tenant, then age.
//!
//! Within a tenant requests go by priority, then by age, as they do where there is one tenant. Between tenants of one
//! priority the next request goes first whose tenant has the smallest share: slots that it holds and would then hold, by its
//! weight. Shares are compared by cross multiplication.
//!
//! A request that has waited as long as its patience goes before its turn: each span of patience counts as one level of
//! priority, and among those of one level the patient go by age, before shares. So a request is overtaken by a stream of
//! higher priority, or by tenants with small shares, for a bounded time. After such a grant the patience of the tenant begins
//! anew in these pools, so that a long line of old requests owns nothing.

use crate::policy::ranking::turn;
use crate::policy::turn::{Share, Turn};
use crate::state::queue::{Party, Place, Stand};
use crate::state::ranks::{Ranks, RowKey};
use crate::state::want::ClassId;
use crate::{Core, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Bound;

/// A row of the line that was looked at: requests of one tenant and of one priority. Where there is one tenant, the
/// broker's stand with its own.
struct Row {
    parties: Vec<Party>,
    /// Heads before this place were looked at, or are of classes in which nothing more can be served.
    from: Place,
    /// Requests behind a head that waits for a wish of its own.
    behind: BTreeMap<Place, Stand>,
    /// Where it stands in the order, and the class of its next request.
    stands: Option<(Turn, ClassId)>,
}

impl Row {
    fn new(priority: Reverse<i32>) -> Self {
        Self { parties: Vec::new(), from: (priority, 0), behind: BTreeMap::new(), stands: None }
    }
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
    /// The order before anything was looked at. It counts for rows that are not in `rows`, where several tenants are in
    /// line.
    ranks: Ranks,
    contested: bool,
    /// All of `ranks` up to here was looked at.
    before: Option<(Turn, RowKey)>,
    /// Classes of which no more requests are looked at.
    closed: BTreeSet<ClassId>,
    rows: BTreeMap<RowKey, Row>,
    order: BTreeSet<(Turn, RowKey)>,
    /// Rows by the class of their next request.
    by_class: BTreeMap<ClassId, BTreeSet<RowKey>>,
    /// At most one tenant is in line: shares decide nothing.
    alone: bool,
    /// Slots that are kept for requests that wait, by party; they count as held.
    kept: BTreeMap<Party, u64>,
    /// Pools in which the patience of a party would begin anew by a grant that is not carried out.
    begun: BTreeMap<Party, BTreeSet<Arc<str>>>,
    /// Tenants whose next request exceeds their quota.
    full: BTreeSet<Party>,
    /// Tenants for which copies of a pool are made, by the pool.
    wanted_by: BTreeMap<Arc<str>, Vec<Party>>,
    /// When time alone changes the order.
    changes_at: Option<(Timestamp, ClassId)>,
}

impl Line {
    /// All requests of an order.
    pub(crate) fn new(core: &Core, ranks: Ranks) -> Self {
        let ranks = core.up_to_date(ranks);
        let contested = ranks.is_contested();
        // The broker asks for tenants that wait for copies.
        let broker = ranks.rows().next().is_some_and(|(party, _)| party.is_none());
        let mut line = Self {
            contested,
            alone: if broker { core.is_one_tenant_in_line() } else { !contested },
            changes_at: ranks.rises_at().filter(|_| contested),
            ranks,
            before: None,
            closed: BTreeSet::new(),
            rows: BTreeMap::new(),
            order: BTreeSet::new(),
            by_class: BTreeMap::new(),
            kept: BTreeMap::new(),
            begun: BTreeMap::new(),
            full: BTreeSet::new(),
            wanted_by: BTreeMap::new(),
        };
        let first = line.ranks.rows().take_while(|(party, _)| !contested || party.is_none());
        for (party, priority) in first.cloned().collect::<Vec<_>>() {
            let of = if line.alone { None } else { party.clone() };
            line.rows.entry((of, priority)).or_insert_with(|| Row::new(priority)).parties.push(party);
        }
        for key in line.rows.keys().cloned().collect::<Vec<_>>() {
            line.stand(core, &key);
        }
        line
    }

    /// The order, to be kept.
    pub(crate) fn into_ranks(self) -> Ranks {
        self.ranks
    }

    /// Classes of which requests are still looked at, in the order of their keys.
    pub(crate) fn open(&self, core: &Core) -> Vec<ClassId> {
        let mut classes = core.queue().classes_in(&self.ranks.reaches);
        classes.retain(|class| !self.closed.contains(class));
        classes
    }

    /// Whether at most one tenant is in line.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// When time alone changes the order, and a class in it.
    pub(crate) fn changes_at(&self) -> Option<(Timestamp, ClassId)> {
        self.changes_at
    }

    /// The next request, and its turn. It is looked at, and then [`Line::served`] or [`Line::short`] is called.
    pub(crate) fn pop(&mut self, core: &Core) -> Option<(Turn, Next)> {
        while let Some((before, row)) = self.first_row() {
            self.touch(&row);
            self.leave(&row);
            let Some((turn, next)) = self.turn(core, &row) else { continue };
            // Grants since it was put here made its share larger.
            if turn > before && self.first_row().is_some_and(|(first, _)| first < turn) {
                self.put(turn, &next);
                continue;
            }
            let left = core.quota_left(&next.at.party).map(|left| left.saturating_sub(self.kept(&next.at.party)));
            if let Some(left) = left.filter(|left| next.at.key.len() as u64 > *left) {
                if left > 0 && core.can_have_never(&next.at) {
                    self.pass(core, &next);
                } else {
                    self.full.insert(next.at.party.clone());
                    self.stand(core, &row);
                }
                continue;
            }
            return Some((turn, next));
        }
        None
    }

    /// The request was granted. `counted`: its tenant holds the slots already.
    pub(crate) fn served(&mut self, core: &Core, next: &Next, counted: bool) {
        let party = if next.at.party.is_some() { &next.at.party } else { &next.on_behalf };
        if next.patient && !counted {
            let pools = next.at.key.iter().flat_map(|want| core.pools_of(want)).map(|pool| pool.config.name.clone());
            self.begun.entry(next.at.party.clone()).or_default().extend(pools);
        }
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
            self.closed.insert(next.at.class);
            let mut rows = self.by_class.remove(&next.at.class).unwrap_or_default();
            if self.contested {
                let untouched = self.ranks.of_class(next.at.class).filter(|row| !self.rows.contains_key(*row));
                rows.extend(untouched.cloned());
            }
            for row in rows {
                self.touch(&row);
                self.leave(&row);
                self.stand(core, &row);
            }
        }
        self.go_on(core, next, behind);
    }

    fn kept(&self, party: &Party) -> u64 {
        self.kept.get(party).copied().unwrap_or(0)
    }

    /// The first row in the order.
    fn first_row(&mut self) -> Option<(Turn, RowKey)> {
        let own = self.order.first();
        if !self.contested {
            return own.cloned();
        }
        while let Some(first) = self.ranks.after(self.before.as_ref()) {
            if own.is_some_and(|own| own < first) {
                break;
            }
            if !self.rows.contains_key(&first.1) {
                return Some(first.clone());
            }
            self.before = Some(first.clone());
        }
        own.cloned()
    }

    /// From now on a row of the kept order has a state of its own.
    fn touch(&mut self, key: &RowKey) {
        if !self.rows.contains_key(key) {
            self.rows.insert(key.clone(), Row { parties: alloc::vec![key.0.clone()], ..Row::new(key.1) });
        }
    }

    /// Goes on behind a request. One that was granted has left the queue. If it was a head, the next of its lane is a head; if it
    /// stood behind one that waits for a wish of its own, the next one does too.
    fn go_on(&mut self, core: &Core, next: &Next, is_in_line: bool) {
        let Some(row) = self.rows.get_mut(&next.row) else { return };
        let Stand { class, place: (priority, seq), party, .. } = &next.at;
        let was_behind = row.behind.remove(&next.at.place).is_some();
        row.from = row.from.max((*priority, seq + 1));
        if (is_in_line || was_behind)
            && let Some(lane) = core.queue().lane(*class, party, *priority)
        {
            let after = lane.range((Bound::Excluded(seq), Bound::Unbounded)).next();
            row.behind.extend(after.map(|(seq, _)| {
                let place = (*priority, *seq);
                (place, Stand { place, ..next.at.clone() })
            }));
        }
        self.stand(core, &next.row);
    }

    /// Goes on behind a request of which nothing is granted or kept, nor of those behind it in its lane.
    fn pass(&mut self, core: &Core, next: &Next) {
        if let Some(row) = self.rows.get_mut(&next.row) {
            row.behind.remove(&next.at.place);
            row.from = row.from.max((next.at.place.0, next.at.place.1 + 1));
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
            row.stands = Some((turn, next.at.class));
            self.order.insert((turn, next.row.clone()));
            self.by_class.entry(next.at.class).or_default().insert(next.row.clone());
        }
    }

    fn leave(&mut self, row: &RowKey) {
        if let Some((turn, class)) = self.rows.get_mut(row).and_then(|row| row.stands.take()) {
            self.order.remove(&(turn, row.clone()));
            if let Some(rows) = self.by_class.get_mut(&class) {
                rows.remove(row);
            }
        }
    }

    /// The next request of a row, and its turn.
    fn turn(&mut self, core: &Core, row: &RowKey) -> Option<(Turn, Next)> {
        let (at, since) = self.first(core, row)?;
        // Several tenants, or several priorities.
        let several = self.contested || self.rows.len() > 1;
        let since = if self.began_anew(core, &at) { core.now() } else { since };
        let (bonus, changes_at) = if several { core.bonus(&at.party, &at.key, since) } else { (0, None) };
        if let Some(time) = changes_at
            && self.changes_at.as_ref().is_none_or(|(before, _)| time < *before)
        {
            self.changes_at = Some((time, at.class));
        }
        let (share, on_behalf) = if self.alone { (Share::new(0, 1), None) } else { self.share(core, &at) };
        let turn = turn(at.place, bonus, share);
        Some((turn, Next { at, row: row.clone(), patient: bonus > 0, on_behalf }))
    }

    /// Whether the patience of a party would begin anew in the pools of a request by a grant before it.
    fn began_anew(&self, core: &Core, at: &Stand) -> bool {
        let Some(pools) = self.begun.get(&at.party) else { return false };
        at.key.iter().flat_map(|want| core.pools_of(want)).any(|pool| pools.contains(&pool.config.name))
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
            let range = (Bound::Included(row.from), Bound::Included(end));
            for party in row.parties.iter().filter(|party| !self.full.contains(*party)) {
                let Some(own) = core.queue().party(party) else { continue };
                let head = own.first(&self.ranks.reaches, range, |class| !self.closed.contains(&class));
                if let Some((place, head)) = head
                    && sooner(&place, &found)
                    && let Some(class) = core.queue().class(head.class)
                {
                    let at = Stand { class: head.class, key: class.key.clone(), place, party: party.clone() };
                    found = Some((at, head.since));
                }
            }
            if let Some((at, _)) = &found {
                row.from = at.place;
            }
        }
        let behind = row.behind.values().find(|at| !self.closed.contains(&at.class) && !self.full.contains(&at.party));
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
        if at.party.is_some() {
            return (core.share(&at.party, &at.key, self.kept(&at.party)), None);
        }
        // Some copies are made for no tenant, but to have them ready.
        let for_none = (Share::new(u64::MAX, 1), None);
        let lease = core.queue().waiter(at).and_then(|waiter| core.lease(*waiter.leases.first()?));
        let Some(copy) = lease.and_then(|lease| core.resource(lease.spec.child?)) else { return for_none };
        let pool = copy.pool.clone();
        if !self.wanted_by.contains_key(&pool) {
            let parties = core.queue().parties_for(&pool).into_iter().filter(Option::is_some);
            self.wanted_by.insert(pool.clone(), parties.collect());
        }
        let parties = self.wanted_by.get(&pool).map(Vec::as_slice).unwrap_or_default();
        let of = |party: &Party| (core.share(party, &at.key, self.kept(party)), party.clone());
        parties.iter().map(of).min().unwrap_or(for_none)
    }
}

impl Core {
    /// Whether at most one tenant has requests in the queue.
    fn is_one_tenant_in_line(&self) -> bool {
        let first = self.queue().parties().map(|(party, _)| party).find(|party| party.is_some());
        first == self.queue().parties().map(|(party, _)| party).rfind(|party| party.is_some())
    }
}

impl Next {
    /// Whether it goes before its turn.
    pub(crate) fn is_patient(&self) -> bool {
        self.patient
    }
}
