//! An audit trail for tests: a store, and a handle of an engine that publishes what is committed.

use super::{Handle, WatchHub};
use crate::store::{Epoch, MemoryStore, Store as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use wharfinger_core::{Batch, Event, EventKind, Revision, Subject, Timestamp};

/// A trail that grows by [`TrailWriter::write`].
pub(crate) struct TrailWriter {
    pub(crate) store: Arc<MemoryStore>,
    /// The mailbox of its engine is closed: readers of the trail get no facts of rows.
    pub(crate) handle: Handle,
    hub: WatchHub,
    epoch: Epoch,
    revision: AtomicU64,
}

impl TrailWriter {
    pub(crate) async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let epoch = store.acquire().await.unwrap();
        let hub = WatchHub::new(Revision(0));
        let (mailbox, rest) = mpsc::channel(1);
        drop(rest);
        let handle = Handle::new(mailbox, hub.clone(), store.clone());
        Self { store, handle, hub, epoch, revision: AtomicU64::new(0) }
    }

    /// Commits one entry with a revision of its own. `change` gets an entry of pool `hosts` by `ann` at the present time.
    pub(crate) async fn write(&self, kind: EventKind, change: impl FnOnce(&mut Event)) {
        let base = self.revision.load(Ordering::Relaxed);
        let revision = Revision(base + 1);
        let mut event = Event {
            revision,
            at: Timestamp(crate::clock::wall_ms()),
            kind,
            actor: Arc::from("ann"),
            subject: Subject::Pool(Arc::from("hosts")),
            pool: Some(Arc::from("hosts")),
            resource: None,
            lease: None,
            detail: Arc::from(""),
            caller: None,
        };
        change(&mut event);
        let batch = Batch { base: Revision(base), revision, events: vec![event], ..Batch::default() };
        self.store.commit(&batch, self.epoch).await.unwrap();
        self.hub.publish(&batch);
        self.revision.store(revision.0, Ordering::Relaxed);
    }
}
