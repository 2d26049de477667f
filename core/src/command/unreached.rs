//! A holder cannot get in to its resource.

use super::reject;
use crate::{Caller, Core, EventKind, LeaseId, LeaseState, Rejection, RejectionKind, Reply, ResourceId, Subject};
use alloc::format;
use alloc::sync::Arc;

impl Core {
    /// A holder cannot reach its resource from where it is. That is no evidence against the host, which goes on to serve
    /// others: a probe by a new login decides.
    pub(crate) fn on_unreached(&mut self, id: LeaseId, caller: &Caller, note: &Arc<str>) -> Result<Reply, Rejection> {
        let lease = self.own_lease(id, caller)?;
        match &lease.state {
            LeaseState::Active { assignment, .. } => {
                let resource = assignment.resource;
                self.count_report(id)?;
                self.event(EventKind::LeaseUnreached, &caller.principal, Subject::Lease(id), &**note);
                self.probe_by_new_login(self.host_or_itself(resource));
                Ok(Reply::Leases(self.named_first(id)))
            }
            LeaseState::Queued | LeaseState::Preparing { .. } => {
                let message = format!("{id} is not active yet: there is no resource to report");
                Err(reject(RejectionKind::Precondition, "LEASE_NOT_ACTIVE", "lease_id", message))
            }
            LeaseState::Ended { .. } => Ok(Reply::Leases(self.named_first(id))),
        }
    }

    /// The host of a working copy; a host itself.
    pub(crate) fn host_or_itself(&self, resource: ResourceId) -> ResourceId {
        self.resource(resource).and_then(|row| row.parent?.host).unwrap_or(resource)
    }
}
