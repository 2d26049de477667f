//! Resources are made, drained, lost and removed.

use crate::Core;
use crate::lifecycle::{Consequence, End};
use crate::state::outbox::{Call, SELF};
use crate::{
    Blame, CallFailure, CauseChain, Cordon, Ended, EventKind, LeaseState, Link, Made, Millis, Note, Op, Outcome,
    Reason, ResourceId, ResourceState, Source, Stage, Subject, Texts, Timestamp,
};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A destroy that failed this often is a debt: the capacity is free, the janitor tries on.
const DESTROY_TRIES: u32 = 3;

/// Doubles from one second up to `most`.
pub(crate) fn backoff(failures: u32, most: Millis) -> Millis {
    Millis((1000i64 << failures.saturating_sub(1).min(20)).min(most.0))
}

impl Core {
    /// An adapter made a resource and proved it.
    pub(crate) fn made(&mut self, id: ResourceId, made: Made) {
        let Some(row) = self.resource(id).cloned() else { return };
        let now = self.now();
        let mut access: Texts = match row.parent.and_then(|parent| parent.host).and_then(|host| self.resource(host)) {
            Some(host) => (*host.access).clone(),
            None => Texts::new(),
        };
        access.extend(made.access);
        // Its children have the same.
        if let Some(key) = self.machine_of(id) {
            access.insert(Arc::from("machine"), Arc::from(key.to_string()));
        }
        self.provisioning_worked(&row.pool);
        self.edit_resource(id, |row| {
            row.state = ResourceState::Ready;
            row.handle = made.handle;
            row.access = Arc::new(access);
            for (key, value) in &made.labels {
                row.labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
            row.found = made.labels;
            row.ready_at = Some(now);
            row.idle_since = Some(now);
            row.trouble = None;
        });
        self.own_event(EventKind::ResourceReady, Subject::Resource(id), "");
        self.schedule_probe(id, true);
        // The configuration may have drained it while it was being made.
        self.then(Consequence::FollowConfiguration(id));
        self.follow_orders(id);
        self.is_back(id);
    }

    /// A resource could not be made.
    pub(crate) fn not_made(&mut self, id: ResourceId, failure: &CallFailure) {
        let Some(row) = self.resource(id).cloned() else { return };
        let ResourceState::Provisioning { attempt, .. } = row.state else { return };
        let text = format!("{}: {}", failure.reason, failure.message);
        let attempt = attempt + 1;
        let wait = backoff(attempt, Millis::secs(60)).max(failure.retry_after.unwrap_or(Millis::ZERO));
        let lasting = match failure.blame {
            // Another attempt at the same thing may work: the machine comes back, the operator mends the key.
            Blame::Configuration | Blame::Provider | Blame::Request => true,
            Blame::Resource | Blame::Bug => row.item.is_some(),
        };
        if lasting {
            let retry_at = Some(self.now().after(wait));
            self.edit_resource(id, |row| {
                row.state = ResourceState::Provisioning { op: None, attempt, retry_at };
                row.trouble = Some(Arc::from(text.as_str()));
            });
            self.own_event(
                EventKind::ResourceProvisionFailed,
                Subject::Resource(id),
                format!("{text}; again in {wait}"),
            );
            // A lease that avoided free resources for this one no longer waits for it.
            self.mark_dirty(row.pool.clone());
            return;
        }
        self.provisioning_failed(&row.pool, &text, |failures| backoff(failures, Millis::secs(60)));
        self.edit_resource(id, |row| row.trouble = Some(Arc::from(text.as_str())));
        self.own_event(EventKind::ResourceProvisionFailed, Subject::Resource(id), text.as_str());
        let link = Link {
            subject: Subject::Resource(id),
            reason: Reason::ProvisionFailed,
            detail: Arc::from(text.as_str()),
            source: Source::Adapter,
            at: self.now(),
        };
        let host = row.parent.and_then(|parent| parent.host);
        self.then(Consequence::remove(id, alloc::vec![link.clone()]));
        if let Some(host) = host {
            self.then(Consequence::doubt(host, Link { subject: Subject::Resource(host), ..link }));
        }
    }

    /// No new leases; live ones run to their end, at the latest to `deadline`; then it is removed.
    pub(crate) fn drain(&mut self, id: ResourceId, cause: &CauseChain, deadline: Option<Timestamp>) {
        let Some(row) = self.resource(id).cloned() else { return };
        match row.state.stage() {
            Stage::Leaving | Stage::Gone => return,
            Stage::Draining => {
                let ResourceState::Draining { cause: known, deadline: before } = &row.state else { return };
                let before = *before;
                let sooner = match (before, deadline) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                // Each reason is kept: one that is called off leaves the others.
                let same = |a: &Link, b: &Link| a.reason == b.reason && a.subject == b.subject && a.source == b.source;
                let more: Vec<Link> =
                    cause.iter().filter(|new| !known.iter().any(|old| same(old, new))).cloned().collect();
                if sooner != before || !more.is_empty() {
                    self.edit_resource(id, |row| {
                        if let ResourceState::Draining { deadline, cause } = &mut row.state {
                            *deadline = sooner;
                            cause.extend(more);
                        }
                    });
                }
            }
            Stage::Coming | Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Apart => {
                self.settle_open(id, "its resource is drained");
                let detail = cause.first().map_or_else(String::new, |link| String::from(&*link.detail));
                self.edit_resource(id, |row| row.state = ResourceState::Draining { cause: cause.clone(), deadline });
                self.own_event(EventKind::ResourceDraining, Subject::Resource(id), detail);
                self.schedule_probe(id, false);
            }
        }
        for child in self.children(id) {
            // A resource that is kept for triage is kept to its end, as a live lease is.
            let kept = self.resource(child).is_some_and(|row| row.state.stage() == Stage::Apart);
            if kept && deadline.is_none() {
                continue;
            }
            let mut own = alloc::vec![Link {
                subject: Subject::Resource(child),
                reason: Reason::ParentLost,
                detail: Arc::from(format!("its host {id} is drained")),
                source: Source::Broker,
                at: self.now(),
            }];
            own.extend(cause.iter().cloned());
            self.then(Consequence::Drain { resource: child, cause: own, deadline });
        }
        self.then(Consequence::Vacated(id));
    }

    /// Withdraws the drain of `root` for these reasons. A drain for which no other reason is left ends, and that of
    /// its children with it, by way of a check. Of notices, those of the link's source are taken back.
    pub(crate) fn undrain(&mut self, id: ResourceId, root: ResourceId, reasons: &'static [Reason], link: &Link) {
        let Some(row) = self.resource(id).cloned() else { return };
        let ResourceState::Draining { cause, deadline } = &row.state else { return };
        let said_by = |of: &Link| !matches!(of.source, Source::Notice(_)) || of.source == link.source;
        let taken_back = |link: &Link| {
            let of_root = reasons.contains(&link.reason) && link.subject == Subject::Resource(root) && said_by(link);
            of_root || (id != root && link.reason == Reason::ParentLost)
        };
        if !cause.iter().any(taken_back) {
            return;
        }
        let mut rest: CauseChain = cause.iter().filter(|link| !taken_back(link)).cloned().collect();
        let deadline = *deadline;
        // An operator's drain of its machine holds, though a hold in between took it out of the causes.
        if rest.is_empty() {
            rest.extend(self.drain_of_machine(id));
        }
        if !rest.is_empty() {
            self.edit_resource(id, |row| row.state = ResourceState::Draining { cause: rest, deadline });
            return;
        }
        self.edit_resource(id, |row| row.state = ResourceState::Ready);
        self.then(Consequence::doubt(id, Link { subject: Subject::Resource(id), ..link.clone() }));
        for child in self.children(id) {
            self.then(Consequence::Undrain { resource: child, root, reasons, link: link.clone() });
        }
    }

    /// A slot became free, or it began to drain: is there anything left to wait for?
    pub(crate) fn after_vacated(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).cloned() else { return };
        match row.state.stage() {
            Stage::Draining => {
                let running = self.entry(&id).is_some_and(|entry| {
                    entry.slots.used().any(|(_, lease)| {
                        self.lease(lease).is_some_and(|lease| match &lease.state {
                            LeaseState::Queued => false,
                            LeaseState::Preparing { .. } | LeaseState::Active { .. } => true,
                            LeaseState::Ended { cleanup, .. } => cleanup.is_some_and(|c| c.op != Op(0)),
                        })
                    })
                });
                if let ResourceState::Draining { cause, .. } = &row.state
                    && !running
                {
                    self.then(Consequence::remove(id, cause.clone()));
                }
            }
            Stage::Ready => self.consider_retiring(id),
            Stage::Doubted => {
                if matches!(row.state, ResourceState::Suspect { op: None, retry_at: None, .. }) {
                    self.then(Consequence::Check(id));
                }
            }
            Stage::Coming | Stage::Repairing | Stage::Apart | Stage::Leaving | Stage::Gone => {}
        }
    }

    /// Removes a resource: its leases are broken, what lies on it is lost.
    pub(crate) fn remove(&mut self, id: ResourceId, cause: CauseChain, end: End, actor: &Arc<str>) {
        let dead = end != End::Planned;
        let Some(row) = self.resource(id).cloned() else { return };
        match row.state.stage() {
            Stage::Gone => return,
            Stage::Leaving => {
                // It dies while it is being removed: the capacity is free now.
                if dead && matches!(row.state, ResourceState::Destroying { dead: false, .. }) {
                    self.edit_resource(id, |row| {
                        if let ResourceState::Destroying { dead, .. } = &mut row.state {
                            *dead = true;
                        }
                    });
                    if self.host_is_lost(id) {
                        self.then(Consequence::Gone { resource: id, cause });
                    }
                }
                return;
            }
            Stage::Coming | Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Draining => {}
        }
        self.settle_open(id, "its resource was removed");
        self.note_loss(&row, &cause);
        if end == End::Lost {
            self.count(&row.pool, |counters| counters.lost += 1);
        }
        let waits_for_host = row.parent.is_some_and(|parent| parent.host.is_none());
        let never_began =
            waits_for_host || matches!(row.state, ResourceState::Provisioning { op: None, attempt: 0, .. });
        let on_lost_host = self.host_is_lost(id)
            || (dead && row.parent.is_some() && cause.first().is_some_and(|l| l.reason == Reason::ParentGone));
        let op = self.next_op();
        let detail =
            cause.first().map_or_else(String::new, |link| format!("{}: {}", link.reason.as_str(), link.detail));
        self.edit_resource(id, |row| {
            row.state =
                ResourceState::Destroying { op: Some(op), attempt: 0, retry_at: None, cause: cause.clone(), dead };
        });
        self.event(EventKind::ResourceDestroying, actor, Subject::Resource(id), detail);
        for lease in self.live_on(id) {
            self.then(Consequence::Uproot { lease, cause: cause.clone(), actor: actor.clone() });
        }
        // With the resource goes what a former holder left on its slots.
        for lease in self.unclean_on(id) {
            self.then(Consequence::FreeSlot(lease));
        }
        if never_began || on_lost_host {
            self.then(Consequence::Gone { resource: id, cause });
        } else {
            self.call(Call::Resource(id, op));
        }
    }

    /// Whether its host is gone, so that there is nothing to remove.
    fn host_is_lost(&self, id: ResourceId) -> bool {
        let Some(parent) = self.resource(id).and_then(|row| row.parent) else { return false };
        let Some(host) = parent.host else { return false };
        self.is_leaving(host)
    }

    /// It is no more: its lease on its host ends.
    pub(crate) fn gone(&mut self, id: ResourceId, cause: CauseChain) {
        let Some(row) = self.resource(id).cloned() else { return };
        let now = self.now();
        self.drop_failures(id, |_| true);
        self.forget_accusers(id);
        self.edit_resource(id, |row| {
            row.held_for = None;
            row.state = ResourceState::Gone { at: now, cause };
            row.hold = None;
            row.handle = None;
            row.access = Arc::new(Texts::new());
        });
        let rest = self.rest_after(id);
        self.own_event(EventKind::ResourceGone, Subject::Resource(id), rest);
        if let Some(host) = row.parent.and_then(|parent| parent.host) {
            self.untie(host, id);
        }
        self.mark_dirty(row.pool.clone());
        self.drop_empty_pools();
        self.leave_host_slot(row.parent, "the child is gone");
    }

    /// Cordons or uncordons a resource, whatever its state.
    pub(crate) fn set_cordon(&mut self, id: ResourceId, cordon: Option<Cordon>) {
        self.edit_resource(id, |row| row.cordoned = cordon);
    }

    /// Writes or removes the note on a resource, whatever its state.
    pub(crate) fn set_note(&mut self, id: ResourceId, note: Option<Note>) {
        self.edit_resource(id, |row| row.note = note);
    }

    /// Makes a resource that is being removed a debt of the janitor, at the request of an operator.
    pub(crate) fn orphan_by_force(&mut self, id: ResourceId, chain: CauseChain, actor: &Arc<str>) {
        let Some(row) = self.resource(id).cloned() else { return };
        if let ResourceState::Destroying { op, attempt, retry_at, .. } = row.state {
            self.edit_resource(id, |row| {
                row.state = ResourceState::Orphaned { op, attempt, retry_at, cause: chain };
            });
            self.event(EventKind::ResourceOrphaned, actor, Subject::Resource(id), "by force; the janitor tries on");
            self.leave_host_slot(row.parent, "the child is an orphan");
        }
    }

    /// Stores what the adapter wrote down about the resource that it makes.
    pub(crate) fn note_handle(&mut self, id: ResourceId, handle: Arc<str>) {
        self.edit_resource(id, |row| row.handle = Some(handle));
    }

    /// A destroy came back.
    pub(crate) fn destroyed(&mut self, id: ResourceId, result: Result<(), CallFailure>) {
        let Some(row) = self.resource(id).cloned() else { return };
        let (ResourceState::Destroying { attempt, cause, .. } | ResourceState::Orphaned { attempt, cause, .. }) =
            &row.state
        else {
            return;
        };
        let (attempt, cause) = (*attempt + 1, cause.clone());
        let failure = match result {
            Ok(()) => return self.then(Consequence::Gone { resource: id, cause }),
            Err(failure) => failure,
        };
        let text = format!("{}: {}", failure.reason, failure.message);
        let wait = backoff(attempt, Millis::secs(600)).max(failure.retry_after.unwrap_or(Millis::ZERO));
        let retry_at = Some(self.now().after(wait));
        let orphaned = matches!(row.state, ResourceState::Orphaned { .. });
        if let (Blame::Resource, Some(host)) = (failure.blame, row.parent.and_then(|parent| parent.host)) {
            // It cannot be reached to be removed: its host is checked, whose end would be the end of the debt too.
            let link =
                self.link(host, Reason::ProbeMissed, &format!("{id} on it can't be removed: {text}"), Source::Adapter);
            self.then(Consequence::doubt(host, link));
        }
        if orphaned || attempt >= DESTROY_TRIES {
            self.edit_resource(id, |row| {
                row.state = ResourceState::Orphaned { op: None, attempt, retry_at, cause };
                row.trouble = Some(Arc::from(text.as_str()));
            });
            if !orphaned {
                self.own_event(
                    EventKind::ResourceOrphaned,
                    Subject::Resource(id),
                    format!("{text}; the janitor tries on"),
                );
                // Its slot on the host is free: only the debt remains.
                self.leave_host_slot(row.parent, "the child is an orphan");
            }
        } else {
            self.edit_resource(id, |row| {
                if let ResourceState::Destroying { op, attempt: tries, retry_at: at, .. } = &mut row.state {
                    *op = None;
                    *tries = attempt;
                    *at = retry_at;
                }
                row.trouble = Some(Arc::from(text.as_str()));
            });
            self.own_event(EventKind::ResourceDestroyFailed, Subject::Resource(id), format!("{text}; again in {wait}"));
        }
    }

    /// Ends the lease of a working copy on its host. The copy keeps its tie to the host.
    pub(crate) fn leave_host_slot(&mut self, parent: Option<crate::Parent>, note: &str) {
        let Some(parent) = parent else { return };
        let how = Ended::Released { outcome: Outcome::Ok, note: Arc::from(note), finding: None };
        self.then(Consequence::End { lease: parent.lease, how, actor: Arc::from(SELF), counted: true });
    }

    /// Does what time alone brings about for a resource.
    pub(crate) fn resource_due(&mut self, id: ResourceId) {
        self.consider_time(id);
        self.conclude();
    }

    fn consider_time(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).cloned() else { return };
        let due = row.state.due(self.limits().retention).is_some_and(|at| at <= self.now());
        match row.state.stage() {
            Stage::Coming if due => {
                let fresh = self.next_op();
                self.edit_resource(id, |row| {
                    if let ResourceState::Provisioning { op, retry_at, .. } = &mut row.state {
                        (*op, *retry_at) = (Some(fresh), None);
                    }
                });
                self.call(Call::Resource(id, fresh));
            }
            Stage::Doubted if due => self.then(Consequence::Check(id)),
            Stage::Leaving if due => self.destroy_again(id, &row.state),
            Stage::Draining if due => {
                if let ResourceState::Draining { cause, .. } = &row.state {
                    self.then(Consequence::remove(id, cause.clone()));
                }
            }
            Stage::Gone if due => self.forget_resource(id),
            Stage::Apart => {
                self.hold_due(id);
            }
            Stage::Ready | Stage::Draining => {
                if !self.hold_due(id) {
                    self.probe_due(id);
                    self.consider_retiring(id);
                }
            }
            Stage::Coming | Stage::Doubted | Stage::Repairing | Stage::Leaving | Stage::Gone => {}
        }
    }

    /// Has the adapter remove a resource once more, if there is anything left to remove.
    fn destroy_again(&mut self, id: ResourceId, state: &ResourceState) {
        if self.host_is_lost(id) {
            if let ResourceState::Destroying { cause, .. } | ResourceState::Orphaned { cause, .. } = state {
                self.then(Consequence::Gone { resource: id, cause: cause.clone() });
            }
            return;
        }
        let fresh = self.next_op();
        self.edit_resource(id, |row| {
            if let ResourceState::Destroying { op, retry_at, .. } | ResourceState::Orphaned { op, retry_at, .. } =
                &mut row.state
            {
                (*op, *retry_at) = (Some(fresh), None);
            }
        });
        self.call(Call::Resource(id, fresh));
    }
}
