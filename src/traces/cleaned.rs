//! Times at which slots were clean after their leases. The audit trail has no entry for that, so an observer of commits notes them.

use crate::engine::{CallReport, CommitResult, Observer};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wharfinger_core::{Batch, LeaseId, LeaseState, Timestamp};

/// Maximum number of times that are kept. The oldest go first, and their leases have no span of the cleaning.
const MOST: usize = 16_384;

/// The latest times. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Cleaned(Arc<Parts>);

#[derive(Default)]
struct Parts {
    /// Whether traces are on.
    wanted: AtomicBool,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    by_lease: HashMap<LeaseId, Timestamp>,
    order: VecDeque<LeaseId>,
}

impl Cleaned {
    /// Times are noted from now on, or no longer.
    pub fn want(&self, wanted: bool) {
        self.0.wanted.store(wanted, Ordering::Relaxed);
    }

    /// The time at which the slot of a lease was clean, if it is known.
    pub(super) fn of(&self, lease: LeaseId) -> Option<Timestamp> {
        self.0.times.lock().unwrap_or_else(PoisonError::into_inner).by_lease.get(&lease).copied()
    }

    fn note(&self, batch: &Batch) {
        if !self.0.wanted.load(Ordering::Relaxed) {
            return;
        }
        let clean = batch
            .leases
            .iter()
            .filter(|lease| matches!(&lease.state, LeaseState::Ended { at, cleanup: None, .. } if *at < batch.now));
        let mut times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        for lease in clean {
            // A row may change again, with the finding of a check.
            if times.by_lease.contains_key(&lease.id) {
                continue;
            }
            times.by_lease.insert(lease.id, batch.now);
            times.order.push_back(lease.id);
            if times.order.len() > MOST
                && let Some(oldest) = times.order.pop_front()
            {
                times.by_lease.remove(&oldest);
            }
        }
    }
}

/// An observer, and these times.
pub struct Both {
    /// The observer.
    pub other: Arc<dyn Observer>,
    /// The times.
    pub cleaned: Cleaned,
}

impl Observer for Both {
    fn committed(&self, batch: &Batch, heard: Option<Duration>) {
        self.cleaned.note(batch);
        self.other.committed(batch, heard);
    }

    fn turn(&self, inputs: usize, took: Duration) {
        self.other.turn(inputs, took);
    }

    fn commit(&self, result: CommitResult, took: Duration) {
        self.other.commit(result, took);
    }

    fn recovered(&self) {
        self.other.recovered();
    }

    fn call_waits(&self, permit: &'static str, waits: bool) {
        self.other.call_waits(permit, waits);
    }

    fn call_begins(&self, permit: &'static str) {
        self.other.call_begins(permit);
    }

    fn call_ends(&self, call: &CallReport<'_>) {
        self.other.call_ends(call);
    }

    fn lines_dropped(&self, count: usize) {
        self.other.lines_dropped(count);
    }
}
