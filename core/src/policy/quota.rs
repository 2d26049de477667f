//! Quotas of tenants: what each may still have.

use crate::Core;
use crate::policy::scheduler::Round;
use crate::state::queue::{ClassKey, Party, Place};
use alloc::collections::{BTreeMap, BTreeSet};
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

    /// Whether a party has a limit.
    fn is_limited(&self, party: &Party) -> bool {
        self.tenant(party).is_none_or(|tenant| tenant.max_slots.is_some())
    }

    /// Requests of each class beyond those that a round has looked at, as far as the quotas of their tenants allow them.
    pub(crate) fn rest_within_quota(&self, round: &Round, keys: &BTreeSet<ClassKey>) -> BTreeMap<ClassKey, usize> {
        let mut rest: BTreeMap<ClassKey, usize> = BTreeMap::new();
        let tenants = self.tenants();
        let limited = tenants.others.as_ref().is_some_and(|others| others.max_slots.is_some());
        if tenants.is_empty()
            || !limited && tenants.others.is_some() && tenants.named.values().all(|t| t.max_slots.is_none())
        {
            for key in keys {
                let Some(class) = self.queue().classes.get(key) else { continue };
                let seen = round.looked.get(key).map_or(0, |looked| looked.waiters);
                rest.insert(key.clone(), class.requests.saturating_sub(seen));
            }
            return rest;
        }
        for (party, own) in self.queue().parties() {
            let seen = |key: &ClassKey, priority| {
                round
                    .looked
                    .get(key)
                    .and_then(|looked| looked.lanes.get(&(party.clone(), priority)))
                    .copied()
                    .unwrap_or(0)
            };
            let mut left = if self.is_limited(party) { self.quota_left(party) } else { None };
            if let Some(left) = &mut left {
                let promised = |key: &ClassKey, priority| (seen(key, priority) * key.len()) as u64;
                let heads = own.heads.iter().filter(|(_, head)| keys.contains(&head.key));
                let promised: u64 = heads.map(|(place, head)| promised(&head.key, place.0)).sum();
                *left = left.saturating_sub(promised);
            }
            // In the order of their places, lane by lane.
            let mut line: BTreeSet<(Place, ClassKey)> = BTreeSet::new();
            for (place, head) in own.heads.iter().filter(|(_, head)| keys.contains(&head.key)) {
                let Some(lane) = self.queue().lane(&head.key, party, place.0) else { continue };
                let skip = seen(&head.key, place.0);
                let Some(left) = left else {
                    *rest.entry(head.key.clone()).or_default() += lane.len().saturating_sub(skip);
                    continue;
                };
                if left > 0
                    && let Some((seq, _)) = lane.iter().nth(skip)
                {
                    line.insert(((place.0, *seq), head.key.clone()));
                }
            }
            let Some(left) = &mut left else { continue };
            while let Some(((priority, seq), key)) = line.pop_first() {
                if key.len() as u64 > *left {
                    break;
                }
                *left -= key.len() as u64;
                *rest.entry(key.clone()).or_default() += 1;
                let lane = self.queue().lane(&key, party, priority);
                let next = lane.and_then(|lane| lane.range((Bound::Excluded(seq), Bound::Unbounded)).next());
                line.extend(next.map(|(seq, _)| ((priority, *seq), key)));
            }
        }
        rest
    }
}
