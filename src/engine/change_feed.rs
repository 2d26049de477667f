//! The changes that another server has committed, as one batch from one committed state to a later one.

use crate::store::{Changes, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{
    Batch, Lease, LeaseId, Machine, MachineKey, PoolRow, Resource, ResourceId, Revision, Session, SessionId,
};

/// Maximum number of rows of one page.
const PAGE: usize = 5000;

/// All changes after a revision. One page alone is not the state of a commit: a row that changes while pages are read is in a
/// later page. All pages together are the state of a commit.
///
/// # Errors
/// As of [`Store::changes_since`].
pub async fn changes_after(store: &dyn Store, after: Revision) -> Result<Batch, StoreError> {
    let mut gathered = Gathered::default();
    let mut from = after;
    loop {
        let page = store.changes_since(from, PAGE).await?;
        let more = page.more;
        from = page.revision;
        gathered.add(page);
        if !more {
            return Ok(gathered.batch(after));
        }
    }
}

/// Pages read so far: each row in its latest state.
#[derive(Default)]
struct Gathered {
    last: Changes,
    leases: BTreeMap<LeaseId, Lease>,
    resources: BTreeMap<ResourceId, Resource>,
    pools: BTreeMap<Arc<str>, PoolRow>,
    machines: BTreeMap<MachineKey, Machine>,
    sessions: BTreeMap<SessionId, Session>,
    ended_sessions: BTreeSet<SessionId>,
    forgotten_leases: BTreeSet<LeaseId>,
    forgotten_resources: BTreeSet<ResourceId>,
}

impl Gathered {
    fn add(&mut self, mut page: Changes) {
        self.leases.extend(page.leases.drain(..).map(|row| (row.id, row)));
        self.resources.extend(page.resources.drain(..).map(|row| (row.id, row)));
        self.pools.extend(page.pools.drain(..).map(|row| (row.name.clone(), row)));
        self.machines.extend(page.machines.drain(..).map(|row| (row.key.clone(), row)));
        self.sessions.extend(page.sessions.drain(..).map(|row| (row.id, row)));
        for forgotten in page.forgotten.drain(..) {
            self.forgotten_leases.extend(forgotten.leases);
            self.forgotten_resources.extend(forgotten.resources);
            self.ended_sessions.extend(forgotten.sessions);
        }
        self.last = page;
    }

    fn batch(mut self, base: Revision) -> Batch {
        self.leases.retain(|id, _| !self.forgotten_leases.contains(id));
        self.resources.retain(|id, _| !self.forgotten_resources.contains(id));
        self.sessions.retain(|id, _| !self.ended_sessions.contains(id));
        let mut batch = Batch {
            base,
            revision: self.last.revision,
            now: self.last.now,
            leases: self.leases.into_values().map(Arc::new).collect(),
            resources: self.resources.into_values().map(Arc::new).collect(),
            pools: self.pools.into_values().map(Arc::new).collect(),
            machines: self.machines.into_values().map(Arc::new).collect(),
            sessions: self.sessions.into_values().map(Arc::new).collect(),
            ended_sessions: self.ended_sessions.into_iter().collect(),
            forgotten_leases: self.forgotten_leases.into_iter().collect(),
            forgotten_resources: self.forgotten_resources.into_iter().collect(),
            floor: self.last.floor,
            ..Batch::default()
        };
        batch.leases.sort_by_key(|row| row.revision);
        batch.resources.sort_by_key(|row| row.revision);
        batch
    }
}
