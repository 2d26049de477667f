//! The oracle. It sees only the stored batches and the messages that left the broker, and checks the rules for them.
//!
//! The numbers are those of the invariants in DESIGN.

use crate::between::Judged;
use crate::queue::{Changes, Look};
use crate::rests::Rests;
use crate::sessions::Sessions;
use crate::turns::{Terms, party};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{
    Batch, Effect, Ended, EventKind, FailReason, GroupId, Input, Lease, LeaseId, LeaseRequest, LeaseState, Link,
    Millis, Op, Outcome, PoolConfig, PoolView, Reason, Reply, Resource, ResourceId, ResourceState, Revision, Source,
    Tenants, Timestamp, Weight, Work,
};

/// Time at which a host was given up, and its machine.
type End = (Timestamp, Option<Arc<str>>);

/// The oracle's questions to the outside world.
pub(crate) struct Facts<'a> {
    /// Whether a resource was other than alive within this time.
    pub(crate) was_bad: &'a dyn Fn(ResourceId, Timestamp, Millis) -> bool,
    /// Leases whose preparation failed by the request's fault.
    pub(crate) blamed: &'a BTreeSet<LeaseId>,
    /// Checks may lie in this run, so that evidence proves nothing.
    pub(crate) lies: bool,
    /// The configured pools.
    pub(crate) pools: &'a [PoolConfig],
    /// At most one input a turn: each batch shows one moment.
    pub(crate) one_by_one: bool,
    /// The tenants, where no reload changes them.
    pub(crate) tenants: Option<&'a Tenants>,
}

#[derive(Default)]
pub(crate) struct Oracle {
    /// The terms of the tenants, where there are several.
    pub(crate) terms: Option<Terms>,
    /// How often the rules between tenants were applied.
    pub(crate) judged: Judged,
    pub(crate) leases: BTreeMap<LeaseId, Arc<Lease>>,
    pub(crate) resources: BTreeMap<ResourceId, Arc<Resource>>,
    revision: Revision,
    now: Timestamp,
    /// The holder of each slot.
    slots: BTreeMap<(ResourceId, u32), LeaseId>,
    tokens: BTreeMap<(ResourceId, u32), u64>,
    forgotten: BTreeSet<LeaseId>,
    /// Requests that were answered, with their leases.
    acknowledged: BTreeMap<(Arc<str>, Arc<str>), Vec<LeaseId>>,
    /// The lease of each request, and of each place in it.
    requests: BTreeMap<(Arc<str>, Arc<str>, u32), LeaseId>,
    /// The last operation that made each resource.
    launches: BTreeMap<ResourceId, Op>,
    /// Operations whose answers reached the broker.
    pub(crate) answered: BTreeSet<(ResourceId, Op)>,
    /// No lease may expire before this time.
    pub(crate) grace_until: Timestamp,
    pub(crate) watchers: Vec<Watcher>,
    /// Resources that notices have named.
    pub(crate) noticed: BTreeSet<ResourceId>,
    /// Times at which hosts were given up for their silence and are not back, by pool and domain, since the last start or
    /// configuration of the broker; with the machine, where there is one.
    pub(crate) ended_by_silence: BTreeMap<(Arc<str>, Arc<str>), Vec<End>>,
    /// Changes since the last check of the queue.
    changes: Changes,
    /// Preparations that failed on each resource since work last succeeded on it, and the maximum number of repairs of its
    /// pool.
    unfit: BTreeMap<ResourceId, (u32, u32)>,
    /// Latest time at which each live lease came out of doubt.
    cleared: BTreeMap<LeaseId, Timestamp>,
    /// The losses of machines.
    pub(crate) rests: Rests,
    /// The latest renewal of each holder, and the latest change of each group's states.
    signs: BTreeMap<LeaseId, Timestamp>,
    /// The sessions of agents.
    pub(crate) sessions: Sessions,
}

/// A watcher: it sees batches while it is connected, and resumes by revision after that.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) known: BTreeMap<LeaseId, Arc<Lease>>,
    pub(crate) revision: Revision,
    pub(crate) connected: bool,
}

type Checked = Result<(), String>;

impl Oracle {
    /// An oracle for a world of one tenant, or of several with these terms.
    pub(crate) fn of(terms: Option<Terms>) -> Self {
        Self { terms, ..Self::default() }
    }

    /// Checks a stored batch.
    pub(crate) fn stored(&mut self, batch: &Batch, facts: &Facts<'_>) -> Checked {
        if batch.base != self.revision || batch.now < self.now {
            return Err(format!(
                "a batch on {} at {:?} after {} at {:?}",
                batch.base, batch.now, self.revision, self.now
            ));
        }
        (self.revision, self.now) = (batch.revision, batch.now);
        let before: BTreeMap<LeaseId, Arc<Lease>> =
            batch.leases.iter().filter_map(|row| Some((row.id, self.leases.get(&row.id)?.clone()))).collect();
        let stood: BTreeMap<ResourceId, Arc<Resource>> =
            batch.resources.iter().filter_map(|row| Some((row.id, self.resources.get(&row.id)?.clone()))).collect();
        self.note_changes(batch, &before, &stood);
        self.sessions.stored(batch, self.grace_until)?;
        for row in batch.leases.iter().filter(|row| row.doubt.is_none()) {
            let doubted = before.get(&row.id).is_some_and(|old| old.doubt.is_some());
            if doubted && matches!(row.state, LeaseState::Active { .. }) {
                self.cleared.insert(row.id, batch.now);
            }
        }
        self.leases.extend(batch.leases.iter().map(|row| (row.id, row.clone())));
        self.resources.extend(batch.resources.iter().map(|row| (row.id, row.clone())));
        self.slots_are_held_once(batch, &before)?;
        for row in batch.leases.iter().filter(|row| row.spec.child.is_none() && row.spec.replaces.is_none()) {
            let request = (row.spec.tenant.clone(), row.spec.request_id.clone(), row.spec.index);
            let first = *self.requests.entry(request).or_insert(row.id);
            if first != row.id && self.leases.contains_key(&first) {
                return Err(format!("(12) {} is for the same request as {first}", row.id));
            }
        }
        for row in &batch.leases {
            let old = before.get(&row.id).map(|row| &**row);
            self.ends_well(row, old, facts)?;
            self.leaves_doubt(row, old, facts)?;
            self.is_kept_as_it_was_left(row, old, &stood, facts)?;
            self.granted_in_order(row, old, &before, batch, facts)?;
            self.shares_its_groups_fate(row)?;
        }
        for row in &batch.leases {
            let well =
                matches!(&row.state, LeaseState::Ended { how: Ended::Released { outcome: Outcome::Ok, .. }, .. });
            let was = before.get(&row.id).filter(|old| matches!(old.state, LeaseState::Active { .. }));
            if let Some(hold) = was.and_then(|old| old.assignment()).filter(|_| well) {
                self.unfit.remove(&hold.resource);
            }
        }
        if let Some(tenants) = facts.tenants {
            self.is_within_quota(batch, &before, tenants)?;
        }
        for row in &batch.resources {
            self.takes_its_children_along(row)?;
            self.made_once(row, stood.get(&row.id))?;
            self.set_apart_fairly(row, stood.get(&row.id), facts)?;
            self.is_fit_for_use(row, stood.get(&row.id), facts)?;
        }
        self.ends_few_by_silence(batch, &stood, facts)?;
        self.rests.stored(batch, &stood, facts.one_by_one)?;
        for id in &batch.forgotten_leases {
            let Some(row) = self.leases.remove(id) else { continue };
            if !row.ended() {
                return Err(format!("{id} is forgotten though it lives"));
            }
            self.forgotten.insert(*id);
        }
        batch.forgotten_resources.iter().for_each(|id| drop(self.resources.remove(id)));
        Ok(())
    }

    fn note_changes(
        &mut self,
        batch: &Batch,
        before: &BTreeMap<LeaseId, Arc<Lease>>,
        stood: &BTreeMap<ResourceId, Arc<Resource>>,
    ) {
        for row in &batch.leases {
            let old = before.get(&row.id);
            let held = |row: &Lease| !row.ended() && row.assignment().is_some();
            if old.is_none() {
                self.changes.asked.insert(row.id);
            } else if matches!(row.state, LeaseState::Queued) {
                self.changes.requeued.insert(row.id);
            }
            if held(row) && old.is_none_or(|old| old.assignment() != row.assignment()) {
                self.changes.granted.insert(row.id);
            }
            let state = |row: &Lease| std::mem::discriminant(&row.state);
            if old.is_none_or(|old| state(old) != state(row)) {
                self.signs.insert(row.id, batch.now);
            }
        }
        self.changes.gave_way |= batch.leases.iter().any(|row| gave_way(row, before.get(&row.id), batch));
        let keeps = |row: &&Arc<Resource>| stood.get(&row.id).is_none_or(|old| old.held_for != row.held_for);
        self.changes.kept_for.extend(batch.resources.iter().filter(keeps).filter_map(|row| row.held_for.clone()));
        let new = batch.resources.iter().filter(|row| !stood.contains_key(&row.id));
        self.changes.bought.extend(new.map(|row| row.id));
        let reclaimed = batch.resources.iter().filter(|row| {
            let was_ready = stood.get(&row.id).is_some_and(|old| matches!(old.state, ResourceState::Ready));
            // A check may clear a copy in the turn in which it gives way.
            let mut events = batch.events.iter().filter(|event| event.resource == Some(row.id));
            let mut cleared = || events.any(|event| event.kind == EventKind::ResourceCleared);
            (was_ready || cleared())
                && row.parent.is_some()
                && matches!(row.state, ResourceState::Destroying { dead: false, .. })
        });
        self.changes.reclaimed.extend(reclaimed.map(|row| row.id));
    }

    /// Checks the state after a turn of one input, with all its consequences stored.
    pub(crate) fn queue_is_fair(&mut self, pools: &[PoolView], one_by_one: bool) -> Checked {
        let changes = std::mem::take(&mut self.changes);
        if !one_by_one {
            self.may_be_patient(&changes);
            return Ok(());
        }
        let look = Look { leases: &self.leases, resources: &self.resources, pools, now: self.now };
        look.check(&changes, self.terms.as_mut().map(|terms| (terms, &mut self.judged)))
    }

    /// Forgets the queue's changes: the broker recovered, or several turns were stored at once.
    pub(crate) fn lost_sight(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        self.may_be_patient(&changes);
    }

    /// Each of these grants may have come before its turn.
    fn may_be_patient(&mut self, changes: &Changes) {
        let Some(terms) = &mut self.terms else { return };
        for lease in changes.granted.iter().filter_map(|id| self.leases.get(id)) {
            terms.begins_everywhere(party(&[lease]), self.now);
        }
        terms.forget();
    }

    /// A holder repeats its request, which keeps the leases that it has so far.
    pub(crate) fn asked_again(&mut self, request: &str, now: Timestamp) {
        let members = self.leases.values().filter(|row| &*row.spec.request_id == request).map(|row| row.id);
        self.signs.extend(members.map(|id| (id, now)));
    }

    /// The broker took these inputs.
    pub(crate) fn heard(&mut self, inputs: &[Input], now: Timestamp) {
        self.sessions.heard(inputs, now);
        for input in inputs {
            if let Input::KeepAll { leases, .. } = input {
                leases.iter().for_each(|lease| self.renewed(*lease, now));
            }
        }
    }

    /// A holder renews.
    pub(crate) fn renewed(&mut self, lease: LeaseId, now: Timestamp) {
        self.signs.insert(lease, now);
    }

    /// 19: a hold ends with its holder, also while the rest of the set is still awaited.
    pub(crate) fn the_dead_hold_nothing(&self) -> Checked {
        self.sessions.none_is_silent(self.now, self.grace_until)?;
        for row in self.leases.values().filter(|row| row.spec.child.is_none() && !row.spec.independent) {
            let (LeaseState::Active { .. }, Some(group)) = (&row.state, row.spec.group) else { continue };
            let members: Vec<&Arc<Lease>> = self.members(group).collect();
            // The broker's own actions may take as long as its adapters do.
            if members.iter().any(|member| matches!(member.state, LeaseState::Preparing { .. })) {
                continue;
            }
            let by_session = || members.iter().filter_map(|member| self.sessions.sign(member));
            let sign = members.iter().filter_map(|member| self.signs.get(&member.id).copied());
            let sign = sign.chain(by_session().map(|(heard, _)| heard)).max();
            let ttl = members.iter().map(|member| member.spec.ttl).chain(by_session().map(|(_, ttl)| ttl));
            let ttl = ttl.max().unwrap_or_default();
            let until = sign.unwrap_or_default().after(ttl).max(self.grace_until);
            if self.now > until.after(Millis::secs(2)) {
                let states: Vec<_> = members.iter().map(|member| (member.id, &member.state)).collect();
                return Err(format!("(19) {} is held for nobody, since {sign:?}: {states:?}", row.id));
            }
        }
        Ok(())
    }

    /// 1, and the fencing tokens of a slot grow.
    fn slots_are_held_once(&mut self, batch: &Batch, before: &BTreeMap<LeaseId, Arc<Lease>>) -> Checked {
        for hold in before.values().filter_map(|row| row.assignment()) {
            self.slots.remove(&(hold.resource, hold.slot));
        }
        // A lease that is cleaned and forgotten in one batch has no event for its last state.
        for hold in batch.forgotten_leases.iter().filter_map(|id| self.leases.get(id)?.assignment().copied()) {
            self.slots.remove(&(hold.resource, hold.slot));
        }
        for row in &batch.leases {
            let Some(hold) = row.assignment() else { continue };
            let slot = (hold.resource, hold.slot);
            if let Some(other) = self.slots.insert(slot, row.id) {
                return Err(format!("(1) slot {slot:?} is held by {other} and {}", row.id));
            }
            let same = before.get(&row.id).and_then(|old| old.assignment()) == Some(hold);
            let last = self.tokens.insert(slot, hold.token).unwrap_or(0);
            if !same && hold.token <= last {
                return Err(format!("(1) token {} of {slot:?} after {last}", hold.token));
            }
        }
        Ok(())
    }

    fn ends_well(&self, row: &Lease, old: Option<&Lease>, facts: &Facts<'_>) -> Checked {
        if let (Some(LeaseState::Ended { how: old, .. }), LeaseState::Ended { how, .. }) =
            (old.map(|o| &o.state), &row.state)
        {
            let findings =
                |how: &Ended| matches!(how, Ended::Released { outcome: Outcome::Failed | Outcome::Tainted, .. });
            let plain = |how: &Ended| match how {
                Ended::Released { outcome, note, .. } if findings(how) => {
                    Ended::Released { outcome: *outcome, note: note.clone(), finding: None }
                }
                other => other.clone(),
            };
            return if plain(old) == plain(how) {
                Ok(())
            } else {
                Err(format!("{} ended as {old:?}, and then as {how:?}", row.id))
            };
        }
        if old.is_some_and(Lease::ended) {
            return Err(format!("{} rose from the dead", row.id));
        }
        let LeaseState::Ended { how, at, .. } = &row.state else { return Ok(()) };
        match how {
            Ended::Released { .. } | Ended::Cancelled => Ok(()),
            Ended::Expired => {
                let due = old.and_then(|old| old.expires_at).is_some_and(|due| due <= *at)
                    || old.is_some_and(|old| self.sessions.may_expire(old, *at));
                let group = row.spec.group.is_some();
                if *at < self.grace_until || !(due || group) {
                    return Err(format!("{} expired at {at:?}, which is too soon", row.id));
                }
                Ok(())
            }
            Ended::Broken { cause, .. } => self.broken_for_a_reason(row, cause, *at, facts),
            Ended::Failed { reason, detail, .. } => {
                let fair = match reason {
                    FailReason::WaitDeadline => row.spec.wait_until.is_some_and(|until| until <= *at),
                    FailReason::Request => facts.blamed.contains(&row.id),
                    FailReason::BudgetSpent => row.attempts >= 2,
                    FailReason::Group => row.spec.group.is_some(),
                };
                if fair { Ok(()) } else { Err(format!("(11, 13) {} failed: {reason:?} {detail}", row.id)) }
            }
        }
    }

    /// `max_slots`: a tenant that got a slot in a batch holds at most as many as it may.
    fn is_within_quota(&mut self, batch: &Batch, before: &BTreeMap<LeaseId, Arc<Lease>>, tenants: &Tenants) -> Checked {
        let new = |row: &&Arc<Lease>| {
            let old = before.get(&row.id).and_then(|old| old.assignment());
            row.spec.child.is_none() && !row.ended() && row.assignment().is_some_and(|hold| old != Some(hold))
        };
        let granted: BTreeSet<&Arc<str>> = batch.leases.iter().filter(new).map(|row| &row.spec.tenant).collect();
        for tenant in granted {
            let Some(most) = tenants.of(tenant).and_then(|tenant| tenant.max_slots) else { continue };
            self.judged.within_quota();
            let own = |row: &&Arc<Lease>| row.spec.child.is_none() && row.spec.tenant == *tenant;
            let held = self.leases.values().filter(own).filter(|row| row.assignment().is_some()).count();
            if held > most as usize {
                return Err(format!("(quota) {tenant} holds {held} slots, more than {most}"));
            }
        }
        Ok(())
    }

    /// Holds: a held resource is not cleaned.
    fn is_kept_as_it_was_left(
        &self,
        row: &Lease,
        old: Option<&Lease>,
        stood: &BTreeMap<ResourceId, Arc<Resource>>,
        facts: &Facts<'_>,
    ) -> Checked {
        let LeaseState::Ended { cleanup: Some(cleanup), .. } = &row.state else { return Ok(()) };
        let id = cleanup.assignment.resource;
        let Some(now) = self.resources.get(&id) else { return Ok(()) };
        let before = stood.get(&id).unwrap_or(now);
        let kept =
            before.hold.is_some() && (now.hold.is_some() || matches!(now.state, ResourceState::Quarantined { .. }));
        if facts.one_by_one && kept && cleanup.op != Op(0) && old.is_some_and(|old| !old.ended()) {
            return Err(format!("{id} is to be kept, and cleaned after {}", row.id));
        }
        Ok(())
    }

    /// 2: the cause of a suspicion and the suspicion are one commit.
    fn leaves_doubt(&self, row: &Lease, old: Option<&Lease>, facts: &Facts<'_>) -> Checked {
        let (LeaseState::Ended { how, at, .. }, Some(LeaseState::Active { assignment: hold, .. })) =
            (&row.state, old.map(|old| &old.state))
        else {
            return Ok(());
        };
        let Some(resource) = self.resources.get(&hold.resource).filter(|_| row.spec.child.is_none()) else {
            return Ok(());
        };
        let Some(policy) = facts.pools.iter().find(|pool| pool.name == resource.pool).map(|pool| pool.doubt) else {
            return Ok(());
        };
        let doubtful = match how {
            Ended::Released { outcome, .. } => match outcome {
                Outcome::Ok => false,
                // Its holder reported the failure, and a check has passed since.
                Outcome::Failed
                    if self.cleared.get(&row.id).is_some_and(|then| at.since(*then) <= Millis::secs(30)) =>
                {
                    false
                }
                Outcome::Failed | Outcome::Abandoned => policy.after_failed,
                Outcome::Tainted => true,
            },
            Ended::Expired | Ended::Broken { .. } => policy.after_lost,
            Ended::Cancelled | Ended::Failed { .. } => false,
        };
        // In a batch of several inputs a check may have cleared it again.
        if facts.one_by_one && doubtful && matches!(resource.state, ResourceState::Ready) {
            return Err(format!("(2) {} ended as {how:?}, and {} is beyond doubt", row.id, resource.id));
        }
        Ok(())
    }

    /// 7: silence, noise or a guess breaks nothing; 8: the chain goes down to the root.
    fn broken_for_a_reason(&self, row: &Lease, cause: &[Link], at: Timestamp, facts: &Facts<'_>) -> Checked {
        let Some(nearest) = cause.first() else { return Err(format!("{} was broken without a cause", row.id)) };
        let inherited = [Reason::GroupBroken, Reason::ParentGone, Reason::ParentLost];
        let Some(root) = cause.iter().find(|link| !inherited.contains(&link.reason)) else {
            return Err(format!("(8) {}'s cause has no root: {nearest:?}", row.id));
        };
        let told = match &root.source {
            Source::Operator(_) => true,
            // A notice for a stranger is no evidence about another resource.
            Source::Notice(_) => {
                matches!(root.subject, wharfinger_core::Subject::Resource(id) if self.noticed.contains(&id))
            }
            // The broker's own causes: age, idleness, the configuration. A copy that is given up for others is idle.
            Source::Broker => matches!(root.reason, Reason::Policy | Reason::Disabled | Reason::CheckBlind),
            Source::Check => {
                let wharfinger_core::Subject::Resource(id) = root.subject else { return Ok(()) };
                // The evidence is not the check's: work or preparations failed there, though its checks pass.
                let in_use = root.reason == Reason::CheckBlind;
                in_use || facts.lies || (facts.was_bad)(id, at, Millis::secs(60))
            }
            // A failed repair belongs to a resource that was mangled before.
            Source::Adapter => cause.len() > 1 || root.reason == Reason::CleanFailed,
            Source::Holder => cause.iter().any(|link| link.reason == Reason::HolderTainted),
        };
        if told { Ok(()) } else { Err(format!("(7) {} was broken: {cause:?}", row.id)) }
    }

    /// 2: a grant needs a READY resource; 10: grants go by priority, then age.
    fn granted_in_order(
        &self,
        row: &Lease,
        old: Option<&Lease>,
        before: &BTreeMap<LeaseId, Arc<Lease>>,
        batch: &Batch,
        facts: &Facts<'_>,
    ) -> Checked {
        let Some(hold) = row.assignment() else { return Ok(()) };
        if row.ended() || old.and_then(|old| old.assignment()) == Some(hold) {
            return Ok(());
        }
        let Some(resource) = self.resources.get(&hold.resource) else {
            return Err(format!("{} is granted on {}, which is not stored", row.id, hold.resource));
        };
        if facts.one_by_one {
            let host = resource.parent.and_then(|parent| parent.host).and_then(|host| self.resources.get(&host));
            let unfit = |row: &Resource| {
                !matches!(row.state, ResourceState::Ready) || row.cordoned.is_some() || row.hold.is_some()
            };
            if let Some(unfit) = [Some(resource), host].into_iter().flatten().find(|row| unfit(row)) {
                return Err(format!("(2) {} is granted on {}: {:?}", row.id, resource.id, unfit.state));
            }
        }
        let single = |row: &Lease| row.spec.group.is_none() && row.spec.child.is_none();
        let place = |row: &Lease| (std::cmp::Reverse(row.spec.priority), row.seq);
        if !single(row) {
            return Ok(());
        }
        // A request that joined the queue within this batch may have come after the grant.
        let stood = |other: &Lease| match before.get(&other.id) {
            Some(was) => {
                let same = was.attempts == other.attempts && was.delays == other.delays;
                matches!(was.state, LeaseState::Queued) && was.not_before.is_none() && same
            }
            None => !batch.leases.iter().any(|changed| changed.id == other.id),
        };
        // A lease avoids the machine that failed it, also after that was made anew.
        let host = resource.parent.and_then(|parent| parent.host).and_then(|host| self.resources.get(&host));
        let avoids = |id: &ResourceId| {
            [Some(resource), host].into_iter().flatten().any(|row| {
                let same = |other: &Arc<Resource>| other.item == row.item && other.pool == row.pool;
                *id == row.id || (row.item.is_some() && self.resources.get(id).is_some_and(same))
            })
        };
        let passed = self.leases.values().find(|other| {
            matches!(other.state, LeaseState::Queued)
                && single(other)
                && stood(other)
                && other.spec.selector == row.spec.selector
                // Shares decide between tenants.
                && other.spec.tenant == row.spec.tenant
                && place(other) < place(row)
                // With patience a request of low priority may have risen.
                && (other.spec.priority == row.spec.priority || self.terms.as_ref().is_none_or(Terms::are_impatient))
                // These requests have constraints of their own, which other requests need not wait for.
                && !other.avoid.iter().any(avoids)
                && other.not_before.is_none()
                && other.spec.expected.is_none()
        });
        match passed {
            Some(other) => Err(format!("(10) {} is granted before {}, which is before it in line", row.id, other.id)),
            None => Ok(()),
        }
    }

    fn shares_its_groups_fate(&self, row: &Lease) -> Checked {
        let Some(group) = row.spec.group.filter(|_| !row.spec.independent) else { return Ok(()) };
        let members: Vec<&Arc<Lease>> = self.members(group).collect();
        if members.iter().any(|m| m.ended()) && members.iter().any(|m| !m.ended()) {
            let states: Vec<_> = members.iter().map(|m| (m.id, &m.state)).collect();
            return Err(format!("a group is torn: {states:?}"));
        }
        Ok(())
    }

    fn members(&self, group: GroupId) -> impl Iterator<Item = &Arc<Lease>> {
        self.leases.values().filter(move |row| row.spec.group == Some(group))
    }

    /// 8: all resources on a host go in the batch in which the host goes.
    fn takes_its_children_along(&self, row: &Resource) -> Checked {
        if !is_over(row) {
            return Ok(());
        }
        let on_it = |lease: &&Arc<Lease>| lease.assignment().is_some_and(|hold| hold.resource == row.id);
        if let Some(lease) = self.leases.values().filter(on_it).find(|lease| !lease.ended()) {
            return Err(format!("(8) {} is {}, {} lives on it", row.id, row.state.as_str(), lease.id));
        }
        let child = self
            .resources
            .values()
            .find(|child| child.parent.is_some_and(|parent| parent.host == Some(row.id)) && !is_over(child));
        match child {
            Some(child) => Err(format!(
                "(8) {} is {}, its child {} is {}",
                row.id,
                row.state.as_str(),
                child.id,
                child.state.as_str()
            )),
            None => Ok(()),
        }
    }

    /// 12: a made resource is never made again under the same id.
    fn made_once(&self, row: &Resource, old: Option<&Arc<Resource>>) -> Checked {
        let making = |row: &Resource| matches!(row.state, ResourceState::Provisioning { .. });
        match old {
            Some(old) if making(row) && !making(old) => Err(format!("(12) {} is made twice", row.id)),
            Some(old) if is_over(old) && !is_over(row) => Err(format!("{} rose from the dead", row.id)),
            Some(_) | None => Ok(()),
        }
    }

    /// A machine is back. A pool that makes machines at will replaces the one that was lost first, before a request for it.
    fn is_back(&mut self, row: &Resource) {
        for ((pool, _), ends) in &mut self.ended_by_silence {
            let at = ends.iter().position(|(at, item)| *item == row.item && (item.is_some() || *at <= row.created_at));
            if let Some(at) = at.filter(|_| *pool == row.pool) {
                ends.remove(at);
            }
        }
    }

    /// The brake: resources that fall silent together are not given up together. A dry run gives nothing up.
    fn ends_few_by_silence(
        &mut self,
        batch: &Batch,
        stood: &BTreeMap<ResourceId, Arc<Resource>>,
        facts: &Facts<'_>,
    ) -> Checked {
        for row in batch.resources.iter().filter(|row| row.parent.is_none()) {
            let making = |row: &Resource| matches!(row.state, ResourceState::Provisioning { .. });
            if stood.get(&row.id).is_some_and(|old| making(old)) && row.ready_at.is_some() {
                self.is_back(row);
            }
        }
        for row in batch.resources.iter().filter(|row| row.parent.is_none() && is_over(row)) {
            let Some(old) = stood.get(&row.id).filter(|old| !is_over(old)) else { continue };
            let (ResourceState::Destroying { cause, .. }
            | ResourceState::Orphaned { cause, .. }
            | ResourceState::Gone { cause, .. }) = &row.state
            else {
                continue;
            };
            let evident = [Reason::ResourceUnreachable, Reason::ResourceMangled];
            let Some(first) = cause.first().filter(|l| l.source == Source::Check && evident.contains(&l.reason)) else {
                continue;
            };
            let Some(pool) = facts.pools.iter().find(|pool| pool.name == row.pool) else { continue };
            if pool.doubt.dry_run {
                return Err(format!("{} was given up by {first:?} in a dry run", row.id));
            }
            if first.reason != Reason::ResourceUnreachable {
                continue;
            }
            let domain_of = |row: &Resource| -> Arc<str> {
                pool.domain.as_ref().and_then(|key| row.labels.get(key)).cloned().unwrap_or_default()
            };
            let domain = domain_of(old);
            let member = |other: &&Arc<Resource>| {
                let state = stood.get(&other.id).map_or(&other.state, |old| &old.state);
                other.pool == row.pool
                    && other.parent.is_none()
                    && domain_of(other) == domain
                    && matches!(
                        state,
                        ResourceState::Ready
                            | ResourceState::Suspect { .. }
                            | ResourceState::Repairing { .. }
                            | ResourceState::Draining { .. }
                    )
            };
            let members = self.resources.values().filter(member).count();
            let ends = self.ended_by_silence.entry((row.pool.clone(), domain)).or_default();
            ends.retain(|(at, _)| at.after(pool.brake.window) > batch.now);
            ends.push((batch.now, row.item.clone()));
            let all = members + ends.len() - 1;
            let few = ends.len() * 100 <= pool.brake.share as usize * all || all <= pool.brake.floor as usize;
            // After a short hold, the brake lets some go.
            let let_go = pool.brake.hold < Millis::secs(1000) && ends.len() <= pool.brake.floor.max(1) as usize;
            if facts.one_by_one && !few && !let_go {
                let count = ends.len();
                return Err(format!("{count} of {all} of {} were given up at once, {} last", row.pool, row.id));
            }
        }
        Ok(())
    }

    /// 20: a copy that passes its checks and fails in use is replaced.
    fn is_fit_for_use(&mut self, row: &Resource, old: Option<&Arc<Resource>>, facts: &Facts<'_>) -> Checked {
        let suspect = |row: &Resource| matches!(row.state, ResourceState::Suspect { .. });
        let ResourceState::Suspect { cause, .. } = &row.state else { return Ok(()) };
        let prepare = cause.first().is_some_and(|link| link.reason == Reason::PrepareFailed);
        // Several turns in one batch may hide a use that succeeded.
        if row.parent.is_none() || !prepare || !facts.one_by_one || old.is_none_or(|old| suspect(old)) {
            return Ok(());
        }
        let Some(pool) = facts.pools.iter().find(|pool| pool.name == row.pool) else { return Ok(()) };
        let (failed, repairs) = self.unfit.entry(row.id).or_default();
        *failed += 1;
        *repairs = pool.doubt.repairs.max(*repairs).max(1);
        if *failed > *repairs && !pool.doubt.dry_run {
            return Err(format!("(20) {} failed {failed} leases in a row and is not replaced", row.id));
        }
        Ok(())
    }

    /// Blame: a resource that the broker itself quarantines has failed different works, and half of the pool stays.
    fn set_apart_fairly(&self, row: &Resource, old: Option<&Arc<Resource>>, facts: &Facts<'_>) -> Checked {
        let abandoned = |lease: &LeaseId| {
            let how = self.leases.get(lease).map(|lease| &lease.state);
            matches!(how, Some(LeaseState::Ended { how: Ended::Released { outcome: Outcome::Abandoned, .. }, .. }))
        };
        if let Some(failure) = row.failures.iter().find(|failure| abandoned(&failure.lease)) {
            return Err(format!("{} is blamed for {}, which was abandoned", row.id, failure.lease));
        }
        let apart = |row: &Resource| matches!(&row.state, ResourceState::Quarantined { cordon, .. } if &*cordon.by == "wharfinger");
        if !apart(row) || old.is_some_and(|old| apart(old)) {
            return Ok(());
        }
        let counted = row.failures.iter().filter(|f| matches!(f.weight, Weight::Counted | Weight::Confirmed));
        let works: BTreeSet<&Arc<str>> = counted.map(|failure| &failure.work).collect();
        let never =
            facts.pools.iter().find(|pool| pool.name == row.pool).is_some_and(|pool| pool.doubt.false_alarm == 0);
        let kept_before = old.is_some_and(|old| old.hold.is_some());
        // A resource that is quarantined when its last lease ends may have had a success since.
        if facts.one_by_one && !kept_before && (works.is_empty() || never) {
            return Err(format!("{} is set apart after {works:?}", row.id));
        }
        Ok(())
    }

    /// 3: checks an answer that leaves.
    pub(crate) fn answers(&mut self, request: Option<&LeaseRequest>, reply: &Reply) -> Checked {
        let Reply::Leases(leases) = reply else { return Ok(()) };
        for lease in leases {
            // A late answer may name a lease that is forgotten by now.
            let stored = self.leases.get(&lease.id).map(|row| row.revision);
            let stored = stored.or_else(|| self.forgotten.contains(&lease.id).then_some(self.revision));
            if lease.revision > self.revision || stored.is_none_or(|at| at < lease.revision) {
                return Err(format!("(3) an answer tells of {} at {}, which is not stored", lease.id, lease.revision));
            }
        }
        if let Some(asked) = request {
            if let Some(foreign) = leases.iter().find(|lease| !asked.caller.owns(&lease.spec)) {
                return Err(format!("(16) {:?} is answered with {}, which is another's", asked.caller, foreign.id));
            }
            let request = &(asked.caller.tenant.clone(), asked.request_id.clone());
            let ids: Vec<LeaseId> = leases.iter().map(|lease| lease.id).collect();
            let kept = |ids: &[LeaseId]| ids.iter().all(|id| !self.forgotten.contains(id));
            // A late answer of a deposed leader may name a lease that is forgotten by now. It contradicts no later answer.
            if kept(&ids) {
                // Once its first lease is forgotten, the request counts as new.
                if let Some(first) = self.acknowledged.get(request).filter(|first| **first != ids && kept(first)) {
                    return Err(format!("(12) request {request:?} was answered with {first:?}, and now with {ids:?}"));
                }
                self.acknowledged.insert(request.clone(), ids);
            }
        }
        Ok(())
    }

    /// 3, 5, 12: checks a call that leaves.
    pub(crate) fn calls(&mut self, effect: &Effect) -> Checked {
        if effect.work == Work::Probe {
            return Ok(());
        }
        if effect.op.0 > self.revision.0 || effect.resource.revision > self.revision {
            return Err(format!("(3) {:?} of {} leaves before its commit", effect.work, effect.resource.id));
        }
        if let (Work::Clean(lease), ResourceState::Quarantined { since, .. }) = (&effect.work, &effect.resource.state)
            && matches!(lease.state, LeaseState::Ended { at, .. } if at > *since)
        {
            return Err(format!("{} is kept as it is, and cleaned after {}", effect.resource.id, lease.id));
        }
        if let Work::Provision(_) = effect.work {
            let id = effect.resource.id;
            // A deposed server begins the calls that it had decided, late.
            if self.launches.get(&id).is_some_and(|last| *last > effect.op) {
                return Ok(());
            }
            if let Some(last) = self.launches.insert(id, effect.op)
                && last != effect.op
                && !self.answered.contains(&(id, last))
            {
                return Err(format!("(12) {id} is launched by {:?}, and {last:?} was never answered", effect.op));
            }
        }
        Ok(())
    }

    /// The store has everything up to this revision.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// 3, 12: after a restart all acknowledged changes are there.
    pub(crate) fn restarted(&self, stored: &BTreeSet<LeaseId>) -> Checked {
        let lost = self.acknowledged.values().flatten().find(|id| !stored.contains(id) && !self.forgotten.contains(id));
        match lost {
            Some(id) => Err(format!("(3) {id} was acknowledged, and is lost")),
            None => Ok(()),
        }
    }
}

fn is_over(row: &Resource) -> bool {
    matches!(row.state, ResourceState::Destroying { .. } | ResourceState::Orphaned { .. } | ResourceState::Gone { .. })
}

impl Watcher {
    /// The watcher gets a batch.
    pub(crate) fn told(&mut self, batch: &Batch) {
        if !self.connected {
            return;
        }
        self.known.extend(batch.leases.iter().map(|row| (row.id, row.clone())));
        self.revision = self.revision.max(batch.revision);
    }

    /// 4: the watcher resumes from its revision.
    pub(crate) fn resumes(&mut self, core: &wharfinger_core::Core) {
        if self.revision < core.floor() {
            // Out of range: it starts from the current state.
            self.known.clear();
            self.revision = Revision(0);
        }
        self.known.extend(core.leases_changed_after(self.revision).map(|row| (row.id, row.clone())));
        self.revision = core.revision();
        self.connected = true;
    }
}

/// Whether a lease was taken from its holder for an older request, or lost the slot that it got in the same batch.
fn gave_way(row: &Lease, old: Option<&Arc<Lease>>, batch: &Batch) -> bool {
    let LeaseState::Ended { how, .. } = &row.state else { return false };
    let yielded =
        |link: &Link| link.reason == Reason::Policy && matches!(link.subject, wharfinger_core::Subject::Lease(_));
    let granted = || {
        let mut own = batch.events.iter().filter(|event| event.lease == Some(row.id));
        own.any(|event| matches!(event.kind, EventKind::LeasePreparing | EventKind::LeaseActive))
    };
    let broken = matches!(how, Ended::Broken { cause, .. } if cause.iter().any(yielded));
    broken || old.is_none_or(|old| old.assignment().is_none()) && granted()
}
