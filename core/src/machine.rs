//! The state machine's outside: what the shell calls. Inputs are taken apart in `command/`; what follows from them
//! (placing, sizing, doubt, breaking) has a file each.

use crate::brake::Domain;
use crate::common::Common;
use crate::pending::Pending;
use crate::queue::Queue;
use crate::tables::{LeaseEntry, Pool, ResourceEntry};
use crate::timer::Timer;
use crate::{
    Batch, Brake, GroupId, Input, Lease, LeaseId, Millis, Rejection, Reply, Resource, ResourceId, Revision, Subject,
    Timestamp,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Rounds of placing and sizing in one step.
const ROUNDS: u32 = 1000;

/// Limits of the whole deployment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Leases in line at once.
    pub queue: usize,
    /// Leases of one request.
    pub claims: u32,
    /// How long ended leases and gone resources are kept.
    pub retention: Millis,
    /// After a restart or a pause no lease expires for so long.
    pub grace: Millis,
    /// A gap between two steps longer than this counts as a pause of the broker.
    pub pause: Millis,
    /// When much of all hosts falls silent at once: the broker's own network is the first suspect.
    pub brake: Brake,
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
        }
    }
}

impl Limits {
    /// The time from which ended leases are forgotten again, after a span of the core's time in which no broker served.
    /// At most a retention of that span counts: the holders' requests are known as long as they would have been without it.
    pub(crate) fn forgets_from(&self, now: Timestamp, missed: Millis) -> Timestamp {
        now.after(self.grace.max(missed.min(self.retention)))
    }
}

/// All of the broker's state, and every decision.
#[derive(Clone)]
pub struct Core {
    pub(crate) limits: Limits,
    pub(crate) salt: u16,
    pub(crate) now: Timestamp,
    pub(crate) revision: Revision,
    pub(crate) floor: Revision,
    /// No lease expires before this.
    pub(crate) grace_until: Timestamp,
    /// No ended lease is forgotten before this: its holder had no broker to ask while none served. Not stored.
    pub(crate) forgets_from: Timestamp,
    /// Misses before this do not count: the broker itself was not there to hear an answer.
    pub(crate) heard_since: Timestamp,
    pub(crate) pools: BTreeMap<Arc<str>, Pool>,
    /// Names in the order of the configuration, then those removed from it of which something is left.
    pub(crate) order: Vec<Arc<str>>,
    pub(crate) leases: BTreeMap<LeaseId, LeaseEntry>,
    pub(crate) resources: BTreeMap<ResourceId, ResourceEntry>,
    /// The first lease of each request.
    pub(crate) by_request: BTreeMap<Arc<str>, LeaseId>,
    pub(crate) by_group: BTreeMap<GroupId, BTreeSet<LeaseId>>,
    pub(crate) by_revision: BTreeMap<Revision, LeaseId>,
    /// Machines whose checks pass and on which a work failed, by work.
    pub(crate) by_work: BTreeMap<Arc<str>, BTreeSet<ResourceId>>,
    /// Resources that were lost or mangled under a work, by work; not stored.
    pub(crate) lost_under: BTreeMap<Arc<str>, BTreeSet<ResourceId>>,
    /// Reports of each lease: when its present period began, and the reports in it. Not stored.
    pub(crate) reports: BTreeMap<LeaseId, (Timestamp, u32)>,
    /// All probed hosts as one failure domain.
    pub(crate) network: Domain,
    pub(crate) queue: Queue,
    /// Groups of which some members have slots and others went back to the queue; not stored.
    pub(crate) partial: BTreeSet<GroupId>,
    /// A step ended before nothing changed any more: see [`Core::settle`].
    pub(crate) unsettled: bool,
    pub(crate) timers: BTreeSet<(Timestamp, Timer)>,
    pub(crate) lease_timers: BTreeSet<(Timestamp, LeaseId)>,
    /// Ended leases, by when they are forgotten.
    pub(crate) old: BTreeSet<(Timestamp, LeaseId)>,
    /// Pools whose supply or demand changed since the last placing.
    pub(crate) dirty: BTreeSet<Arc<str>>,
    pub(crate) pending: Pending,
    pub(crate) common: Common,
}

impl Core {
    /// Takes one input. What it changes is in the next [`Core::take_batch`], also what time alone changes by `now`.
    /// A refused input changes nothing (but time may have).
    pub fn step(&mut self, now: Timestamp, input: Input) -> Result<Reply, Rejection> {
        self.advance(now);
        let answer = self.command(input);
        self.settle();
        answer.map(|reply| self.refresh(reply))
    }

    /// Hands over what all steps since the last call changed.
    pub fn take_batch(&mut self) -> Batch {
        self.collect_batch()
    }

    /// When the next step must come, if nothing else comes before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.next_timer()
    }

    /// The time of the latest step.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The revision of the latest change, committed or not.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision from which a watch can resume.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<&Arc<Lease>> {
        self.leases.get(&id).map(|entry| &entry.row)
    }

    /// A lease and the others of its group, by index.
    pub fn with_group(&self, id: LeaseId) -> Vec<Arc<Lease>> {
        let Some(lease) = self.lease(id) else { return Vec::new() };
        let Some(members) = lease.spec.group.and_then(|group| self.by_group.get(&group)) else {
            return alloc::vec![lease.clone()];
        };
        let mut all: Vec<Arc<Lease>> = members.iter().filter_map(|id| self.lease(*id).cloned()).collect();
        all.sort_by_key(|lease| lease.spec.index);
        all
    }

    /// All leases that are kept, by id, from after this one.
    pub fn leases(&self, after: Option<LeaseId>) -> impl Iterator<Item = &Arc<Lease>> {
        self.leases.range((bound(after), core::ops::Bound::Unbounded)).map(|(_, entry)| &entry.row)
    }

    /// Leases that changed after a revision, in order of revision.
    pub fn leases_changed_after(&self, after: Revision) -> impl Iterator<Item = &Arc<Lease>> {
        self.by_revision
            .range((core::ops::Bound::Excluded(after), core::ops::Bound::Unbounded))
            .filter_map(|(_, id)| self.lease(*id))
    }

    /// One resource.
    pub fn resource(&self, id: ResourceId) -> Option<&Arc<Resource>> {
        self.resources.get(&id).map(|entry| &entry.row)
    }

    /// All resources that are kept, by id, from after this one.
    pub fn resources(&self, after: Option<ResourceId>) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.range((bound(after), core::ops::Bound::Unbounded)).map(|(_, entry)| &entry.row)
    }

    /// The leases that hold slots of a resource, by slot.
    pub fn leases_on(&self, id: ResourceId) -> Vec<Arc<Lease>> {
        let Some(entry) = self.resources.get(&id) else { return Vec::new() };
        entry.slots.used().filter_map(|(_, lease)| self.lease(lease).cloned()).collect()
    }

    /// Time first: what became due happens before the input, so that an input never sees a lease that ran out.
    fn advance(&mut self, now: Timestamp) {
        let before = self.now;
        self.now = before.max(now);
        let missed = self.now.since(before);
        if missed > self.limits.pause {
            // Nobody could renew while the broker did not listen.
            self.grace_until = self.grace_until.max(self.now.after(self.limits.grace));
            self.heard_since = self.now;
            self.forgets_from = self.forgets_from.max(self.limits.forgets_from(self.now, missed));
        }
        self.fire_timers();
    }

    /// Places waiters and sizes pools until nothing changes any more.
    pub(crate) fn settle(&mut self) {
        let settled = self.settle_within(ROUNDS);
        debug_assert!(settled, "placing and sizing did not come to an end: {:?}", self.dirty);
    }

    /// The same, in at most this many rounds. Each round grants, starts or destroys something, so a step that needs more
    /// has met a fault of the broker: it is reported, and the next step goes on with what is left.
    fn settle_within(&mut self, rounds: u32) -> bool {
        for _ in 0..rounds {
            if self.dirty.is_empty() {
                self.unsettled = false;
                return true;
            }
            let dirty = core::mem::take(&mut self.dirty);
            let demand = self.place(&dirty);
            self.size(&demand);
        }
        let Some(pool) = self.dirty.first().cloned() else {
            self.unsettled = false;
            return true;
        };
        if !self.unsettled {
            let text = format!("placing and sizing did not come to an end in {rounds} rounds; the next step goes on");
            self.own_event("pool.unsettled", Subject::Pool(pool), text);
        }
        self.unsettled = true;
        false
    }

    /// The rows of a reply as they are after settling: a request that was granted at once says so.
    fn refresh(&self, reply: Reply) -> Reply {
        match reply {
            Reply::Leases(leases) => {
                Reply::Leases(leases.into_iter().map(|lease| self.lease(lease.id).cloned().unwrap_or(lease)).collect())
            }
            Reply::Resource(resource) => Reply::Resource(self.resource(resource.id).cloned().unwrap_or(resource)),
            Reply::Done | Reply::Pool(_) => reply,
        }
    }
}

fn bound<T>(after: Option<T>) -> core::ops::Bound<T> {
    match after {
        Some(id) => core::ops::Bound::Excluded(id),
        None => core::ops::Bound::Unbounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;

    #[test]
    fn a_step_that_does_not_settle_is_reported_and_the_next_one_goes_on() {
        let mut core = Core::recover(Snapshot::default(), Vec::new(), Limits::default(), Timestamp(1));
        core.take_batch();
        core.dirty.insert(Arc::from("hosts"));
        assert!(!core.settle_within(0));
        assert!(core.check_invariants().unwrap_err().contains("did not settle"));
        let events = core.take_batch().events;
        assert_eq!(events.iter().filter(|event| event.kind == "pool.unsettled").count(), 1);
        assert!(core.dirty.contains("hosts"), "nothing of it is lost");
        assert!(core.settle_within(1) && core.dirty.is_empty());
        assert_eq!(core.check_invariants(), Ok(()));
    }
}
