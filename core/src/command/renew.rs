//! A holder is still there.

use super::{reject, unknown_lease};
use crate::{Caller, Core, Lease, LeaseId, LeaseState, Millis, Rejection, RejectionKind, Reply};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// Renews each of several leases. One that is refused does not keep the others from it.
    pub(crate) fn on_renew_all(&mut self, ids: Vec<LeaseId>, caller: &Caller, ttl: Option<Millis>) -> Reply {
        let mut each = Vec::with_capacity(ids.len());
        for id in ids {
            let renewed = self.on_renew(id, caller, ttl);
            each.push(renewed.and_then(|_| self.lease(id).cloned().ok_or_else(|| unknown_lease(id))));
        }
        Reply::Each(each)
    }

    /// Returns the lease and the others of its group.
    pub(crate) fn on_renew(
        &mut self,
        id: LeaseId,
        caller: &Caller,
        ttl: Option<Millis>,
    ) -> Result<Vec<Arc<Lease>>, Rejection> {
        self.may_renew(id, caller, ttl)?;
        // The whole group is renewed: it lives and dies as one. Each member's pool has a limit of its own. From now on it is kept by
        // such renewals, and by no session.
        let mut all = self.companions(id);
        all.insert(0, id);
        for member in all {
            self.keep_lease(member, None);
            let Some(row) = self.lease(member).filter(|l| matches!(l.state, LeaseState::Active { .. })) else {
                continue;
            };
            let wanted = ttl.unwrap_or(row.spec.ttl);
            let until = self.now().after(self.longest_ttl(row).map_or(wanted, |longest| wanted.min(longest)));
            self.extend(member, until);
        }
        Ok(self.named_first(id))
    }

    /// Refuses a renewal, by a call or by a session, that a lease may not have.
    pub(super) fn may_renew(&self, id: LeaseId, caller: &Caller, ttl: Option<Millis>) -> Result<(), Rejection> {
        let lease = self.own_lease(id, caller)?;
        match &lease.state {
            LeaseState::Active { .. } => {}
            // In line there is no TTL yet: nothing to renew but what others of its set have, and nothing wrong.
            LeaseState::Queued | LeaseState::Preparing { .. } => {}
            LeaseState::Ended { how, .. } => {
                let message = format!("{id} is {}: what ended can't be renewed; ask for a new lease", how.as_str());
                return Err(reject(RejectionKind::Precondition, "LEASE_ENDED", "lease_id", message));
            }
        }
        if lease.expires_at_most.is_some_and(|most| most <= self.now()) {
            let message = format!(
                "{id} has had its longest life ({}, by its tenant or by the rule that allowed it): release it, and ask for a new one",
                lease.spec.total.unwrap_or(Millis::ZERO)
            );
            return Err(reject(RejectionKind::Precondition, "LEASE_AT_ITS_MOST", "lease_id", message));
        }
        if ttl.is_some_and(|ttl| ttl <= Millis::ZERO) {
            let message = String::from("ttl must be longer than 0");
            return Err(reject(RejectionKind::Invalid, "TTL_NOT_POSITIVE", "ttl", message));
        }
        if let (Some(ttl), Some(longest)) = (ttl, self.longest_ttl(&lease))
            && ttl > longest
        {
            let message = format!("ttl {ttl} is longer than {longest}, the longest here: ask for less and renew");
            return Err(reject(RejectionKind::Invalid, "TTL_TOO_LONG", "ttl", message));
        }
        Ok(())
    }

    /// The limit of the pool that serves a lease.
    fn longest_ttl(&self, lease: &Lease) -> Option<Millis> {
        lease.pool.as_ref().and_then(|pool| self.pool_entry(pool)).map(|pool| pool.config.max_ttl)
    }

    /// The holder of a group asks again for it, or waits in a call: it lives, though it knows of no lease to renew.
    pub(crate) fn is_waited_for(&mut self, id: LeaseId) {
        let waits = |core: &Self, id: LeaseId| core.lease(id).is_some_and(|l| matches!(l.state, LeaseState::Queued));
        let mut all = self.companions(id);
        all.insert(0, id);
        if !all.iter().any(|member| waits(self, *member)) {
            return;
        }
        for member in all {
            let Some(row) = self.lease(member).filter(|l| matches!(l.state, LeaseState::Active { .. })) else {
                continue;
            };
            let until = self.now().after(row.spec.ttl);
            if row.expires_at < Some(until) {
                self.extend(member, until);
            }
        }
    }
}
