//! The engine with a fake adapter and a memory store: what leaves it, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wharfinger::engine::{self, Adapters, EffectLimits, Engine, EngineConfig, Observed, SubmitError};
use wharfinger::store::{EventQuery, Fault, MemoryStore, Store};
use wharfinger_adapter::{Failure, NoticeKind, NoticeTarget, Traits, Verdict, WallTime};
use wharfinger_core::{
    AdminRequest, AdminVerb, Batch, BlockerCode, Brake, Caller, Claim, DoubtPolicy, EventKind, Input, Isolation,
    Labels, Lease, LeaseId, LeaseRequest, LeaseState, Limits, Millis, Outcome, PoolConfig, Reply, ResourceId,
    ResourceState, Scope, Selector, Timeouts, Timestamp,
};
use wharfinger_fake::{Call, Fake};

pub(crate) const ALL: Traits = Traits { prepares: true, cleans: true, repairs: true, probes: false };

pub(crate) fn pool(max: u32, slots: u32) -> PoolConfig {
    PoolConfig {
        name: Arc::from("pool"),
        adapter: Arc::from("fake"),
        labels: Labels::new(),
        enabled: true,
        disabled_reason: None,
        on: Vec::new(),
        inventory: None,
        min_ready: 0,
        max,
        max_per_parent: None,
        slots,
        idle: None,
        max_age: None,
        max_uses: None,
        traits: Traits { prepares: true, cleans: true, repairs: true, probes: false },
        doubt: DoubtPolicy { retry_interval: Millis(20), over: Millis(50), ..DoubtPolicy::default() },
        default_ttl: Millis::secs(60),
        max_ttl: Millis::secs(3600),
        attempts: 5,
        brake: Brake::default(),
        domain: None,
        drain: None,
        max_hold: Millis::ZERO,
        isolation: Isolation::None,
        reuse_across_tenants: true,
        timeouts: Timeouts::default(),
    }
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    /// The adapter of the first pool.
    pub(crate) fake: Fake,
    pub(crate) store: MemoryStore,
    stop: CancellationToken,
}

pub(crate) async fn world(pool: PoolConfig) -> World {
    world_of(vec![(pool, Fake::new("pool", ALL))], EffectLimits::default()).await
}

pub(crate) async fn world_of(pools: Vec<(PoolConfig, Fake)>, effects: EffectLimits) -> World {
    world_on(MemoryStore::new(), pools, effects).await
}

async fn world_on(store: MemoryStore, pools: Vec<(PoolConfig, Fake)>, effects: EffectLimits) -> World {
    let adapters = Adapters::default();
    for (pool, fake) in &pools {
        adapters.insert(&*pool.name, Arc::new(fake.clone()));
    }
    let stop = CancellationToken::new();
    let (pools, fakes): (Vec<PoolConfig>, Vec<Fake>) = pools.into_iter().unzip();
    let config = EngineConfig {
        store: Arc::new(store.clone()),
        configuration: pools.into(),
        limits: Limits::default(),
        adapters,
        effects,
        observed: Observed::default(),
    };
    let engine = engine::start(config, stop.clone()).await.unwrap();
    for fake in &fakes {
        wharfinger_adapter::Adapter::subscribe(fake, engine.notices.clone());
    }
    World { engine, fake: fakes[0].clone(), store, stop }
}

pub(crate) fn request(id: &str) -> LeaseRequest {
    LeaseRequest {
        holder: Arc::from(id),
        ..LeaseRequest::new(Caller::sole_tenant("test"), id, vec![Claim::of(Selector::pool("pool"), 1)])
    }
}

impl World {
    pub(crate) async fn lease(&self, id: &str) -> LeaseId {
        self.ask(request(id)).await
    }

    pub(crate) async fn ask(&self, request: LeaseRequest) -> LeaseId {
        loop {
            match self.engine.handle.submit(Input::Lease(request.clone())).await {
                Ok(Reply::Leases(leases)) => return leases[0].id,
                Ok(other) => panic!("{other:?}"),
                // As a client would: the same request again.
                Err(SubmitError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn get(&self, id: LeaseId) -> Arc<Lease> {
        loop {
            if let Ok(found) = self.engine.handle.read(move |core, _| core.lease(id).cloned()).await {
                return found.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn wait(&self, id: LeaseId, what: &str, condition: impl Fn(&Lease) -> bool) -> Arc<Lease> {
        let waiting = async {
            loop {
                let lease = self.get(id).await;
                if condition(&lease) {
                    return lease;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), waiting).await {
            Ok(lease) => lease,
            Err(_) => panic!("waited in vain for {what}: {:?}", self.get(id).await),
        }
    }

    pub(crate) async fn active(&self, id: LeaseId) -> Arc<Lease> {
        self.wait(id, "ACTIVE", |lease| matches!(lease.state, LeaseState::Active { .. })).await
    }

    pub(crate) async fn release(&self, lease: LeaseId, outcome: Outcome) {
        let input =
            Input::Release { lease, caller: Caller::sole_tenant("test"), outcome, note: Arc::from(""), hold: None };
        self.engine.handle.submit(input).await.unwrap();
    }

    pub(crate) async fn admin(&self, verb: AdminVerb) {
        let (caller, reason) = (Caller::sole_tenant("test"), Arc::from("because"));
        self.engine
            .handle
            .submit(Input::Admin(AdminRequest { caller, reason, verb, if_revision: None }))
            .await
            .unwrap();
    }

    pub(crate) async fn until(&self, id: ResourceId, what: &str, condition: impl Fn(&ResourceState) -> bool) {
        let state = || self.engine.handle.read(move |core, _| core.resource(id).map(|row| row.state.clone()));
        let waiting = async {
            while !state().await.is_ok_and(|state| state.is_some_and(|state| condition(&state))) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), waiting).await.is_err() {
            panic!("waited in vain for {id} to be {what}: {:?}", state().await);
        }
    }

    async fn state_of(&self, lease: &Lease) -> ResourceState {
        let id = lease.assignment().unwrap().resource;
        self.engine.handle.read(move |core, _| core.resource(id).unwrap().state.clone()).await.unwrap()
    }
}

#[tokio::test]
async fn the_exclusive_pool_keeps_its_waiter_while_a_check_is_under_way() {
    let world = world(pool(1, 1)).await;
    let first = world.lease("first").await;
    world.active(first).await;
    world.fake.hold(Call::Check);
    world.release(first, Outcome::Failed).await;
    world.fake.wait_for(|calls| calls.iter().any(|made| made.call == Call::Check)).await;
    let second = world.lease("second").await;
    assert!(matches!(world.get(second).await.state, LeaseState::Queued), "nothing is granted on what is in doubt");
    let why = world.engine.handle.read(move |core, now| core.explain(second, now, &Scope::All)).await.unwrap().unwrap();
    assert_eq!(why.blockers[0].code, BlockerCode::InDoubt, "{why:?}");
    world.fake.let_go(Call::Check);
    world.active(second).await;
    assert_eq!(world.fake.count(Call::Provision), 1, "the same resource, cleared");
}

#[tokio::test]
async fn five_leases_and_one_pending_host_are_one_host() {
    let world = world(pool(5, 5)).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(world.lease(&format!("n{n}")).await);
    }
    for id in ids {
        world.active(id).await;
    }
    assert_eq!(world.fake.count(Call::Provision), 1);
}

#[tokio::test]
async fn a_cleaning_ends_the_preparation_that_still_runs() {
    let world = world(pool(1, 1)).await;
    world.fake.hold(Call::Prepare);
    let first = world.lease("first").await;
    world.fake.wait_for(|calls| calls.iter().any(|made| made.call == Call::Prepare)).await;
    world.release(first, Outcome::Ok).await;
    world.fake.wait_for(|calls| calls.iter().any(|made| made.call == Call::Clean)).await;
    world.fake.let_go(Call::Prepare);
    let second = world.lease("second").await;
    world.active(second).await;
}

#[tokio::test]
async fn a_fault_of_the_request_fails_it_and_taints_nothing() {
    let world = world(pool(1, 1)).await;
    world.fake.fail_next(Call::Prepare, Failure::request("REF_NOT_FOUND", "no such branch"));
    let first = world.lease("first").await;
    let failed = world.wait(first, "FAILED", |lease| lease.ended()).await;
    assert!(format!("{:?}", failed.state).contains("REF_NOT_FOUND"), "{:?}", failed.state);
    let second = world.lease("second").await;
    world.active(second).await;
    assert_eq!(world.fake.count(Call::Check), 0, "no doubt");
    assert_eq!(world.fake.count(Call::Provision), 1);
}

#[tokio::test]
async fn a_dud_sends_the_lease_to_another_resource() {
    let world = world(pool(2, 1)).await;
    world.fake.hold(Call::Check);
    world.fake.fail_next(Call::Prepare, Failure::resource("MANGLED", "no .git"));
    let lease = world.lease("first").await;
    let active = world.active(lease).await;
    assert_eq!(active.attempts, 1);
    assert!(!active.avoid.contains(&active.assignment().unwrap().resource), "it was served elsewhere");
}

#[tokio::test]
async fn an_unreachable_host_is_in_doubt_and_becomes_a_break_by_evidence() {
    let world = world(pool(1, 1)).await;
    let first = world.lease("first").await;
    let active = world.active(first).await;
    let resource = active.assignment().unwrap().resource.to_string();
    world.fake.hold(Call::Check);
    world.fake.set_truth(&resource, Verdict::Unreachable { reason: "TIMEOUT", detail: "no answer".into() });
    assert!(world.fake.notice(NoticeTarget::Resource(resource), NoticeKind::ConnectionLost, "reset").await);
    let told = world.wait(first, "doubt", |lease| lease.doubt.is_some()).await;
    assert!(matches!(told.state, LeaseState::Active { .. }), "doubt breaks nothing");
    assert!(matches!(world.state_of(&told).await, ResourceState::Suspect { .. }));
    world.fake.let_go(Call::Check);
    let broken = world.wait(first, "BROKEN", |lease| lease.ended()).await;
    assert!(format!("{:?}", broken.state).contains("times in a row"), "{:?}", broken.state);
}

#[tokio::test]
async fn a_store_that_fails_loses_nothing_that_was_acknowledged() {
    let world = world(pool(3, 10)).await;
    for (n, fault) in [Fault::NotCommitted, Fault::InDoubtLost, Fault::InDoubtStored].into_iter().enumerate() {
        let before = world.lease(&format!("before{n}")).await;
        world.active(before).await;
        world.store.inject(fault);
        let after = world.lease(&format!("after{n}")).await;
        world.active(after).await;
        world.active(before).await;
    }
    assert_eq!(world.fake.count(Call::Provision), 1, "nothing is launched twice");
}

#[tokio::test]
async fn an_order_of_an_operator_is_in_the_trail_though_it_changed_nothing() {
    let world = world(pool(1, 1)).await;
    let lease = world.active(world.lease("one").await).await;
    let resource = lease.assignment().unwrap().resource;
    for reason in ["once", "and again"] {
        let (caller, reason) = (Caller::sole_tenant("test"), Arc::from(reason));
        let verb = AdminVerb::Drain(resource, None);
        world
            .engine
            .handle
            .submit(Input::Admin(AdminRequest { caller, reason, verb, if_revision: None }))
            .await
            .unwrap();
    }
    let query = EventQuery { resource: Some(resource), itself: true, limit: 100, ..EventQuery::default() };
    let told = world.engine.handle.events(&query).await.unwrap();
    let asked =
        told.iter().filter(|entry| entry.kind == EventKind::ResourceDrainAsked.as_str()).map(|entry| &*entry.detail);
    assert!(asked.eq(["once", "and again"]), "{told:?}");
}

#[tokio::test]
async fn operations_under_way_continue_after_a_restart() {
    let world = world(pool(1, 1)).await;
    world.fake.hold(Call::Provision);
    let first = world.lease("first").await;
    world.fake.wait_for(|calls| calls.iter().any(|made| made.call == Call::Provision)).await;
    world.stop.cancel();
    world.engine.task.await.unwrap();

    let adapters = Adapters::default();
    adapters.insert("pool", Arc::new(world.fake.clone()));
    let config = EngineConfig {
        store: Arc::new(world.store.clone()),
        configuration: vec![pool(1, 1)].into(),
        limits: Limits::default(),
        adapters,
        effects: EffectLimits::default(),
        observed: Observed::default(),
    };
    let engine = engine::start(config, CancellationToken::new()).await.unwrap();
    let again = World { engine, fake: world.fake, store: world.store, stop: CancellationToken::new() };
    again.fake.let_go(Call::Provision);
    again.active(first).await;
    let calls = again.fake.calls();
    let ops: Vec<u64> = calls.iter().filter(|made| made.call == Call::Provision).map(|made| made.op).collect();
    assert!(ops.iter().all(|op| *op == ops[0]), "the same operation, by its number: {ops:?}");
}

/// A call that a recovery has ended may have its note in the mailbox still.
#[tokio::test]
async fn a_note_of_an_ended_call_is_refused() {
    let world = world(pool(1, 1)).await;
    world.fake.hold(Call::Provision);
    world.lease("first").await;
    world.fake.wait_for(|calls| calls.iter().any(|made| made.call == Call::Provision)).await;
    let read = || async {
        let asked = world.engine.handle.read(|core, _| core.resources(None).next().cloned()).await;
        asked.unwrap().unwrap()
    };
    let row = read().await;
    let ResourceState::Provisioning { op: Some(op), .. } = row.state else { panic!("{row:?}") };
    let note = |text: &str| Input::Noted { resource: row.id, op, handle: Arc::from(text) };
    world.engine.handle.submit(note("in time")).await.unwrap();
    tokio::select! {
        biased;
        _ = world.engine.handle.submit(note("late")) => panic!("the engine has not had its turn"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(read().await.handle.as_deref(), Some("in time"));
}

#[tokio::test]
async fn a_configuration_whose_commit_fails_leaves_everything_as_it_was() {
    for fault in [Fault::NotCommitted, Fault::InDoubtLost, Fault::InDoubtStored] {
        let world = world(PoolConfig { enabled: false, ..pool(1, 1) }).await;
        let lease = world.lease("first").await;
        let enabled = || world.engine.handle.read(|core, _| core.pool("pool").unwrap().config.enabled);
        let changed = Arc::new(AtomicBool::new(false));
        let set = |changed: &Arc<AtomicBool>| {
            let changed = changed.clone();
            move || changed.store(true, Ordering::SeqCst)
        };
        world.store.inject(fault);
        let refused = world.engine.handle.configure(vec![pool(1, 1)], set(&changed)).await;
        assert!(matches!(refused, Err(SubmitError::Unavailable(_))), "{fault:?}: {refused:?}");
        world.wait(lease, "QUEUED", |lease| matches!(lease.state, LeaseState::Queued)).await;
        assert!(!enabled().await.unwrap(), "{fault:?}: the recovered core has what it had");
        assert!(!changed.load(Ordering::SeqCst), "{fault:?}: nor has anything else changed");

        world.engine.handle.configure(vec![pool(1, 1)], set(&changed)).await.unwrap();
        assert!(changed.load(Ordering::SeqCst));
        world.active(lease).await;
    }
}

fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

/// An earlier process committed under a clock that was two hours ahead, and the clock was set right before this one starts.
#[tokio::test]
async fn a_clock_that_was_ahead_once_stops_nothing() {
    let store = MemoryStore::new();
    let epoch = store.acquire().await.unwrap();
    let ahead = Millis::secs(2 * 3600);
    store.commit(&Batch { now: wall().after(ahead), ..Batch::default() }, epoch).await.unwrap();
    let pool = PoolConfig { default_ttl: Millis::secs(5), ..pool(2, 1) };
    let world = world_on(store, vec![(pool, Fake::new("pool", ALL))], EffectLimits::default()).await;
    let reading = world.engine.handle.clock().read();
    assert!((reading.offset().0 - ahead.0).abs() < 60_000, "{reading:?}");
    assert_eq!(world.engine.handle.clock_warnings().len(), 1, "an operator hears of it");

    let announced = world.lease("announced").await;
    let resource = world.active(announced).await.assignment().unwrap().resource;
    let silent = world.lease("silent").await;
    let active = world.active(silent).await;
    let left = reading.to_wall(active.expires_at.unwrap()).0 - wall().0;
    assert!(left > 0 && left <= 5600, "clients see a lease of five seconds, not of two hours: {left}");
    // The provider announces an end by the wall clock.
    let end = wall().after(Millis::secs(3));
    let target = NoticeTarget::Resource(resource.to_string());
    assert!(world.fake.notice(target, NoticeKind::Interruption(WallTime(end.0)), "spot").await);
    let told = world.wait(announced, "its end", |lease| lease.ends_at.is_some()).await;
    let shown = world.engine.handle.clock().read().to_wall(told.ends_at.unwrap());
    assert!((shown.0 - end.0).abs() <= 50, "{shown:?} for {end:?}");
    assert!(!told.ended(), "not before its time");
    let broken = world.wait(announced, "BROKEN", |lease| lease.ended()).await;
    assert!(wall() >= Timestamp(end.0 - 50) && format!("{:?}", broken.state).contains("Broken"), "{:?}", broken.state);
    let expired = world.wait(silent, "EXPIRED", |lease| lease.ended()).await;
    assert!(format!("{:?}", expired.state).contains("Expired"), "{:?}", expired.state);
}
