//! Carries out what the scheduler decides: grants, and the end of a group that gives way.

use crate::Core;
use crate::lifecycle::Consequence;
use crate::policy::autoscale::Demand;
use crate::policy::deadlock::Partial;
use crate::policy::fair::{Line, Next};
use crate::policy::scheduler::{Look, Round, Seat};
use crate::state::outbox::SELF;
use crate::state::queue::{Party, Stand};
use crate::state::reach::{Competing, ReachId};
use crate::state::tables::Pool;
use crate::state::want::ClassId;
use crate::{GroupId, LeaseId, LeaseState, Link, Reason, ResourceId, Source, Subject, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// Grants what can be granted. Returns what is missing then.
    pub(crate) fn place(&mut self, dirty: &BTreeSet<Arc<str>>) -> Demand {
        let (reaches, pools) = self.competing(dirty);
        let mut round = Round::default();
        if reaches.is_empty() || self.can_have_nothing(&pools) {
            self.give_way(&round);
            return Demand { pools, ..Demand::default() };
        }
        let ranks = self.take_ranks(&reaches);
        let mut line = Line::new(self, ranks);
        let mut all_given = false;
        while let Some((_, next)) = line.pop(self) {
            match self.look(&mut round, &next.at) {
                Look::Served(found) => {
                    self.serve(&mut round, &next, found);
                    line.served(self, &next, true);
                    all_given = self.can_have_nothing(&pools);
                    if all_given || !line.is_alone() && !self.any_free(&pools) {
                        break;
                    }
                }
                Look::Short(short) => line.short(self, &next, short.kept, round.looks_behind(next.at.class)),
            }
        }
        if self.any_free(&pools) {
            self.look_again_in_time(&line);
        } else if !all_given && !line.is_alone() {
            self.look_at_the_rest(&mut round, &line.open(self));
        }
        self.keep_ranks(line.into_ranks());
        self.give_way(&round);
        self.replace_between_tenants(&round);
        if all_given {
            return Demand { pools, ..Demand::default() };
        }
        self.demand(round, &reaches, pools)
    }

    /// The reaches that compete for these pools, and all pools for which they compete.
    fn competing(&self, dirty: &BTreeSet<Arc<str>>) -> (BTreeSet<ReachId>, BTreeSet<Arc<str>>) {
        let Competing { reaches, pools, every } = self.queue().reaches().competing(dirty);
        (reaches, if every { self.pool_names().cloned().collect() } else { pools })
    }

    /// Whether a request would be granted, if all in line were looked at now; changes nothing.
    pub(crate) fn would_be_granted(&mut self, id: LeaseId) -> bool {
        let Some(own) = self.queue().place(id).cloned() else { return false };
        let (reaches, pools) = self.competing(self.dirty());
        if self.can_have_nothing(&pools) {
            return false;
        }
        let ranks = self.take_ranks(&reaches);
        let mut line = Line::new(self, ranks);
        let has = self.look_up_to(&own, &mut line);
        self.keep_ranks(line.into_ranks());
        has.is_some_and(|has| has.into_iter().all(|has| has))
    }

    /// Whether looking at requests for these pools changes nothing: nothing is free, nothing can be made, no idle copy can
    /// give its slot back, and no group can give way.
    fn can_have_nothing(&mut self, pools: &BTreeSet<Arc<str>>) -> bool {
        let may_get_room = |pool: &Pool| !pool.config.on.is_empty() && pool.total.idle > pool.config.min_ready;
        !self.any_free(pools)
            && self.partial_groups().is_empty()
            && !self.pool_entries().any(may_get_room)
            && pools.iter().all(|name| self.has_no_room(name))
    }

    /// Grants a request these resources.
    fn serve(&mut self, round: &mut Round, next: &Next, found: Vec<ResourceId>) {
        let leases = self.queue().waiter(&next.at).map(|waiter| waiter.leases.clone()).unwrap_or_default();
        if next.is_patient() {
            let pools = next.at.key.iter().flat_map(|want| self.pools_of(want));
            let pools: Vec<Arc<str>> = pools.map(|pool| pool.config.name.clone()).collect();
            self.begin_patience(&next.at.party, pools);
        }
        if let Some(first) = leases.first() {
            self.dequeue(*first);
        }
        for (lease, resource) in leases.iter().zip(found) {
            self.grant(*lease, resource);
            let free = self.entry(&resource).map_or(0, |entry| entry.counted.free);
            round.matching.set_room(Seat::Free(resource), free);
        }
    }

    /// Removes unused resources that another tenant used last: others are made in their stead.
    fn replace_between_tenants(&mut self, round: &Round) {
        for id in &round.replaced {
            let link =
                self.policy_link(*id, "another tenant waits for it, and its pool has reuse_across_tenants = false");
            self.bring_about(Consequence::remove(*id, alloc::vec![link]));
        }
    }

    /// Whether one of these pools has a free slot.
    fn any_free(&self, pools: &BTreeSet<Arc<str>>) -> bool {
        pools.iter().filter_map(|name| self.pool_entry(name)).any(|pool| pool.total.free_slots > 0)
    }

    /// Nothing is free any more: shares decide nothing, and one request of each class shows what is missing.
    fn look_at_the_rest(&self, round: &mut Round, open: &[ClassId]) {
        for id in open {
            let Some(class) = self.queue().class(*id) else { continue };
            let within = |party: &Party| self.quota_left(party).is_none_or(|left| class.key.len() as u64 <= left);
            let lanes = class.lanes.iter().filter(|((party, _), _)| within(party));
            // Those that were looked at in their turn have their claims.
            let looked = round.looked.get(id).map(|looked| looked.lanes.clone()).unwrap_or_default();
            let all = lanes.flat_map(|(name, lane)| {
                let seen = looked.get(name).copied().unwrap_or(0);
                lane.behind(seen).map(move |(seq, _)| (&name.0, (name.1, *seq)))
            });
            for (party, place) in all {
                let at = Stand { class: *id, key: class.key.clone(), place, party: party.clone() };
                self.look(round, &at);
                if !round.looks_behind(*id) {
                    break;
                }
            }
        }
    }

    /// Some slots are kept for requests that wait: time alone may make them those of others.
    fn look_again_in_time(&mut self, line: &Line) {
        let Some((at, class)) = line.changes_at() else { return };
        let Some(key) = self.queue().class(class).map(|class| &class.key) else { return };
        let Some(pool) = key.iter().flat_map(|want| self.pools_of(want)).next().map(|pool| pool.config.name.clone())
        else {
            return;
        };
        // A grid, so that a long line has few timers.
        let grid = (self.limits().patience.0 / 32).max(1);
        self.wake_pool(&pool, Timestamp((at.0 + grid - 1) / grid * grid));
    }

    /// Finds the groups that are partly in the queue, from the rows.
    pub(crate) fn find_partial_groups(&mut self) {
        let queued = self.lease_entries().filter(|entry| matches!(entry.row.state, LeaseState::Queued));
        let groups = queued.filter(|entry| !entry.row.spec.independent).filter_map(|entry| entry.row.spec.group);
        let groups: BTreeSet<GroupId> = groups.collect();
        let partial = groups.into_iter().filter(|group| self.partial_group(*group).is_some()).collect();
        self.set_partial_groups(partial);
    }

    /// A lease of a tenant left its slot: if the tenant has a quota, its requests may go on in all pools.
    pub(crate) fn quota_is_freed(&mut self, tenant: &Arc<str>) {
        let party = Some(tenant.clone());
        if self.quota_left(&party).is_none() {
            return;
        }
        let reaches = self.queue().party(&party).into_iter().flat_map(|own| own.heads.keys());
        let names = reaches.filter_map(|id| self.queue().reaches().get(*id)).flat_map(|reach| &reach.names);
        let mut pools: BTreeSet<Arc<str>> = BTreeSet::new();
        for name in names {
            match name {
                Some(name) => pools.extend(self.pool_entry(name).map(|pool| pool.config.name.clone())),
                None => pools.extend(self.pool_order().iter().cloned()),
            }
        }
        self.mark_all_dirty(pools);
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
