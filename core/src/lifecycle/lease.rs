//! Leases end, are broken, or go back to the queue.

use crate::Core;
use crate::lifecycle::{Consequence, End};
use crate::state::outbox::{Call, SELF};
use crate::state::queue::Stand;
use crate::state::want::{ClassKey, Want};
use crate::{
    Assignment, CauseChain, Cleanup, Ended, EventKind, FailReason, GroupId, Lease, LeaseId, LeaseSpec, LeaseState,
    Link, Millis, Op, Outcome, Reason, ResourceId, SessionId, Source, Stage, Subject, Texts, Timestamp,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// How long the check after a report answers also for the failed end of the lease that reported.
const CHECKED_FOR: Millis = Millis::secs(30);

impl Core {
    /// Ends a lease, whatever its state; its slot stays taken until it is clean. Nothing happens to one that is over.
    /// `counted`: the outcome counts as a success or a failure.
    pub(crate) fn end_lease(&mut self, id: LeaseId, mut how: Ended, actor: &Arc<str>, counted: bool) {
        let Some(lease) = self.lease(id).filter(|lease| !lease.ended()).cloned() else { return };
        if counted {
            self.note_work(&lease, &how);
        }
        self.leave_queue(id);
        let now = self.now();
        let assignment = lease.assignment().copied();
        let cleanup =
            assignment.filter(|assignment| self.needs_cleaning(&lease, assignment.resource)).map(|assignment| {
                // A resource that is held stays as it is, and a repair has the resource to itself: the slot is cleaned
                // when the resource is cleared.
                let op = if self.is_set_apart(assignment.resource) { Op(0) } else { self.next_op() };
                Cleanup { assignment, op }
            });
        let session = lease.session.filter(|_| !self.is_kept(&lease));
        let (kind, detail) = (EventKind::of_end(&how), ended_detail(&how, session));
        let checked = self.checked_already(&lease, &how);
        let doubt = self.doubt_after(&lease, &how).filter(|_| !checked);
        if counted && (doubt.is_some() || checked) {
            self.open_finding(&lease, &mut how);
        }
        self.edit_lease(id, |lease| {
            lease.state = LeaseState::Ended { how, at: now, cleanup };
            lease.doubt = None;
            lease.holder_doubt = None;
        });
        // The entry names the resource on which it ended, though the lease may hold the slot no more.
        let resource = assignment.map(|assignment| assignment.resource);
        self.event_at(kind, actor, Subject::Lease(id), resource, detail);
        let Some(Assignment { resource, slot, .. }) = assignment else { return };
        if kind == EventKind::LeaseBroken
            && lease.spec.child.is_none()
            && let Some(pool) = &lease.pool
        {
            self.count(pool, |counters| counters.broken += 1);
        }
        self.then(Consequence::SettleHold(resource));
        if let Some(host) = self.resource(resource).and_then(|row| row.parent?.host) {
            self.then(Consequence::SettleHold(host));
        }
        match cleanup {
            Some(cleanup) if cleanup.op == Op(0) => {}
            Some(cleanup) => self.call(Call::Lease(id, cleanup.op)),
            None => self.then(Consequence::Vacate { lease: id, resource, slot }),
        }
        if let Some(link) = doubt {
            self.then(Consequence::doubt(resource, link));
        }
        if checked {
            // As after the check that this end would have started.
            self.then(Consequence::CompareFailures(resource));
        }
    }

    /// Whether the failure with which a lease ends was reported just before, and the check of that report has passed: a
    /// second check would ask the same.
    fn checked_already(&self, lease: &Lease, how: &Ended) -> bool {
        let Ended::Released { outcome: Outcome::Failed, .. } = how else { return false };
        let Some(row) = lease.assignment().and_then(|on| self.resource(on.resource)) else { return false };
        let ready = row.state.stage() == Stage::Ready && row.hold.is_none();
        ready && self.report_answered(lease.id).is_some_and(|at| self.now().since(at) <= CHECKED_FOR)
    }

    /// Takes a lease out of the queue; the others of its request stay in it, and keep their place.
    fn leave_queue(&mut self, id: LeaseId) {
        let Some(Stand { key, place, .. }) = self.queue().place(id).cloned() else { return };
        let Some(waiter) = self.dequeue(id) else { return };
        for want in key.iter() {
            let pools: Vec<Arc<str>> = self.pools_of(want).map(|pool| pool.config.name.clone()).collect();
            self.mark_all_dirty(pools);
        }
        let rest: Vec<(LeaseId, Want)> =
            waiter.leases.into_iter().zip(key.iter().cloned()).filter(|(lease, _)| *lease != id).collect();
        if !rest.is_empty() {
            let key: ClassKey = rest.iter().map(|(_, want)| want.clone()).collect();
            let seq = rest.iter().filter_map(|(lease, _)| self.lease(*lease)).map(|l| l.seq).min().unwrap_or(place.1);
            self.enqueue(key, (place.0, seq), rest.into_iter().map(|(lease, _)| lease).collect());
        }
    }

    fn needs_cleaning(&self, lease: &Lease, resource: ResourceId) -> bool {
        if lease.spec.child.is_some() {
            return false;
        }
        let Some(row) = self.resource(resource) else { return false };
        let cleans = self.pool_entry(&row.pool).is_some_and(|pool| pool.config.traits.cleans);
        // A preparation may still run on the slot; the clean-up ends it.
        let preparing = matches!(lease.state, LeaseState::Preparing { .. });
        (cleans || preparing) && !self.is_leaving(resource)
    }

    /// Whether a resource is removed or gone: nothing on it is cleaned.
    pub(crate) fn is_leaving(&self, id: ResourceId) -> bool {
        self.resource(id).is_none_or(|row| row.state.is_leaving())
    }

    fn is_set_apart(&self, id: ResourceId) -> bool {
        self.resource(id).is_some_and(|row| {
            row.hold.is_some()
                || self.host_is_held(row)
                || match row.state.stage() {
                    Stage::Apart | Stage::Repairing => true,
                    Stage::Coming | Stage::Ready | Stage::Doubted | Stage::Draining | Stage::Leaving | Stage::Gone => {
                        false
                    }
                }
        })
    }

    /// Whether the way in which a lease ended puts its resource in doubt.
    fn doubt_after(&self, lease: &Lease, how: &Ended) -> Option<Link> {
        if lease.spec.child.is_some() || !matches!(lease.state, LeaseState::Active { .. }) {
            return None;
        }
        let assignment = lease.assignment()?;
        let row = self.resource(assignment.resource)?;
        let policy = self.pool_entry(&row.pool)?.config.doubt;
        let (reason, detail, source) = match how {
            Ended::Released { outcome: Outcome::Failed, note, .. } if policy.after_failed => {
                (Reason::HolderFailed, worded("the work failed", note), Source::Holder)
            }
            // A tenant alone does not take a machine from others: a check decides.
            Ended::Released { outcome: Outcome::Tainted, note, .. }
                if self.is_shared(assignment.resource, &lease.spec.tenant) =>
            {
                (
                    Reason::HolderFailed,
                    worded("a holder says that it is mangled, and others use it", note),
                    Source::Holder,
                )
            }
            Ended::Released { outcome: Outcome::Tainted, note, .. } => {
                (Reason::HolderTainted, worded("the holder says that it is mangled", note), Source::Holder)
            }
            Ended::Released { outcome: Outcome::Abandoned, note, .. } if policy.after_failed => {
                (Reason::HolderAbandoned, worded("the work was abandoned", note), Source::Holder)
            }
            Ended::Expired if policy.after_lost => (
                Reason::HolderExpired,
                String::from("its holder vanished and said nothing of the state it left"),
                Source::Broker,
            ),
            Ended::Broken { .. } if policy.after_lost => (
                Reason::LeaseBroken,
                String::from("a lease on it was broken and may have left anything behind"),
                Source::Broker,
            ),
            Ended::Released { .. }
            | Ended::Expired
            | Ended::Broken { .. }
            | Ended::Cancelled
            | Ended::Failed { .. } => return None,
        };
        Some(Link {
            subject: Subject::Resource(assignment.resource),
            reason,
            detail: Arc::from(format!("{detail} ({})", lease.id)),
            source,
            at: self.now(),
        })
    }

    /// The other members of the lease's group that go where it goes.
    pub(crate) fn companions(&self, id: LeaseId) -> Vec<LeaseId> {
        let Some(lease) = self.lease(id) else { return Vec::new() };
        if lease.spec.independent {
            return Vec::new();
        }
        let Some(members) = lease.spec.group.and_then(|group| self.group(&group)) else { return Vec::new() };
        members.iter().copied().filter(|other| *other != id && self.lease(*other).is_some_and(|l| !l.ended())).collect()
    }

    /// Fails a lease that cannot become active, and its companions with it.
    pub(crate) fn fail_lease(&mut self, id: LeaseId, reason: FailReason, code: &Arc<str>, detail: &str) {
        let actor: Arc<str> = Arc::from(SELF);
        let companions = self.companions(id);
        let how = Ended::Failed { reason, code: code.clone(), detail: Arc::from(detail) };
        self.then(Consequence::End { lease: id, how, actor: actor.clone(), counted: true });
        for other in companions {
            let detail = Arc::from(format!("{id}, asked for together with it, failed: {detail}"));
            let how = Ended::Failed { reason: FailReason::Group, code: code.clone(), detail };
            self.then(Consequence::End { lease: other, how, actor: actor.clone(), counted: true });
        }
    }

    /// The attempts that a lease has on the resources of its pool.
    fn attempts_of(&self, lease: &Lease) -> u32 {
        let row = lease.assignment().and_then(|on| self.resource(on.resource));
        row.and_then(|row| self.pool_entry(&row.pool)).map_or(5, |pool| pool.config.attempts)
    }

    /// Whether a lease that cannot be prepared now fails.
    pub(crate) fn is_last_attempt(&self, lease: &Lease) -> bool {
        lease.attempts + 1 >= self.attempts_of(lease)
    }

    /// Requeues a lease whose resource could not be prepared, at its original place; fails it after too many attempts.
    pub(crate) fn requeue(&mut self, id: LeaseId, trouble: &str) {
        let Some(lease) = self.lease(id).cloned() else { return };
        let Some(assignment) = lease.assignment().copied() else { return };
        let budget = self.attempts_of(&lease);
        if self.is_last_attempt(&lease) {
            let detail = format!("tried {budget} times; the last time: {trouble}");
            let (reason, code) = (FailReason::BudgetSpent, Arc::from("ATTEMPTS"));
            self.then(Consequence::Fail { lease: id, reason, code, detail });
            return;
        }
        self.edit_lease(id, |lease| {
            lease.state = LeaseState::Queued;
            lease.pool = None;
            lease.attempts += 1;
            lease.trouble = Some(Arc::from(trouble));
            lease.ends_at = None;
            lease.doubt = None;
            lease.avoid.retain(|other| *other != assignment.resource);
            lease.avoid.push(assignment.resource);
            if lease.avoid.len() > Lease::MAX_AVOID {
                lease.avoid.remove(0);
            }
        });
        self.own_event(EventKind::LeaseRequeued, Subject::Lease(id), trouble);
        self.rejoin_queue(id);
        let (resource, slot) = (assignment.resource, assignment.slot);
        self.then(Consequence::Vacate { lease: id, resource, slot });
    }

    /// Puts a lease back into the queue. The members of a group that wait, wait as one request: see [`Core::enqueue_requests`].
    fn rejoin_queue(&mut self, id: LeaseId) {
        let Some(lease) = self.lease(id).cloned() else { return };
        let mut members = alloc::vec![lease.clone()];
        if let Some(group) = lease.spec.group.filter(|_| !lease.spec.independent) {
            let companions: Vec<LeaseId> = self.companions(id);
            let queued = companions.iter().filter(|other| self.dequeue(**other).is_some()).count();
            let rows = companions.iter().filter_map(|other| self.lease(*other));
            members.extend(rows.filter(|row| matches!(row.state, LeaseState::Queued)).cloned());
            if queued < companions.len() {
                self.add_partial_group(group);
            }
        }
        self.enqueue_requests(members);
        self.mark_dirty_for(id);
    }

    /// Delays a lease whose remote or provider is down: it keeps its place, its attempts and its preference for the
    /// resource.
    pub(crate) fn put_off(&mut self, id: LeaseId, trouble: &str, at_least: Millis) {
        let Some(lease) = self.lease(id).cloned() else { return };
        let Some(assignment) = lease.assignment().copied() else { return };
        let wait = crate::lifecycle::resource::backoff(lease.delays + 1, Millis::secs(60)).max(at_least);
        let until = self.now().after(wait);
        self.edit_lease(id, |lease| {
            lease.state = LeaseState::Queued;
            lease.pool = None;
            lease.delays += 1;
            lease.not_before = Some(until);
            lease.trouble = Some(Arc::from(trouble));
            lease.ends_at = None;
            lease.doubt = None;
        });
        self.own_event(EventKind::LeaseDelayed, Subject::Lease(id), format!("{trouble}; again in {wait}"));
        self.rejoin_queue(id);
        let (resource, slot) = (assignment.resource, assignment.slot);
        self.then(Consequence::Vacate { lease: id, resource, slot });
    }

    /// Marks the pools that could serve a lease.
    pub(crate) fn mark_dirty_for(&mut self, id: LeaseId) {
        let Some(lease) = self.lease(id) else { return };
        let want = self.want_of(lease);
        let pools: Vec<Arc<str>> = self.pools_of(&want).map(|pool| pool.config.name.clone()).collect();
        self.mark_all_dirty(pools);
    }

    /// Takes the resource from under a lease: an active one is broken, one being prepared goes back to its place, and
    /// that of a working copy takes the copy with it. `chain` says what happened to the resource.
    pub(crate) fn uproot(&mut self, id: LeaseId, chain: CauseChain, actor: Arc<str>) {
        let Some(lease) = self.lease(id).cloned() else { return };
        match (&lease.state, lease.spec.child) {
            (LeaseState::Queued | LeaseState::Ended { .. }, _) => {}
            (LeaseState::Active { .. } | LeaseState::Preparing { .. }, Some(child)) => {
                let host = lease.assignment().map(|assignment| assignment.resource);
                let mut own = alloc::vec![Link {
                    subject: Subject::Resource(child),
                    reason: Reason::ParentGone,
                    detail: Arc::from(match host {
                        Some(host) => format!("its host {host} was lost or removed"),
                        None => String::from("its host was lost or removed"),
                    }),
                    source: Source::Broker,
                    at: self.now(),
                }];
                own.extend(chain.iter().cloned());
                let how = Ended::Broken { cause: chain, replacement: None };
                self.then(Consequence::End { lease: id, how, actor: actor.clone(), counted: true });
                self.then(Consequence::Remove { resource: child, cause: own, end: End::Lost, actor });
            }
            (LeaseState::Preparing { .. }, None) => {
                // The work of holders there may be another tenant's.
                let why = chain.first().map_or("", |link| link.reason.in_general().unwrap_or(&link.detail));
                self.then(Consequence::Requeue { lease: id, trouble: format!("its resource was lost: {why}") });
            }
            (LeaseState::Active { .. }, None) => self.then(Consequence::Break { lease: id, cause: chain, actor }),
        }
    }

    /// Ends a lease against its holder's will, its companions with it, and queues successors where they were asked for.
    pub(crate) fn break_lease(&mut self, id: LeaseId, cause: &CauseChain, actor: &Arc<str>) {
        let Some(lease) = self.lease(id).cloned() else { return };
        if lease.ended() {
            return;
        }
        let companions = self.companions(id);
        let lost = lease.assignment().map(|assignment| assignment.resource);
        let mut all = alloc::vec![id];
        all.extend(companions.iter().copied());
        if lease.spec.replace {
            // A queued member leaves the queue first: its successor takes that place.
            all.iter().for_each(|other| self.leave_queue(*other));
        }
        let replacements = if lease.spec.replace { self.queue_successors(&all, lost) } else { Vec::new() };
        let replacement = |n: usize| replacements.get(n).copied();
        for (n, other) in all.into_iter().enumerate() {
            let chain = if n == 0 {
                let mut chain = cause.clone();
                if let Some(link) = self.work_that_breaks(&lease, cause) {
                    self.own_event(EventKind::LeaseWorkBlamed, Subject::Lease(id), &*link.detail);
                    chain.push(link);
                }
                chain
            } else {
                let mut chain = alloc::vec![Link {
                    subject: Subject::Lease(id),
                    reason: Reason::GroupBroken,
                    detail: Arc::from(format!("{id}, asked for together with it, was broken")),
                    source: Source::Broker,
                    at: self.now(),
                }];
                chain.extend(cause.iter().cloned());
                chain
            };
            let how = Ended::Broken { cause: chain, replacement: replacement(n) };
            self.then(Consequence::End { lease: other, how, actor: actor.clone(), counted: true });
        }
    }

    /// Queues a lease in the stead of each of these, as one request, in the old place.
    fn queue_successors(&mut self, old: &[LeaseId], lost: Option<ResourceId>) -> Vec<LeaseId> {
        let group = (old.len() > 1).then(|| GroupId::new(self.mint()));
        let mut fresh = Vec::new();
        let mut key: Vec<Want> = Vec::new();
        let mut place = None;
        for (index, id) in old.iter().enumerate() {
            let Some(lease) = self.lease(*id).cloned() else { continue };
            let id = LeaseId::new(self.mint());
            let mut avoid = lease.avoid.clone();
            avoid.extend(lost);
            avoid.drain(..avoid.len().saturating_sub(Lease::MAX_AVOID));
            // It may wait as long as the first might, from now on.
            let wait_until = lease.spec.wait_until.map(|until| self.now().after(until.since(lease.created_at)));
            let spec =
                LeaseSpec { group, index: index as u32, replaces: Some(lease.id), wait_until, ..(*lease.spec).clone() };
            key.push(Want::Selector(spec.selector.clone()));
            let own = (Reverse(spec.priority), lease.seq);
            place = Some(place.map_or(own, |place| own.min(place)));
            self.insert_lease(Lease {
                id,
                spec: Arc::new(spec),
                state: LeaseState::Queued,
                pool: None,
                created_at: self.now(),
                expires_at: None,
                expires_at_most: None,
                ends_at: None,
                doubt: None,
                trouble: None,
                avoid,
                ..(*lease).clone()
            });
            self.own_event(EventKind::LeaseQueued, Subject::Lease(id), format!("in the stead of {}", lease.id));
            self.mark_dirty_for(id);
            fresh.push(id);
        }
        if let Some(place) = place {
            self.enqueue(key.into(), place, fresh.clone());
        }
        fresh
    }

    /// Adds a lease that waits. Its place in the queue is the caller's to set. `seq` breaks ties between leases of one
    /// age. With the resources that it avoids and the session that keeps it.
    pub(crate) fn add_lease(
        &mut self,
        spec: LeaseSpec,
        seq: u64,
        (avoid, session): (Vec<ResourceId>, Option<SessionId>),
    ) -> LeaseId {
        let id = LeaseId::new(self.mint());
        self.insert_lease(Lease { avoid, session, ..Lease::queued(id, spec, self.now(), seq) });
        id
    }

    /// The adapter prepared the slot: the holder may work.
    pub(crate) fn activate(&mut self, id: LeaseId, assignment: Assignment, access: Texts, ends_at: Option<Timestamp>) {
        let now = self.now();
        let kept = self.lease(id).is_some_and(|lease| self.is_kept(lease));
        self.edit_lease(id, |lease| {
            lease.begin(now, kept);
            lease.trouble = None;
            lease.ends_at = ends_at;
            lease.state = LeaseState::Active { assignment, since: now, access: Arc::new(access) };
        });
    }

    /// Moves the end of an active lease's TTL, at most to the end of its life. A lease that a session keeps has none.
    pub(crate) fn extend(&mut self, id: LeaseId, until: Timestamp) {
        if !self.lease(id).is_some_and(|lease| self.is_kept(lease)) {
            self.edit_lease(id, |lease| lease.end_at(until));
        }
    }

    /// The slot of an ended lease could not be cleaned: it stays taken until its resource is cleared.
    pub(crate) fn stop_cleaning(&mut self, id: LeaseId) {
        self.edit_lease(id, |lease| {
            if let LeaseState::Ended { cleanup: Some(cleanup), .. } = &mut lease.state {
                cleanup.op = Op(0);
            }
        });
    }

    /// Starts the clean-ups of a resource's slots that failed before, now that it is cleared.
    pub(crate) fn clean_again(&mut self, resource: ResourceId) {
        if self.resource(resource).is_some_and(|row| self.host_is_held(row)) {
            return;
        }
        for id in self.unclean_on(resource) {
            let op = self.next_op();
            let mut started = false;
            let waits = self.lease(id).is_some_and(
                |lease| matches!(lease.state, LeaseState::Ended { cleanup: Some(c), .. } if c.op == Op(0)),
            );
            if waits {
                started = self.edit_lease(id, |lease| {
                    if let LeaseState::Ended { cleanup: Some(cleanup), .. } = &mut lease.state {
                        cleanup.op = op;
                    }
                });
            }
            if started {
                self.call(Call::Lease(id, op));
            }
        }
    }

    /// Gives back the slot that an ended lease still holds.
    pub(crate) fn free_slot(&mut self, lease: LeaseId) {
        let Some(assignment) = self.lease(lease).and_then(|row| row.assignment().copied()) else { return };
        self.edit_lease(lease, |row| {
            if let LeaseState::Ended { cleanup, .. } = &mut row.state {
                *cleanup = None;
            }
        });
        let (resource, slot) = (assignment.resource, assignment.slot);
        self.then(Consequence::Vacate { lease, resource, slot });
    }

    /// Takes a lease off its slot.
    pub(crate) fn vacate(&mut self, id: ResourceId, slot: u32, lease: LeaseId) {
        if self.leave_slot(id, slot, lease) {
            self.then(Consequence::Vacated(id));
        }
    }

    pub(crate) fn lease_due(&mut self, id: LeaseId) {
        let Some(lease) = self.lease(id).cloned() else { return };
        let actor: Arc<str> = Arc::from(SELF);
        match &lease.state {
            LeaseState::Queued => {
                if lease.spec.wait_until.is_some_and(|until| until <= self.now()) {
                    let waited = self.now().since(lease.created_at);
                    let awaited = self.awaited(&lease);
                    let detail = format!("it waited {waited}, as long as it was asked to: {awaited}");
                    let (reason, code) = (FailReason::WaitDeadline, Arc::from("WAIT_DEADLINE"));
                    self.bring_about(Consequence::Fail { lease: id, reason, code, detail });
                } else if lease.not_before.is_some_and(|at| at <= self.now()) {
                    self.edit_lease(id, |lease| lease.not_before = None);
                    self.mark_dirty_for(id);
                }
            }
            LeaseState::Active { .. } => {
                if lease.expires_at.is_some_and(|at| at <= self.now()) && self.grace_until() <= self.now() {
                    let companions = self.companions(id);
                    let prepared = |other: &LeaseId| {
                        self.lease(*other).is_some_and(|l| matches!(l.state, LeaseState::Preparing { .. }))
                    };
                    let lives = lease.expires_at_most.is_none_or(|most| most > self.now());
                    if lives && companions.iter().any(prepared) {
                        // The holder waits for the adapter, which has a limit of its own. A member that is queued has
                        // none: then the holder has to renew, or to repeat its request.
                        let until = self.now().after(lease.spec.ttl.max(Millis(1)));
                        self.extend(id, until);
                        return;
                    }
                    for lease in [id].into_iter().chain(companions) {
                        let actor = actor.clone();
                        self.bring_about(Consequence::End { lease, how: Ended::Expired, actor, counted: true });
                    }
                }
            }
            LeaseState::Ended { at, cleanup: None, .. } => {
                if at.after(self.limits().retention) <= self.now() {
                    self.forget_lease(id);
                }
            }
            LeaseState::Preparing { .. } | LeaseState::Ended { .. } => {}
        }
    }
}

fn worded(what: &str, note: &str) -> String {
    if note.is_empty() { String::from(what) } else { format!("{what}: {note}") }
}

/// `session`: the one that kept it until that was lost.
fn ended_detail(how: &Ended, session: Option<SessionId>) -> String {
    match how {
        Ended::Released { outcome, note, .. } => worded(outcome.as_str(), note),
        Ended::Expired => match session {
            Some(session) => format!("{session}, which kept it, was lost"),
            None => String::from("its TTL ran out"),
        },
        Ended::Broken { cause, replacement } => {
            let mut text = String::new();
            for link in cause {
                if !text.is_empty() {
                    text.push_str("; ");
                }
                text.push_str(&format!("{}: {} ({})", link.subject, link.reason.as_str(), link.detail));
            }
            if let Some(replacement) = replacement {
                text.push_str(&format!("; in its stead: {replacement}"));
            }
            text
        }
        Ended::Cancelled => String::from("by its holder"),
        Ended::Failed { reason, detail, .. } => format!("{}: {detail}", reason.as_str()),
    }
}
