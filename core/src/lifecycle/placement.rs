//! Carries out what the scheduler decides: grants, and the end of a group that gives way.

use crate::Core;
use crate::lifecycle::Consequence;
use crate::policy::autoscale::Demand;
use crate::policy::deadlock::Partial;
use crate::policy::scheduler::{Look, Round, Seat};
use crate::state::outbox::SELF;
use crate::{GroupId, LeaseId, LeaseState, Link, Reason, Source, Subject};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;

impl Core {
    /// Grants what can be granted. Returns what is missing then.
    pub(crate) fn place(&mut self, dirty: &BTreeSet<Arc<str>>) -> Demand {
        let (keys, mut pools, every) = self.queue().competing(dirty);
        if every {
            pools = self.pool_names().cloned().collect();
        }
        let mut round = Round::default();
        let mut line = self.line(&keys);
        while let Some((place, key)) = line.pop_first() {
            let Some((leases, next)) = self.waiter_at(&key, place) else { continue };
            let go_on = match self.look(&mut round, &key, &leases) {
                Look::Served(found) => {
                    self.dequeue(leases[0]);
                    for (lease, resource) in leases.iter().zip(found) {
                        self.grant(*lease, resource);
                        let free = self.entry(&resource).map_or(0, |entry| entry.counted.free);
                        round.matching.set_room(Seat::Free(resource), free);
                    }
                    true
                }
                Look::Short(_) => round.looks_behind(&key),
            };
            if let Some(next) = next.filter(|_| go_on) {
                line.insert((next, key));
            }
        }
        self.give_way(&round);
        self.demand(round, &keys, pools)
    }

    /// Finds the groups that are partly in the queue, from the rows.
    pub(crate) fn find_partial_groups(&mut self) {
        let queued = self.lease_entries().filter(|entry| matches!(entry.row.state, LeaseState::Queued));
        let groups = queued.filter(|entry| !entry.row.spec.independent).filter_map(|entry| entry.row.spec.group);
        let groups: BTreeSet<GroupId> = groups.collect();
        let partial = groups.into_iter().filter(|group| self.partial_group(*group).is_some()).collect();
        self.set_partial_groups(partial);
    }

    /// Breaks the group that gives way, if there is one.
    fn give_way(&mut self, round: &Round) {
        if self.partial_groups().is_empty() {
            return;
        }
        let all: BTreeMap<GroupId, Partial> =
            self.partial_groups().iter().filter_map(|group| Some((*group, self.partial_group(*group)?))).collect();
        self.set_partial_groups(all.keys().copied().collect());
        if let Some((holder, older)) = self.gives_way(round, &all) {
            self.break_partial(holder, older);
        }
    }

    fn break_partial(&mut self, holder: LeaseId, older: Option<LeaseId>) {
        let older = older.map_or_else(|| "an older request".into(), |id| format!("{id}, which is older"));
        let link = Link {
            subject: Subject::Lease(holder),
            reason: Reason::Policy,
            detail: Arc::from(format!(
                "its group was incomplete, and each waited for slots of the other: it gave way to {older}"
            )),
            source: Source::Broker,
            at: self.now(),
        };
        let (cause, actor) = (alloc::vec![link], Arc::from(SELF));
        self.bring_about(Consequence::Break { lease: holder, cause, actor });
    }
}
