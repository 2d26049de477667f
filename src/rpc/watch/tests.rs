use super::*;
use crate::engine::{SubmitError, WatchHub};
use crate::rpc::source::Page;
use crate::rpc::testing::{active, queued, released};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;
use tonic::Code;
use tonic_types::StatusExt;
use wharfinger_core::{Batch, Reading, Scope};

/// Happens after a read and before the next.
type Between = Box<dyn FnOnce(&World) + Send>;

/// A broker's leases, read in pages of two.
#[derive(Clone)]
struct World {
    hub: WatchHub,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    leases: BTreeMap<LeaseId, Arc<Lease>>,
    revision: u64,
    floor: u64,
    between: VecDeque<Between>,
}

impl World {
    fn new() -> Self {
        Self { hub: WatchHub::new(Revision(0)), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// One batch: each lease changes once.
    fn commit(&self, leases: &[fn(u128, u64) -> Lease], ids: &[u128]) {
        let mut batch = Batch::default();
        {
            let mut state = self.state();
            for (make, id) in leases.iter().zip(ids) {
                state.revision += 1;
                let lease = Arc::new(make(*id, state.revision));
                state.leases.insert(lease.id, lease.clone());
                batch.leases.push(lease);
            }
            batch.revision = Revision(state.revision);
        }
        self.hub.publish(&batch);
    }

    fn change(&self, make: fn(u128, u64) -> Lease, id: u128) {
        self.commit(&[make], &[id]);
    }

    fn between(&self, happens: impl FnOnce(&World) + Send + 'static) {
        self.state().between.push_back(Box::new(happens));
    }

    fn watch(&self, from: u64) -> Watcher {
        self.watch_some(from, Filter::new(Scope::All), Duration::from_secs(3600))
    }

    fn watch_some(&self, from: u64, filter: Filter, bookmarks: Duration) -> Watcher {
        self.watch_as(None, from, filter, bookmarks)
    }

    fn watch_as(&self, owner: Option<&str>, from: u64, filter: Filter, bookmarks: Duration) -> Watcher {
        let (out, told) = mpsc::channel(CHANNEL);
        let stop = CancellationToken::new();
        let (owner, min) = (owner.map(Caller::sole_tenant), Revision(0));
        let asked = Watching { filter, owner, from: Revision(from), include_ended: false, min, bookmarks };
        let task = tokio::spawn(run(self.clone(), asked, out, stop.clone(), std::future::pending()));
        Watcher { told, stop, task }
    }
}

impl Source for World {
    async fn refresh(&self) -> Result<(), SubmitError> {
        Ok(())
    }

    async fn reach(&self, wanted: Revision) -> Result<(), SubmitError> {
        Err(SubmitError::Future { have: Revision(self.state().revision), wanted })
    }

    fn reading(&self) -> Reading {
        Reading::default()
    }

    fn as_of(&self) -> Result<SystemTime, SubmitError> {
        Ok(crate::clock::wall())
    }

    fn hub(&self) -> &WatchHub {
        &self.hub
    }

    async fn tell(&self, lease: &Lease, caller: &Caller) -> Result<pb::Lease, SubmitError> {
        let mut told = tell_lease(lease, &caller.sees, Reading::default());
        if caller.owns(&lease.spec) {
            told.credentials = Some(pb::Credentials { private_key: "secret".into() });
        }
        Ok(told)
    }

    async fn page(&self, from: Cursor, filter: Arc<Filter>, ended: bool) -> Result<Page, SubmitError> {
        const SIZE: usize = 2;
        let (page, happens) = {
            let mut state = self.state();
            let mut found: Vec<_> = state.leases.values().cloned().collect();
            match from {
                Cursor::State(after) => {
                    found.retain(|l| Some(l.id) > after && filter.matches(l) && (ended || !l.ended()));
                }
                Cursor::Changes(after) => {
                    found.retain(|l| l.revision > after && filter.matches(l));
                    found.sort_by_key(|l| l.revision);
                }
            }
            let more = found.len() > SIZE;
            found.truncate(SIZE);
            let next = found.last().filter(|_| more).map(|last| match from {
                Cursor::State(_) => Cursor::State(Some(last.id)),
                Cursor::Changes(_) => Cursor::Changes(last.revision),
            });
            let missing = filter.leases.iter().find(|id| !state.leases.contains_key(id)).copied();
            let (revision, floor) = (Revision(state.revision), Revision(state.floor));
            (Page { leases: found, missing, next, revision, floor }, state.between.pop_front())
        };
        if let Some(happens) = happens {
            happens(self);
        }
        Ok(page)
    }
}

struct Watcher {
    told: mpsc::Receiver<Message>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A response in short.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Short {
    /// The lease's number, its revision, the response's.
    Lease(u128, u64, u64),
    Synced(u64),
    Bookmark(u64),
}
use Short::{Bookmark, Synced};

impl Watcher {
    async fn next(&mut self) -> Result<Short, Status> {
        let response = self.told.recv().await.expect("the watch goes on")?;
        Ok(match response.event.unwrap() {
            pb::watch_response::Event::Lease(lease) => {
                Short::Lease(lease.id.parse::<LeaseId>().unwrap().value(), lease.revision, response.revision)
            }
            pb::watch_response::Event::Bookmark(mark) if mark.synced => Synced(response.revision),
            pb::watch_response::Event::Bookmark(_) => Bookmark(response.revision),
        })
    }

    async fn take(&mut self, count: usize) -> Vec<Short> {
        let mut told = Vec::new();
        for _ in 0..count {
            told.push(self.next().await.unwrap());
        }
        told
    }

    async fn error(mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

fn told(id: u128, revision: u64, safe: u64) -> Short {
    Short::Lease(id, revision, safe)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn first_the_current_state_then_a_bookmark_then_each_change() {
    let world = World::new();
    world.change(released, 1);
    world.commit(&[queued, active, queued], &[2, 3, 4]);
    let mut watcher = world.watch(0);

    assert_eq!(watcher.take(4).await, [told(2, 2, 0), told(3, 3, 0), told(4, 4, 0), Synced(4)]);
    world.commit(&[active, released], &[2, 3]);
    assert_eq!(watcher.take(2).await, [told(2, 5, 5), told(3, 6, 6)]);
}

#[tokio::test]
async fn a_change_between_two_pages_is_neither_missed_nor_sent_backwards() {
    let world = World::new();
    world.commit(&[queued, queued, queued, queued], &[1, 2, 3, 4]);
    // After the first page: one that was sent, one that will be read in its new state, one that is new.
    world.between(|world| {
        world.change(active, 1);
        world.change(active, 3);
        world.change(released, 3);
        world.change(queued, 5);
    });
    world.between(|_| ());
    let mut watcher = world.watch(0);

    // Lease 3 ended before its page: it is not in it, but its change is sent.
    let state = [told(1, 1, 0), told(2, 2, 0), told(4, 4, 0), told(5, 8, 0), Synced(4)];
    assert_eq!(watcher.take(5).await, state);
    // The change of lease 5 was sent with the page.
    world.change(queued, 6);
    assert_eq!(watcher.take(4).await, [told(1, 5, 5), told(3, 6, 6), told(3, 7, 7), told(6, 9, 9)]);
}

#[tokio::test]
async fn a_later_state_from_a_page_is_not_followed_by_an_earlier_one() {
    let world = World::new();
    world.commit(&[queued, queued, queued], &[1, 2, 3]);
    world.between(|world| {
        world.change(active, 3);
        world.change(active, 3);
    });
    let mut watcher = world.watch(0);

    assert_eq!(watcher.take(4).await, [told(1, 1, 0), told(2, 2, 0), told(3, 5, 0), Synced(3)]);
    world.change(released, 3);
    assert_eq!(watcher.take(1).await, [told(3, 6, 6)]);
}

#[tokio::test]
async fn resuming_tells_what_changed_since_also_what_ended() {
    let world = World::new();
    world.commit(&[active, active, active], &[1, 2, 3]);
    world.commit(&[released, queued, active], &[2, 4, 5]);
    let mut watcher = world.watch(3);

    assert_eq!(watcher.take(4).await, [told(2, 4, 4), told(4, 5, 5), told(5, 6, 6), Synced(6)]);
    world.change(released, 1);
    assert_eq!(watcher.take(1).await, [told(1, 7, 7)]);
}

#[tokio::test]
async fn a_revision_that_is_not_kept_or_never_was_is_out_of_range() {
    let world = World::new();
    world.commit(&[active as _; 9], &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    world.state().floor = 5;

    let old = world.watch(4).error().await;
    assert_eq!((old.code(), reason(&old).as_str()), (Code::OutOfRange, "REVISION_TOO_OLD"));
    assert_eq!(old.get_details_error_info().unwrap().metadata["oldest_revision"], "5");
    let future = world.watch(10).error().await;
    assert_eq!((future.code(), reason(&future).as_str()), (Code::OutOfRange, "REVISION_FROM_THE_FUTURE"));
    let mut edges = (world.watch(5), world.watch(9));
    assert_eq!(edges.0.next().await.unwrap(), told(6, 6, 6));
    assert_eq!(edges.1.next().await.unwrap(), Synced(9));
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_is_caught_up() {
    let world = World::new();
    let mut watcher = world.watch(0);
    assert_eq!(watcher.next().await.unwrap(), Synced(0));

    // More than its queue and its channel hold, of 300 leases, each of which ends.
    let ids = 1..=300u128;
    ids.clone().for_each(|id| world.change(active, id));
    tokio::task::yield_now().await;
    ids.clone().for_each(|id| world.change(released, id));

    let mut last = BTreeMap::new();
    let mut safe = 0;
    while last.values().filter(|revision| **revision > 300).count() < 300 {
        let Short::Lease(id, revision, resume) = watcher.next().await.unwrap() else { panic!() };
        assert!(last.insert(id, revision).is_none_or(|before| before < revision), "lease {id} went backwards");
        assert!(resume >= safe, "the revision went backwards");
        safe = resume;
    }
    assert!(ids.into_iter().all(|id| last[&id] == 300 + id as u64));
}

#[tokio::test]
async fn too_slow_for_what_is_kept_is_out_of_range() {
    let world = World::new();
    let mut watcher = world.watch(0);
    assert_eq!(watcher.next().await.unwrap(), Synced(0));
    (1..=600).for_each(|id| world.change(active, id));
    world.state().floor = 599;
    assert_eq!(watcher.error().await.code(), Code::OutOfRange);
}

#[tokio::test]
async fn bookmarks_tell_how_far_the_broker_is_also_for_a_filter_that_finds_nothing() {
    let world = World::new();
    world.commit(&[active, active], &[1, 2]);
    let filter = Filter { leases: [LeaseId::new(1)].into(), ..Filter::new(Scope::All) };
    let mut watcher = world.watch_some(0, filter, Duration::from_millis(5));
    assert_eq!(watcher.take(2).await, [told(1, 1, 0), Synced(2)]);

    world.change(released, 2);
    while watcher.next().await.unwrap() != Bookmark(3) {}
    world.change(released, 1);
    let mut last = watcher.next().await.unwrap();
    while last == Bookmark(3) {
        last = watcher.next().await.unwrap();
    }
    assert_eq!(last, told(1, 4, 4));
}

#[tokio::test]
async fn a_bookmark_never_overtakes_the_changes_that_it_covers() {
    let world = World::new();
    let asked = Watching {
        filter: Filter::new(Scope::All),
        owner: None,
        from: Revision(0),
        include_ended: false,
        min: Revision(0),
        bookmarks: Duration::from_secs(60),
    };
    let (out, told_to) = mpsc::channel(CHANNEL);
    let mut watch = Watch::new(world.clone(), &asked, &out);
    world.commit(&[active, active], &[1, 2]);

    assert!(watch.bookmark().await.is_ok());

    let mut watcher = Watcher { told: told_to, stop: CancellationToken::new(), task: tokio::spawn(async {}) };
    assert_eq!(watcher.take(3).await, [told(1, 1, 1), told(2, 2, 2), Bookmark(2)]);
}

#[tokio::test]
async fn a_watch_of_a_lease_id_sends_an_ended_lease_and_refuses_an_unknown_one() {
    let world = World::new();
    world.change(active, 1);
    let named = |id| Filter { leases: [LeaseId::new(id)].into(), ..Filter::new(Scope::All) };
    let unknown = world.watch_some(0, named(7), Duration::from_secs(60)).error().await;
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "UNKNOWN_LEASE"));
    assert!(unknown.message().contains(&LeaseId::new(7).to_string()), "{}", unknown.message());
}

#[tokio::test]
async fn a_client_that_goes_away_frees_everything() {
    let world = World::new();
    let mut watcher = world.watch(0);
    watcher.next().await.unwrap();
    assert_eq!(world.hub.watchers(), 1);

    drop(watcher.told);
    watcher.task.await.unwrap();
    assert_eq!(world.hub.watchers(), 0);
}

/// A restarted exporter of labgrid was refused: the end of its former stream was still unnoticed.
#[tokio::test]
async fn labgrid_1855_an_agent_that_restarts_is_watched_for_though_its_former_watch_is_not_dead_yet() {
    let world = World::new();
    world.change(active, 1);
    let watch = || {
        let filter = Filter { leases: [LeaseId::new(1)].into(), ..Filter::new(Scope::All) };
        world.watch_some(0, filter, Duration::from_secs(3600))
    };
    // It has no reader any more.
    let former = watch();
    let mut again = watch();
    assert_eq!(again.take(2).await, [told(1, 1, 0), Synced(1)]);

    // More than the former one's queue and channel hold: it delays no other.
    for revision in 2..=1000 {
        world.change(active, 1);
        assert_eq!(again.next().await.unwrap(), told(1, revision, revision));
    }
    assert_eq!(world.hub.watchers(), 2);
    drop(former.told);
    former.task.await.unwrap();
    assert_eq!(world.hub.watchers(), 1, "when it is noticed, all that it had is free");
    world.change(released, 1);
    assert_eq!(again.next().await.unwrap(), told(1, 1001, 1001));
}

#[tokio::test]
async fn the_end_of_the_server_ends_the_watch_with_a_status() {
    let world = World::new();
    let mut watcher = world.watch(0);
    watcher.next().await.unwrap();
    watcher.stop.cancel();
    let status = watcher.error().await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STOPPING"));
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn credentials_are_sent_to_the_principal_that_the_watch_names_and_to_no_other() {
    for (owner, sent) in [(None, false), (Some("ann"), false), (Some("local"), true)] {
        let world = World::new();
        world.change(active, 1);
        let filter = Filter { leases: [LeaseId::new(1)].into(), ..Filter::new(Scope::All) };
        let mut watcher = world.watch_as(owner, 0, filter, Duration::from_secs(3600));
        // In the current state, and in a change.
        for _ in 0..2 {
            let lease = loop {
                match watcher.told.recv().await.unwrap().unwrap().event.unwrap() {
                    pb::watch_response::Event::Lease(lease) => break lease,
                    pb::watch_response::Event::Bookmark(_) => world.change(active, 1),
                }
            };
            assert_eq!(lease.access_pairs()["address"], "10.0.0.1");
            assert_eq!(lease.credentials.is_some(), sent, "{owner:?}");
        }
    }
}

/// A watcher that is cut off at random and resumes knows in the end what the broker knows.
#[tokio::test]
async fn a_resumed_watch_misses_no_end_state() {
    for seed in 1..=30u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut draw = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let world = World::new();
        let watch = |from| world.watch_some(from, Filter::new(Scope::All), Duration::from_millis(1));
        let (mut known, mut resume) = (BTreeMap::new(), 0);
        world.change(queued, 1);
        let mut watcher = watch(0);
        while resume == 0 {
            note(&mut watcher, &mut known, &mut resume).await;
        }
        for _ in 0..20 {
            watcher = watch(resume);
            for _ in 0..draw(40) {
                let make = [queued, active, released][draw(3) as usize];
                for _ in 0..draw(30) {
                    world.change(make, 1 + u128::from(draw(20)));
                }
                if draw(2) == 0 {
                    tokio::task::yield_now().await;
                }
                if draw(3) == 0 {
                    note(&mut watcher, &mut known, &mut resume).await;
                }
            }
        }
        watcher = watch(resume);
        while resume < world.state().revision {
            note(&mut watcher, &mut known, &mut resume).await;
        }
        let truth: BTreeMap<_, _> = world.state().leases.values().map(|l| (l.id.value(), l.revision.0)).collect();
        assert_eq!(known, truth, "seed {seed}");
    }
}

async fn note(watcher: &mut Watcher, known: &mut BTreeMap<u128, u64>, resume: &mut u64) {
    match watcher.next().await.unwrap() {
        Short::Lease(id, revision, safe) => {
            let before = known.insert(id, revision).unwrap_or_default();
            assert!(before <= revision, "lease {id} went from {before} back to {revision}");
            *resume = safe.max(*resume);
        }
        Synced(revision) | Bookmark(revision) => *resume = revision,
    }
}
