//! Groups that wait for each other's slots. A member whose preparation failed goes back to the queue while the others
//! of its group keep their slots. If capacity is lost meanwhile, two such groups may each hold what the other needs.
//!
//! Then the younger one is broken, and the older request is served (docs/adr/0021-groups.md). A group that ever was
//! ACTIVE as a whole has nothing in the queue, and never gives way.

use crate::Core;
use crate::policy::matching::Matching;
use crate::policy::scheduler::{Round, Seat};
use crate::state::queue::{Class, Place};
use crate::state::want::Want;
use crate::{GroupId, LeaseId, LeaseState, Resource, ResourceId, Stage};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Slots by resource.
type Slots = BTreeMap<ResourceId, u32>;

/// A group that has some of its slots, and waits for the others.
pub(crate) struct Partial {
    place: Place,
    /// Wants of its queued members.
    wants: Vec<Want>,
    /// A member that has a slot.
    holder: LeaseId,
    holds: Slots,
    /// Of one of its slots it is not yet known whether it can be made ready.
    preparing: bool,
}

impl Core {
    pub(crate) fn partial_group(&self, group: GroupId) -> Option<Partial> {
        let members = self.group(&group)?;
        let rows = || members.iter().filter_map(|id| self.lease(*id)).filter(|row| !row.ended());
        let waiting = rows().find(|row| matches!(row.state, LeaseState::Queued))?;
        let holder = rows().find(|row| row.assignment().is_some())?.id;
        let at = self.queue().place(waiting.id)?;
        let mut holds = Slots::new();
        for assignment in rows().filter_map(|row| row.assignment()) {
            *holds.entry(assignment.resource).or_default() += 1;
        }
        let preparing = rows().any(|row| matches!(row.state, LeaseState::Preparing { .. }));
        Some(Partial { place: at.place, wants: at.key.to_vec(), holder, holds, preparing })
    }

    /// The group that gives way: the youngest that holds what an older request cannot do without, if it cannot be
    /// completed itself. Returns a member that has a slot, and the first lease of the older request.
    pub(crate) fn gives_way(
        &self,
        round: &Round,
        all: &BTreeMap<GroupId, Partial>,
    ) -> Option<(LeaseId, Option<LeaseId>)> {
        let mut youngest_first: Vec<&Partial> = all.values().collect();
        youngest_first.sort_by_key(|partial| core::cmp::Reverse(partial.place));
        let held = sum(youngest_first.iter().map(|partial| &partial.holds));
        // A slot that is kept for a waiting request goes to no other.
        let kept = round.waiting.iter().filter_map(|(claim, _)| match round.matching.seat(*claim) {
            Some(Seat::Free(resource)) => Some(*resource),
            Some(Seat::Made(_) | Seat::Idle(_)) | None => None,
        });
        let mut kept_or_held = held.clone();
        kept.for_each(|resource| *kept_or_held.entry(resource).or_default() += 1);
        let looked = round.looked.iter().filter(|(_, looked)| !looked.unmet);
        let mut classes: Vec<&Class> = looked.filter_map(|(class, _)| self.queue().class(*class)).collect();
        classes.sort_by(|one, other| one.key.cmp(&other.key));
        for young in youngest_first.iter().filter(|partial| !partial.preparing) {
            if self.lacking(&young.wants, &kept_or_held, &Slots::new()) == 0 {
                continue;
            }
            let heads = classes.iter().filter_map(|class| {
                let (place, waiter) = class.first()?;
                (place < young.place).then_some((place, waiter.leases.first().copied(), &class.key))
            });
            for (place, older, key) in heads {
                // Slots of the groups that are younger than it, and its own.
                let away = youngest_first.iter().filter(|partial| partial.place >= place);
                let away = sum(away.map(|partial| &partial.holds));
                let without = self.lacking(key, &away, &Slots::new());
                if without > 0 && self.lacking(key, &away, &young.holds) < without {
                    return Some((young.holder, older));
                }
            }
        }
        None
    }

    /// How many of the wants no slot can serve in time, if these slots stay `away` and those come `back`.
    fn lacking(&self, wants: &[Want], away: &Slots, back: &Slots) -> usize {
        let mut matching = Matching::default();
        let count = |slots: &Slots, id: &ResourceId| slots.get(id).copied().unwrap_or(0);
        let mut lacking = 0;
        for want in wants {
            let mut options = Vec::new();
            for (n, pool) in
                self.pool_order().iter().enumerate().filter_map(|(n, name)| Some((n, self.pool_entry(name)?)))
            {
                let named = want.pools().is_none_or(|names| names.contains(&pool.config.name));
                if !named || !pool.open() {
                    continue;
                }
                for row in pool.members.iter().filter_map(|id| self.resource(*id)).filter(|row| self.will_serve(row)) {
                    if want.matches(&pool.config.name, &pool.config.labels, &row.labels) {
                        let slots = row.slots.saturating_sub(count(away, &row.id)) + count(back, &row.id);
                        matching.set_room(Seat::Free(row.id), slots.min(row.slots));
                        options.push(Seat::Free(row.id));
                    }
                }
                if self.could_serve(pool, want) {
                    let slots = self.room(pool).saturating_mul(pool.config.slots.max(1));
                    matching.set_room(Seat::Made(n), slots);
                    options.push(Seat::Made(n));
                }
            }
            let claim = matching.add(options, 1);
            lacking += usize::from(!matching.fill(claim));
        }
        lacking
    }

    /// Whether leases will be given on a resource without an operator: what holds it will let go of it.
    fn will_serve(&self, row: &Resource) -> bool {
        let coming = || self.entry(&row.id).is_some_and(|entry| entry.counted.coming > 0);
        row.cordoned.is_none()
            && row.hold.is_none()
            && match row.state.stage() {
                Stage::Ready | Stage::Doubted | Stage::Repairing => true,
                Stage::Coming => coming(),
                Stage::Apart | Stage::Draining | Stage::Leaving | Stage::Gone => false,
            }
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Slots>) -> Slots {
    let mut total = Slots::new();
    for (resource, slots) in all.flatten() {
        *total.entry(*resource).or_default() += slots;
    }
    total
}
