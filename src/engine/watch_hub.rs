//! The watch hub: it offers each committed change to the watchers whose filter matches, with a bounded queue for each.
//!
//! The cost of a publication depends on the watchers that match. The index finds a watcher by session, lease, holder or pool: by the
//! first of these that its filter names; the filter tests the others. A publication visits only the watchers of everything
//! each time. A watcher that does not keep up loses its queue and receives [`WatchEvent::Lagged`] once; it then reads what
//! it missed. The hub never waits: a lock is held for a look-up or a push, never across an await.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use wharfinger_core::{Batch, Lease, LeaseId, Revision, Scope, SessionId};

/// Selects leases for a watcher. Fields are ANDed, the values of one field are ORed. A filter without any selects all leases
/// of its scope.
#[derive(Clone, Debug)]
pub struct Filter {
    /// By what the watcher may see.
    pub scope: Scope,
    /// By id.
    pub leases: BTreeSet<LeaseId>,
    /// By holder.
    pub holders: BTreeSet<Arc<str>>,
    /// By the pool that serves the lease, or by the requested pool while it is queued. A lease that was requested by labels
    /// alone and is queued again belongs to no pool. The watchers of all pools receive it, so that none keeps it by mistake.
    pub pools: BTreeSet<Arc<str>>,
    /// By the session that keeps the lease, or kept it last.
    pub session: Option<SessionId>,
}

impl Filter {
    /// Selects all leases of a scope.
    pub fn new(scope: Scope) -> Self {
        Filter { scope, leases: BTreeSet::new(), holders: BTreeSet::new(), pools: BTreeSet::new(), session: None }
    }

    /// Whether the filter selects a lease.
    pub fn matches(&self, lease: &Lease) -> bool {
        self.scope.sees(lease)
            && (self.session.is_none() || self.session == lease.session)
            && (self.leases.is_empty() || self.leases.contains(&lease.id))
            && (self.holders.is_empty() || self.holders.contains(&lease.spec.holder))
            && (self.pools.is_empty()
                || match pool_of(lease) {
                    Some(pool) => self.pools.contains(pool),
                    None => left_a_pool(lease),
                })
    }
}

/// The pool to which a lease belongs.
fn pool_of(lease: &Lease) -> Option<&Arc<str>> {
    lease.pool.as_ref().or(lease.spec.selector.pool.as_ref())
}

/// Whether a lease without a pool had one before.
fn left_a_pool(lease: &Lease) -> bool {
    lease.attempts > 0 || lease.delays > 0
}

/// A message to a watcher.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A lease changed; this is its latest state.
    Lease(Arc<Lease>),
    /// The watcher was too slow and its queue was dropped. It reads all changes since the last revision that it knows.
    Lagged,
}

/// Distributes committed changes to watchers. Cheap to clone.
#[derive(Clone)]
pub struct WatchHub {
    revision: watch::Sender<Revision>,
    index: Arc<Mutex<Index>>,
}

/// The receiving side of a watch. The watch ends when it is dropped.
pub struct Subscription {
    number: u64,
    watcher: Arc<Watcher>,
    index: Arc<Mutex<Index>>,
}

impl WatchHub {
    /// An empty hub at this revision.
    pub fn new(revision: Revision) -> Self {
        Self { revision: watch::Sender::new(revision), index: Arc::default() }
    }

    /// The latest revision. Every change up to it has been offered to every subscription.
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Starts a watch: from now on the hub offers each matching change. At most `capacity` changes wait unread.
    pub fn subscribe(&self, filter: Filter, capacity: usize) -> Subscription {
        let capacity = capacity.max(1);
        let watcher = Arc::new(Watcher { filter, capacity, queue: Mutex::default(), wake: Notify::new() });
        let number = lock(&self.index).add(&watcher);
        Subscription { number, watcher, index: self.index.clone() }
    }

    /// The number of watchers.
    pub fn watchers(&self) -> usize {
        lock(&self.index).watchers
    }

    /// Offers the changes of a committed batch. Never waits.
    ///
    /// A batch may begin after the end of the one before it: a commit was in doubt, and the recovery found it stored. That
    /// commit was never published, so every watcher receives [`WatchEvent::Lagged`].
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

    /// Advances to this revision without offering changes. Every watcher receives [`WatchEvent::Lagged`].
    pub fn skip(&self, revision: Revision) {
        lock(&self.index).each(Watcher::lag);
        self.advance(revision);
    }

    /// Runs after the offers: a watcher that reads the revision and then finds its queue empty has received all changes up to
    /// that revision.
    fn advance(&self, revision: Revision) {
        self.revision.send_if_modified(|latest| {
            let newer = *latest < revision;
            *latest = revision.max(*latest);
            newer
        });
    }
}

impl Subscription {
    /// Waits for the next message. No message is lost if the future is dropped.
    pub async fn recv(&mut self) -> WatchEvent {
        loop {
            if let Some(event) = self.try_recv() {
                return event;
            }
            // The Notify keeps a wake-up that comes between the check and the wait.
            self.watcher.wake.notified().await;
        }
    }

    /// The next message, if one is queued.
    pub fn try_recv(&mut self) -> Option<WatchEvent> {
        let mut queue = lock(&self.watcher.queue);
        if std::mem::take(&mut queue.lagged) {
            return Some(WatchEvent::Lagged);
        }
        queue.leases.pop_front().map(WatchEvent::Lease)
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
    /// Frees the memory too: a watcher may lag for a long time.
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
                return; // The watcher will read this change too.
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

/// The watchers under one key of the index, by number.
type Watchers = BTreeMap<u64, Arc<Watcher>>;

#[derive(Default)]
struct Index {
    next: u64,
    watchers: usize,
    everything: Watchers,
    by_session: BTreeMap<SessionId, Watchers>,
    by_lease: BTreeMap<LeaseId, Watchers>,
    by_holder: BTreeMap<Arc<str>, Watchers>,
    by_pool: BTreeMap<Arc<str>, Watchers>,
}

/// The key under which the index has a watcher.
enum Key<'a> {
    Session(SessionId),
    Leases(&'a BTreeSet<LeaseId>),
    Holders(&'a BTreeSet<Arc<str>>),
    Pools(&'a BTreeSet<Arc<str>>),
    Everything,
}

/// The most selective kind that the filter names.
fn key(filter: &Filter) -> Key<'_> {
    if let Some(session) = filter.session {
        Key::Session(session)
    } else if !filter.leases.is_empty() {
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
            Key::Session(session) => put(self.by_session.entry(session).or_default()),
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
            Key::Session(session) => take_out(&mut self.by_session, &session, number),
            Key::Leases(ids) => ids.iter().for_each(|id| take_out(&mut self.by_lease, id, number)),
            Key::Holders(names) => names.iter().for_each(|name| take_out(&mut self.by_holder, name, number)),
            Key::Pools(names) => names.iter().for_each(|name| take_out(&mut self.by_pool, name, number)),
            Key::Everything => {
                self.everything.remove(&number);
            }
        }
    }

    fn offer(&self, lease: &Arc<Lease>) {
        let offer = |watchers: &Watchers| watchers.values().for_each(|watcher| watcher.offer(lease));
        offer(&self.everything);
        lease.session.and_then(|session| self.by_session.get(&session)).into_iter().for_each(offer);
        self.by_lease.get(&lease.id).into_iter().for_each(offer);
        self.by_holder.get(&lease.spec.holder).into_iter().for_each(offer);
        if self.by_pool.is_empty() {
            return;
        }
        match pool_of(lease) {
            Some(pool) => self.by_pool.get(pool).into_iter().for_each(offer),
            None if left_a_pool(lease) => {
                // The index has a watcher of several pools under each of them; it receives one offer.
                let all: Watchers = self.by_pool.values().flatten().map(|(n, w)| (*n, w.clone())).collect();
                offer(&all);
            }
            None => {}
        }
    }

    fn each(&self, act: impl Fn(&Watcher)) {
        let keyed = self
            .by_session
            .values()
            .chain(self.by_lease.values())
            .chain(self.by_holder.values())
            .chain(self.by_pool.values());
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

/// A poisoned lock is used on: each change of the data is one call, so a panic leaves none half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
