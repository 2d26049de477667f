//! Kept for triage: by an operator's quarantine, by a hold with an expiry, or because its check is blind.
//!
//! A hold breaks nothing: live leases go on, no new ones are given, and when the last one has ended the resource is kept
//! as it was left, uncleaned.

use crate::machine::Core;
use crate::pending::SELF;
use crate::{
    CauseChain, Cordon, EventKind, Keep, LeaseId, Link, Reason, ResourceId, ResourceState, Source, Subject, Timestamp,
};
use alloc::format;
use alloc::sync::Arc;

impl Core {
    /// No new leases; kept as it is once nobody works on it.
    pub(crate) fn keep(&mut self, id: ResourceId, keep: Keep, actor: &Arc<str>) {
        let Some(row) = self.resource(id).cloned() else { return };
        let until = keep.until.map(|at| format!(" for {}", at.since(self.now))).unwrap_or_default();
        let detail = format!("kept{until}: {}", keep.reason);
        match &row.state {
            ResourceState::Destroying { .. } | ResourceState::Orphaned { .. } | ResourceState::Gone { .. } => return,
            // It has nothing to show yet.
            ResourceState::Provisioning { .. } => return,
            ResourceState::Quarantined { cordon, since, .. } => {
                let (cordon, since, until) = (cordon.clone(), *since, keep.until);
                self.edit_resource(id, |row| row.state = ResourceState::Quarantined { cordon, since, until });
                self.event(EventKind::ResourceKept, actor, Subject::Resource(id), detail);
                return;
            }
            ResourceState::Ready
            | ResourceState::Suspect { .. }
            | ResourceState::Repairing { .. }
            | ResourceState::Draining { .. } => {}
        }
        self.edit_resource(id, |row| row.keep = Some(keep));
        self.event(EventKind::ResourceKept, actor, Subject::Resource(id), detail);
        self.settle_keep(id, None);
    }

    /// If it is to be kept and nobody works on it any more (but `leaving`, whose lease just ends), it is set apart now.
    pub(crate) fn settle_keep(&mut self, id: ResourceId, leaving: Option<LeaseId>) {
        let Some(row) = self.resource(id).cloned() else { return };
        let Some(keep) = row.keep.clone() else { return };
        let busy = self.live_on(id).into_iter().any(|lease| {
            if Some(lease) == leaving {
                return false;
            }
            // A copy that nobody uses does not keep its host in use.
            self.lease(lease).and_then(|lease| lease.spec.child).is_none_or(|child| !self.live_on(child).is_empty())
        });
        let settled = match row.state {
            ResourceState::Ready | ResourceState::Suspect { .. } => true,
            // Its end is announced or ordered for a time; what is there then is not kept.
            ResourceState::Draining { deadline, .. } => deadline.is_none(),
            // When the repair is over, it is looked at again.
            ResourceState::Repairing { .. }
            | ResourceState::Provisioning { .. }
            | ResourceState::Quarantined { .. }
            | ResourceState::Destroying { .. }
            | ResourceState::Orphaned { .. }
            | ResourceState::Gone { .. } => false,
        };
        if busy || !settled {
            return;
        }
        let cordon = Cordon { by: keep.by.clone(), reason: keep.reason.clone() };
        let (reason, source) = if &*keep.by == SELF {
            (Reason::CheckBlind, Source::Broker)
        } else {
            (Reason::Operator, Source::Operator(keep.by.clone()))
        };
        let chain = alloc::vec![self.link(id, reason, &keep.reason, source)];
        self.set_apart(id, cordon, keep.until, &chain, &keep.by, leaving);
    }

    /// Keeps it as it is; its leases are broken, but for that of `leaving`, which is ending anyway.
    pub(crate) fn set_apart(
        &mut self,
        id: ResourceId,
        cordon: Cordon,
        until: Option<Timestamp>,
        chain: &CauseChain,
        actor: &Arc<str>,
        leaving: Option<LeaseId>,
    ) {
        let since = self.now;
        let detail = cordon.reason.clone();
        self.edit_resource(id, |row| {
            row.state = ResourceState::Quarantined { cordon, since, until };
            row.keep = None;
        });
        self.event(EventKind::ResourceQuarantined, actor, Subject::Resource(id), &*detail);
        for lease in self.live_on(id) {
            if Some(lease) != leaving {
                self.break_on_resource(lease, chain, actor);
            }
        }
    }

    /// Back from quarantine, or from being kept, by way of a check.
    pub(crate) fn take_back(&mut self, id: ResourceId, link: Link) {
        let Some(row) = self.resource(id).cloned() else { return };
        match row.state {
            ResourceState::Quarantined { .. } => {
                self.drop_failures(id, |_| true);
                self.edit_resource(id, |row| row.state = ResourceState::Ready);
                self.suspect(id, alloc::vec![link]);
            }
            ResourceState::Ready
            | ResourceState::Suspect { .. }
            | ResourceState::Repairing { .. }
            | ResourceState::Draining { .. } => {
                if row.keep.is_some() {
                    self.drop_failures(id, |_| true);
                    self.edit_resource(id, |row| row.keep = None);
                    self.suspect(id, alloc::vec![link]);
                    self.after_vacated(id);
                }
            }
            ResourceState::Provisioning { .. }
            | ResourceState::Destroying { .. }
            | ResourceState::Orphaned { .. }
            | ResourceState::Gone { .. } => {}
        }
    }

    /// Ends a hold that ran out; false: there is none.
    pub(crate) fn keep_due(&mut self, id: ResourceId) -> bool {
        let Some(row) = self.resource(id).cloned() else { return false };
        let until = match (&row.state, &row.keep) {
            (ResourceState::Quarantined { until, .. }, _) => *until,
            (_, Some(keep)) => keep.until,
            (_, None) => None,
        };
        if until.is_none_or(|at| at > self.now) {
            return false;
        }
        self.event(EventKind::ResourceHoldOver, &Arc::from(SELF), Subject::Resource(id), "");
        let link = self.link(id, Reason::Policy, "it was kept for as long as was asked", Source::Broker);
        if matches!(&row.state, ResourceState::Quarantined { cordon, .. } if &*cordon.by == SELF) {
            // Its check is blind, so that passing it once more says nothing.
            self.destroy(id, alloc::vec![link], false);
            return true;
        }
        self.take_back(id, link);
        true
    }
}
