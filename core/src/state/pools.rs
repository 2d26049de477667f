//! Transitions of pools.

use crate::state::tables::{Backoff, Pool};
use crate::{Cordon, Core, Losses, Millis, PoolConfig, PoolCounters, PoolRow, Revision, Timestamp, Uses};
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// A pool that is no longer configured is forgotten with its last resource.
    pub(crate) fn drop_empty_pools(&mut self) {
        let before = self.pools.len();
        self.pools.retain(|_, pool| pool.configured || !pool.members.is_empty());
        if self.pools.len() != before {
            let pools = &self.pools;
            self.order.retain(|name| pools.contains_key(name));
        }
    }

    /// Counts what happened in a pool.
    pub(crate) fn count(&mut self, pool: &str, count: impl FnOnce(&mut PoolCounters)) {
        if let Some(pool) = self.pools.get_mut(pool) {
            count(&mut pool.counters);
        }
    }

    /// A resource of the pool was made: nothing keeps the next one.
    pub(crate) fn provisioning_worked(&mut self, pool: &str) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.backoff = Backoff::default();
            pool.no_room = false;
        }
    }

    /// A resource of the pool could not be made: the next attempt waits for a time that grows with the failures in a row.
    pub(crate) fn provisioning_failed(&mut self, pool: &str, why: &str, wait: impl FnOnce(u32) -> Millis) {
        let now = self.now;
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.backoff.failures += 1;
            pool.no_room = false;
            pool.backoff.until = Some(now.after(wait(pool.backoff.failures)));
            pool.backoff.why = Some(Arc::from(why));
        }
    }

    /// Sets the configuration of a pool. Returns whether it is new or changed.
    pub(crate) fn configure_pool(&mut self, config: PoolConfig) -> bool {
        match self.pools.get_mut(&config.name) {
            Some(pool) => {
                let changed = *pool.config != config;
                pool.config = Arc::new(config);
                pool.configured = true;
                pool.no_room = false;
                if changed {
                    pool.backoff = Backoff::default();
                }
                changed
            }
            None => {
                self.pools.insert(config.name.clone(), Pool::new(Arc::new(config)));
                true
            }
        }
    }

    /// Adds a pool that is in the configuration no more, and of which something is left.
    pub(crate) fn add_removed_pool(&mut self, config: PoolConfig) {
        self.order.push(config.name.clone());
        let pool = Pool { configured: false, ..Pool::new(Arc::new(config)) };
        self.pools.insert(pool.config.name.clone(), pool);
    }

    /// A pool left the configuration.
    pub(crate) fn remove_pool(&mut self, name: &str) {
        if let Some(pool) = self.pools.get_mut(name) {
            pool.configured = false;
            pool.no_room = false;
        }
    }

    /// Sets the order of the configured pools; those of which only something is left come after them.
    pub(crate) fn order_pools(&mut self, configured: Vec<Arc<str>>) {
        let rest = self.pools.keys().filter(|name| !configured.contains(*name)).cloned();
        let rest: Vec<Arc<str>> = rest.collect();
        self.order = configured;
        self.order.extend(rest);
    }

    /// Cordons or uncordons a pool; `false`: there is none.
    pub(crate) fn cordon_pool(&mut self, name: &Arc<str>, cordon: Option<Cordon>) -> bool {
        if !self.pools.contains_key(name) {
            return false;
        }
        let revision = self.next_revision();
        if let Some(pool) = self.pools.get_mut(name) {
            (pool.cordoned, pool.revision, pool.no_room) = (cordon, revision, false);
        }
        self.outbox.pools.insert(name.clone());
        true
    }

    /// Takes over what is stored of a pool. Returns whether its cordon changed.
    pub(crate) fn load_pool(&mut self, row: &PoolRow) -> bool {
        let Some(pool) = self.pools.get_mut(&row.name) else { return false };
        let changed = pool.cordoned != row.cordoned;
        pool.cordoned = row.cordoned.clone();
        pool.no_room = false;
        pool.record = row.record;
        pool.losses = row.losses.clone();
        pool.revision = row.revision;
        changed
    }

    /// Sets the losses of a pool that makes its hosts at will.
    pub(crate) fn set_pool_losses(&mut self, name: &Arc<str>, losses: Option<Losses>) {
        let revision = self.next_revision();
        if let Some(pool) = self.pools.get_mut(name) {
            (pool.losses, pool.revision, pool.no_room) = (losses, revision, false);
            self.outbox.pools.insert(name.clone());
        }
        self.mark_dirty(name.clone());
    }

    /// Counts uses of a pool. What went well is stored with the next failure: a crash before it makes the base rate a
    /// little higher.
    pub(crate) fn count_uses(&mut self, name: &Arc<str>, stored: bool, change: impl Fn(&mut Uses)) {
        let revision = Revision(self.revision.0 + 1);
        let Some(pool) = self.pools.get_mut(name) else { return };
        pool.record.count(change);
        if stored {
            pool.revision = revision;
            self.revision = revision;
            self.outbox.pools.insert(name.clone());
        }
    }

    /// Counts the resources of a pool anew, and what lies on them.
    pub(crate) fn reindex_members(&mut self, name: &Arc<str>) {
        let members = self.pools.get(name).map(|pool| pool.members.clone()).unwrap_or_default();
        for id in members {
            self.reindex(id);
            for child in self.children(id) {
                self.reindex(child);
            }
        }
        self.mark_dirty(name.clone());
    }

    /// Whether a pool has no room for more. That it has none is remembered until something may give it some.
    pub(crate) fn has_no_room(&mut self, name: &Arc<str>) -> bool {
        let Some(pool) = self.pools.get(name) else { return true };
        if pool.no_room {
            return true;
        }
        let none = self.room(pool) == 0;
        // A back-off and a rest end by time alone.
        let lasts = none && pool.backoff.until.is_none() && self.rest_of_pool(pool).is_none();
        if let Some(pool) = self.pools.get_mut(name) {
            pool.no_room = lasts;
        }
        none
    }

    /// Has a pool looked at again at this time.
    pub(crate) fn wake_pool(&mut self, name: &Arc<str>, at: Timestamp) {
        self.timers.insert((at, crate::state::timers::Timer::Pool(name.clone())));
    }
}
