//! A holder is done, or stops waiting.

use super::quota::subject;
use super::{reject, unknown_lease};
use crate::Core;
use crate::lifecycle::Consequence;
use crate::{
    Caller, Ended, Hold, Lease, LeaseId, LeaseState, Millis, Outcome, Rejection, RejectionKind, Reply, ResourceId,
};
use alloc::format;
use alloc::sync::Arc;

impl Core {
    pub(crate) fn on_release(
        &mut self,
        id: LeaseId,
        caller: &Caller,
        outcome: Outcome,
        note: Arc<str>,
        hold: Option<Millis>,
    ) -> Result<Reply, Rejection> {
        let lease = self.seen_lease(id, caller)?;
        may_act(&lease, caller)?;
        let principal = &caller.principal;
        if let Some(span) = hold {
            self.hold_for_holder(&lease, principal, &note, span)?;
        }
        if !lease.ended() {
            let mut all = self.companions(id);
            all.insert(0, id);
            for member in all {
                let active = self.lease(member).is_some_and(|l| matches!(l.state, LeaseState::Active { .. }));
                if active && member != id && matches!(outcome, Outcome::Failed | Outcome::Tainted) {
                    // The outcome is that of the named lease, and no evidence on the resources of the others.
                    let note = Arc::from(format!("released with {id}"));
                    let how = Ended::Released { outcome: Outcome::Ok, note, finding: None };
                    self.bring_about(Consequence::End { lease: member, how, actor: principal.clone(), counted: false });
                } else if active {
                    let how = Ended::Released { outcome, note: note.clone(), finding: None };
                    self.bring_about(Consequence::End { lease: member, how, actor: principal.clone(), counted: true });
                } else {
                    let (how, actor) = (Ended::Cancelled, principal.clone());
                    self.bring_about(Consequence::End { lease: member, how, actor, counted: true });
                }
            }
        }
        Ok(Reply::Leases(self.named_first(id)))
    }

    /// A holder wants what its work left behind kept for a while.
    fn hold_for_holder(
        &mut self,
        lease: &Lease,
        principal: &Arc<str>,
        note: &Arc<str>,
        span: Millis,
    ) -> Result<(), Rejection> {
        let LeaseState::Active { assignment, .. } = &lease.state else { return Ok(()) };
        let most = lease.pool.as_ref().and_then(|pool| self.pool_entry(pool)).map(|pool| pool.config.max_hold);
        let most = most.unwrap_or(Millis::ZERO);
        if span <= Millis::ZERO || span > most {
            let message = format!(
                "hold {span} must be longer than 0 and at most {most}, the longest here (max_hold of the pool): ask for less, or let an operator hold it"
            );
            return Err(reject(RejectionKind::Invalid, "HOLD_TOO_LONG", "hold", message));
        }
        self.may_hold(&lease.spec.tenant, assignment.resource)?;
        let reason: Arc<str> = if note.is_empty() {
            Arc::from(format!("held by the holder of {}", lease.id))
        } else {
            Arc::from(format!("held by the holder of {}: {note}", lease.id))
        };
        let hold = Hold { by: principal.clone(), reason, until: Some(self.now().after(span)) };
        let (resource, actor) = (assignment.resource, principal.clone());
        self.bring_about(Consequence::Hold { resource, hold, actor });
        self.set_held_for(resource, Some(lease.spec.tenant.clone()));
        Ok(())
    }

    /// Refuses a hold beyond those that a tenant may have.
    fn may_hold(&self, tenant: &Arc<str>, resource: ResourceId) -> Result<(), Rejection> {
        let Some(most) = self.tenants().of(tenant).and_then(|tenant| tenant.max_held) else { return Ok(()) };
        let held = self.entries().map(|entry| &entry.row);
        let held = held.filter(|row| row.held_for.as_ref() == Some(tenant) && row.id != resource).count();
        if held < most as usize {
            return Ok(());
        }
        let message = format!(
            "{held} resources are kept for tenant {tenant}, and {most} is its max_held: release without a hold, or have an \
             operator recover one of them"
        );
        Err(reject(RejectionKind::Quota, "TENANT_HELD", &subject(tenant), message))
    }

    pub(crate) fn named_first(&self, id: LeaseId) -> alloc::vec::Vec<Arc<Lease>> {
        let mut all = self.with_group(id);
        all.sort_by_key(|lease| lease.id != id);
        all
    }

    /// The lease, if it exists for the caller. One out of its view is answered as one that never was.
    pub(crate) fn seen_lease(&self, id: LeaseId, caller: &Caller) -> Result<Arc<Lease>, Rejection> {
        self.lease(id).filter(|lease| caller.sees.sees(lease)).cloned().ok_or_else(|| unknown_lease(id))
    }

    /// The lease, if the caller may act on it.
    pub(crate) fn own_lease(&self, id: LeaseId, caller: &Caller) -> Result<Arc<Lease>, Rejection> {
        let lease = self.seen_lease(id, caller)?;
        may_act(&lease, caller)?;
        Ok(lease)
    }
}

/// A lease belongs to the principal that asked for it; one held by a working copy is the broker's own.
fn may_act(lease: &Lease, caller: &Caller) -> Result<(), Rejection> {
    if let Some(child) = lease.spec.child {
        let message = format!("{} is held by {child}: recycle or drain that resource instead", lease.id);
        return Err(reject(RejectionKind::Denied, "HELD_BY_BROKER", "lease_id", message));
    }
    if caller.ends.sees(lease) {
        return Ok(());
    }
    if !caller.owns(&lease.spec) {
        let message = format!("{} belongs to {:?}, not to {:?}", lease.id, lease.spec.principal, caller.principal);
        return Err(reject(RejectionKind::Denied, "NOT_YOURS", "lease_id", message));
    }
    let message = format!("no role of {:?} allows that for {}", caller.principal, lease.id);
    Err(reject(RejectionKind::Denied, "NOT_ALLOWED", "lease_id", message))
}
