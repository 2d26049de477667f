//! A holder is done, does not want to wait any more, or is still there.

use super::{reject, retry_in, unknown_lease};
use crate::machine::Core;
use crate::{
    Ended, Keep, LeaseId, LeaseState, Millis, Outcome, Reason, Rejection, RejectionKind, Reply, Source, Subject,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// At most this many reports of one lease start a check within [`REPORTS_PERIOD`].
const REPORTS_MAX: u32 = 3;
const REPORTS_PERIOD: Millis = Millis::secs(300);

impl Core {
    pub(crate) fn on_release(
        &mut self,
        id: LeaseId,
        principal: &Arc<str>,
        outcome: Outcome,
        note: Arc<str>,
        hold: Option<Millis>,
    ) -> Result<Reply, Rejection> {
        let lease = self.lease(id).cloned().ok_or_else(|| unknown_lease(id))?;
        self.theirs(&lease, principal)?;
        if let Some(span) = hold {
            self.keep_for_holder(&lease, principal, &note, span)?;
        }
        if !lease.ended() {
            let mut all = self.companions(id);
            all.insert(0, id);
            for member in all {
                let active = self.lease(member).is_some_and(|l| matches!(l.state, LeaseState::Active { .. }));
                if active && member != id && matches!(outcome, Outcome::Failed | Outcome::Tainted) {
                    // The outcome is of the named lease: of the resources of the others it says nothing.
                    let note = Arc::from(format!("released with {id}"));
                    let how = Ended::Released { outcome: Outcome::Ok, note, finding: None };
                    self.end_uncounted(member, how, principal, "lease.released");
                } else if active {
                    let how = Ended::Released { outcome, note: note.clone(), finding: None };
                    self.end_lease(member, how, principal, "lease.released");
                } else {
                    self.end_lease(member, Ended::Cancelled, principal, "lease.cancelled");
                }
            }
        }
        Ok(Reply::Leases(self.named_first(id)))
    }

    /// A holder wants what its work left behind kept for a while.
    fn keep_for_holder(
        &mut self,
        lease: &crate::Lease,
        principal: &Arc<str>,
        note: &Arc<str>,
        span: Millis,
    ) -> Result<(), Rejection> {
        let LeaseState::Active { hold, .. } = &lease.state else { return Ok(()) };
        let most = lease.pool.as_ref().and_then(|pool| self.pools.get(pool)).map(|pool| pool.config.max_hold);
        let most = most.unwrap_or(Millis::ZERO);
        if span <= Millis::ZERO || span > most {
            let message = format!(
                "hold {span} must be longer than 0 and at most {most}, the longest here (max_hold of the pool): ask for less, or let an operator hold it"
            );
            return Err(reject(RejectionKind::Invalid, "HOLD_TOO_LONG", "hold", message));
        }
        let reason: Arc<str> = if note.is_empty() {
            Arc::from(format!("held by the holder of {}", lease.id))
        } else {
            Arc::from(format!("held by the holder of {}: {note}", lease.id))
        };
        let keep = Keep { by: principal.clone(), reason, until: Some(self.now.after(span)) };
        self.keep(hold.resource, keep, principal);
        Ok(())
    }

    /// A holder meets failures while it works: its resource is checked. The lease goes on.
    pub(crate) fn on_report(&mut self, id: LeaseId, principal: &Arc<str>, note: &Arc<str>) -> Result<Reply, Rejection> {
        let lease = self.lease(id).cloned().ok_or_else(|| unknown_lease(id))?;
        self.theirs(&lease, principal)?;
        match &lease.state {
            LeaseState::Active { hold, .. } => {
                let resource = hold.resource;
                self.count_report(id)?;
                self.event("lease.reported", principal, Subject::Lease(id), &**note);
                let text = if note.is_empty() { "its holder meets failures" } else { &**note };
                let detail = format!("{text} ({id})");
                let link = self.link(resource, Reason::HolderReported, &detail, Source::Holder);
                self.suspect(resource, alloc::vec![link]);
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
        let now = self.now;
        let (since, count) = self.reports.entry(id).or_insert((now, 0));
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

    pub(crate) fn on_renew(
        &mut self,
        id: LeaseId,
        principal: &Arc<str>,
        ttl: Option<Millis>,
    ) -> Result<Reply, Rejection> {
        let lease = self.lease(id).cloned().ok_or_else(|| unknown_lease(id))?;
        self.theirs(&lease, principal)?;
        match &lease.state {
            LeaseState::Active { .. } => {}
            // In line there is no TTL yet: nothing to renew but what others of its set have, and nothing wrong.
            LeaseState::Queued | LeaseState::Preparing { .. } => {}
            LeaseState::Ended { how, .. } => {
                let message = format!("{id} is {}: what ended can't be renewed; ask for a new lease", how.as_str());
                return Err(reject(RejectionKind::Precondition, "LEASE_ENDED", "lease_id", message));
            }
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
        // The whole group is renewed: it lives and dies as one. Each member's pool has a limit of its own.
        let mut all = self.companions(id);
        all.insert(0, id);
        for member in all {
            let Some(row) = self.lease(member).filter(|l| matches!(l.state, LeaseState::Active { .. })) else {
                continue;
            };
            let wanted = ttl.unwrap_or(row.spec.ttl);
            let until = self.now.after(self.longest_ttl(row).map_or(wanted, |longest| wanted.min(longest)));
            self.edit_lease(member, |lease| lease.expires_at = Some(until));
        }
        Ok(Reply::Leases(self.named_first(id)))
    }

    /// The limit of the pool that serves a lease.
    fn longest_ttl(&self, lease: &crate::Lease) -> Option<Millis> {
        lease.pool.as_ref().and_then(|pool| self.pools.get(pool)).map(|pool| pool.config.max_ttl)
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
            let until = Some(self.now.after(row.spec.ttl));
            if row.expires_at < until {
                self.edit_lease(member, |lease| lease.expires_at = until);
            }
        }
    }

    pub(super) fn named_first(&self, id: LeaseId) -> alloc::vec::Vec<Arc<crate::Lease>> {
        let mut all = self.with_group(id);
        all.sort_by_key(|lease| lease.id != id);
        all
    }

    /// A lease belongs to the principal that asked for it; one held by a working copy is the broker's own.
    pub(super) fn theirs(&self, lease: &crate::Lease, principal: &Arc<str>) -> Result<(), Rejection> {
        if let Some(child) = lease.spec.child {
            let message = format!("{} is held by {child}: recycle or drain that resource instead", lease.id);
            return Err(reject(RejectionKind::Denied, "HELD_BY_BROKER", "lease_id", message));
        }
        if lease.spec.principal != *principal {
            let message = format!("{} belongs to {:?}, not to {principal:?}", lease.id, lease.spec.principal);
            return Err(reject(RejectionKind::Denied, "NOT_YOURS", "lease_id", message));
        }
        Ok(())
    }
}
