//! Invariant 19: an action that is due happens, also after a clock was wrong.
//!
//! Each stored deadline is translated into true simulated time when it is stored. A leader that has served without a break
//! must have acted on it at most [`BOUND`] after that.

use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger_core::{
    Batch, Lease, LeaseId, LeaseState, Millis, Resource, ResourceId, ResourceState, Revision, Timestamp,
};

/// Time that a leader has for an action that is due: the grace after a pause, and the duration of a commit.
const BOUND: Millis = Millis::secs(90);

/// The core's time runs at no less than two thirds of true time: a tenth of slewing, and two clocks that drift.
fn at_most(span: Millis) -> Millis {
    Millis(span.0.saturating_mul(3) / 2)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Thing {
    Lease(LeaseId),
    Resource(ResourceId),
    /// The earliest timer of the core that leads.
    Core,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    /// Time of the core.
    at: Timestamp,
    what: &'static str,
    /// True time.
    latest: Timestamp,
}

/// Stored deadlines that have not passed yet.
#[derive(Default)]
pub(crate) struct Deadlines(BTreeMap<Thing, Deadline>);

impl Deadlines {
    /// Records a stored batch. Rows and the core's time are those of the batch; `now` is the true time.
    pub(crate) fn stored(&mut self, now: Timestamp, batch: &Batch) {
        for row in &batch.leases {
            self.set((now, batch.now), Thing::Lease(row.id), of_lease(row));
        }
        for row in &batch.resources {
            self.set((now, batch.now), Thing::Resource(row.id), of_resource(row));
        }
        for id in &batch.forgotten_leases {
            self.0.remove(&Thing::Lease(*id));
        }
        for id in &batch.forgotten_resources {
            self.0.remove(&Thing::Resource(*id));
        }
    }

    /// Counts anew after a server has recovered from the store.
    pub(crate) fn recovered(&mut self, now: Timestamp, core: Timestamp) {
        self.0.remove(&Thing::Core);
        for due in self.0.values_mut() {
            due.latest = now.after(at_most(due.at.since(core)));
        }
    }

    /// Records the earliest timer of the leading core. `core` is the core's present time.
    pub(crate) fn timer(&mut self, now: Timestamp, core: Timestamp, next: Option<Timestamp>) {
        if self.0.get(&Thing::Core).map(|due| due.at) != next {
            self.set((now, core), Thing::Core, next.map(|at| (at, "the earliest timer")));
        }
    }

    fn set(&mut self, (now, core): (Timestamp, Timestamp), thing: Thing, due: Option<(Timestamp, &'static str)>) {
        match due {
            Some((at, what)) => {
                self.0.insert(thing, Deadline { at, what, latest: now.after(at_most(at.since(core))) });
            }
            None => {
                self.0.remove(&thing);
            }
        }
    }

    /// `served`: true time since which one leader has served without a break.
    pub(crate) fn check(&self, now: Timestamp, served: Timestamp, at: Revision) -> Result<(), String> {
        let late = self.0.iter().find(|(_, due)| due.latest.max(served).after(BOUND) < now);
        match late {
            Some((thing, due)) => Err(format!(
                "(19) at revision {at}: {} of {thing:?} was due {} ago and has not happened",
                due.what,
                now.since(due.latest)
            )),
            None => Ok(()),
        }
    }
}

fn of_lease(row: &Arc<Lease>) -> Option<(Timestamp, &'static str)> {
    match row.state {
        LeaseState::Active { .. } => row.expires_at.map(|at| (at, "the expiry")),
        LeaseState::Queued => row.spec.wait_until.map(|at| (at, "the end of the wait")),
        LeaseState::Preparing { .. } | LeaseState::Ended { .. } => None,
    }
}

fn of_resource(row: &Arc<Resource>) -> Option<(Timestamp, &'static str)> {
    match row.state {
        ResourceState::Draining { deadline, .. } => deadline.map(|at| (at, "the end of the drain")),
        ResourceState::Quarantined { until, .. } => until.map(|at| (at, "the end of the hold")),
        ResourceState::Provisioning { op: None, retry_at, .. }
        | ResourceState::Suspect { op: None, retry_at, .. }
        | ResourceState::Destroying { op: None, retry_at, .. }
        | ResourceState::Orphaned { op: None, retry_at, .. } => retry_at.map(|at| (at, "the retry")),
        ResourceState::Provisioning { .. }
        | ResourceState::Suspect { .. }
        | ResourceState::Destroying { .. }
        | ResourceState::Orphaned { .. }
        | ResourceState::Repairing { .. }
        | ResourceState::Ready
        | ResourceState::Gone { .. } => None,
    }
}
