//! A holder reports failures while it works.

use super::quota::subject;
use super::{reject, retry_in};
use crate::lifecycle::Consequence;
use crate::{
    Caller, Core, EventKind, LeaseId, LeaseState, Millis, Reason, Rejection, RejectionKind, Reply, ResourceId, Source,
    Stage, Subject,
};
use alloc::format;
use alloc::sync::Arc;

/// At most this many reports of one lease start a check within [`REPORTS_PERIOD`].
const REPORTS_MAX: u32 = 3;
const REPORTS_PERIOD: Millis = Millis::secs(300);

impl Core {
    /// A holder meets failures while it works: its resource is checked. The lease goes on.
    pub(crate) fn on_report(&mut self, id: LeaseId, caller: &Caller, note: &Arc<str>) -> Result<Reply, Rejection> {
        let lease = self.own_lease(id, caller)?;
        match &lease.state {
            LeaseState::Active { assignment, .. } => {
                let resource = assignment.resource;
                self.may_accuse(id, &caller.tenant, resource)?;
                self.count_report(id)?;
                self.reported(id);
                let machine = self.host_or_itself(resource);
                // One that drains has no check.
                if self.resource(resource).is_some_and(|row| matches!(row.state.stage(), Stage::Ready | Stage::Doubted))
                {
                    self.accused(&caller.tenant, machine);
                }
                self.event(EventKind::LeaseReported, &caller.principal, Subject::Lease(id), &**note);
                let text = if note.is_empty() { "its holder meets failures" } else { &**note };
                let detail = format!("{text} ({id})");
                let link = self.link(resource, Reason::HolderReported, &detail, Source::Holder);
                self.then(Consequence::doubt(resource, link));
                Ok(Reply::Leases(self.named_first(id)))
            }
            LeaseState::Queued | LeaseState::Preparing { .. } => {
                let message = format!("{id} is not active yet: there is no resource to report");
                Err(reject(RejectionKind::Precondition, "LEASE_NOT_ACTIVE", "lease_id", message))
            }
            // It is over, and what ended it is known.
            LeaseState::Ended { .. } => Ok(Reply::Leases(self.named_first(id))),
        }
    }

    /// Refuses a report by which a tenant would keep a machine of others in doubt.
    fn may_accuse(&mut self, id: LeaseId, tenant: &Arc<str>, resource: ResourceId) -> Result<(), Rejection> {
        let machine = self.host_or_itself(resource);
        let most = self.tenants().of(tenant).and_then(|tenant| tenant.max_in_doubt);
        if let Some(most) = most.filter(|most| self.accused_by(tenant) >= *most as usize) {
            let message = format!(
                "reports of tenant {tenant} have {most} machines in doubt, its max_in_doubt: report again when their checks are over"
            );
            let rejection = reject(RejectionKind::Quota, "TENANT_IN_DOUBT", &subject(tenant), message);
            return Err(retry_in(rejection, Millis::secs(30)));
        }
        if !self.is_shared(resource, tenant) {
            return Ok(());
        }
        if let Some(until) = self.muted_until(tenant, machine) {
            let wait = until.since(self.now());
            let message = format!(
                "checks after reports of tenant {tenant} found nothing on {machine} again and again, and others use it: \
                 it reports again in {wait}"
            );
            return Err(retry_in(reject(RejectionKind::Exhausted, "REPORTS_MUTED", "lease_id", message), wait));
        }
        let now = self.now();
        let (since, count) = *self.reports_of(id);
        let again_at = since.after(REPORTS_PERIOD);
        if count > 0 && again_at > now {
            let wait = again_at.since(now);
            let message = format!(
                "{id} has reported within {REPORTS_PERIOD}, and others use the machine too: report again in {wait}"
            );
            return Err(retry_in(reject(RejectionKind::Exhausted, "TOO_MANY_REPORTS", "lease_id", message), wait));
        }
        Ok(())
    }

    /// Refuses a report of a lease that has reported too often, so that its holder cannot keep the resource in doubt.
    pub(super) fn count_report(&mut self, id: LeaseId) -> Result<(), Rejection> {
        let now = self.now();
        let (since, count) = self.reports_of(id);
        let again_at = since.after(REPORTS_PERIOD);
        if again_at <= now {
            (*since, *count) = (now, 0);
        } else if *count >= REPORTS_MAX {
            let wait = again_at.since(now);
            let message = format!(
                "{id} has reported {REPORTS_MAX} times within {REPORTS_PERIOD}, and its resource was checked: report again in {wait}, or release with the outcome TAINTED if the resource is at fault"
            );
            return Err(retry_in(reject(RejectionKind::Exhausted, "TOO_MANY_REPORTS", "lease_id", message), wait));
        }
        *count += 1;
        Ok(())
    }
}
