//! From what is stored to a running state machine: nothing is lost, nothing is granted twice, what was under way is
//! started again with its old number.

use crate::lifecycle::Consequence;
use crate::state::outbox::Call;
use crate::state::tables::LeaseEntry;
use crate::state::want::{ClassKey, Want};
use crate::{
    Configuration, GroupId, Lease, LeaseId, LeaseState, Op, PoolConfig, Resource, ResourceId, ResourceState, Snapshot,
    Stage, Timestamp,
};
use crate::{Core, Limits};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

impl Core {
    /// From what is stored. The first batch holds what the restart itself changes, and the effects that were under
    /// way, each to be started again with its old number.
    pub fn recover(
        snapshot: Snapshot,
        configuration: impl Into<Configuration>,
        limits: Limits,
        now: Timestamp,
    ) -> Self {
        let mut core = Self::load(snapshot, configuration.into(), limits, now);
        core.adopt_orders();
        core.restart_work();
        core.settle();
        core
    }

    /// The tables with their indices; nothing is decided yet.
    pub(crate) fn load(snapshot: Snapshot, configuration: Configuration, limits: Limits, now: Timestamp) -> Self {
        let mut core = Core::empty(&snapshot, limits, now);
        let Configuration { pools, tenants } = configuration;
        core.configure_tenants(tenants);
        let order = pools.iter().map(|pool| pool.name.clone()).collect();
        for config in pools {
            core.configure_pool(config);
        }
        core.order_pools(order);
        // A pool that is no longer configured, but of which something is left.
        for row in &snapshot.resources {
            core.keep_pool_of(row);
        }
        for row in &snapshot.pools {
            core.load_pool(row);
        }
        for row in snapshot.machines {
            core.load_machine(row);
        }
        // Before the leases that they keep.
        for row in snapshot.sessions {
            core.load_session(row);
        }
        // Hosts before children, so that each child finds its host.
        let (children, hosts): (Vec<_>, Vec<_>) = snapshot.resources.into_iter().partition(|row| row.parent.is_some());
        for row in hosts.into_iter().chain(children) {
            let id = row.id;
            core.index_resource(Arc::new(row));
            core.remember_works(id);
        }
        for lease in &snapshot.leases {
            core.restore_slot(lease);
        }
        core.index_leases(snapshot.leases);
        let queued = |entry: &LeaseEntry| matches!(entry.row.state, LeaseState::Queued).then(|| entry.row.clone());
        let waiting = core.lease_entries().filter_map(queued).collect();
        core.enqueue_requests(waiting);
        core.find_partial_groups();
        core.reindex_all();
        core
    }

    /// A pool that is no longer configured, but of which this is left.
    pub(crate) fn keep_pool_of(&mut self, row: &Resource) {
        if row.state.stage() == Stage::Gone || self.pool_entry(&row.pool).is_some() {
            return;
        }
        self.add_removed_pool(unconfigured(&row.pool, row.item.is_some(), row.parent.is_some()));
    }

    /// Queues leases as requests: of a group all members that wait together, of an independent one those that were
    /// never granted. With each member of a group `waiting` has all others of it that wait.
    pub(crate) fn enqueue_requests(&mut self, waiting: Vec<Arc<Lease>>) {
        let mut together: BTreeMap<GroupId, Vec<Arc<Lease>>> = BTreeMap::new();
        let mut alone: Vec<Arc<Lease>> = Vec::new();
        for lease in waiting {
            let fresh = lease.attempts == 0 && lease.delays == 0 || lease.spec.replaces.is_some();
            match lease.spec.group {
                Some(group) if fresh || !lease.spec.independent => together.entry(group).or_default().push(lease),
                Some(_) | None => alone.push(lease),
            }
        }
        let mut requests: Vec<Vec<Arc<Lease>>> = together.into_values().collect();
        requests.extend(alone.into_iter().map(|lease| alloc::vec![lease]));
        for mut members in requests {
            members.sort_by_key(|lease| lease.spec.index);
            let Some(seq) = members.iter().map(|lease| lease.seq).min() else { continue };
            let wants: Vec<Want> = members.iter().map(|lease| self.want_of(lease)).collect();
            let key: ClassKey = wants.into();
            let place = (Reverse(members[0].spec.priority), seq);
            let ids: Vec<LeaseId> = members.iter().map(|lease| lease.id).collect();
            self.enqueue(key, place, ids);
        }
    }

    pub(crate) fn restart_work(&mut self) {
        let resources: Vec<ResourceId> = self.entries().map(|entry| entry.row.id).collect();
        for id in resources {
            let Some(row) = self.resource(id).cloned() else { continue };
            // A call needs the row of the host. A host that is forgotten took along what was on it.
            let forgotten = row.parent.and_then(|parent| parent.host).is_some_and(|host| self.resource(host).is_none());
            if let ResourceState::Destroying { cause, .. } | ResourceState::Orphaned { cause, .. } = &row.state
                && forgotten
            {
                self.bring_about(Consequence::Gone { resource: id, cause: cause.clone() });
                continue;
            }
            if let Some((_, op)) = row.state.task() {
                self.call(Call::Resource(id, op));
            }
            // When it fell idle is not stored by itself: the row may be from when it had a lease.
            let empty = self.entry(&id).is_some_and(|entry| entry.slots.len() == 0);
            if empty && row.ready_at.is_some() && row.idle_since.is_none() {
                self.fell_idle(id);
            }
            self.schedule_probe(id, true);
            self.arm_resource(id);
            self.bring_about(Consequence::FollowConfiguration(id));
            self.bring_about(Consequence::Vacated(id));
        }
        self.arm_leases();
        self.arm_sessions();
        let leases: Vec<LeaseId> = self.lease_entries().map(|entry| entry.row.id).collect();
        for id in leases {
            let op = match self.lease(id).map(|lease| &lease.state) {
                Some(LeaseState::Preparing { op, .. }) => Some(*op),
                Some(LeaseState::Ended { cleanup: Some(cleanup), .. }) if cleanup.op != Op(0) => Some(cleanup.op),
                Some(LeaseState::Queued | LeaseState::Active { .. } | LeaseState::Ended { .. }) | None => None,
            };
            if let Some(op) = op {
                self.call(Call::Lease(id, op));
            }
        }
    }
}

/// Resources of a pool that left the configuration drain.
fn unconfigured(name: &Arc<str>, inventory: bool, hosted: bool) -> PoolConfig {
    PoolConfig {
        enabled: false,
        on: if hosted { alloc::vec![Arc::from("?")] } else { Vec::new() },
        inventory: inventory.then(Vec::new),
        max: 0,
        ..PoolConfig::named(name)
    }
}
