use super::*;
use crate::engine::{self, Adapters, EffectLimits, Engine, EngineConfig, Filter, Observed, Role, WatchEvent};
use crate::store::MemoryStore;
use wharfinger_core::{
    Caller, Claim, Input, Lease, LeaseId, LeaseRequest, LeaseState, Outcome, PoolConfig, Reply, Scope, Selector,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A leader and its follower.
struct Pair {
    store: MemoryStore,
    leader: Engine,
    stop: CancellationToken,
    follower: Follower,
}

fn limits() -> Limits {
    Limits::default()
}

/// A disabled pool: no resource is made, so leases stay queued until they are released.
fn pools() -> Vec<PoolConfig> {
    let traits = wharfinger_core::Traits { prepares: false, cleans: false, repairs: false, probes: false };
    let pool = crate::rpc::pool_for_tests(1, 1, traits);
    vec![PoolConfig { enabled: false, ..pool }]
}

fn config(store: &MemoryStore) -> EngineConfig {
    EngineConfig {
        store: Arc::new(store.clone()),
        configuration: pools().into(),
        limits: limits(),
        adapters: Adapters::default(),
        effects: EffectLimits::default(),
        observed: Observed::default(),
    }
}

fn following(store: &MemoryStore, max_age: Duration) -> Follower {
    let config =
        FollowConfig { store: Arc::new(store.clone()), configuration: pools().into(), limits: limits(), max_age };
    let follower = follow(config);
    follower.begin();
    follower
}

async fn pair() -> Pair {
    let store = MemoryStore::new();
    let stop = CancellationToken::new();
    let leader = engine::start(config(&store), stop.clone()).await.unwrap();
    let follower = following(&store, Duration::from_secs(10));
    Pair { store, leader, stop, follower }
}

async fn lease(leader: &Engine, number: u32) -> Arc<Lease> {
    let claims = vec![Claim::of(Selector::pool("p"), 1)];
    let request = LeaseRequest {
        holder: "h".into(),
        ..LeaseRequest::new(Caller::sole_tenant("local"), format!("r{number}"), claims)
    };
    match leader.handle.submit(Input::Lease(request)).await.unwrap() {
        Reply::Leases(mut leases) => leases.remove(0),
        other => panic!("{other:?}"),
    }
}

async fn release(leader: &Engine, lease: LeaseId) -> Arc<Lease> {
    let input = Input::Release {
        lease,
        caller: Caller::sole_tenant("local"),
        outcome: Outcome::Ok,
        note: "".into(),
        hold: None,
    };
    match leader.handle.submit(input).await.unwrap() {
        Reply::Leases(mut leases) => leases.remove(0),
        other => panic!("{other:?}"),
    }
}

async fn read(handle: &Handle, id: LeaseId) -> Result<Option<Arc<Lease>>, SubmitError> {
    handle.read(move |core, _| core.lease(id).cloned()).await
}

#[tokio::test]
async fn a_commit_of_the_leader_is_read_and_watched() {
    let Pair { leader, follower, .. } = pair().await;
    let handle = &follower.handle;
    let first = lease(&leader, 1).await;
    handle.reach(first.revision, PATIENCE).await.unwrap();
    assert_eq!(read(handle, first.id).await.unwrap(), Some(first.clone()));
    let place = handle.read(|core, _| core.pool("p").unwrap().waiting).await.unwrap();
    assert_eq!(place, 1);

    let mut watch = handle.hub().subscribe(Filter::new(Scope::All), 100);
    let mut revision = handle.hub().revision();
    for number in 2..20 {
        let next = lease(&leader, number).await;
        let WatchEvent::Lease(told) = watch.recv().await else { panic!("it lagged") };
        assert_eq!(told, next);
        let (have, wanted) = (*revision.borrow_and_update(), next.revision);
        assert!(have <= wanted);
    }
    let gone = release(&leader, first.id).await;
    let WatchEvent::Lease(told) = watch.recv().await else { panic!("it lagged") };
    assert_eq!((told.id, &told.state), (gone.id, &gone.state));
    assert!(matches!(told.state, LeaseState::Ended { .. }));
    handle.refresh().await.unwrap();
    let both = |core: &Core, _| (core.revision(), core.pool("p").unwrap().waiting, core.check_invariants());
    assert_eq!(handle.read(both).await.unwrap(), leader.handle.read(both).await.unwrap());
}

#[tokio::test]
async fn nothing_is_decided_by_one_that_follows() {
    let Pair { leader, follower, store, .. } = pair().await;
    follower
        .handle
        .leadership()
        .follow(Some(engine::LeaderInfo { address: "http://leader:1".into(), forwarding_key: "".into() }));
    let first = lease(&leader, 1).await;
    follower.handle.reach(first.revision, PATIENCE).await.unwrap();
    let before = store.load_now();
    let input = Input::Renew { lease: first.id, caller: Caller::sole_tenant("local"), ttl: None };
    match follower.handle.submit(input).await {
        Err(SubmitError::NotLeader(Some(leader))) => assert_eq!(&*leader, "http://leader:1"),
        other => panic!("{other:?}"),
    }
    follower.handle.refresh().await.unwrap();
    assert_eq!(store.load_now(), before);
}

#[tokio::test]
async fn a_revision_is_waited_for_and_one_that_never_was_is_refused() {
    let Pair { leader, follower, .. } = pair().await;
    let first = lease(&leader, 1).await;
    leader.handle.reach(first.revision, Duration::ZERO).await.unwrap();
    let never = Revision(first.revision.0 + 100);
    assert!(
        matches!(leader.handle.reach(never, PATIENCE).await, Err(SubmitError::Future { wanted, .. }) if wanted == never)
    );
    let behind = follower.handle.reach(never, Duration::from_millis(300)).await;
    assert!(matches!(behind, Err(SubmitError::Behind { have, wanted }) if have == first.revision && wanted == never));
    // The revision comes while the call waits.
    let handle = follower.handle.clone();
    let next = Revision(first.revision.0 + 1);
    let waiting = tokio::spawn(async move { handle.reach(next, PATIENCE).await });
    tokio::task::yield_now().await;
    lease(&leader, 2).await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_that_is_cut_off_says_nothing_that_is_too_old_and_recovers() {
    let Pair { leader, follower, store, .. } = pair().await;
    follower.stop().await;
    let follower = following(&store, Duration::from_secs(1));
    let handle = &follower.handle;
    let first = lease(&leader, 1).await;
    handle.reach(first.revision, PATIENCE).await.unwrap();
    store.cut(true);
    assert!(read(handle, first.id).await.unwrap().is_some(), "for a while it is good enough");
    let start = Instant::now();
    loop {
        match read(handle, first.id).await {
            Err(SubmitError::Stale { age: Some(_), .. }) => break,
            other => assert!(start.elapsed() < PATIENCE, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(matches!(handle.refresh().await, Err(SubmitError::Unavailable(_))));
    store.cut(false);
    while read(handle, first.id).await.is_err() {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_that_knows_nothing_yet_says_so() {
    let store = MemoryStore::new();
    let config = FollowConfig {
        store: Arc::new(store),
        configuration: pools().into(),
        limits: limits(),
        max_age: Duration::from_secs(10),
    };
    let follower = follow(config);
    let asked = read(&follower.handle, LeaseId::new(1)).await;
    assert!(matches!(asked, Err(SubmitError::Stale { age: None, .. })), "{asked:?}");
    follower.begin();
    follower.handle.refresh().await.unwrap();
    assert_eq!(read(&follower.handle, LeaseId::new(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_that_goes_back_ends_it() {
    let Pair { leader, mut follower, store, stop } = pair().await;
    let first = lease(&leader, 1).await;
    follower.handle.reach(first.revision, PATIENCE).await.unwrap();
    stop.cancel();
    store.lose_everything();
    tokio::time::timeout(PATIENCE, follower.failed()).await.expect("it ends");
}

/// Callers and watches go on through a take-over.
#[tokio::test]
async fn a_follower_takes_over_and_its_watches_continue() {
    let Pair { leader, follower, store, stop } = pair().await;
    let first = lease(&leader, 1).await;
    follower.handle.reach(first.revision, PATIENCE).await.unwrap();
    let handle = follower.handle.clone();
    let mut watch = handle.hub().subscribe(Filter::new(Scope::All), 100);
    let second = lease(&leader, 2).await;
    stop.cancel();
    leader.task.await.unwrap();

    let lead = crate::store::lead_for_tests(store.acquire_now());
    let leads = engine::take_over(follower, config(&store), lead, CancellationToken::new()).await.unwrap();
    assert_eq!(handle.leadership().role(), Role::Leading);
    assert_eq!(read(&handle, second.id).await.unwrap().map(|lease| lease.id), Some(second.id));
    let third = lease(&leads, 3).await;
    assert!(third.revision > second.revision);
    // Leases that the watch receives, or reads after it lagged, in order.
    let mut seen = second.revision;
    let mut told = Vec::new();
    while told.last() != Some(&third.id) {
        match watch.recv().await {
            WatchEvent::Lease(lease) => {
                assert!(lease.revision >= seen, "{lease:?}");
                seen = lease.revision;
                told.push(lease.id);
            }
            WatchEvent::Lagged => {
                let from = first.revision;
                let more = handle
                    .read(move |core, _| core.leases_changed_after(from).map(|lease| lease.id).collect::<Vec<_>>());
                told.extend(more.await.unwrap());
            }
        }
    }
    assert!(told.contains(&second.id), "{told:?}");
    // A repeated request returns the same lease.
    assert_eq!(lease(&leads, 2).await.id, second.id);
}

/// A store whose changes cannot be read while `blind`, and whose loads wait for permits of `loads`; all else works.
struct Blind {
    inner: MemoryStore,
    blind: std::sync::atomic::AtomicBool,
    loads: tokio::sync::Semaphore,
    loading: tokio::sync::Notify,
}

impl Blind {
    fn new() -> Self {
        Self {
            inner: MemoryStore::new(),
            blind: false.into(),
            loads: tokio::sync::Semaphore::new(100),
            loading: tokio::sync::Notify::new(),
        }
    }
}

#[async_trait::async_trait]
impl Store for Blind {
    async fn acquire(&self) -> Result<crate::store::Epoch, StoreError> {
        self.inner.acquire().await
    }

    async fn load(&self) -> Result<wharfinger_core::Snapshot, StoreError> {
        self.loading.notify_one();
        self.loads.acquire().await.unwrap().forget();
        self.inner.load().await
    }

    async fn commit(
        &self,
        batch: &wharfinger_core::Batch,
        epoch: crate::store::Epoch,
    ) -> Result<(), crate::store::CommitError> {
        self.inner.commit(batch, epoch).await
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<crate::store::Changes, StoreError> {
        if self.blind.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the changes cannot be read".into()));
        }
        self.inner.changes_since(after, limit).await
    }

    async fn events(&self, query: &crate::store::EventQuery) -> Result<Vec<crate::store::StoredEvent>, StoreError> {
        self.inner.events(query).await
    }
}

/// A client knows a revision of the former leader. The next leader accepts it, although it could not read the latest changes before
/// its take-over.
#[tokio::test]
async fn a_revision_of_the_former_leader_is_known_as_soon_as_the_next_one_leads() {
    let store = Arc::new(Blind::new());
    let stop = CancellationToken::new();
    let config = || EngineConfig { store: store.clone(), ..config(&store.inner) };
    let leader = engine::start(config(), stop.clone()).await.unwrap();
    let max_age = Duration::from_secs(10);
    let follower =
        follow(FollowConfig { store: store.clone(), configuration: pools().into(), limits: limits(), max_age });
    follower.begin();
    follower.handle.refresh().await.unwrap();
    store.blind.store(true, std::sync::atomic::Ordering::Relaxed);
    let last = lease(&leader, 1).await;
    stop.cancel();
    leader.task.await.unwrap();

    let handle = follower.handle.clone();
    let lead = crate::store::lead_for_tests(store.inner.acquire_now());
    // While the new leader loads the store, it does not yet call itself the leader.
    store.loads.forget_permits(100);
    let _ = tokio::time::timeout(Duration::ZERO, store.loading.notified()).await;
    let taking_over = tokio::spawn(engine::take_over(follower, config(), lead, CancellationToken::new()));
    store.loading.notified().await;
    let early = handle.reach(last.revision, Duration::ZERO).await;
    assert!(matches!(early, Err(SubmitError::Behind { .. })), "{early:?}");
    store.loads.add_permits(1);
    let leads = taking_over.await.unwrap().unwrap();
    assert_eq!(handle.leadership().role(), Role::Leading);
    handle.reach(last.revision, Duration::ZERO).await.unwrap();
    assert_eq!(read(&leads.handle, last.id).await.unwrap().map(|lease| lease.id), Some(last.id));
}
