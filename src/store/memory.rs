//! The store in memory, for simulation and tests. It has the same rules, keeps nothing durably, and fails on demand.

use super::page::{Trimmed, trim};
use super::row::About;
use super::{
    Changes, CommitError, Epoch, EventQuery, FORGOTTEN_FOR_MS, Forgotten, SeenServer, ServerReport, Store, StoreError,
    StoredEvent, TrailPlace, forgets, numbered,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wharfinger_core::{
    Batch, Event, Lease, LeaseId, Machine, MachineKey, PoolRow, Resource, ResourceId, Revision, Session, SessionId,
    Snapshot, Timestamp,
};

/// A fault of the next commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The commit fails; certainly nothing is stored.
    NotCommitted,
    /// The commit is in doubt, and was not stored.
    InDoubtLost,
    /// The commit is in doubt, and was stored.
    InDoubtStored,
}

/// A store in memory. All clones have the same rows, so a clone survives the server that used another one.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
    hints: Arc<Hints>,
}

/// The hints for followers.
#[derive(Debug)]
struct Hints(watch::Sender<u64>);

impl Default for Hints {
    fn default() -> Self {
        Hints(watch::Sender::new(0))
    }
}

#[derive(Debug, Default)]
struct Data {
    revision: Revision,
    floor: Revision,
    now: Timestamp,
    salt: u16,
    epoch: Epoch,
    leases: BTreeMap<LeaseId, Arc<Lease>>,
    resources: BTreeMap<ResourceId, Arc<Resource>>,
    pools: BTreeMap<Arc<str>, Arc<PoolRow>>,
    machines: BTreeMap<MachineKey, Arc<Machine>>,
    sessions: BTreeMap<SessionId, Arc<Session>>,
    events: Vec<StoredEvent>,
    places: BTreeMap<String, TrailPlace>,
    servers: BTreeMap<String, ServerReport>,
    faults: VecDeque<Fault>,
    forgotten: BTreeMap<Revision, (Timestamp, Forgotten)>,
    feed_floor: Revision,
    /// Every call fails, as if the store were unreachable.
    away: bool,
}

impl MemoryStore {
    /// An empty store, with salt 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store with this salt.
    pub fn with_salt(salt: u16) -> Self {
        let store = Self::default();
        store.data().salt = salt;
        store
    }

    /// Injects a fault. Each commit takes one fault, in the order in which they were injected.
    pub fn inject(&self, fault: Fault) {
        self.data().faults.push_back(fault);
    }

    /// Starts or ends an outage, in which every call fails.
    pub fn cut(&self, away: bool) {
        self.data().away = away;
    }

    /// Loses all commits, as a database that fails over to an empty copy.
    #[cfg(test)]
    pub(crate) fn lose_everything(&self) {
        *self.data() = Data::default();
    }

    fn answering(&self) -> Result<MutexGuard<'_, Data>, StoreError> {
        let data = self.data();
        if data.away {
            return Err(StoreError::Unavailable("the store does not answer, as a test wants it".to_owned()));
        }
        Ok(data)
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        // A poisoned lock is used on: each change is checked before it begins, so a panic leaves none half done.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Store::acquire`] without a future.
    pub fn acquire_now(&self) -> Epoch {
        let mut data = self.data();
        data.epoch.0 += 1;
        data.epoch
    }

    /// [`Store::load`] without a future.
    pub fn load_now(&self) -> Snapshot {
        let data = self.data();
        Snapshot {
            revision: data.revision,
            floor: data.floor,
            now: data.now,
            salt: data.salt,
            leases: data.leases.values().map(|lease| Lease::clone(lease)).collect(),
            resources: data.resources.values().map(|resource| Resource::clone(resource)).collect(),
            pools: data.pools.values().map(|pool| PoolRow::clone(pool)).collect(),
            machines: data.machines.values().map(|machine| Machine::clone(machine)).collect(),
            sessions: data.sessions.values().map(|session| Session::clone(session)).collect(),
        }
    }

    /// [`Store::commit`] without a future.
    ///
    /// # Errors
    /// As of [`Store::commit`], and injected faults.
    pub fn commit_now(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
        let mut data = self.data();
        let fault = data.faults.pop_front();
        let doubt =
            || CommitError::InDoubt(StoreError::Unavailable("an injected fault: the answer was lost".to_owned()));
        match fault {
            Some(Fault::NotCommitted) => {
                return Err(CommitError::NotCommitted(StoreError::Unavailable("an injected fault".to_owned())));
            }
            Some(Fault::InDoubtLost) => return Err(doubt()),
            Some(Fault::InDoubtStored) | None => {}
        }
        if data.epoch != epoch {
            return Err(CommitError::Deposed { current: data.epoch });
        }
        if data.revision != batch.base {
            return Err(CommitError::NotCommitted(StoreError::Corrupt(format!(
                "the store is at revision {}, but the change builds on {}: something else writes to it",
                data.revision, batch.base
            ))));
        }
        numbered(batch).map_err(CommitError::NotCommitted)?;
        data.apply(batch);
        self.hints.0.send_replace(batch.revision.0);
        if fault.is_some() { Err(doubt()) } else { Ok(()) }
    }

    /// [`Store::changes_since`] without a future.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if the rows that were forgotten since are no longer known.
    pub fn changes_now(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        let data = self.answering()?;
        if after < data.feed_floor {
            return Err(StoreError::Compacted { after, floor: data.feed_floor });
        }
        let mut changes = data.changed(after, Revision(u64::MAX));
        changes.revision = data.revision;
        if let Trimmed::Whole(crowded) = trim(&mut changes, limit.max(1)) {
            changes = data.changed(after, crowded);
            changes.more = crowded < data.revision;
            changes.revision = crowded;
        }
        (changes.floor, changes.now) = (data.floor, data.now);
        Ok(changes)
    }

    /// [`Store::events`] without a future.
    pub fn events_now(&self, query: &EventQuery) -> Vec<StoredEvent> {
        let data = self.data();
        let itself = query.itself && query.lease.is_none();
        let of_resource = itself && query.resource.is_some();
        let of_pool = itself && query.resource.is_none() && query.pool.is_some();
        let fits = |event: &&StoredEvent| {
            event.revision > query.after.0
                && query.to.is_none_or(|to| event.revision <= to.0)
                && (!of_resource || event.lease.is_none())
                && (!of_pool || (event.lease.is_none() && event.resource.is_none()))
                && (query.pool.is_none() || event.pool == query.pool)
                && (query.resource.is_none() || event.resource == query.resource)
                && (query.lease.is_none() || event.lease == query.lease)
        };
        if query.newest_first {
            data.events.iter().rev().filter(fits).take(query.capped()).cloned().collect()
        } else {
            data.events.iter().filter(fits).take(query.capped()).cloned().collect()
        }
    }
}

impl Data {
    fn apply(&mut self, batch: &Batch) {
        self.revision = batch.revision;
        self.floor = self.floor.max(batch.floor);
        self.now = self.now.max(batch.now);
        self.leases.extend(batch.leases.iter().map(|lease| (lease.id, lease.clone())));
        self.resources.extend(batch.resources.iter().map(|resource| (resource.id, resource.clone())));
        self.pools.extend(batch.pools.iter().map(|pool| (pool.name.clone(), pool.clone())));
        self.machines.extend(batch.machines.iter().map(|machine| (machine.key.clone(), machine.clone())));
        self.sessions.extend(batch.sessions.iter().map(|session| (session.id, session.clone())));
        for id in &batch.ended_sessions {
            self.sessions.remove(id);
        }
        for id in &batch.forgotten_leases {
            self.leases.remove(id);
        }
        for id in &batch.forgotten_resources {
            self.resources.remove(id);
        }
        self.note_forgotten(batch);
        for event in &batch.events {
            let place = self.events.partition_point(|known| known.revision <= event.revision.0);
            let among = self.events[..place].iter().rev().take_while(|known| known.revision == event.revision.0);
            let ordinal = among.count() as u64;
            self.events.insert(place, stored(event, ordinal));
        }
    }

    fn note_forgotten(&mut self, batch: &Batch) {
        if !forgets(batch) {
            return;
        }
        let old = |at: Timestamp| at.0 < batch.now.0 - FORGOTTEN_FOR_MS;
        let newest = self.forgotten.iter().rev().find(|(_, (at, _))| old(*at)).map(|(revision, _)| *revision);
        self.feed_floor = self.feed_floor.max(newest.unwrap_or_default());
        self.forgotten.retain(|_, (at, _)| !old(*at));
        let forgotten = Forgotten {
            revision: batch.revision,
            leases: batch.forgotten_leases.clone(),
            resources: batch.forgotten_resources.clone(),
            sessions: batch.ended_sessions.clone(),
        };
        self.forgotten.insert(batch.revision, (batch.now, forgotten));
    }

    fn changed(&self, after: Revision, to: Revision) -> Changes {
        let among = |revision: Revision| after < revision && revision <= to;
        let mut changes = Changes {
            leases: self.leases.values().filter(|l| among(l.revision)).map(|l| Lease::clone(l)).collect(),
            resources: self.resources.values().filter(|r| among(r.revision)).map(|r| Resource::clone(r)).collect(),
            pools: self.pools.values().filter(|p| among(p.revision)).map(|p| PoolRow::clone(p)).collect(),
            machines: self.machines.values().filter(|m| among(m.revision)).map(|m| Machine::clone(m)).collect(),
            sessions: self.sessions.values().filter(|s| among(s.revision)).map(|s| Session::clone(s)).collect(),
            forgotten: self
                .forgotten
                .values()
                .filter(|(_, f)| among(f.revision))
                .map(|(_, forgotten)| forgotten.clone())
                .collect(),
            ..Changes::default()
        };
        changes.leases.sort_by_key(|lease| lease.revision);
        changes.resources.sort_by_key(|resource| resource.revision);
        changes.pools.sort_by_key(|pool| pool.revision);
        changes.machines.sort_by_key(|machine| machine.revision);
        changes.sessions.sort_by_key(|session| session.revision);
        changes
    }
}

fn stored(event: &Event, ordinal: u64) -> StoredEvent {
    let about = About::of(event);
    StoredEvent {
        revision: event.revision.0,
        ordinal,
        at_unix_ms: event.at.0,
        kind: event.kind.as_str().to_owned(),
        actor: event.actor.to_string(),
        subject: event.subject.key(),
        pool: about.pool.map(ToString::to_string),
        resource: about.resource,
        lease: about.lease,
        detail: event.detail.to_string(),
        caller: event.caller.clone(),
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn acquire(&self) -> Result<Epoch, StoreError> {
        Ok(self.acquire_now())
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        drop(self.answering()?);
        Ok(self.load_now())
    }

    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
        self.commit_now(batch, epoch)
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        self.changes_now(after, limit)
    }

    fn hints(&self) -> Option<watch::Receiver<u64>> {
        Some(self.hints.0.subscribe())
    }

    async fn current_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        Ok(Some(self.data().epoch))
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        Ok(self.events_now(query))
    }

    async fn trim_events(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let mut data = self.data();
        let old = data.events.iter().take(most).take_while(|event| event.at_unix_ms < before.0).count();
        Ok(data.events.drain(..old).count())
    }

    async fn trail_places(&self) -> Result<Vec<TrailPlace>, StoreError> {
        Ok(self.answering()?.places.values().cloned().collect())
    }

    async fn set_trail_place(&self, place: &TrailPlace) -> Result<(), StoreError> {
        let mut data = self.answering()?;
        let kept = data.places.entry(place.name.clone()).or_insert_with(|| place.clone());
        if (place.revision, place.ordinal) >= (kept.revision, kept.ordinal) {
            kept.clone_from(place);
        }
        Ok(())
    }

    async fn forget_trail_place(&self, name: &str) -> Result<(), StoreError> {
        self.answering()?.places.remove(name);
        Ok(())
    }

    async fn report_server(&self, report: &ServerReport) -> Result<(), StoreError> {
        self.answering()?.servers.insert(report.address.clone(), report.clone());
        Ok(())
    }

    /// It has no clock: each report is of now.
    async fn servers(&self) -> Result<Vec<SeenServer>, StoreError> {
        let seen = |report: &ServerReport| SeenServer { report: report.clone(), silent: Duration::ZERO };
        Ok(self.answering()?.servers.values().map(seen).collect())
    }

    async fn set_deployment_salt(&self, salt: u16) -> Result<(), StoreError> {
        self.data().salt = salt;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::Samples;

    fn batch(base: u64) -> Batch {
        Batch {
            base: Revision(base),
            revision: Revision(base + 1),
            leases: vec![Arc::new(Samples::new(base + 1).lease(0, base + 1))],
            ..Batch::default()
        }
    }

    #[test]
    fn faults_come_one_a_commit_and_in_order() {
        let store = MemoryStore::with_salt(7);
        let epoch = store.acquire_now();
        for fault in [Fault::NotCommitted, Fault::InDoubtLost, Fault::InDoubtStored] {
            store.inject(fault);
        }
        assert!(matches!(store.commit_now(&batch(0), epoch), Err(CommitError::NotCommitted(_))));
        assert_eq!(store.load_now().revision, Revision(0));
        assert!(matches!(store.commit_now(&batch(0), epoch), Err(CommitError::InDoubt(_))));
        assert_eq!(store.load_now().revision, Revision(0));
        assert!(matches!(store.commit_now(&batch(0), epoch), Err(CommitError::InDoubt(_))));
        let found = store.load_now();
        assert_eq!((found.revision, found.leases.len(), found.salt), (Revision(1), 1, 7));
        store.commit_now(&batch(1), epoch).expect("no fault is left");
        assert_eq!(store.clone().load_now().revision, Revision(2), "clones share what is stored");
    }

    #[test]
    fn a_fault_does_not_store_what_is_refused() {
        let store = MemoryStore::new();
        let old = store.acquire_now();
        let new = store.acquire_now();
        store.inject(Fault::InDoubtStored);
        assert!(matches!(store.commit_now(&batch(0), old), Err(CommitError::Deposed { current }) if current == new));
        assert_eq!(store.load_now().revision, Revision(0));
    }
}
