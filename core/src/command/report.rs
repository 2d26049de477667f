//! A holder reports failures while it works.

use super::{reject, retry_in};
use crate::lifecycle::Consequence;
use crate::{
    Caller, Core, EventKind, LeaseId, LeaseState, Millis, Reason, Rejection, RejectionKind, Reply, Source, Subject,
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
                self.count_report(id)?;
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
