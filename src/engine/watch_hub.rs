//! Tells committed changes to those who watch them: indexed by what they watch, bounded per watcher.
//!
//! Publishing costs only the interested: a watcher is found by lease, holder or pool (by the first of these that its
//! filter names; the others are tested), and only those that watch everything are visited each time. A watcher that
//! does not keep up loses its queue and is told so once; it then reads what it missed. Nothing here ever waits: the
//! locks are held for a look-up or a push, never across an await.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use wharfinger_core::{Batch, Lease, LeaseId, Revision};

/// Which leases a watcher wants. Filters are ANDed, the values of one filter are ORed; empty: everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By id.
    pub leases: BTreeSet<LeaseId>,
    /// By holder.
    pub holders: BTreeSet<Arc<str>>,
    /// By the pool that serves it, or by the pool asked for while it waits. A lease asked for by labels alone that goes
    /// back to the line is in no pool any more; all pools' watchers are told, so that none keeps it by mistake.
    pub pools: BTreeSet<Arc<str>>,
}

impl Filter {
    /// Whether a lease is wanted.
    pub fn matches(&self, lease: &Lease) -> bool {
        (self.leases.is_empty() || self.leases.contains(&lease.id))
            && (self.holders.is_empty() || self.holders.contains(&lease.spec.holder))
            && (self.pools.is_empty()
                || match pool_of(lease) {
                    Some(pool) => self.pools.contains(pool),
                    None => left_a_pool(lease),
                })
    }
}

/// The pool that a lease counts to.
fn pool_of(lease: &Lease) -> Option<&Arc<str>> {
    lease.pool.as_ref().or(lease.spec.selector.pool.as_ref())
}

/// Whether a lease that is in no pool was in one before.
fn left_a_pool(lease: &Lease) -> bool {
    lease.attempts > 0 || lease.delays > 0
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
    index: Arc<Mutex<Index>>,
}

/// One watcher's end; dropping it ends the watch.
pub struct Subscription {
    number: u64,
    watcher: Arc<Watcher>,
    index: Arc<Mutex<Index>>,
}

impl Hub {
    /// An empty hub at this revision.
    pub fn new(revision: Revision) -> Self {
        Self { revision: watch::Sender::new(revision), index: Arc::default() }
    }

    /// The last revision that was told; every subscription has been offered all up to it.
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Starts to watch: from now on each matching change is offered. At most `capacity` wait unread.
    pub fn subscribe(&self, filter: Filter, capacity: usize) -> Subscription {
        let capacity = capacity.max(1);
        let watcher = Arc::new(Watcher { filter, capacity, queue: Mutex::default(), wake: Notify::new() });
        let number = lock(&self.index).add(&watcher);
        Subscription { number, watcher, index: self.index.clone() }
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        lock(&self.index).watchers
    }

    /// Tells a committed batch. Never waits.
    ///
    /// A batch that does not begin where the last one ended shows that something was committed and never published: a
    /// commit was in doubt, and the recovery found it stored. Then every watcher is told to catch up by reading.
    pub fn publish(&self, batch: &Batch) {
        let gap = batch.base > *self.revision.borrow();
        let index = lock(&self.index);
        if gap {
            index.each(Watcher::lag);
        } else if index.watchers > 0 {
            batch.leases.iter().for_each(|lease| index.offer(lease));
        }
        drop(index);
        self.advance(batch.revision);
    }

    /// What lies between is not told: every watcher has to catch up by reading, to this revision.
    pub fn skip(&self, revision: Revision) {
        lock(&self.index).each(Watcher::lag);
        self.advance(revision);
    }

    /// After the offers: who reads the revision and then finds its queue empty has been told all up to it.
    fn advance(&self, revision: Revision) {
        self.revision.send_if_modified(|told| {
            let newer = *told < revision;
            *told = revision.max(*told);
            newer
        });
    }
}

impl Subscription {
    /// The next change; never ends by itself. Nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Told {
        loop {
            if let Some(told) = self.try_recv() {
                return told;
            }
            // A wake-up between the look and the wait is kept by the Notify, so it can't be missed.
            self.watcher.wake.notified().await;
        }
    }

    /// The next change that is there already.
    pub fn try_recv(&mut self) -> Option<Told> {
        let mut queue = lock(&self.watcher.queue);
        if std::mem::take(&mut queue.lagged) {
            return Some(Told::Lagged);
        }
        queue.leases.pop_front().map(Told::Lease)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.index).remove(self.number, &self.watcher.filter);
    }
}

struct Watcher {
    filter: Filter,
    capacity: usize,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    leases: VecDeque<Arc<Lease>>,
    lagged: bool,
}

impl Queue {
    /// Gives the memory back too: a watcher that lags may do so for long.
    fn lag(&mut self) {
        self.leases = VecDeque::new();
        self.lagged = true;
    }
}

impl Watcher {
    fn lag(&self) {
        lock(&self.queue).lag();
        self.wake.notify_one();
    }

    fn offer(&self, lease: &Arc<Lease>) {
        if !self.filter.matches(lease) {
            return;
        }
        {
            let mut queue = lock(&self.queue);
            if queue.lagged {
                return; // it will read, and finds this too
            }
            if queue.leases.len() >= self.capacity {
                queue.lag();
            } else {
                queue.leases.push_back(lease.clone());
            }
        }
        self.wake.notify_one();
    }
}

/// Those who watch the same thing, by number.
type Watchers = BTreeMap<u64, Arc<Watcher>>;

#[derive(Default)]
struct Index {
    next: u64,
    watchers: usize,
    everything: Watchers,
    by_lease: BTreeMap<LeaseId, Watchers>,
    by_holder: BTreeMap<Arc<str>, Watchers>,
    by_pool: BTreeMap<Arc<str>, Watchers>,
}

/// By what a watcher is found.
enum Key<'a> {
    Leases(&'a BTreeSet<LeaseId>),
    Holders(&'a BTreeSet<Arc<str>>),
    Pools(&'a BTreeSet<Arc<str>>),
    Everything,
}

/// The most selective kind that the filter names.
fn key(filter: &Filter) -> Key<'_> {
    if !filter.leases.is_empty() {
        Key::Leases(&filter.leases)
    } else if !filter.holders.is_empty() {
        Key::Holders(&filter.holders)
    } else if !filter.pools.is_empty() {
        Key::Pools(&filter.pools)
    } else {
        Key::Everything
    }
}

impl Index {
    fn add(&mut self, watcher: &Arc<Watcher>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.watchers += 1;
        let put = |watchers: &mut Watchers| {
            watchers.insert(number, watcher.clone());
        };
        match key(&watcher.filter) {
            Key::Leases(ids) => ids.iter().for_each(|id| put(self.by_lease.entry(*id).or_default())),
            Key::Holders(names) => names.iter().for_each(|name| put(self.by_holder.entry(name.clone()).or_default())),
            Key::Pools(names) => names.iter().for_each(|name| put(self.by_pool.entry(name.clone()).or_default())),
            Key::Everything => put(&mut self.everything),
        }
        number
    }

    fn remove(&mut self, number: u64, filter: &Filter) {
        self.watchers -= 1;
        match key(filter) {
            Key::Leases(ids) => ids.iter().for_each(|id| take_out(&mut self.by_lease, id, number)),
            Key::Holders(names) => names.iter().for_each(|name| take_out(&mut self.by_holder, name, number)),
            Key::Pools(names) => names.iter().for_each(|name| take_out(&mut self.by_pool, name, number)),
            Key::Everything => {
                self.everything.remove(&number);
            }
        }
    }

    fn offer(&self, lease: &Arc<Lease>) {
        let told = |watchers: &Watchers| watchers.values().for_each(|watcher| watcher.offer(lease));
        told(&self.everything);
        self.by_lease.get(&lease.id).into_iter().for_each(told);
        self.by_holder.get(&lease.spec.holder).into_iter().for_each(told);
        if self.by_pool.is_empty() {
            return;
        }
        match pool_of(lease) {
            Some(pool) => self.by_pool.get(pool).into_iter().for_each(told),
            None if left_a_pool(lease) => {
                // A watcher of several pools is found under each: it is told once.
                let all: Watchers = self.by_pool.values().flatten().map(|(n, w)| (*n, w.clone())).collect();
                told(&all);
            }
            None => {}
        }
    }

    fn each(&self, act: impl Fn(&Watcher)) {
        let keyed = self.by_lease.values().chain(self.by_holder.values()).chain(self.by_pool.values());
        keyed.chain([&self.everything]).flat_map(BTreeMap::values).for_each(|watcher| act(watcher));
    }
}

fn take_out<K: Ord>(map: &mut BTreeMap<K, Watchers>, key: &K, number: u64) {
    if let Some(watchers) = map.get_mut(key) {
        watchers.remove(&number);
        if watchers.is_empty() {
            map.remove(key);
        }
    }
}

/// A panic elsewhere leaves nothing half done in here: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
