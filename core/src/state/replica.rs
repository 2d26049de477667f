//! Recovery and followers: an empty state, and rows that replace rows.

use crate::state::outbox::Outbox;
use crate::{Core, Lease, LeaseId, Limits, Resource, ResourceId, ResourceState, Revision, Snapshot, Stage, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// A state without rows, at the revision of a snapshot.
    pub(crate) fn empty(snapshot: &Snapshot, limits: Limits, now: Timestamp) -> Self {
        let missed = now.since(snapshot.now);
        let now = now.max(snapshot.now);
        Core {
            grace_until: if snapshot.leases.is_empty() { Timestamp(0) } else { now.after(limits.grace) },
            forgets_from: limits.forgets_from(now, missed),
            limits,
            salt: snapshot.salt,
            now,
            revision: snapshot.revision,
            floor: snapshot.floor,
            pools: BTreeMap::new(),
            order: Vec::new(),
            tenants: Arc::default(),
            held: BTreeMap::new(),
            patience: BTreeMap::new(),
            machines: BTreeMap::new(),
            sessions: BTreeMap::new(),
            session_counts: BTreeMap::new(),
            leases: BTreeMap::new(),
            resources: BTreeMap::new(),
            by_request: BTreeMap::new(),
            by_group: BTreeMap::new(),
            by_revision: BTreeMap::new(),
            resource_changes: BTreeSet::new(),
            by_work: BTreeMap::new(),
            lost_under: BTreeMap::new(),
            accusers: BTreeMap::new(),
            reports: BTreeMap::new(),
            answered: BTreeMap::new(),
            network: crate::policy::brake::Domain::default(),
            heard_since: now,
            queue: crate::state::queue::Queue::default(),
            ranks: Vec::new(),
            changes: crate::state::ranks::Changes::default(),
            partial: BTreeSet::new(),
            unsettled: false,
            timers: BTreeSet::new(),
            lease_timers: BTreeSet::new(),
            old: BTreeSet::new(),
            dirty: BTreeSet::new(),
            outbox: Outbox { base: snapshot.revision, ..Outbox::default() },
            intern: crate::state::intern::Intern::default(),
            consequences: crate::lifecycle::Consequences::default(),
        }
    }

    /// Nothing is due, to be decided, stored or done.
    pub(crate) fn come_to_rest(&mut self) {
        self.dirty.clear();
        self.timers.clear();
        self.lease_timers.clear();
        self.old.clear();
        self.outbox = Outbox { base: self.revision, ..Outbox::default() };
    }

    /// Goes on to the time of a batch that another core has stored.
    pub(crate) fn follow_time(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Takes over the revisions of such a batch.
    pub(crate) fn follow_revision(&mut self, revision: Revision, floor: Revision) {
        self.revision = revision;
        self.floor = self.floor.max(floor);
    }

    /// Replaces the row of a resource. Returns the host on which it lay before, if that is another one.
    pub(crate) fn replace_resource(&mut self, row: &Arc<Resource>) -> Option<ResourceId> {
        let id = row.id;
        let host = row.parent.and_then(|parent| parent.host);
        let Some(entry) = self.resources.get_mut(&id) else {
            self.index_resource(row.clone());
            return None;
        };
        let before = entry.row.parent.and_then(|parent| parent.host);
        let coming = matches!(entry.row.state, ResourceState::Provisioning { .. });
        entry.row = row.clone();
        self.learn_making(coming, row);
        if before == host {
            return None;
        }
        if let Some(before) = before {
            self.untie(before, id);
        }
        if let Some(host) = host {
            self.tie(host, id);
        }
        before
    }

    /// The row of a lease is about to be replaced: its change leaves the order of changes, the lease its slot and the
    /// queue. Returns the leases that waited with it.
    pub(crate) fn unindex_lease(&mut self, row: &Lease) -> Vec<LeaseId> {
        self.by_revision.remove(&row.revision);
        self.exit_session(row);
        if let Some(assignment) = row.assignment()
            && self.give_slot_back(assignment.resource, assignment.slot, row.id)
        {
            self.count_held(row, assignment.resource, false);
        }
        self.dequeue(row.id).map(|waiter| waiter.leases).unwrap_or_default()
    }

    /// A resource that is to be forgotten counts no more, in whatever state it was last known.
    pub(crate) fn lose_sight(&mut self, id: ResourceId) {
        let now = self.now;
        let Some(entry) = self.resources.get_mut(&id) else { return };
        let host = entry.row.parent.and_then(|parent| parent.host);
        if entry.row.state.stage() != Stage::Gone {
            Arc::make_mut(&mut entry.row).state = ResourceState::Gone { at: now, cause: Vec::new() };
        }
        if let Some(host) = host {
            self.untie(host, id);
        }
        self.reindex(id);
    }
}
