//! From what is stored to a running state machine: nothing is lost, nothing is granted twice, what was under way is
//! started again with its old number.

use crate::machine::{Core, Limits};
use crate::pending::{Call, Pending};
use crate::queue::{ClassKey, Queue, Want};
use crate::tables::{LeaseEntry, Pool};
use crate::{
    GroupId, Lease, LeaseId, LeaseState, Millis, Op, PoolConfig, Resource, ResourceId, ResourceState, Snapshot,
    Timestamp,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

impl Core {
    /// From what is stored. The first batch holds what the restart itself changes, and the effects that were under
    /// way, each to be started again with its old number.
    pub fn recover(snapshot: Snapshot, pools: Vec<PoolConfig>, limits: Limits, now: Timestamp) -> Self {
        let mut core = Self::load(snapshot, pools, limits, now);
        core.restart_work();
        core.settle();
        core
    }

    /// The tables with their indices; nothing is decided yet.
    pub(crate) fn load(snapshot: Snapshot, pools: Vec<PoolConfig>, limits: Limits, now: Timestamp) -> Self {
        let missed = now.since(snapshot.now);
        let now = now.max(snapshot.now);
        let mut core = Core {
            grace_until: if snapshot.leases.is_empty() { Timestamp(0) } else { now.after(limits.grace) },
            forgets_from: limits.forgets_from(now, missed),
            limits,
            salt: snapshot.salt,
            now,
            revision: snapshot.revision,
            floor: snapshot.floor,
            pools: BTreeMap::new(),
            order: Vec::new(),
            leases: BTreeMap::new(),
            resources: BTreeMap::new(),
            by_request: BTreeMap::new(),
            by_group: BTreeMap::new(),
            by_revision: BTreeMap::new(),
            by_work: BTreeMap::new(),
            lost_under: BTreeMap::new(),
            reports: BTreeMap::new(),
            network: crate::brake::Domain::default(),
            heard_since: now,
            queue: Queue::default(),
            partial: BTreeSet::new(),
            unsettled: false,
            timers: BTreeSet::new(),
            lease_timers: BTreeSet::new(),
            old: BTreeSet::new(),
            dirty: BTreeSet::new(),
            pending: Pending { base: snapshot.revision, ..Pending::default() },
            common: crate::common::Common::default(),
        };
        let mut names = BTreeSet::new();
        for config in pools {
            names.insert(config.name.clone());
            core.order.push(config.name.clone());
            core.pools.insert(config.name.clone(), Pool::new(Arc::new(config)));
        }
        // A pool that is no longer configured, but of which something is left.
        for row in &snapshot.resources {
            core.keep_pool_of(row);
        }
        for row in snapshot.pools {
            if let Some(pool) = core.pools.get_mut(&row.name) {
                pool.cordoned = row.cordoned;
                pool.revision = row.revision;
            }
        }
        // Hosts before children, so that each child finds its host.
        let (children, hosts): (Vec<_>, Vec<_>) = snapshot.resources.into_iter().partition(|row| row.parent.is_some());
        for row in hosts.into_iter().chain(children) {
            let id = row.id;
            core.index_resource(Arc::new(row));
            core.remember_work(id);
        }
        for lease in &snapshot.leases {
            if let Some(hold) = lease.hold()
                && let Some(entry) = core.resources.get_mut(&hold.resource)
            {
                entry.slots.restore(hold.slot, lease.id);
            }
        }
        core.index_leases(snapshot.leases);
        let queued = |entry: &LeaseEntry| matches!(entry.row.state, LeaseState::Queued).then(|| entry.row.clone());
        let waiting = core.leases.values().filter_map(queued).collect();
        core.line_up(waiting);
        core.find_partial_groups();
        core.reindex_all();
        core
    }

    /// A pool that is no longer configured, but of which this is left.
    pub(crate) fn keep_pool_of(&mut self, row: &Resource) {
        if matches!(row.state, ResourceState::Gone { .. }) || self.pools.contains_key(&row.pool) {
            return;
        }
        let mut pool = Pool::new(Arc::new(unconfigured(&row.pool, row.item.is_some(), row.parent.is_some())));
        pool.configured = false;
        self.pools.insert(row.pool.clone(), pool);
        self.order.push(row.pool.clone());
    }

    /// Queues leases as requests: of a group all members that wait together, of an independent one those that were never
    /// granted. With each member of a group `waiting` has all others of it that wait.
    pub(crate) fn line_up(&mut self, waiting: Vec<Arc<Lease>>) {
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
            self.queue.push(key, place, ids);
        }
    }

    pub(crate) fn restart_work(&mut self) {
        let resources: Vec<ResourceId> = self.resources.keys().copied().collect();
        for id in resources {
            let Some(row) = self.resource(id).cloned() else { continue };
            let op = match &row.state {
                ResourceState::Provisioning { op, .. }
                | ResourceState::Suspect { op, .. }
                | ResourceState::Destroying { op, .. }
                | ResourceState::Orphaned { op, .. } => *op,
                ResourceState::Repairing { op, .. } => Some(*op),
                ResourceState::Ready
                | ResourceState::Quarantined { .. }
                | ResourceState::Draining { .. }
                | ResourceState::Gone { .. } => None,
            };
            // A call needs the row of the host. A host that is forgotten took along what was on it.
            let forgotten = row.parent.and_then(|parent| parent.host).is_some_and(|host| self.resource(host).is_none());
            if let ResourceState::Destroying { cause, .. } | ResourceState::Orphaned { cause, .. } = &row.state
                && forgotten
            {
                self.gone(id, cause.clone());
                continue;
            }
            if let Some(op) = op {
                self.call(Call::Resource(id, op));
            }
            // When it fell idle is not stored by itself: the row may be from when it had a lease.
            let empty = self.resources.get(&id).is_some_and(|entry| entry.slots.len() == 0);
            if empty && row.ready_at.is_some() && row.idle_since.is_none() {
                let now = self.now;
                self.touch_resource(id, |row| row.idle_since = Some(now));
            }
            self.schedule_probe(id, true);
            self.arm_resource(id);
            self.follow_configuration(id);
            self.after_vacated(id);
        }
        self.arm_leases();
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
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

/// What is left of a pool that nobody configures any more: it drains.
fn unconfigured(name: &Arc<str>, inventory: bool, hosted: bool) -> PoolConfig {
    PoolConfig {
        name: name.clone(),
        adapter: Arc::from("unknown"),
        labels: crate::Labels::new(),
        enabled: false,
        on: if hosted { alloc::vec![Arc::from("?")] } else { Vec::new() },
        inventory: inventory.then(Vec::new),
        min_ready: 0,
        max: 0,
        max_per_parent: None,
        slots: 1,
        idle: None,
        max_age: None,
        max_uses: None,
        traits: crate::Traits { prepares: false, cleans: false, repairs: false, probes: false },
        doubt: crate::DoubtPolicy::default(),
        brake: crate::Brake::default(),
        domain: None,
        drain: None,
        max_hold: Millis::ZERO,
        default_ttl: Millis::secs(60),
        max_ttl: Millis::secs(86_400),
        attempts: 5,
        timeouts: crate::Timeouts::default(),
    }
}
