//! Tells committed changes to those who watch them: indexed by what they watch, bounded per watcher.

use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;
use wharfinger_core::{Batch, Lease, LeaseId, Revision};

/// Which leases a watcher wants. Filters are ANDed, the values of one filter are ORed; empty: everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By id.
    pub leases: BTreeSet<LeaseId>,
    /// By holder.
    pub holders: BTreeSet<Arc<str>>,
    /// By the pool that serves it, or by the pool asked for while it waits.
    pub pools: BTreeSet<Arc<str>>,
}

/// What a watcher gets.
#[derive(Clone, Debug)]
pub enum Told {
    /// A lease changed; this is its latest state.
    Lease(Arc<Lease>),
    /// The watcher was too slow: what came meanwhile was dropped. Catch up from the last revision that was told.
    Lagged,
}

/// The fan-out. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    revision: watch::Sender<Revision>,
}

/// One watcher's end.
pub struct Subscription {}

impl Hub {
    /// An empty hub at this revision.
    pub fn new(revision: Revision) -> Self {
        Self { revision: watch::Sender::new(revision) }
    }

    /// The last revision that was told; every subscription has been offered all up to it.
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Starts to watch: from now on each matching change is offered. At most `capacity` wait unread.
    pub fn subscribe(&self, filter: Filter, capacity: usize) -> Subscription {
        let _ = (filter, capacity);
        todo!()
    }

    /// Tells a committed batch. Never waits.
    pub fn publish(&self, batch: &Batch) {
        let _ = batch;
        todo!()
    }
}

impl Subscription {
    /// The next change; never ends by itself.
    pub async fn recv(&mut self) -> Told {
        todo!()
    }
}
