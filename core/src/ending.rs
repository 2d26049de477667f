//! How leases end, go back to the line, or are broken.

use crate::machine::Core;
use crate::pending::{Call, SELF};
use crate::queue::{ClassKey, Want};
use crate::{
    CauseChain, Cleanup, Ended, FailReason, GroupId, Lease, LeaseId, LeaseSpec, LeaseState, Link, Millis, Op, Outcome,
    Reason, ResourceId, Source, Subject,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

impl Core {
    /// Ends a lease, whatever its state; its slot stays held until it is clean. Nothing happens to one that is over.
    pub(crate) fn end_lease(&mut self, id: LeaseId, how: Ended, actor: &Arc<str>, kind: &'static str) {
        if let Some(lease) = self.lease(id).filter(|lease| !lease.ended()).cloned() {
            self.note_work(&lease, &how);
            self.end_uncounted(id, how, actor, kind);
        }
    }

    /// The same for a lease of whose work nothing is known: it counts neither as a success nor as a failure.
    pub(crate) fn end_uncounted(&mut self, id: LeaseId, how: Ended, actor: &Arc<str>, kind: &'static str) {
        let Some(lease) = self.lease(id).cloned() else { return };
        if lease.ended() {
            return;
        }
        self.leave_line(id);
        let now = self.now;
        let hold = lease.hold().copied();
        let cleanup = hold.filter(|hold| self.needs_cleaning(&lease, hold.resource)).map(|hold| {
            // What is kept for triage is left as it is, and a repair has the resource to itself: the slot is cleaned when
            // the resource is cleared.
            let op = if self.is_set_apart(hold.resource) { Op(0) } else { self.next_op() };
            Cleanup { hold, op }
        });
        let detail = ended_detail(&how);
        let doubt = self.doubt_after(&lease, &how);
        self.edit_lease(id, |lease| {
            lease.state = LeaseState::Ended { how, at: now, cleanup };
            lease.doubt = None;
        });
        self.event(kind, actor, Subject::Lease(id), detail);
        if let Some(hold) = hold {
            // Where it ended, though it may hold the slot no more.
            if let Some(event) = self.pending.events.last_mut() {
                event.resource = Some(hold.resource);
            }
            if kind == "lease.broken"
                && lease.spec.child.is_none()
                && let Some(pool) = lease.pool.as_ref().and_then(|pool| self.pools.get_mut(pool))
            {
                pool.counters.broken += 1;
            }
            self.settle_keep(hold.resource, Some(id));
        }
        match (hold, cleanup) {
            (Some(_), Some(cleanup)) if cleanup.op == Op(0) => {}
            (Some(_), Some(cleanup)) => self.call(Call::Lease(id, cleanup.op)),
            (Some(hold), None) => self.vacate(hold.resource, hold.slot, id),
            (None, _) => {}
        }
        if let (Some(hold), Some(link)) = (hold, doubt) {
            self.suspect(hold.resource, alloc::vec![link]);
        }
    }

    /// Takes a lease out of the line; the others of its request stay in it, and keep their place.
    fn leave_line(&mut self, id: LeaseId) {
        let Some((key, place)) = self.queue.place(id).cloned() else { return };
        let Some(waiter) = self.queue.remove(id) else { return };
        for want in key.iter() {
            let pools: Vec<Arc<str>> = self.pools_of(want).map(|pool| pool.config.name.clone()).collect();
            self.dirty.extend(pools);
        }
        let rest: Vec<(LeaseId, Want)> =
            waiter.leases.into_iter().zip(key.iter().cloned()).filter(|(lease, _)| *lease != id).collect();
        if !rest.is_empty() {
            let key: ClassKey = rest.iter().map(|(_, want)| want.clone()).collect();
            let seq = rest.iter().filter_map(|(lease, _)| self.lease(*lease)).map(|l| l.seq).min().unwrap_or(place.1);
            self.queue.push(key, (place.0, seq), rest.into_iter().map(|(lease, _)| lease).collect());
        }
    }

    fn needs_cleaning(&self, lease: &Lease, resource: ResourceId) -> bool {
        if lease.spec.child.is_some() {
            return false;
        }
        let Some(row) = self.resource(resource) else { return false };
        let cleans = self.pools.get(&row.pool).is_some_and(|pool| pool.config.traits.cleans);
        // A preparation may still run on the slot; the clean-up ends it.
        let preparing = matches!(lease.state, LeaseState::Preparing { .. });
        (cleans || preparing) && !self.is_leaving(resource)
    }

    /// Being removed or removed: nothing on it is cleaned any more.
    pub(crate) fn is_leaving(&self, id: ResourceId) -> bool {
        use crate::ResourceState as S;
        self.resource(id)
            .is_none_or(|row| matches!(row.state, S::Destroying { .. } | S::Orphaned { .. } | S::Gone { .. }))
    }

    fn is_set_apart(&self, id: ResourceId) -> bool {
        use crate::ResourceState as S;
        self.resource(id)
            .is_some_and(|row| row.keep.is_some() || matches!(row.state, S::Quarantined { .. } | S::Repairing { .. }))
    }

    /// Whether the way in which a lease ended puts its resource in doubt.
    fn doubt_after(&self, lease: &Lease, how: &Ended) -> Option<Link> {
        if lease.spec.child.is_some() || !matches!(lease.state, LeaseState::Active { .. }) {
            return None;
        }
        let hold = lease.hold()?;
        let row = self.resource(hold.resource)?;
        let policy = self.pools.get(&row.pool)?.config.doubt;
        let (reason, detail, source) = match how {
            Ended::Released { outcome: Outcome::Failed, note, .. } if policy.after_failed => {
                (Reason::HolderFailed, worded("the work failed", note), Source::Holder)
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
            subject: Subject::Resource(hold.resource),
            reason,
            detail: Arc::from(format!("{detail} ({})", lease.id)),
            source,
            at: self.now,
        })
    }

    /// The other members of the lease's group that go where it goes.
    pub(crate) fn companions(&self, id: LeaseId) -> Vec<LeaseId> {
        let Some(lease) = self.lease(id) else { return Vec::new() };
        if lease.spec.independent {
            return Vec::new();
        }
        let Some(members) = lease.spec.group.and_then(|group| self.by_group.get(&group)) else { return Vec::new() };
        members.iter().copied().filter(|other| *other != id && self.lease(*other).is_some_and(|l| !l.ended())).collect()
    }

    /// Fails a lease that can't become active, and its companions with it.
    pub(crate) fn fail_lease(&mut self, id: LeaseId, reason: FailReason, code: &Arc<str>, detail: &str) {
        let actor: Arc<str> = Arc::from(SELF);
        let companions = self.companions(id);
        let how = Ended::Failed { reason, code: code.clone(), detail: Arc::from(detail) };
        self.end_lease(id, how, &actor, "lease.failed");
        for other in companions {
            let detail = Arc::from(format!("{id}, asked for together with it, failed: {detail}"));
            let how = Ended::Failed { reason: FailReason::Group, code: code.clone(), detail };
            self.end_lease(other, how, &actor, "lease.failed");
        }
    }

    /// Requeues a lease whose resource could not be prepared, at its original place; fails it after too many attempts.
    pub(crate) fn requeue(&mut self, id: LeaseId, trouble: &str) {
        let Some(lease) = self.lease(id).cloned() else { return };
        let Some(hold) = lease.hold().copied() else { return };
        let budget =
            self.resource(hold.resource).and_then(|row| self.pools.get(&row.pool)).map_or(5, |p| p.config.attempts);
        if lease.attempts + 1 >= budget {
            let detail = format!("tried {budget} times; the last time: {trouble}");
            self.fail_lease(id, FailReason::BudgetSpent, &Arc::from("ATTEMPTS"), &detail);
            return;
        }
        self.edit_lease(id, |lease| {
            lease.state = LeaseState::Queued;
            lease.pool = None;
            lease.attempts += 1;
            lease.trouble = Some(Arc::from(trouble));
            lease.ends_at = None;
            lease.doubt = None;
            lease.avoid.retain(|other| *other != hold.resource);
            lease.avoid.push(hold.resource);
            if lease.avoid.len() > Lease::MAX_AVOID {
                lease.avoid.remove(0);
            }
        });
        self.own_event("lease.requeued", Subject::Lease(id), trouble);
        self.rejoin_queue(id);
        self.vacate(hold.resource, hold.slot, id);
    }

    /// Puts a lease back into the queue. The members of a group that wait, wait as one request: see [`Core::line_up`].
    fn rejoin_queue(&mut self, id: LeaseId) {
        let Some(lease) = self.lease(id).cloned() else { return };
        let mut members = alloc::vec![lease.clone()];
        if let Some(group) = lease.spec.group.filter(|_| !lease.spec.independent) {
            let companions: Vec<LeaseId> = self.companions(id);
            let queued = companions.iter().filter(|other| self.queue.remove(**other).is_some()).count();
            let rows = companions.iter().filter_map(|other| self.lease(*other));
            members.extend(rows.filter(|row| matches!(row.state, LeaseState::Queued)).cloned());
            if queued < companions.len() {
                self.partial.insert(group);
            }
        }
        self.line_up(members);
        self.mark_dirty_for(id);
    }

    /// Puts a lease off through nobody's fault here: it keeps its place, its budget and its liking for the resource.
    pub(crate) fn put_off(&mut self, id: LeaseId, trouble: &str, at_least: Millis) {
        let Some(lease) = self.lease(id).cloned() else { return };
        let Some(hold) = lease.hold().copied() else { return };
        let wait = crate::fate::backoff(lease.delays + 1, Millis::secs(60)).max(at_least);
        let until = self.now.after(wait);
        self.edit_lease(id, |lease| {
            lease.state = LeaseState::Queued;
            lease.pool = None;
            lease.delays += 1;
            lease.not_before = Some(until);
            lease.trouble = Some(Arc::from(trouble));
            lease.ends_at = None;
            lease.doubt = None;
        });
        self.own_event("lease.delayed", Subject::Lease(id), format!("{trouble}; again in {wait}"));
        self.rejoin_queue(id);
        self.vacate(hold.resource, hold.slot, id);
    }

    /// Marks the pools that could serve a lease.
    pub(crate) fn mark_dirty_for(&mut self, id: LeaseId) {
        let Some(lease) = self.lease(id) else { return };
        let want = self.want_of(lease);
        let pools: Vec<Arc<str>> = self.pools_of(&want).map(|pool| pool.config.name.clone()).collect();
        self.dirty.extend(pools);
    }

    /// Breaks one lease on a resource: an active one ends, one being prepared goes back to its place, a child's takes
    /// the child with it. `chain` tells what happened to the resource.
    pub(crate) fn break_on_resource(&mut self, id: LeaseId, chain: &CauseChain, actor: &Arc<str>) {
        let Some(lease) = self.lease(id).cloned() else { return };
        match (&lease.state, lease.spec.child) {
            (LeaseState::Queued | LeaseState::Ended { .. }, _) => {}
            (LeaseState::Active { .. } | LeaseState::Preparing { .. }, Some(child)) => {
                let host = lease.hold().map(|hold| hold.resource);
                let mut own = alloc::vec![Link {
                    subject: Subject::Resource(child),
                    reason: Reason::ParentGone,
                    detail: Arc::from(match host {
                        Some(host) => format!("its host {host} was lost or removed"),
                        None => String::from("its host was lost or removed"),
                    }),
                    source: Source::Broker,
                    at: self.now,
                }];
                own.extend(chain.iter().cloned());
                let how = Ended::Broken { cause: chain.clone(), replacement: None };
                self.end_lease(id, how, actor, "lease.broken");
                self.lose(child, own, actor);
            }
            (LeaseState::Preparing { .. }, None) => {
                let why = chain.first().map_or_else(String::new, |link| String::from(&*link.detail));
                self.requeue(id, &format!("its resource was lost: {why}"));
            }
            (LeaseState::Active { .. }, None) => self.break_lease(id, chain.clone(), actor),
        }
    }

    /// Ends a lease against its holder's will, its companions with it, and queues successors where they were asked for.
    pub(crate) fn break_lease(&mut self, id: LeaseId, cause: CauseChain, actor: &Arc<str>) {
        let Some(lease) = self.lease(id).cloned() else { return };
        if lease.ended() {
            return;
        }
        let companions = self.companions(id);
        let lost = lease.hold().map(|hold| hold.resource);
        let mut all = alloc::vec![id];
        all.extend(companions.iter().copied());
        if lease.spec.replace {
            // Who is in line himself leaves it first: his successor takes that very place.
            all.iter().for_each(|other| self.leave_line(*other));
        }
        let replacements = if lease.spec.replace { self.queue_successors(&all, lost) } else { Vec::new() };
        let replacement = |n: usize| replacements.get(n).copied();
        for (n, other) in all.into_iter().enumerate() {
            let chain = if n == 0 {
                let mut chain = cause.clone();
                if let Some(link) = self.work_that_breaks(&lease, &cause) {
                    self.own_event("lease.work-blamed", Subject::Lease(id), &*link.detail);
                    chain.push(link);
                }
                chain
            } else {
                let mut chain = alloc::vec![Link {
                    subject: Subject::Lease(id),
                    reason: Reason::GroupBroken,
                    detail: Arc::from(format!("{id}, asked for together with it, was broken")),
                    source: Source::Broker,
                    at: self.now,
                }];
                chain.extend(cause.iter().cloned());
                chain
            };
            let how = Ended::Broken { cause: chain, replacement: replacement(n) };
            self.end_lease(other, how, actor, "lease.broken");
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
            let wait_until = lease.spec.wait_until.map(|until| self.now.after(until.since(lease.created_at)));
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
                created_at: self.now,
                expires_at: None,
                ends_at: None,
                doubt: None,
                trouble: None,
                avoid,
                ..(*lease).clone()
            });
            self.own_event("lease.queued", Subject::Lease(id), format!("in the stead of {}", lease.id));
            self.mark_dirty_for(id);
            fresh.push(id);
        }
        if let Some(place) = place {
            self.queue.push(key.into(), place, fresh.clone());
        }
        fresh
    }

    /// Starts the clean-ups of a resource's slots that failed before, now that it is cleared.
    pub(crate) fn clean_again(&mut self, resource: ResourceId) {
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

    pub(crate) fn lease_due(&mut self, id: LeaseId) {
        let Some(lease) = self.lease(id).cloned() else { return };
        let actor: Arc<str> = Arc::from(SELF);
        match &lease.state {
            LeaseState::Queued => {
                if lease.spec.wait_until.is_some_and(|until| until <= self.now) {
                    let waited = self.now.since(lease.created_at);
                    let detail = format!("it waited {waited}, as long as it was asked to");
                    self.fail_lease(id, FailReason::WaitDeadline, &Arc::from("WAIT_DEADLINE"), &detail);
                } else if lease.not_before.is_some_and(|at| at <= self.now) {
                    self.edit_lease(id, |lease| lease.not_before = None);
                    self.mark_dirty_for(id);
                }
            }
            LeaseState::Active { .. } => {
                if lease.expires_at.is_some_and(|at| at <= self.now) && self.grace_until <= self.now {
                    let companions = self.companions(id);
                    let prepared = |other: &LeaseId| {
                        self.lease(*other).is_some_and(|l| matches!(l.state, LeaseState::Preparing { .. }))
                    };
                    if companions.iter().any(prepared) {
                        // The holder waits for the adapter, which has a limit of its own. A member that is queued has
                        // none: then the holder has to renew, or to repeat its request.
                        let until = self.now.after(lease.spec.ttl.max(Millis(1)));
                        self.edit_lease(id, |lease| lease.expires_at = Some(until));
                        return;
                    }
                    self.end_lease(id, Ended::Expired, &actor, "lease.expired");
                    for other in companions {
                        self.end_lease(other, Ended::Expired, &actor, "lease.expired");
                    }
                }
            }
            LeaseState::Ended { at, cleanup: None, .. } => {
                if at.after(self.limits.retention) <= self.now {
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

fn ended_detail(how: &Ended) -> String {
    match how {
        Ended::Released { outcome, note, .. } => worded(outcome.as_str(), note),
        Ended::Expired => String::from("its TTL ran out"),
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
