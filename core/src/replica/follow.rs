//! A core that only follows another: it takes in what that one has stored, answers the same questions, and decides
//! nothing.
//!
//! It has the same tables and indices, so it answers at a revision as the other does at that revision, except for what
//! is stored nowhere (how probes went, back-off, counters, brakes).

use crate::state::learned::{Begun, took};
use crate::{
    Batch, Configuration, Ended, Lease, LeaseId, LeaseState, Machine, PoolRow, Resource, ResourceId, Revision, Session,
    Snapshot, Timestamp,
};
use crate::{Core, Limits};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// From what is stored, to follow. Only [`Core::take_in`] changes it; a step would decide.
    pub fn follow(snapshot: Snapshot, configuration: impl Into<Configuration>, limits: Limits, now: Timestamp) -> Self {
        let mut core = Self::load(snapshot, configuration.into(), limits, now);
        core.come_to_rest();
        core
    }

    /// Takes in what changed between its revision and the batch's: all of it, each row in its latest state.
    pub fn take_in(&mut self, batch: &Batch) {
        self.follow_time(batch.now);
        let mut touched: BTreeSet<ResourceId> = BTreeSet::new();
        for row in &batch.pools {
            self.follow_pool(row, &mut touched);
        }
        for row in &batch.machines {
            self.load_machine(Machine::clone(row));
        }
        // Before the leases that they keep.
        for row in &batch.sessions {
            self.load_session(Session::clone(row));
        }
        // Hosts before children, so that each child finds its host.
        let (children, hosts): (Vec<_>, Vec<_>) = batch.resources.iter().partition(|row| row.parent.is_some());
        for row in hosts.into_iter().chain(children) {
            self.follow_resource(row, &mut touched);
        }
        // A slot may have gone from one to the other: first all leave, also those that were forgotten since, then all come.
        let mut waiting: BTreeSet<LeaseId> = BTreeSet::new();
        let changed = batch.leases.iter().map(|row| &row.id);
        for id in changed.chain(&batch.forgotten_leases) {
            self.leave(*id, &mut waiting, &mut touched);
        }
        let mut passed: BTreeSet<ResourceId> = BTreeSet::new();
        for row in &batch.leases {
            if self.has_passed_unseen(row) {
                passed.extend(self.resources_of_pool(row));
            }
            self.come(row, &mut waiting, &mut touched);
        }
        for id in &batch.forgotten_leases {
            self.forget_lease(*id);
        }
        for id in &batch.ended_sessions {
            let _ = self.unload_session(*id);
        }
        self.enqueue_again(&waiting);
        for id in &batch.forgotten_resources {
            self.lose_sight(*id);
        }
        // A lease that is replaced when it breaks counts at the host.
        let host = |id: &ResourceId| self.resource(*id).and_then(|row| row.parent).and_then(|parent| parent.host);
        let hosts: Vec<ResourceId> = touched.iter().filter_map(host).collect();
        touched.extend(hosts);
        for id in touched {
            self.reindex(id);
            passed.insert(id);
        }
        for id in passed {
            self.resource_changed(id, batch.revision);
        }
        for id in &batch.forgotten_resources {
            self.forget_resource(*id);
        }
        self.drop_empty_pools();
        self.follow_revision(batch.revision, batch.floor);
        self.come_to_rest();
    }

    /// All rows, as they are stored: to go on from them as the one that decides, see [`Core::recover`].
    pub fn snapshot(&self) -> Snapshot {
        let pools = self.pool_entries().filter(|pool| pool.revision > Revision(0));
        Snapshot {
            revision: self.revision(),
            floor: self.floor(),
            now: self.now(),
            salt: self.salt(),
            leases: self.lease_entries().map(|entry| Lease::clone(&entry.row)).collect(),
            resources: self.entries().map(|entry| Resource::clone(&entry.row)).collect(),
            machines: self.machines().map(|row| Machine::clone(row)).collect(),
            sessions: self.sessions().map(|row| Session::clone(row)).collect(),
            pools: pools
                .map(|pool| PoolRow {
                    name: pool.config.name.clone(),
                    revision: pool.revision,
                    cordoned: pool.cordoned.clone(),
                    record: pool.record,
                    losses: pool.losses.clone(),
                })
                .collect(),
        }
    }

    fn follow_pool(&mut self, row: &PoolRow, touched: &mut BTreeSet<ResourceId>) {
        if !self.load_pool(row) {
            return;
        }
        let Some(pool) = self.pool_entry(&row.name) else { return };
        for id in &pool.members {
            touched.insert(*id);
            touched.extend(self.entry(id).into_iter().flat_map(|entry| entry.children.iter().copied()));
        }
    }

    fn follow_resource(&mut self, row: &Arc<Resource>, touched: &mut BTreeSet<ResourceId>) {
        let id = row.id;
        touched.insert(id);
        self.keep_pool_of(row);
        self.forget_works_of(id);
        touched.extend(self.replace_resource(row));
        self.remember_works(id);
        // Children stand as their host does.
        touched.extend(self.entry(&id).into_iter().flat_map(|entry| entry.children.iter().copied()));
    }

    /// Takes a lease off its slot, out of the queue and out of the order of changes.
    fn leave(&mut self, id: LeaseId, waiting: &mut BTreeSet<LeaseId>, touched: &mut BTreeSet<ResourceId>) {
        let Some(row) = self.lease(id).cloned() else { return };
        touched.extend(row.assignment().map(|assignment| assignment.resource));
        // The others of its request that waited with it have to stand anew.
        waiting.extend(self.unindex_lease(&row));
    }

    fn come(&mut self, row: &Arc<Lease>, waiting: &mut BTreeSet<LeaseId>, touched: &mut BTreeSet<ResourceId>) {
        let id = row.id;
        let begun = self.lease(id).map_or(Begun::Nothing, |before| Begun::of(&before.state));
        self.learn(took(begun, row, self.now()));
        self.restore_slot(row);
        touched.extend(row.assignment().map(|assignment| assignment.resource));
        if matches!(row.state, LeaseState::Queued) {
            waiting.insert(id);
        }
        self.index_lease(row.clone());
    }

    /// Whether a lease may have held slots of which no row in the batch speaks: it came and left between two batches.
    fn has_passed_unseen(&self, row: &Lease) -> bool {
        let before = self.lease(row.id);
        let (attempts, delays) = before.map_or((0, 0), |before| (before.attempts, before.delays));
        let held = |lease: &Lease| lease.assignment().is_some();
        let served = match &row.state {
            LeaseState::Ended { how, .. } => match how {
                Ended::Released { .. } | Ended::Expired | Ended::Broken { .. } => true,
                Ended::Cancelled | Ended::Failed { .. } => row.pool.is_some(),
            },
            LeaseState::Queued | LeaseState::Preparing { .. } | LeaseState::Active { .. } => false,
        };
        row.attempts > attempts
            || row.delays > delays
            || served && !held(row) && before.is_none_or(|before| !held(before) && !before.ended())
    }

    /// The resources on one of which a lease was: those of its pool, or all.
    fn resources_of_pool(&self, lease: &Lease) -> Vec<ResourceId> {
        let pool = lease.pool.as_ref().or(lease.spec.selector.pool.as_ref());
        match pool.and_then(|name| self.pool_entry(name)) {
            Some(pool) => pool.members.iter().copied().collect(),
            None => self.entries().map(|entry| entry.row.id).collect(),
        }
    }

    fn enqueue_again(&mut self, ids: &BTreeSet<LeaseId>) {
        let mut all = ids.clone();
        for id in ids {
            // A member that came back may stand with others that did not change.
            let group = self.lease(*id).and_then(|lease| lease.spec.group);
            all.extend(group.and_then(|group| self.group(&group)).into_iter().flatten().copied());
        }
        let queued = |id: &LeaseId| {
            let row = self.lease(*id)?;
            matches!(row.state, LeaseState::Queued).then(|| row.clone())
        };
        let waiting: Vec<Arc<Lease>> = all.iter().filter_map(queued).collect();
        for lease in &waiting {
            let _ = self.dequeue(lease.id);
        }
        self.enqueue_requests(waiting);
    }
}
