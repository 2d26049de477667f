//! The state machine's outside: what the shell calls. Inputs are taken apart in `command/`; what follows from them
//! (placing, sizing, doubt, breaking) has a file each.

use crate::{Batch, Brake, Core, EventKind, Input, Millis, Rejection, Reply, Subject, Timestamp};
use alloc::format;

/// Rounds of placing and sizing in one step.
const ROUNDS: u32 = 1000;

/// Limits of the whole deployment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Maximum number of queued leases.
    pub queue: usize,
    /// Maximum number of leases of one request.
    pub claims: u32,
    /// How long ended leases and gone resources are kept.
    pub retention: Millis,
    /// Minimum time after a restart or a pause before a lease expires.
    pub grace: Millis,
    /// A gap between two steps longer than this counts as a pause of the broker.
    pub pause: Millis,
    /// When much of all hosts falls silent at once: the broker's own network is the first suspect.
    pub brake: Brake,
    /// How long a request waits until it counts as one of the next higher priority, and goes before the shares of
    /// tenants; zero: never.
    pub patience: Millis,
    /// Maximum number of sessions of one principal.
    pub sessions: u32,
    /// TTL of a session that asks for none, and the longest one.
    pub session_ttl: (Millis, Millis),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 100_000,
            claims: 64,
            retention: Millis::secs(3600),
            grace: Millis::secs(30),
            pause: Millis::secs(5),
            brake: Brake::default(),
            patience: Millis::secs(900),
            sessions: 16_384,
            session_ttl: (Millis::secs(30), Millis::secs(3600)),
        }
    }
}

impl Limits {
    /// The time from which ended leases are forgotten again, after a span of the core's time in which no broker served.
    /// At most a retention of that span counts: the holders' requests are known as long as they would have been
    /// without it.
    pub(crate) fn forgets_from(&self, now: Timestamp, missed: Millis) -> Timestamp {
        now.after(self.grace.max(missed.min(self.retention)))
    }
}

impl Core {
    /// Takes one input at a time. What became due by then happens first, then the input and all that follows from it,
    /// then grants and sizing. The next [`Core::take_batch`] has all changes. A time before that of the latest step
    /// counts as that.
    ///
    /// # Errors
    /// A [`Rejection`] if the request cannot be met. The input then changes nothing, but time may have.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use wharfinger_core::{AdminRequest, AdminVerb, Caller, Core, Input, Limits, RejectionKind, Snapshot, Timestamp};
    ///
    /// let mut core = Core::recover(Snapshot::default(), Vec::new(), Limits::default(), Timestamp(1_000));
    /// let verb = AdminVerb::CordonPool(Arc::from("hosts"));
    /// let (caller, reason) = (Caller::sole_tenant("ann"), Arc::from("maintenance"));
    /// let request = AdminRequest { caller, reason, verb, if_revision: None };
    /// let refused = core.step(Timestamp(2_000), Input::Admin(request)).unwrap_err();
    /// assert_eq!((refused.kind, refused.reason), (RejectionKind::NotFound, "UNKNOWN_POOL"));
    /// assert!(core.take_batch().is_empty());
    /// assert_eq!(core.now(), Timestamp(2_000));
    /// ```
    pub fn step(&mut self, now: Timestamp, input: Input) -> Result<Reply, Rejection> {
        self.advance(now);
        self.set_caller(Some(&input));
        let answer = self.command(input);
        self.conclude();
        self.set_caller(None);
        self.settle();
        answer.map(|reply| self.refresh(reply))
    }

    /// Returns what all steps since the last call changed, to be stored in one transaction.
    pub fn take_batch(&mut self) -> Batch {
        self.collect_batch()
    }

    /// The time at which the next step must come, if no other input comes before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.next_timer()
    }

    /// Time first: what became due happens before the input, so that an input never sees a lease that ran out.
    fn advance(&mut self, now: Timestamp) {
        self.elapse(now);
        self.fire_timers();
    }

    /// Places waiters and sizes pools until nothing changes any more.
    pub(crate) fn settle(&mut self) {
        let settled = self.settle_within(ROUNDS);
        debug_assert!(settled, "placing and sizing did not come to an end: {:?}", self.dirty());
    }

    /// The same, in at most this many rounds. Each round grants, starts or destroys something, so a step that needs
    /// more has met a fault of the broker: it is reported, and the next step goes on with what is left.
    fn settle_within(&mut self, rounds: u32) -> bool {
        for _ in 0..rounds {
            if self.dirty().is_empty() {
                self.set_unsettled(false);
                return true;
            }
            let dirty = self.take_dirty();
            let demand = self.place(&dirty);
            self.size(&demand);
        }
        let Some(pool) = self.dirty().first().cloned() else {
            self.set_unsettled(false);
            return true;
        };
        if !self.is_unsettled() {
            let text = format!("placing and sizing did not come to an end in {rounds} rounds; the next step goes on");
            self.own_event(EventKind::PoolUnsettled, Subject::Pool(pool), text);
        }
        self.set_unsettled(true);
        false
    }

    /// The rows of a reply as they are after settling: a request that was granted at once is ACTIVE in it.
    fn refresh(&self, reply: Reply) -> Reply {
        match reply {
            Reply::Leases(leases) => {
                Reply::Leases(leases.into_iter().map(|lease| self.lease(lease.id).cloned().unwrap_or(lease)).collect())
            }
            Reply::Each(mut each) => {
                for lease in each.iter_mut().flatten() {
                    if let Some(row) = self.lease(lease.id) {
                        lease.clone_from(row);
                    }
                }
                Reply::Each(each)
            }
            Reply::Resource(resource) => Reply::Resource(self.resource(resource.id).cloned().unwrap_or(resource)),
            Reply::Done | Reply::Pool(_) | Reply::Machine(_) | Reply::Session(_) => reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    #[test]
    fn a_step_that_does_not_settle_is_reported_and_the_next_one_goes_on() {
        let mut core = Core::recover(Snapshot::default(), Vec::new(), Limits::default(), Timestamp(1));
        core.take_batch();
        core.mark_dirty(Arc::from("hosts"));
        assert!(!core.settle_within(0));
        assert!(core.check_invariants().unwrap_err().contains("did not settle"));
        let events = core.take_batch().events;
        assert_eq!(events.iter().filter(|event| event.kind == EventKind::PoolUnsettled).count(), 1);
        assert!(core.dirty().contains("hosts"), "nothing of it is lost");
        assert!(core.settle_within(1) && core.dirty().is_empty());
        assert_eq!(core.check_invariants(), Ok(()));
    }
}
