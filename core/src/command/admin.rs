//! Requests of operators. Every verb is valid in every state; one that cannot apply changes nothing but the audit
//! trail.

use super::{reject, unknown_resource};
use crate::Core;
use crate::lifecycle::{Consequence, End};
use crate::{
    AdminRequest, AdminVerb, CauseChain, Cordon, EventKind, Hold, Link, Reason, Rejection, RejectionKind, Reply,
    ResourceId, Source, Subject,
};
use alloc::format;
use alloc::sync::Arc;

impl Core {
    pub(crate) fn on_admin(&mut self, request: AdminRequest) -> Result<Reply, Rejection> {
        let AdminRequest { caller, reason, verb } = request;
        let principal = caller.principal.clone();
        let said = |id: ResourceId, reason_kind: Reason, core: &Core| -> CauseChain {
            alloc::vec![Link {
                subject: Subject::Resource(id),
                reason: reason_kind,
                detail: reason.clone(),
                source: Source::Operator(principal.clone()),
                at: core.now(),
            }]
        };
        let cordon = Cordon { by: principal.clone(), reason: reason.clone() };
        match verb {
            AdminVerb::CordonPool(name) => self.on_cordon(&name, Some(cordon), &principal, &reason),
            AdminVerb::UncordonPool(name) => self.on_cordon(&name, None, &principal, &reason),
            AdminVerb::Cordon(id) => {
                self.must_exist(id)?;
                self.set_cordon(id, Some(cordon));
                self.event(EventKind::ResourceCordoned, &principal, Subject::Resource(id), &*reason);
                self.resource_reply(id)
            }
            AdminVerb::Uncordon(id) => {
                self.must_exist(id)?;
                self.set_cordon(id, None);
                self.event(EventKind::ResourceUncordoned, &principal, Subject::Resource(id), &*reason);
                let link = said(id, Reason::Operator, self).remove(0);
                self.then(Consequence::Undrain { resource: id, root: id, reasons: &[Reason::Operator], link });
                self.resource_reply(id)
            }
            AdminVerb::Drain(id, deadline) => {
                self.must_exist(id)?;
                self.event(EventKind::ResourceDrainAsked, &principal, Subject::Resource(id), &*reason);
                let chain = said(id, Reason::Operator, self);
                let deadline = deadline.map(|span| self.now().after(span));
                self.then(Consequence::Drain { resource: id, cause: chain, deadline });
                self.resource_reply(id)
            }
            AdminVerb::Check(id) => {
                self.must_exist(id)?;
                self.event(EventKind::ResourceCheckAsked, &principal, Subject::Resource(id), &*reason);
                let chain = said(id, Reason::Operator, self);
                self.then(Consequence::Doubt { resource: id, cause: chain, missed: false });
                self.resource_reply(id)
            }
            AdminVerb::Taint(id) => {
                self.must_exist(id)?;
                self.event(EventKind::ResourceTainted, &principal, Subject::Resource(id), &*reason);
                let chain = said(id, Reason::HolderTainted, self);
                self.then(Consequence::Doubt { resource: id, cause: chain, missed: false });
                self.resource_reply(id)
            }
            AdminVerb::Quarantine(id) => {
                self.must_exist(id)?;
                self.quarantine(id, cordon, said(id, Reason::Operator, self), &principal);
                self.resource_reply(id)
            }
            AdminVerb::Recover(id) => {
                self.must_exist(id)?;
                self.event(EventKind::ResourceRecoverAsked, &principal, Subject::Resource(id), &*reason);
                let link = said(id, Reason::Operator, self).remove(0);
                self.then(Consequence::TakeBack { resource: id, link });
                self.resource_reply(id)
            }
            AdminVerb::Hold(id, span) => {
                self.must_exist(id)?;
                self.hold_for(id, span, &principal, &reason)
            }
            AdminVerb::HoldLease(id, span) => {
                let lease = self.seen_lease(id, &caller)?;
                let Some(assignment) = lease.assignment() else {
                    let message = format!("{id} has no resource now: hold the resource itself, by its id");
                    return Err(reject(RejectionKind::Precondition, "NO_RESOURCE", "lease_id", message));
                };
                self.hold_for(assignment.resource, span, &principal, &reason)
            }
            AdminVerb::Recycle(id) => {
                self.must_exist(id)?;
                self.event(EventKind::ResourceRecycleAsked, &principal, Subject::Resource(id), &*reason);
                let chain = said(id, Reason::Operator, self);
                let actor = principal.clone();
                self.then(Consequence::Remove { resource: id, cause: chain, end: End::Planned, actor });
                self.resource_reply(id)
            }
            AdminVerb::ForceDestroy(id) => {
                self.must_exist(id)?;
                self.event(EventKind::ResourceForceDestroyAsked, &principal, Subject::Resource(id), &*reason);
                let chain = said(id, Reason::Operator, self);
                self.force_destroy(id, chain, &principal);
                self.resource_reply(id)
            }
            AdminVerb::Break(id) => {
                let lease = self.seen_lease(id, &caller)?;
                if let Some(child) = lease.spec.child {
                    let message = format!("{id} is held by {child}: recycle that resource instead");
                    return Err(reject(RejectionKind::Precondition, "HELD_BY_BROKER", "lease_id", message));
                }
                let link = Link {
                    subject: Subject::Lease(id),
                    reason: Reason::Operator,
                    detail: reason,
                    source: Source::Operator(principal.clone()),
                    at: self.now(),
                };
                self.bring_about(Consequence::Break { lease: id, cause: alloc::vec![link], actor: principal });
                Ok(Reply::Leases(self.lease(id).cloned().into_iter().collect()))
            }
        }
    }

    fn must_exist(&self, id: ResourceId) -> Result<(), Rejection> {
        self.resource(id).map(|_| ()).ok_or_else(|| unknown_resource(id))
    }

    fn resource_reply(&self, id: ResourceId) -> Result<Reply, Rejection> {
        self.resource(id).cloned().map(Reply::Resource).ok_or_else(|| unknown_resource(id))
    }

    fn on_cordon(
        &mut self,
        name: &Arc<str>,
        cordon: Option<Cordon>,
        principal: &Arc<str>,
        reason: &Arc<str>,
    ) -> Result<Reply, Rejection> {
        let kind = if cordon.is_some() { EventKind::PoolCordoned } else { EventKind::PoolUncordoned };
        if !self.cordon_pool(name, cordon) {
            let message = format!("no pool {name:?}: list them with `wharfinger pools`");
            return Err(reject(RejectionKind::NotFound, "UNKNOWN_POOL", "pool", message));
        }
        self.event(kind, principal, Subject::Pool(name.clone()), &**reason);
        self.reindex_members(name);
        Ok(Reply::Pool(name.clone()))
    }

    fn quarantine(&mut self, id: ResourceId, cordon: Cordon, cause: CauseChain, principal: &Arc<str>) {
        // One that waits for its host has nothing to be looked at, and nothing to come back to.
        let waits_for_host =
            self.resource(id).is_some_and(|row| row.parent.is_some_and(|parent| parent.host.is_none()));
        if self.is_leaving(id) || waits_for_host {
            return;
        }
        let hold = Hold { by: cordon.by, reason: cordon.reason, until: None };
        self.then(Consequence::SetApart { resource: id, hold, cause, actor: principal.clone() });
    }

    fn hold_for(
        &mut self,
        id: ResourceId,
        span: crate::Millis,
        principal: &Arc<str>,
        reason: &Arc<str>,
    ) -> Result<Reply, Rejection> {
        if span <= crate::Millis::ZERO {
            let message = alloc::string::String::from("a hold must be longer than 0: say how long it is to be kept");
            return Err(reject(RejectionKind::Invalid, "HOLD_NOT_POSITIVE", "hold", message));
        }
        let hold = Hold { by: principal.clone(), reason: reason.clone(), until: Some(self.now().after(span)) };
        self.then(Consequence::Hold { resource: id, hold, actor: principal.clone() });
        self.resource_reply(id)
    }

    /// Its capacity is free at once; what is left of it is the janitor's.
    fn force_destroy(&mut self, id: ResourceId, chain: CauseChain, principal: &Arc<str>) {
        let (cause, actor) = (chain.clone(), principal.clone());
        self.bring_about(Consequence::Remove { resource: id, cause, end: End::Forced, actor });
        self.orphan_by_force(id, chain, principal);
    }
}
