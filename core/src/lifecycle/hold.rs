//! Kept for triage: by an operator's quarantine, by a hold with an expiry, or because its check is blind.
//!
//! A hold breaks nothing: live leases go on, no new ones are given, and when the last one has ended the resource is
//! kept as it was left, uncleaned.

use crate::Core;
use crate::lifecycle::Consequence;
use crate::state::outbox::SELF;
use crate::{
    CauseChain, Cordon, EventKind, Hold, LeaseId, Link, Reason, Resource, ResourceId, ResourceState, Source, Stage,
    Subject,
};
use alloc::format;
use alloc::sync::Arc;

impl Core {
    /// Holds a resource: no new leases, and it is set apart once its last lease has ended.
    pub(crate) fn hold(&mut self, id: ResourceId, hold: Hold, actor: &Arc<str>) {
        let Some(row) = self.resource(id).cloned() else { return };
        let until = hold.until.map(|at| format!(" for {}", at.since(self.now()))).unwrap_or_default();
        let detail = format!("kept{until}: {}", hold.reason);
        match row.state.stage() {
            // One that is being made has nothing to show yet.
            Stage::Coming | Stage::Leaving | Stage::Gone => return,
            Stage::Apart => {
                self.edit_resource(id, |row| {
                    if let ResourceState::Quarantined { until, .. } = &mut row.state {
                        *until = hold.until;
                    }
                });
                self.event(EventKind::ResourceKept, actor, Subject::Resource(id), detail);
                return;
            }
            Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Draining => {}
        }
        self.edit_resource(id, |row| row.hold = Some(hold));
        self.event(EventKind::ResourceKept, actor, Subject::Resource(id), detail);
        self.then(Consequence::SettleHold(id));
    }

    /// Notes the tenant at whose request a resource is kept.
    pub(crate) fn set_held_for(&mut self, id: ResourceId, tenant: Option<Arc<str>>) {
        if self.resource(id).is_some_and(|row| row.held_for != tenant) {
            self.edit_resource(id, |row| row.held_for = tenant);
        }
    }

    /// Sets a resource apart that is held and has no live lease.
    pub(crate) fn settle_hold(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).cloned() else { return };
        let Some(hold) = row.hold.clone() else { return };
        if !self.is_at_rest(&row) {
            return;
        }
        let (reason, source) = if &*hold.by == SELF {
            (Reason::CheckBlind, Source::Broker)
        } else {
            (Reason::Operator, Source::Operator(hold.by.clone()))
        };
        let cause = alloc::vec![self.link(id, reason, &hold.reason, source)];
        let actor = hold.by.clone();
        self.then(Consequence::SetApart { resource: id, hold, cause, actor });
    }

    /// Whether a hold sets a resource apart at once.
    pub(crate) fn is_held_at_once(&self, id: ResourceId) -> bool {
        self.resource(id).is_some_and(|row| self.is_at_rest(row))
    }

    /// Whether no lease is live on a resource that may be set apart.
    fn is_at_rest(&self, row: &Resource) -> bool {
        let busy = self.live_on(row.id).into_iter().any(|lease| {
            // An unused copy does not keep its host in use.
            self.lease(lease).and_then(|lease| lease.spec.child).is_none_or(|child| !self.live_on(child).is_empty())
        });
        let deadline = matches!(row.state, ResourceState::Draining { deadline: Some(_), .. });
        !busy
            && match row.state.stage() {
                Stage::Ready | Stage::Doubted => true,
                // Its end is announced or ordered for a time; what is there then is not kept.
                Stage::Draining => !deadline,
                // When the repair is over, it is looked at again.
                Stage::Repairing | Stage::Coming | Stage::Apart | Stage::Leaving | Stage::Gone => false,
            }
    }

    /// Keeps a resource as it is; its leases are broken. Copies on it that hold no lease stay on it, and are not leased
    /// meanwhile.
    pub(crate) fn set_apart(&mut self, id: ResourceId, hold: Hold, cause: &CauseChain, actor: &Arc<str>) {
        self.settle_open(id, "its resource is kept as it is");
        let since = self.now();
        let detail = hold.reason.clone();
        let (cordon, until) = (Cordon { by: hold.by, reason: hold.reason }, hold.until);
        self.edit_resource(id, |row| {
            row.state = ResourceState::Quarantined { cordon, since, until };
            row.hold = None;
        });
        self.event(EventKind::ResourceQuarantined, actor, Subject::Resource(id), &*detail);
        for lease in self.live_on(id) {
            if self.is_for_idle_copy(lease) {
                continue;
            }
            self.then(Consequence::Uproot { lease, cause: cause.clone(), actor: actor.clone() });
        }
    }

    /// Whether a lease is that of a working copy that is made and holds no lease.
    pub(crate) fn is_for_idle_copy(&self, lease: LeaseId) -> bool {
        let Some(copy) = self.lease(lease).and_then(|lease| lease.spec.child) else { return false };
        let made = self.resource(copy).is_some_and(|row| match row.state.stage() {
            Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Draining | Stage::Leaving => true,
            Stage::Coming | Stage::Gone => false,
        });
        made && self.live_on(copy).is_empty()
    }

    /// Back from quarantine, or from being kept, by way of a check. One that the broker set apart for its uses comes back on
    /// trial, unless an operator says so.
    pub(crate) fn take_back(&mut self, id: ResourceId, link: Link) {
        let Some(row) = self.resource(id).cloned() else { return };
        let by = match (&row.state, &row.hold) {
            (ResourceState::Quarantined { cordon, .. }, _) => Some(&cordon.by),
            (_, Some(hold)) => Some(&hold.by),
            (_, None) => None,
        };
        let apart = match row.state.stage() {
            Stage::Apart => true,
            Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Draining if row.hold.is_some() => false,
            Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Draining => return,
            Stage::Coming | Stage::Leaving | Stage::Gone => return,
        };
        self.settle_open(id, "its resource was kept as it was");
        self.drop_failures(id, |_| true);
        let trusted = link.reason == Reason::Operator;
        self.edit_resource(id, |row| {
            if apart {
                row.state = ResourceState::Ready;
            }
            row.hold = None;
            row.held_for = None;
            row.evidence.forget();
            if trusted {
                (row.evidence.apart, row.evidence.trial) = (0, None);
            }
        });
        if !trusted && by.is_some_and(|by| **by == *SELF) {
            self.put_on_trial(id);
        }
        self.then(Consequence::doubt(id, link));
        if apart {
            self.follow_drain(id);
        } else {
            self.then(Consequence::Vacated(id));
        }
        if self.resource(id).is_some_and(|row| row.hold.is_some()) {
            return;
        }
        for copy in self.children(id) {
            // Time goes on for it, and what its last holder left is cleaned up, unless it is kept itself.
            self.arm_resource(copy);
            let kept = self.resource(copy).is_some_and(|row| {
                row.hold.is_some()
                    || match row.state.stage() {
                        Stage::Apart | Stage::Repairing => true,
                        Stage::Coming
                        | Stage::Ready
                        | Stage::Doubted
                        | Stage::Draining
                        | Stage::Leaving
                        | Stage::Gone => false,
                    }
            });
            if !kept {
                self.then(Consequence::CleanAgain(copy));
            }
        }
    }

    /// Ends a hold that ran out; false: there is none.
    pub(crate) fn hold_due(&mut self, id: ResourceId) -> bool {
        let Some(row) = self.resource(id).cloned() else { return false };
        let until = match (&row.state, &row.hold) {
            (ResourceState::Quarantined { until, .. }, _) => *until,
            (_, Some(hold)) => hold.until,
            (_, None) => None,
        };
        if until.is_none_or(|at| at > self.now()) {
            return false;
        }
        self.event(EventKind::ResourceHoldOver, &Arc::from(SELF), Subject::Resource(id), "");
        let link = self.link(id, Reason::Policy, "it was kept for as long as was asked", Source::Broker);
        let by_evidence = matches!(&row.state, ResourceState::Quarantined { cordon, .. } if &*cordon.by == SELF);
        if by_evidence && row.parent.is_some() {
            // Its check is blind, so one more pass is no evidence. Another copy is made in moments.
            self.then(Consequence::remove(id, alloc::vec![link]));
            return true;
        }
        self.then(Consequence::TakeBack { resource: id, link });
        true
    }
}
