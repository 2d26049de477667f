//! The contract of a store as tests, which run on each store.

use super::samples::{LEASE_STATES, RESOURCE_STATES, Samples, event};
use super::{CommitError, Epoch, EventQuery, Forgotten, MemoryStore, SqliteStore, Store, StoreError, TrailPlace};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use wharfinger_core::{Batch, Lease, LeaseId, Resource, Revision, Session, Snapshot, Subject, Timestamp};

/// The place of a store's data, so that a test can close the store and open it again.
trait Bench: Sized {
    type Store: Store;
    /// Whether the store gives hints of commits.
    const HINTS: bool = true;
    /// `None` if the test is skipped.
    async fn new() -> Option<Self>;
    async fn open(&self) -> Self::Store;
    async fn close(&self, store: Self::Store);
}

struct OnDisk(TempDir);

impl Bench for OnDisk {
    type Store = SqliteStore;
    const HINTS: bool = false;
    async fn new() -> Option<Self> {
        Some(OnDisk(tempfile::tempdir().unwrap()))
    }
    async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.0.path().join("w.db")).await.unwrap()
    }
    async fn close(&self, store: SqliteStore) {
        store.close().await;
    }
}

struct InMemory(MemoryStore);

impl Bench for InMemory {
    type Store = MemoryStore;
    async fn new() -> Option<Self> {
        Some(InMemory(MemoryStore::new()))
    }
    async fn open(&self) -> MemoryStore {
        self.0.clone()
    }
    async fn close(&self, _store: MemoryStore) {}
}

/// A schema of its own in a real PostgreSQL.
#[cfg(feature = "postgres")]
struct InPostgres(super::PostgresSettings);

#[cfg(feature = "postgres")]
impl Bench for InPostgres {
    type Store = super::PostgresStore;
    async fn new() -> Option<Self> {
        super::postgres::testing::settings().await.map(InPostgres)
    }
    async fn open(&self) -> super::PostgresStore {
        super::PostgresStore::open(&self.0).await.unwrap()
    }
    async fn close(&self, store: super::PostgresStore) {
        store.close().await;
    }
}

/// Runs each scenario on each store.
macro_rules! on_every_store {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name::<super::InMemory>().await })+
        }
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name::<super::OnDisk>().await })+
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[tokio::test] async fn $name() { super::$name::<super::InPostgres>().await })+
        }
    };
}

on_every_store!(
    a_new_store_is_empty,
    every_state_comes_back,
    the_latest_state_wins,
    another_revision_is_refused,
    an_older_epoch_is_refused,
    forgotten_rows_vanish,
    floor_and_time_never_go_back,
    changes_come_in_order_and_in_pages,
    a_crowded_revision_is_told_whole,
    sessions_come_change_and_end,
    changes_go_on_below_the_floor_of_watches,
    what_is_forgotten_is_in_the_changes,
    a_commit_is_hinted_at,
    events_are_found_by_what_they_are_about,
    events_of_a_batch_that_only_forgets_are_kept,
    events_are_limited,
    old_events_are_removed_oldest_first,
    places_of_readers_never_go_back,
    many_rows_in_one_batch,
    a_dropped_commit_leaves_nothing_open,
);

async fn places_of_readers_never_go_back<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let place = |name: &str, revision, ordinal, notes: &str| TrailPlace {
        name: name.into(),
        revision,
        ordinal,
        at_unix_ms: 5,
        notes: notes.into(),
    };
    assert_eq!(store.trail_places().await.unwrap(), []);
    for next in [
        place("b", 7, 1, "{}"),
        place("a", 3, 0, "{\"open\":1}"),
        // The same place with other notes counts; an older one does not.
        place("b", 7, 1, "[1]"),
        place("b", 6, 9, "older"),
        place("b", 7, 0, "older"),
        place("a", 4, 0, "\u{202e} \u{1f980}"),
    ] {
        store.set_trail_place(&next).await.unwrap();
    }
    bench.close(store).await;
    let store = bench.open().await;
    let kept = [place("a", 4, 0, "\u{202e} \u{1f980}"), place("b", 7, 1, "[1]")];
    assert_eq!(store.trail_places().await.unwrap(), kept);
    store.forget_trail_place("a").await.unwrap();
    store.forget_trail_place("nobody").await.unwrap();
    store.set_trail_place(&place("b", 8, 0, "{}")).await.unwrap();
    assert_eq!(store.trail_places().await.unwrap(), [place("b", 8, 0, "{}")]);
    bench.close(store).await;
}

fn snapshot(store: &Snapshot) -> Snapshot {
    let mut sorted = store.clone();
    sorted.leases.sort_by_key(|lease| lease.id);
    sorted.resources.sort_by_key(|resource| resource.id);
    sorted.pools.sort_by(|a, b| a.name.cmp(&b.name));
    sorted.machines.sort_by(|a, b| a.key.cmp(&b.key));
    sorted.sessions.sort_by_key(|session| session.id);
    sorted
}

fn batch(base: u64, revision: u64) -> Batch {
    Batch { base: Revision(base), revision: Revision(revision), now: Timestamp(5000), ..Batch::default() }
}

fn with_leases(base: u64, leases: impl IntoIterator<Item = Lease>) -> Batch {
    let leases: Vec<_> = leases.into_iter().map(Arc::new).collect();
    let revision = leases.iter().map(|lease| lease.revision.0).max().unwrap_or(base);
    Batch { leases, ..batch(base, revision) }
}

async fn a_new_store_is_empty<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let found = store.load().await.unwrap();
    assert_eq!(found, Snapshot { salt: found.salt, ..Snapshot::default() });
    assert!(store.events(&EventQuery { limit: 10, ..EventQuery::default() }).await.unwrap().is_empty());
    let changes = store.changes_since(Revision(0), 10).await.unwrap();
    assert_eq!((changes.revision, changes.more), (Revision(0), false));
}

async fn every_state_comes_back<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(17);
    let mut all = batch(0, 1000);
    for round in 0..20 {
        all.leases.extend((0..LEASE_STATES).map(|s| Arc::new(samples.lease(s, round * 20 + s + 1))));
        all.resources.extend((0..RESOURCE_STATES).map(|s| Arc::new(samples.resource(s, round * 20 + s + 1))));
    }
    all.pools.push(Arc::new(samples.pool("linux", 999)));
    all.pools.push(Arc::new(samples.pool("Grüße \"π\"", 1000)));
    all.machines = (0..30).map(|n| Arc::new(samples.machine(&format!("builder-{n}"), 900 + n))).collect();
    all.sessions = (0..30).map(|n| Arc::new(samples.session(930 + n))).collect();
    all.floor = Revision(3);
    store.commit(&all, epoch).await.unwrap();

    let before = store.load().await.unwrap();
    let expected = Snapshot {
        revision: Revision(1000),
        floor: Revision(3),
        now: Timestamp(5000),
        salt: before.salt,
        leases: all.leases.iter().map(|l| Lease::clone(l)).collect(),
        resources: all.resources.iter().map(|r| Resource::clone(r)).collect(),
        pools: all.pools.iter().map(|p| wharfinger_core::PoolRow::clone(p)).collect(),
        machines: all.machines.iter().map(|m| wharfinger_core::Machine::clone(m)).collect(),
        sessions: all.sessions.iter().map(|s| Session::clone(s)).collect(),
    };
    assert_eq!(snapshot(&before), snapshot(&expected));

    bench.close(store).await;
    let again = bench.open().await;
    assert_eq!(snapshot(&again.load().await.unwrap()), snapshot(&expected), "after it was opened again");
    assert_eq!(again.acquire().await.unwrap(), Epoch(epoch.0 + 1), "the epoch goes on");
}

async fn the_latest_state_wins<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(4);
    let first = samples.lease(0, 1);
    store.commit(&with_leases(0, [first.clone()]), epoch).await.unwrap();
    let mut base = 1;
    for state in 0..LEASE_STATES {
        let other = samples.lease(state, base + 1);
        let now = Lease { id: first.id, ..other };
        store.commit(&with_leases(base, [now.clone()]), epoch).await.unwrap();
        assert_eq!(store.load().await.unwrap().leases, [now]);
        base += 1;
    }
    let resource = samples.resource(0, base + 1);
    let id = resource.id;
    store.commit(&Batch { resources: vec![Arc::new(resource)], ..batch(base, base + 1) }, epoch).await.unwrap();
    let resource = Resource { id, ..samples.resource(8, base + 2) };
    let later = Batch { resources: vec![Arc::new(resource.clone())], ..batch(base + 1, base + 2) };
    store.commit(&later, epoch).await.unwrap();
    assert_eq!(store.load().await.unwrap().resources, [resource]);
}

async fn another_revision_is_refused<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(5);
    store.commit(&with_leases(0, [samples.lease(0, 1)]), epoch).await.unwrap();
    let before = store.load().await.unwrap();
    for base in [0, 2] {
        let refused = store.commit(&with_leases(base, [samples.lease(0, 3)]), epoch).await;
        assert!(matches!(refused, Err(CommitError::NotCommitted(StoreError::Corrupt(_)))), "{refused:?}");
    }
    assert_eq!(store.load().await.unwrap(), before);
    store.commit(&with_leases(1, [samples.lease(0, 2)]), epoch).await.expect("the store goes on");
}

async fn an_older_epoch_is_refused<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let old = store.acquire().await.unwrap();
    let mut samples = Samples::new(6);
    store.commit(&with_leases(0, [samples.lease(0, 1)]), old).await.unwrap();
    let new = store.acquire().await.unwrap();
    assert!(new > old);
    let before = store.load().await.unwrap();
    match store.commit(&with_leases(1, [samples.lease(0, 2)]), old).await {
        Err(CommitError::Deposed { current }) => assert_eq!(current, new),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.load().await.unwrap(), before);
    store.commit(&with_leases(1, [samples.lease(0, 2)]), new).await.unwrap();
}

async fn forgotten_rows_vanish<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(7);
    let leases: Vec<Lease> = (1..=5).map(|n| samples.lease(3, n)).collect();
    let resources: Vec<_> = (1..=3).map(|n| Arc::new(samples.resource(8, n))).collect();
    let first = Batch { resources: resources.clone(), ..with_leases(0, leases.clone()) };
    store.commit(&first, epoch).await.unwrap();
    let forget = Batch {
        forgotten_leases: vec![leases[0].id, leases[3].id, LeaseId::new(1)],
        forgotten_resources: vec![resources[1].id],
        floor: Revision(4),
        ..batch(5, 6)
    };
    let unnumbered = Batch { revision: Revision(5), ..forget.clone() };
    let refused = store.commit(&unnumbered, epoch).await;
    assert!(matches!(refused, Err(CommitError::NotCommitted(StoreError::Corrupt(_)))), "{refused:?}");
    store.commit(&forget, epoch).await.unwrap();
    let found = snapshot(&store.load().await.unwrap());
    let kept = |ids: &[usize]| {
        let mut kept: Vec<LeaseId> = ids.iter().map(|n| leases[*n].id).collect();
        kept.sort();
        kept
    };
    assert_eq!(found.leases.iter().map(|l| l.id).collect::<Vec<_>>(), kept(&[1, 2, 4]));
    assert_eq!(found.resources.len(), 2);
    assert_eq!((found.revision, found.floor), (Revision(6), Revision(4)));
}

/// A batch that forgets these rows at this time.
fn forgetting(base: u64, now: i64, leases: &[LeaseId]) -> Batch {
    Batch { forgotten_leases: leases.to_vec(), now: Timestamp(now), ..batch(base, base + 1) }
}

async fn what_is_forgotten_is_in_the_changes<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(21);
    let leases: Vec<Lease> = (1..=6).map(|n| samples.lease(3, n)).collect();
    let ids: Vec<LeaseId> = leases.iter().map(|lease| lease.id).collect();
    let resource = Arc::new(samples.resource(8, 6));
    let first = Batch { resources: vec![resource.clone()], ..with_leases(0, leases.clone()) };
    store.commit(&first, epoch).await.unwrap();
    let forget = Batch { forgotten_resources: vec![resource.id], ..forgetting(6, 7000, &ids[..2]) };
    store.commit(&forget, epoch).await.unwrap();
    store.commit(&with_leases(7, [samples.lease(0, 8)]), epoch).await.unwrap();
    store.commit(&forgetting(8, 8000, &ids[2..3]), epoch).await.unwrap();

    let told = |revision, leases: &[LeaseId], resources| Forgotten {
        revision: Revision(revision),
        leases: leases.to_vec(),
        resources,
        sessions: Vec::new(),
    };
    let both = vec![told(7, &ids[..2], vec![resource.id]), told(9, &ids[2..3], vec![])];
    let all = store.changes_since(Revision(0), 100).await.unwrap();
    assert_eq!((all.revision, all.leases.len(), all.resources.len()), (Revision(9), 4, 0));
    assert_eq!(all.forgotten, both);
    assert_eq!((all.floor, all.now), (Revision(0), Timestamp(8000)));
    let mut seen = Vec::new();
    let mut after = Revision(6);
    loop {
        let page = store.changes_since(after, 1).await.unwrap();
        assert!(page.leases.len() + page.forgotten.len() <= 1 && page.revision > after, "{page:?}");
        seen.extend(page.forgotten);
        after = page.revision;
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, after), (both.clone(), Revision(9)));
    assert_eq!(store.changes_since(Revision(7), 100).await.unwrap().forgotten, both[1..]);

    // Much later another row is forgotten, and the rows that were forgotten before are no longer known.
    let later = 8000 + crate::store::FORGOTTEN_FOR_MS;
    store.commit(&forgetting(9, later, &ids[3..4]), epoch).await.unwrap();
    let refused = store.changes_since(Revision(6), 100).await;
    assert!(matches!(refused, Err(StoreError::Compacted { after: Revision(6), floor: Revision(7) })), "{refused:?}");
    let rest = store.changes_since(Revision(7), 100).await.unwrap();
    assert_eq!(rest.forgotten, [told(9, &ids[2..3], vec![]), told(10, &ids[3..4], vec![])]);
    store.commit(&forgetting(10, later + 1, &ids[4..5]), epoch).await.unwrap();
    assert!(store.changes_since(Revision(8), 100).await.is_err(), "9 is not known any more");
    assert_eq!(store.changes_since(Revision(9), 100).await.unwrap().forgotten.len(), 2);
    bench.close(store).await;
    let again = bench.open().await;
    assert!(again.changes_since(Revision(8), 100).await.is_err());
    assert_eq!(again.changes_since(Revision(9), 100).await.unwrap().forgotten.len(), 2);
}

async fn a_commit_is_hinted_at<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let Some(mut hints) = store.hints() else { return assert!(!B::HINTS, "this kind of store gives hints") };
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(22);
    // The start of the listener is not known. From then on each commit gives a hint.
    for n in 1..=3 {
        let mut tries = 0;
        loop {
            hints.mark_unchanged();
            let base = store.load().await.unwrap().revision.0;
            store.commit(&with_leases(base, [samples.lease(0, base + 1)]), epoch).await.unwrap();
            if tokio::time::timeout(Duration::from_millis(500), hints.changed()).await.is_ok() {
                break;
            }
            tries += 1;
            assert!(tries < 40, "commit {n} was never hinted at");
        }
    }
}

async fn floor_and_time_never_go_back<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    store.commit(&Batch { floor: Revision(3), now: Timestamp(900), ..batch(0, 4) }, epoch).await.unwrap();
    store.commit(&Batch { floor: Revision(1), now: Timestamp(100), ..batch(4, 5) }, epoch).await.unwrap();
    let found = store.load().await.unwrap();
    assert_eq!((found.revision, found.floor, found.now), (Revision(5), Revision(3), Timestamp(900)));
}

async fn changes_come_in_order_and_in_pages<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(8);
    // Revisions 1 to 30: two of three are leases, then resources; 31 is a pool; 29 and 31 are machines too; 32 changes the lease of 1 again.
    let mut all = batch(0, 31);
    for n in 1..=30 {
        if n % 3 == 0 {
            all.resources.push(Arc::new(samples.resource(1, n)));
        } else {
            all.leases.push(Arc::new(samples.lease(0, n)));
        }
    }
    all.pools.push(Arc::new(samples.pool("linux", 31)));
    all.machines.push(Arc::new(samples.machine("builder-1", 31)));
    all.machines.push(Arc::new(samples.machine("builder-2", 29)));
    store.commit(&all, epoch).await.unwrap();
    let again = Lease { revision: Revision(32), ..Lease::clone(&all.leases[0]) };
    store.commit(&with_leases(31, [again]), epoch).await.unwrap();

    let whole = store.changes_since(Revision(0), 1000).await.unwrap();
    assert_eq!((whole.revision, whole.more), (Revision(32), false));
    assert_eq!((whole.leases.len(), whole.resources.len(), whole.pools.len(), whole.machines.len()), (20, 10, 1, 2));
    assert!(whole.leases.is_sorted_by_key(|l| l.revision) && whole.resources.is_sorted_by_key(|r| r.revision));
    assert_eq!(whole.leases.last().unwrap().id, all.leases[0].id);

    for limit in [1, 2, 7, 30, 31] {
        let mut after = Revision(0);
        let (mut seen, mut machines) = (Vec::new(), 0);
        loop {
            let page = store.changes_since(after, limit).await.unwrap();
            machines += page.machines.len();
            let rows = (page.leases.iter().map(|l| l.revision.0))
                .chain(page.resources.iter().map(|r| r.revision.0))
                .chain(page.pools.iter().map(|p| p.revision.0));
            let mut rows: Vec<u64> = rows.collect();
            assert!(rows.len() <= limit);
            rows.sort_unstable();
            assert!(rows.iter().all(|n| *n > after.0 && *n <= page.revision.0));
            seen.extend(rows);
            if !page.more {
                assert_eq!(page.revision, Revision(32));
                break;
            }
            assert!(page.revision > after, "no progress");
            after = page.revision;
        }
        assert_eq!(seen, (2..=32).collect::<Vec<_>>(), "limit {limit}");
        assert_eq!(machines, 2, "limit {limit}");
    }
    let none = store.changes_since(Revision(32), 5).await.unwrap();
    assert_eq!((none.revision, none.more, none.leases.len()), (Revision(32), false, 0));
}

async fn sessions_come_change_and_end<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(22);
    let sessions: Vec<Arc<Session>> = (1..=3).map(|n| Arc::new(samples.session(n))).collect();
    store.commit(&Batch { sessions: sessions.clone(), ..batch(0, 3) }, epoch).await.unwrap();
    let resumed = Arc::new(Session { stream: 9, doubt: None, revision: Revision(4), ..Session::clone(&sessions[0]) });
    let ended = Batch { sessions: vec![resumed.clone()], ended_sessions: vec![sessions[1].id], ..batch(3, 5) };
    let unnumbered = Batch { revision: Revision(3), ..ended.clone() };
    let refused = store.commit(&unnumbered, epoch).await;
    assert!(matches!(refused, Err(CommitError::NotCommitted(StoreError::Corrupt(_)))), "{refused:?}");
    store.commit(&ended, epoch).await.unwrap();
    bench.close(store).await;
    let store = bench.open().await;
    let mut kept = vec![Session::clone(&resumed), Session::clone(&sessions[2])];
    kept.sort_by_key(|session| session.id);
    assert_eq!(snapshot(&store.load().await.unwrap()).sessions, kept);
    let all = store.changes_since(Revision(0), 100).await.unwrap();
    assert_eq!(all.sessions, [Session::clone(&sessions[2]), Session::clone(&resumed)], "by revision");
    let gone = Forgotten { revision: Revision(5), sessions: vec![sessions[1].id], ..Forgotten::default() };
    assert_eq!(all.forgotten, std::slice::from_ref(&gone));
    let (mut after, mut seen) = (Revision(0), Vec::new());
    loop {
        let page = store.changes_since(after, 1).await.unwrap();
        assert!(page.sessions.len() + page.forgotten.len() <= 1, "{page:?}");
        seen.extend(page.sessions.iter().map(|session| session.id));
        after = page.revision;
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, after), (vec![sessions[2].id, resumed.id], Revision(5)));
    assert_eq!(store.changes_since(Revision(4), 100).await.unwrap().forgotten, [gone]);
    bench.close(store).await;
}

async fn a_crowded_revision_is_told_whole<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(9);
    let mut all = with_leases(0, (0..10).map(|_| samples.lease(5, 2)));
    all.leases.push(Arc::new(samples.lease(0, 3)));
    all.resources.push(Arc::new(samples.resource(8, 2)));
    all.revision = Revision(3);
    store.commit(&all, epoch).await.unwrap();
    let page = store.changes_since(Revision(0), 4).await.unwrap();
    assert_eq!((page.leases.len(), page.resources.len()), (10, 1));
    assert_eq!((page.revision, page.more), (Revision(2), true));
    let page = store.changes_since(page.revision, 4).await.unwrap();
    assert_eq!((page.leases.len(), page.revision, page.more), (1, Revision(3), false));
}

async fn changes_go_on_below_the_floor_of_watches<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    store.commit(&Batch { floor: Revision(7), ..batch(0, 9) }, epoch).await.unwrap();
    let changes = store.changes_since(Revision(6), 5).await.unwrap();
    assert_eq!((changes.revision, changes.floor), (Revision(9), Revision(7)));
}

async fn events_are_found_by_what_they_are_about<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(10);
    let (lease, other) = (samples.lease(0, 1).id, samples.lease(0, 1).id);
    let resource = samples.resource(1, 1).id;
    let mut all = batch(0, 9);
    all.events.push(event(1, Subject::Pool(Arc::from("linux"))));
    let mut granted = event(2, Subject::Lease(lease));
    (granted.pool, granted.resource) = (Some(Arc::from("linux")), Some(resource));
    all.events.push(granted);
    let mut doubted = event(2, Subject::Resource(resource));
    doubted.pool = Some(Arc::from("linux"));
    all.events.push(doubted);
    all.events.push(event(5, Subject::Lease(lease)));
    all.events.push(event(9, Subject::Lease(other)));
    store.commit(&all, epoch).await.unwrap();

    let query = EventQuery { limit: 100, ..EventQuery::default() };
    let revisions = async |query: EventQuery| {
        let found = store.events(&query).await.unwrap();
        found.iter().map(|event| event.revision).collect::<Vec<_>>()
    };
    assert_eq!(revisions(query.clone()).await, [1, 2, 2, 5, 9]);
    assert_eq!(revisions(EventQuery { newest_first: true, limit: 2, ..query.clone() }).await, [9, 5]);
    assert_eq!(revisions(EventQuery { after: Revision(2), ..query.clone() }).await, [5, 9]);
    let of_pool = EventQuery { pool: Some("linux".to_owned()), ..query.clone() };
    assert_eq!(revisions(of_pool.clone()).await, [1, 2, 2]);
    assert_eq!(revisions(EventQuery { resource: Some(resource), ..query.clone() }).await, [2, 2]);
    let of_lease = EventQuery { lease: Some(lease), ..query.clone() };
    assert_eq!(revisions(of_lease.clone()).await, [2, 5]);
    assert_eq!(revisions(EventQuery { newest_first: true, ..of_lease.clone() }).await, [5, 2]);
    assert_eq!(revisions(EventQuery { after: Revision(2), ..of_lease.clone() }).await, [5]);
    assert_eq!(revisions(EventQuery { to: Some(Revision(2)), ..of_lease.clone() }).await, [2]);
    let window = EventQuery { after: Revision(1), to: Some(Revision(5)), ..query.clone() };
    assert_eq!(revisions(window.clone()).await, [2, 2, 5]);
    assert_eq!(revisions(EventQuery { newest_first: true, limit: 1, ..window }).await, [5]);
    let itself = EventQuery { itself: true, resource: Some(resource), ..query.clone() };
    let found = store.events(&itself).await.unwrap();
    assert_eq!(found.iter().map(|e| (e.revision, e.ordinal, e.lease)).collect::<Vec<_>>(), [(2, 1, None)]);
    assert_eq!(revisions(EventQuery { itself: true, ..of_pool.clone() }).await, [1]);
    assert_eq!(revisions(EventQuery { itself: true, ..of_lease.clone() }).await, [2, 5], "a lease has nothing in it");
    let elsewhere = EventQuery { pool: Some("windows".to_owned()), ..itself };
    assert!(revisions(elsewhere).await.is_empty());
    let both = EventQuery { pool: Some("linux".to_owned()), lease: Some(lease), ..query.clone() };
    assert_eq!(revisions(both).await, [2]);
    assert!(revisions(EventQuery { pool: Some("windows".to_owned()), ..query.clone() }).await.is_empty());

    let one = &store.events(&of_lease).await.unwrap()[0];
    assert_eq!((one.at_unix_ms, &*one.kind, &*one.actor), (1002, "lease.active", "ann"));
    assert_eq!((one.subject.clone(), one.pool.as_deref()), (lease.to_string(), Some("linux")));
    assert_eq!((one.resource, one.lease, &*one.detail), (Some(resource), Some(lease), "entry of 2"));
}

async fn events_of_a_batch_that_only_forgets_are_kept<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let pool = |n: u64, detail: &str| {
        let mut event = event(n, Subject::Pool(Arc::from("linux")));
        event.detail = Arc::from(detail);
        event
    };
    store.commit(&Batch { events: vec![pool(1, "a"), pool(1, "b")], ..batch(0, 1) }, epoch).await.unwrap();
    store.commit(&Batch { events: vec![pool(1, "c"), pool(1, "d")], ..batch(1, 1) }, epoch).await.unwrap();
    store.commit(&Batch { events: vec![pool(1, "e"), pool(2, "f")], ..batch(1, 2) }, epoch).await.unwrap();
    let found = store.events(&EventQuery { limit: 10, ..EventQuery::default() }).await.unwrap();
    assert_eq!(found.iter().map(|event| &*event.detail).collect::<String>(), "abcdef");
    assert_eq!(found.iter().map(|event| event.ordinal).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 0]);
}

async fn events_are_limited<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let events = (1..=10_050).map(|n| event(n, Subject::Pool(Arc::from("linux")))).collect();
    store.commit(&Batch { events, ..batch(0, 10_050) }, epoch).await.unwrap();
    for (limit, found) in [(0, 1), (1, 1), (17, 17), (usize::MAX, 10_000)] {
        let query = EventQuery { limit, ..EventQuery::default() };
        assert_eq!(store.events(&query).await.unwrap().len(), found, "limit {limit}");
    }
}

/// More rows than a statement has places for, with each remainder.
async fn old_events_are_removed_oldest_first<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    assert_eq!(store.trim_events(Timestamp(i64::MAX), 10).await.unwrap(), 0, "there are none");
    // Revisions 1 to 6, at 1000 to 6000, with two entries each.
    for revision in 1..=6 {
        let mut batch = batch(revision - 1, revision);
        batch.now = Timestamp(i64::try_from(revision).unwrap() * 1000);
        for _ in 0..2 {
            let mut entry = event(revision, Subject::Pool("p".into()));
            entry.at = batch.now;
            batch.events.push(entry);
        }
        store.commit(&batch, epoch).await.unwrap();
    }
    let left = async || -> Vec<u64> {
        let query = EventQuery { limit: 100, ..EventQuery::default() };
        store.events(&query).await.unwrap().iter().map(|event| event.revision).collect()
    };
    assert_eq!(store.trim_events(Timestamp(4000), 2).await.unwrap(), 2, "so many at once");
    assert_eq!(left().await, [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
    assert_eq!(store.trim_events(Timestamp(4000), 100).await.unwrap(), 4, "up to that time");
    assert_eq!(left().await, [4, 4, 5, 5, 6, 6]);
    assert_eq!(store.trim_events(Timestamp(4000), 100).await.unwrap(), 0);
    bench.close(store).await;
}

async fn many_rows_in_one_batch<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let epoch = store.acquire().await.unwrap();
    let mut samples = Samples::new(11);
    let (mut base, mut total) = (0, 0);
    for size in [1, 2, 3, 5, 15, 16, 17, 63, 64, 65, 85, 1500] {
        let to = base + size;
        let mut all = with_leases(base, (base + 1..=to).map(|n| samples.lease(n % LEASE_STATES, n)));
        all.resources = (base + 1..=to).map(|n| Arc::new(samples.resource(n % RESOURCE_STATES, n))).collect();
        all.events = (base + 1..=to).map(|n| event(n, Subject::Pool(Arc::from("linux")))).collect();
        store.commit(&all, epoch).await.unwrap();
        base = to;
        total += size as usize;
        let found = store.load().await.unwrap();
        assert_eq!((found.leases.len(), found.resources.len(), found.revision), (total, total, Revision(to)));
        let changes = store.changes_since(Revision(to - size), usize::MAX).await.unwrap();
        assert!(changes.leases.iter().eq(all.leases.iter().map(|l| &**l)));
        assert!(changes.resources.iter().eq(all.resources.iter().map(|r| &**r)));
    }
}

async fn a_dropped_commit_leaves_nothing_open<B: Bench>() {
    let Some(bench) = B::new().await else { return };
    let store = bench.open().await;
    let mut samples = Samples::new(12);
    let mut revision = 0;
    let (mut stored, mut lost) = (0, 0);
    for round in 0..40_u64 {
        let epoch = store.acquire().await.unwrap();
        let dropped = with_leases(revision, [samples.lease(0, revision + 1)]);
        {
            // The round sets the number of polls; then the commit is dropped.
            let mut commit = store.commit(&dropped, epoch);
            for _ in 0..round % 8 {
                if futures::poll!(&mut commit).is_ready() {
                    break;
                }
                tokio::time::sleep(Duration::from_micros(50 * (round % 5))).await;
            }
        }
        // The next write waits for the dropped commit, so its fate is certain afterwards.
        let epoch = store.acquire().await.unwrap();
        let found = store.load().await.unwrap().revision.0;
        assert!(found == revision || found == revision + 1);
        if found == revision {
            lost += 1
        } else {
            stored += 1
        }
        let next = with_leases(found, [samples.lease(0, found + 1)]);
        store.commit(&next, epoch).await.unwrap();
        revision = found + 1;
        assert_eq!(store.load().await.unwrap().leases.len() as u64, revision);
    }
    // A round without polls loses its commit; a round with enough polls stores it.
    assert!(lost > 0 && stored > 0, "both happen: {stored} stored, {lost} lost");
}
