//! The census: what there is of each kind and how old the oldest is, in one walk over the pools' members.

use crate::Core;
use crate::policy::capacity::Extent;
use crate::state::queue::Class;
use crate::state::tables::Pool;
use crate::state::want::ClassKey;
use crate::{BrakeView, Millis, PoolConfig, PoolCounters, ResourceState, Timestamp};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Counts and ages, for meters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// The pools in the order of the configuration, then those removed from it of which something is left.
    pub pools: Vec<PoolCensus>,
    /// Leases in the queue, each once.
    pub queued: u32,
    /// Those of them that the present configuration can never meet.
    pub unsatisfiable: u32,
    /// Number of sessions.
    pub sessions: u32,
    /// Those of them whose stream is over.
    pub sessions_in_doubt: u32,
}

/// One pool in the census.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolCensus {
    /// Its configuration; of a removed pool, the last one known.
    pub config: Arc<PoolConfig>,
    /// Configured, enabled and not cordoned.
    pub open: bool,
    /// It waits after a failed attempt to make a resource.
    pub backing_off: bool,
    /// Resources in each state that some are in, by [`ResourceState::as_str`].
    pub states: BTreeMap<&'static str, StateCensus>,
    /// Its slots.
    pub slots: SlotCensus,
    /// Leases on it that are being prepared.
    pub preparing: u32,
    /// Active leases on it.
    pub active: u32,
    /// Queued leases that name it, or whose labels it has.
    pub waiting: u32,
    /// The longest wait of one of them; zero without any.
    pub oldest_wait: Millis,
    /// Failure domains of which some are in trouble.
    pub brakes: Vec<BrakeView>,
    /// Counters since this server leads.
    pub counters: PoolCounters,
}

/// Resources in one state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StateCensus {
    /// Their number.
    pub count: u32,
    /// How long the oldest of them has been in it, as far as the row says.
    pub oldest: Millis,
}

/// Slots by use. They add up to all slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotCensus {
    /// They could be leased now.
    pub free: u32,
    /// A live lease holds them.
    pub leased: u32,
    /// Their lease has ended, and they are being cleaned.
    pub cleaning: u32,
    /// The rest: their resource is not ready, cordoned, held or on trial.
    pub unusable: u32,
}

impl Core {
    /// Counts what there is, at this time.
    pub fn census(&self, now: Timestamp) -> Census {
        let pools =
            self.pool_order().iter().filter_map(|name| self.pool_entry(name)).map(|pool| self.counted(pool, now));
        let unmet = self.queue().classes().filter(|class| !self.unmet(&class.key, Extent::Configured).is_empty());
        Census {
            pools: pools.collect(),
            queued: u32::try_from(self.queue().len()).unwrap_or(u32::MAX),
            unsatisfiable: unmet.map(|class| class.leases).sum(),
            sessions: u32::try_from(self.sessions().count()).unwrap_or(u32::MAX),
            sessions_in_doubt: u32::try_from(self.sessions().filter(|row| row.doubt.is_some()).count())
                .unwrap_or(u32::MAX),
        }
    }

    fn counted(&self, pool: &Pool, now: Timestamp) -> PoolCensus {
        let mut found = PoolCensus {
            config: pool.config.clone(),
            open: pool.open(),
            backing_off: pool.backoff.until.is_some_and(|until| until > now),
            states: BTreeMap::new(),
            slots: SlotCensus { free: pool.total.free_slots, ..SlotCensus::default() },
            preparing: 0,
            active: 0,
            waiting: 0,
            oldest_wait: Millis(0),
            brakes: self.brake_views(pool),
            counters: pool.counters,
        };
        let mut all = 0;
        for entry in pool.members.iter().filter_map(|id| self.entry(id)) {
            let row = &entry.row;
            let state = found.states.entry(row.state.as_str()).or_default();
            state.count += 1;
            state.oldest = state.oldest.max(now.since(entered(&row.state, row.created_at, row.ready_at)));
            all += row.slots;
            for lease in entry.slots.used().filter_map(|(_, lease)| self.lease(lease)) {
                match &lease.state {
                    crate::LeaseState::Preparing { .. } => {
                        (found.preparing, found.slots.leased) = (found.preparing + 1, found.slots.leased + 1)
                    }
                    crate::LeaseState::Active { .. } => {
                        (found.active, found.slots.leased) = (found.active + 1, found.slots.leased + 1)
                    }
                    crate::LeaseState::Ended { .. } => found.slots.cleaning += 1,
                    crate::LeaseState::Queued => {}
                }
            }
        }
        found.slots.unusable = all.saturating_sub(found.slots.free + found.slots.leased + found.slots.cleaning);
        for class in self.queue().classes_for(&pool.config.name).filter(|class| named(pool, &class.key)) {
            found.waiting += class.leases;
            found.oldest_wait = found.oldest_wait.max(self.oldest(class, now));
        }
        found
    }

    /// The longest wait in a class. In a lane the first has waited longest.
    fn oldest(&self, class: &Class, now: Timestamp) -> Millis {
        let firsts = class.lanes.values().filter_map(|lane| lane.first()).map(|(_, waiter)| waiter);
        let leases = firsts.filter_map(|waiter| waiter.leases.first()).filter_map(|id| self.lease(*id));
        leases.map(|lease| now.since(lease.created_at)).max().unwrap_or(Millis(0))
    }
}

/// Whether a class names the pool, or the pool's labels or those of its inventory meet it.
fn named(pool: &Pool, key: &ClassKey) -> bool {
    let config = &pool.config;
    key.iter().any(|want| match want.pools() {
        Some(pools) => pools.contains(&config.name),
        None => match &config.inventory {
            Some(items) => items.iter().any(|item| want.matches(&config.name, &config.labels, &item.labels)),
            None => want.matches(&config.name, &config.labels, &crate::Labels::new()),
        },
    })
}

/// Since when a resource is in its state, as far as its row says.
fn entered(state: &ResourceState, created: Timestamp, ready: Option<Timestamp>) -> Timestamp {
    match state {
        ResourceState::Provisioning { .. } => created,
        ResourceState::Ready => ready.unwrap_or(created),
        ResourceState::Suspect { since, .. } | ResourceState::Quarantined { since, .. } => *since,
        ResourceState::Repairing { cause, .. }
        | ResourceState::Draining { cause, .. }
        | ResourceState::Destroying { cause, .. }
        | ResourceState::Orphaned { cause, .. } => cause.first().map_or(created, |link| link.at),
        ResourceState::Gone { at, .. } => *at,
    }
}
