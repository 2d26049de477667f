//! Quotas of tenants: what each may still have.

use crate::Core;
use crate::policy::capacity::Extent;
use crate::policy::scheduler::Round;
use crate::state::queue::{Head, InLine, Party, Place, Stand};
use crate::state::reach::ReachId;
use crate::state::want::ClassId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::iter::Peekable;
use core::ops::Bound;

impl Core {
    /// The slots that a party may still have; `None`: it has no limit. A tenant that the configuration does not have may
    /// have none.
    pub(crate) fn quota_left(&self, party: &Party) -> Option<u64> {
        let most = match self.tenant(party) {
            Some(tenant) => tenant.max_slots?,
            None => 0,
        };
        let held = party.as_ref().and_then(|name| self.held(name)).map_or(0, |held| held.slots);
        Some(u64::from(most.saturating_sub(held)))
    }

    /// Whether no release lets a party have a request: it is larger than the party's quota, or the pools, as they are switched now,
    /// cannot meet it. It is passed over, so that the party's other requests do not wait for a new configuration.
    pub(crate) fn can_have_never(&self, at: &Stand) -> bool {
        let most = self.tenant(&at.party).and_then(|tenant| tenant.max_slots);
        most.is_some_and(|most| at.key.len() as u64 > u64::from(most))
            || !self.unmet(&at.key, Extent::SwitchedOn).is_empty()
    }

    /// Requests of each class beyond those that a round has looked at, as far as the quotas of their tenants allow them;
    /// in the order of the keys.
    pub(crate) fn rest_within_quota(&self, round: &Round, reaches: &BTreeSet<ReachId>) -> Vec<(ClassId, usize)> {
        let within = self.rest_of_bounded(round, reaches);
        let rest = |id: ClassId| {
            let looked = round.looked.get(&id).into_iter().flat_map(|looked| &looked.lanes);
            let seen: usize = looked.filter(|((party, _), _)| !self.is_bounded(party)).map(|(_, count)| count).sum();
            let unbounded = self.queue().class(id).map_or(0, |class| class.requests - class.bounded);
            unbounded.saturating_sub(seen) + within.get(&id).copied().unwrap_or(0)
        };
        self.queue().classes_in(reaches).into_iter().map(|id| (id, rest(id))).collect()
    }

    /// The same, of the parties that have a quota.
    fn rest_of_bounded(&self, round: &Round, reaches: &BTreeSet<ReachId>) -> BTreeMap<ClassId, usize> {
        let mut rest: BTreeMap<ClassId, usize> = BTreeMap::new();
        let mut promised: BTreeMap<&Party, u64> = BTreeMap::new();
        for (id, looked) in &round.looked {
            let wants = self.queue().class(*id).map_or(0, |class| class.key.len());
            for ((party, _), count) in &looked.lanes {
                *promised.entry(party).or_default() += (count * wants) as u64;
            }
        }
        for (party, own) in self.queue().parties().filter(|(_, own)| own.bounded) {
            let left = self.quota_left(party).unwrap_or(0);
            let mut left = left.saturating_sub(promised.get(party).copied().unwrap_or(0));
            let mut line = InOrder::new(own, reaches);
            while left > 0
                && let Some(((priority, seq), class)) = line.pop()
            {
                let Some(lane) = self.queue().lane(class, party, priority) else { continue };
                let looked = round.looked.get(&class).and_then(|looked| looked.lanes.get(&(party.clone(), priority)));
                let seen = looked.copied().unwrap_or(0);
                if seen > 0 && lane.first().is_some_and(|(first, _)| first == seq) {
                    line.put(lane.behind(seen).next().map(|(seq, _)| ((priority, *seq), class)));
                    continue;
                }
                let Some(key) = self.queue().class(class).map(|class| &class.key) else { continue };
                let wants = key.len() as u64;
                if wants > left {
                    let at = Stand { class, key: key.clone(), place: (priority, seq), party: party.clone() };
                    if self.can_have_never(&at) {
                        continue;
                    }
                    break;
                }
                left -= wants;
                *rest.entry(class).or_default() += 1;
                let next = lane.range((Bound::Excluded(seq), Bound::Unbounded)).next();
                line.put(next.map(|(seq, _)| ((priority, *seq), class)));
            }
        }
        rest
    }
}

/// The requests of a party in the order of their places, lane by lane: its heads, and what is put beside them.
struct InOrder<I: Iterator<Item = (Place, ClassId)>> {
    heads: Vec<Peekable<I>>,
    others: BTreeSet<(Place, ClassId)>,
}

impl<'a> InOrder<Heads<'a>> {
    fn new(own: &'a InLine, reaches: &BTreeSet<ReachId>) -> Self {
        let within = own.heads.iter().filter(|(reach, _)| reaches.contains(reach));
        Self { heads: within.map(|(_, heads)| Heads(heads.iter()).peekable()).collect(), others: BTreeSet::new() }
    }
}

impl<I: Iterator<Item = (Place, ClassId)>> InOrder<I> {
    fn put(&mut self, request: Option<(Place, ClassId)>) {
        self.others.extend(request);
    }

    fn pop(&mut self) -> Option<(Place, ClassId)> {
        let heads = self.heads.iter_mut().enumerate().filter_map(|(n, heads)| heads.peek().map(|first| (*first, n)));
        match (heads.min(), self.others.first()) {
            (Some((head, n)), other) if other.is_none_or(|other| head < *other) => self.heads[n].next(),
            _ => self.others.pop_first(),
        }
    }
}

/// The heads of one reach.
struct Heads<'a>(alloc::collections::btree_map::Iter<'a, Place, Head>);

impl Iterator for Heads<'_> {
    type Item = (Place, ClassId);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(place, head)| (*place, head.class))
    }
}
